//! A peer with valid keys that breaks the rules, one rule at a time.

use gannet::base::Side;
use gannet::quic::{CloseReason, Dir, StreamId};
use gannet::wire::quic::frame::{Frame, StreamHeader};
use gannet::wire::quic::params::{Preferred, TransportParameters};
use gannet::wire::quic::varint::{self, Writer};
use gannet::wire::quic::{ConnectionId, TransportError};

use super::peer::{DATA, HANDSHAKE, INITIAL, Peer, Shape, frames};
use super::world::{Host, against_client, against_server, client_addr, exchange, server_addr, small};

type Attack = fn(&mut Host, &mut Peer) -> Vec<Vec<u8>>;

const fn client_stream(dir: Dir, index: u64) -> StreamId {
    StreamId::new(Side::Client, dir, index)
}

const fn server_stream(dir: Dir, index: u64) -> StreamId {
    StreamId::new(Side::Server, dir, index)
}

/// A STREAM frame of `len` zero bytes at `offset`.
fn stream(id: StreamId, offset: u64, len: usize, fin: bool) -> Vec<u8> {
    let mut bytes = frames(&[Frame::Stream(StreamHeader { id, offset, len: Some(len as u64), fin })]);
    bytes.resize(bytes.len() + len, 0);
    bytes
}

fn one(frame: Frame<'_>) -> Vec<u8> {
    frames(&[frame])
}

fn varint_of(value: u64) -> Vec<u8> {
    let mut bytes = vec![0; varint::size(value)];
    Writer::new(&mut bytes).varint(value);
    bytes
}

fn new_cid(seq: u64, retire_prior_to: u64, id: u8, token: u8) -> Vec<u8> {
    let cid = ConnectionId::new(&[id; 8]).unwrap();
    one(Frame::NewConnectionId { seq, retire_prior_to, cid, reset_token: [token; 16] })
}

/// Attacks that consist of one 1-RTT packet for each payload.
macro_rules! data {
    ($($payload:expr),+ $(,)?) => {
        |_, peer| vec![$(peer.packet(DATA, &$payload)),+]
    };
}

const BIDI: StreamId = client_stream(Dir::Bidi, 0);
const UNI: StreamId = client_stream(Dir::Uni, 0);
const SERVERS_BIDI: StreamId = server_stream(Dir::Bidi, 0);
const SERVERS_UNI: StreamId = server_stream(Dir::Uni, 0);

use TransportError as E;

