//! Flow-control credit in both directions (RFC 9000 §4.1), for connections and streams.

use crate::wire::quic::varint;

/// Credit granted by the peer.
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

    /// Number of bytes that may still be sent.
    pub(crate) fn available(&self) -> u64 {
        self.limit - self.used
    }

    pub(crate) fn limit(&self) -> u64 {
        self.limit
    }

    /// Uses `n` bytes of credit.
    pub(crate) fn consume(&mut self, n: u64) {
        debug_assert!(n <= self.available());
        self.used += n;
    }

    /// Handles a limit from the peer; smaller limits than before are outdated and ignored (RFC 9000 §4.1). True if it
    /// grew.
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

    /// Handles the loss of a *_BLOCKED frame: reports again if still blocked.
    pub(crate) fn blocked_lost(&mut self) {
        self.blocked_at = None;
    }
}

/// Whether the limit `next` has to be announced to a peer that has used `used` of the limit `told`: when at most half
/// of the credit that it could have is left to it.
///
/// The measure is the credit it could have, not the whole window: whatever part of the window is held up by unread data
/// or open streams, the free part is made available to the peer. Waiting until it reports that it is blocked is not
/// allowed (RFC 9000 §4.2, §4.6).
pub(crate) fn is_update_due(used: u64, told: u64, next: u64) -> bool {
    next > told && told.saturating_sub(used) <= (next - used) / 2
}

/// Connection-level credit granted to the peer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RecvCredit {
    window: u64,
    /// Sum of the highest offsets received on all streams.
    received: u64,
    /// Number of bytes whose memory is free again.
    consumed: u64,
    announced: u64,
    /// Whether the peer reports that it is blocked at an outdated limit.
    asked: bool,
}

impl RecvCredit {
    pub(crate) fn new(window: u64) -> Self {
        Self { window, received: 0, consumed: 0, announced: window, asked: false }
    }

    /// Counts `n` new bytes; false if the peer has exceeded its limit.
    #[must_use]
    pub(crate) fn receive(&mut self, n: u64) -> bool {
        self.received = self.received.saturating_add(n);
        self.received <= self.announced
    }

    /// Sum of the highest offsets received on all streams.
    pub(crate) fn received(&self) -> u64 {
        self.received
    }

    /// Bytes that the peer may still send.
    pub(crate) fn left(&self) -> u64 {
        self.announced.saturating_sub(self.received)
    }

    /// Counts `n` bytes that the application consumed (or that never needed the engine's memory).
    pub(crate) fn consume(&mut self, n: u64) {
        self.consumed += n;
    }

    /// Number of bytes consumed.
    pub(crate) fn consumed(&self) -> u64 {
        self.consumed
    }

    /// The size of the window.
    pub(crate) fn window(&self) -> u64 {
        self.window
    }

    /// Changes the size of the window. What was announced remains valid.
    pub(crate) fn set_window(&mut self, window: u64) {
        self.window = window;
    }

    /// The limit last announced to the peer.
    pub(crate) fn announced(&self) -> u64 {
        self.announced
    }

    /// The limit that could be announced now.
    fn limit(&self) -> u64 {
        self.consumed.saturating_add(self.window).min(varint::MAX).max(self.announced)
    }

    /// The limit to announce, if that is due ([`is_update_due`]) or was requested.
    pub(crate) fn update_due(&self) -> Option<u64> {
        let next = self.limit();
        (is_update_due(self.received, self.announced, next) || self.asked).then_some(next)
    }

    /// Handles DATA_BLOCKED at `limit`: if our limit is newer, it is announced again (RFC 9000 §4.1), once per such
    /// frame.
    pub(crate) fn peer_blocked(&mut self, limit: u64) {
        self.asked |= limit < self.limit();
    }

    /// Records that MAX_DATA with `limit` is sent.
    pub(crate) fn announce(&mut self, limit: u64) {
        self.announced = self.announced.max(limit);
        self.asked = false;
    }

    /// Whether the peer has used all of its credit, so that it may be waiting for more.
    pub(crate) fn is_used_up(&self) -> bool {
        self.received > 0 && self.received >= self.announced
    }

    /// Handles the loss of MAX_DATA: the limit has to be announced again.
    pub(crate) fn update_lost(&mut self) {
        self.asked = true;
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
        for (received, due) in [(49, None), (1, Some(150))] {
            assert!(credit.receive(received));
            credit.consume(received);
            assert_eq!(credit.update_due(), due);
        }
        credit.announce(150);
        assert_eq!(credit.update_due(), None);
        assert!(credit.receive(100));
        assert!(!credit.receive(1));
    }

    #[test]
    fn bytes_that_nobody_reads_hold_up_no_others() {
        for held in [0, 51, 90, 99] {
            let mut credit = RecvCredit::new(100);
            assert!(credit.receive(held));
            let (mut left, mut frames) = (100 - held, 0);
            for _ in 0..10_000 {
                assert!(left > 0 && credit.receive(1), "{held} of 100 bytes are held and the peer is blocked");
                left -= 1;
                credit.consume(1);
                if let Some(limit) = credit.update_due() {
                    left += limit - credit.announced;
                    credit.announce(limit);
                    frames += 1;
                }
            }
            assert!(frames <= 20_000 / (100 - held), "{frames} MAX_DATA frames for 10,000 bytes with {held} held");
        }
    }

    #[test]
    fn who_is_blocked_at_an_old_limit_hears_of_ours() {
        let mut credit = RecvCredit::new(100);
        credit.peer_blocked(100);
        assert_eq!(credit.update_due(), None, "the peer knows it");
        credit.peer_blocked(99);
        assert_eq!(credit.update_due(), Some(100));
        credit.announce(100);
        assert_eq!(credit.update_due(), None, "once per frame");
        assert!(credit.receive(10));
        credit.consume(10);
        credit.peer_blocked(100);
        assert_eq!(credit.update_due(), Some(110));
        credit.announce(110);
        credit.update_lost();
        assert_eq!(credit.update_due(), Some(110));
    }
}
