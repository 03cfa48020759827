//! Several paths: packets that come by another path than the one in use, validation, and moving (RFC 9000 §8.2, §9).
//!
//! A server follows its client: if the packet with the highest number comes from another address and is not a probe,
//! that is where it sends from then on, at most three times the bytes that came from there until the address has
//! answered a challenge. If it does not answer, the server returns to the address that it validated last. A client moves
//! when its application wants to, to a path that it has validated before, and answers challenges on all of its paths.

use std::net::SocketAddr;

use arrayvec::ArrayVec;

use crate::base::Side;
use crate::base::time::{Duration, Instant};
use crate::quic::connection::closing::Fault;
use crate::quic::connection::path::recovery_config;
use crate::quic::connection::{Connection, Cx, RxMeta};
use crate::quic::event::{CloseReason, Event};
use crate::quic::path::{Ended, MAX_RESPONSES, Other, Path, PathData, Paths, Place, Proof, Role, Validation};
use crate::quic::recovery::{Onward, SpaceId};
use crate::quic::stats::DropReason;
use crate::wire::quic::TransportError;

/// Type of the PATH_RESPONSE frame.
const PATH_RESPONSE: u64 = 0x1b;

/// What came with a datagram by another path than the one in use, while the datagram is handled.
#[derive(Debug, Default)]
pub(crate) struct Elsewhere {
    /// Challenges, which are answered on that path. More at a time are a flood.
    challenges: ArrayVec<PathData, MAX_RESPONSES>,
}

