//! Events as records of a JSON text sequence (RFC 7464), with the names and fields of
//! draft-ietf-quic-qlog-quic-events-13.

use std::net::{IpAddr, SocketAddr};

use super::frames::{self, application_error, transport_error};
use super::json::{self, Json};
use super::names::Names;
use crate::base::time::Duration;
use crate::base::{Side, hex};
use crate::quic::congestion::{initial_window, minimum_window};
use crate::quic::recovery::PACKET_THRESHOLD;
use crate::quic::trace::{
    CongestionState, ConnectionState, EcnState, KeyCause, KeyLevel, LossCause, MAX_VERSIONS, Metrics, PacketCause,
    StreamChange, TimerChange, TraceEvent, TraceStart, TracedPacket,
};
use crate::quic::{CloseReason, Dir, DropReason, StreamId};
use crate::wire::quic::ConnectionId;
use crate::wire::quic::header::{self, PacketType};
use crate::wire::quic::params::TransportParameters;
use crate::wire::quic::varint::Reader;

/// What begins a record (RFC 7464 §2.2).
const RECORD: u8 = 0x1e;

/// Length of an authentication tag in bytes.
const TAG_LEN: u16 = 16;

/// Encodes the events of one trace.
#[derive(Debug)]
pub struct Encoder {
    names: Names,
    /// Room for a frame.
    room: Vec<u8>,
}

impl Encoder {
    /// With these names.
    pub fn new(names: Names) -> Self {
        Self { names, room: Vec::new() }
    }

    /// Appends the header of a file (main-schema-14 §5).
    pub fn header(&self, start: &TraceStart, out: &mut Vec<u8>) {
        record(out, |file| {
            match self.names {
                Names::Newest => {
                    file.text("file_schema", "urn:ietf:params:qlog:file:sequential");
                    file.text("serialization_format", "application/qlog+json-seq");
                }
                Names::Qvis => {
                    file.text("qlog_version", "0.3");
                    file.text("qlog_format", "JSON-SEQ");
                }
            }
            file.text("title", &format!("connection {} of gannet {}", start.conn, env!("CARGO_PKG_VERSION")));
            file.object("trace", |trace| {
                trace.object("common_fields", |common| {
                    common.hex("group_id", &start.original_dcid);
                    self.reference(start.wall, common);
                });
                trace.object("vantage_point", |point| {
                    point.text("name", "gannet");
                    point.text("type", side_name(start.side));
                });
                if self.names == Names::Newest {
                    trace.list("event_schemas", |schemas| {
                        schemas.push_text("urn:ietf:params:qlog:events:quic-13");
                        schemas.push_text("urn:ietf:params:qlog:events:loglevel-14");
                    });
                }
            });
        });
    }

    /// What times are relative to: the beginning of the trace, which was at `wall` (main-schema-14 §7.1). From there on,
    /// they are measured by a monotonic clock.
    fn reference(&self, wall: Duration, common: &mut Json<'_>) {
        match self.names {
            Names::Newest => {
                common.text("time_format", "relative_to_epoch");
                common.object("reference_time", |reference| {
                    reference.text("clock_type", "system");
                    reference.text("epoch", &rfc3339(wall));
                });
            }
            Names::Qvis => {
                common.text("time_format", "relative");
                common.millis("reference_time", wall);
            }
        }
    }

    /// Appends a record that says something to people.
    pub fn warning(&self, time: Duration, message: &str, out: &mut Vec<u8>) {
        record(out, |event| {
            event.millis("time", time);
            event.text("name", "loglevel:warning");
            event.object("data", |data| data.text("message", message));
        });
    }

    /// Appends an event. `time` is since the beginning of the trace.
    pub fn event(&mut self, time: Duration, event: &TraceEvent, bytes: &[u8], out: &mut Vec<u8>) {
        let (category, name) = self.name_of(event);
        record(out, |record| {
            record.millis("time", time);
            record.text("name", &[category, ":", name].concat());
            if let TraceEvent::Packet(TracedPacket { elsewhere: Some((local, remote)), .. }) = event {
                record.text("tuple", &format!("{local}-{remote}"));
            }
            record.object("data", |data| self.data(event, bytes, data));
        });
    }

