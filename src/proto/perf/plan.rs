//! The plan of a load.

use std::net::SocketAddr;

use thiserror::Error;

use crate::base::time::Duration;
use crate::mem::AllocError;
use crate::proto::perf::{SIZE_LEN, UNLIMITED};
use crate::quic::{ClientConfig, ConfigError};
use crate::wire::quic::varint;

/// The size of receive buffers of a long download, in bytes.
const BUFFER: usize = 2 << 20;

/// The number of receive buffers of a long download.
const RING: usize = 8;

/// The maximum number of connections: as many as a core's IDs can distinguish.
const MAX_CONNECTIONS: u32 = 1 << 24;

/// The maximum number of requests in flight on one connection.
const MAX_STREAMS: u32 = 1 << 20;

/// The maximum request rate per second: one per nanosecond, the resolution of time.
const MAX_RATE: f64 = 1e9;

/// The minimum buffer size in bytes: a page.
const MIN_BUFFER: usize = 4096;

/// A load to generate.
#[derive(Clone, Debug)]
pub struct PerfPlan {
    /// The server.
    pub remote: SocketAddr,
    /// The name that its certificate must be valid for.
    pub server_name: String,
    /// TLS and transport settings. Windows are adapted to the load.
    pub client_config: ClientConfig,
    /// Payload bytes of each request, after the 8 of the size field.
    pub upload: u64,
    /// Bytes of each answer; [`UNLIMITED`] continues until `duration` is over.
    pub download: u64,
    /// The total number of requests (or handshakes) to measure; `None` to run until `duration` is over.
    pub requests: Option<u64>,
    /// How long to start requests, excluding the warm-up; `None` to run until `requests` are made.
    pub duration: Option<Duration>,
    /// Requests per second, whether or not answers arrive (open loop); `None` to start a request for each answer
    /// (closed loop).
    pub rate: Option<f64>,
    /// The number of connections to spread requests over; in `handshakes` mode, of handshakes in flight.
    pub connections: u32,
    /// The maximum number of requests in flight on each connection.
    pub streams: u32,
    /// How long to apply the load before measuring.
    pub warmup: Duration,
    /// How long requests may take to complete after `duration` is over.
    pub grace: Duration,
    /// The maximum number of handshakes in flight while `connections` are opened.
    pub max_handshakes: u32,
    /// Open and close connections as fast as possible instead of making requests.
    pub handshakes: bool,
    /// In `handshakes` mode, each connection makes one request and is closed after the answer. Requests are sent as 0-RTT
    /// data where the client's settings and a resumed session allow it ([`ClientConfig::with_early_data`]).
    pub early_data: bool,
    /// Compare each byte of the answers with what our server sends. Costs a pass over all of them.
    pub verify: bool,
}

/// The reason why a plan is invalid.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum PlanError {
    /// The run would never end.
    #[error("neither a number of requests nor a duration is given: the run would never end")]
    Endless,
    /// The resulting transport settings are invalid.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// An unlimited download needs a duration.
    #[error("an unlimited download needs a duration")]
    UnlimitedWithoutDuration,
    /// A number must not be 0.
    #[error("{0} is 0: give at least 1")]
    Zero(&'static str),
    /// A number is too large.
    #[error("{n} {what} are too many: the most is {max}")]
    TooMany {
        /// What is counted.
        what: &'static str,
        /// The requested number.
        n: u32,
        /// The maximum.
        max: u32,
    },
    /// The rate is out of range.
    #[error("a rate of {0} requests per second is not possible: give a number above 0 and up to {MAX_RATE:e}")]
    Rate(f64),
    /// A rate is given in `handshakes` mode.
    #[error("handshakes are made as fast as possible: omit the rate")]
    RateOfHandshakes,
    /// Early data is asked for without `handshakes` mode, in which requests wait for all connections.
    #[error("early data is for connections that are opened for a request each: ask for handshakes")]
    EarlyWithoutHandshakes,
    /// An unlimited answer to early data would keep its connection for ever.
    #[error("an unlimited download is not possible with early data")]
    EarlyUnlimited,
    /// An upload or download is longer than a stream can be.
    #[error("{what} of {bytes} bytes does not fit on a stream: the most is {max}")]
    TooLong {
        /// Which of them.
        what: &'static str,
        /// The length in bytes.
        bytes: u64,
        /// The maximum in bytes.
        max: u64,
    },
    /// The receive buffers do not fit into the pool.
    #[error(
        "no memory to receive {streams} answers at a time ({error}); ask for fewer at a time or give the pool more memory"
    )]
    Memory {
        /// The number of answers in flight.
        streams: u64,
        /// The error of the pool.
        error: AllocError,
    },
}

