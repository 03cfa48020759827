//! Drives TLS and applies its results (RFC 9001 §4, RFC 9000 §7).

use std::collections::VecDeque;
use std::sync::Arc;

use crate::base::Side;
use crate::base::time::{Duration, Instant};
use crate::quic::cid::MAX_ACTIVE;
use crate::quic::connection::closing::Fault;
use crate::quic::connection::keys::OneRtt;
use crate::quic::connection::{Connection, Cx, PeerLimits};
use crate::quic::early::Limits;
use crate::quic::event::Event;
use crate::quic::recovery::SpaceId;
use crate::quic::space::Space;
use crate::quic::tls::{KeyChange, TlsError, TlsSession};
use crate::wire::quic::params::{ACK_DELAY_LIMIT, Reserved, TransportParameters};
use crate::wire::quic::{ConnectionId, TransportError, Version};

/// Type of the CRYPTO frame, which TLS errors are attributed to.
pub(super) const CRYPTO_FRAME: u64 = 0x06;

/// How late a timer may fire: a tick of the timer wheel, and a long turn of the poll loop.
const TIMER_LATENESS: Duration = Duration::from_micros(500);

/// TLS alert code (RFC 8446 §6).
const UNEXPECTED_MESSAGE: u8 = 10;

impl Connection {
    /// The transport parameters that we announce.
    pub(crate) fn local_params(&self, cx: &mut Cx<'_>) -> TransportParameters {
        let config = &self.config;
        let cid = self.handshake_cid(cx.ids);
        let server = self.side == Side::Server;
        let ids = self.handshake_ids.as_deref();
        let (bidi_remote, uni) =
            (config.peer_window(config.stream_window_bidi_remote), config.peer_window(config.stream_window_uni));
        let params = TransportParameters {
            original_destination_connection_id: ids.filter(|_| server).map(|ids| ids.original_dcid),
            retry_source_connection_id: ids.filter(|_| server).and_then(|ids| ids.retry_scid),
            stateless_reset_token: server.then(|| cx.ids.token(&cid)),
            initial_source_connection_id: Some(cid),
            max_idle_timeout: config.max_idle_timeout.as_millis() as u64,
            max_udp_payload_size: u64::from(config.max_udp_payload_on(self.path.remote)),
            initial_max_data: self.recv_credit.announced(),
            initial_max_stream_data_bidi_local: config.stream_window_bidi_local,
            initial_max_stream_data_bidi_remote: bidi_remote,
            initial_max_stream_data_uni: uni,
            initial_max_streams_bidi: config.max_streams_bidi,
            initial_max_streams_uni: config.max_streams_uni,
            ack_delay_exponent: 3,
            max_ack_delay: announced_ack_delay(config.max_ack_delay),
            disable_active_migration: server && !config.migration,
            active_connection_id_limit: MAX_ACTIVE as u64,
            version_information: self.version_information(cx),
            grease_quic_bit: cx.ids.greases(),
            reserved: cx.ids.greases().then(|| Reserved::new([(); 2].map(|()| cx.rng.next_u64()))),
            reset_stream_at: config.reset_stream_at,
            min_ack_delay: self.least_ack_delay().map(|min| min.as_micros() as u64),
            max_datagram_frame_size: config.datagrams.as_ref().map_or(0, |datagrams| datagrams.max_frame_size.into()),
            preferred_address: self.preferred_param(cx),
        };
        self.trace_params(cx, true, &params);
        params
    }

    /// Assigns the connection its TLS session, and starts the handshake of a client.
    pub(crate) fn start_tls(&mut self, cx: &mut Cx<'_>, tls: TlsSession) -> Result<(), Fault> {
        let mut tls = Box::new(tls);
        if self.side == Side::Server && cx.scratch.tickets.is_some() {
            tls.announced = Limits::of(&self.local_params(cx));
        }
        self.tls = Some(tls);
        self.drive_tls(cx)
    }

    /// The space from which TLS reads next.
    fn read_space(&self) -> SpaceId {
        let handshaking = self.tls.as_ref().is_some_and(|tls| tls.is_handshaking());
        if !self.has_handshake_keys && !self.complete {
            SpaceId::Initial
        } else if handshaking {
            SpaceId::Handshake
        } else {
            SpaceId::Data
        }
    }

