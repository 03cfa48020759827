//! Frames (draft-ietf-quic-qlog-quic-events-13 §8.13).

use super::json::Json;
use super::names::Names;
use crate::base::time::Duration;
use crate::quic::trace::frames::each;
use crate::wire::quic::TransportError;
use crate::wire::quic::frame::{AckFrame, Frame};
use crate::wire::quic::varint::Reader;

/// Adds the stored frames in `bytes` to a list. ACK delays are in units of 2^`exponent` microseconds.
pub(super) fn put(list: &mut Json<'_>, bytes: &[u8], room: &mut Vec<u8>, names: Names, exponent: u8) {
    each(bytes, room, |frame| list.push_object(|o| put_frame(o, frame, names, exponent)));
}

fn put_frame(o: &mut Json<'_>, bytes: &[u8], names: Names, exponent: u8) {
    let Ok((frame, used)) = Frame::decode(bytes) else { return put_unknown(o, bytes) };
    let len = bytes.len() as u64;
    let data = (bytes.len() - used) as u64;
    o.text("frame_type", name_of(&frame));
    let raw = |o: &mut Json<'_>, payload: u64| {
        o.object("raw", |raw| {
            raw.number("length", len);
            raw.number("payload_length", payload);
        });
    };
    match &frame {
        Frame::Padding(run) => raw(o, *run as u64),
        Frame::Ping | Frame::HandshakeDone | Frame::ImmediateAck => {}
        Frame::Ack(ack) => put_ack(o, ack, exponent),
        Frame::ResetStream { id, code, final_size } => {
            o.number("stream_id", id.0);
            application_error(o, "error", *code);
            o.number("final_size", *final_size);
        }
        Frame::ResetStreamAt { id, code, final_size, reliable_size } => {
            o.number("stream_id", id.0);
            application_error(o, "error", *code);
            o.number("final_size", *final_size);
            o.number("reliable_size", *reliable_size);
        }
        Frame::StopSending { id, code } => {
            o.number("stream_id", id.0);
            application_error(o, "error", *code);
        }
        Frame::Crypto { offset, data } => {
            o.number("offset", *offset);
            length(o, names, data.len() as u64);
            raw_of_data(o, data.len() as u64);
        }
        Frame::NewToken { token } => {
            o.object("token", |o| {
                o.text("type", "resumption");
                raw_of_data(o, token.len() as u64);
            });
        }
        Frame::Stream(header) => {
            o.number("stream_id", header.id.0);
            o.number("offset", header.offset);
            o.flag("fin", header.fin);
            length(o, names, data);
            raw_of_data(o, data);
        }
        Frame::Datagram { .. } => {
            length(o, names, data);
            raw_of_data(o, data);
        }
        Frame::MaxData(maximum) => o.number("maximum", *maximum),
        Frame::MaxStreamData { id, max } => {
            o.number("stream_id", id.0);
            o.number("maximum", *max);
        }
        Frame::MaxStreams { bidi, max } => {
            o.text("stream_type", stream_type(*bidi));
            o.number("maximum", *max);
        }
        Frame::DataBlocked(limit) => o.number("limit", *limit),
        Frame::StreamDataBlocked { id, limit } => {
            o.number("stream_id", id.0);
            o.number("limit", *limit);
        }
        Frame::StreamsBlocked { bidi, limit } => {
            o.text("stream_type", stream_type(*bidi));
            o.number("limit", *limit);
        }
        // The reset token is left out: whoever knows it can end the connection.
        Frame::NewConnectionId { seq, retire_prior_to, cid, .. } => {
            o.number("sequence_number", *seq);
            o.number("retire_prior_to", *retire_prior_to);
            o.number("connection_id_length", cid.len() as u64);
            o.hex("connection_id", cid);
        }
        Frame::RetireConnectionId { seq } => o.number("sequence_number", *seq),
        Frame::PathChallenge(data) | Frame::PathResponse(data) => o.hex("data", data),
        Frame::ConnectionClose { code, frame_type, reason } => {
            o.text("error_space", "transport");
            transport_error(o, "error", *code);
            put_reason(o, reason);
            o.number("trigger_frame_type", *frame_type);
        }
        Frame::ApplicationClose { code, reason } => {
            o.text("error_space", "application");
            application_error(o, "error", *code);
            put_reason(o, reason);
        }
        // draft-ietf-quic-ack-frequency-14 §4; the draft of events has no names for these.
        Frame::AckFrequency { seq, threshold, max_delay, reordering } => {
            o.number("sequence_number", *seq);
            o.number("ack_eliciting_threshold", *threshold);
            o.millis("requested_max_ack_delay", Duration::from_micros(*max_delay));
            o.number("reordering_threshold", *reordering);
        }
    }
}