impl PerfPlan {
    /// A closed loop with one request of 8 bytes and an empty answer, to be adapted.
    pub fn new(remote: SocketAddr, server_name: impl Into<String>, client_config: ClientConfig) -> Self {
        Self {
            remote,
            server_name: server_name.into(),
            client_config,
            upload: 0,
            download: 0,
            requests: Some(1),
            duration: None,
            rate: None,
            connections: 1,
            streams: 1,
            warmup: Duration::ZERO,
            grace: Duration::from_secs(1),
            max_handshakes: 64,
            handshakes: false,
            early_data: false,
            verify: false,
        }
    }

    /// Checks the plan.
    ///
    /// # Errors
    /// The first problem found.
    pub fn check(&self) -> Result<(), PlanError> {
        if self.requests.is_none() && self.duration.is_none() {
            return Err(PlanError::Endless);
        }
        if self.download == UNLIMITED && self.duration.is_none() && !self.handshakes {
            return Err(PlanError::UnlimitedWithoutDuration);
        }
        let counts =
            [("connections", self.connections), ("streams", self.streams), ("handshakes", self.max_handshakes)];
        if let Some((name, _)) = counts.iter().find(|(_, n)| *n == 0) {
            return Err(PlanError::Zero(name));
        }
        let most = [("connections", self.connections, MAX_CONNECTIONS), ("streams", self.streams, MAX_STREAMS)];
        if let Some((what, n, max)) = most.into_iter().find(|(_, n, max)| n > max) {
            return Err(PlanError::TooMany { what, n, max });
        }
        if self.requests == Some(0) {
            return Err(PlanError::Zero("requests"));
        }
        match self.rate {
            Some(rate) if !(rate > 0.0 && rate <= MAX_RATE) => return Err(PlanError::Rate(rate)),
            Some(_) if self.handshakes => return Err(PlanError::RateOfHandshakes),
            _ => {}
        }
        if self.early_data && !self.handshakes {
            return Err(PlanError::EarlyWithoutHandshakes);
        }
        if self.early_data && self.download == UNLIMITED {
            return Err(PlanError::EarlyUnlimited);
        }
        let max = varint::MAX - SIZE_LEN as u64;
        let sizes = [("an upload", self.upload), ("a download", self.download)];
        match sizes.into_iter().find(|(_, n)| *n > max && *n != UNLIMITED) {
            Some((what, bytes)) => Err(PlanError::TooLong { what, bytes, max }),
            None if self.upload == UNLIMITED => Err(PlanError::TooLong { what: "an upload", bytes: self.upload, max }),
            None => Ok(()),
        }
    }

    /// The maximum number of requests in flight, of which handshakes alone have none.
    pub fn in_flight(&self) -> u64 {
        let streams = match (self.handshakes, self.early_data) {
            (true, early) => u32::from(early),
            (false, _) => self.streams,
        };
        let slots = u64::from(self.connections) * u64::from(streams);
        if self.warmup.is_zero() { slots.min(self.requests.unwrap_or(u64::MAX)) } else { slots }
    }

    /// The share of core `core` of `cores` in the load; all shares add up to the whole. `None` if it gets no share, as
    /// there are fewer connections or requests than cores.
    pub fn share(&self, core: u32, cores: u32) -> Option<Self> {
        let cores = cores.max(1).min(self.connections).min(self.requests.map_or(u32::MAX, |n| n.min(1 << 31) as u32));
        if core >= cores {
            return None;
        }
        let part = |n: u64| n / u64::from(cores) + u64::from(u64::from(core) < n % u64::from(cores));
        let connections = part(u64::from(self.connections)) as u32;
        Some(Self {
            connections,
            requests: self.requests.map(part),
            // Each connection has the same load.
            rate: self.rate.map(|rate| rate * f64::from(connections) / f64::from(self.connections)),
            max_handshakes: self.max_handshakes.div_ceil(cores),
            ..self.clone()
        })
    }
}

/// The receive buffers of one answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReceiveShape {
    /// The size of a buffer in bytes.
    pub buffer: usize,
    /// The number of buffers provided at first; each is provided again when it comes back full.
    pub count: usize,
}

impl ReceiveShape {
    /// The shape for answers of `download` bytes, `in_flight` at a time, within `memory` bytes if possible: one buffer
    /// for a short answer, a ring of large ones for a long one.
    pub fn new(download: u64, in_flight: u64, memory: usize) -> Self {
        let share = memory / usize::try_from(in_flight.max(1)).unwrap_or(usize::MAX);
        let whole = usize::try_from(download).unwrap_or(usize::MAX).max(MIN_BUFFER);
        if whole <= BUFFER && whole.next_power_of_two() <= share.max(MIN_BUFFER) {
            return Self { buffer: whole, count: 1 };
        }
        let fitting = (share / RING).clamp(MIN_BUFFER, BUFFER);
        // Pools allocate buffers in powers of two.
        let buffer = 1 << fitting.ilog2();
        Self { buffer, count: whole.div_ceil(buffer).min(RING) }
    }

