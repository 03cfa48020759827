//! Flow-control credit, both directions (RFC 9000 §4.1). One type serves connections and streams.

/// Credit that the peer grants us.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SendCredit {
    limit: u64,
    used: u64,
    blocked_at: Option<u64>,
}

impl SendCredit {
    pub(crate) fn new(limit: u64) -> Self {
        Self { limit, used: 0, blocked_at: None }
    }

    /// Bytes that may still be sent.
    pub(crate) fn available(&self) -> u64 {
        self.limit - self.used
    }

    pub(crate) fn limit(&self) -> u64 {
        self.limit
    }

    /// Takes `n` bytes of credit.
    pub(crate) fn consume(&mut self, n: u64) {
        debug_assert!(n <= self.available());
        self.used += n;
    }

    /// A limit from the peer; smaller ones are old and mean nothing (RFC 9000 §4.1). True if it grew.
    pub(crate) fn raise(&mut self, limit: u64) -> bool {
        let grew = limit > self.limit;
        self.limit = self.limit.max(limit);
        grew
    }

    /// The limit to report in a *_BLOCKED frame, once per limit.
    pub(crate) fn take_blocked(&mut self) -> Option<u64> {
        (self.available() == 0 && self.blocked_at != Some(self.limit)).then(|| {
            self.blocked_at = Some(self.limit);
            self.limit
        })
    }

    /// The *_BLOCKED frame was lost: report again if still blocked.
    pub(crate) fn blocked_lost(&mut self) {
        self.blocked_at = None;
    }
}

/// Connection-level credit that we grant the peer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RecvCredit {
    window: u64,
    /// Sum over streams of the highest offset received.
    received: u64,
    /// Bytes whose memory is free for others again.
    consumed: u64,
    announced: u64,
}

impl RecvCredit {
    pub(crate) fn new(window: u64) -> Self {
        Self { window, received: 0, consumed: 0, announced: window }
    }

    /// Accounts `n` new bytes; false when the peer went beyond its limit.
    #[must_use]
    pub(crate) fn receive(&mut self, n: u64) -> bool {
        self.received = self.received.saturating_add(n);
        self.received <= self.announced
    }

    /// `n` bytes were taken away by the application (or never needed our memory).
    pub(crate) fn consume(&mut self, n: u64) {
        self.consumed += n;
    }

    /// The limit to announce, when it has moved by at least half a window.
    pub(crate) fn update_due(&self) -> Option<u64> {
        let next = self.consumed.saturating_add(self.window).min(crate::wire::quic::varint::MAX);
        (next.saturating_sub(self.announced) >= self.window / 2 && next > self.announced).then_some(next)
    }

    /// MAX_DATA with `limit` goes out.
    pub(crate) fn announce(&mut self, limit: u64) {
        self.announced = self.announced.max(limit);
    }

    /// The limit to repeat when a MAX_DATA frame was lost.
    pub(crate) fn announced(&self) -> u64 {
        self.announced
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocked_is_reported_once_per_limit() {
        let mut credit = SendCredit::new(10);
        assert_eq!(credit.take_blocked(), None);
        credit.consume(10);
        assert_eq!(credit.take_blocked(), Some(10));
        assert_eq!(credit.take_blocked(), None);
        credit.blocked_lost();
        assert_eq!(credit.take_blocked(), Some(10));
        assert!(credit.raise(20));
        assert!(!credit.raise(15));
        assert_eq!(credit.available(), 10);
    }

    #[test]
    fn receive_window_moves_with_consumption() {
        let mut credit = RecvCredit::new(100);
        assert!(credit.receive(100));
        assert!(!credit.receive(1));
        assert_eq!(credit.update_due(), None);
        credit.consume(49);
        assert_eq!(credit.update_due(), None);
        credit.consume(1);
        assert_eq!(credit.update_due(), Some(150));
        credit.announce(150);
        assert_eq!(credit.update_due(), None);
    }
}