/// Violations by a client.
#[rustfmt::skip]
const AGAINST_SERVER: &[(&str, TransportError, Attack)] = &[
    // Flow control (RFC 9000 §4.1).
    ("a byte beyond the stream's window", E::FLOW_CONTROL_ERROR, data!(stream(BIDI, 4000, 1, false))),
    ("an empty frame beyond the stream's window", E::FLOW_CONTROL_ERROR, data!(stream(BIDI, 4001, 0, false))),
    ("bytes beyond the window of a unidirectional stream", E::FLOW_CONTROL_ERROR, data!(stream(UNI, 3999, 2, true))),
    ("a byte beyond the connection's window", E::FLOW_CONTROL_ERROR,
        data!(stream(BIDI, 3999, 1, false), stream(UNI, 1999, 2, false))),
    ("a final size beyond the connection's window", E::FLOW_CONTROL_ERROR,
        data!(stream(BIDI, 3999, 1, false), one(Frame::ResetStream { id: UNI, code: 0, final_size: 2001 }))),
    ("a reset beyond the stream's window", E::FLOW_CONTROL_ERROR,
        data!(one(Frame::ResetStream { id: BIDI, code: 0, final_size: 4001 }))),
    ("an end offset that wraps", E::FLOW_CONTROL_ERROR,
        data!([&[0x0c][..], &varint_of(BIDI.0), &varint_of(varint::MAX), b"xyz"].concat())),
    ("an end offset beyond 2^62-1", E::FRAME_ENCODING_ERROR,
        data!([&[0x0e][..], &varint_of(BIDI.0), &varint_of(varint::MAX), &[3], b"xyz"].concat())),

    // Final size (RFC 9000 §4.5).
    ("data behind the final size", E::FINAL_SIZE_ERROR, data!(stream(BIDI, 0, 10, true), stream(BIDI, 10, 1, false))),
    ("another final size", E::FINAL_SIZE_ERROR, data!(stream(BIDI, 0, 10, true), stream(BIDI, 0, 9, true))),
    ("a final size below what was received", E::FINAL_SIZE_ERROR,
        data!(stream(BIDI, 100, 1, false), stream(BIDI, 0, 9, true))),
    ("a reset with another final size", E::FINAL_SIZE_ERROR,
        data!([stream(BIDI, 5, 10, true), one(Frame::ResetStream { id: BIDI, code: 0, final_size: 14 })].concat())),
    ("a reset below what was received", E::FINAL_SIZE_ERROR,
        data!(stream(BIDI, 100, 1, false), one(Frame::ResetStream { id: BIDI, code: 0, final_size: 100 }))),

    ("data behind the final size of a reset", E::FINAL_SIZE_ERROR,
        data!(one(Frame::ResetStream { id: BIDI, code: 0, final_size: 20 }), stream(BIDI, 19, 2, false))),
    ("an end other than that of a reset", E::FINAL_SIZE_ERROR,
        data!(one(Frame::ResetStream { id: BIDI, code: 0, final_size: 20 }), stream(BIDI, 0, 19, true))),
    ("two resets with different final sizes", E::FINAL_SIZE_ERROR,
        data!(one(Frame::ResetStream { id: BIDI, code: 0, final_size: 20 }),
            one(Frame::ResetStream { id: BIDI, code: 0, final_size: 19 }))),
    ("an end offset beyond 2^62-1 on a stream that has ended", E::FRAME_ENCODING_ERROR,
        data!(one(Frame::ResetStream { id: UNI, code: 0, final_size: 20 }),
            [&[0x0c][..], &varint_of(UNI.0), &varint_of(varint::MAX), b"xyz"].concat())),

    // Stream limits and states (RFC 9000 §4.6, §3, §19).
    ("too many bidirectional streams", E::STREAM_LIMIT_ERROR, data!(stream(client_stream(Dir::Bidi, 3), 0, 1, false))),
    ("too many unidirectional streams", E::STREAM_LIMIT_ERROR, data!(stream(client_stream(Dir::Uni, 3), 0, 1, false))),
    ("a stream far beyond the limit", E::STREAM_LIMIT_ERROR, data!(stream(StreamId(varint::MAX - 3), 0, 1, false))),
    ("a reset of a stream beyond the limit", E::STREAM_LIMIT_ERROR,
        data!(one(Frame::ResetStream { id: client_stream(Dir::Uni, 3), code: 0, final_size: 0 }))),
    ("credit for a stream beyond the limit", E::STREAM_LIMIT_ERROR,
        data!(one(Frame::MaxStreamData { id: client_stream(Dir::Bidi, 3), max: 1 }))),
    ("STREAM_DATA_BLOCKED on a stream beyond the limit", E::STREAM_LIMIT_ERROR,
        data!(one(Frame::StreamDataBlocked { id: client_stream(Dir::Uni, 3), limit: 1 }))),
    ("STOP_SENDING of a stream beyond the limit", E::STREAM_LIMIT_ERROR,
        data!(one(Frame::StopSending { id: client_stream(Dir::Bidi, 3), code: 1 }))),
    ("data on a stream that the server never opened", E::STREAM_STATE_ERROR, data!(stream(SERVERS_BIDI, 0, 1, false))),
    ("credit for a stream that the server never opened", E::STREAM_STATE_ERROR,
        data!(one(Frame::MaxStreamData { id: SERVERS_UNI, max: 9 }))),
    ("STOP_SENDING of a stream that the server never opened", E::STREAM_STATE_ERROR,
        data!(one(Frame::StopSending { id: SERVERS_BIDI, code: 9 }))),
    ("data on a stream that only the server sends on", E::STREAM_STATE_ERROR, |host, peer| {
        open(host, Dir::Uni);
        vec![peer.packet(DATA, &stream(SERVERS_UNI, 0, 1, false))]
    }),
    ("a reset of a stream that only the server sends on", E::STREAM_STATE_ERROR, |host, peer| {
        open(host, Dir::Uni);
        vec![peer.packet(DATA, &one(Frame::ResetStream { id: SERVERS_UNI, code: 0, final_size: 0 }))]
    }),
    ("STREAM_DATA_BLOCKED on a stream that only the server sends on", E::STREAM_STATE_ERROR, |host, peer| {
        open(host, Dir::Uni);
        vec![peer.packet(DATA, &one(Frame::StreamDataBlocked { id: SERVERS_UNI, limit: 0 }))]
    }),
    ("credit for a stream that only the client sends on", E::STREAM_STATE_ERROR,
        data!(one(Frame::MaxStreamData { id: UNI, max: 9 }))),
    ("STOP_SENDING of a stream that only the client sends on", E::STREAM_STATE_ERROR,
        data!(one(Frame::StopSending { id: UNI, code: 9 }))),
    ("a stream limit above 2^60", E::FRAME_ENCODING_ERROR,
        data!([&[0x12][..], &varint_of((1 << 60) + 1)].concat())),
    ("STREAMS_BLOCKED above 2^60", E::FRAME_ENCODING_ERROR,
        data!([&[0x17][..], &varint_of((1 << 60) + 1)].concat())),

    // Encoding of frames (RFC 9000 §12.4).
    ("an unknown frame type", E::FRAME_ENCODING_ERROR, data!([0x21])),
    ("an unknown frame type of two bytes", E::FRAME_ENCODING_ERROR, data!([0x52, 0x34])),
    ("an unknown frame type behind a known one", E::FRAME_ENCODING_ERROR, data!([0x01, 0x00, 0x3f])),
    ("a frame type in a longer form", E::PROTOCOL_VIOLATION, data!([0x40, 0x01])),
    ("a STREAM type in a longer form", E::PROTOCOL_VIOLATION, data!([0x40, 0x0a, 0, 1, 7])),
    ("a frame that is cut off", E::FRAME_ENCODING_ERROR, data!([0x11, 0x00])),
    ("a frame type that is cut off", E::FRAME_ENCODING_ERROR, data!([0x01, 0x80])),
    ("STREAM data beyond the packet", E::FRAME_ENCODING_ERROR, data!([0x0a, 0x00, 0x05, 1, 2, 3, 4])),
    ("a CRYPTO frame beyond the packet", E::FRAME_ENCODING_ERROR, data!([0x06, 0x00, 0x05, 1, 2, 3, 4])),
    ("a reason phrase beyond the packet", E::FRAME_ENCODING_ERROR, data!([0x1d, 0x00, 0x05, 1, 2, 3, 4])),
    ("DATAGRAM that was not negotiated", E::PROTOCOL_VIOLATION, data!([0x30, 1, 2, 3])),
    ("a packet without frames", E::PROTOCOL_VIOLATION, data!([0u8; 0])),
    ("reserved bits in a short header", E::PROTOCOL_VIOLATION, |_, peer| {
        vec![peer.shaped(DATA, &[0x01], Shape { first: 0x10, ..Shape::default() })]
    }),
    ("the other reserved bit", E::PROTOCOL_VIOLATION, |_, peer| {
        vec![peer.shaped(DATA, &[0x01], Shape { first: 0x08, ..Shape::default() })]
    }),

    // Acknowledgements (RFC 9000 §13.1, §19.3).
    ("an ACK of a packet that was never sent", E::PROTOCOL_VIOLATION, data!([0x02, 0x7f, 0xff, 0, 0, 0])),
    ("an ACK that ends below zero", E::FRAME_ENCODING_ERROR, data!([0x02, 0, 0, 0, 1])),
    ("an ACK range that ends below zero", E::FRAME_ENCODING_ERROR, data!([0x02, 3, 0, 1, 1, 1, 0])),
    ("an ACK with fewer ranges than it says", E::FRAME_ENCODING_ERROR, data!([0x02, 3, 0, 9, 0])),
    ("an ACK without its ECN counts", E::FRAME_ENCODING_ERROR, data!([0x03, 0, 0, 0, 0, 1])),

    // Frames that a client must not send (RFC 9000 §19.7, §19.18, §19.20).
    ("HANDSHAKE_DONE", E::PROTOCOL_VIOLATION, data!([0x1e])),
    ("NEW_TOKEN", E::PROTOCOL_VIOLATION, data!(one(Frame::NewToken { token: b"token" }))),
    ("a PATH_RESPONSE that nobody asked for", E::PROTOCOL_VIOLATION, data!(one(Frame::PathResponse([1; 8])))),

    // Connection IDs (RFC 9000 §5.1, §19.15, §19.16).
    ("retiring an ID that was never issued", E::PROTOCOL_VIOLATION,
        data!(one(Frame::RetireConnectionId { seq: 100 }))),
    ("retiring the ID that the packet came to", E::PROTOCOL_VIOLATION,
        data!(one(Frame::RetireConnectionId { seq: 0 }))),
    ("an ID without bytes", E::FRAME_ENCODING_ERROR, data!([&[0x18, 1, 0, 0][..], &[0; 16]].concat())),
    ("an ID of 21 bytes", E::FRAME_ENCODING_ERROR, data!([&[0x18, 1, 0, 21][..], &[0; 37]].concat())),
    ("Retire Prior To above the sequence number", E::FRAME_ENCODING_ERROR,
        data!([&[0x18, 1, 2, 8][..], &[5; 24]].concat())),
    ("two IDs with one sequence number", E::PROTOCOL_VIOLATION, data!(new_cid(1, 0, 1, 1), new_cid(1, 0, 2, 1))),
    ("one ID with two sequence numbers", E::PROTOCOL_VIOLATION, data!(new_cid(1, 0, 1, 1), new_cid(2, 0, 1, 1))),
    ("one ID with two reset tokens", E::PROTOCOL_VIOLATION, data!(new_cid(1, 0, 1, 1), new_cid(1, 0, 1, 2))),
    ("more IDs than announced", E::CONNECTION_ID_LIMIT_ERROR,
        data!(new_cid(1, 0, 1, 1), new_cid(2, 0, 2, 2), new_cid(3, 0, 3, 3), new_cid(4, 0, 4, 4))),
    ("IDs retired faster than that can be told", E::CONNECTION_ID_LIMIT_ERROR, |_, peer| {
        let all: Vec<u8> = (1..30).flat_map(|n| new_cid(n, n, n as u8, n as u8)).collect();
        vec![peer.packet(DATA, &all)]
    }),

    // CRYPTO (RFC 9000 §7.5, RFC 9001 §6, §8.3).
    ("more CRYPTO data than is kept", E::CRYPTO_BUFFER_EXCEEDED,
        data!(one(Frame::Crypto { offset: 1 << 20, data: b"x" }))),
    ("a CRYPTO end offset beyond 2^62-1", E::FRAME_ENCODING_ERROR,
        data!(one(Frame::Crypto { offset: varint::MAX, data: b"x" }))),
    ("a TLS KeyUpdate", E::crypto(10), data!(one(Frame::Crypto { offset: 0, data: &[24, 0, 0, 1, 0] }))),
];

