//! Datagrams without a connection: for new connections, of foreign versions, or late ones of ended connections.

use std::sync::Arc;

use crate::base::Side;
use crate::base::time::Instant;
use crate::crypto::{self, DirectionKeys};
use crate::quic::cid::MIN_FIRST;
use crate::quic::connection::{Birth, Connection, RxMeta};
use crate::quic::endpoint::Endpoint;
use crate::quic::path::{MIN_MTU, Spin};
use crate::quic::stats::DropReason;
use crate::quic::token::Verdict;
use crate::wire::quic::header::{self, PacketType, Parsed};
use crate::wire::quic::{TransportError, Version};

impl Endpoint {
    /// Accepts no more connections: clients are refused (CONNECTION_REFUSED, RFC 9000 §5.2.2).
    pub fn stop_accepting(&mut self) {
        self.closed = true;
    }

    /// New connections are accepted with these TLS settings, which have to be valid for
    /// [`ServerConfig::new`](super::ServerConfig::new). Nothing happens if none are accepted.
    pub(crate) fn set_tls(&mut self, tls: Arc<rustls::ServerConfig>) {
        if let Some(server) = &mut self.server {
            if let Some(tickets) = &mut self.lists.tickets {
                tickets.set_tls(&tls);
            }
            server.tls = tls;
        }
    }

    /// Whether new connections are accepted with `tls`.
    #[cfg(test)]
    pub(crate) fn serves_with(&self, tls: &Arc<rustls::ServerConfig>) -> bool {
        self.server.as_ref().is_some_and(|server| Arc::ptr_eq(server.tls(), tls))
    }

    pub(super) fn handle_unknown(&mut self, now: Instant, meta: &RxMeta, parsed: &Parsed, data: &mut [u8]) {
        // Whatever the header looks like (RFC 9000 §10.3).
        if let Some(id) = self.find_reset(meta, data) {
            return self.on_reset(now, id);
        }
        match (parsed.kind, parsed.known_version().filter(|version| self.accepts(*version))) {
            (PacketType::Short, _) => {
                self.note_reset(meta, data);
                self.send_reset(now, meta, &parsed.dcid, data.len());
            }
            (PacketType::VersionNegotiation | PacketType::Retry, _) => self.stats.drop(DropReason::Unexpected),
            (_, None) => self.negotiate_version(now, meta, data),
            (PacketType::Initial, Some(version)) => self.accept(now, meta, version, parsed, data),
            (PacketType::ZeroRtt, Some(_)) => self.keep_forerunner(now, meta, parsed, data),
            _ => self.stats.drop(DropReason::UnknownConnection),
        }
    }

    /// Whether an answer may be queued; otherwise the datagram is counted as dropped.
    pub(super) fn may_answer(&mut self) -> bool {
        let room = self.answers.has_room();
        if !room {
            self.stats.drop(DropReason::Overload);
        }
        room
    }

    /// Handles a client's first Initial packet. No state is kept unless it is authentic.
    fn accept(&mut self, now: Instant, meta: &RxMeta, version: Version, parsed: &Parsed, data: &mut [u8]) {
        let Some(server) = self.server.clone() else {
            self.stats.drop(DropReason::UnknownConnection);
            return;
        };
        if data.len() < usize::from(MIN_MTU) || parsed.dcid.len() < MIN_FIRST {
            self.stats.drop(DropReason::ShortInitial);
            return;
        }
        // A client need not wait for a server that cannot serve it soon. Handshakes in flight soon make room for others,
        // so a client that finds too many of them is not refused, and asks again.
        let full = self.table.len() >= self.config.max_connections;
        if self.closed || full {
            self.stats.drop(if full { DropReason::Overload } else { DropReason::Refused });
            return self.refuse(now, meta, parsed, data, TransportError::CONNECTION_REFUSED);
        }
        // These cheap checks decide whether the expensive ones follow.
        let token = &data[parsed.token.clone()];
        let mut known = None;
        let original = match self.lists.tokens.judge(now, version, meta.remote, &parsed.dcid, token) {
            Verdict::Validated(original) => Some(original),
            Verdict::Known(mark) => {
                known = Some(mark);
                None
            }
            Verdict::Bad => return self.refuse_token(now, meta, parsed, data),
            Verdict::Foreign if self.config.retry.asks(self.unvalidated, self.config.max_handshakes) => {
                return self.queue_retry(meta, version, parsed);
            }
            Verdict::Foreign => None,
        };
        if self.handshakes >= self.config.max_handshakes {
            self.stats.drop(DropReason::Overload);
            return;
        }
        let keys = crypto::initial_direction(version, &parsed.dcid, Side::Client);
        if !self.is_authentic(&keys, parsed, data) {
            self.stats.drop(DropReason::Authentication);
            return;
        }
        let Some(id) = self.table.reserve() else {
            self.stats.drop(DropReason::Overload);
            return;
        };
        let birth = Birth {
            id,
            side: Side::Server,
            version,
            config: server.transport.clone(),
            local: meta.local,
            remote: meta.remote,
            original_dcid: original.unwrap_or(parsed.dcid),
            retry_scid: original.map(|_| parsed.dcid),
            with_token: original.is_some() || known.is_some(),
            remote_cid: parsed.scid,
            max_data: self.memory.window(server.transport.max_data, true),
            spin: Spin::new(Side::Server, server.transport.spin, &mut self.rng),
            seed: server.transport.congestion.seed(&mut self.rng),
        };
        let mut conn = Box::new(Connection::new(&birth, now, Some(keys)));
        conn.start_trace(now, &mut self.lists, &server.tls.alpn_protocols);
        let tls = self.lists.tickets.as_ref().map_or(&server.tls, |tickets| tickets.tls());
        conn.await_hello(tls.clone());
        self.table.insert(id, conn);
        self.lookup.insert_initial(now, parsed.dcid, meta.remote, id);
        self.handshakes += 1;
        self.unvalidated += usize::from(!birth.with_token);
        self.stats.tokens_accepted += u64::from(birth.with_token);
        if let Some(mark) = known {
            self.lists.tokens.spend(mark);
        }
        self.stats.connections_opened += 1;
        tracing::debug!(conn = %id, peer = %meta.remote, "new connection");
        self.deliver(now, id, meta, parsed, data);
        if self.has_forerunners() {
            self.read_forerunners(now, meta, &parsed.dcid);
        }
    }

    /// Whether the first packet of `data` is sealed with its Initial keys. `data` is not changed.
    pub(super) fn is_authentic(&mut self, keys: &DirectionKeys, parsed: &Parsed, data: &[u8]) -> bool {
        let packet = &mut self.scratch[..parsed.packet_len];
        packet.copy_from_slice(&data[..parsed.packet_len]);
        let Some(sample) = packet.get(parsed.pn_offset + 4..).and_then(|s| s.first_chunk::<16>()) else {
            return false;
        };
        let mask = keys.header.mask(sample);
        let (_, pn_len, truncated) = header::remove_protection(packet, parsed.pn_offset, mask);
        let header_len = parsed.pn_offset + pn_len;
        if packet.len() < header_len + 16 {
            return false;
        }
        let pn = header::decode_pn(None, truncated, pn_len);
        let (aad, body) = packet.split_at_mut(header_len);
        keys.packet.open(pn, aad, body, &mut [0; _]).is_ok()
    }
}
