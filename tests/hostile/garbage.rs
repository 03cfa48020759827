//! Random bytes and random frames, sent to engines in every state: they must not panic, and all memory must be
//! returned.

use gannet::base::Side;
use gannet::mem::PinnedBuf;
use gannet::quic::{DatagramConfig, DatagramOptions, Dir, Event, SendData, StreamId, TransportConfig};
use gannet::wire::quic::ConnectionId;
use gannet::wire::quic::frame::{Frame, StreamHeader};
use gannet::wire::quic::params::TransportParameters;
use proptest::prelude::*;

use super::peer::{DATA, HANDSHAKE, INITIAL, Peer, frames};
use super::world::{Host, against_client, against_server, client_addr, exchange, small, waiting_client};

/// State of the connection when the garbage arrives.
#[derive(Clone, Copy, Debug)]
enum State {
    NoConnection,
    ClientWaits,
    ServerWaits,
    ServerConnected,
    ClientConnected,
    Closing,
    Draining,
}

fn state() -> impl Strategy<Value = State> {
    prop_oneof![
        Just(State::NoConnection),
        Just(State::ClientWaits),
        Just(State::ServerWaits),
        Just(State::ServerConnected),
        Just(State::ClientConnected),
        Just(State::Closing),
        Just(State::Draining),
    ]
}

/// An engine in `state`, with the peer that brought it there.
fn world(state: State) -> (Host, Peer) {
    match state {
        State::NoConnection | State::ServerWaits => {
            let mut host = Host::server(small());
            let mut peer = Peer::client(client_addr(), 1, |params| params.to_bytes());
            if matches!(state, State::ServerWaits) {
                peer.out.drain(..).for_each(|datagram| host.receive(datagram));
                host.run().iter().for_each(|(_, datagram)| peer.receive(datagram));
            }
            (host, peer)
        }
        State::ClientWaits => waiting_client(small()),
        State::ServerConnected => against_server(small()),
        State::ClientConnected => against_client(small()),
        State::Closing => {
            let (mut host, peer) = against_server(small());
            let id = host.conn.unwrap();
            host.endpoint.conn(id).unwrap().close(1, "test");
            (host, peer)
        }
        State::Draining => {
            let (mut host, mut peer) = against_server(small());
            let datagram = peer.packet(DATA, &[0x1d, 0, 0]);
            host.receive(datagram);
            (host, peer)
        }
    }
}

/// One datagram.
#[derive(Clone, Debug)]
enum Garbage {
    Bytes(Vec<u8>),
    /// A short header with the right connection ID.
    Short(Vec<u8>),
    /// A long header with the right connection IDs.
    Long {
        first: u8,
        version: u32,
        rest: Vec<u8>,
    },
    /// A packet of the peer with some bytes changed, and truncated.
    Changed {
        space: usize,
        changes: Vec<(prop::sample::Index, u8)>,
        cut: prop::sample::Index,
    },
    /// A valid packet with these frames, if they are frames.
    Sealed {
        space: usize,
        payload: Vec<u8>,
    },
}

fn garbage() -> impl Strategy<Value = Garbage> {
    let bytes = |max: usize| prop::collection::vec(any::<u8>(), 0..max);
    prop_oneof![
        bytes(1500).prop_map(Garbage::Bytes),
        bytes(200).prop_map(Garbage::Short),
        (any::<u8>(), prop_oneof![Just(1u32), Just(0), any::<u32>()], bytes(1400))
            .prop_map(|(first, version, rest)| Garbage::Long { first, version, rest }),
        (
            0..3usize,
            prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
            any::<prop::sample::Index>()
        )
            .prop_map(|(space, changes, cut)| Garbage::Changed { space, changes, cut }),
        (0..3usize, bytes(60)).prop_map(|(space, payload)| Garbage::Sealed { space, payload }),
    ]
}

/// Spaces for which the peer has keys.
fn usable(peer: &Peer, space: usize) -> usize {
    match space {
        DATA if peer.is_connected() => DATA,
        HANDSHAKE | DATA if peer.has_handshake_keys() => HANDSHAKE,
        _ => INITIAL,
    }
}

