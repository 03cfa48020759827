//! Tells the trace of a connection, if it has one, what happens ([`trace`](crate::quic::trace)).
//!
//! Packets are told where they are sealed and opened. Most other things are found by comparing the connection with what
//! the trace was told before, after each datagram, each timeout, and when there is nothing more to send.

use std::net::SocketAddr;

use crate::base::Side;
use crate::base::time::Instant;
use crate::crypto::{Opened, Suite};
use crate::quic::config::CongestionAlgorithm;
use crate::quic::connection::closing::State;
use crate::quic::connection::packet::{PacketBuilder, TAG_LEN};
use crate::quic::connection::receive::{Packet, Plain, RxMeta};
use crate::quic::connection::run::Incoming;
use crate::quic::connection::sent::SentFrame;
use crate::quic::connection::{Connection, Cx, Scratch};
use crate::quic::event::{Dir, Event};
use crate::quic::path::MIN_MTU;
use crate::quic::recovery::SpaceId;
use crate::quic::stats::DropReason;
use crate::quic::trace::{
    CongestionState, ConnectionState, LossCause, MAX_VERSIONS, Metrics, Moment, PacketCause, Seen, StreamChange,
    TraceEvent, TraceStart, TracedPacket, Tracing, frames,
};
use crate::wire::quic::ConnectionId;
use crate::wire::quic::frame::StreamHeader;
use crate::wire::quic::header::{self, PacketType};
use crate::wire::quic::params::TransportParameters;
use crate::wire::quic::varint::Writer;

/// Counts of dropped packets.
type Drops = [u64; DropReason::ALL.len()];

/// Length of the longest header of a STREAM or CRYPTO frame in bytes.
const LONGEST_HEAD: usize = 1 + 3 * 8;

/// Reasons that do not concern packets.
const NO_PACKETS: [DropReason; 2] = [DropReason::DatagramNoBuffer, DropReason::DatagramOverflow];

impl Connection {
    /// Begins the trace of a new connection, if there is anyone to tell. `alpn` are the application protocols of this end.
    pub(crate) fn start_trace(&mut self, now: Instant, scratch: &mut Scratch, alpn: &[Vec<u8>]) {
        let Some(tracing) = &mut scratch.tracing else { return };
        let (conn, side) = (self.id, self.side);
        let start = TraceStart {
            conn,
            side,
            original_dcid: self.handshake_ids.as_ref().map(|ids| ids.original_dcid).unwrap_or_default(),
            wall: tracing.time_base + now.saturating_since(Instant::ZERO),
        };
        self.traced = tracing.begin(now, &start);
        if !self.traced {
            return;
        }
        tracing.record(now, conn, TraceEvent::Started { local: self.path.local, remote: self.path.remote });
        let reduction = match self.config.congestion {
            CongestionAlgorithm::Cubic | CongestionAlgorithm::Bbr => 70,
            CongestionAlgorithm::NewReno => 50,
        };
        tracing.record(
            now,
            conn,
            TraceEvent::RecoveryParameters { initial_rtt: self.config.initial_rtt, max_datagram: MIN_MTU, reduction },
        );
        let event = TraceEvent::Alpn { list: Some(side), chosen: false };
        tracing.record_with(now, conn, event, |bytes| alpn.iter().for_each(|alpn| put_alpn(bytes, alpn)));
        self.trace_versions(now, tracing, None);
    }

    /// Ends the trace, as the connection is gone.
    pub(crate) fn end_trace(&mut self, now: Instant, scratch: &mut Scratch) {
        let Some(tracing) = scratch.tracing.as_mut().filter(|_| self.traced) else { return };
        self.traced = false;
        if let Some(watch) = tracing.watch(self.id) {
            let old = watch.state().filter(|state| *state != ConnectionState::Closed);
            if old.is_some() {
                tracing.record_late(now, self.id, TraceEvent::State { old, new: ConnectionState::Closed });
            }
        }
        tracing.end(now, self.id);
    }

    /// Whether the connection is traced.
    pub(crate) fn is_traced(&self) -> bool {
        self.traced
    }

