//! 0-RTT packets (RFC 9001 §4.6, §5.6): a client's data before the handshake, and a server's answers to it.

use crate::base::Side;
use crate::base::time::Instant;
use crate::crypto::{DirectionKeys, STATE_NONCE_LEN};
use crate::quic::connection::closing::Fault;
use crate::quic::connection::sent::SentFrame;
use crate::quic::connection::{Connection, Cx, PeerLimits, RxMeta, Scratch};
use crate::quic::early::{EarlyData, EarlyDataRequest, Limits, Marks};
use crate::quic::event::Event;
use crate::quic::flow::SendCredit;
use crate::quic::recovery::SpaceId;
use crate::quic::stats::DropReason;
use crate::quic::stream::Windows;
use crate::quic::tls::{Offer, Opened};
use crate::wire::quic::header::Parsed;
use crate::wire::quic::params::TransportParameters;
use crate::wire::quic::{StreamId, TransportError, Version};

/// Number of 0-RTT packets that a client sends at most. The congestion window allows far fewer, as none of them is
/// acknowledged before the handshake is complete.
const MAX_SENT: u64 = 1 << 16;

/// State of a connection with 0-RTT.
#[derive(Debug)]
pub(super) struct ZeroRtt {
    /// On a client: for its 0-RTT packets. On a server: for those of the client.
    keys: Option<DirectionKeys>,
    pub(super) state: EarlyData,
    /// The version of 0-RTT packets, that of the first Initial packet (RFC 9369 §4.1).
    version: Version,
    /// On a client: the limits under which it sends.
    remembered: Limits,
    /// On a client that was rejected: the number of its first 1-RTT packet.
    first_1rtt: u64,
    /// On a server: when the keys are discarded.
    discard_at: Option<Instant>,
    /// On a server: the bytes that arrived as 0-RTT.
    marks: Marks,
}

impl ZeroRtt {
    fn new(keys: DirectionKeys, state: EarlyData, version: Version, remembered: Limits) -> Box<Self> {
        Box::new(Self {
            keys: Some(keys),
            state,
            version,
            remembered,
            first_1rtt: 0,
            discard_at: None,
            marks: Marks::default(),
        })
    }

    pub(super) fn version(&self) -> Version {
        self.version
    }

    /// The client's keys for 0-RTT packets.
    pub(super) fn keys(&self) -> Option<&DirectionKeys> {
        self.keys.as_ref()
    }

    pub(super) fn has_keys(&self) -> bool {
        self.keys.is_some()
    }

    /// On a client: the limits under which it sends.
    pub(super) fn remembered(&self) -> &Limits {
        &self.remembered
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.discard_at
    }
}

fn windows(params: &TransportParameters) -> Windows {
    Windows {
        bidi_local: params.initial_max_stream_data_bidi_local,
        bidi_remote: params.initial_max_stream_data_bidi_remote,
        uni: params.initial_max_stream_data_uni,
    }
}

impl Connection {
    /// Whether data may be sent before the handshake is complete: by a client in 0-RTT packets, by a server that has
    /// accepted them in 1-RTT packets (RFC 9001 §5.7).
    #[cold]
    pub(super) fn sends_early(&self) -> bool {
        let Some(early) = &self.early else { return false };
        match self.side {
            Side::Client => {
                early.has_keys() && self.one_rtt.is_none() && self.spaces[SpaceId::Data.index()].next_pn < MAX_SENT
            }
            Side::Server => self.one_rtt.is_some(),
        }
    }

