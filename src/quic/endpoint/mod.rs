//! One core's engine: its connections, the dispatch of datagrams to them, and its queues.

mod accept;
mod answers;
mod error;
mod forerunners;
mod lookup;
mod reports;
mod reset;
mod retry;
mod route;
mod routes;
mod table;
mod versions;
mod way;

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};

use arrayvec::ArrayVec;

use crate::base::Side;
use crate::base::limit::Limit;
use crate::base::rng::Rng;
use crate::base::time::Instant;
use crate::base::timer::TimerWheel;
use crate::crypto::HEAD_AT;
use crate::mem::{BufPool, prefetch_read};
use crate::quic::cid::{CidInfo, IdMaker, RawCid, first_dcid};
use crate::quic::config::{ClientConfig, EndpointConfig, ServerConfig};
use crate::quic::connection::{Birth, Conn, Connection, Cx, Fault, RxMeta, Scratch, Slots, Transmit};
use crate::quic::event::{CloseReason, ConnId, Event};
use crate::quic::memory::Memory;
use crate::quic::path::Spin;
use crate::quic::stats::{DropReason, EndpointStats};
use crate::quic::tls::{self, Tickets, TlsError};
use crate::quic::trace::{Moment, Tracing};
use crate::wire::quic::header::{PacketType, Parsed};
use crate::wire::quic::{TransportError, varint};

pub use error::ConnectError;
use forerunners::Forerunners;
pub use lookup::Known;
use lookup::Lookup;
use reports::ForeignResets;
pub use route::{Datagram, Lead, Leads, RUN, Tag};
use routes::Routes;
use table::Table;

use crate::quic::token::AddressTokens;
use answers::{Answer, Answers};
pub use answers::{AnswerId, Origin};

/// Maximum UDP payload in bytes.
const MAX_DATAGRAM: usize = 65_527;

/// Number of datagrams that a connection sends before the next one's turn.
const TURN: u32 = 32;

/// Maximum number of queued doubts about peers; further peers are doubted at their next probe timeout.
const MAX_DOUBTS: usize = 16;

/// The result of handling a datagram, as far as it matters to the network layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// Nothing of interest.
    Handled,
    /// An answer without a connection was queued. See [`Endpoint::set_answer_origin`].
    Answered(AnswerId),
    /// A connection was accepted, whose peer's address may be forged.
    Accepted,
}

/// The QUIC engine of one core. It performs no I/O and reads no clock: datagrams and the time are passed in.
#[derive(Debug)]
pub struct Endpoint {
    config: EndpointConfig,
    server: Option<ServerConfig>,
    /// Set when no more connections are accepted.
    closed: bool,
    memory: Memory,
    rng: Rng,
    ids: IdMaker,
    table: Table,
    lookup: Lookup,
    routes: Routes,
    /// Number of server handshakes in flight, and of those whose clients sent no token.
    handshakes: usize,
    unvalidated: usize,
    /// Number of connections known to be draining.
    draining: usize,
    /// Connections that are closing or draining.
    ended: usize,
    wheel: TimerWheel<(ConnId, Instant)>,
    transmit: VecDeque<ConnId>,
    turn: u32,
    with_events: VecDeque<ConnId>,
    answers: Answers,
    /// Peers that do not answer probes.
    doubts: ArrayVec<IpAddr, MAX_DOUBTS>,
    /// 0-RTT packets that came before their Initial packets.
    forerunners: Forerunners,
    /// Datagrams that may reset connections of other cores.
    foreign_resets: ForeignResets,
    resets: Limit,
    /// The same for IDs of cores that do not exist, which almost any random ID names.
    foreign: Limit,
    /// Rate limit of closes for bad address tokens.
    refusals: Limit,
    /// Rate limit of Version Negotiation packets.
    negotiations: Limit,
    scratch: Vec<u8>,
    lists: Scratch,
    expired: Vec<(ConnId, Instant)>,
    /// The latest time that was passed in.
    now: Instant,
    stats: EndpointStats,
}