    /// The name of an event with its namespace, or its category in qlog 0.3.
    fn name_of(&self, event: &TraceEvent) -> (&'static str, &'static str) {
        use TraceEvent as E;
        let (category, name) = match event {
            E::Started { .. } => ("connectivity", "connection_started"),
            E::Closed(_) => ("connectivity", "connection_closed"),
            E::ConnectionId { .. } => ("connectivity", "connection_id_updated"),
            E::Spin(_) => ("connectivity", "spin_bit_updated"),
            E::State { .. } | E::PeerValidated => ("connectivity", "connection_state_updated"),
            E::Path { .. } => ("connectivity", "tuple_assigned"),
            E::Mtu { .. } => ("connectivity", "mtu_updated"),
            E::Probed { .. } => ("transport", "migration_state_updated"),
            E::Versions { .. } => ("transport", "version_information"),
            E::Alpn { .. } => ("transport", "alpn_information"),
            E::Parameters { .. } | E::Cipher(_) => ("transport", "parameters_set"),
            E::Restored(_) => ("transport", "parameters_restored"),
            E::Packet(TracedPacket { sent: true, .. }) => ("transport", "packet_sent"),
            E::Packet(_) => ("transport", "packet_received"),
            E::Dropped { .. } => ("transport", "packet_dropped"),
            E::Buffered { .. } => ("transport", "packet_buffered"),
            E::Acked(_) => ("transport", "packets_acked"),
            E::Ecn { sent: true, .. } => ("transport", "udp_datagrams_sent"),
            E::Ecn { .. } => ("transport", "udp_datagrams_received"),
            E::Stream { .. } => ("transport", "stream_state_updated"),
            E::Blocked(_) => ("transport", "connection_data_blocked_updated"),
            E::KeyUpdated { .. } => ("security", "key_updated"),
            E::KeyDiscarded { .. } => ("security", "key_discarded"),
            E::RecoveryParameters { .. } if self.names == Names::Qvis => ("recovery", "parameters_set"),
            E::RecoveryParameters { .. } => ("recovery", "recovery_parameters_set"),
            E::Metrics(_) if self.names == Names::Qvis => ("recovery", "metrics_updated"),
            E::Metrics(_) => ("recovery", "recovery_metrics_updated"),
            E::Congestion { .. } => ("recovery", "congestion_state_updated"),
            E::Lost { .. } => ("recovery", "packet_lost"),
            E::Retransmit => ("recovery", "marked_for_retransmit"),
            E::EcnState { .. } => ("recovery", "ecn_state_updated"),
            E::Timer(_) if self.names == Names::Qvis => ("recovery", "loss_timer_updated"),
            E::Timer(_) => ("recovery", "timer_updated"),
        };
        if self.names == Names::Newest { ("quic", name) } else { (category, name) }
    }