/// Violations by a server.
#[rustfmt::skip]
const AGAINST_CLIENT: &[(&str, TransportError, Attack)] = &[
    // TLS after the handshake (RFC 9001 §4.4, §6).
    ("a TLS KeyUpdate", E::crypto(10), data!(one(Frame::Crypto { offset: 0, data: &[24, 0, 0, 1, 0] }))),
    ("a request for a certificate after the handshake", E::PROTOCOL_VIOLATION,
        data!(one(Frame::Crypto { offset: 0, data: &[13, 0, 0, 11, 0, 0, 8, 0, 13, 0, 4, 0, 2, 4, 3] }))),
    ("a NEW_TOKEN without a token", E::FRAME_ENCODING_ERROR, data!([0x07, 0x00])),
    ("data on a stream that the client never opened", E::STREAM_STATE_ERROR, data!(stream(BIDI, 0, 1, false))),
    ("data on a stream that only the client sends on", E::STREAM_STATE_ERROR, |host, peer| {
        open(host, Dir::Uni);
        vec![peer.packet(DATA, &stream(UNI, 0, 1, false))]
    }),
    ("too many streams", E::STREAM_LIMIT_ERROR, data!(stream(server_stream(Dir::Bidi, 3), 0, 1, false))),
    ("a byte beyond the window of the client's stream", E::FLOW_CONTROL_ERROR, |host, peer| {
        open(host, Dir::Bidi);
        vec![peer.packet(DATA, &stream(BIDI, 4000, 1, false))]
    }),
    ("reserved bits", E::PROTOCOL_VIOLATION, |_, peer| {
        vec![peer.shaped(DATA, &[0x01], Shape { first: 0x18, ..Shape::default() })]
    }),
    ("an ACK of a packet that was never sent", E::PROTOCOL_VIOLATION, data!([0x02, 0x7f, 0xff, 0, 0, 0])),
    ("a broken session ticket", E::crypto(50), data!(one(Frame::Crypto { offset: 0, data: &[4, 0, 0, 2, 7, 7] }))),
    ("more CRYPTO data than is kept", E::CRYPTO_BUFFER_EXCEEDED,
        data!(one(Frame::Crypto { offset: 1 << 20, data: b"x" }))),
];

