//! Finds the connection of a quoted packet of ours by the peer's connection ID in it.
//!
//! Routers and hosts quote the first bytes of packets that they could not forward or deliver. These contain the peer's
//! connection ID, which is known only to the sender and those on the path. The peer chose the ID and its length, which
//! a short header does not contain. All lengths in use are tried, at most 21 however many connections there are.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::net::SocketAddr;

use crate::base::rng::Rng;
use crate::quic::connection::Route;
use crate::quic::endpoint::lookup::SecretHash;
use crate::quic::event::ConnId;
use crate::wire::quic::{ConnectionId, header};

/// Maximum length of a connection ID, in bytes (RFC 9000 §17.2).
const MAX_CID: usize = 20;

/// Connections by the destination of their packets. Only a hash of each is stored, so hits have to be verified.
#[derive(Debug)]
pub(super) struct Routes {
    hash: SecretHash,
    conns: HashMap<u64, ConnId, SecretHash>,
    /// Number of connections by length of the ID.
    lengths: [u32; MAX_CID + 1],
}

impl Routes {
    pub(super) fn new(rng: &mut Rng) -> Self {
        let hash = SecretHash::new(rng);
        Self { conns: HashMap::with_hasher(hash.clone()), hash, lengths: [0; MAX_CID + 1] }
    }

    fn key(&self, cid: &[u8], local: SocketAddr, remote: SocketAddr) -> u64 {
        // Without an ID, both addresses identify the connection.
        self.hash.hash_one((cid, remote, cid.is_empty().then_some(local)))
    }

    /// Registers `id`, whose packets have the destination ID `cid` and go from `local` to `remote`, in place of the
    /// route `old`.
    pub(super) fn replace(
        &mut self,
        id: ConnId,
        old: Option<Route>,
        cid: &ConnectionId,
        local: SocketAddr,
        remote: SocketAddr,
    ) -> Route {
        let new = Route { key: self.key(cid, local, remote), cid_len: cid.len() as u8 };
        if old != Some(new) {
            self.remove(id, old);
            self.lengths[cid.len()] += 1;
            self.conns.insert(new.key, id);
        }
        new
    }

    /// Removes the connection `id`.
    pub(super) fn remove(&mut self, id: ConnId, route: Option<Route>) {
        let Some(route) = route else { return };
        self.lengths[usize::from(route.cid_len)] -= 1;
        if self.conns.get(&route.key) == Some(&id) {
            self.conns.remove(&route.key);
        }
    }

    /// The connection whose packet, sent from `local` to `remote`, begins with `packet`.
    pub(super) fn find(&self, local: SocketAddr, remote: SocketAddr, packet: &[u8]) -> Option<ConnId> {
        let (first, rest) = packet.split_first()?;
        let by_cid = |cid: &[u8]| self.conns.get(&self.key(cid, local, remote)).copied();
        if first & 0x80 != 0 {
            return header::raw_dcid(packet).filter(|id| id.len() <= MAX_CID).and_then(by_cid);
        }
        let lengths = self.lengths.iter().enumerate().rev().filter(|(_, conns)| **conns > 0).map(|(len, _)| len);
        // An empty ID matches everything, so it is tried last.
        let cids = lengths.filter_map(|len| rest.get(..len));
        cids.filter_map(by_cid).next()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_find_their_connection_whatever_the_length_of_their_id() {
        let mut routes = Routes::new(&mut Rng::from_u64(1));
        let [local, remote, other] = [1u16, 2, 3].map(|port| SocketAddr::from(([192, 0, 2, 1], port)));
        let cid = |byte: u8, len: usize| ConnectionId::new(&vec![byte; len]).unwrap();
        let packet = |cid: &ConnectionId| [&[0x41][..], cid, &[9, 9, 9]].concat();
        let id = |n| ConnId::new(n, 0);
        let mut known = Vec::new();
        for len in [0usize, 1, 8, 8, 20] {
            let n = known.len() as u32;
            let cid = cid(0x70 + n as u8, len);
            known.push((id(n), cid, routes.replace(id(n), None, &cid, local, remote)));
        }
        for (id, cid, _) in &known {
            assert_eq!(routes.find(local, remote, &packet(cid)), Some(*id));
            assert_eq!(routes.find(local, other, &packet(cid)), None);
            assert_eq!(routes.find(other, remote, &packet(cid)).is_some(), !cid.is_empty());
            let long = |len: usize| [&[0xc1, 0, 0, 0, 1, len as u8][..], cid, &[9; 30]].concat();
            assert_eq!(routes.find(local, remote, &long(cid.len())), Some(*id), "long headers contain the length");
            assert_eq!(routes.find(local, remote, &long(cid.len() + 1)), None);
            assert_eq!(routes.find(local, remote, &long(cid.len())[..5 + cid.len()]), None, "cut off");
            assert_eq!(routes.find(local, remote, &[0xc1; 30]), None);
        }
        routes.remove(known[0].0, Some(known[0].2));
        assert_eq!(routes.find(local, remote, &packet(&known[2].1)), Some(known[2].0));
        assert_eq!(routes.find(local, remote, &packet(&known[2].1)[..5]), None, "cut off");
        let moved = routes.replace(id(2), Some(known[2].2), &cid(0x33, 5), local, remote);
        assert_eq!(routes.find(local, remote, &packet(&known[2].1)), None);
        assert_eq!(routes.find(local, remote, &packet(&cid(0x33, 5))), Some(id(2)));
        assert_eq!(routes.replace(id(2), Some(moved), &cid(0x33, 5), local, remote), moved);
        for (id, _, route) in known.iter().filter(|(id, ..)| *id != known[0].0) {
            routes.remove(*id, Some(if *id == ConnId::new(2, 0) { moved } else { *route }));
        }
        assert!(routes.conns.is_empty() && routes.lengths == [0; MAX_CID + 1]);
    }
}
