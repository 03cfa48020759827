//! What each event looks like in a file.

use std::net::SocketAddr;

use gannet::base::Side;
use gannet::base::range_set::RangeSet;
use gannet::base::time::Duration;
use gannet::qlog::Names;
use gannet::qlog::encode::{Encoder, file_name};
use gannet::quic::trace::frames::squeeze;
use gannet::quic::trace::{
    CongestionState, ConnectionState, EcnState, KeyCause, KeyLevel, LossCause, Metrics, PacketCause, StreamChange,
    TimerChange, TraceEvent, TraceStart, TracedPacket,
};
use gannet::quic::{CloseReason, ConnId, DropReason, StreamId, Version};
use gannet::wire::quic::ConnectionId;
use gannet::wire::quic::frame::{EcnCounts, Frame, StreamHeader, encode_ack};
use gannet::wire::quic::header::PacketType;
use gannet::wire::quic::params::TransportParameters;
use gannet::wire::quic::varint::Writer;
use serde_json::{Value, json};

/// Time of every event here.
const AT: Duration = Duration::from_micros(1500);

/// The record of an event, and its name and data.
fn encode(names: Names, event: &TraceEvent, bytes: &[u8]) -> (String, String, Value) {
    let mut out = Vec::new();
    Encoder::new(names).event(AT, event, bytes, &mut out);
    let text = String::from_utf8(out).unwrap();
    assert!(text.starts_with('\u{1e}') && text.ends_with("}\n") && text.lines().count() == 1, "{text}");
    let value: Value = serde_json::from_str(&text[1..]).unwrap();
    assert_eq!(value["time"], json!(1.5));
    (text.clone(), value["name"].as_str().unwrap().to_owned(), value["data"].clone())
}

fn newest(event: &TraceEvent, bytes: &[u8]) -> (String, Value) {
    let (_, name, data) = encode(Names::Newest, event, bytes);
    (name, data)
}

fn packet(kind: PacketType) -> TracedPacket {
    TracedPacket {
        sent: true,
        kind,
        pn: 7,
        pn_len: 2,
        len: 100,
        header_len: 0,
        datagram: 3,
        ack_delay_exponent: 3,
        cause: PacketCause::None,
        elsewhere: None,
    }
}