    fn data(&mut self, event: &TraceEvent, bytes: &[u8], data: &mut Json<'_>) {
        use TraceEvent as E;
        match event {
            E::Started { local, remote } => {
                data.object("local", |end| put_endpoint(end, *local));
                data.object("remote", |end| put_endpoint(end, *remote));
            }
            E::Path { local, remote } => {
                // The default, so that the events from here on need not repeat it.
                data.text("tuple_id", "");
                data.object("tuple_remote", |end| put_endpoint(end, *remote));
                data.object("tuple_local", |end| put_endpoint(end, *local));
            }
            E::Probed { local, remote, valid } => {
                data.text("new", if *valid { "probing_successful" } else { "probing_abandoned" });
                data.text("tuple_id", &format!("{local}-{remote}"));
                data.object("tuple_remote", |end| put_endpoint(end, *remote));
                data.object("tuple_local", |end| put_endpoint(end, *local));
            }
            E::Versions { server, chosen } => {
                let (servers, clients) = bytes.split_at((4 * usize::from(*server)).min(bytes.len()));
                for (name, list) in [("server_versions", servers), ("client_versions", clients)] {
                    if !list.is_empty() {
                        data.list(name, |versions| list.chunks(4).for_each(|number| versions.push_hex(number)));
                    }
                }
                if let Some(chosen) = chosen {
                    data.hex("chosen_version", &chosen.to_be_bytes());
                }
            }
            E::Alpn { list, chosen } => put_alpns(data, *list, *chosen, bytes),
            E::Parameters { local, params } => {
                self.put_initiator(data, *local);
                put_params(data, params);
            }
            E::Restored(limits) => limits.iter().for_each(|(name, value)| match *name {
                "reset_stream_at" => data.flag(name, *value != 0),
                _ => data.number(name, *value),
            }),
            E::Cipher(name) => data.text("tls_cipher", name),
            E::RecoveryParameters { initial_rtt, max_datagram, reduction } => {
                let size = u64::from(*max_datagram);
                data.number("reordering_threshold", PACKET_THRESHOLD);
                data.decimal("time_threshold", 1, 125, 3);
                data.number("timer_granularity", 1);
                data.millis("initial_rtt", *initial_rtt);
                data.number("max_datagram_size", size);
                data.number("initial_congestion_window", initial_window(size));
                data.number("minimum_congestion_window", minimum_window(size));
                data.decimal("loss_reduction_factor", 0, u64::from(*reduction), 2);
                data.number("persistent_congestion_threshold", 3);
            }
            E::Packet(packet) => self.put_packet(data, packet, bytes),
            E::Dropped { reason, kind, len } => {
                if let Some(kind) = kind {
                    data.object("header", |header| header.text("packet_type", type_name(*kind)));
                    data.object("raw", |raw| raw.number("length", (*len).into()));
                }
                let (trigger, detail) = drop_names(*reason);
                data.object("details", |details| details.text("reason", detail));
                data.text("trigger", trigger);
            }
            E::Buffered { kind, len } => {
                data.object("header", |header| header.text("packet_type", type_name(*kind)));
                data.object("raw", |raw| raw.number("length", (*len).into()));
                data.text("trigger", "keys_unavailable");
            }
            E::Acked(space) => {
                data.text("packet_number_space", space_name(*space));
                let numbers = bytes.chunks_exact(8).filter_map(|pn| pn.first_chunk());
                data.list("packet_numbers", |list| numbers.for_each(|pn| list.push_number(u64::from_be_bytes(*pn))));
            }
            E::Ecn { codepoint, datagram, .. } => {
                data.number("count", 1);
                data.list("ecn", |list| {
                    list.push_text(["Not-ECT", "ECT(1)", "ECT(0)", "CE"][usize::from(codepoint & 3)])
                });
                data.list("datagram_ids", |list| list.push_number((*datagram).into()));
            }
            E::Lost { space, pn, mtu_probe, cause } => {
                data.object("header", |header| {
                    header.text("packet_type", type_name(*space));
                    header.number("packet_number", *pn);
                });
                if *mtu_probe {
                    data.flag("is_mtu_probe_packet", true);
                }
                data.text(
                    "trigger",
                    match cause {
                        LossCause::Reordering => "reordering_threshold",
                        LossCause::Time => "time_threshold",
                    },
                );
            }
            E::Retransmit => self.put_frames(data, bytes, 3),
            E::Metrics(metrics) => put_metrics(data, metrics),
            E::Congestion { old, new } => put_change(data, old.map(congestion_name), congestion_name(*new)),
            E::State { old, new } => put_change(data, old.map(state_name), state_name(*new)),
            E::PeerValidated => data.text("new", "peer_validated"),
            E::KeyUpdated { of, level, phase, cause } | E::KeyDiscarded { of, level, phase, cause } => {
                data.text("key_type", key_name(*of, *level));
                if *level == KeyLevel::OneRtt {
                    data.number("key_phase", *phase);
                }
                data.text(
                    "trigger",
                    match cause {
                        KeyCause::Tls => "tls",
                        KeyCause::Local => "local_update",
                        KeyCause::Remote => "remote_update",
                    },
                );
            }
            E::ConnectionId { local, old, new } => {
                self.put_initiator(data, *local);
                data.hex("old", old);
                data.hex("new", new);
            }
            E::Spin(state) => data.flag("state", *state),
            E::Mtu { old, new, done } => {
                data.number("old", (*old).into());
                data.number("new", (*new).into());
                if *done {
                    data.flag("done", true);
                }
            }
            E::EcnState { old, new } => put_change(data, old.map(ecn_name), ecn_name(*new)),
            E::Timer(change) => put_timer(data, *change),
            E::Blocked(blocked) => {
                let [blocked, free] = if *blocked { ["blocked", "unblocked"] } else { ["unblocked", "blocked"] };
                put_change(data, Some(free), blocked);
                data.text("reason", "connection_flow_control");
            }
            E::Stream { id, change, local } => put_stream(data, *id, *change, *local),
            E::Closed(reason) => put_close(data, reason),
        }
    }