    /// Tells what has changed.
    #[cold]
    pub(crate) fn observe(&mut self, cx: &mut Cx<'_>, moment: Moment) {
        let Some(tracing) = &mut cx.scratch.tracing else { return };
        if tracing.is_full(self.id) {
            tracing.end(cx.now, self.id);
            self.traced = false;
            return;
        }
        let seen = self.seen();
        tracing.compare(cx.now, self.id, &seen, moment);
        if tracing.watch(self.id).is_some_and(|watch| watch.tells_version(self.version.number())) {
            self.trace_versions(cx.now, tracing, None);
        }
        if self.side == Side::Client
            && let Some(early) = &self.early
            && tracing.watch(self.id).is_some_and(|watch| watch.tells_restored())
        {
            tracing.record(cx.now, self.id, TraceEvent::Restored(early.remembered().named().collect()));
        }
        if self.complete && tracing.watch(self.id).is_some_and(|watch| watch.tells_complete()) {
            let (list, chosen) = (None, !self.alpn.is_empty());
            tracing.record_with(cx.now, self.id, TraceEvent::Alpn { list, chosen }, |bytes| {
                if chosen {
                    put_alpn(bytes, &self.alpn);
                }
            });
            if let Some(info) = &self.tls_info {
                tracing.record(cx.now, self.id, TraceEvent::Cipher(cipher_name(info.suite())));
            }
        }
    }

    fn seen(&self) -> Seen {
        let state = match &self.state {
            State::Active if self.confirmed => ConnectionState::HandshakeConfirmed,
            State::Active if self.complete => ConnectionState::HandshakeComplete,
            State::Active if self.has_handshake_keys => ConnectionState::HandshakeStarted,
            State::Active => ConnectionState::Attempted,
            State::Closing(_) => ConnectionState::Closing,
            State::Draining { .. } => ConnectionState::Draining,
            State::Dead => ConnectionState::Closed,
        };
        let recovery = &self.recovery;
        let rtt = Some(recovery.rtt()).filter(|rtt| rtt.first_sample().is_some());
        let metrics = Metrics {
            min_rtt: rtt.map(|rtt| rtt.min()),
            smoothed_rtt: rtt.map(|rtt| rtt.smoothed()),
            latest_rtt: rtt.map(|rtt| rtt.latest()),
            rtt_variance: rtt.map(|rtt| rtt.var()),
            pto_count: Some(recovery.pto_count()),
            congestion_window: Some(recovery.cwnd()),
            bytes_in_flight: Some(recovery.bytes_in_flight()),
            ssthresh: recovery.congestion().slow_start_threshold(),
        };
        let congestion = if recovery.is_recovering() {
            CongestionState::Recovery
        } else if recovery.congestion().in_slow_start() {
            CongestionState::SlowStart
        } else {
            CongestionState::Avoidance
        };
        let keys = |space: SpaceId| self.spaces[space.index()].keys.is_some();
        Seen {
            state,
            validated: self.path.is_validated(),
            keys: [
                keys(SpaceId::Initial),
                self.has_handshake_keys,
                self.early.as_ref().is_some_and(|early| early.has_keys()),
                self.one_rtt.is_some(),
            ],
            key_updates: self.stats.key_updates,
            local: self.path.local,
            remote: self.path.remote,
            remote_cid: *self.remote_cids.current(),
            mtu: self.path.mtu.current(),
            mtu_done: !self.path.mtu.is_searching(),
            spin: self.path.spin.is_on() && self.path.spin.bits() != 0,
            ecn: self.path.ecn.traced_state(),
            congestion,
            metrics,
            timer: recovery.next_timeout(&self.context()).filter(|_| self.is_active()),
            blocked: self.is_active() && self.connection_blocked(),
            opened: [Dir::Bidi, Dir::Uni].map(|dir| self.streams.opened(dir)),
            probes: [0, 1, 2].map(|i| self.spaces[i].probes),
        }
    }

    /// Handles a run of datagrams one by one, so that each is told.
    #[cold]
    pub(super) fn handle_traced_run<D: Incoming>(&mut self, cx: &mut Cx<'_>, run: &mut [D], scratch: &mut [u8]) {
        for datagram in run {
            let (meta, data) = datagram.parts();
            let (before, len) = (self.drops_before(cx), data.len());
            self.handle_short_datagram(cx, meta, data, None, scratch);
            self.trace_received_datagram(cx, before, Some(PacketType::Short), len);
        }
    }

    /// Counts of drops before a datagram is handled; `None` if the connection is not traced.
    pub(crate) fn drops_before(&self, cx: &Cx<'_>) -> Option<Drops> {
        self.traced.then_some(cx.stats.drops)
    }

    /// Tells the drops since `before`, and what else a datagram of `len` bytes has changed. `kind` is the type of its only
    /// packet, if there is only one.
    pub(crate) fn trace_received_datagram(
        &mut self,
        cx: &mut Cx<'_>,
        before: Option<Drops>,
        kind: Option<PacketType>,
        len: usize,
    ) {
        let Some(before) = before else { return };
        let Some(tracing) = cx.scratch.tracing.as_mut().filter(|_| self.traced) else { return };
        let counts = before.iter().zip(&cx.stats.drops).zip(DropReason::ALL);
        for ((before, after), (reason, _)) in counts.filter(|(_, (why, _))| !NO_PACKETS.contains(why)) {
            // Several packets that waited for their keys may be dropped at once.
            for _ in *before..*after {
                tracing.record(cx.now, self.id, TraceEvent::Dropped { reason, kind, len: len.min(0xffff) as u16 });
            }
        }
        self.observe(cx, Moment::Received);
    }