    /// On a client whose first flight is written: sends 0-RTT packets if TLS has keys for them, under the limits that
    /// the server set on the earlier connection (RFC 9000 §7.4.1).
    pub(crate) fn begin_early(&mut self) {
        let Some(tls) = &mut self.tls else { return };
        let Some(keys) = tls.early_keys(self.version) else { return };
        let remembered = tls.transport_parameters().map(|raw| TransportParameters::decode(raw, Side::Server));
        let Some(Ok(params)) = remembered else { return };
        // These are never remembered, nor are IDs and reset tokens.
        let default = TransportParameters::default();
        let usable = TransportParameters {
            ack_delay_exponent: default.ack_delay_exponent,
            max_ack_delay: default.max_ack_delay,
            // draft-ietf-quic-ack-frequency-14 §3.
            min_ack_delay: None,
            ..params
        };
        self.early = Some(ZeroRtt::new(keys, EarlyData::Possible, self.version, Limits::of(&usable)));
        self.peer = PeerLimits::of(&usable, false);
        self.grant(&usable);
        self.path.mtu.limit(usable.max_udp_payload_size.min(u64::from(u16::MAX)) as u16);
        self.event(Event::EarlyData { state: EarlyData::Possible });
    }

    /// Raises the limits on what may be sent to those of `params`.
    fn grant(&mut self, params: &TransportParameters) {
        let (bidi, uni) = (params.initial_max_streams_bidi, params.initial_max_streams_uni);
        for dir in self.streams.set_peer(windows(params), bidi, uni).into_iter().flatten() {
            self.events.push_back(Event::StreamsAvailable { dir });
        }
        self.raise_credit(params.initial_max_data);
        if self.streams.len() > 0 {
            for id in self.streams.raise_windows() {
                if self.streams.window_opened(id, self.send_credit.available()) {
                    self.events.push_back(Event::Writable { id });
                }
            }
        }
    }

    /// Applies the limits in the peer's transport parameters. On a client with 0-RTT, this depends on whether the server
    /// has accepted it.
    pub(super) fn apply_limits(&mut self, cx: &mut Cx<'_>, params: &TransportParameters) -> Result<(), Fault> {
        let accepted = self.tls.as_ref().is_some_and(|tls| tls.is_early_data_accepted());
        let Some(early) = self.early.as_mut().filter(|_| self.side == Side::Client) else {
            self.grant(params);
            return Ok(());
        };
        // 1-RTT keys are there (RFC 9001 §4.9.3).
        early.keys = None;
        if !accepted {
            early.state = EarlyData::Rejected;
            early.first_1rtt = self.spaces[SpaceId::Data.index()].next_pn;
            self.event(Event::EarlyData { state: EarlyData::Rejected });
            cx.stats.early_data_rejected += 1;
            self.send_all_again(cx, params);
            return Ok(());
        }
        if let Some(name) = early.remembered.reduced_in(&Limits::of(params)) {
            let why = format!("{name} was reduced although 0-RTT is accepted");
            return Err(Fault::new(TransportError::PROTOCOL_VIOLATION, 0x06, why));
        }
        early.state = EarlyData::Accepted;
        self.event(Event::EarlyData { state: EarlyData::Accepted });
        cx.stats.early_data_accepted += 1;
        self.grant(params);
        Ok(())
    }

    /// After a rejection: everything that was sent as 0-RTT data counts as not sent, under the limits of this
    /// connection, whatever the earlier one allowed (RFC 9001 §4.6.2).
    fn send_all_again(&mut self, cx: &mut Cx<'_>, params: &TransportParameters) {
        self.requeue_zero_rtt(cx);
        self.send_credit = SendCredit::new(params.initial_max_data);
        self.streams.restart(windows(params), params.initial_max_streams_bidi, params.initial_max_streams_uni);
    }

    /// Queues the contents of all 0-RTT packets again, none of which the server has processed. Datagrams are lost.
    fn requeue_zero_rtt(&mut self, cx: &mut Cx<'_>) {
        let mut frames: Vec<SentFrame> = Vec::new();
        self.recovery.drain(SpaceId::Data, |packet| frames.extend(packet.iter()));
        for frame in frames {
            match frame {
                SentFrame::Datagram { id, .. } => self.datagram_gone(cx.stats, id),
                // 0-RTT packets are no MTU probes, which alone depend on the number of their packet.
                frame => self.frame_lost(cx.now, SpaceId::Data, 0, frame),
            }
        }
    }

