//! The IDs that the peer issued for one connection.

use arrayvec::ArrayVec;

use super::{MAX_ACTIVE, ResetToken};
use crate::wire::quic::{ConnectionId, TransportError};

/// Maximum number of retired IDs whose RETIRE_CONNECTION_ID is not yet acknowledged (RFC 9000 §5.1.2: "at least twice
/// the value of the active_connection_id_limit").
const MAX_RETIRING: usize = 3 * MAX_ACTIVE;

/// An ID that the peer issued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct RemoteCid {
    seq: u64,
    cid: ConnectionId,
    token: Option<ResetToken>,
    /// Whether it is, or was, used on a path. It is never used on another one (RFC 9000 §9.5).
    used: bool,
    /// Whether it is not used any more, but could not be retired yet.
    idle: bool,
}

/// The sequence number of a retired ID whose RETIRE_CONNECTION_ID is not yet acknowledged. The highest bit is set while
/// the frame has to be sent (again).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Retiring(u64);

impl Retiring {
    const DUE: u64 = 1 << 63;

    fn new(seq: u64) -> Self {
        Self(seq | Self::DUE)
    }

    fn seq(self) -> u64 {
        self.0 & !Self::DUE
    }

    fn is_due(self) -> bool {
        self.0 & Self::DUE != 0
    }
}

/// Which sequence numbers have come, so that a late copy of a frame does not bring a retired ID back.
#[derive(Clone, Copy, Debug)]
struct Seen {
    /// All below this one have come, or are taken for it.
    floor: u64,
    /// Those from `floor` on that have come, a bit for each.
    ahead: u32,
}

impl Seen {
    fn contains(self, seq: u64) -> bool {
        seq.checked_sub(self.floor).is_none_or(|n| n < 32 && self.ahead & (1 << n) != 0)
    }

    fn insert(&mut self, seq: u64) {
        // Peers may have no more IDs on the way than we accept.
        self.raise((seq + 1).saturating_sub(32));
        if let Some(n) = seq.checked_sub(self.floor) {
            self.ahead |= 1 << n;
            self.raise(self.floor + u64::from(self.ahead.trailing_ones()));
        }
    }

    fn raise(&mut self, floor: u64) {
        let by = u32::try_from(floor.saturating_sub(self.floor)).unwrap_or(u32::MAX);
        self.ahead = self.ahead.checked_shr(by).unwrap_or(0);
        self.floor = self.floor.max(floor);
    }
}

/// The IDs that the peer issued for one connection; the first is used on the path in use.
#[derive(Debug)]
pub(crate) struct RemoteCids {
    known: ArrayVec<RemoteCid, MAX_ACTIVE>,
    retire_prior_to: u64,
    retiring: ArrayVec<Retiring, MAX_RETIRING>,
    seen: Seen,
    token_changed: bool,
}

impl RemoteCids {
    pub(crate) fn new(first: ConnectionId) -> Self {
        let mut known = ArrayVec::new();
        known.push(RemoteCid { seq: 0, cid: first, token: None, used: true, idle: false });
        let seen = Seen { floor: 1, ahead: 0 };
        Self { known, retire_prior_to: 0, retiring: ArrayVec::new(), seen, token_changed: false }
    }

    pub(crate) fn current(&self) -> &ConnectionId {
        &self.known[0].cid
    }

    /// Sequence number of [`RemoteCids::current`].
    pub(crate) fn current_seq(&self) -> u64 {
        self.known[0].seq
    }

    /// The ID with this sequence number, unless it is retired.
    pub(crate) fn get(&self, seq: u64) -> Option<&ConnectionId> {
        self.known.iter().find(|known| known.seq == seq).map(|known| &known.cid)
    }

    /// The reset token of the ID with this sequence number, if it has one and is not retired.
    pub(crate) fn token(&self, seq: u64) -> Option<ResetToken> {
        self.known.iter().find(|known| known.seq == seq).and_then(|known| known.token)
    }

    /// Whether there is an ID for another path.
    #[cfg(test)]
    pub(crate) fn has_unused(&self) -> bool {
        self.known.iter().any(|known| !known.used)
    }