    /// The packet that is about to be sealed goes from `local` to `remote`, which need not be the path in use.
    pub(super) fn trace_stray(&self, cx: &mut Cx<'_>, local: SocketAddr, remote: SocketAddr) {
        if let Some(tracing) = cx.scratch.tracing.as_mut().filter(|_| self.traced) {
            tracing.stray = Some((local, remote));
        }
    }

    /// Tells of a packet that is about to be sealed.
    #[cold]
    pub(super) fn trace_sent(&self, cx: &mut Cx<'_>, space: SpaceId, pn: u64, builder: &PacketBuilder<'_>) {
        let Scratch { tracing: Some(tracing), .. } = &mut *cx.scratch else { return };
        let stray = tracing.stray.take();
        let codepoint = if stray.is_some() { 0 } else { self.path.ecn.codepoint() };
        let (header, payload) = builder.parts();
        let Some(watch) = tracing.watch(self.id) else { return };
        let (datagram, marks) = watch.datagram(true, self.stats.tx_bytes, codepoint);
        let probes = watch.takes_probe(space.index(), self.spaces[space.index()].probes);
        let cause = if builder.frames.contains(&SentFrame::MtuProbe) {
            PacketCause::MtuProbe
        } else if probes {
            PacketCause::ProbeTimeout
        } else {
            PacketCause::None
        };
        if marks {
            tracing.record(cx.now, self.id, TraceEvent::Ecn { sent: true, codepoint, datagram });
        }
        let packet = TracedPacket {
            sent: true,
            kind: kind_of(header, space),
            pn,
            pn_len: (header[0] & 3) + 1,
            len: (header.len() + payload.len() + TAG_LEN) as u16,
            header_len: header.len() as u16,
            datagram,
            ack_delay_exponent: 3,
            cause,
            elsewhere: stray.filter(|(local, remote)| !self.is_on_path(*local, *remote)),
        };
        tracing.record_packet(cx.now, self.id, packet, header, payload);
    }

    /// Tells of an authentic packet that is about to be handled, unless it is a duplicate. `header` is its header without
    /// protection.
    #[cold]
    pub(super) fn trace_received(
        &mut self,
        cx: &mut Cx<'_>,
        meta: &RxMeta,
        info: &Packet<'_>,
        plain: &Plain,
        header: &[u8],
        opened: &Opened<'_>,
    ) {
        let &Packet { space, kind, .. } = info;
        if self.spaces[space.index()].acks.is_duplicate(plain.pn) {
            return;
        }
        let dcid = match kind {
            PacketType::Short => ConnectionId::new(&header[1..header.len() - (usize::from(plain.first & 3) + 1)]),
            _ => header::raw_cids(header).and_then(|(dcid, _)| ConnectionId::new(dcid)),
        };
        let Some(tracing) = &mut cx.scratch.tracing else { return };
        let codepoint = meta.ecn;
        let Some(watch) = tracing.watch(self.id) else { return };
        let (datagram, marks) = watch.datagram(false, self.stats.rx_bytes, codepoint);
        let changed = dcid.and_then(|new| watch.local_cid(new).map(|old| (old, new)));
        if let Some((old, new)) = changed {
            tracing.record(cx.now, self.id, TraceEvent::ConnectionId { local: true, old, new });
        }
        if marks {
            tracing.record(cx.now, self.id, TraceEvent::Ecn { sent: false, codepoint, datagram });
        }
        let cause = if tracing.replays { PacketCause::KeysAvailable } else { PacketCause::None };
        let packet = TracedPacket {
            sent: false,
            kind,
            pn: plain.pn,
            pn_len: (plain.first & 3) + 1,
            len: (header.len() + opened.len() + TAG_LEN) as u16,
            header_len: header.len() as u16,
            datagram,
            ack_delay_exponent: if space == SpaceId::Data { self.peer.ack_delay_exponent } else { 3 },
            cause,
            elsewhere: (!self.is_on_path(meta.local, meta.remote)).then_some((meta.local, meta.remote)),
        };
        let mut room = tracing.borrow_room(opened.len());
        opened.decrypt_at(0, &mut room);
        tracing.record_packet(cx.now, self.id, packet, header, &room);
        tracing.return_room(room);
    }