impl Garbage {
    fn datagram(self, peer: &mut Peer) -> Vec<u8> {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Short(rest) => [&[0x40 | rest.len() as u8 & 0x3f][..], &peer.remote_cid, &rest].concat(),
            Self::Long { first, version, rest } => {
                let (dcid, scid) = (peer.remote_cid, peer.local_cid);
                let lengths = [dcid.len() as u8, scid.len() as u8];
                let version = version.to_be_bytes();
                [&[first | 0x80][..], &version, &lengths[..1], &dcid, &lengths[1..], &scid, &rest].concat()
            }
            Self::Changed { space, changes, cut } => {
                let mut datagram = peer.packet(usable(peer, space), &[1, 0, 0, 0, 0, 0, 1]);
                for (at, value) in changes {
                    let at = at.index(datagram.len());
                    datagram[at] = value;
                }
                let len = datagram.len();
                datagram.truncate(len - cut.index(len) / 8);
                datagram
            }
            Self::Sealed { space, payload } => peer.packet(usable(peer, space), &payload),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn nothing_that_arrives_brings_an_engine_down(
        state in state(),
        datagrams in prop::collection::vec(garbage(), 1..12),
    ) {
        let (mut host, mut peer) = world(state);
        for one in datagrams {
            let datagram = one.datagram(&mut peer);
            host.receive(datagram);
            host.run();
            host.now += std::time::Duration::from_millis(1);
        }
        host.wait(std::time::Duration::from_secs(120));
        prop_assert_eq!(host.endpoint.connection_count(), 0, "everything ends");
    }
}

fn stream_id() -> impl Strategy<Value = StreamId> {
    (any::<bool>(), any::<bool>(), 0u64..4).prop_map(|(server, uni, index)| {
        let side = if server { Side::Server } else { Side::Client };
        StreamId::new(side, if uni { Dir::Uni } else { Dir::Bidi }, index)
    })
}

/// Encoded frames that could be meant, with values around the limits.
fn frame() -> impl Strategy<Value = Vec<u8>> {
    let n = || prop_oneof![0u64..50, 3900u64..4100, 5900u64..6100, Just((1 << 62) - 1)];
    prop_oneof![
        6 => (stream_id(), n(), 0usize..200, any::<bool>()).prop_map(|(id, offset, len, fin)| {
            let offset = offset.min((1 << 62) - 1 - len as u64);
            let mut bytes = frames(&[Frame::Stream(StreamHeader { id, offset, len: Some(len as u64), fin })]);
            bytes.resize(bytes.len() + len, 0x77);
            bytes
        }),
        1 => (stream_id(), n()).prop_map(|(id, final_size)| frames(&[Frame::ResetStream { id, code: 1, final_size }])),
        1 => stream_id().prop_map(|id| frames(&[Frame::StopSending { id, code: 2 }])),
        1 => (stream_id(), n(), n()).prop_map(|(id, a, b)| {
            frames(&[Frame::ResetStreamAt { id, code: 1, final_size: a.max(b), reliable_size: a.min(b) }])
        }),
        1 => (0u64..6, n(), 900u64..20_000, 0u64..5).prop_map(|(seq, threshold, max_delay, reordering)| {
            frames(&[Frame::AckFrequency { seq, threshold, max_delay, reordering }])
        }),
        1 => Just(vec![0x1f]),
        2 => (0usize..110).prop_map(|len| {
            let mut bytes = frames(&[Frame::Datagram { len: Some(len as u64) }]);
            bytes.resize(bytes.len() + len, 0x78);
            bytes
        }),
        1 => n().prop_map(|n| frames(&[Frame::MaxData(n)])),
        1 => (stream_id(), n()).prop_map(|(id, max)| frames(&[Frame::MaxStreamData { id, max }])),
        1 => (stream_id(), n()).prop_map(|(id, limit)| frames(&[Frame::StreamDataBlocked { id, limit }])),
        1 => (any::<bool>(), 0u64..1 << 60).prop_map(|(bidi, max)| frames(&[Frame::MaxStreams { bidi, max }])),
        1 => (0u64..6, 0u64..6, 0u8..6).prop_map(|(seq, prior, cid)| {
            let cid = ConnectionId::new(&[cid; 8]).unwrap();
            let retire_prior_to = prior.min(seq);
            frames(&[Frame::NewConnectionId { seq, retire_prior_to, cid, reset_token: [9; 16] }])
        }),
        1 => (0u64..5).prop_map(|seq| frames(&[Frame::RetireConnectionId { seq }])),
        1 => (0u64..40, 0u64..5, 0u64..5).prop_map(|(largest, first, gap)| {
            let mut bytes = vec![0x02, largest as u8, 0, 1, first as u8, gap as u8, 0];
            if first + gap + 2 > largest {
                bytes[3] = 0;
                bytes.truncate(5);
                bytes[4] = bytes[4].min(largest as u8);
            }
            bytes
        }),
        1 => any::<[u8; 8]>().prop_map(|data| frames(&[Frame::PathChallenge(data)])),
        1 => (0u64..100, prop::collection::vec(any::<u8>(), 0..20))
            .prop_map(|(offset, data)| frames(&[Frame::Crypto { offset, data: &data }])),
        2 => Just(vec![0x01]),
    ]
}

/// Actions of the application in between.
#[derive(Clone, Debug)]
enum Act {
    Open(bool),
    Send(StreamId, usize, bool),
    Provide(StreamId, usize),
    Consume(StreamId, usize),
    Reset(StreamId),
    ResetAt(StreamId, u64),
    ProvideDatagram(usize),
    SendDatagram(usize),
    TakeDatagram,
    Stop(StreamId),
    Wait(u32),
    Packet(Vec<Vec<u8>>),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        1 => any::<bool>().prop_map(Act::Open),
        2 => (stream_id(), 0usize..9000, any::<bool>()).prop_map(|(id, n, fin)| Act::Send(id, n, fin)),
        1 => (stream_id(), 1usize..9000).prop_map(|(id, n)| Act::Provide(id, n)),
        1 => (stream_id(), 0usize..9000).prop_map(|(id, n)| Act::Consume(id, n)),
        1 => stream_id().prop_map(Act::Reset),
        1 => (stream_id(), 0u64..9000).prop_map(|(id, n)| Act::ResetAt(id, n)),
        1 => (1usize..200).prop_map(Act::ProvideDatagram),
        1 => (0usize..200).prop_map(Act::SendDatagram),
        1 => Just(Act::TakeDatagram),
        1 => stream_id().prop_map(Act::Stop),
        1 => (0u32..400_000).prop_map(Act::Wait),
        8 => prop::collection::vec(frame(), 1..6).prop_map(Act::Packet),
    ]
}