    fn put_initiator(&self, data: &mut Json<'_>, local: bool) {
        let who = if local { "local" } else { "remote" };
        data.text(if self.names == Names::Newest { "initiator" } else { "owner" }, who);
    }

    fn put_packet(&mut self, data: &mut Json<'_>, packet: &TracedPacket, bytes: &[u8]) {
        let (head, rest) = bytes.split_at(usize::from(packet.header_len).min(bytes.len()));
        data.object("header", |header| put_header(header, packet, head));
        let whole = matches!(packet.kind, PacketType::Retry | PacketType::VersionNegotiation);
        if packet.kind == PacketType::VersionNegotiation {
            let versions = header::versions(head).take(MAX_VERSIONS).collect::<Vec<_>>();
            if !versions.is_empty() {
                data.list("supported_versions", |list| {
                    versions.iter().for_each(|number| list.push_hex(&number.to_be_bytes()));
                });
            }
        }
        data.object("raw", |raw| {
            raw.number("length", packet.len.into());
            if !whole {
                let payload = packet.len.saturating_sub(packet.header_len).saturating_sub(TAG_LEN);
                raw.number("payload_length", payload.into());
            }
        });
        data.number("datagram_id", packet.datagram.into());
        if packet.cause == PacketCause::MtuProbe {
            data.flag("is_mtu_probe_packet", true);
        }
        if !whole {
            self.put_frames(data, rest, packet.ack_delay_exponent);
        }
        match packet.cause {
            PacketCause::ProbeTimeout => data.text("trigger", "pto_probe"),
            PacketCause::KeysAvailable => data.text("trigger", "keys_available"),
            PacketCause::None | PacketCause::MtuProbe => {}
        }
    }

    fn put_frames(&mut self, data: &mut Json<'_>, bytes: &[u8], ack_delay_exponent: u8) {
        let (names, room) = (self.names, &mut self.room);
        data.list("frames", |list| frames::put(list, bytes, room, names, ack_delay_exponent));
    }
}

fn record(out: &mut Vec<u8>, fill: impl FnOnce(&mut Json<'_>)) {
    out.push(RECORD);
    json::object(out, fill);
    out.push(b'\n');
}

/// A time since 1970, as in RFC 3339, in UTC.
fn rfc3339(wall: Duration) -> String {
    let (days, seconds) = (wall.as_secs() / 86_400, wall.as_secs() % 86_400);
    // Years that begin in March have their leap day at the end; eras of 400 years have as many days each.
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_of_year = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_of_year + 2) / 5 + 1;
    let month = if month_of_year < 10 { month_of_year + 3 } else { month_of_year - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let [hour, minute, second] = [seconds / 3600, seconds / 60 % 60, seconds % 60];
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z", wall.subsec_millis())
}

fn side_name(side: Side) -> &'static str {
    match side {
        Side::Client => "client",
        Side::Server => "server",
    }
}

/// quic-events-13 §8.6.
fn type_name(kind: PacketType) -> &'static str {
    match kind {
        PacketType::Initial => "initial",
        PacketType::ZeroRtt => "0RTT",
        PacketType::Handshake => "handshake",
        PacketType::Retry => "retry",
        PacketType::VersionNegotiation => "version_negotiation",
        PacketType::Short => "1RTT",
    }
}

/// quic-events-13 §8.7.
fn space_name(kind: PacketType) -> &'static str {
    match kind {
        PacketType::Initial => "initial",
        PacketType::Handshake => "handshake",
        _ => "application_data",
    }
}