    /// Tells of a Retry or Version Negotiation packet that was handled, or dropped if there are drops since `before`.
    pub(crate) fn trace_single(&mut self, cx: &mut Cx<'_>, before: Option<Drops>, kind: PacketType, data: &[u8]) {
        if before.is_some_and(|before| before == cx.stats.drops) {
            self.trace_whole(cx, kind, data);
        }
        self.trace_received_datagram(cx, before, Some(kind), data.len());
    }

    #[cold]
    fn trace_whole(&mut self, cx: &mut Cx<'_>, kind: PacketType, data: &[u8]) {
        let Some(tracing) = &mut cx.scratch.tracing else { return };
        // They count as datagrams of their own; the connection does not count their bytes.
        let Some(watch) = tracing.watch(self.id) else { return };
        let (datagram, _) = watch.datagram(false, u64::MAX, 0);
        let len = data.len().min(0xffff) as u16;
        let packet = TracedPacket {
            sent: false,
            kind,
            pn: 0,
            pn_len: 0,
            len,
            header_len: len,
            datagram,
            ack_delay_exponent: 3,
            cause: PacketCause::None,
            elsewhere: None,
        };
        let data = &data[..usize::from(len)];
        tracing.record_with(cx.now, self.id, TraceEvent::Packet(packet), |bytes| bytes.extend_from_slice(data));
        if kind == PacketType::VersionNegotiation {
            let listed: Vec<u32> = header::versions(data).take(MAX_VERSIONS).collect();
            self.trace_versions(cx.now, tracing, Some(&listed));
        }
    }

    /// Tells of versions: those of this end, or those that a server has `listed`, and the one in use.
    fn trace_versions(&self, now: Instant, tracing: &mut Tracing, listed: Option<&[u32]>) {
        let own = self.config.versions.iter().map(|version| version.number());
        let (server, client): (Vec<u32>, Vec<u32>) = match self.side {
            Side::Server => (own.collect(), Vec::new()),
            Side::Client => (listed.unwrap_or_default().to_vec(), own.collect()),
        };
        if let Some(watch) = tracing.watch(self.id) {
            watch.tells_version(self.version.number());
        }
        let chosen = self.is_active().then(|| self.version.number());
        let event = TraceEvent::Versions { server: server.len() as u8, chosen };
        tracing.record_with(now, self.id, event, |bytes| {
            server.iter().chain(&client).for_each(|number| bytes.extend_from_slice(&number.to_be_bytes()));
        });
    }

    /// Tells of transport parameters.
    pub(super) fn trace_params(&self, cx: &mut Cx<'_>, local: bool, params: &TransportParameters) {
        if let Some(tracing) = cx.scratch.tracing.as_mut().filter(|_| self.traced) {
            tracing.record(cx.now, self.id, TraceEvent::Parameters { local, params: Box::new(params.clone()) });
        }
    }

    /// Tells of a packet that is kept until there are keys for it.
    pub(super) fn trace_kept(&self, cx: &mut Cx<'_>, space: SpaceId, packet: &[u8]) {
        if let Some(tracing) = cx.scratch.tracing.as_mut().filter(|_| self.traced) {
            let kind = kind_of(packet, space);
            tracing.record(cx.now, self.id, TraceEvent::Buffered { kind, len: packet.len().min(0xffff) as u16 });
        }
    }

    /// Tells that the first packet with keys of the next phase has arrived.
    pub(super) fn trace_update(&self, cx: &mut Cx<'_>) {
        if let Some(watch) = cx.scratch.tracing.as_mut().and_then(|tracing| tracing.watch(self.id)) {
            watch.remote_update();
        }
    }

    /// Packets are handled from now on, or no more, that arrived before their keys.
    pub(super) fn trace_replay(&self, cx: &mut Cx<'_>, replays: bool) {
        if let Some(tracing) = cx.scratch.tracing.as_mut().filter(|_| self.traced) {
            tracing.replays = replays;
        }
    }

    /// Tells of the acknowledged packets in the scratch.
    #[cold]
    pub(super) fn trace_acked(&self, cx: &mut Cx<'_>, space: SpaceId) {
        let Scratch { tracing: Some(tracing), acked, .. } = &mut *cx.scratch else { return };
        if !acked.is_empty() {
            tracing.record_with(cx.now, self.id, TraceEvent::Acked(type_of(space)), |bytes| {
                acked.iter().for_each(|(pn, _)| bytes.extend_from_slice(&pn.to_be_bytes()));
            });
        }
    }

