//! Counters that another thread may read while a core works.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counters and current state of one core.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LiveCounts {
    /// Requests completed.
    pub requests: u64,
    /// Requests and connections that failed.
    pub errors: u64,
    /// Stream bytes from client to server: acknowledged at a client, received at a server.
    pub bytes_up: u64,
    /// Stream bytes from server to client: received at a client, acknowledged at a server.
    pub bytes_down: u64,
    /// Handshakes completed.
    pub handshakes: u64,
    /// Connections currently open.
    pub connections: u64,
    /// Requests currently being made or answered.
    pub in_flight: u64,
    /// Requests that are due but not started.
    pub waiting: u64,
}

impl LiveCounts {
    fn values(&self) -> [u64; 8] {
        let Self { requests, errors, bytes_up, bytes_down, handshakes, connections, in_flight, waiting } = *self;
        [requests, errors, bytes_up, bytes_down, handshakes, connections, in_flight, waiting]
    }
}

impl std::iter::Sum for LiveCounts {
    fn sum<I: Iterator<Item = Self>>(cores: I) -> Self {
        cores.fold(Self::default(), |a, b| Self {
            requests: a.requests + b.requests,
            errors: a.errors + b.errors,
            bytes_up: a.bytes_up + b.bytes_up,
            bytes_down: a.bytes_down + b.bytes_down,
            handshakes: a.handshakes + b.handshakes,
            connections: a.connections + b.connections,
            in_flight: a.in_flight + b.in_flight,
            waiting: a.waiting + b.waiting,
        })
    }
}

/// [`LiveCounts`] that one core updates once per turn and others read. Each number is consistent by itself, but they
/// may be of different turns.
#[derive(Debug, Default)]
pub struct PerfLive([AtomicU64; 8]);

impl PerfLive {
    /// The current values.
    pub fn snapshot(&self) -> LiveCounts {
        let [requests, errors, bytes_up, bytes_down, handshakes, connections, in_flight, waiting] =
            std::array::from_fn(|i| self.0[i].load(Ordering::Relaxed));
        LiveCounts { requests, errors, bytes_up, bytes_down, handshakes, connections, in_flight, waiting }
    }

    /// Publishes `counts`. Only the core that owns the counters calls this, so plain stores suffice.
    pub(super) fn publish(&self, counts: &LiveCounts) {
        for (slot, value) in self.0.iter().zip(counts.values()) {
            slot.store(value, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_is_what_was_published() {
        let counts = LiveCounts {
            requests: 1,
            errors: 2,
            bytes_up: 3,
            bytes_down: 4,
            handshakes: 5,
            connections: 6,
            in_flight: 7,
            waiting: 8,
        };
        let live = PerfLive::default();
        live.publish(&counts);
        assert_eq!(live.snapshot(), counts);
        let twice: LiveCounts = [counts, counts].into_iter().sum();
        assert_eq!(twice.values(), counts.values().map(|n| 2 * n));
    }
}
