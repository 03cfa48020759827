//! The IDs that we issued for one connection, by sequence number. [`super::IdMaker`] computes the ID for a number
//! whenever it is needed.

use arrayvec::ArrayVec;

use super::MAX_ACTIVE;
use crate::base::time::Instant;
use crate::wire::quic::TransportError;

/// Maximum number of retired IDs whose packets are still accepted. A peer that retires more at a time loses late
/// packets.
const MAX_LEAVING: usize = 8;

/// IDs that the peer has retired and until when packets to them are accepted, in the order of expiry.
type Leaving = ArrayVec<(u16, Instant), MAX_LEAVING>;

/// The IDs that we issued for one connection.
#[derive(Debug)]
pub(crate) struct LocalCids {
    /// While the peer is asked to retire IDs, there are as many new ones beside them.
    active: ArrayVec<u16, { 2 * MAX_ACTIVE }>,
    /// Sequence numbers to announce (again) in NEW_CONNECTION_ID.
    due: ArrayVec<u16, { 2 * MAX_ACTIVE }>,
    /// The peer is asked to retire the IDs below this one.
    retire_prior_to: u16,
    /// Whether the IDs are to be replaced.
    rotates: bool,
    /// The next sequence number; 2^16 if all are used.
    next: u32,
    leaving: Option<Box<Leaving>>,
}

impl LocalCids {
    /// Sequence number of the handshake's ID (RFC 9000 §5.1.1).
    pub(crate) const HANDSHAKE: u16 = 0;

    /// Sequence number of the ID that comes with a preferred address (RFC 9000 §5.1.1).
    pub(crate) const PREFERRED: u16 = 1;

    pub(crate) fn new() -> Self {
        let active = [Self::HANDSHAKE].into_iter().collect();
        Self { active, due: ArrayVec::new(), retire_prior_to: 0, rotates: false, next: 1, leaving: None }
    }

    /// The ID for the preferred address, which is announced along with it (RFC 9000 §5.1.1). To be called before any
    /// other is issued.
    pub(crate) fn issue_preferred(&mut self) {
        debug_assert_eq!(self.next, u32::from(Self::PREFERRED));
        self.active.push(Self::PREFERRED);
        self.next = u32::from(Self::PREFERRED) + 1;
    }

    /// Asks the peer to retire all IDs, and issues new ones until `limit` are active. False, and nothing happens, while
    /// the peer has yet to retire those that it was asked for before (RFC 9000 §5.1.2), or if there are no more numbers.
    pub(crate) fn rotate(&mut self, limit: usize) -> bool {
        let limit = limit.min(MAX_ACTIVE);
        let asked = self.active.iter().any(|sequence| *sequence < self.retire_prior_to);
        let Ok(next) = u16::try_from(self.next) else { return false };
        if asked || limit < 2 || u32::from(next) + limit as u32 > u32::from(u16::MAX) {
            return false;
        }
        self.retire_prior_to = next;
        // Those that are not announced yet never will be, except to be retired.
        self.issue(limit);
        true
    }

    /// Whether there is an ID for the preferred address that the peer has not retired.
    pub(crate) fn has_preferred(&self) -> bool {
        self.due.is_empty() && self.active.contains(&Self::PREFERRED)
    }

    /// Asks for [`LocalCids::rotate`] when frames are written next.
    pub(crate) fn ask_to_rotate(&mut self) {
        self.rotates = true;
    }

    /// Whether it was asked for since the last call.
    pub(crate) fn take_rotation(&mut self) -> bool {
        std::mem::take(&mut self.rotates)
    }

    /// The Retire Prior To field of announcements.
    pub(crate) fn retire_prior_to(&self) -> u16 {
        self.retire_prior_to
    }

    /// Issues IDs until `limit` are active or the sequence numbers are exhausted.
    pub(crate) fn issue(&mut self, limit: usize) {
        let limit = limit.min(MAX_ACTIVE);
        let mut lasting = self.active.iter().filter(|sequence| **sequence >= self.retire_prior_to).count();
        while lasting < limit
            && !self.active.is_full()
            && !self.due.is_full()
            && let Ok(sequence) = u16::try_from(self.next)
        {
            self.active.push(sequence);
            self.due.push(sequence);
            self.next += 1;
            lasting += 1;
        }
    }

    /// Whether the peer uses the last ID and no other can be issued.
    pub(crate) fn is_exhausted(&self) -> bool {
        self.active.len() == 1 && self.next > u32::from(u16::MAX)
    }

    /// The next ID to announce.
    pub(crate) fn due(&self) -> Option<u16> {
        self.due.first().copied()
    }

    pub(crate) fn announced(&mut self, sequence: u16) {
        self.due.retain(|s| *s != sequence);
    }

    pub(crate) fn announce_lost(&mut self, sequence: u16) {
        if self.active.contains(&sequence) && !self.due.contains(&sequence) {
            self.due.push(sequence);
        }
    }