fn name_of(frame: &Frame<'_>) -> &'static str {
    match frame {
        Frame::Padding(_) => "padding",
        Frame::Ping => "ping",
        Frame::Ack(_) => "ack",
        Frame::ResetStream { .. } => "reset_stream",
        Frame::ResetStreamAt { .. } => "reset_stream_at",
        Frame::StopSending { .. } => "stop_sending",
        Frame::Crypto { .. } => "crypto",
        Frame::NewToken { .. } => "new_token",
        Frame::Stream(_) => "stream",
        Frame::MaxData(_) => "max_data",
        Frame::MaxStreamData { .. } => "max_stream_data",
        Frame::MaxStreams { .. } => "max_streams",
        Frame::DataBlocked(_) => "data_blocked",
        Frame::StreamDataBlocked { .. } => "stream_data_blocked",
        Frame::StreamsBlocked { .. } => "streams_blocked",
        Frame::NewConnectionId { .. } => "new_connection_id",
        Frame::RetireConnectionId { .. } => "retire_connection_id",
        Frame::PathChallenge(_) => "path_challenge",
        Frame::PathResponse(_) => "path_response",
        Frame::ConnectionClose { .. } | Frame::ApplicationClose { .. } => "connection_close",
        Frame::HandshakeDone => "handshake_done",
        Frame::Datagram { .. } => "datagram",
        Frame::AckFrequency { .. } => "ack_frequency",
        Frame::ImmediateAck => "immediate_ack",
    }
}

fn stream_type(bidi: bool) -> &'static str {
    if bidi { "bidirectional" } else { "unidirectional" }
}

/// The frame's Length field is the length here (quic-events-13 §8.13.7, §8.13.9), which is that of the data.
fn raw_of_data(o: &mut Json<'_>, len: u64) {
    o.object("raw", |raw| {
        raw.number("length", len);
        raw.number("payload_length", len);
    });
}

/// As qlog 0.3 has it.
fn length(o: &mut Json<'_>, names: Names, len: u64) {
    if names == Names::Qvis {
        o.number("length", len);
    }
}

fn put_ack(o: &mut Json<'_>, ack: &AckFrame<'_>, exponent: u8) {
    let micros = ack.delay.checked_shl(exponent.into()).filter(|d| d >> exponent == ack.delay).unwrap_or(u64::MAX);
    o.millis("ack_delay", Duration::from_micros(micros));
    o.list("acked_ranges", |ranges| {
        for range in ack.ranges() {
            ranges.push_list(|pair| {
                pair.push_number(*range.start());
                if range.start() != range.end() {
                    pair.push_number(*range.end());
                }
            });
        }
    });
    if let Some(ecn) = &ack.ecn {
        o.number("ect1", ecn.ect1);
        o.number("ect0", ecn.ect0);
        o.number("ce", ecn.ce);
    }
}

/// A frame that cannot be decoded, or what is left of a packet with very many.
fn put_unknown(o: &mut Json<'_>, bytes: &[u8]) {
    o.text("frame_type", "unknown");
    o.number("frame_type_bytes", Reader::new(bytes).varint().unwrap_or(0));
    o.object("raw", |raw| raw.number("length", bytes.len() as u64));
}

fn put_reason(o: &mut Json<'_>, reason: &[u8]) {
    match std::str::from_utf8(reason) {
        Ok(text) => o.text("reason", text),
        Err(_) => o.hex("reason_bytes", reason),
    }
}

/// An error of the application, of which nothing is known here (quic-events-13 §8.13.25).
pub(super) fn application_error(o: &mut Json<'_>, name: &str, code: u64) {
    o.text(name, "unknown");
    o.number("error_code", code);
}

/// An error of the transport (quic-events-13 §8.13.24, §8.13.26).
pub(super) fn transport_error(o: &mut Json<'_>, name: &str, code: u64) {
    use TransportError as E;
    let known = match E(code) {
        E::NO_ERROR => "no_error",
        E::INTERNAL_ERROR => "internal_error",
        E::CONNECTION_REFUSED => "connection_refused",
        E::FLOW_CONTROL_ERROR => "flow_control_error",
        E::STREAM_LIMIT_ERROR => "stream_limit_error",
        E::STREAM_STATE_ERROR => "stream_state_error",
        E::FINAL_SIZE_ERROR => "final_size_error",
        E::FRAME_ENCODING_ERROR => "frame_encoding_error",
        E::TRANSPORT_PARAMETER_ERROR => "transport_parameter_error",
        E::CONNECTION_ID_LIMIT_ERROR => "connection_id_limit_error",
        E::PROTOCOL_VIOLATION => "protocol_violation",
        E::INVALID_TOKEN => "invalid_token",
        E::APPLICATION_ERROR => "application_error",
        E::CRYPTO_BUFFER_EXCEEDED => "crypto_buffer_exceeded",
        E::KEY_UPDATE_ERROR => "key_update_error",
        E::AEAD_LIMIT_REACHED => "aead_limit_reached",
        E::NO_VIABLE_PATH => "no_viable_path",
        E(0x100..=0x1ff) => return o.text(name, &format!("crypto_error_0x{code:03x}")),
        _ => {
            o.text(name, "unknown");
            return o.number("error_code", code);
        }
    };
    o.text(name, known);
}