fn open(host: &mut Host, dir: Dir) {
    let id = host.conn.expect("connected");
    host.endpoint.conn(id).unwrap().open(dir).unwrap();
}

/// Plays the attack and checks that both ends see the right error.
fn check(name: &str, want: TransportError, host: &mut Host, peer: &mut Peer, attack: Attack) {
    for datagram in attack(host, peer) {
        assert_eq!(host.error(), None, "{name}: ended too early: {:?}", host.closed());
        host.receive(datagram);
        host.run().iter().for_each(|(_, datagram)| peer.receive(datagram));
    }
    assert_eq!(host.error(), Some(want), "{name}: {:?}", host.closed());
    let close = peer.close.clone().unwrap_or_else(|| panic!("{name}: the peer was not told"));
    assert_eq!((close.code, close.application), (want, false), "{name}");
    // Later packets are answered at most by the same close, and then by nothing.
    let datagram = peer.packet(DATA, &[0x01]);
    host.receive(datagram);
    host.run().iter().for_each(|(_, datagram)| peer.receive(datagram));
    assert_eq!(peer.close, Some(close), "{name}");
    host.wait(std::time::Duration::from_secs(60));
    assert_eq!(host.endpoint.connection_count(), 0, "{name}: the connection stays");
}

#[test]
fn clients_that_break_rules() {
    for (name, want, attack) in AGAINST_SERVER {
        let (mut host, mut peer) = against_server(small());
        check(name, *want, &mut host, &mut peer, *attack);
    }
}