fn written(write: impl FnOnce(&mut Writer<'_>)) -> Vec<u8> {
    let mut buf = vec![0; 4000];
    let mut w = Writer::new(&mut buf);
    write(&mut w);
    let len = w.finish().unwrap();
    buf.truncate(len);
    buf
}

/// The frames of a packet with this payload.
fn frames_of(names: Names, write: impl FnOnce(&mut Writer<'_>)) -> Vec<Value> {
    let mut bytes = Vec::new();
    squeeze(&written(write), &mut bytes);
    let (_, _, data) = encode(names, &TraceEvent::Packet(packet(PacketType::Short)), &bytes);
    data["frames"].as_array().unwrap().clone()
}

/// draft-ietf-quic-qlog-main-schema-14 §3: "\"file_schema\" and \"serialization_format\" fields and their values SHOULD be
/// in the first 256 characters/bytes".
#[test]
fn the_header_is_that_of_a_sequential_file() {
    let conn = ConnId::default();
    let original_dcid = ConnectionId::new(&[0x0a, 0xbc]).unwrap();
    let wall = Duration::from_millis(1_709_210_096_789);
    let start = TraceStart { conn, side: Side::Server, original_dcid, wall };
    let header = |names| {
        let mut out = Vec::new();
        Encoder::new(names).header(&start, &mut out);
        let text = String::from_utf8(out).unwrap();
        assert!(text.starts_with('\u{1e}') && text.ends_with("}\n"));
        (text.clone(), serde_json::from_str::<Value>(&text[1..]).unwrap())
    };
    let (text, value) = header(Names::Newest);
    assert!(text[..256].contains("application/qlog+json-seq"));
    assert_eq!(value["file_schema"], "urn:ietf:params:qlog:file:sequential");
    let trace = &value["trace"];
    assert_eq!(trace["vantage_point"]["type"], "server");
    assert_eq!(trace["event_schemas"][0], "urn:ietf:params:qlog:events:quic-13");
    assert_eq!(trace["common_fields"]["group_id"], "0abc");
    assert_eq!(trace["common_fields"]["time_format"], "relative_to_epoch");
    let reference = json!({ "clock_type": "system", "epoch": "2024-02-29T12:34:56.789Z" });
    assert_eq!(trace["common_fields"]["reference_time"], reference);

    // What qvis looks for (FileLoader.ts, textsequencejsontoqlog.ts, QlogLoaderV2.ts).
    let (text, value) = header(Names::Qvis);
    assert!(text[..100].contains("qlog_version") && text[..100].contains("JSON-SEQ"));
    assert_eq!((&value["qlog_version"], &value["qlog_format"]), (&json!("0.3"), &json!("JSON-SEQ")));
    assert_eq!(value["trace"]["common_fields"]["time_format"], "relative");
    assert_eq!(value["trace"]["common_fields"]["reference_time"], json!(1_709_210_096_789u64));
}

#[test]
fn a_record_as_it_is_in_the_file() {
    let mut bytes = vec![0x65, 1, 2, 3, 0, 9];
    squeeze(&written(|w| StreamHeader { id: StreamId(4), offset: 0, len: Some(5), fin: true }.encode(w)), &mut bytes);
    let event = TraceEvent::Packet(TracedPacket { header_len: 6, pn: 9, ..packet(PacketType::Short) });
    assert_eq!(
        encode(Names::Newest, &event, &bytes).0,
        "\u{1e}{\"time\":1.5,\"name\":\"quic:packet_sent\",\"data\":{\"header\":{\"packet_type\":\"1RTT\",\
         \"spin_bit\":true,\"key_phase_bit\":true,\"packet_number_length\":2,\"packet_number\":9},\
         \"raw\":{\"length\":100,\"payload_length\":78},\"datagram_id\":3,\"frames\":[{\"frame_type\":\"stream\",\
         \"stream_id\":4,\"offset\":0,\"fin\":true,\"raw\":{\"length\":0,\"payload_length\":0}}]}}\n"
    );
}

#[test]
fn long_headers() {
    let header = written(|w| {
        w.u8(0xc1);
        w.u32(Version::V1.number());
        w.short(&[1; 8]);
        w.short(&[2; 5]);
        w.prefixed(&[0x77; 70]);
        w.u16(0x4000 | 21);
        w.u16(7);
    });
    let len = header.len() as u16;
    let event = TracedPacket { header_len: len, len: len + 19 + 16, sent: false, ..packet(PacketType::Initial) };
    let (name, data) = newest(&TraceEvent::Packet(event), &header);
    assert_eq!(name, "quic:packet_received");
    assert_eq!(
        data["header"],
        json!({
            "packet_type": "initial", "packet_number_length": 2, "packet_number": 7, "length": 37,
            "version": "00000001", "token": { "raw": { "length": 70 } }, "scil": 5, "dcil": 8,
            "scid": "0202020202", "dcid": "0101010101010101"
        })
    );
    assert_eq!(data["raw"], json!({ "length": len + 35, "payload_length": 19 }));

    let retry = written(|w| {
        w.u8(0xf0);
        w.u32(Version::V1.number());
        w.short(&[1; 8]);
        w.short(&[2; 5]);
        w.bytes(&[0x77; 30]);
        w.bytes(&[0x66; 16]);
    });
    let len = retry.len() as u16;
    let event = TracedPacket { header_len: len, len, pn_len: 0, ..packet(PacketType::Retry) };
    let (_, data) = newest(&TraceEvent::Packet(event), &retry);
    assert_eq!(data["header"]["token"], json!({ "type": "retry", "raw": { "length": 30 } }));
    assert_eq!((&data["raw"], data.get("frames")), (&json!({ "length": len }), None));
    assert_eq!(data["header"].get("packet_number"), None);

    let list = written(|w| {
        w.u8(0x80);
        w.u32(0);
        w.short(&[1; 8]);
        w.short(&[2; 5]);
        w.u32(0x6b33_43cf);
        w.u32(0x1a2a_3a4a);
    });
    let len = list.len() as u16;
    let event = TracedPacket { header_len: len, len, pn_len: 0, ..packet(PacketType::VersionNegotiation) };
    let (_, data) = newest(&TraceEvent::Packet(event), &list);
    assert_eq!(data["supported_versions"], json!(["6b3343cf", "1a2a3a4a"]));
    assert_eq!(data["header"]["version"], "00000000");
}

#[test]
fn every_frame() {
    let mut received = RangeSet::default();
    received.insert(1..3);
    received.insert(5..6);
    let ecn = EcnCounts { ect0: 4, ect1: 0, ce: 1 };
    let cid = ConnectionId::new(&[9; 4]).unwrap();
    let id = StreamId(3);
    let frames = frames_of(Names::Newest, |w| {
        w.zeros(3);
        Frame::Ping.encode(w);
        assert!(encode_ack(w, &received, 100, Some(ecn), 8) > 0);
        Frame::ResetStream { id, code: 66, final_size: 10 }.encode(w);
        Frame::ResetStreamAt { id, code: 66, final_size: 10, reliable_size: 5 }.encode(w);
        Frame::StopSending { id, code: 67 }.encode(w);
        Frame::Crypto { offset: 12, data: &[1; 80] }.encode(w);
        Frame::NewToken { token: &[1; 33] }.encode(w);
        Frame::MaxData(1 << 60).encode(w);
        Frame::MaxStreamData { id, max: 8 }.encode(w);
        Frame::MaxStreams { bidi: true, max: 9 }.encode(w);
        Frame::DataBlocked(10).encode(w);
        Frame::StreamDataBlocked { id, limit: 11 }.encode(w);
        Frame::StreamsBlocked { bidi: false, limit: 12 }.encode(w);
        Frame::NewConnectionId { seq: 2, retire_prior_to: 1, cid, reset_token: [5; 16] }.encode(w);
        Frame::RetireConnectionId { seq: 0 }.encode(w);
        Frame::PathChallenge([1; 8]).encode(w);
        Frame::PathResponse([2; 8]).encode(w);
        Frame::ConnectionClose { code: 0x0a, frame_type: 6, reason: b"why" }.encode(w);
        Frame::ConnectionClose { code: 0x178, frame_type: 6, reason: b"" }.encode(w);
        Frame::ApplicationClose { code: 3, reason: &[0xff] }.encode(w);
        Frame::HandshakeDone.encode(w);
        Frame::AckFrequency { seq: 1, threshold: 2, max_delay: 1500, reordering: 3 }.encode(w);
        Frame::ImmediateAck.encode(w);
        Frame::Datagram { len: Some(40) }.encode(w);
        w.bytes(&[7; 40]);
        StreamHeader { id, offset: 20, len: None, fin: false }.encode(w);
        w.bytes(&[7; 50]);
    });
    let expected = json!([
        { "frame_type": "padding", "raw": { "length": 3, "payload_length": 3 } },
        { "frame_type": "ping" },
        { "frame_type": "ack", "ack_delay": 0.8, "acked_ranges": [[5], [1, 2]], "ect1": 0, "ect0": 4, "ce": 1 },
        { "frame_type": "reset_stream", "stream_id": 3, "error": "unknown", "error_code": 66, "final_size": 10 },
        { "frame_type": "reset_stream_at", "stream_id": 3, "error": "unknown", "error_code": 66, "final_size": 10,
          "reliable_size": 5 },
        { "frame_type": "stop_sending", "stream_id": 3, "error": "unknown", "error_code": 67 },
        { "frame_type": "crypto", "offset": 12, "raw": { "length": 80, "payload_length": 80 } },
        { "frame_type": "new_token", "token": { "type": "resumption", "raw": { "length": 33, "payload_length": 33 } } },
        { "frame_type": "max_data", "maximum": "1152921504606846976" },
        { "frame_type": "max_stream_data", "stream_id": 3, "maximum": 8 },
        { "frame_type": "max_streams", "stream_type": "bidirectional", "maximum": 9 },
        { "frame_type": "data_blocked", "limit": 10 },
        { "frame_type": "stream_data_blocked", "stream_id": 3, "limit": 11 },
        { "frame_type": "streams_blocked", "stream_type": "unidirectional", "limit": 12 },
        { "frame_type": "new_connection_id", "sequence_number": 2, "retire_prior_to": 1, "connection_id_length": 4,
          "connection_id": "09090909" },
        { "frame_type": "retire_connection_id", "sequence_number": 0 },
        { "frame_type": "path_challenge", "data": "0101010101010101" },
        { "frame_type": "path_response", "data": "0202020202020202" },
        { "frame_type": "connection_close", "error_space": "transport", "error": "protocol_violation", "reason": "why",
          "trigger_frame_type": 6 },
        { "frame_type": "connection_close", "error_space": "transport", "error": "crypto_error_0x178", "reason": "",
          "trigger_frame_type": 6 },
        { "frame_type": "connection_close", "error_space": "application", "error": "unknown", "error_code": 3,
          "reason_bytes": "ff" },
        { "frame_type": "handshake_done" },
        { "frame_type": "ack_frequency", "sequence_number": 1, "ack_eliciting_threshold": 2,
          "requested_max_ack_delay": 1.5, "reordering_threshold": 3 },
        { "frame_type": "immediate_ack" },
        { "frame_type": "datagram", "raw": { "length": 40, "payload_length": 40 } },
        { "frame_type": "stream", "stream_id": 3, "offset": 20, "fin": false,
          "raw": { "length": 50, "payload_length": 50 } },
    ]);
    for (frame, expected) in frames.iter().zip(expected.as_array().unwrap()) {
        assert_eq!(frame, expected);
    }
    assert_eq!(frames.len(), expected.as_array().unwrap().len());
    let qvis = frames_of(Names::Qvis, |w| {
        StreamHeader { id, offset: 20, len: Some(50), fin: false }.encode(w);
        w.bytes(&[7; 50]);
    });
    assert_eq!(qvis[0]["length"], 50);
    let bad = frames_of(Names::Newest, |w| w.bytes(&[0x52, 0x34, 1]));
    assert_eq!(bad, [json!({ "frame_type": "unknown", "frame_type_bytes": 0x1234, "raw": { "length": 3 } })]);
}

#[test]
fn events_of_the_handshake() {
    let [local, remote] = ["192.0.2.1:4433", "[2001:db8::1]:5"].map(|addr| addr.parse::<SocketAddr>().unwrap());
    let (name, data) = newest(&TraceEvent::Started { local, remote }, &[]);
    assert_eq!(name, "quic:connection_started");
    let [one, two] =
        [json!({ "ip_v4": "192.0.2.1", "port_v4": 4433 }), json!({ "ip_v6": "2001:db8::1", "port_v6": 5 })];
    assert_eq!(data, json!({ "local": one, "remote": two }));
    let (name, data) = newest(&TraceEvent::Path { local, remote }, &[]);
    assert_eq!(name, "quic:tuple_assigned");
    assert_eq!(data, json!({ "tuple_id": "", "tuple_remote": two, "tuple_local": one }));

    let (name, data) = newest(&TraceEvent::Probed { local, remote, valid: true }, &[]);
    assert_eq!(name, "quic:migration_state_updated");
    assert_eq!(
        data,
        json!({
            "new": "probing_successful", "tuple_id": "192.0.2.1:4433-[2001:db8::1]:5", "tuple_remote": two, "tuple_local": one
        })
    );
    let probe = TracedPacket { elsewhere: Some((local, remote)), ..packet(PacketType::Short) };
    let (text, ..) = encode(Names::Newest, &TraceEvent::Packet(probe), &[]);
    assert!(text.contains(r#""tuple":"192.0.2.1:4433-[2001:db8::1]:5","data""#), "{text}");

    let (name, data) = newest(&TraceEvent::Versions { server: 1, chosen: Some(1) }, &[0, 0, 0, 2, 0, 0, 0, 1]);
    assert_eq!(name, "quic:version_information");
    assert_eq!(
        data,
        json!({
            "server_versions": ["00000002"], "client_versions": ["00000001"], "chosen_version": "00000001"
        })
    );
    let (_, data) = newest(&TraceEvent::Versions { server: 0, chosen: None }, &[0, 0, 0, 1]);
    assert_eq!(data, json!({ "client_versions": ["00000001"] }));

    let alpns = [&[2][..], b"h3", &[1, 0xff]].concat();
    let (name, data) = newest(&TraceEvent::Alpn { list: Some(Side::Client), chosen: false }, &alpns);
    assert_eq!(name, "quic:alpn_information");
    let h3 = json!({ "byte_value": "6833", "string_value": "h3" });
    assert_eq!(data, json!({ "client_alpns": [h3, { "byte_value": "ff" }] }));
    let (_, data) = newest(&TraceEvent::Alpn { list: None, chosen: true }, &[2, b'h', b'3']);
    assert_eq!(data, json!({ "chosen_alpn": h3 }));

    let params = TransportParameters {
        stateless_reset_token: Some([0xee; 16]),
        initial_max_data: 5,
        original_destination_connection_id: ConnectionId::new(&[1, 2]),
        ..TransportParameters::default()
    };
    let event = TraceEvent::Parameters { local: false, params: Box::new(params) };
    let (text, name, data) = encode(Names::Newest, &event, &[]);
    assert_eq!((&*name, &data["initiator"]), ("quic:parameters_set", &json!("remote")));
    assert_eq!((&data["initial_max_data"], &data["original_destination_connection_id"]), (&json!(5), &json!("0102")));
    assert!(!text.contains("eeee"), "no reset token: {text}");
    assert_eq!(encode(Names::Qvis, &event, &[]).2["owner"], "remote");
    let (name, data) = newest(&TraceEvent::Restored(vec![("initial_max_data", 7), ("reset_stream_at", 1)]), &[]);
    assert_eq!(name, "quic:parameters_restored");
    assert_eq!(data, json!({ "initial_max_data": 7, "reset_stream_at": true }));
    let (name, data) = newest(&TraceEvent::Cipher("AES_128_GCM_SHA256"), &[]);
    assert_eq!((&*name, data), ("quic:parameters_set", json!({ "tls_cipher": "AES_128_GCM_SHA256" })));

    let of = Side::Server;
    let key = |level, cause| newest(&TraceEvent::KeyUpdated { of, level, phase: 2, cause }, &[]);
    let (name, data) = key(KeyLevel::OneRtt, KeyCause::Remote);
    assert_eq!(name, "quic:key_updated");
    assert_eq!(data, json!({ "key_type": "server_1rtt_secret", "key_phase": 2, "trigger": "remote_update" }));
    let data = key(KeyLevel::Initial, KeyCause::Tls).1;
    assert_eq!(data, json!({ "key_type": "server_initial_secret", "trigger": "tls" }));

    let state = |old, new| newest(&TraceEvent::State { old, new }, &[]);
    let (name, data) = state(None, ConnectionState::Attempted);
    assert_eq!((&*name, data), ("quic:connection_state_updated", json!({ "new": "attempted" })));
    let data = state(Some(ConnectionState::Attempted), ConnectionState::HandshakeConfirmed).1;
    assert_eq!(data, json!({ "old": "attempted", "new": "handshake_confirmed" }));
}

#[test]
fn events_of_recovery() {
    let metrics = Metrics {
        smoothed_rtt: Some(Duration::from_micros(20_500)),
        congestion_window: Some(12_000),
        ..Metrics::default()
    };
    let (name, data) = newest(&TraceEvent::Metrics(metrics), &[]);
    assert_eq!(name, "quic:recovery_metrics_updated");
    assert_eq!(data, json!({ "smoothed_rtt": 20.5, "congestion_window": 12_000 }));
    assert_eq!(encode(Names::Qvis, &TraceEvent::Metrics(metrics), &[]).1, "recovery:metrics_updated");

    let numbers = [3u64, 4].map(u64::to_be_bytes).concat();
    let (name, data) = newest(&TraceEvent::Acked(PacketType::Short), &numbers);
    assert_eq!(name, "quic:packets_acked");
    assert_eq!(data, json!({ "packet_number_space": "application_data", "packet_numbers": [3, 4] }));

    let lost = TraceEvent::Lost { space: PacketType::Short, pn: 8, mtu_probe: true, cause: LossCause::Time };
    let (name, data) = newest(&lost, &[]);
    assert_eq!(name, "quic:packet_lost");
    assert_eq!(
        data,
        json!({
            "header": { "packet_type": "1RTT", "packet_number": 8 }, "is_mtu_probe_packet": true,
            "trigger": "time_threshold"
        })
    );
    let parameters =
        TraceEvent::RecoveryParameters { initial_rtt: Duration::from_millis(333), max_datagram: 1200, reduction: 70 };
    let (name, data) = newest(&parameters, &[]);
    assert_eq!(name, "quic:recovery_parameters_set");
    assert_eq!(
        data,
        json!({
            "reordering_threshold": 3, "time_threshold": 1.125, "timer_granularity": 1, "initial_rtt": 333,
            "max_datagram_size": 1200, "initial_congestion_window": 12_000, "minimum_congestion_window": 2400,
            "loss_reduction_factor": 0.7, "persistent_congestion_threshold": 3
        })
    );
    let set = TraceEvent::Timer(TimerChange::Set(Duration::from_millis(5)));
    let (name, data) = newest(&set, &[]);
    assert_eq!(name, "quic:timer_updated");
    assert_eq!(data, json!({ "timer_type": "loss_timeout", "event_type": "set", "delta": 5 }));
    let old = Some(CongestionState::SlowStart);
    let (name, data) = newest(&TraceEvent::Congestion { old, new: CongestionState::Recovery }, &[]);
    assert_eq!(name, "quic:congestion_state_updated");
    assert_eq!(data, json!({ "old": "slow_start", "new": "recovery" }));
    let (name, data) = newest(&TraceEvent::Ecn { sent: false, codepoint: 3, datagram: 2 }, &[]);
    assert_eq!(name, "quic:udp_datagrams_received");
    assert_eq!(data, json!({ "count": 1, "ecn": ["CE"], "datagram_ids": [2] }));
    let (name, data) = newest(&TraceEvent::EcnState { old: None, new: EcnState::Testing }, &[]);
    assert_eq!((&*name, data), ("quic:ecn_state_updated", json!({ "new": "testing" })));
}

#[test]
fn other_events() {
    let event = TraceEvent::Stream { id: StreamId(2), change: StreamChange::SendClosed, local: false };
    let (name, data) = newest(&event, &[]);
    assert_eq!(name, "quic:stream_state_updated");
    assert_eq!(
        data,
        json!({
            "stream_id": 2, "stream_type": "unidirectional", "new": "closed", "stream_side": "sending", "trigger": "remote"
        })
    );
    let (name, data) = newest(&TraceEvent::Mtu { old: 1200, new: 1472, done: true }, &[]);
    assert_eq!((&*name, data), ("quic:mtu_updated", json!({ "old": 1200, "new": 1472, "done": true })));
    let (name, data) = newest(&TraceEvent::Spin(true), &[]);
    assert_eq!((&*name, data), ("quic:spin_bit_updated", json!({ "state": true })));
    let [old, new] = [1, 2].map(|byte| ConnectionId::new(&[byte]).unwrap());
    let (name, data) = newest(&TraceEvent::ConnectionId { local: true, old, new }, &[]);
    assert_eq!(name, "quic:connection_id_updated");
    assert_eq!(data, json!({ "initiator": "local", "old": "01", "new": "02" }));
    let (name, data) = newest(&TraceEvent::Blocked(true), &[]);
    assert_eq!(name, "quic:connection_data_blocked_updated");
    assert_eq!(data, json!({ "old": "unblocked", "new": "blocked", "reason": "connection_flow_control" }));
    let event = TraceEvent::Dropped { reason: DropReason::Duplicate, kind: Some(PacketType::Short), len: 60 };
    let (name, data) = newest(&event, &[]);
    assert_eq!(name, "quic:packet_dropped");
    assert_eq!(
        data,
        json!({
            "header": { "packet_type": "1RTT" }, "raw": { "length": 60 }, "details": { "reason": "duplicate" },
            "trigger": "duplicate"
        })
    );
    let (name, data) = newest(&TraceEvent::Buffered { kind: PacketType::Handshake, len: 60 }, &[]);
    assert_eq!(name, "quic:packet_buffered");
    assert_eq!(
        data,
        json!({
            "header": { "packet_type": "handshake" }, "raw": { "length": 60 }, "trigger": "keys_unavailable"
        })
    );
    for (reason, trigger, initiator) in [
        (CloseReason::IdleTimeout, "idle_timeout", "local"),
        (CloseReason::StatelessReset, "stateless_reset", "remote"),
        (CloseReason::VersionMismatch, "version_mismatch", "local"),
        (CloseReason::Local { code: 5 }, "application", "local"),
        (CloseReason::PeerTransport { code: 1, reason: "\u{1e}\n\"".into() }, "error", "remote"),
    ] {
        let (name, data) = newest(&TraceEvent::Closed(Box::new(reason)), &[]);
        assert_eq!(name, "quic:connection_closed");
        assert_eq!((&data["trigger"], &data["initiator"]), (&json!(trigger), &json!(initiator)));
    }
}

/// Every event has a name in the newest draft (quic-events-13 §3), whatever its bytes are.
#[test]
fn names_are_those_of_the_draft_and_damaged_bytes_do_no_harm() {
    for kind in [PacketType::Initial, PacketType::Retry, PacketType::VersionNegotiation, PacketType::Short] {
        for len in [0, 1, 5, 7, 20, 60] {
            let event = TraceEvent::Packet(TracedPacket { header_len: 30, ..packet(kind) });
            encode(Names::Newest, &event, &vec![0xff; len]);
            encode(Names::Qvis, &event, &vec![0; len]);
        }
    }
    encode(Names::Newest, &TraceEvent::Versions { server: 9, chosen: None }, &[1; 7]);
    encode(Names::Newest, &TraceEvent::Alpn { list: Some(Side::Server), chosen: true }, &[9; 7]);
    encode(Names::Newest, &TraceEvent::Acked(PacketType::Initial), &[9; 7]);
    encode(Names::Newest, &TraceEvent::Retransmit, &[9; 7]);
}

/// A client chooses the ID, even its length.
#[test]
fn file_names_are_made_of_digits() {
    let [short, nasty] = [&[][..], b"../../etc/passwd"].map(|id| ConnectionId::new(id).unwrap());
    assert_eq!(file_name(&short, Side::Server, 0), "_server.sqlog");
    assert_eq!(file_name(&nasty, Side::Client, 2), "2e2e2f2e2e2f6574632f706173737764_client_2.sqlog");
}
