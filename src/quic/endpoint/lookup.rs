//! Finding connections by what the other side chose: the client's first connection ID, and reset tokens.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;

use siphasher::sip::SipHasher13;

use crate::base::rng::Rng;
use crate::base::time::{Duration, Instant};
use crate::quic::event::ConnId;
use crate::wire::quic::ConnectionId;

/// How long after its handshake a client's first connection ID is still known, so that late copies of
/// its Initial packets do not look like a new connection.
const KEEP: Duration = Duration::from_secs(3);

/// Hashes what strangers choose under a secret, so that nobody can choose it to collide.
#[derive(Clone, Debug)]
struct SecretHash(u64, u64);

impl std::hash::BuildHasher for SecretHash {
    type Hasher = SipHasher13;
    fn build_hasher(&self) -> SipHasher13 {
        SipHasher13::new_with_keys(self.0, self.1)
    }
}

/// Who sent a client's first packet. The address counts: whoever sees the packet could send a copy of it
/// from elsewhere, ahead of the client, and lock the client out. Clients do not migrate that early
/// (RFC 9000 §9).
type Stranger = (ConnectionId, SocketAddr);

/// Connection IDs of ours that are remembered decoded; a power of two.
const RECENT: usize = 256;

/// One of our connection IDs, decoded: reading one costs four passes of its cipher.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known {
    pub(super) id: ConnId,
    /// Low byte of its sequence number.
    pub(super) sequence: u8,
}

/// All tables.
#[derive(Debug)]
pub(super) struct Lookup {
    /// Latest connection IDs of ours that led to a connection. Only IDs that we made get here, so strangers
    /// cannot crowd them out.
    recent: [Option<(u64, Known)>; RECENT],
    /// Clients by the Destination Connection ID that they chose (RFC 9000 §7.2).
    initial: HashMap<Stranger, ConnId, SecretHash>,
    /// Those whose handshake is over, by when they are forgotten.
    leaving: VecDeque<(Instant, Stranger)>,
    /// Stateless reset tokens of the peers (RFC 9000 §10.3.1).
    tokens: HashMap<[u8; 16], ConnId, SecretHash>,
}

impl Lookup {
    pub(super) fn new(rng: &mut Rng) -> Self {
        let hash = SecretHash(rng.next_u64(), rng.next_u64());
        Self {
            recent: [None; RECENT],
            initial: HashMap::with_hasher(hash.clone()),
            leaving: VecDeque::new(),
            tokens: HashMap::with_hasher(hash),
        }
    }

    /// What `dcid` was last time, if that is remembered. The connection may have ended since.
    pub(super) fn recent(&self, dcid: &[u8]) -> Option<Known> {
        let key = u64::from_ne_bytes(dcid.try_into().ok()?);
        self.recent[key as usize % RECENT].filter(|(known, _)| *known == key).map(|(_, known)| known)
    }

    /// `dcid` is an ID of ours and leads to a connection.
    pub(super) fn remember(&mut self, dcid: &[u8], known: Known) {
        if let Ok(bytes) = dcid.try_into() {
            let key = u64::from_ne_bytes(bytes);
            self.recent[key as usize % RECENT] = Some((key, known));
        }
    }

    /// A server's new connection.
    pub(super) fn insert_initial(&mut self, now: Instant, dcid: ConnectionId, from: SocketAddr, id: ConnId) {
        while let Some((_, old)) = self.leaving.pop_front_if(|(at, _)| *at <= now) {
            self.initial.remove(&old);
        }
        self.initial.insert((dcid, from), id);
    }

    pub(super) fn by_initial(&self, dcid: ConnectionId, from: SocketAddr) -> Option<ConnId> {
        self.initial.get(&(dcid, from)).copied()
    }

    /// The handshake that began with `dcid` has ended, well or not.
    pub(super) fn retire_initial(&mut self, now: Instant, dcid: ConnectionId, from: SocketAddr) {
        self.leaving.push_back((now + KEEP, (dcid, from)));
    }

    /// `id` now has `new` tokens instead of `old` ones.
    pub(super) fn replace_tokens(&mut self, id: ConnId, old: &[[u8; 16]], new: &[[u8; 16]]) {
        for token in old {
            self.tokens.remove(token);
        }
        for token in new {
            self.tokens.insert(*token, id);
        }
    }

    /// Whose peer ends a datagram with `token`.
    pub(super) fn by_token(&self, token: &[u8; 16]) -> Option<ConnId> {
        self.tokens.get(token).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn initial_ids_outlive_the_handshake_for_a_while() {
        let mut lookup = Lookup::new(&mut Rng::from_u64(1));
        let cid = |n| ConnectionId::new(&[n; 8]).unwrap();
        let (id, t) = (ConnId::new(1, 0), Instant::from_nanos(5));
        let from = SocketAddr::from(([192, 0, 2, 1], 5));
        lookup.insert_initial(t, cid(1), from, id);
        lookup.retire_initial(t, cid(1), from);
        lookup.insert_initial(t + KEEP / 2, cid(2), from, id);
        assert_eq!(lookup.by_initial(cid(1), from), Some(id));
        assert_eq!(lookup.by_initial(cid(1), SocketAddr::from(([192, 0, 2, 1], 6))), None);
        lookup.insert_initial(t + KEEP, cid(3), from, id);
        assert_eq!(lookup.by_initial(cid(1), from), None);
        assert_eq!(lookup.by_initial(cid(2), from), Some(id));
    }

    #[test]
    fn recent_ids_are_told_apart() {
        let mut lookup = Lookup::new(&mut Rng::from_u64(1));
        let known = |n| Known { id: ConnId::new(n, 0), sequence: n as u8 };
        assert!(lookup.recent(&[0; 8]).is_none());
        lookup.remember(&[0; 8], known(1));
        assert_eq!(lookup.recent(&[0; 8]).map(|k| k.id), Some(ConnId::new(1, 0)));
        assert!(lookup.recent(&[0; 7]).is_none() && lookup.recent(&[0, 0, 0, 0, 0, 0, 0, 1]).is_none());
        // In the same place.
        lookup.remember(&(RECENT as u64).to_ne_bytes(), known(2));
        assert!(lookup.recent(&[0; 8]).is_none());
    }

    #[test]
    fn tokens_are_replaced() {
        let mut lookup = Lookup::new(&mut Rng::from_u64(1));
        let id = ConnId::new(1, 0);
        lookup.replace_tokens(id, &[], &[[1; 16], [2; 16]]);
        lookup.replace_tokens(id, &[[1; 16], [2; 16]], &[[2; 16], [3; 16]]);
        let known = [1, 2, 3].map(|n| lookup.by_token(&[n; 16]).is_some());
        assert_eq!(known, [false, true, true]);
    }
}
