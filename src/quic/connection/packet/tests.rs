//! Whatever lengths the builder is given, it builds a packet that can be decoded, or reports that there is no room.

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::base::Side;
use crate::crypto::{HEAD_AT, HEAD_LEN, Suite, header_key, packet_key};
use crate::quic::event::{Dir, SendData};
use crate::quic::stream::Windows;
use crate::wire::quic::varint;

/// Number of bytes queued on the stream of these tests.
const QUEUED: u64 = 100_000;

/// Number of bytes around the slot that must not be changed.
const GUARD: usize = 64;

fn streams() -> (Streams, StreamId) {
    let windows = Windows { bidi_local: 0, bidi_remote: 0, uni: 0 };
    let mut streams = Streams::new(Side::Client, windows, 0, 0);
    streams.set_peer(Windows { bidi_local: 0, bidi_remote: QUEUED, uni: QUEUED }, 1, 1);
    let id = streams.open(Dir::Bidi).unwrap();
    let data: Vec<u8> = (0..QUEUED).map(byte).collect();
    streams.get(id).unwrap().send.as_mut().unwrap().write(SendData::Bytes(Bytes::from(data)), false);
    (streams, id)
}

fn byte(offset: u64) -> u8 {
    (offset ^ offset >> 8) as u8
}

/// The contents of a packet.
#[derive(Clone, Debug)]
enum Want {
    Frame(usize, u64),
    Stream { start: u64, len: u64, fin: bool },
}

/// A frame of each kind; `n` fills fields and lengths.
fn frame(kind: usize, n: u64, bytes: &[u8]) -> Frame<'_> {
    let id = StreamId(n);
    let data = &bytes[..(n as usize % bytes.len())];
    let some = &bytes[..1 + (n as usize % (bytes.len() - 1))];
    let cid = ConnectionId::new(&bytes[..1 + n as usize % 20]).unwrap();
    let low = n.min(1 << 60);
    match kind {
        0 => Frame::Padding(1 + data.len()),
        1 => Frame::Ping,
        2 => Frame::ResetStream { id, code: n, final_size: n },
        3 => Frame::StopSending { id, code: n },
        4 => Frame::Crypto { offset: n >> 2, data },
        5 => Frame::NewToken { token: some },
        6 => Frame::MaxData(n),
        7 => Frame::MaxStreamData { id, max: n },
        8 => Frame::MaxStreams { bidi: n.is_multiple_of(2), max: low },
        9 => Frame::DataBlocked(n),
        10 => Frame::StreamDataBlocked { id, limit: n },
        11 => Frame::StreamsBlocked { bidi: n.is_multiple_of(2), limit: low },
        12 => Frame::NewConnectionId { seq: n, retire_prior_to: n, cid, reset_token: [7; 16] },
        13 => Frame::RetireConnectionId { seq: n },
        14 => Frame::PathChallenge([9; 8]),
        15 => Frame::PathResponse([8; 8]),
        16 => Frame::ConnectionClose { code: n, frame_type: n, reason: data },
        17 => Frame::ApplicationClose { code: n, reason: data },
        18 => Frame::HandshakeDone,
        _ => Frame::Datagram { len: None },
    }
}

fn want() -> impl Strategy<Value = Want> {
    let number = prop_oneof![0..200u64, 0..=varint::MAX];
    prop_oneof![
        (0..19usize, number).prop_map(|(kind, n)| Want::Frame(kind, n)),
        (0..QUEUED / 2, 0..1700u64, any::<bool>()).prop_map(|(start, len, fin)| Want::Stream { start, len, fin }),
    ]
}

/// The lengths of a packet's parts.
#[derive(Clone, Copy, Debug)]
struct Shape {
    kind: PacketType,
    room: usize,
    dcid: usize,
    scid: usize,
    token: usize,
    pn_len: usize,
    pad: usize,
}

impl Shape {
    fn header_len(&self) -> usize {
        let token = if self.kind == PacketType::Initial { varint::size(self.token as u64) + self.token } else { 0 };
        match self.kind {
            PacketType::Short => 1 + self.dcid + self.pn_len,
            _ => 1 + 4 + 1 + self.dcid + 1 + self.scid + token + 2 + self.pn_len,
        }
    }

