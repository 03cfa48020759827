//! Validation of settings, when they are made rather than at the first connection.

use crate::base::time::Duration;
use crate::quic::TransportConfig;
use crate::quic::config_error::ConfigError;
use crate::quic::path::MIN_MTU;
use crate::wire::quic::params::ACK_DELAY_LIMIT;
use crate::wire::quic::varint;

/// Upper limit of times. An unlimited time is expressed in other ways.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

/// Unit of times in transport parameters (RFC 9000 §18.2).
const MILLISECOND: Duration = Duration::from_millis(1);

/// Maximum `max_ack_delay`.
const MAX_ACK_DELAY: Duration = Duration::from_millis(ACK_DELAY_LIMIT - 1);

/// Maximum number of streams that may be allowed to a peer (RFC 9000 §4.6).
const MAX_STREAMS: u64 = 1 << 60;

/// Maximum UDP payload over IPv4 and IPv6, in bytes.
const MAX_UDP_PAYLOAD: u64 = 65_527;

fn number(name: &'static str, value: u64, min: u64, max: u64) -> Result<(), ConfigError> {
    if (min..=max).contains(&value) { Ok(()) } else { Err(ConfigError::Number { name, value, min, max }) }
}

fn time(name: &'static str, value: Duration, min: Duration, max: Duration) -> Result<(), ConfigError> {
    if (min..=max).contains(&value) { Ok(()) } else { Err(ConfigError::Time { name, value, min, max }) }
}