/// The parts of the endpoint that a connection borrows, without borrowing the table.
macro_rules! cx {
    ($self:ident, $now:expr) => {
        Cx {
            now: $now,
            memory: &mut $self.memory,
            ids: &$self.ids,
            stats: &mut $self.stats,
            scratch: &mut $self.lists,
            rng: &mut $self.rng,
        }
    };
}

impl Endpoint {
    /// Creates an engine. It accepts connections if `server` is given. `pool` provides memory for pooled streams.
    ///
    /// # Panics
    /// If the number of the core is [`CidInfo::NO_CORE`].
    pub fn new(config: EndpointConfig, server: Option<ServerConfig>, pool: BufPool) -> Self {
        assert_ne!(config.core, CidInfo::NO_CORE, "no connection can belong to this core");
        tls::warm_up();
        let mut rng = Rng::from_seed(config.seed);
        let ids = config.id_maker();
        let lookup = Lookup::new(&mut rng);
        let routes = Routes::new(&mut rng);
        let mut lists = Scratch::new(AddressTokens::new(&config.address_key, config.time_base, config.new_tokens));
        if let Some(server) = &server {
            let (base, early) = (config.time_base, server.early_data.is_some());
            lists.tickets = Some(Box::new(Tickets::new(&config.ticket_key, base, server.tickets, early, &server.tls)));
            lists.early_data = server.early_data.clone();
        }
        lists.tracing = config.tracer.as_ref().map(|tracer| Box::new(Tracing::new(tracer.sink(), config.time_base)));
        Self {
            forerunners: Forerunners::default(),
            foreign_resets: ForeignResets::new(),
            resets: Limit::new(config.reset_rate, Instant::ZERO),
            foreign: Limit::new(config.reset_rate, Instant::ZERO),
            refusals: Limit::new(config.reset_rate, Instant::ZERO),
            negotiations: Limit::new(config.reset_rate, Instant::ZERO),
            server,
            closed: false,
            memory: Memory::new(pool, config.memory),
            table: Table::new(ids.last_generation(), config.core),
            config,
            rng,
            ids,
            lookup,
            routes,
            handshakes: 0,
            draining: 0,
            ended: 0,
            unvalidated: 0,
            wheel: TimerWheel::new(Instant::ZERO),
            transmit: VecDeque::new(),
            turn: 0,
            with_events: VecDeque::new(),
            answers: Answers::default(),
            doubts: ArrayVec::new(),
            scratch: vec![0; HEAD_AT + MAX_DATAGRAM],
            lists,
            expired: Vec::new(),
            now: Instant::ZERO,
            stats: EndpointStats::default(),
        }
    }

    /// Starts a connection. [`Endpoint::poll_transmit`] returns its first packets.
    ///
    /// # Errors
    /// [`ConnectError`] if there are too many connections, or the name or the addresses are invalid.
    pub fn connect(
        &mut self,
        now: Instant,
        config: &ClientConfig,
        server_name: &str,
        local: SocketAddr,
        remote: SocketAddr,
    ) -> Result<ConnId, ConnectError> {
        if local.is_ipv4() != remote.is_ipv4() {
            return Err(ConnectError::Family { local, remote });
        }
        if self.table.len() >= self.config.max_connections {
            return Err(ConnectError::TooMany(self.config.max_connections));
        }
        let id = self.table.reserve().ok_or(ConnectError::TooMany(self.table.len()))?;
        let dcid = first_dcid(&mut self.rng);
        let birth = Birth {
            id,
            side: Side::Client,
            version: config.transport.first_version(),
            config: config.transport.clone(),
            local,
            remote,
            original_dcid: dcid,
            retry_scid: None,
            with_token: false,
            remote_cid: dcid,
            max_data: self.memory.window(config.transport.max_data, true),
            spin: Spin::new(Side::Client, config.transport.spin, &mut self.rng),
            seed: config.transport.congestion.seed(&mut self.rng),
        };
        let mut conn = Box::new(Connection::new(&birth, now, None));
        let mut cx = cx!(self, now);
        conn.start_trace(now, cx.scratch, &config.tls.alpn_protocols);
        let tokens = config.tokens.as_ref().map_or(Ok(()), |store| conn.use_tokens(&mut cx, store, server_name));
        let started =
            conn.begin(&mut cx, config.client_tls(), server_name).and_then(|()| tokens.map_err(TlsError::internal));
        if let Err(error) = started {
            self.table.cancel(id);
            conn.end_trace(now, &mut self.lists);
            self.lists.guests.go_on();
            return Err(ConnectError::Tls { name: server_name.to_owned(), reason: error.reason });
        }
        if conn.is_traced() {
            conn.observe(&mut cx, Moment::Settled);
        }
        conn.update_route(|old, cid, local, remote| self.routes.replace(id, old, cid, local, remote));
        self.table.insert(id, conn);
        self.stats.connections_opened += 1;
        tracing::debug!(conn = %id, peer = %remote, "connecting");
        self.touch(id);
        Ok(id)
    }