/// The trigger of quic-events-13 §5.7, and our name of the reason.
fn drop_names(reason: DropReason) -> (&'static str, &'static str) {
    use DropReason as D;
    let trigger = match reason {
        D::Malformed | D::ShortInitial | D::Unexpected | D::LongToken => "invalid",
        D::UnknownConnection | D::ForeignId | D::RetiredId => "connection_unknown",
        D::Version => "unsupported",
        D::Authentication => "decryption_failure",
        D::NoKeys => "key_unavailable",
        D::Duplicate => "duplicate",
        D::NoMemory => "internal_error",
        D::WrongPath | D::Overload | D::BadToken | D::Refused => "rejected",
        _ => "general",
    };
    let name = D::ALL.iter().find(|(other, _)| *other == reason).map_or("", |(_, name)| name);
    (trigger, name.trim_start_matches("quic_"))
}

fn congestion_name(state: CongestionState) -> &'static str {
    match state {
        CongestionState::SlowStart => "slow_start",
        CongestionState::Avoidance => "congestion_avoidance",
        CongestionState::Recovery => "recovery",
    }
}

fn state_name(state: ConnectionState) -> &'static str {
    match state {
        ConnectionState::Attempted => "attempted",
        ConnectionState::HandshakeStarted => "handshake_started",
        ConnectionState::HandshakeComplete => "handshake_complete",
        ConnectionState::HandshakeConfirmed => "handshake_confirmed",
        ConnectionState::Closing => "closing",
        ConnectionState::Draining => "draining",
        ConnectionState::Closed => "closed",
    }
}

fn ecn_name(state: EcnState) -> &'static str {
    match state {
        EcnState::Testing => "testing",
        EcnState::Unknown => "unknown",
        EcnState::Failed => "failed",
        EcnState::Capable => "capable",
    }
}

/// quic-events-13 §8.11.
fn key_name(of: Side, level: KeyLevel) -> &'static str {
    match (of, level) {
        (Side::Client, KeyLevel::Initial) => "client_initial_secret",
        (Side::Client, KeyLevel::Handshake) => "client_handshake_secret",
        (Side::Client, KeyLevel::ZeroRtt) => "client_0rtt_secret",
        (Side::Client, KeyLevel::OneRtt) => "client_1rtt_secret",
        (Side::Server, KeyLevel::Initial) => "server_initial_secret",
        (Side::Server, KeyLevel::Handshake) => "server_handshake_secret",
        (Side::Server, KeyLevel::ZeroRtt) => "server_0rtt_secret",
        (Side::Server, KeyLevel::OneRtt) => "server_1rtt_secret",
    }
}

fn put_change(data: &mut Json<'_>, old: Option<&str>, new: &str) {
    if let Some(old) = old {
        data.text("old", old);
    }
    data.text("new", new);
}

/// quic-events-13 §8.5.
fn put_endpoint(end: &mut Json<'_>, addr: SocketAddr) {
    match addr.ip() {
        IpAddr::V4(ip) => {
            end.text("ip_v4", &ip.to_string());
            end.number("port_v4", addr.port().into());
        }
        IpAddr::V6(ip) => {
            end.text("ip_v6", &ip.to_string());
            end.number("port_v6", addr.port().into());
        }
    }
}

/// quic-events-13 §5.2.
fn put_alpns(data: &mut Json<'_>, list: Option<Side>, chosen: bool, bytes: &[u8]) {
    let mut names = Vec::new();
    let mut rest = bytes;
    while let Some((len, behind)) = rest.split_first() {
        let Some((name, behind)) = behind.split_at_checked(usize::from(*len)) else { break };
        names.push(name);
        rest = behind;
    }
    let identifier = |o: &mut Json<'_>, name: &[u8]| {
        o.hex("byte_value", name);
        if let Ok(text) = std::str::from_utf8(name) {
            o.text("string_value", text);
        }
    };
    let last = if chosen { names.pop() } else { None };
    if let Some(side) = list {
        let name = if side == Side::Server { "server_alpns" } else { "client_alpns" };
        data.list(name, |l| names.iter().for_each(|name| l.push_object(|o| identifier(o, name))));
    }
    if let Some(last) = last {
        data.object("chosen_alpn", |o| identifier(o, last));
    }
}