impl TransportConfig {
    /// Checks the settings. [`ServerConfig::new`](crate::quic::ServerConfig::new) and
    /// [`ClientConfig::new`](crate::quic::ClientConfig::new) call this.
    ///
    /// # Errors
    /// [`ConfigError`] names the first invalid setting and its valid range.
    pub fn validate(&self) -> Result<(), ConfigError> {
        if let Some(first) = self.first_version.filter(|first| !self.versions.contains(first)) {
            return Err(ConfigError::FirstVersion { first, versions: self.versions.clone() });
        }
        let provided = self.provider.as_ref().map_or(0, |provider| provider.initial_window());
        let windows = [
            ("max_data", self.max_data),
            ("max_window", self.max_window),
            ("stream_window_bidi_local", self.stream_window_bidi_local),
            ("stream_window_bidi_remote", self.stream_window_bidi_remote),
            ("stream_window_uni", self.stream_window_uni),
            ("initial_window of the provider", provided),
        ];
        for (name, value) in windows {
            number(name, value, 0, varint::MAX)?;
        }
        number("max_streams_bidi", self.max_streams_bidi, 0, MAX_STREAMS)?;
        number("max_streams_uni", self.max_streams_uni, 0, MAX_STREAMS)?;
        number("max_udp_payload", self.max_udp_payload.into(), MIN_MTU.into(), MAX_UDP_PAYLOAD)?;
        let v6 = self.max_udp_payload_v6.unwrap_or(self.max_udp_payload);
        number("max_udp_payload_v6", v6.into(), MIN_MTU.into(), MAX_UDP_PAYLOAD)?;
        number("send_budget", self.send_budget, 1, u64::MAX)?;
        number("packets_per_key", self.packets_per_key, 1, u64::MAX)?;
        number("ack_frequency", self.ack_frequency.into(), 1, u32::MAX.into())?;
        // Shorter timeouts would be announced as 0, which disables the timeout.
        if !self.max_idle_timeout.is_zero() {
            time("max_idle_timeout", self.max_idle_timeout, MILLISECOND, LONGEST)?;
        }
        time("handshake_timeout", self.handshake_timeout, MILLISECOND, LONGEST)?;
        time("initial_rtt", self.initial_rtt, Duration::from_micros(1), Duration::from_secs(60))?;
        time("max_ack_delay", self.max_ack_delay, Duration::ZERO, MAX_ACK_DELAY)?;
        self.min_ack_delay.map_or(Ok(()), |delay| time("min_ack_delay", delay, Duration::ZERO, MAX_ACK_DELAY))?;
        if let Some(datagrams) = &self.datagrams {
            number("receive_queue of datagrams", datagrams.receive_queue as u64, 1, u64::MAX)?;
            number("send_queue of datagrams", datagrams.send_queue as u64, 1, u64::MAX)?;
        }
        self.keep_alive.map_or(Ok(()), |every| time("keep_alive", every, MILLISECOND, LONGEST))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::mem::PinnedBuf;
    use crate::quic::{BufferProvider, StreamId};
    use crate::wire::quic::Version;

    /// RFC 9002 §6.2.2: "When no previous RTT is available, the initial RTT SHOULD be set to 333 milliseconds."
    #[test]
    fn the_first_round_trip_time_is_that_of_the_rfc() {
        assert_eq!(TransportConfig::default().initial_rtt, Duration::from_millis(333));
    }

    #[test]
    fn the_defaults_are_possible() {
        assert_eq!(TransportConfig::default().validate(), Ok(()));
    }

    /// Each of these led to a panic, a refusal by every peer, or a connection that could not work.
    #[test]
    fn what_cannot_work_is_named() {
        type Break = fn(&mut TransportConfig);
        let broken: [(Break, &str); 28] = [
            (
                |c| (c.versions, c.first_version) = (Version::V1.into(), Some(Version::V2)),
                "first_version is v2; it must be one of the versions (v1)",
            ),
            (|c| c.max_data = u64::MAX, "max_data is 18446744073709551615; it must be from 0 to 4611686018427387903"),
            (|c| c.stream_window_bidi_local = 1 << 62, "stream_window_bidi_local is "),
            (|c| c.stream_window_bidi_remote = u64::MAX, "stream_window_bidi_remote is "),
            (|c| c.stream_window_uni = u64::MAX, "stream_window_uni is "),
            (|c| c.max_streams_bidi = (1 << 60) + 1, "max_streams_bidi is "),
            (|c| c.max_streams_uni = u64::MAX, "max_streams_uni is "),
            (|c| c.max_udp_payload = 1000, "max_udp_payload is 1000; it must be from 1200 to 65527"),
            (|c| c.max_udp_payload = u16::MAX, "max_udp_payload is 65535"),
            (|c| c.max_udp_payload_v6 = Some(1199), "max_udp_payload_v6 is 1199; it must be from 1200 to 65527"),
            (|c| c.send_budget = 0, "send_budget is 0"),
            (|c| c.ack_frequency = 0, "ack_frequency is 0"),
            (|c| c.packets_per_key = 0, "packets_per_key is 0"),
            (|c| c.max_idle_timeout = Duration::from_micros(500), "max_idle_timeout is 500µs; it must be from 1ms to "),
            (|c| c.max_idle_timeout = Duration::MAX, "max_idle_timeout is "),
            (|c| c.handshake_timeout = Duration::ZERO, "handshake_timeout is 0ns"),
            (|c| c.handshake_timeout = Duration::MAX, "handshake_timeout is "),
            (|c| c.initial_rtt = Duration::ZERO, "initial_rtt is 0ns"),
            (|c| c.initial_rtt = Duration::MAX, "initial_rtt is "),
            (|c| c.max_ack_delay = Duration::from_secs(20), "max_ack_delay is 20s; it must be from 0ns to 16.383s"),
            (|c| c.max_ack_delay = Duration::from_micros(16_383_001), "max_ack_delay is "),
            (|c| c.keep_alive = Some(Duration::ZERO), "keep_alive is 0ns"),
            (|c| c.keep_alive = Some(Duration::MAX), "keep_alive is "),
            (|c| c.provider = Some(Arc::new(Boundless)), "initial_window of the provider is "),
            (|c| c.max_idle_timeout = LONGEST + MILLISECOND, "max_idle_timeout is "),
            (|c| c.min_ack_delay = Some(Duration::from_secs(17)), "min_ack_delay is 17s"),
            (|c| c.datagrams.get_or_insert_default().receive_queue = 0, "receive_queue of datagrams is 0"),
            (|c| c.datagrams.get_or_insert_default().send_queue = 0, "send_queue of datagrams is 0"),
        ];
        for (breaks, says) in broken {
            let mut config = TransportConfig::default();
            breaks(&mut config);
            let error = config.validate().unwrap_err().to_string();
            assert!(error.starts_with(says), "{error:?} should begin with {says:?}");
        }
    }

    #[test]
    fn extremes_are_possible() {
        let config = TransportConfig {
            max_idle_timeout: LONGEST,
            max_data: varint::MAX,
            stream_window_bidi_local: 0,
            stream_window_bidi_remote: varint::MAX,
            max_streams_bidi: 0,
            max_streams_uni: MAX_STREAMS,
            send_budget: u64::MAX,
            max_ack_delay: MAX_ACK_DELAY,
            max_udp_payload: 65_527,
            ..TransportConfig::default()
        };
        assert_eq!(config.validate(), Ok(()));
        assert_eq!(TransportConfig { max_idle_timeout: Duration::ZERO, ..config }.validate(), Ok(()));
    }

    struct Boundless;

    impl BufferProvider for Boundless {
        fn initial_window(&self) -> u64 {
            u64::MAX
        }

        fn provide(&self, _: StreamId, _: &mut dyn FnMut(PinnedBuf)) {}
    }
}