    /// Tells of the lost packets in the scratch, and of the data in them, which will be sent again.
    #[cold]
    pub(super) fn trace_lost(&self, cx: &mut Cx<'_>) {
        let Scratch { tracing: Some(tracing), lost, .. } = &mut *cx.scratch else { return };
        for (space, pn, contents) in lost {
            let threshold = self.recovery.packet_threshold(*space);
            let mtu_probe = contents.iter().any(|frame| frame == SentFrame::MtuProbe);
            let reordered = self.recovery.largest_acked(*space).is_some_and(|acked| acked >= *pn + threshold);
            let cause = if reordered { LossCause::Reordering } else { LossCause::Time };
            tracing.record(cx.now, self.id, TraceEvent::Lost { space: type_of(*space), pn: *pn, mtu_probe, cause });
            let mut data = contents.iter().filter_map(head_of).peekable();
            if data.peek().is_some() {
                tracing.record_with(cx.now, self.id, TraceEvent::Retransmit, |bytes| {
                    data.for_each(|(head, len)| frames::push(&head, len, bytes));
                });
            }
        }
    }

    /// Tells what an event says that the application gets.
    #[cold]
    pub(crate) fn trace_event(&self, now: Instant, scratch: &mut Scratch, event: &Event) {
        let Some(tracing) = &mut scratch.tracing else { return };
        let (id, change, local) = match event {
            Event::StreamOpened { id } => {
                if id.dir() == Dir::Bidi {
                    let event = TraceEvent::Stream { id: *id, change: StreamChange::SendOpened, local: false };
                    tracing.record_late(now, self.id, event);
                }
                (*id, StreamChange::ReceiveOpened, false)
            }
            Event::Finished { id, .. } | Event::Reset { id, .. } => (*id, StreamChange::ReceiveClosed, false),
            Event::OutOfSpace { id, .. } => (*id, StreamChange::ReceiveClosed, true),
            Event::SendFinished { id } => (*id, StreamChange::SendClosed, true),
            Event::Stopped { id, .. } => (*id, StreamChange::SendClosed, false),
            Event::PathValidated { local, remote } | Event::PathFailed { local, remote } => {
                let valid = matches!(event, Event::PathValidated { .. });
                tracing.record_late(now, self.id, TraceEvent::Probed { local: *local, remote: *remote, valid });
                return;
            }
            Event::Closed { reason } => {
                if tracing.watch(self.id).is_some_and(|watch| watch.tells_closed()) {
                    tracing.record_late(now, self.id, TraceEvent::Closed(Box::new(reason.clone())));
                }
                return;
            }
            _ => return,
        };
        tracing.record_late(now, self.id, TraceEvent::Stream { id, change, local });
    }
}

fn put_alpn(bytes: &mut Vec<u8>, alpn: &[u8]) {
    let alpn = &alpn[..alpn.len().min(255)];
    bytes.push(alpn.len() as u8);
    bytes.extend_from_slice(alpn);
}

/// The type of the packets of `space` (of 0-RTT and 1-RTT packets, the latter).
fn type_of(space: SpaceId) -> PacketType {
    match space {
        SpaceId::Initial => PacketType::Initial,
        SpaceId::Handshake => PacketType::Handshake,
        SpaceId::Data => PacketType::Short,
    }
}

/// The type of a packet of `space` with this header.
fn kind_of(header: &[u8], space: SpaceId) -> PacketType {
    match type_of(space) {
        PacketType::Short if header[0] & 0x80 != 0 => PacketType::ZeroRtt,
        kind => kind,
    }
}

/// The front of a frame with data, up to the data, and the length of the frame.
fn head_of(frame: SentFrame) -> Option<(Vec<u8>, usize)> {
    let mut buf = [0; LONGEST_HEAD];
    let mut w = Writer::new(&mut buf);
    let data = match frame {
        SentFrame::Stream { len, id, start } | SentFrame::StreamFin { len, id, start } => {
            let fin = matches!(frame, SentFrame::StreamFin { .. });
            StreamHeader { id, offset: start, len: Some(len.into()), fin }.encode(&mut w);
            len
        }
        SentFrame::Crypto { len, start } => {
            w.varint(0x06);
            w.varint(start);
            w.varint(len.into());
            len
        }
        _ => return None,
    };
    let used = w.finish()?;
    Some((buf[..used].to_vec(), used + data as usize))
}

/// As in the registry of TLS cipher suites.
fn cipher_name(suite: Suite) -> &'static str {
    match suite {
        Suite::Aes128Gcm => "AES_128_GCM_SHA256",
        Suite::Aes256Gcm => "AES_256_GCM_SHA384",
        Suite::ChaCha20Poly1305 => "CHACHA20_POLY1305_SHA256",
    }
}