    /// Builds the packet, decodes it, and compares.
    fn check(&self, wants: &[Want], streams: &Streams, id: StreamId) {
        let bytes = [0x5a; 1700];
        let (dcid, scid, token) = (&[1; 20][..self.dcid], &[2; 20][..self.scid], &bytes[..self.token]);
        let id_of_peer = ConnectionId::new(dcid).unwrap();
        let head = match self.kind {
            PacketType::Short => Head::Short { bits: 0x44, dcid: &id_of_peer },
            kind => Head::Long { fixed_bit: FIXED_BIT, version: Version::V2, kind, dcid, scid, token },
        };
        let mut memory = vec![0xa5; GUARD + self.room + GUARD];
        let mut list = Vec::new();
        let pn = 0x0102_0304_0506;
        let packet = &mut memory[GUARD..GUARD + self.room];
        let outline = Outline::new(packet, head, pn, self.pn_len);
        let started = outline.map(|outline| PacketBuilder::new(packet, outline, &mut list));
        let fits = self.header_len() + MIN_ROOM + TAG_LEN <= self.room;
        assert_eq!(started.is_some(), fits, "{self:?}");
        let Some(mut builder) = started else {
            assert!(memory[..GUARD].iter().chain(&memory[GUARD + self.room..]).all(|b| *b == 0xa5));
            return;
        };
        let mut taken = Vec::new();
        for want in wants {
            let before = builder.room();
            let ok = match want {
                Want::Frame(kind, n) => {
                    let frame = frame(*kind, *n, &bytes);
                    let ok = builder.put(&frame, None);
                    assert_eq!(ok, frame.encoded_len() <= before, "{self:?} {frame:?}");
                    ok
                }
                Want::Stream { start, len, fin } => builder.put_stream(id, &(*start..*start + *len), *fin),
            };
            assert!(ok || builder.room() == before, "what does not fit takes nothing");
            taken.extend(ok.then_some(want));
        }
        if builder.is_empty() {
            assert!(builder.put(&Frame::Ping, None), "{self:?}");
            taken.push(&Want::Frame(1, 0));
        }
        builder.pad_to(self.pad);
        let key = packet_key(Suite::Aes128Gcm, &[3; 16], &[4; 12]);
        let header = header_key(Suite::Aes128Gcm, &[5; 16]);
        let len = builder.finish(pn, &key, &header, streams, None);
        assert!(len <= self.room && len >= self.pad.min(self.room).min(len));
        assert!(memory[..GUARD].iter().chain(&memory[GUARD + self.room..]).all(|b| *b == 0xa5), "{self:?}");
        self.read(&mut memory[GUARD..GUARD + len], &taken, &bytes, &key, &header);
    }

    fn read(&self, packet: &mut [u8], taken: &[&Want], bytes: &[u8], key: &PacketKey, mask: &HeaderKey) {
        let parsed = header::parse(packet, self.dcid).unwrap();
        assert_eq!((parsed.kind, parsed.packet_len), (self.kind, packet.len()));
        assert_eq!((parsed.dcid.len(), parsed.pn_offset), (self.dcid, self.header_len() - self.pn_len));
        let sample = *packet[parsed.pn_offset + 4..].first_chunk().unwrap();
        let (_, pn_len, truncated) = header::remove_protection(packet, parsed.pn_offset, mask.mask(&sample));
        let pn = 0x0102_0304_0506;
        assert_eq!((pn_len, truncated), (self.pn_len, pn & (u64::MAX >> (64 - 8 * pn_len))));
        let (aad, body) = packet.split_at_mut(parsed.pn_offset + pn_len);
        let mut head = [0; HEAD_AT + HEAD_LEN];
        let opened = key.open(pn, aad, body, &mut head).expect("authentic");
        let mut plain = vec![0; opened.len()];
        opened.decrypt_at(0, &mut plain);
        let mut rest = &plain[..];
        for want in taken {
            let (got, mut used) = Frame::decode(rest).unwrap();
            match want {
                // Runs of padding are read as one.
                Want::Frame(0, n) => used = frame(0, *n, bytes).encoded_len(),
                Want::Frame(kind, n) => assert_eq!(got, frame(*kind, *n, bytes)),
                Want::Stream { start, len, fin } => {
                    let Frame::Stream(header) = got else { panic!("{got:?}") };
                    assert_eq!((header.offset, header.len, header.fin), (*start, Some(*len), *fin));
                    let data = &rest[used..used + *len as usize];
                    assert!(data.iter().zip(*start..).all(|(b, offset)| *b == byte(offset)));
                    used += *len as usize;
                }
            }
            rest = &rest[used..];
        }
        assert!(rest.iter().all(|b| *b == 0), "padding");
    }
}