    /// Handles CRYPTO data in `space`: TLS reads the data in order and answers.
    pub(super) fn on_crypto(&mut self, cx: &mut Cx<'_>, space: SpaceId) -> Result<(), Fault> {
        // A server has discarded TLS by then, and a client has nothing to tell it (RFC 9001 §4.1.3). Data after a gap
        // would only occupy memory.
        if self.tls.is_none() && self.space(space).crypto_rx.has_gap() && !self.awaits_hello() {
            let why = "handshake data after the handshake was complete";
            return Err(Fault::new(TransportError::crypto(UNEXPECTED_MESSAGE), CRYPTO_FRAME, why));
        }
        while let Some(mut bytes) = self.space(space).crypto_rx.take() {
            if space != self.read_space() {
                let why = "handshake data after the keys of its level were replaced";
                return Err(Fault::new(TransportError::PROTOCOL_VIOLATION, CRYPTO_FRAME, why));
            }
            let first = self.awaits_hello().then_some(self.version);
            if let Some(first) = first {
                let Some(hello) = self.on_hello(cx, &bytes)? else { continue };
                self.before_hello(cx, first, &hello)?;
                bytes = hello;
            } else if space == SpaceId::Initial {
                self.settle_version();
            }
            let Some(tls) = &mut self.tls else { return Ok(()) };
            if tls.ignores_tickets {
                continue;
            }
            cx.scratch.guests.call(|| tls.read_handshake(&bytes))?.map_err(tls_fault)?;
            match first {
                Some(first) => self.after_hello(cx, first),
                None => self.stop_early_if_retried(),
            }
            self.drive_tls(cx)?;
        }
        Ok(())
    }

    /// Processes the output of TLS: bytes to send, new keys, completion.
    fn drive_tls(&mut self, cx: &mut Cx<'_>) -> Result<(), Fault> {
        loop {
            let level = self.write_space();
            let Some(tls) = &mut self.tls else { return Ok(()) };
            let out = self.spaces[level.index()].crypto_tx.buffer();
            let written = out.len();
            match cx.scratch.guests.call(|| tls.write_handshake(out))? {
                Some(KeyChange::Handshake(keys)) => {
                    self.space(SpaceId::Handshake).keys = Some(Box::new(keys));
                    self.has_handshake_keys = true;
                }
                Some(KeyChange::OneRtt(keys, updates)) => {
                    let update_after = self.config.packets_per_key;
                    self.one_rtt = Some(Box::new(OneRtt::new(keys, updates, update_after)));
                }
                None => {
                    if level == SpaceId::Data && self.side == Side::Server {
                        self.seal_tickets(cx, written);
                    }
                    break;
                }
            }
        }
        for space in &mut self.spaces {
            space.crypto_tx.trim();
        }
        self.take_params(cx)?;
        let done = self.tls.as_ref().is_some_and(|tls| !tls.is_handshaking());
        if done && !self.complete && self.one_rtt.is_some() {
            self.on_complete(cx)?;
        }
        Ok(())
    }

    /// The space that TLS output belongs to.
    fn write_space(&self) -> SpaceId {
        if self.complete || self.one_rtt.is_some() {
            SpaceId::Data
        } else if self.has_handshake_keys {
            SpaceId::Handshake
        } else {
            SpaceId::Initial
        }
    }

    /// Applies the peer's transport parameters as soon as TLS has them (RFC 9000 §7.4).
    fn take_params(&mut self, cx: &mut Cx<'_>) -> Result<(), Fault> {
        if self.peer.known {
            return Ok(());
        }
        // Before the server's flight is read, TLS reports those of the earlier connection to a client that resumes a
        // session (RFC 9000 §7.4.1).
        if self.side == Side::Client && self.one_rtt.is_none() {
            return Ok(());
        }
        let Some(raw) = self.tls.as_ref().and_then(|tls| tls.transport_parameters()) else { return Ok(()) };
        let params = TransportParameters::decode(raw, self.side.peer()).map_err(|e| {
            Fault::new(TransportError::TRANSPORT_PARAMETER_ERROR, CRYPTO_FRAME, format!("transport parameters: {e}"))
        })?;
        self.trace_params(cx, false, &params);
        self.check_version(&params)?;
        self.check_ids(&params)?;
        if params.grease_quic_bit && cx.ids.greases() {
            self.fixed_bit.grease(cx.rng.next_u64());
        }
        if let Some(token) = params.stateless_reset_token {
            self.remote_cids.set_first_token(token);
        }
        if let Some(preferred) = &params.preferred_address {
            self.take_preferred(preferred)?;
        }
        self.apply_limits(cx, &params)?;
        self.path.mtu.limit(params.max_udp_payload_size.min(u64::from(u16::MAX)) as u16);
        self.peer = PeerLimits::of(&params, true);
        self.start_ack_requests();
        Ok(())
    }