    /// Takes the next ID that was not used on any path, for one path (RFC 9000 §9.5). A peer with an empty ID has no
    /// other.
    pub(crate) fn take_unused(&mut self) -> Option<u64> {
        if self.current().is_empty() {
            return Some(self.current_seq());
        }
        let next = self.known.iter_mut().filter(|known| !known.used).min_by_key(|known| known.seq)?;
        next.used = true;
        Some(next.seq)
    }

    /// The same, for a path that need not come into use: the last one is left for one that does, unless there is only one.
    pub(crate) fn take_spare(&mut self) -> Option<u64> {
        let unused = self.known.iter().filter(|known| !known.used).count();
        let enough = unused > 1 || self.known.len() <= 2 || self.current().is_empty();
        if enough { self.take_unused() } else { None }
    }

    /// Uses the ID `seq` on the path in use, which is another one from now on. Nothing changes if the ID is retired.
    pub(crate) fn make_current(&mut self, seq: u64) {
        if let Some(at) = self.known.iter().position(|known| known.seq == seq) {
            self.known.swap(0, at);
            // The address may have changed, even if the ID has not.
            self.token_changed = true;
        }
    }

    /// Retires the ID of a path that is not used any more (RFC 9000 §5.1.2), unless it is also that of the path in use.
    pub(crate) fn retire(&mut self, seq: u64) {
        let current = self.current_seq();
        if let Some(known) = self.known.iter_mut().find(|known| known.seq == seq && seq != current) {
            known.idle = true;
        }
        while let Some(at) = self.known.iter().skip(1).position(|known| known.idle)
            && !self.retiring.is_full()
        {
            let gone = self.known.remove(at + 1);
            self.retiring.push(Retiring::new(gone.seq));
        }
    }

    /// Sets the ID that the peer chose for itself during the handshake (RFC 9000 §7.2).
    pub(crate) fn replace_first(&mut self, cid: ConnectionId) {
        self.known[0].cid = cid;
        self.token_changed = true;
    }

    /// Sets the reset token of the handshake ID, from the transport parameters.
    pub(crate) fn set_first_token(&mut self, token: [u8; 16]) {
        self.known[0].token = Some(token);
        self.token_changed = true;
    }

    /// Handles NEW_CONNECTION_ID (RFC 9000 §19.15).
    pub(crate) fn insert(
        &mut self,
        seq: u64,
        retire_prior_to: u64,
        cid: ConnectionId,
        token: [u8; 16],
    ) -> Result<(), TransportError> {
        if self.current().is_empty() {
            return Err(TransportError::PROTOCOL_VIOLATION);
        }
        if let Some(known) = self.known.iter().find(|k| k.seq == seq || k.cid == cid) {
            let same = known.seq == seq && known.cid == cid && known.token.is_none_or(|t| t == token);
            return if same { Ok(()) } else { Err(TransportError::PROTOCOL_VIOLATION) };
        }
        // RFC 9000 §10.3.2: a token must not be used for two IDs.
        if self.known.iter().any(|k| k.token == Some(token)) {
            return Err(TransportError::PROTOCOL_VIOLATION);
        }
        let limit = self.retire_prior_to.max(retire_prior_to);
        if seq >= limit && self.seen.contains(seq) {
            // A copy of a frame whose ID has been retired since.
            return Ok(());
        }
        // Nothing changes unless everything fits, so that there is always an ID to send a close to.
        let retired = self.known.iter().filter(|k| k.seq < limit).count();
        if retired > self.retiring.remaining_capacity() {
            return Err(TransportError::CONNECTION_ID_LIMIT_ERROR);
        }
        if retired == self.known.len() && seq < limit {
            return Err(TransportError::PROTOCOL_VIOLATION);
        }
        self.retire_prior_to = limit;
        self.token_changed = true;
        self.retiring.extend(self.known.iter().filter(|k| k.seq < limit).map(|k| Retiring::new(k.seq)));
        let current = self.current_seq();
        self.known.retain(|k| k.seq >= limit);
        if seq < limit {
            self.choose_current(current);
            if self.retiring.iter().all(|gone| gone.seq() != seq) && self.retiring.try_push(Retiring::new(seq)).is_err()
            {
                return Err(TransportError::CONNECTION_ID_LIMIT_ERROR);
            }
            return Ok(());
        }
        self.known
            .try_push(RemoteCid { seq, cid, token: Some(token), used: false, idle: false })
            .map_err(|_| TransportError::CONNECTION_ID_LIMIT_ERROR)?;
        self.seen.insert(seq);
        self.choose_current(current);
        Ok(())
    }