    /// The number of bytes that the peer may send before it needs a window update.
    pub fn window(&self) -> u64 {
        self.buffer as u64 * self.count as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quic::TransportConfig;
    use crate::quic::tls::{TlsOptions, insecure_client_config};
    use proptest::prelude::*;

    fn plan() -> PerfPlan {
        let tls = insecure_client_config(&TlsOptions { alpn: vec![b"x".to_vec()], ..TlsOptions::default() }).unwrap();
        let config = ClientConfig::new(tls, TransportConfig::default()).unwrap();
        PerfPlan::new(SocketAddr::from(([10, 0, 0, 1], 443)), "x", config)
    }

    #[test]
    fn what_makes_no_sense_is_said() {
        assert_eq!(plan().check(), Ok(()));
        type Break = fn(&mut PerfPlan);
        let broken: [(Break, PlanError); 14] = [
            (|p| p.early_data = true, PlanError::EarlyWithoutHandshakes),
            (|p| (p.early_data, p.handshakes, p.download) = (true, true, UNLIMITED), PlanError::EarlyUnlimited),
            (|p| p.requests = None, PlanError::Endless),
            (|p| p.download = UNLIMITED, PlanError::UnlimitedWithoutDuration),
            (|p| p.connections = 0, PlanError::Zero("connections")),
            (|p| p.requests = Some(0), PlanError::Zero("requests")),
            (|p| p.rate = Some(-1.0), PlanError::Rate(-1.0)),
            (|p| p.rate = Some(f64::INFINITY), PlanError::Rate(f64::INFINITY)),
            (|p| p.rate = Some(1.1e9), PlanError::Rate(1.1e9)),
            (
                |p| p.connections = u32::MAX,
                PlanError::TooMany { what: "connections", n: u32::MAX, max: MAX_CONNECTIONS },
            ),
            (|p| p.streams = u32::MAX, PlanError::TooMany { what: "streams", n: u32::MAX, max: MAX_STREAMS }),
            (
                |p| p.download = varint::MAX,
                PlanError::TooLong { what: "a download", bytes: varint::MAX, max: (1 << 62) - 9 },
            ),
            (|p| (p.rate, p.handshakes) = (Some(1.0), true), PlanError::RateOfHandshakes),
            (|p| p.upload = 1 << 62, PlanError::TooLong { what: "an upload", bytes: 1 << 62, max: (1 << 62) - 9 }),
        ];
        for (breaks, error) in broken {
            let mut p = plan();
            breaks(&mut p);
            assert_eq!(p.check(), Err(error));
        }
    }

    proptest! {
        #[test]
        fn shares_add_up(connections in 1u32..50, requests in 1u64..1000, cores in 1u32..9) {
            let whole = PerfPlan { connections, requests: Some(requests), rate: Some(1000.0), ..plan() };
            let parts: Vec<_> = (0..cores).filter_map(|core| whole.share(core, cores)).collect();
            prop_assert!(parts.iter().all(|p| p.check().is_ok()));
            prop_assert_eq!(parts.iter().map(|p| p.connections).sum::<u32>(), connections);
            prop_assert_eq!(parts.iter().filter_map(|p| p.requests).sum::<u64>(), requests);
            let rate: f64 = parts.iter().filter_map(|p| p.rate).sum();
            prop_assert!((rate - 1000.0).abs() < 1e-6);
        }

        #[test]
        fn shapes_fit(download in prop_oneof![0u64..10_000, 0u64..1 << 30, Just(UNLIMITED)],
                      in_flight in 1u64..10_000, memory in (64usize << 20)..1 << 30) {
            let shape = ReceiveShape::new(download, in_flight, memory);
            let taken = shape.buffer.next_power_of_two() as u64 * shape.count as u64 * in_flight;
            prop_assert!(shape.buffer >= MIN_BUFFER && shape.count >= 1);
            let least = MIN_BUFFER as u64 * RING as u64 * in_flight;
            prop_assert!(taken <= (memory as u64).max(least), "{shape:?} takes {taken}");
        }
    }

    #[test]
    fn shapes_for_usual_loads() {
        let shape = |download| ReceiveShape::new(download, 1, 1 << 30);
        assert_eq!(shape(0), ReceiveShape { buffer: 4096, count: 1 });
        assert_eq!(shape(100_000), ReceiveShape { buffer: 100_000, count: 1 });
        assert_eq!(shape(5 << 20), ReceiveShape { buffer: BUFFER, count: 3 });
        assert_eq!(shape(UNLIMITED), ReceiveShape { buffer: BUFFER, count: RING });
    }
}
