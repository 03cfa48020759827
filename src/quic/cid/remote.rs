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
}

/// The IDs that the peer issued for one connection; the first is in use.
#[derive(Debug)]
pub(crate) struct RemoteCids {
    known: ArrayVec<RemoteCid, MAX_ACTIVE>,
    retire_prior_to: u64,
    /// Retired IDs not yet acknowledged, and whether RETIRE_CONNECTION_ID has to be sent (again).
    retiring: ArrayVec<(u64, bool), MAX_RETIRING>,
    token_changed: bool,
}

impl RemoteCids {
    pub(crate) fn new(first: ConnectionId) -> Self {
        let mut known = ArrayVec::new();
        known.push(RemoteCid { seq: 0, cid: first, token: None });
        Self { known, retire_prior_to: 0, retiring: ArrayVec::new(), token_changed: false }
    }

    pub(crate) fn current(&self) -> &ConnectionId {
        &self.known[0].cid
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
        self.retiring.extend(self.known.iter().filter(|k| k.seq < limit).map(|k| (k.seq, true)));
        self.known.retain(|k| k.seq >= limit);
        if seq < limit {
            if self.retiring.iter().all(|(s, _)| *s != seq) && self.retiring.try_push((seq, true)).is_err() {
                return Err(TransportError::CONNECTION_ID_LIMIT_ERROR);
            }
            return Ok(());
        }
        self.known
            .try_push(RemoteCid { seq, cid, token: Some(token) })
            .map_err(|_| TransportError::CONNECTION_ID_LIMIT_ERROR)
    }

    /// The next sequence number to retire.
    pub(crate) fn retire_due(&self) -> Option<u64> {
        self.retiring.iter().find(|(_, due)| *due).map(|(seq, _)| *seq)
    }

    pub(crate) fn retire_sent(&mut self, seq: u64) {
        self.set_due(seq, false);
    }

    pub(crate) fn retire_lost(&mut self, seq: u64) {
        self.set_due(seq, true);
    }

    pub(crate) fn retire_acked(&mut self, seq: u64) {
        self.retiring.retain(|(s, _)| *s != seq);
    }

    fn set_due(&mut self, seq: u64, due: bool) {
        self.retiring.iter_mut().filter(|(s, _)| *s == seq).for_each(|entry| entry.1 = due);
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

    /// Whether `token` is the stateless reset token of the ID in use (RFC 9000 §10.3.1), in constant time.
    pub(crate) fn is_reset_token(&self, token: &ResetToken) -> bool {
        use subtle::ConstantTimeEq;
        self.known[0].token.is_some_and(|known| known.ct_eq(token).into())
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

    #[test]
    fn a_refused_id_leaves_one_to_send_the_close_to() {
        let mut r = RemoteCids::new(id(0));
        let error = (1..100).find_map(|n: u8| r.insert(n.into(), n.into(), id(n), [n; 16]).err());
        assert_eq!(error, Some(TransportError::CONNECTION_ID_LIMIT_ERROR));
        assert!(!r.current().is_empty());
    }
}