    /// If the ID of the path in use, which was `former`, is retired, an unused one takes its place; the ID of another
    /// path does so only if there is no other.
    fn choose_current(&mut self, former: u64) {
        if self.current_seq() == former {
            return;
        }
        let unused = self.known.iter().enumerate().filter(|(_, known)| !known.used).min_by_key(|(_, known)| known.seq);
        let at = unused.map_or(0, |(at, _)| at);
        self.known.swap(0, at);
        (self.known[0].used, self.known[0].idle) = (true, false);
    }

    /// The next sequence number to retire.
    pub(crate) fn retire_due(&self) -> Option<u64> {
        self.retiring.iter().find(|gone| gone.is_due()).map(|gone| gone.seq())
    }

    pub(crate) fn retire_sent(&mut self, seq: u64) {
        self.set_due(seq, false);
    }

    pub(crate) fn retire_lost(&mut self, seq: u64) {
        self.set_due(seq, true);
    }

    pub(crate) fn retire_acked(&mut self, seq: u64) {
        self.retiring.retain(|gone| gone.seq() != seq);
    }

    fn set_due(&mut self, seq: u64, due: bool) {
        let entry = self.retiring.iter_mut().find(|gone| gone.seq() == seq);
        entry.into_iter().for_each(|gone| gone.0 = if due { seq | Retiring::DUE } else { seq });
    }

    /// Makes [`RemoteCids::take_changed_token`] report the token in use once more.
    pub(crate) fn tell_again(&mut self) {
        self.token_changed = true;
    }

    /// The reset token of the ID in use, if it has changed since the last call. Tokens of unused or retired IDs do not
    /// count (RFC 9000 §10.3.1).
    pub(crate) fn take_changed_token(&mut self) -> Option<Option<ResetToken>> {
        std::mem::take(&mut self.token_changed).then(|| self.known[0].token)
    }