/// quic-events-13 §5.3.
fn put_params(data: &mut Json<'_>, params: &TransportParameters) {
    let ids = [
        ("original_destination_connection_id", &params.original_destination_connection_id),
        ("initial_source_connection_id", &params.initial_source_connection_id),
        ("retry_source_connection_id", &params.retry_source_connection_id),
    ];
    for (name, id) in ids {
        if let Some(id) = id {
            data.hex(name, id);
        }
    }
    // Whoever knows a reset token can end the connection: it is left out, as are keys.
    data.flag("disable_active_migration", params.disable_active_migration);
    data.number("max_idle_timeout", params.max_idle_timeout);
    data.number("max_udp_payload_size", params.max_udp_payload_size);
    data.number("ack_delay_exponent", params.ack_delay_exponent);
    data.number("max_ack_delay", params.max_ack_delay);
    data.number("active_connection_id_limit", params.active_connection_id_limit);
    data.number("initial_max_data", params.initial_max_data);
    data.number("initial_max_stream_data_bidi_local", params.initial_max_stream_data_bidi_local);
    data.number("initial_max_stream_data_bidi_remote", params.initial_max_stream_data_bidi_remote);
    data.number("initial_max_stream_data_uni", params.initial_max_stream_data_uni);
    data.number("initial_max_streams_bidi", params.initial_max_streams_bidi);
    data.number("initial_max_streams_uni", params.initial_max_streams_uni);
    data.number("max_datagram_frame_size", params.max_datagram_frame_size);
    data.flag("grease_quic_bit", params.grease_quic_bit);
    data.flag("reset_stream_at", params.reset_stream_at);
    if let Some(preferred) = &params.preferred_address {
        data.object("preferred_address", |o| {
            preferred.v4.iter().for_each(|v4| put_endpoint(o, (*v4).into()));
            preferred.v6.iter().for_each(|v6| put_endpoint(o, (*v6).into()));
            o.hex("connection_id", &preferred.cid);
        });
    }
    // In microseconds (draft-ietf-quic-ack-frequency-14 §3); the draft of events has no name for it.
    data.number_if("min_ack_delay", params.min_ack_delay);
}

/// quic-events-13 §8.8.
fn put_header(header: &mut Json<'_>, packet: &TracedPacket, bytes: &[u8]) {
    header.text("packet_type", type_name(packet.kind));
    if packet.kind == PacketType::Short {
        let first = bytes.first().copied().unwrap_or(0);
        header.flag("spin_bit", first & 0x20 != 0);
        header.flag("key_phase_bit", first & 0x04 != 0);
    }
    if packet.pn_len > 0 {
        header.number("packet_number_length", packet.pn_len.into());
        header.number("packet_number", packet.pn);
    }
    if packet.kind == PacketType::Short {
        // Its ID is told by connection_id_updated.
        return;
    }
    if let Some(length) = packet.len.checked_sub(packet.header_len).filter(|_| packet.pn_len > 0) {
        header.number("length", u64::from(length) + u64::from(packet.pn_len));
    }
    if let Some(version) = header::raw_version(bytes) {
        header.hex("version", &version.to_be_bytes());
    }
    if let Some((dcid, scid)) = header::raw_cids(bytes) {
        if packet.kind == PacketType::Initial || packet.kind == PacketType::Retry {
            put_token(header, packet, bytes.get(7 + dcid.len() + scid.len()..).unwrap_or_default());
        }
        header.number("scil", scid.len() as u64);
        header.number("dcil", dcid.len() as u64);
        header.hex("scid", scid);
        header.hex("dcid", dcid);
    }
}

/// The length of the token in `bytes`, which is what follows the connection IDs. A token itself is a secret of the
/// client and the server.
fn put_token(header: &mut Json<'_>, packet: &TracedPacket, bytes: &[u8]) {
    let len = match packet.kind {
        PacketType::Retry => bytes.len().checked_sub(usize::from(TAG_LEN)).map(|len| len as u64),
        _ => Reader::new(bytes).varint(),
    };
    if let Some(len) = len.filter(|len| *len > 0) {
        header.object("token", |token| {
            if packet.kind == PacketType::Retry {
                token.text("type", "retry");
            }
            token.object("raw", |raw| raw.number("length", len));
        });
    }
}

