//! Events, headers and frames with their fields, as in draft-ietf-quic-qlog-quic-events-13. What is not required is
//! optional.

use serde_json::Value;

/// The fields of something: those that it must have, and those that it may have.
pub type Fields = (&'static [&'static str], &'static [&'static str]);

const EVENTS: &[(&str, Fields)] = &[
    ("connection_started", (&["local", "remote"], &[])),
    (
        "connection_closed",
        (&[], &["initiator", "connection_error", "application_error", "error_code", "reason", "trigger"]),
    ),
    ("connection_id_updated", (&["initiator"], &["old", "new"])),
    ("spin_bit_updated", (&["state"], &[])),
    ("connection_state_updated", (&["new"], &["old"])),
    ("tuple_assigned", (&["tuple_id"], &["tuple_remote", "tuple_local"])),
    ("mtu_updated", (&["new"], &["old", "done"])),
    ("migration_state_updated", (&["new"], &["old", "tuple_id", "tuple_remote", "tuple_local"])),
    ("version_information", (&[], &["server_versions", "client_versions", "chosen_version"])),
    ("alpn_information", (&[], &["server_alpns", "client_alpns", "chosen_alpn"])),
    (
        "parameters_set",
        (
            &[],
            &[
                "initiator",
                "tls_cipher",
                "original_destination_connection_id",
                "initial_source_connection_id",
                "retry_source_connection_id",
                "disable_active_migration",
                "max_idle_timeout",
                "max_udp_payload_size",
                "ack_delay_exponent",
                "max_ack_delay",
                "active_connection_id_limit",
                "initial_max_data",
                "initial_max_stream_data_bidi_local",
                "initial_max_stream_data_bidi_remote",
                "initial_max_stream_data_uni",
                "initial_max_streams_bidi",
                "initial_max_streams_uni",
                "max_datagram_frame_size",
                "grease_quic_bit",
                "reset_stream_at",
                "preferred_address",
                // Ours.
                "min_ack_delay",
            ],
        ),
    ),
    (
        "parameters_restored",
        (
            &[],
            &[
                "active_connection_id_limit",
                "initial_max_data",
                "initial_max_stream_data_bidi_local",
                "initial_max_stream_data_bidi_remote",
                "initial_max_stream_data_uni",
                "initial_max_streams_bidi",
                "initial_max_streams_uni",
                "max_datagram_frame_size",
                // Ours.
                "reset_stream_at",
            ],
        ),
    ),
    ("packet_sent", PACKET),
    ("packet_received", PACKET),
    ("packet_dropped", (&[], &["header", "raw", "datagram_id", "details", "trigger"])),
    ("packet_buffered", (&[], &["header", "raw", "datagram_id", "trigger"])),
    ("packets_acked", (&["packet_numbers"], &["packet_number_space"])),
    ("udp_datagrams_sent", (&[], &["count", "raw", "ecn", "datagram_ids"])),
    ("udp_datagrams_received", (&[], &["count", "raw", "ecn", "datagram_ids"])),
    ("stream_state_updated", (&["stream_id", "new", "stream_side"], &["stream_type", "old", "trigger"])),
    ("connection_data_blocked_updated", (&["new"], &["old", "reason"])),
    ("timer_updated", (&["event_type"], &["timer_type", "timer_id", "packet_number_space", "delta"])),
    ("key_updated", (&["key_type"], &["key_phase", "trigger"])),
    ("key_discarded", (&["key_type"], &["key_phase", "trigger"])),
    (
        "recovery_parameters_set",
        (
            &["timer_granularity"],
            &[
                "reordering_threshold",
                "time_threshold",
                "initial_rtt",
                "max_datagram_size",
                "initial_congestion_window",
                "minimum_congestion_window",
                "loss_reduction_factor",
                "persistent_congestion_threshold",
            ],
        ),
    ),
    (
        "recovery_metrics_updated",
        (
            &[],
            &[
                "min_rtt",
                "smoothed_rtt",
                "latest_rtt",
                "rtt_variance",
                "pto_count",
                "congestion_window",
                "bytes_in_flight",
                "ssthresh",
            ],
        ),
    ),
    ("congestion_state_updated", (&["new"], &["old", "trigger"])),
    ("packet_lost", (&["header", "trigger"], &["is_mtu_probe_packet"])),
    ("marked_for_retransmit", (&["frames"], &[])),
    ("ecn_state_updated", (&["new"], &["old"])),
];

