//! Finds connections by values that the peer chose: a client's first connection ID, and reset tokens.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;

use siphasher::sip::SipHasher13;

use crate::base::rng::Rng;
use crate::base::time::{Duration, Instant};
use crate::quic::cid::{CidInfo, RawCid};
use crate::quic::event::ConnId;
use crate::wire::quic::ConnectionId;

/// How long a client's first connection ID is kept after the handshake, so that late copies of its Initial packets do
/// not look like a new connection.
const KEEP: Duration = Duration::from_secs(3);

/// A keyed hash, so that peers cannot choose values that collide.
#[derive(Clone, Debug)]
pub(super) struct SecretHash(u64, u64);

impl SecretHash {
    pub(super) fn new(rng: &mut Rng) -> Self {
        Self(rng.next_u64(), rng.next_u64())
    }
}

impl std::hash::BuildHasher for SecretHash {
    type Hasher = SipHasher13;
    fn build_hasher(&self) -> SipHasher13 {
        SipHasher13::new_with_keys(self.0, self.1)
    }
}

/// Identifies the sender of a client's first packet. It includes the address: otherwise anyone who sees the packet
/// could send a copy from elsewhere, ahead of the client, and lock the client out. Clients do not migrate that early
/// (RFC 9000 §9).
type Stranger = (ConnectionId, SocketAddr);

/// Number of our connection IDs that are cached decoded; a power of two. With few connections, only few places are ever
/// touched; with many, each costs less than the connection's own cache lines.
const RECENT: usize = 4096;

/// One of our connection IDs, decoded. Decoding takes four passes of its cipher.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Known {
    pub(super) id: ConnId,
    pub(super) sequence: u16,
}

type Recent = (RawCid, Known);

/// All lookup tables.
#[derive(Debug)]
pub(super) struct Lookup {
    /// Our recently used connection IDs. Only IDs that we made and that lead to a connection are stored, so strangers
    /// cannot displace them. Empty places hold an ID that leads to nothing.
    recent: Box<[Recent; RECENT]>,
    /// Clients by the Destination Connection ID that they chose (RFC 9000 §7.2).
    initial: HashMap<Stranger, ConnId, SecretHash>,
    /// Clients whose handshake is over, by when they are removed.
    leaving: VecDeque<(Instant, Stranger)>,
    /// Stateless reset tokens of the peers, each valid only for datagrams from its peer (RFC 9000 §10.3.1).
    tokens: HashMap<([u8; 16], SocketAddr), ConnId, SecretHash>,
}

impl Lookup {
    pub(super) fn new(rng: &mut Rng) -> Self {
        let hash = SecretHash::new(rng);
        let nobody = Known { id: ConnId::new(0, CidInfo::NO_GENERATION), sequence: 0 };
        let recent: Box<[Recent]> = vec![(RawCid::UNUSED, nobody); RECENT].into();
        Self {
            recent: recent.try_into().expect("as many"),
            initial: HashMap::with_hasher(hash.clone()),
            leaving: VecDeque::new(),
            tokens: HashMap::with_hasher(hash),
        }
    }

    /// The cached contents of `dcid`, if any. The connection may have ended since.
    #[inline]
    pub(super) fn recent(&self, dcid: RawCid) -> Option<Known> {
        let (key, known) = &self.recent[dcid.hash() % RECENT];
        (*key == dcid).then_some(*known)
    }

    /// Caches `dcid`, an ID of ours that leads to a connection.
    pub(super) fn remember(&mut self, dcid: RawCid, known: Known) {
        self.recent[dcid.hash() % RECENT] = (dcid, known);
    }

    /// Adds a new connection of a server.
    pub(super) fn insert_initial(&mut self, now: Instant, dcid: ConnectionId, from: SocketAddr, id: ConnId) {
        self.expire(now);
        self.initial.insert((dcid, from), id);
    }

    /// The connection of a client that still uses the ID that it chose. The connection may have ended, but less than
    /// [`KEEP`] ago; after that, the client's next Initial packet begins a new one.
    pub(super) fn by_initial(&mut self, now: Instant, dcid: ConnectionId, from: SocketAddr) -> Option<ConnId> {
        self.expire(now);
        self.initial.get(&(dcid, from)).copied()
    }

    fn expire(&mut self, now: Instant) {
        while let Some((_, old)) = self.leaving.pop_front_if(|(at, _)| *at <= now) {
            self.initial.remove(&old);
        }
    }