impl Connection {
    /// Handles a datagram of `len` bytes to the ID `dcid` that came by another path than the one in use; `handle`
    /// handles its packets.
    #[cold]
    #[inline(never)]
    pub(super) fn come_by_other(
        &mut self,
        cx: &mut Cx<'_>,
        meta: &RxMeta,
        dcid: &[u8],
        len: usize,
        handle: impl FnOnce(&mut Self, &mut Cx<'_>),
    ) {
        let may_come = if self.is_active() { self.may_come_by(meta) } else { self.may_ask_for_close(meta) };
        if self.other_at(meta).is_none() && !may_come {
            cx.stats.drop(if self.is_active() { DropReason::WrongPath } else { DropReason::Closed });
            return;
        }
        if !self.is_active() {
            // The answer goes by the path in use. If its address is not validated, only packets from there count (RFC 9000
            // §10.2.1).
            self.stats.rx_bytes += if self.path.is_validated() { len as u64 } else { 0 };
            return handle(self, cx);
        }
        let (packets, highest, handshaking) = (self.stats.rx_packets, self.highest(), !self.complete);
        self.non_probing = false;
        self.stats.rx_bytes += len as u64;
        cx.scratch.elsewhere = Some(Elsewhere::default());
        handle(self, cx);
        let came = cx.scratch.elsewhere.take().unwrap_or_default();
        // Nothing follows from packets that are not authentic, or copies of others.
        if !self.is_active() || self.stats.rx_packets == packets {
            return;
        }
        // With the last packet of its handshake, a client has told all numbers of that space.
        let moved = self.non_probing && (self.highest() > highest || (handshaking && self.complete));
        let used = cx.ids.sequence(dcid);
        let place = if self.is_on_path(meta.local, meta.remote) {
            // One of the packets has made it the one in use.
            self.path.on_received(len);
            Place::Active
        } else {
            let Some(index) = self.other_at(meta).or_else(|| self.add_probed(cx, meta, used, moved)) else {
                cx.stats.drop(DropReason::WrongPath);
                return;
            };
            if let Some(other) = self.paths_mut().other(index) {
                other.path.on_received(len);
            }
            if let Some(used) = used.filter(|_| self.side == Side::Server && self.highest() > highest) {
                self.on_peer_uses(index, used, moved);
            }
            Place::Other(index)
        };
        for data in came.challenges {
            self.paths_mut().on_challenge(place, data);
        }
        self.path_work = true;
        if let (Side::Server, Place::Other(index)) = (self.side, place) {
            self.follow(cx, index, moved);
        }
    }

    /// The other path that a datagram came by.
    fn other_at(&self, meta: &RxMeta) -> Option<usize> {
        self.paths.as_ref()?.find(meta.local, meta.remote)
    }

    /// Whether a datagram may come by a path that is not known yet. Clients discard packets from unknown addresses (RFC
    /// 9000 §9). Servers take them at the address that the client knows, or has been offered (§9.6.2).
    fn may_come_by(&self, meta: &RxMeta) -> bool {
        let offered = self.config.preferred_address.contains(meta.local);
        let former = || self.paths.iter().flat_map(|paths| paths.others()).any(|other| other.path.local == meta.local);
        self.side == Side::Server && (meta.local == self.path.local || offered || former())
    }

    /// Whether a packet by a path that is not known (any more) is answered with a close. Of a client, the server's address
    /// does not change but to the preferred one, while it may have moved itself. A server's client could be anyone.
    fn may_ask_for_close(&self, meta: &RxMeta) -> bool {
        self.side == Side::Client && (meta.remote == self.path.remote || meta.remote == self.first_remote())
    }

    /// The highest packet numbers of the spaces that only the peer can send in. 0-RTT packets are replayed too easily.
    fn highest(&self) -> [Option<u64>; 2] {
        let of = |space: SpaceId| self.spaces[space.index()].acks.largest();
        [of(SpaceId::Handshake), of(SpaceId::Data).filter(|_| self.complete)]
    }

    pub(super) fn paths_mut(&mut self) -> &mut Paths {
        self.paths.get_or_insert_with(|| Box::new(Paths::new(self.path.remote)))
    }

    /// Adds a path that the peer uses or probes, with the ID `used` of ours.
    fn add_probed(&mut self, cx: &mut Cx<'_>, meta: &RxMeta, used: Option<u16>, moved: bool) -> Option<usize> {
        let mut path = self.new_path(meta, false);
        path.peer_uses = used.unwrap_or_default();
        let cid = self.id_for(meta.local, used, moved);
        tracing::debug!(conn = %self.id, local = %meta.local, remote = %meta.remote, ?cid, "packet by another path");
        let (index, gone) = self.paths_mut().add(Other::new(path, cid, Role::Probed));
        self.forget(gone);
        self.remote_cids.tell_again();
        cx.stats.paths_seen += u64::from(index.is_some());
        index
    }

    /// The peer's ID to use on a path from `local`, on which the peer uses the ID `used` of ours. A NAT changes the address
    /// of a path but not its ID (RFC 9000 §9.5); from another address of ours, no ID is used again. `moved` is whether the
    /// peer uses the path, and does not only probe it.
    fn id_for(&mut self, local: SocketAddr, used: Option<u16>, moved: bool) -> Option<u64> {
        let is_same = |path: &Path| Some(path.peer_uses) == used && path.local == local;
        if is_same(&self.path) {
            return Some(self.remote_cids.current_seq());
        }
        let others = self.paths.iter().flat_map(|paths| paths.others()).filter(|other| is_same(&other.path));
        if let Some(cid) = others.filter_map(|other| other.cid).next() {
            return Some(cid);
        }
        if moved { self.remote_cids.take_unused() } else { self.remote_cids.take_spare() }
    }

    /// The newest packet has come by the path `index`, to the ID `used` of ours. If the peer used another one there before,
    /// it comes from another of its paths, and what is sent there has another ID, too (RFC 9000 §9.5).
    fn on_peer_uses(&mut self, index: usize, used: u16, moved: bool) {
        let Some(other) = self.paths.as_mut().and_then(|paths| paths.other(index)) else { return };
        let same = std::mem::replace(&mut other.path.peer_uses, used) == used;
        let former = other.cid.take_if(|_| !same);
        if other.cid.is_some() {
            return;
        }
        let local = other.path.local;
        let cid = self.id_for(local, Some(used), moved);
        if let Some(other) = self.paths_mut().other(index) {
            other.cid = cid;
        }
        self.release_id(former);
    }

    /// A path of which nothing is known. `validated` is whether its peer's address is.
    pub(super) fn new_path(&self, meta: &RxMeta, validated: bool) -> Path {
        let max = self.config.max_udp_payload_on(meta.remote).min(self.peer.max_udp_payload);
        // ECN and whether the spin bit spins are as on the path in use until the connection moves.
        let ecn = self.path.ecn.of_new_path(self.next_numbers());
        Path::new(meta.local, meta.remote, validated, max, ecn, self.path.spin.of_probes())
    }

    /// The validation of a path that begins `now`. Its probe timeout is that of the path in use if only ports differ.
    fn new_validation(&self, now: Instant, same_hosts: bool) -> Validation {
        let [pto, larger] = self.validation_times(same_hosts);
        Validation::new(now, pto, larger)
    }

    /// The probe timeout of another path, and the larger one of it and that of a path of which nothing is known (RFC
    /// 9000 §8.2.4).
    pub(super) fn validation_times(&self, same_hosts: bool) -> [Duration; 2] {
        let pto = self.pto();
        // As before the first sample (RFC 9002 §6.2.2).
        let fresh = 3 * self.config.initial_rtt + self.peer_max_ack_delay();
        [if same_hosts { pto } else { fresh }, pto.max(fresh)]
    }

    /// Handles a packet of the client that came by another path; `moved` means that it is not a probe, and has the
    /// highest number (RFC 9000 §9.3).
    fn follow(&mut self, cx: &mut Cx<'_>, index: usize, moved: bool) {
        let Some(other) = self.paths.as_ref().and_then(|paths| paths.others().get(index)) else { return };
        let (valid, same_local) = (other.valid, other.path.local == self.path.local);
        let without_id = other.cid.is_none();
        if !valid {
            let validation = self.new_validation(cx.now, other.path.has_hosts_of(&self.path));
            self.paths_mut().validate(Place::Other(index), || validation);
        }
        if !moved {
            return;
        }
        // A peer that has provided too few IDs cannot be followed (RFC 9000 §9.5).
        cx.stats.moves_without_id += u64::from(without_id);
        if same_local {
            self.move_to(cx, index);
        } else if self.config.preferred_address.contains(self.path.local) {
            // The client has accepted our preferred address: what it sends to the former one is late.
        } else if valid {
            self.move_to(cx, index);
        } else if let Some(other) = self.paths_mut().other(index) {
            // From our preferred address, nothing but probes is sent before the path is validated (§9.6.2).
            other.go = true;
        }
    }

    /// Uses another path from now on (RFC 9000 §9.3, §9.4). Nothing happens if there is no ID for it: nothing could be
    /// sent there until the peer provides one.
    pub(super) fn move_to(&mut self, cx: &mut Cx<'_>, index: usize) {
        let now = cx.now;
        let (numbers, spin) = (self.next_numbers(), self.path.spin.of_new_path(cx.rng));
        let Some(paths) = &mut self.paths else { return };
        let Some((cid, to)) = paths.other(index).and_then(|to| Some((to.cid?, to))) else { return };
        let (same, back) = (to.path.has_hosts_of(&self.path), to.role == Role::Former);
        let ecn = match (back, same) {
            (true, _) => self.path.ecn.of_former_path(&to.path.ecn, numbers),
            (false, true) => self.path.ecn.of_other_port(numbers),
            (false, false) => self.path.ecn.of_new_path(numbers),
        };
        if same && !back {
            // The PMTU is that of a pair of hosts (§14.2).
            to.path.mtu = self.path.mtu.clone();
        }
        self.path.mtu.leave();
        let remember = self.path.is_validated();
        let forgotten = paths.move_to(index, &mut self.path, self.remote_cids.current_seq());
        (self.path.ecn, self.path.spin) = (ecn, spin);
        self.remote_cids.make_current(cid);
        self.forget(forgotten);
        let config = recovery_config(&self.config, 0);
        let onward = match (back, same) {
            (true, _) => Onward::Back,
            (false, true) => Onward::Same,
            (false, false) => Onward::Fresh(&config),
        };
        self.recovery.change_path(now, onward, remember);
        self.recovery.set_max_datagram(self.path.mtu.current());
        (self.steady, self.path_work, self.pacing_until) = (false, true, None);
        tracing::debug!(conn = %self.id, local = %self.path.local, remote = %self.path.remote, "path changed");
        if self.side == Side::Client {
            self.on_moved(now);
            return;
        }
        if !self.path.is_validated() {
            let validation = self.new_validation(now, same);
            self.paths_mut().validate(Place::Active, || validation);
        } else {
            self.on_moved(now);
            if !back {
                // For the new address, which the client proved before it moved (RFC 9000 §9.3).
                self.offer_tokens(cx);
            }
        }
        // Whoever is at the former address learns of the move, and may object (§9.3.3).
        if let Some(former) = self.paths.as_ref().and_then(|paths| paths.former()).filter(|_| remember) {
            let validation = self.new_validation(now, true);
            self.paths_mut().validate(Place::Other(former), || validation);
        }
    }

    /// The original address of a server that this client has left for the preferred one.
    fn original_address(&self) -> Option<SocketAddr> {
        let first = self.first_remote();
        (self.side == Side::Client && self.path.remote != first).then_some(first)
    }

    /// The path in use is another one than before, and valid.
    fn on_moved(&mut self, now: Instant) {
        self.path.mtu.arrive(now);
        let original = self.original_address();
        self.paths_mut().keep_from(now, original);
        let (local, remote) = (self.path.local, self.path.remote);
        self.moves = self.moves.saturating_add(1);
        if self.side == Side::Client {
            // Tells the server where we are.
            self.ping_due = true;
            if self.path.remote != self.first_remote() {
                // A client that has followed its server may move on (RFC 9000 §9).
                self.peer.disable_active_migration = false;
            }
            self.event(Event::Migrated { local, remote });
        } else {
            self.event(Event::PeerMigrated { local, remote });
        }
    }

    /// The handshake has validated the peer's address (RFC 9000 §8.1): the one with which it began. If the client has
    /// moved since, that does not hold for its new address.
    pub(super) fn validate_first_path(&mut self) {
        if self.first_remote() == self.path.remote {
            self.path.validate();
        }
    }

    /// Handles PATH_CHALLENGE (RFC 9000 §8.2.2).
    pub(super) fn on_path_challenge(&mut self, cx: &mut Cx<'_>, data: PathData) {
        match &mut cx.scratch.elsewhere {
            Some(elsewhere) => {
                let _ = elsewhere.challenges.try_push(data);
            }
            None => {
                self.paths_mut().on_challenge(Place::Active, data);
                self.path_work = true;
            }
        }
    }

    /// Handles PATH_RESPONSE (RFC 9000 §8.2.3). It may be late; unless we have sent challenges, it is a violation
    /// (§19.18).
    pub(super) fn on_path_response(&mut self, cx: &mut Cx<'_>, data: &PathData) -> Result<(), Fault> {
        if !self.challenged {
            let why = "answer to a challenge that was not sent";
            return Err(Fault::new(TransportError::PROTOCOL_VIOLATION, PATH_RESPONSE, why));
        }
        let Some((place, proof)) = self.paths.as_mut().and_then(|paths| paths.on_response(cx.now, data)) else {
            return Ok(());
        };
        self.path_work = true;
        if proof == Proof::Path {
            cx.stats.paths_validated += 1;
        }
        match place {
            Place::Active => {
                self.path.validate();
                if proof == Proof::Path {
                    self.on_moved(cx.now);
                    // For the new address (RFC 9000 §9.3).
                    self.offer_tokens(cx);
                }
            }
            Place::Other(index) => self.on_other_valid(cx, index, proof),
        }
        Ok(())
    }

    /// Whether the path in use is valid, so that no other one has to be remembered for a return.
    fn is_settled(&self) -> bool {
        self.path.is_validated() && !self.paths.as_ref().is_some_and(|paths| paths.is_validating(Place::Active))
    }

    fn on_other_valid(&mut self, cx: &mut Cx<'_>, index: usize, proof: Proof) {
        let settled = self.is_settled();
        let paths = self.paths_mut();
        let Some(other) = paths.other(index) else { return };
        other.path.validate();
        if proof == Proof::Address {
            return;
        }
        other.valid = true;
        let (local, remote) = (other.path.local, other.path.remote);
        let (go, ours) = (other.go, other.role == Role::Probing);
        if settled {
            let original = self.original_address();
            self.paths_mut().keep_from(cx.now, original);
        }
        if ours {
            self.event(Event::PathValidated { local, remote });
        }
        if go {
            self.move_to(cx, index);
        }
    }

    /// The next deadline of paths.
    pub(super) fn path_deadline(&self) -> Option<Instant> {
        self.paths.as_ref().and_then(|paths| paths.deadline())
    }

    /// Handles the deadlines of paths that have passed.
    pub(super) fn on_path_timeout(&mut self, cx: &mut Cx<'_>) {
        while let Some(ended) = self.paths.as_mut().and_then(|paths| paths.on_timeout(cx.now)) {
            self.path_work = true;
            match ended {
                Ended::Validation(Place::Active) => {
                    cx.stats.paths_failed += 1;
                    self.go_back(cx);
                }
                Ended::Validation(Place::Other(index)) => self.on_other_failed(cx, index),
                Ended::Time(index) => self.remove_path(index),
            }
            if !self.is_active() {
                return;
            }
        }
        self.path_work |= self.paths.is_some();
    }

    /// The validation of the path in use has failed: returns to the one that was validated last (RFC 9000 §9.3.2).
    fn go_back(&mut self, cx: &mut Cx<'_>) {
        let (local, remote) = (self.path.local, self.path.remote);
        match self.paths.as_ref().and_then(|paths| paths.former()) {
            Some(former) => {
                self.event(Event::PathFailed { local, remote });
                self.move_to(cx, former);
            }
            // Nothing is known of any other: "MUST close the connection silently".
            None => self.abandon(CloseReason::IdleTimeout),
        }
    }

    /// The validation of a path that is not in use has failed.
    fn on_other_failed(&mut self, cx: &mut Cx<'_>, index: usize) {
        let settled = self.is_settled();
        let Some(other) = self.paths_mut().other(index) else { return };
        let (local, remote, role) = (other.path.local, other.path.remote, other.role);
        // What to return to is not forgotten before the path in use is validated.
        if role == Role::Former && !settled {
            return;
        }
        cx.stats.paths_failed += u64::from(role != Role::Former);
        self.remove_path(index);
        if role == Role::Probing {
            self.event(Event::PathFailed { local, remote });
        }
    }

    fn remove_path(&mut self, index: usize) {
        let removed = self.paths_mut().remove(index);
        if removed.as_ref().is_some_and(|path| path.role == Role::Former) {
            self.recovery.forget_path();
        }
        self.forget(removed);
    }

    /// Retires the ID of a path that is not used any more (RFC 9000 §5.1.2).
    pub(super) fn forget(&mut self, gone: Option<Other>) {
        self.release_id(gone.and_then(|gone| gone.cid));
    }

    /// Retires an ID that a path does not use any more, unless another one does.
    fn release_id(&mut self, cid: Option<u64>) {
        let Some(cid) = cid else { return };
        self.remote_cids.tell_again();
        let shared = self.paths.iter().flat_map(|paths| paths.others()).any(|other| other.cid == Some(cid));
        if !shared {
            self.remote_cids.retire(cid);
        }
    }

    /// The peer has issued or retired IDs: paths whose ID is retired get another one.
    pub(super) fn on_remote_ids(&mut self) {
        let Some(paths) = &mut self.paths else { return };
        for index in 0..paths.others().len() {
            let Some(other) = paths.other(index) else { break };
            let current = other.cid == Some(self.remote_cids.current_seq());
            // If the ID of the path in use was retired, it may have got that of this path.
            let lost = other.cid.is_none_or(|cid| self.remote_cids.get(cid).is_none());
            let shared = current && other.path.local != self.path.local && !self.remote_cids.current().is_empty();
            if lost || shared {
                other.cid = self.remote_cids.take_spare();
            }
        }
        self.path_work = true;
    }
}
