//! Windows and queues that fit an amount of memory.

use super::TransportConfig;

impl TransportConfig {
    /// Fits windows and queues to `bytes`, the limit of the endpoint's pool
    /// ([`limit_bytes`](crate::mem::PoolConfig::limit_bytes)). Nothing else has to be set for a path with a large product
    /// of rate and round-trip time: a connection fills one of up to a thirtieth of `bytes`, as an eighth
    /// is the most that its peer is promised for pooled streams ([`MemoryConfig`](super::MemoryConfig)). 10 Gbit/s and
    /// 100 ms, which are 125 MB, need 4 GiB.
    ///
    /// | setting | share |
    /// | --- | --- |
    /// | [`max_window`](Self::max_window) | at most a quarter |
    /// | [`max_data`](Self::max_data) | at most an eighth |
    /// | initial windows of streams | at most a sixteenth |
    /// | [`send_budget`](Self::send_budget) | at most a sixteenth |
    /// | [`max_send_budget`](Self::max_send_budget) | a quarter, or 0 if it was |
    ///
    /// With 1 GiB, these are the defaults, except that they have 1 GiB for `max_send_budget` and no limit for
    /// `max_window`.
    #[must_use]
    pub fn with_memory(self, bytes: u64) -> Self {
        let stream = |window: u64| window.min(bytes / 16);
        Self {
            max_window: self.max_window.min(bytes / 4),
            max_data: self.max_data.min(bytes / 8),
            stream_window_bidi_local: stream(self.stream_window_bidi_local),
            stream_window_bidi_remote: stream(self.stream_window_bidi_remote),
            stream_window_uni: stream(self.stream_window_uni),
            send_budget: self.send_budget.min(bytes / 16).max(1),
            max_send_budget: if self.max_send_budget == 0 { 0 } else { bytes / 4 },
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sizes(config: &TransportConfig) -> [u64; 7] {
        [
            config.max_window,
            config.max_data,
            config.stream_window_bidi_local,
            config.stream_window_bidi_remote,
            config.stream_window_uni,
            config.send_budget,
            config.max_send_budget,
        ]
    }

    #[test]
    fn everything_fits_the_memory() {
        let usual = TransportConfig::default();
        let gib = usual.clone().with_memory(1 << 30);
        assert_eq!(sizes(&gib), [1 << 28, 64 << 20, 1 << 20, 1 << 20, 1 << 20, 16 << 20, 1 << 28]);
        let little = usual.clone().with_memory(8 << 20);
        assert_eq!(sizes(&little), [2 << 20, 1 << 20, 512 << 10, 512 << 10, 512 << 10, 512 << 10, 2 << 20]);
        for bytes in [0, 1, 100, 1 << 20, 4 << 30, u64::MAX] {
            let config = usual.clone().with_memory(bytes);
            assert!(config.validate().is_ok(), "{bytes}");
            let [window, data, streams @ .., queued, _] = sizes(&config);
            assert!(window <= bytes / 4 && data <= bytes / 8 && queued <= (bytes / 16).max(1), "{bytes}");
            assert!(streams.iter().all(|size| *size <= bytes / 16), "{bytes}");
        }
    }

    #[test]
    fn what_is_fixed_remains_fixed() {
        let fixed = TransportConfig { max_window: 0, max_send_budget: 0, ..TransportConfig::default() };
        let config = fixed.with_memory(4 << 30);
        assert_eq!((config.max_window, config.max_send_budget), (0, 0));
    }
}