    /// Schedules the removal of `dcid` after the handshake that began with it has ended.
    pub(super) fn retire_initial(&mut self, now: Instant, dcid: ConnectionId, from: SocketAddr) {
        self.leaving.push_back((now + KEEP, (dcid, from)));
    }

    /// Registers the token `new` instead of `old` for the peer of `id`, each with the peer's address.
    pub(super) fn replace_token(
        &mut self,
        id: ConnId,
        (old, from): (Option<[u8; 16]>, SocketAddr),
        (new, to): (Option<[u8; 16]>, SocketAddr),
    ) {
        // Only the peer itself can give one token to two of its connections; the last one gets it.
        if let Some(old) = old.filter(|old| self.tokens.get(&(*old, from)) == Some(&id)) {
            self.tokens.remove(&(old, from));
        }
        if let Some(new) = new {
            self.tokens.insert((new, to), id);
        }
    }

    /// The connection whose peer, at `remote`, sends `token` at the end of a datagram to reset it.
    pub(super) fn by_token(&self, token: &[u8; 16], remote: SocketAddr) -> Option<ConnId> {
        self.tokens.get(&(*token, remote)).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quic::cid::{CidCodec, CidConfig};

    #[test]
    fn initial_ids_outlive_the_handshake_for_a_while() {
        let mut lookup = Lookup::new(&mut Rng::from_u64(1));
        let cid = |n| ConnectionId::new(&[n; 8]).unwrap();
        let (id, t) = (ConnId::new(1, 0), Instant::from_nanos(5));
        let from = SocketAddr::from(([192, 0, 2, 1], 5));
        lookup.insert_initial(t, cid(1), from, id);
        lookup.retire_initial(t, cid(1), from);
        lookup.insert_initial(t + KEEP / 2, cid(2), from, id);
        let nearly = t + KEEP - Duration::from_nanos(1);
        assert_eq!(lookup.by_initial(nearly, cid(1), from), Some(id));
        assert_eq!(lookup.by_initial(nearly, cid(1), SocketAddr::from(([192, 0, 2, 1], 6))), None);
        // Until 2026-11, it was kept until another client came.
        assert_eq!(lookup.by_initial(t + KEEP, cid(1), from), None);
        assert_eq!(lookup.by_initial(t + KEEP, cid(2), from), Some(id));
        lookup.retire_initial(t, cid(2), from);
        lookup.insert_initial(t + KEEP, cid(3), from, id);
        assert_eq!(lookup.initial.len(), 1);
    }

    #[test]
    fn recent_ids_are_told_apart() {
        let mut lookup = Lookup::new(&mut Rng::from_u64(1));
        let codec = CidCodec::new(&CidConfig::unrouted(17).unwrap(), &[1; 16], &[2; 16]);
        let raw = |byte: u8, last: u8| {
            let mut cid = [byte; 17];
            cid[16] = last;
            codec.raw(&cid).unwrap()
        };
        let known = |n| Known { id: ConnId::new(n, 0), sequence: n as u16 };
        assert!(lookup.recent(raw(1, 1)).is_none());
        lookup.remember(raw(1, 1), known(1));
        assert_eq!(lookup.recent(raw(1, 1)).map(|k| k.id), Some(ConnId::new(1, 0)));
        // In the same place, but not equal.
        assert!(lookup.recent(raw(1, 2)).is_none());
        lookup.remember(raw(1, 2), known(2));
        assert!(lookup.recent(raw(1, 1)).is_none());
    }

    #[test]
    fn a_token_is_that_of_one_peer() {
        let mut lookup = Lookup::new(&mut Rng::from_u64(1));
        let [a, b] = [1, 2].map(|n| (ConnId::new(n, 0), SocketAddr::from(([192, 0, 2, n as u8], 5))));
        lookup.replace_token(a.0, (None, a.1), (Some([1; 16]), a.1));
        lookup.replace_token(a.0, (Some([1; 16]), a.1), (Some([2; 16]), a.1));
        assert_eq!([1, 2].map(|n| lookup.by_token(&[n; 16], a.1).is_some()), [false, true]);
        // A stranger claims the token.
        lookup.replace_token(b.0, (None, b.1), (Some([2; 16]), b.1));
        assert_eq!(lookup.by_token(&[2; 16], a.1), Some(a.0));
        lookup.replace_token(b.0, (Some([2; 16]), b.1), (None, b.1));
        assert_eq!(lookup.by_token(&[2; 16], a.1), Some(a.0));
        assert_eq!(lookup.by_token(&[2; 16], b.1), None);
    }
}