    /// After a Retry: the server has dropped the 0-RTT packets before it (RFC 9000 §17.2.5.3). They are sent again with
    /// new numbers.
    pub(super) fn early_after_retry(&mut self, cx: &mut Cx<'_>) {
        if self.early.is_some() {
            self.requeue_zero_rtt(cx);
        }
    }

    /// On a client that begins again with another version, as another connection to the server: nothing was sent on it.
    pub(super) fn early_starts_over(&mut self, cx: &mut Cx<'_>) {
        if self.early.take().is_some() {
            self.event(Event::EarlyData { state: EarlyData::Rejected });
            cx.stats.early_data_rejected += 1;
            self.peer = PeerLimits::default();
            self.send_all_again(cx, &TransportParameters::default());
        }
    }

    /// After a HelloRetryRequest, which rejects 0-RTT (RFC 9001 §4.6.2): sends no more of it.
    pub(super) fn stop_early_if_retried(&mut self) {
        if let Some(early) = &mut self.early
            && self.tls.as_ref().is_some_and(|tls| tls.is_hello_retried())
        {
            early.keys = None;
        }
    }

    /// Whether an acknowledgement covers 0-RTT packets that the server has rejected, which it cannot have read (RFC 9001
    /// §4.6.2).
    pub(super) fn acks_rejected(&self, lowest: u64) -> bool {
        self.early.as_ref().is_some_and(|early| early.state == EarlyData::Rejected && lowest < early.first_1rtt)
    }

    /// On a server: looks at a ClientHello of a client that began with `version` before TLS reads it: finds the session
    /// that it resumes, and decides about 0-RTT (RFC 9001 §4.6.3).
    pub(super) fn before_hello(&mut self, cx: &mut Cx<'_>, version: Version, hello: &[u8]) -> Result<(), Fault> {
        let Some(offer) = Offer::read(hello) else { return Ok(()) };
        let limits = self.tls.as_ref().map_or_else(Limits::default, |tls| tls.announced);
        let Some(tickets) = &mut cx.scratch.tickets else { return Ok(()) };
        let mut opened = offer.tickets().map(|ticket| tickets.offer(cx.now, version, ticket));
        let first = opened.next().flatten();
        // TLS accepts 0-RTT with the first ticket only, but may resume with another.
        opened.for_each(drop);
        let usable = first.filter(|first| offer.early_data && first.limits.reduced_in(&limits).is_none());
        let accepted = match usable {
            Some(ticket) => self.accepts_early(cx, &offer, &ticket)?,
            None => false,
        };
        if offer.early_data && !accepted {
            cx.stats.early_data_rejected += 1;
            if let Some(tls) = &mut self.tls {
                tls.reject_early_data();
            }
        }
        Ok(())
    }

    /// Whether the application allows 0-RTT to a client, and its ticket was not used for it before.
    fn accepts_early(&self, cx: &mut Cx<'_>, offer: &Offer<'_>, ticket: &Opened) -> Result<bool, Fault> {
        let Scratch { early_data, tickets, guests, .. } = &mut *cx.scratch;
        let (Some(server), Some(tickets)) = (early_data, tickets) else { return Ok(false) };
        let request = EarlyDataRequest {
            remote: self.path.remote,
            server_name: offer.server_name,
            alpn: offer.alpn,
            max_data: ticket.limits.max_data(),
        };
        let allowed = guests.call(|| server.policy.accepts(&request))?;
        let time = tickets.time(cx.now);
        Ok(allowed && server.strikes.strike(time, ticket.issued, ticket.nonce))
    }

    /// On a server whose TLS has read a ClientHello: gets the keys of 0-RTT packets if it accepts them.
    pub(super) fn after_hello(&mut self, cx: &mut Cx<'_>, version: Version) {
        if let Some(tickets) = &cx.scratch.tickets {
            tickets.clear();
        }
        let Some(tls) = self.tls.as_mut().filter(|_| self.early.is_none()) else { return };
        let Some(keys) = tls.early_keys(version) else { return };
        self.alpn = tls.alpn().unwrap_or_default().into();
        self.early = Some(ZeroRtt::new(keys, EarlyData::Accepted, version, Limits::default()));
        cx.stats.early_data_accepted += 1;
        self.event(Event::EarlyData { state: EarlyData::Accepted });
    }