    /// Handles a received UDP payload; it is decrypted from where it lies.
    pub fn handle_datagram(&mut self, now: Instant, meta: &RxMeta, data: &mut [u8]) -> Arrival {
        let mut leads = Leads::new();
        self.lead(&mut leads, data);
        self.route(&mut leads);
        let mut datagram = Datagram::new(meta, data, leads[0]);
        self.handle_run(now, std::slice::from_mut(&mut datagram));
        datagram.arrival
    }

    /// Handles received datagrams, in order. Returns false if the result is [`Arrival::Handled`] for all of them; otherwise
    /// see [`Datagram::arrival`]. Datagrams of other cores must not be among them.
    #[inline]
    pub fn handle_run(&mut self, now: Instant, run: &mut [Datagram<'_>]) -> bool {
        self.now = now;
        self.stats.rx_datagrams += run.len() as u64;
        let mut news = false;
        let mut rest = run;
        // Each packet is prefetched while the one before it is processed.
        if let Some(first) = rest.first() {
            prefetch_read(first.data);
        }
        while let [first, behind @ ..] = &*rest {
            let n = match first.lead {
                Lead::Here(known) => 1 + behind.iter().take_while(|other| other.leads_to(known)).count(),
                _ => 1,
            };
            let (group, others) = rest.split_at_mut(n);
            if let Some(next) = others.first() {
                prefetch_read(next.data);
            }
            news |= self.handle_group(now, group);
            rest = others;
        }
        news
    }

    /// Handles datagrams with the same lead, or a single one.
    #[inline]
    fn handle_group(&mut self, now: Instant, group: &mut [Datagram<'_>]) -> bool {
        self.stats.rx_bytes += group.iter().map(|datagram| datagram.data.len() as u64).sum::<u64>();
        if let Lead::Here(known) = group[0].lead
            && self.handle_short(now, known, group)
        {
            return false;
        }
        let mut news = false;
        for datagram in group {
            datagram.arrival = self.handle_other(now, datagram.meta, datagram.data);
            news |= datagram.arrival != Arrival::Handled;
        }
        news
    }

    #[inline(never)]
    fn handle_other(&mut self, now: Instant, meta: &RxMeta, data: &mut [u8]) -> Arrival {
        let (answer, unvalidated) = (self.answers.last(), self.unvalidated);
        self.handle_parsed(now, meta, data);
        if self.answers.last() != answer {
            Arrival::Answered(self.answers.last())
        } else if self.unvalidated > unvalidated {
            Arrival::Accepted
        } else {
            Arrival::Handled
        }
    }

    fn handle_parsed(&mut self, now: Instant, meta: &RxMeta, data: &mut [u8]) {
        let Ok(parsed) = self.ids.parse(data) else {
            match self.find_reset(meta, data) {
                Some(id) => self.on_reset(now, id),
                None if self.is_foreign(data) => self.negotiate_version(now, meta, data),
                None => {
                    self.note_reset(meta, data);
                    self.stats.drop(DropReason::Malformed);
                }
            }
            return;
        };
        match self.find(now, &parsed, meta.remote) {
            Some(id) => self.deliver(now, id, meta, &parsed, data),
            None => self.handle_unknown(now, meta, &parsed, data),
        }
    }

    /// The fast path for most datagrams: one packet with a short header each, for an existing connection. Returns false
    /// if the datagrams are different.
    fn handle_short(&mut self, now: Instant, known: Known, run: &mut [Datagram<'_>]) -> bool {
        let mut cx = cx!(self, now);
        let conn = self.table.get(known.id).filter(|conn| conn.accepts_sequence(known.sequence, now));
        let Some(conn) = conn else { return false };
        conn.handle_run(&mut cx, run, &mut self.scratch);
        announce_ids(conn, known.id, &mut self.lookup, &mut self.routes);
        enqueue(conn, known.id, &mut self.transmit, &mut self.with_events);
        true
    }

    /// The connection of a packet.
    fn find(&mut self, now: Instant, parsed: &Parsed, from: SocketAddr) -> Option<ConnId> {
        if let Some(id) = self.find_ours(now, &parsed.dcid) {
            return Some(id);
        }
        match parsed.kind {
            PacketType::Initial | PacketType::ZeroRtt => self.lookup.by_initial(now, parsed.dcid, from),
            _ => None,
        }
    }

    /// The connection that one of our connection IDs belongs to.
    fn find_ours(&mut self, now: Instant, dcid: &[u8]) -> Option<ConnId> {
        let known = self.ids.raw(dcid).and_then(|dcid| self.decode(dcid))?;
        self.table.get(known.id)?.accepts_sequence(known.sequence, now).then_some(known.id)
    }

    /// Decodes a connection ID of ours if it was given to a connection. The connection may have ended, which the table
    /// knows, or have retired the ID.
    fn decode(&mut self, dcid: RawCid) -> Option<Known> {
        if let Some(known) = self.lookup.recent(dcid) {
            return Some(known);
        }
        match self.read(dcid) {
            Lead::Here(known) => Some(known),
            _ => None,
        }
    }

    fn deliver(&mut self, now: Instant, id: ConnId, meta: &RxMeta, parsed: &Parsed, data: &mut [u8]) {
        let mut cx = cx!(self, now);
        let Some(conn) = self.table.get(id) else {
            // A late copy of a client's Initial packet, whose connection has ended.
            cx.stats.drop(DropReason::UnknownConnection);
            return;
        };
        let read = conn.packets_read();
        let drops = conn.drops_before(&cx);
        match parsed.kind {
            PacketType::VersionNegotiation => {
                conn.handle_version_negotiation(&mut cx, parsed, data);
                conn.trace_single(&mut cx, drops, parsed.kind, data);
                announce_ids(conn, id, &mut self.lookup, &mut self.routes);
            }
            PacketType::Retry => {
                conn.handle_retry(&mut cx, parsed, data);
                conn.trace_single(&mut cx, drops, parsed.kind, data);
                announce_ids(conn, id, &mut self.lookup, &mut self.routes);
            }
            _ => {
                let was_handshaking = conn.is_handshaking();
                conn.handle_datagram(&mut cx, meta, parsed, data, &mut self.scratch);
                let kind = Some(parsed.kind).filter(|_| parsed.packet_len == data.len());
                conn.trace_received_datagram(&mut cx, drops, kind, data.len());
                let over = was_handshaking && !conn.is_handshaking();
                announce_ids(conn, id, &mut self.lookup, &mut self.routes);
                if over {
                    self.handshake_over(now, id);
                }
            }
        }
        self.touch(id);
        self.find_reset_unread(now, id, read, meta, data);
    }

    /// Handles the completion of a handshake: the client uses our connection IDs from now on.
    fn handshake_over(&mut self, now: Instant, id: ConnId) {
        let Some(conn) = self.table.get(id).filter(|conn| conn.side() == Side::Server) else { return };
        self.lookup.retire_initial(now, conn.first_dcid(), conn.first_remote());
        self.handshakes -= 1;
        self.unvalidated -= usize::from(!conn.came_with_token());
    }

    /// Marks a connection that may have events or packets to send, or be over.
    fn touch(&mut self, id: ConnId) {
        if let Some(conn) = self.table.get(id) {
            enqueue(conn, id, &mut self.transmit, &mut self.with_events);
        }
    }

    /// When [`Endpoint::handle_timeout`] has to be called next. There may be nothing to do then.
    pub fn next_timeout(&self) -> Option<Instant> {
        self.wheel.next()
    }

    /// Handles every deadline that has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.now = now;
        let mut expired = std::mem::take(&mut self.expired);
        self.wheel.expire(now, |entry| expired.push(entry));
        for (id, at) in expired.drain(..) {
            let mut cx = cx!(self, now);
            let Some(conn) = self.table.get(id) else { continue };
            if !conn.armed.fired(at) {
                continue;
            }
            if conn.next_timeout() <= now {
                let ptos = conn.pto_count();
                conn.handle_timeout(&mut cx);
                announce_ids(conn, id, &mut self.lookup, &mut self.routes);
                if conn.is_traced() {
                    conn.observe(&mut cx, Moment::TimedOut);
                }
                if conn.doubts_path(ptos) && !self.doubts.contains(&conn.remote().ip()) {
                    let _ = self.doubts.try_push(conn.remote().ip());
                }
                #[cfg(debug_assertions)]
                {
                    conn.timed_out_at = Some(now);
                }
                self.touch(id);
            } else {
                self.rearm(id);
            }
        }
        self.expired = expired;
    }

    fn rearm(&mut self, id: ConnId) {
        let Some(conn) = self.table.get(id) else { return };
        let next = conn.next_timeout();
        // A later deadline is found when the earlier entry fires.
        if conn.armed.needs(next) {
            self.wheel.arm((id, next), next);
        }
    }

    /// Whether there may be something to send now.
    #[inline]
    pub fn may_transmit(&self) -> bool {
        !(self.transmit.is_empty() && self.answers.is_empty())
    }

    /// Writes the next UDP payload to send into `slot`; `None` if there is nothing to send now.
    pub fn poll_transmit(&mut self, now: Instant, slot: &mut [u8]) -> Option<Transmit> {
        // Answers and connections alternate, so that neither can starve the other.
        if self.answers.is_next()
            && let Some(transmit) = self.write_answer(now, slot)
        {
            return Some(transmit);
        }
        while let Some(&id) = self.transmit.front() {
            let mut cx = cx!(self, now);
            if let Some(conn) = self.table.get_to_send(id) {
                if let Some(transmit) = conn.poll_transmit(&mut cx, slot) {
                    self.stats.tx_datagrams += 1;
                    self.stats.tx_bytes += transmit.len as u64;
                    self.turn += 1;
                    self.end_turn(id);
                    return Some(transmit);
                }
                conn.queued = false;
            }
            self.turn = 0;
            self.transmit.pop_front();
            self.settle(now, id);
        }
        self.write_answer(now, slot)
    }

    /// The same for several UDP payloads that belong together: all of them go from one connection to one address.
    /// Returns the first of them; [`Slots::keep`] is called for each.
    pub fn poll_transmit_run(&mut self, now: Instant, slots: &mut impl Slots) -> Option<Transmit> {
        let transmit = self.poll_transmit(now, slots.next()?)?;
        slots.keep(transmit.len);
        let Some(id) = transmit.conn else { return Some(transmit) };
        // As long as it is this connection's turn.
        while self.turn > 0 && self.answers.is_empty() {
            let mut cx = cx!(self, now);
            let Some(conn) = self.table.get_to_send(id) else { break };
            let bytes = conn.sent_bytes();
            let count = conn.send_burst(&mut cx, slots, (TURN - self.turn) as usize);
            if count == 0 {
                break;
            }
            self.stats.tx_datagrams += count as u64;
            self.stats.tx_bytes += conn.sent_bytes() - bytes;
            self.turn += count as u32;
            self.end_turn(id);
        }
        Some(transmit)
    }

    /// After [`TURN`] datagrams, another connection gets its turn.
    fn end_turn(&mut self, id: ConnId) {
        if self.turn >= TURN {
            self.turn = 0;
            self.transmit.rotate_left(1);
            // A connection that always has more to send never settles; its deadlines must still be met.
            self.rearm(id);
        }
    }

    /// Handles a connection that has nothing more to send: arms its timer, or removes it if it is over.
    fn settle(&mut self, now: Instant, id: ConnId) {
        let Some(conn) = self.table.get(id) else { return };
        if conn.is_traced() {
            conn.observe(&mut cx!(self, now), Moment::Settled);
        }
        #[cfg(debug_assertions)]
        assert!(
            conn.timed_out_at != Some(now) || conn.next_timeout() > now,
            "the deadline {:?} was not handled: {conn:?}",
            conn.next_timeout()
        );
        note_news(conn, id, &mut self.with_events);
        announce_ids(conn, id, &mut self.lookup, &mut self.routes);
        if !conn.is_active() && !std::mem::replace(&mut conn.ended, true) {
            self.ended += 1;
        }
        if conn.is_draining() && !std::mem::replace(&mut conn.drains, true) {
            self.draining += 1;
        }
        if conn.is_dead() && !conn.has_news() {
            self.remove(id);
        } else {
            conn.trim();
            self.rearm(id);
        }
    }

    fn remove(&mut self, id: ConnId) {
        let Some(mut conn) = self.table.remove(id) else { return };
        conn.told_tokens().for_each(|told| self.lookup.replace_token(id, told, (None, told.1)));
        conn.end_trace(self.now, &mut self.lists);
        self.routes.remove(id, conn.route());
        self.draining -= usize::from(conn.drains);
        self.ended -= usize::from(conn.ended);
        if conn.side() == Side::Server && conn.is_handshaking() {
            self.lookup.retire_initial(self.now, conn.first_dcid(), conn.first_remote());
            self.handshakes -= 1;
            self.unvalidated -= usize::from(!conn.came_with_token());
        }
    }

    /// The next event and its connection.
    ///
    /// # Panics
    /// If code of the application that the engine called (a buffer provider, a part of a TLS configuration) has
    /// panicked, the panic is resumed here. The connection is then already closed with INTERNAL_ERROR;
    /// [`Endpoint::poll_transmit`] informs the peer.
    pub fn poll_event(&mut self) -> Option<(ConnId, Event)> {
        while let Some(&id) = self.with_events.front() {
            if let Some(conn) = self.table.get(id) {
                if conn.events.is_empty() {
                    conn.flush_events();
                }
                if let Some(event) = conn.events.pop_front() {
                    if conn.is_traced() {
                        conn.trace_event(self.now, &mut self.lists, &event);
                    }
                    return Some((id, event));
                }
                conn.has_events = false;
                conn.forget_streams();
                if conn.is_dead() && !conn.queued {
                    self.remove(id);
                }
            }
            self.with_events.pop_front();
            self.lists.guests.go_on();
        }
        None
    }

    /// Access to a connection; `None` if it is gone.
    pub fn conn(&mut self, id: ConnId) -> Option<Conn<'_>> {
        let conn = self.table.get(id)?;
        // Any operation may cause packets or events.
        if !std::mem::replace(&mut conn.queued, true) {
            self.transmit.push_back(id);
        }
        if !std::mem::replace(&mut conn.has_events, true) {
            self.with_events.push_back(id);
        }
        Some(Conn::new(conn))
    }

    /// The peer's address of a connection; `None` if it is gone.
    pub fn remote(&self, id: ConnId) -> Option<SocketAddr> {
        self.table.peek(id).map(Connection::remote)
    }

    /// The number of the core that it runs on ([`EndpointConfig::core`]).
    pub fn core(&self) -> u8 {
        self.config.core
    }

    /// Number of connections, including those that are closing.
    pub fn connection_count(&self) -> usize {
        self.table.len()
    }

    /// Number of connections that were ended by their peers, or given up before a peer answered. They remain only so
    /// that late packets are recognised (RFC 9000 §10.2.2); there is no need to wait for them before exiting.
    pub fn draining_count(&self) -> usize {
        self.draining
    }

    /// Number of connections that are closing or draining (RFC 9000 §10.2). Those that are not draining were closed by
    /// this end, and answer late packets with their CONNECTION_CLOSE frame.
    pub fn ended_count(&self) -> usize {
        self.ended
    }

    /// Notes that packets that connection `id` sent at `now` wait on this host, such as for the MAC address of the next
    /// hop. Their acknowledgements say nothing about the round-trip time.
    pub fn on_held(&mut self, now: Instant, id: ConnId) {
        if let Some(conn) = self.table.get(id) {
            conn.on_held(now);
        }
    }

    /// Closes every connection with an application error code.
    pub fn close_all(&mut self, code: u64, reason: &str) {
        self.end_all(|conn| conn.shut_down(code.min(varint::MAX), reason));
    }

    /// Closes every connection with INTERNAL_ERROR (RFC 9000 §20.1), as the application can no longer serve them.
    pub fn fail_all(&mut self, reason: &str) {
        self.end_all(|conn| conn.fail(Fault::new(TransportError::INTERNAL_ERROR, 0, reason)));
    }

    /// Ends every connection without informing its peer. Memory is returned in events, as for a close;
    /// [`Endpoint::poll_event`] returns them.
    pub fn abandon_all(&mut self) {
        self.end_all(|conn| conn.abandon(CloseReason::Shutdown));
    }

    fn end_all(&mut self, end: impl Fn(&mut Connection)) {
        let ids: Vec<ConnId> = self.table.ids().collect();
        for id in ids {
            if let Some(conn) = self.table.get(id) {
                end(conn);
            }
            self.touch(id);
        }
    }

    /// Consumes the engine: every connection ends without informing its peer, and all events not yet polled are
    /// returned. Among them are all buffers, with the number of valid bytes, and all sent memory, with the number of
    /// acknowledged bytes. Data of pooled streams returns to its pool; to read it first, call [`Endpoint::abandon_all`]
    /// and poll the events.
    pub fn into_events(mut self) -> impl Iterator<Item = (ConnId, Event)> {
        self.abandon_all();
        std::iter::from_fn(move || self.poll_event())
    }

    /// Called from time to time when the core is idle, so that traces are not held back.
    pub fn rest(&mut self, now: Instant) {
        if let Some(tracing) = &mut self.lists.tracing {
            tracing.rest(now);
        }
    }

    /// Counters since the start.
    pub fn stats(&self) -> &EndpointStats {
        &self.stats
    }

    /// The pool from which pooled streams take their chunks.
    pub fn pool(&self) -> &BufPool {
        self.memory.pool()
    }

    /// Number of bytes of the pool charged to connections: held by pooled streams, or lent to the application as
    /// chunks. Buffers that the application took from the pool do not count.
    pub fn memory_charged(&self) -> usize {
        self.memory.charged()
    }

    /// Number of these bytes held by streams, recounted.
    pub(crate) fn memory_held(&self) -> usize {
        self.table.ids().filter_map(|id| self.table.peek(id)).map(Connection::held).sum()
    }
}

/// Queues a connection that may have packets to send, and events if it has news.
fn enqueue(conn: &mut Connection, id: ConnId, transmit: &mut VecDeque<ConnId>, with_events: &mut VecDeque<ConnId>) {
    if !std::mem::replace(&mut conn.queued, true) {
        transmit.push_back(id);
    }
    note_news(conn, id, with_events);
}

/// Queues a connection that has news for events.
fn note_news(conn: &mut Connection, id: ConnId, with_events: &mut VecDeque<ConnId>) {
    if conn.has_news() && !std::mem::replace(&mut conn.has_events, true) {
        with_events.push_back(id);
    }
}

/// Registers the reset tokens and the destination connection ID of a connection if they have changed.
fn announce_ids(conn: &mut Connection, id: ConnId, lookup: &mut Lookup, routes: &mut Routes) {
    if conn.tell_tokens(|old, new| lookup.replace_token(id, old, new)) {
        conn.update_route(|old, cid, local, remote| routes.replace(id, old, cid, local, remote));
    }
}