    /// Handles RETIRE_CONNECTION_ID in a packet to the ID `used` (RFC 9000 §19.16). Packets to the retired ID are
    /// accepted `until` then.
    pub(crate) fn retire(
        &mut self,
        sequence: u64,
        used: Option<u16>,
        now: Instant,
        until: Instant,
    ) -> Result<(), TransportError> {
        if sequence >= u64::from(self.next) {
            return Err(TransportError::PROTOCOL_VIOLATION);
        }
        let sequence = sequence as u16;
        let Some(at) = self.active.iter().position(|s| *s == sequence) else { return Ok(()) };
        if used == Some(sequence) {
            return Err(TransportError::PROTOCOL_VIOLATION);
        }
        self.active.remove(at);
        self.due.retain(|s| *s != sequence);
        let leaving = self.leaving.get_or_insert_default();
        leaving.retain(|(_, end)| *end > now);
        if leaving.is_full() {
            leaving.remove(0);
        }
        leaving.push((sequence, until));
        Ok(())
    }

    /// Whether packets to the ID with this sequence number are accepted: it is active or was retired recently.
    #[inline]
    pub(crate) fn accepts(&self, sequence: u16, now: Instant) -> bool {
        self.active.contains(&sequence) || self.was_active(sequence, now)
    }

    #[cold]
    fn was_active(&self, sequence: u16, now: Instant) -> bool {
        self.leaving.iter().flat_map(|all| all.iter()).any(|(s, until)| *s == sequence && *until > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Instant = Instant::from_nanos(1000);
    const SOON: Instant = Instant::from_nanos(2000);

    #[test]
    fn ids_are_replaced_when_retired() {
        let mut l = LocalCids::new();
        l.issue(3);
        assert_eq!(l.due(), Some(1));
        l.announced(1);
        l.announced(2);
        let mut retire = |sequence, used| l.retire(sequence, Some(used), NOW, SOON);
        assert_eq!(retire(3, 0), Err(TransportError::PROTOCOL_VIOLATION), "never issued");
        assert_eq!(retire(0, 0), Err(TransportError::PROTOCOL_VIOLATION), "the ID it came to");
        retire(0, 1).unwrap();
        retire(0, 1).unwrap();
        l.issue(3);
        assert_eq!(l.due(), Some(3));
        l.announce_lost(0);
        assert_eq!(l.due.as_slice(), [3], "retired");
        assert!(l.accepts(3, SOON) && !l.accepts(4, SOON));
    }

    /// RFC 9000 §5.1.1, §5.1.2.
    #[test]
    fn all_ids_can_be_replaced() {
        let mut l = LocalCids::new();
        l.issue(4);
        (1..4).for_each(|sequence| l.announced(sequence));
        assert!(l.rotate(4) && l.retire_prior_to() == 4);
        assert_eq!(l.due.as_slice(), [4, 5, 6, 7]);
        assert!(!l.rotate(4), "the peer has yet to follow");
        (4..8).for_each(|sequence| l.announced(sequence));
        for sequence in 0..4 {
            assert!(l.accepts(sequence as u16, NOW));
            l.retire(sequence, Some(4), NOW, SOON).unwrap();
            l.issue(4);
        }
        assert_eq!((l.due(), l.active.len()), (None, 4), "no more than the limit");
        assert!(l.rotate(4));
        assert!(!LocalCids::new().rotate(1), "a peer with one ID has none to change to");
    }

    #[test]
    fn the_preferred_address_has_the_second_id() {
        let mut l = LocalCids::new();
        l.issue_preferred();
        assert!(l.accepts(LocalCids::PREFERRED, NOW) && l.due().is_none());
        l.issue(3);
        assert_eq!(l.due.as_slice(), [2]);
    }

    #[test]
    fn retired_ids_leave_after_a_while() {
        let mut l = LocalCids::new();
        l.issue(4);
        l.retire(0, Some(1), NOW, SOON).unwrap();
        assert!(l.accepts(0, NOW) && !l.accepts(0, SOON));
        // Only the latest retired IDs are remembered, however many there are.
        for sequence in 1..1000 {
            l.issue(4);
            l.retire(sequence, Some(sequence as u16 + 1), NOW, SOON).unwrap();
        }
        let taken: Vec<u16> = (0..1000).filter(|s| l.accepts(*s, NOW)).collect();
        assert_eq!(taken, (992..1000).collect::<Vec<_>>());
        l.issue(4);
        l.retire(1000, None, SOON, Instant::MAX).unwrap();
        assert_eq!(l.leaving.unwrap().len(), 1, "expired ones make room");
    }

    #[test]
    fn sequence_numbers_are_compared_whole_and_end() {
        let mut l = LocalCids::new();
        let mut issued = vec![0];
        for used in 0..u16::MAX {
            assert!(!l.is_exhausted());
            l.issue(4);
            while let Some(sequence) = l.due() {
                issued.push(sequence);
                l.announced(sequence);
            }
            assert!(l.accepts(used, NOW) && !l.accepts(used.wrapping_add(0x100), NOW));
            l.retire(used.into(), Some(used + 1), NOW, NOW).unwrap();
        }
        assert_eq!(issued, (0..=u16::MAX).collect::<Vec<_>>(), "each once");
        assert!(l.is_exhausted());
        assert_eq!(l.retire(1 << 16, Some(u16::MAX), NOW, NOW), Err(TransportError::PROTOCOL_VIOLATION));
        assert_eq!(l.retire(1 << 20, Some(u16::MAX), NOW, NOW), Err(TransportError::PROTOCOL_VIOLATION));
    }
}