#[test]
fn servers_that_break_rules() {
    for (name, want, attack) in AGAINST_CLIENT {
        let (mut host, mut peer) = against_client(small());
        check(name, *want, &mut host, &mut peer, *attack);
    }
}

/// Unusual but allowed: the connection continues.
#[rustfmt::skip]
const HARMLESS: &[(&str, Attack)] = &[
    ("data that overlaps", data!(stream(BIDI, 5, 20, false), stream(BIDI, 0, 30, false), stream(BIDI, 3, 4, false))),
    ("the end twice", data!(stream(BIDI, 0, 10, true), stream(BIDI, 10, 0, true), stream(BIDI, 0, 10, true))),
    ("an empty stream", data!(stream(UNI, 0, 0, true), stream(UNI, 0, 0, true))),
    ("data up to the last byte of both windows", data!(stream(BIDI, 3999, 1, false), stream(UNI, 1999, 1, true))),
    ("data behind a reset", data!(one(Frame::ResetStream { id: UNI, code: 1, final_size: 20 }), stream(UNI, 0, 20, true))),
    ("a reset twice", data!(one(Frame::ResetStream { id: UNI, code: 1, final_size: 20 }),
        one(Frame::ResetStream { id: UNI, code: 2, final_size: 20 }))),
    ("limits that fall", data!(one(Frame::MaxData(5)), one(Frame::MaxStreams { bidi: true, max: 0 }),
        [stream(BIDI, 0, 1, false), one(Frame::MaxStreamData { id: BIDI, max: 0 })].concat())),
    ("the largest limits", data!(one(Frame::MaxData(varint::MAX)), one(Frame::MaxStreams { bidi: true, max: 1 << 60 }),
        one(Frame::MaxStreamData { id: BIDI, max: varint::MAX }))),
    ("a new ID twice", data!(new_cid(1, 0, 1, 1), new_cid(1, 0, 1, 1))),
    ("IDs out of order", data!(new_cid(2, 0, 2, 2), new_cid(1, 0, 1, 1))),
    ("blocked frames", data!(one(Frame::DataBlocked(0)), one(Frame::StreamsBlocked { bidi: false, limit: 9 }),
        one(Frame::StreamDataBlocked { id: BIDI, limit: 0 }))),
    ("an ID of 20 bytes and one of a byte", data!([&[0x18, 1, 0, 20][..], &[9; 36]].concat(),
        [&[0x18, 2, 0, 1][..], &[8; 17]].concat())),
    ("a packet number far ahead", |_, peer| {
        let shape = Shape { pn: Some(1 << 30), ..Shape::default() };
        vec![peer.shaped(DATA, &[0x01], shape), peer.packet(DATA, &[0x01])]
    }),
    ("STOP_SENDING twice", data!(one(Frame::StopSending { id: BIDI, code: 1 }), one(Frame::StopSending { id: BIDI, code: 1 }))),
    ("retiring an ID twice", |host, peer| {
        let _ = host;
        vec![peer.packet(DATA, &one(Frame::RetireConnectionId { seq: 1 })),
            peer.packet(DATA, &one(Frame::RetireConnectionId { seq: 1 }))]
    }),
    ("a CRYPTO frame without data", data!(one(Frame::Crypto { offset: 0, data: b"" }))),
    ("nothing but padding", data!([0; 900])),
    ("a key update", |_, peer| {
        peer.update_keys();
        vec![peer.packet(DATA, &[0x01])]
    }),
];