/// quic-events-13 §7.2.
fn put_metrics(data: &mut Json<'_>, metrics: &Metrics) {
    data.millis_if("min_rtt", metrics.min_rtt);
    data.millis_if("smoothed_rtt", metrics.smoothed_rtt);
    data.millis_if("latest_rtt", metrics.latest_rtt);
    data.millis_if("rtt_variance", metrics.rtt_variance);
    data.number_if("pto_count", metrics.pto_count.map(u64::from));
    data.number_if("congestion_window", metrics.congestion_window);
    data.number_if("bytes_in_flight", metrics.bytes_in_flight);
    data.number_if("ssthresh", metrics.ssthresh);
}

/// quic-events-13 §5.21.
fn put_timer(data: &mut Json<'_>, change: TimerChange) {
    data.text("timer_type", "loss_timeout");
    data.text(
        "event_type",
        match change {
            TimerChange::Set(_) => "set",
            TimerChange::Expired => "expired",
            TimerChange::Cancelled => "cancelled",
        },
    );
    if let TimerChange::Set(time) = change {
        data.millis("delta", time);
    }
}

/// quic-events-13 §5.13.
fn put_stream(data: &mut Json<'_>, id: StreamId, change: StreamChange, local: bool) {
    data.number("stream_id", id.0);
    let bidi = id.dir() == Dir::Bidi;
    data.text("stream_type", if bidi { "bidirectional" } else { "unidirectional" });
    let (new, side) = match change {
        StreamChange::SendOpened => ("open", "sending"),
        StreamChange::ReceiveOpened => ("open", "receiving"),
        StreamChange::SendClosed => ("closed", "sending"),
        StreamChange::ReceiveClosed => ("closed", "receiving"),
    };
    data.text("new", new);
    data.text("stream_side", side);
    data.text("trigger", if local { "local" } else { "remote" });
}

/// quic-events-13 §4.3.
fn put_close(data: &mut Json<'_>, reason: &CloseReason) {
    use CloseReason as R;
    let initiator = match reason {
        R::Application { .. } | R::PeerTransport { .. } | R::StatelessReset => "remote",
        _ => "local",
    };
    data.text("initiator", initiator);
    match reason {
        R::Local { code } | R::Application { code, .. } => application_error(data, "application_error", *code),
        R::PeerTransport { code, .. } | R::Transport { code, .. } => transport_error(data, "connection_error", *code),
        _ => {}
    }
    match reason {
        R::Application { reason, .. } | R::PeerTransport { reason, .. } | R::Transport { reason, .. } => {
            if !reason.is_empty() {
                data.text("reason", reason);
            }
        }
        R::Local { .. } => {}
        other => data.text("reason", &other.to_string()),
    }
    data.text(
        "trigger",
        match reason {
            R::Local { .. } | R::Application { .. } => "application",
            R::PeerTransport { .. } | R::Transport { .. } => "error",
            R::IdleTimeout => "idle_timeout",
            R::HandshakeTimeout | R::Shutdown => "aborted",
            R::StatelessReset => "stateless_reset",
            R::VersionMismatch => "version_mismatch",
        },
    );
}

/// The name of the file with the trace of a connection (quic-events-13 §1.1), and of the `nth` such file after it, if a
/// client has used an ID again. Only hexadecimal digits of what the client chose are in it.
pub fn file_name(odcid: &ConnectionId, side: Side, nth: u32) -> String {
    let mut name = hex::encode(odcid);
    name.push('_');
    name.push_str(side_name(side));
    if nth > 0 {
        name.push_str(&format!("_{nth}"));
    }
    name.push_str(".sqlog");
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399, "2000-02-28T23:59:59.000Z"),
            (951_782_400, "2000-02-29T00:00:00.000Z"),
            (951_868_800, "2000-03-01T00:00:00.000Z"),
            (1_798_761_599, "2026-12-31T23:59:59.000Z"),
            (4_107_542_399, "2100-02-28T23:59:59.000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(rfc3339(Duration::from_secs(seconds)), text);
        }
    }
}