const KINDS: [PacketType; 3] = [PacketType::Initial, PacketType::Handshake, PacketType::Short];

proptest! {
    #[test]
    fn whatever_the_lengths_are_a_packet_is_right_or_refused(
        kind in 0..3usize, room in 0..=1500usize, dcid in 0..=20usize, scid in 0..=20usize,
        token in prop_oneof![0..100usize, 900..1200usize, 0..=1500usize],
        pn_len in 1..=4usize, pad in 0..1600usize,
        wants in proptest::collection::vec(want(), 0..24),
    ) {
        let (streams, id) = streams();
        Shape { kind: KINDS[kind], room, dcid, scid, token, pn_len, pad }.check(&wants, &streams, id);
    }
}

/// Every size of the slot, with the shortest and the longest headers.
#[test]
fn every_size_of_slot_is_right_or_refused() {
    let (streams, id) = streams();
    let wants = [Want::Frame(1, 0), Want::Stream { start: 7, len: 300, fin: false }, Want::Frame(16, 90)];
    for room in 0..=1500 {
        for kind in KINDS {
            for (cid, token, pn_len) in [(0, 0, 1), (8, 59, 2), (20, header::MAX_TOKEN, 4), (20, room, 3)] {
                let pad = if pn_len == 2 { 1200 } else { 0 };
                Shape { kind, room, dcid: cid, scid: cid, token, pn_len, pad }.check(&wants, &streams, id);
            }
        }
    }
}

#[test]
fn the_length_field_bounds_long_packets() {
    let mut slot = vec![0; 20_000];
    let head = Head::Long {
        fixed_bit: FIXED_BIT,
        version: Version::V1,
        kind: PacketType::Handshake,
        dcid: &[1; 8],
        scid: &[2; 8],
        token: &[],
    };
    let (key, mask) = (packet_key(Suite::Aes128Gcm, &[3; 16], &[4; 12]), header_key(Suite::Aes128Gcm, &[5; 16]));
    let outline = Outline::new(&mut slot, head, 0, 1).unwrap();
    let mut builder = PacketBuilder::new(&mut slot, outline, &mut Vec::new());
    assert!(builder.put(&Frame::Ping, None));
    builder.pad_to(usize::MAX);
    let (streams, _) = streams();
    let len = builder.finish(0, &key, &mask, &streams, None);
    let parsed = header::parse(&slot[..len], 8).unwrap();
    assert_eq!((parsed.packet_len, len - parsed.pn_offset), (len, MAX_LENGTH));
}

#[test]
fn frames_with_values_that_have_no_encoding_are_refused() {
    let mut slot = [0; 200];
    let head = Head::Short { bits: FIXED_BIT, dcid: &ConnectionId::new(&[1; 8]).unwrap() };
    let outline = Outline::new(&mut slot, head, 0, 1).unwrap();
    let mut builder = PacketBuilder::new(&mut slot, outline, &mut Vec::new());
    assert!(!builder.put(&Frame::MaxData(u64::MAX), None));
    assert!(!builder.put(&Frame::ApplicationClose { code: varint::MAX + 1, reason: b"" }, None));
    assert!(!builder.put_stream(StreamId(u64::MAX), &(0..0), true));
    assert!(builder.is_empty() && !builder.eliciting && builder.frames.is_empty());
}