#[test]
fn what_is_allowed_is_taken() {
    for (name, attack) in HARMLESS {
        let (mut host, mut peer) = against_server(small());
        for datagram in attack(&mut host, &mut peer) {
            host.receive(datagram);
            host.run().iter().for_each(|(_, datagram)| peer.receive(datagram));
        }
        let ping = peer.packet(DATA, &[0x01]);
        host.receive(ping);
        host.wait(std::time::Duration::from_millis(30)).iter().for_each(|(_, datagram)| peer.receive(datagram));
        assert!(host.closed().is_none(), "{name}: {:?}", host.closed());
        assert_eq!(peer.close, None, "{name}");
        assert_eq!(peer.acked, Some(peer.pn[DATA] - 1), "{name}: it must be acknowledged");
    }
}

/// During the handshake: Initial and Handshake packets of a client as soon as it has the keys.
#[rustfmt::skip]
const IN_HANDSHAKE: &[(&str, usize, TransportError, &[u8])] = &[
    ("STREAM in an Initial packet", INITIAL, E::PROTOCOL_VIOLATION, &[0x0a, 0, 1, 7]),
    ("MAX_DATA in an Initial packet", INITIAL, E::PROTOCOL_VIOLATION, &[0x10, 1]),
    ("an application close in an Initial packet", INITIAL, E::PROTOCOL_VIOLATION, &[0x1d, 0, 0]),
    ("an unknown frame in an Initial packet", INITIAL, E::FRAME_ENCODING_ERROR, &[0x21]),
    ("an ACK of an Initial packet that was never sent", INITIAL, E::PROTOCOL_VIOLATION, &[0x02, 9, 0, 0, 0]),
    ("too much CRYPTO data in Initial packets", INITIAL, E::CRYPTO_BUFFER_EXCEEDED, &[0x06, 0x80, 0x10, 0, 0, 1, 7]),
    ("STREAM in a Handshake packet", HANDSHAKE, E::PROTOCOL_VIOLATION, &[0x0a, 0, 1, 7]),
    ("HANDSHAKE_DONE in a Handshake packet", HANDSHAKE, E::PROTOCOL_VIOLATION, &[0x1e]),
    ("a Handshake packet without frames", HANDSHAKE, E::PROTOCOL_VIOLATION, &[]),
    ("an ACK of a Handshake packet that was never sent", HANDSHAKE, E::PROTOCOL_VIOLATION, &[0x02, 9, 0, 0, 0]),
    ("too much CRYPTO data in Handshake packets", HANDSHAKE, E::CRYPTO_BUFFER_EXCEEDED, &[0x06, 0x80, 0x10, 0, 0, 1, 7]),
    ("words of TLS that make no sense", HANDSHAKE, E::crypto(10), &[0x06, 0, 4, 99, 0, 0, 0]),
];

#[test]
fn handshakes_that_break_rules() {
    for (name, space, want, payload) in IN_HANDSHAKE {
        let mut host = Host::server(small());
        let mut peer = Peer::client(client_addr(), 1, |params| params.to_bytes());
        peer.out.drain(..).for_each(|datagram| host.receive(datagram));
        host.run().iter().for_each(|(_, datagram)| peer.receive(datagram));
        assert!(peer.has_handshake_keys());
        peer.out.clear();
        let datagram = peer.packet(*space, payload);
        host.receive(datagram);
        host.run().iter().for_each(|(_, datagram)| peer.receive(datagram));
        assert_eq!(host.error(), Some(*want), "{name}: {:?}", host.closed());
        assert_eq!(peer.close.as_ref().map(|close| close.code), Some(*want), "{name}");
    }
}

#[test]
fn reserved_bits_of_long_headers() {
    for (space, first) in [(INITIAL, 0x04), (INITIAL, 0x08), (HANDSHAKE, 0x0c)] {
        let mut host = Host::server(small());
        let mut peer = Peer::client(client_addr(), 1, |params| params.to_bytes());
        peer.out.drain(..).for_each(|datagram| host.receive(datagram));
        host.run().iter().for_each(|(_, datagram)| peer.receive(datagram));
        let datagram = peer.shaped(space, &[0x01], Shape { first, ..Shape::default() });
        host.receive(datagram);
        host.run();
        assert_eq!(host.error(), Some(E::PROTOCOL_VIOLATION), "space {space}");
    }
}