    /// On a server: turns the sessions in the output of TLS, from `from` on, into tickets.
    pub(super) fn seal_tickets(&mut self, cx: &mut Cx<'_>, from: usize) {
        if !cx.scratch.tickets.as_ref().is_some_and(|tickets| tickets.has_issued()) {
            return;
        }
        let limits = self.tls.as_ref().map_or_else(Limits::default, |tls| tls.announced);
        let out = self.spaces[SpaceId::Data.index()].crypto_tx.buffer();
        let Some(tickets) = &mut cx.scratch.tickets else { return };
        if let Some(server) = &cx.scratch.early_data {
            server.strikes.begin(tickets.time(cx.now));
        }
        let rng = &mut *cx.rng;
        let nonce = || {
            let mut nonce = [0; STATE_NONCE_LEN];
            rng.fill(&mut nonce);
            nonce
        };
        cx.stats.tickets_sent += tickets.issue(cx.now, self.version, &limits, out, from, nonce) as u64;
    }

    /// Handles a 0-RTT packet.
    pub(super) fn handle_zero_rtt(
        &mut self,
        cx: &mut Cx<'_>,
        meta: &RxMeta,
        parsed: &Parsed,
        packet: &mut [u8],
        scratch: &mut [u8],
    ) -> Result<(), Fault> {
        // A server never sends any (RFC 9001 §5.6).
        let version = self.early.as_ref().map_or(self.version, |early| early.version);
        if self.side == Side::Client || parsed.known_version() != Some(version) {
            cx.stats.drop(DropReason::Unexpected);
            return Ok(());
        }
        let Some(keys) = self.early.as_mut().and_then(|early| early.keys.take()) else {
            if self.early.is_none() && !self.awaits_hello() {
                // 0-RTT was rejected (RFC 9001 §4.6.2). These packets must not take the place of others.
                cx.stats.drop(DropReason::NoKeys);
            } else {
                self.on_no_keys(cx, meta, SpaceId::Data, packet);
            }
            return Ok(());
        };
        let outcome = self.open_long(cx, meta, parsed, packet, scratch, &keys);
        if let Some(early) = &mut self.early {
            early.keys = Some(keys);
        }
        outcome
    }

    /// On a server whose handshake is complete: late 0-RTT packets are read for a while (RFC 9001 §4.9.3).
    pub(super) fn keep_early_keys(&mut self, now: Instant) {
        let until = now + 3 * self.pto();
        if let Some(early) = self.early.as_mut().filter(|_| self.side == Side::Server) {
            early.discard_at = Some(until);
        }
    }

    /// Discards the keys of 0-RTT packets when it is time.
    pub(super) fn discard_early_keys(&mut self, now: Instant) {
        if let Some(early) = self.early.as_mut().filter(|early| early.discard_at.is_some_and(|at| at <= now)) {
            early.keys = None;
            early.discard_at = None;
        }
    }

    /// On a server: reports which data has arrived before the handshake is complete, all of which is 0-RTT data, as a
    /// server reads no other until then (RFC 9001 §5.7).
    #[cold]
    pub(super) fn mark_early(&mut self) {
        let Some(early) = self.early.as_mut().filter(|_| self.side == Side::Server && !self.complete) else { return };
        for id in &self.streams.dirty {
            let until = self.streams.get_ref(*id).and_then(|stream| stream.recv.as_ref()).map_or(0, |recv| recv.high());
            if early.marks.raise(*id, until) {
                self.events.push_back(Event::EarlyBytes { id: *id, until });
            }
        }
    }

    /// The end of the last byte of `id` that arrived as 0-RTT data before the handshake was complete.
    pub(super) fn early_until(&self, id: StreamId) -> u64 {
        self.early.as_ref().map_or(0, |early| early.marks.until(id))
    }
}