    /// Checks the connection IDs authenticated by the peer against those of the handshake (RFC 9000 §7.3).
    fn check_ids(&self, params: &TransportParameters) -> Result<(), Fault> {
        let Some(ids) = self.handshake_ids.as_deref() else { return Ok(()) };
        let check = |what: &str, have: Option<ConnectionId>, want: Option<ConnectionId>| {
            if have == want {
                return Ok(());
            }
            let why = format!("{what} does not match the handshake");
            Err(Fault::new(TransportError::TRANSPORT_PARAMETER_ERROR, CRYPTO_FRAME, why))
        };
        let scid = params.initial_source_connection_id;
        check("initial_source_connection_id", scid, ids.remote_scid)?;
        if self.side == Side::Client {
            let odcid = params.original_destination_connection_id;
            check("original_destination_connection_id", odcid, Some(ids.original_dcid))?;
            check("retry_source_connection_id", params.retry_source_connection_id, ids.retry_scid)?;
        }
        Ok(())
    }

    /// Handles the completion of the handshake (RFC 9001 §4.1.1).
    fn on_complete(&mut self, cx: &mut Cx<'_>) -> Result<(), Fault> {
        if !self.peer.known {
            let why = "transport parameters are missing";
            return Err(Fault::new(TransportError::crypto(109), CRYPTO_FRAME, why));
        }
        let gap = [SpaceId::Initial, SpaceId::Handshake].iter().any(|s| self.spaces[s.index()].crypto_rx.has_gap());
        if gap {
            let why = "handshake data after the end of the handshake";
            return Err(Fault::new(TransportError::PROTOCOL_VIOLATION, CRYPTO_FRAME, why));
        }
        self.complete = true;
        let changed = self.has_changed_version();
        if let Some(tls) = self.tls.as_mut().filter(|_| changed) {
            // They would be kept for connections that begin with the version that this one began with (RFC 9369 §5).
            tls.ignores_tickets = true;
        }
        self.opening = None;
        self.validate_first_path();
        self.stats.handshake_time = Some(cx.now.saturating_since(self.born));
        cx.stats.handshakes += 1;
        cx.stats.handshakes_v2 += u64::from(self.version == Version::V2);
        let alpn = self.tls.as_ref().and_then(|tls| tls.alpn()).unwrap_or_default().to_vec();
        self.alpn = alpn.as_slice().into();
        let Some(info) = self.tls.as_mut().and_then(|tls| tls.info()) else {
            let why = "a cipher suite that is not ours";
            return Err(Fault::new(TransportError::INTERNAL_ERROR, CRYPTO_FRAME, why));
        };
        self.stats.resumed = self.tls.as_ref().is_some_and(|tls| tls.is_resumed());
        cx.stats.handshakes_resumed += u64::from(self.stats.resumed);
        self.keep_early_keys(cx.now);
        let (peer, version, resumed) = (self.path.remote, self.version, self.stats.resumed);
        tracing::debug!(conn = %self.id, %peer, %version, resumed, tls = ?info, "handshake complete");
        let info = Arc::new(info);
        self.tls_info = Some(info.clone());
        self.event(Event::Connected { alpn, tls: info });
        if self.side == Side::Server {
            self.handshake_done_due = true;
            self.offer_tokens(cx);
            self.on_confirmed(cx);
            // A server has sent its tickets and needs TLS no longer. A client may receive more tickets.
            self.tls = None;
        }
        self.local_cids.issue(cx.ids.most_active(self.peer.active_connection_id_limit));
        Ok(())
    }