const PACKET: Fields =
    (&["header", "raw"], &["frames", "supported_versions", "datagram_id", "is_mtu_probe_packet", "trigger"]);

const HEADERS: &[(&str, Fields)] = &[
    ("initial", LONG),
    ("handshake", LONG),
    ("0RTT", LONG),
    ("1RTT", (&["packet_type", "packet_number"], &["spin_bit", "key_phase_bit", "packet_number_length"])),
    ("retry", (&["packet_type", "version", "scid", "dcid", "scil", "dcil", "token"], &[])),
    ("version_negotiation", (&["packet_type", "version", "scid", "dcid", "scil", "dcil"], &[])),
];

const LONG: Fields = (
    &["packet_type", "packet_number", "packet_number_length", "length", "version", "scil", "dcil", "scid", "dcid"],
    &["token"],
);

const FRAMES: &[(&str, Fields)] = &[
    ("padding", (&["raw"], &[])),
    ("ping", (&[], &[])),
    ("ack", (&["ack_delay", "acked_ranges"], &["ect1", "ect0", "ce"])),
    ("reset_stream", (&["stream_id", "error", "error_code", "final_size"], &[])),
    ("reset_stream_at", (&["stream_id", "error", "error_code", "final_size", "reliable_size"], &[])),
    ("stop_sending", (&["stream_id", "error", "error_code"], &[])),
    ("crypto", (&["offset", "raw"], &[])),
    ("new_token", (&["token"], &[])),
    ("stream", (&["stream_id", "offset", "fin", "raw"], &[])),
    ("max_data", (&["maximum"], &[])),
    ("max_stream_data", (&["stream_id", "maximum"], &[])),
    ("max_streams", (&["stream_type", "maximum"], &[])),
    ("data_blocked", (&["limit"], &[])),
    ("stream_data_blocked", (&["stream_id", "limit"], &[])),
    ("streams_blocked", (&["stream_type", "limit"], &[])),
    ("new_connection_id", (&["sequence_number", "retire_prior_to", "connection_id"], &["connection_id_length"])),
    ("retire_connection_id", (&["sequence_number"], &[])),
    ("path_challenge", (&["data"], &[])),
    ("path_response", (&["data"], &[])),
    ("connection_close", (&["error_space", "error"], &["error_code", "reason", "reason_bytes", "trigger_frame_type"])),
    ("handshake_done", (&[], &[])),
    ("datagram", (&["raw"], &[])),
    // draft-ietf-quic-ack-frequency-14.
    (
        "ack_frequency",
        (&["sequence_number", "ack_eliciting_threshold", "requested_max_ack_delay", "reordering_threshold"], &[]),
    ),
    ("immediate_ack", (&[], &[])),
];

fn check_fields(what: &str, value: &Value, kinds: &[(&str, Fields)], kind: &str, extra: &[&str]) {
    let known = kinds.iter().find(|(name, _)| *name == kind);
    let (_, (required, optional)) = known.unwrap_or_else(|| panic!("{what} {kind:?} is not in the draft: {value}"));
    let object = value.as_object().unwrap_or_else(|| panic!("{what} {kind:?}: {value}"));
    for name in *required {
        assert!(object.contains_key(*name), "{what} {kind} lacks {name}: {value}");
    }
    for name in object.keys().map(String::as_str) {
        let known = required.contains(&name) || optional.contains(&name) || extra.contains(&name);
        assert!(known, "{what} {kind} has no {name}: {value}");
    }
}

/// Checks an event. Returns its name without the namespace, and its data.
pub fn check(event: &Value) -> (&str, &Value) {
    let name = event["name"].as_str().expect("a name");
    let data = &event["data"];
    assert!(event["time"].is_number(), "{event}");
    if name == "loglevel:warning" {
        assert!(data["message"].is_string());
        return (name, data);
    }
    let name = name.strip_prefix("quic:").unwrap_or_else(|| panic!("another namespace: {event}"));
    check_fields("event", data, EVENTS, name, &[]);
    if ["packet_sent", "packet_received"].contains(&name) {
        let kind = data["header"]["packet_type"].as_str().expect("a type");
        check_fields("header", &data["header"], HEADERS, kind, &[]);
        assert!(data["raw"]["length"].as_u64().is_some_and(|len| len > 0), "{event}");
    }
    for frame in data["frames"].as_array().into_iter().flatten() {
        check_fields("frame", frame, FRAMES, frame["frame_type"].as_str().expect("a type"), &["frame_type"]);
    }
    (name, data)
}