    /// Whether `token` is the stateless reset token of an ID in use on any path (RFC 9000 §10.3.1), in constant time.
    pub(crate) fn is_reset_token(&self, token: &ResetToken) -> bool {
        use subtle::ConstantTimeEq;
        let tokens = self.known.iter().filter(|known| known.used).filter_map(|known| known.token);
        tokens.fold(false, |any, known| any | bool::from(known.ct_eq(token)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u8) -> ConnectionId {
        ConnectionId::new(&[n; 8]).unwrap()
    }

    #[test]
    fn remote_ids_obey_retire_prior_to_and_the_limit() {
        let mut r = RemoteCids::new(id(0));
        r.insert(1, 0, id(1), [1; 16]).unwrap();
        r.insert(1, 0, id(1), [1; 16]).unwrap();
        assert_eq!(r.insert(1, 0, id(9), [1; 16]), Err(TransportError::PROTOCOL_VIOLATION));
        assert_eq!(r.insert(9, 0, id(1), [1; 16]), Err(TransportError::PROTOCOL_VIOLATION));
        assert_eq!(r.insert(9, 0, id(9), [1; 16]), Err(TransportError::PROTOCOL_VIOLATION), "one token for two IDs");
        r.insert(2, 2, id(2), [2; 16]).unwrap();
        assert_eq!(*r.current(), id(2));
        assert_eq!(r.retire_due(), Some(0));
        r.retire_sent(0);
        assert_eq!(r.retire_due(), Some(1));
        for n in 3..6 {
            r.insert(u64::from(n), 2, id(n), [n; 16]).unwrap();
        }
        assert_eq!(r.insert(6, 2, id(6), [6; 16]), Err(TransportError::CONNECTION_ID_LIMIT_ERROR));
    }

    /// RFC 9000 §19.15.
    #[test]
    fn a_peer_without_ids_gives_none() {
        let mut r = RemoteCids::new(ConnectionId::default());
        assert_eq!(r.insert(1, 0, id(1), [1; 16]), Err(TransportError::PROTOCOL_VIOLATION));
        assert!(r.current().is_empty());
    }

    /// RFC 9000 §19.15: "A receiver MUST ignore any Retire Prior To fields that do not increase the largest received
    /// Retire Prior To value", and an ID below it is retired as soon as it comes.
    #[test]
    fn retire_prior_to_never_falls_and_late_ids_are_retired() {
        let mut r = RemoteCids::new(id(0));
        r.insert(4, 3, id(4), [4; 16]).unwrap();
        r.retire_sent(0);
        r.insert(5, 1, id(5), [5; 16]).unwrap();
        r.insert(3, 0, id(3), [3; 16]).unwrap();
        assert_eq!((r.retire_due(), r.known.len()), (None, 3), "none of them is below 3");
        for _ in 0..2 {
            r.insert(2, 0, id(2), [2; 16]).unwrap();
            assert_eq!((r.retire_due(), r.known.len()), (Some(2), 3), "it came late");
        }
        r.retire_sent(2);
        assert_eq!(r.retire_due(), None);
        assert_eq!(*r.current(), id(4));
    }

    /// RFC 9000 §10.3.1: "MUST NOT check for any stateless reset tokens associated with connection IDs it has not used
    /// or for connection IDs that have been retired".
    #[test]
    fn only_the_token_of_the_id_in_use_counts() {
        let mut r = RemoteCids::new(id(0));
        r.set_first_token([7; 16]);
        r.insert(1, 0, id(1), [1; 16]).unwrap();
        assert_eq!(r.take_changed_token(), Some(Some([7; 16])));
        assert!(r.is_reset_token(&[7; 16]) && !r.is_reset_token(&[1; 16]), "not used yet");
        r.insert(2, 1, id(2), [2; 16]).unwrap();
        assert_eq!(r.take_changed_token(), Some(Some([1; 16])));
        assert_eq!(r.take_changed_token(), None);
        assert!(!r.is_reset_token(&[7; 16]) && r.is_reset_token(&[1; 16]), "the first one is retired");
    }

    /// RFC 9000 §5.1.2: "MUST NOT forget a connection ID without retiring it". However frames are lost, repeated by
    /// probes and acknowledged, each is sent until it is acknowledged.
    #[test]
    fn no_id_is_forgotten_without_being_retired() {
        let mut r = RemoteCids::new(id(0));
        for n in 1..=12 {
            r.insert(n.into(), n.into(), id(n), [n; 16]).unwrap();
            r.retire_sent(u64::from(n) - 1);
        }
        assert_eq!(r.retire_due(), None);
        assert_eq!(
            r.insert(13, 13, id(13), [13; 16]),
            Err(TransportError::CONNECTION_ID_LIMIT_ERROR),
            "12 are in flight"
        );
        for seq in 0..12 {
            r.retire_lost(seq);
            r.retire_lost(seq);
        }
        let mut said = Vec::new();
        while let Some(seq) = r.retire_due() {
            said.push(seq);
            r.retire_sent(seq);
        }
        assert_eq!(said, (0..12).collect::<Vec<_>>());
        r.retire_acked(5);
        r.retire_acked(5);
        r.retire_lost(5);
        assert_eq!(r.retire_due(), None, "acknowledged once is enough");
        r.insert(13, 13, id(13), [13; 16]).unwrap();
        assert_eq!(r.retire_due(), Some(12));
    }

    /// Frames may be repeated, and their copies late: an ID that was retired does not come back. Its peer would see it on
    /// another path, or the number of IDs exceed the limit.
    #[test]
    fn a_late_copy_does_not_bring_a_retired_id_back() {
        let mut r = RemoteCids::new(id(0));
        for seq in [1, 3, 2] {
            r.insert(seq, 0, id(seq as u8), [seq as u8; 16]).unwrap();
        }
        let gone = r.take_unused().unwrap();
        assert_eq!(gone, 1);
        r.retire(gone);
        for acked in [false, true] {
            r.insert(gone, 0, id(1), [1; 16]).unwrap();
            assert_eq!((r.get(gone), r.known.len()), (None, 3), "acknowledged: {acked}");
            r.retire_acked(gone);
        }
        r.insert(4, 0, id(4), [4; 16]).unwrap();
        assert_eq!(r.get(4), Some(&id(4)));
        // Many of them, and gaps of any size.
        let mut seen = Seen { floor: 1, ahead: 0 };
        for seq in [1, 2, 4, 40, 33, 41, 1 << 40, (1 << 40) - 5] {
            assert!(!seen.contains(seq), "{seq}");
            seen.insert(seq);
            assert!(seen.contains(seq), "{seq}");
        }
        assert!(seen.contains(3) && !seen.contains((1 << 40) - 1) && !seen.contains(1 << 41));
    }

    /// RFC 9000 §9.5: "MUST NOT reuse a connection ID when sending to more than one destination address".
    #[test]
    fn each_path_has_an_id_of_its_own() {
        let mut r = RemoteCids::new(id(0));
        assert_eq!((r.take_unused(), r.has_unused()), (None, false));
        for n in 1..4 {
            r.insert(n.into(), 0, id(n), [n; 16]).unwrap();
        }
        assert_eq!((r.take_unused(), r.take_unused()), (Some(1), Some(2)));
        assert!(r.is_reset_token(&[2; 16]) && !r.is_reset_token(&[3; 16]), "in use, and not yet");
        r.make_current(2);
        assert_eq!((r.current_seq(), *r.current(), r.get(1).copied()), (2, id(2), Some(id(1))));
        assert_eq!(r.take_changed_token(), Some(Some([2; 16])));
        r.retire(1);
        r.retire(2);
        assert_eq!((r.retire_due(), r.get(1), r.current_seq()), (Some(1), None, 2), "the one in use stays");
        // The peer retires the one in use: the next is an unused one.
        r.insert(4, 3, id(4), [4; 16]).unwrap();
        assert_eq!(r.current_seq(), 3);
        assert_eq!((r.take_unused(), r.take_unused()), (Some(4), None));
    }

    #[test]
    fn probes_leave_the_last_id_to_a_path_that_is_used() {
        let mut r = RemoteCids::new(id(0));
        r.insert(1, 0, id(1), [1; 16]).unwrap();
        assert_eq!((r.take_spare(), r.take_spare()), (Some(1), None), "the peer never gives more than one");
        r.insert(2, 0, id(2), [2; 16]).unwrap();
        assert_eq!(r.take_spare(), None);
        r.insert(3, 0, id(3), [3; 16]).unwrap();
        assert_eq!((r.take_spare(), r.take_spare(), r.take_unused()), (Some(2), None, Some(3)));
    }

    #[test]
    fn the_id_of_another_path_is_the_last_resort() {
        let mut r = RemoteCids::new(id(0));
        for n in 1..4 {
            r.insert(n.into(), 0, id(n), [n; 16]).unwrap();
        }
        assert_eq!(r.take_unused(), Some(1));
        r.insert(4, 1, id(4), [4; 16]).unwrap();
        assert_eq!(r.current_seq(), 2, "1 is that of another path");
        assert_eq!((r.take_unused(), r.take_unused()), (Some(3), Some(4)));
        r.insert(5, 3, id(5), [5; 16]).unwrap();
        assert_eq!((r.current_seq(), r.take_unused()), (5, None));
        r.insert(6, 6, id(6), [6; 16]).unwrap();
        assert_eq!((r.current_seq(), *r.current(), r.has_unused()), (6, id(6), false));
    }

    #[test]
    fn an_empty_id_is_that_of_every_path() {
        let mut r = RemoteCids::new(ConnectionId::default());
        assert_eq!((r.take_unused(), r.take_unused()), (Some(0), Some(0)));
        r.retire(0);
        assert_eq!((r.retire_due(), r.current().len()), (None, 0));
    }

    /// However many paths are left while no acknowledgement arrives.
    #[test]
    fn ids_that_cannot_be_retired_yet_are_retired_later() {
        let mut r = RemoteCids::new(id(0));
        for n in 1..=12 {
            r.insert(n.into(), n.into(), id(n), [n; 16]).unwrap();
        }
        r.insert(13, 0, id(13), [13; 16]).unwrap();
        let seq = r.take_unused().unwrap();
        r.retire(seq);
        assert!(r.get(13).is_some() && !r.has_unused(), "12 are in flight");
        r.retire_acked(0);
        r.retire(13);
        assert!(r.get(13).is_none());
    }

    #[test]
    fn a_refused_id_leaves_one_to_send_the_close_to() {
        let mut r = RemoteCids::new(id(0));
        let error = (1..100).find_map(|n: u8| r.insert(n.into(), n.into(), id(n), [n; 16]).err());
        assert_eq!(error, Some(TransportError::CONNECTION_ID_LIMIT_ERROR));
        assert!(!r.current().is_empty());
    }
}