/// An encoded parameter that no struct would produce.
fn raw(id: u64, value: &[u8]) -> Vec<u8> {
    [varint_of(id), varint_of(value.len() as u64), value.to_vec()].concat()
}

type Params = fn(TransportParameters) -> Vec<u8>;

#[rustfmt::skip]
const CLIENT_PARAMS: &[(&str, TransportError, Params)] = &[
    ("a client with an original ID", E::TRANSPORT_PARAMETER_ERROR,
        |p| TransportParameters { original_destination_connection_id: ConnectionId::new(&[1; 8]), ..p }.to_bytes()),
    ("a client with a reset token", E::TRANSPORT_PARAMETER_ERROR,
        |p| TransportParameters { stateless_reset_token: Some([1; 16]), ..p }.to_bytes()),
    ("a client with a Retry ID", E::TRANSPORT_PARAMETER_ERROR,
        |p| TransportParameters { retry_source_connection_id: ConnectionId::new(&[1; 8]), ..p }.to_bytes()),
    ("a client with a preferred address", E::TRANSPORT_PARAMETER_ERROR, |p| [p.to_bytes(), raw(0x0d, &[0; 41])].concat()),
    ("no source ID", E::TRANSPORT_PARAMETER_ERROR,
        |p| TransportParameters { initial_source_connection_id: None, ..p }.to_bytes()),
    ("another source ID", E::TRANSPORT_PARAMETER_ERROR,
        |p| TransportParameters { initial_source_connection_id: ConnectionId::new(&[1; 8]), ..p }.to_bytes()),
    ("a parameter twice", E::TRANSPORT_PARAMETER_ERROR, |p| [p.to_bytes(), raw(0x04, &[9])].concat()),
    ("an unknown parameter twice", E::TRANSPORT_PARAMETER_ERROR,
        |p| [p.to_bytes(), raw(0x3f5, &[1]), raw(0x3f6, &[1]), raw(0x3f5, &[2])].concat()),
    ("a truncated parameter", E::TRANSPORT_PARAMETER_ERROR, |p| [p.to_bytes(), vec![0x3f, 0x20, 0]].concat()),
    ("an integer of the wrong length", E::TRANSPORT_PARAMETER_ERROR, |p| [p.to_bytes(), raw(0x01, &[1, 2])].concat()),
    ("a flag with a value", E::TRANSPORT_PARAMETER_ERROR, |p| [p.to_bytes(), raw(0x0c, &[1])].concat()),
    ("an ACK delay exponent of 21", E::TRANSPORT_PARAMETER_ERROR,
        |p| TransportParameters { ack_delay_exponent: 21, ..p }.to_bytes()),
    ("an ACK delay of 2^14 ms", E::TRANSPORT_PARAMETER_ERROR,
        |p| TransportParameters { max_ack_delay: 1 << 14, ..p }.to_bytes()),
    ("payloads below 1200 bytes", E::TRANSPORT_PARAMETER_ERROR,
        |p| TransportParameters { max_udp_payload_size: 1199, ..p }.to_bytes()),
    ("a limit of one connection ID", E::TRANSPORT_PARAMETER_ERROR,
        |p| TransportParameters { active_connection_id_limit: 1, ..p }.to_bytes()),
    ("more streams than there are", E::TRANSPORT_PARAMETER_ERROR,
        |p| TransportParameters { initial_max_streams_uni: (1 << 60) + 1, ..p }.to_bytes()),
];

#[test]
fn transport_parameters_that_break_rules() {
    for (name, want, params) in CLIENT_PARAMS {
        let mut host = Host::server(small());
        let mut peer = Peer::client(client_addr(), 1, params);
        peer.out.drain(..).for_each(|datagram| host.receive(datagram));
        host.run().iter().for_each(|(_, datagram)| peer.receive(datagram));
        assert_eq!(host.error(), Some(*want), "{name}: {:?}", host.closed());
        assert_eq!(peer.close.as_ref().map(|close| close.code), Some(*want), "{name}");
    }
}

/// A preferred address with an ID of `id` bytes and `token` bytes after it (RFC 9000 §18.2).
fn preferred(id: usize, token: usize) -> Vec<u8> {
    [&[1; 24][..], &[id as u8], &vec![2; id], &vec![3; token]].concat()
}