/// Applies `act` to the server; counts memory passed to it.
fn apply(host: &mut Host, peer: &mut Peer, act: Act, provided: &mut usize, sent: &mut usize) {
    static DATA_TO_SEND: [u8; 9000] = [0x55; 9000];
    if let Act::Packet(list) = &act {
        let datagram = peer.packet(DATA, &list.concat());
        host.receive(datagram);
    }
    if let Act::Wait(us) = &act {
        host.wait(std::time::Duration::from_micros(u64::from(*us)));
    }
    let Some(mut conn) = host.conn.and_then(|id| host.endpoint.conn(id)) else { return };
    match act {
        Act::Open(bidi) => {
            let _ = conn.open(if bidi { Dir::Bidi } else { Dir::Uni });
        }
        Act::Send(id, n, fin) => {
            if n > 0 && conn.send(id, SendData::Static(&DATA_TO_SEND[..n]), fin).is_ok() {
                *sent += 1;
            }
        }
        Act::Provide(id, n) => {
            let bufs = vec![PinnedBuf::unpinned(n), PinnedBuf::unpinned(1)];
            *provided += if conn.provide_receive_buffers(id, bufs).is_ok() { 2 } else { 0 };
        }
        Act::Consume(id, n) => {
            let len = conn.peek(id).map_or(0, <[u8]>::len);
            conn.consume(id, n.min(len));
        }
        Act::Reset(id) => {
            let _ = conn.reset(id, 4);
        }
        Act::ResetAt(id, n) => {
            let _ = conn.reset_at(id, 4, n);
        }
        Act::ProvideDatagram(n) => {
            *provided += usize::from(conn.provide_datagram_buffer(PinnedBuf::unpinned(n)).is_ok());
        }
        Act::SendDatagram(n) => {
            let data = SendData::Static(&DATA_TO_SEND[..n]);
            *sent += usize::from(conn.send_datagram(data, DatagramOptions::default()).is_ok());
        }
        Act::TakeDatagram => drop(conn.take_datagram()),
        Act::Stop(id) => {
            let _ = conn.stop_sending(id, 4);
        }
        Act::Wait(_) | Act::Packet(_) => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn any_frames_in_any_order(acts in prop::collection::vec(act(), 1..40)) {
        let datagrams = DatagramConfig { max_frame_size: 100, ..DatagramConfig::default() };
        let config = TransportConfig {
            max_idle_timeout: std::time::Duration::from_secs(20),
            datagrams: Some(datagrams),
            ..small()
        };
        let mut host = Host::server(config);
        let params = |params| TransportParameters {
            max_datagram_frame_size: 150,
            reset_stream_at: true,
            min_ack_delay: Some(1000),
            ..params
        };
        let mut peer = Peer::client(client_addr(), 1, |usual| params(usual).to_bytes());
        exchange(&mut host, &mut peer);
        host.events.clear();
        let (mut provided, mut sent) = (0, 0);
        for act in acts {
            apply(&mut host, &mut peer, act, &mut provided, &mut sent);
            host.run();
        }
        host.wait(std::time::Duration::from_secs(300));
        prop_assert_eq!(host.endpoint.connection_count(), 0, "everything ends");
        let count = |pick: fn(&Event) -> bool| host.events.iter().filter(|(_, event)| pick(event)).count();
        prop_assert_eq!(count(|e| matches!(e, Event::Closed { .. })), 1);
        prop_assert_eq!(count(|e| matches!(e, Event::Buffer { .. } | Event::DatagramBuffer { .. })), provided, "every buffer comes back once");
        prop_assert_eq!(count(|e| matches!(e, Event::SendDone { .. } | Event::DatagramDone { .. })), sent, "everything sent comes back once");
        let last = matches!(host.events.last(), Some((_, Event::Closed { .. })));
        prop_assert!(last, "nothing comes after Closed");
    }
}