    /// Handles the confirmation of the handshake (RFC 9001 §4.1.2).
    pub(super) fn on_confirmed(&mut self, cx: &mut Cx<'_>) {
        if std::mem::replace(&mut self.confirmed, true) {
            return;
        }
        // A client has discarded Initial keys long ago, unless a server confirms a handshake that it never received.
        self.discard_space(SpaceId::Initial);
        self.discard_space(SpaceId::Handshake);
        self.set_token(Vec::new());
        self.recovery.on_confirmed(cx.now);
        self.path.ecn.on_confirmed();
        self.remote_cids.tell_again();
        self.path.mtu.enable(cx.now);
        self.accept_offer();
        self.idle_reset_at = None;
        self.reset_idle(cx.now);
    }

    /// Frees, once, the memory needed for the handshake and the MTU search only, when both are over and everything sent
    /// has been acknowledged. Most connections of a busy server are idle from then on.
    pub(crate) fn trim(&mut self) {
        let quiet = self.confirmed && self.events.is_empty() && self.recovery.bytes_in_flight() == 0;
        if self.trimmed || !quiet || self.path.mtu.is_searching() {
            return;
        }
        self.trimmed = true;
        self.handshake_ids = None;
        self.tls_info.take_if(|_| !self.config.keep_tls_info);
        self.events = VecDeque::new();
        self.recovery.trim();
    }

    /// Discards a space with its keys (RFC 9001 §4.9).
    pub(super) fn discard_space(&mut self, id: SpaceId) {
        let space = self.space(id);
        if std::mem::replace(&mut space.discarded, true) {
            return;
        }
        *space = Space { discarded: true, next_pn: space.next_pn, ..Space::default() };
        self.has_handshake_keys &= id != SpaceId::Handshake;
        self.recovery.discard_space(id, |_| {});
        self.path.ecn.on_discarded(id.index());
    }

    /// Handles a Retry: sends the first flight again, to another ID and with a token (RFC 9000 §17.2.5.2).
    pub(crate) fn on_retry(&mut self, cx: &mut Cx<'_>, scid: ConnectionId, token: &[u8]) {
        self.retry_allowed = false;
        if let Some(ids) = &mut self.handshake_ids {
            ids.retry_scid = Some(scid);
            ids.token = token.to_vec();
        }
        self.remote_cids.replace_first(scid);
        let initial = SpaceId::Initial;
        self.space(initial).keys = Some(Box::new(crate::crypto::initial_keys(self.version, &scid, self.side)));
        self.recovery.drain(initial, |_| {});
        self.space(initial).crypto_tx.restart();
        self.early_after_retry(cx);
    }

    /// Updates the packet keys if the previous update is confirmed.
    pub(super) fn update_keys(&mut self) -> bool {
        let next_pn = self.space(SpaceId::Data).next_pn;
        // Not allowed before the handshake is confirmed (RFC 9001 §6.1).
        let Some(keys) = self.one_rtt.as_mut().filter(|_| self.confirmed) else { return false };
        let done = keys.begin_update(next_pn);
        self.stats.key_updates += u64::from(done);
        // An otherwise silent connection would not inform the peer.
        self.ping_due |= done;
        done
    }

    /// Whether a Retry may still be accepted.
    pub(crate) fn takes_retry(&self) -> bool {
        self.retry_allowed && self.is_active()
    }

    pub(super) fn handshake_deadline(&self) -> Option<Instant> {
        let limit: Duration = self.config.handshake_timeout;
        (!self.complete && !limit.is_zero()).then(|| self.born + limit)
    }
}

/// The `max_ack_delay` to announce in milliseconds, if timers are set to `delay`: rounded up, and with the time by which
/// they may be late (RFC 9000 §18.2).
fn announced_ack_delay(delay: Duration) -> u64 {
    ((delay + TIMER_LATENESS).as_micros().div_ceil(1000) as u64).min(ACK_DELAY_LIMIT - 1)
}

fn tls_fault(error: TlsError) -> Fault {
    Fault::new(error.code, CRYPTO_FRAME, error.reason)
}