#[rustfmt::skip]
const SERVER_PARAMS: &[(&str, Params)] = &[
    ("no original ID", |p| TransportParameters { original_destination_connection_id: None, ..p }.to_bytes()),
    ("another original ID",
        |p| TransportParameters { original_destination_connection_id: ConnectionId::new(&[1; 8]), ..p }.to_bytes()),
    ("a Retry ID without a Retry",
        |p| TransportParameters { retry_source_connection_id: ConnectionId::new(&[1; 8]), ..p }.to_bytes()),
    ("no source ID", |p| TransportParameters { initial_source_connection_id: None, ..p }.to_bytes()),
    ("a reset token of 15 bytes", |p| [p.to_bytes(), raw(0x02, &[0; 15])].concat()),
    ("a preferred address with an empty ID", |p| [p.to_bytes(), raw(0x0d, &[0; 24 + 1 + 16])].concat()),
    ("a preferred address with an ID of 21 bytes", |p| [p.to_bytes(), raw(0x0d, &preferred(21, 16))].concat()),
    ("a preferred address without a whole token", |p| [p.to_bytes(), raw(0x0d, &preferred(8, 15))].concat()),
    ("a preferred address and more", |p| [p.to_bytes(), raw(0x0d, &preferred(8, 17))].concat()),
    ("a preferred address with the ID of the handshake", |p| {
        let cid = p.initial_source_connection_id.unwrap();
        let preferred_address = Some(Preferred { v4: None, v6: None, cid, token: [7; 16] });
        TransportParameters { preferred_address, ..p }.to_bytes()
    }),
];

#[test]
fn server_parameters_that_break_rules() {
    for (name, params) in SERVER_PARAMS {
        let mut host = Host::client(small());
        let first = host.run();
        let mut peer = Peer::server(server_addr(), &first[0].1, params);
        first.iter().for_each(|(_, datagram)| peer.receive(datagram));
        peer.out.drain(..).for_each(|datagram| host.receive(datagram));
        host.run().iter().for_each(|(_, datagram)| peer.receive(datagram));
        assert_eq!(host.error(), Some(E::TRANSPORT_PARAMETER_ERROR), "{name}: {:?}", host.closed());
        assert_eq!(peer.close.as_ref().map(|close| close.code), host.error(), "{name}");
    }
}

#[test]
fn challenges_are_answered_in_full_datagrams() {
    let (mut host, mut peer) = against_server(small());
    let challenges: Vec<u8> = (0..100u8).flat_map(|n| one(Frame::PathChallenge([n; 8]))).collect();
    let datagram = peer.packet(DATA, &challenges);
    host.receive(datagram);
    host.wait(std::time::Duration::from_millis(30)).iter().for_each(|(_, datagram)| peer.receive(datagram));
    assert!(host.closed().is_none());
    let answers = &peer.path_responses;
    assert!((1..=4).contains(&answers.len()), "a flood of challenges causes no flood of answers: {}", answers.len());
    for (i, (len, data)) in answers.iter().enumerate() {
        assert_eq!(*data, [i as u8; 8]);
        assert!(*len >= 1200, "a PATH_RESPONSE in a datagram of {len} bytes (RFC 9000 §8.2.2)");
    }
}

#[test]
fn a_close_is_not_answered() {
    let (mut host, mut peer) = against_server(small());
    let datagram = peer.packet(DATA, &one(Frame::ConnectionClose { code: 7, frame_type: 0, reason: b"bye" }));
    host.receive(datagram);
    assert!(host.run().is_empty());
    assert_eq!(host.closed(), Some(&CloseReason::PeerTransport { code: 7, reason: "bye".into() }));
    for _ in 0..10 {
        let datagram = peer.packet(DATA, &[0x01]);
        host.receive(datagram);
        assert!(host.run().is_empty(), "nothing is sent while draining (RFC 9000 §10.2.2)");
    }
    assert!(host.wait(std::time::Duration::from_secs(30)).is_empty());
    assert_eq!(host.endpoint.connection_count(), 0);
}

#[test]
fn the_handshake_is_what_it_seems() {
    let (mut host, mut peer) = against_server(small());
    exchange(&mut host, &mut peer);
    let (mut host, mut peer) = against_client(small());
    let done = peer.packet(DATA, &[0x1e]);
    host.receive(done);
    exchange(&mut host, &mut peer);
    assert!(host.closed().is_none());
}
