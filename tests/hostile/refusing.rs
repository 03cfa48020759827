//! Peers without memory for an urgent stream's data: its packets are dropped and never acknowledged until data of a
//! less urgent stream frees memory. They must get that data, and everything else the engine has to send.

use gannet::base::Side;
use gannet::base::range_set::RangeSet;
use gannet::base::time::Duration;
use gannet::quic::{Dir, Priority, SendData, StreamId, TransportConfig};
use gannet::wire::quic::frame::{Frame, StreamHeader};

use super::peer::{DATA, Peer, Told, frames};
use super::world::{Host, against_server};

/// Number of bytes of each less urgent stream. A packet in the middle is lost.
const LESSER: u64 = 3500;

/// Number of bytes of the urgent stream, always more than the congestion window.
const URGENT: usize = 200_000;

fn uni(index: u64) -> StreamId {
    StreamId::new(Side::Server, Dir::Uni, index)
}

/// Opens a stream of this urgency and sends `len` bytes.
fn send(host: &mut Host, urgency: u8, len: usize) -> StreamId {
    let conn = host.conn.unwrap();
    let mut conn = host.endpoint.conn(conn).unwrap();
    let id = conn.open(Dir::Uni).unwrap();
    conn.set_priority(id, Priority { urgency, incremental: false }).unwrap();
    conn.send(id, SendData::Bytes(vec![7; len].into()), true).unwrap();
    id
}

/// A client whose memory is full.
struct Full {
    host: Host,
    peer: Peer,
    /// Ranges received of each stream.
    got: Vec<RangeSet>,
    refused: u64,
    /// Number of refused packets with more than one STREAM frame, from the tenth on.
    mixed: u64,
    urgent: StreamId,
    /// Whether everything else of streams is refused as well.
    all: bool,
}

impl Full {
    /// `n` less urgent streams lack a packet each when a more urgent one begins.
    fn new(n: u64) -> Self {
        let config =
            TransportConfig { stream_window_uni: 1000, max_idle_timeout: Duration::ZERO, ..TransportConfig::default() };
        let (mut host, mut peer) = against_server(config);
        let mut got = vec![RangeSet::default(); n as usize + 1];
        host.wait(Duration::from_millis(100)).iter().for_each(|(_, datagram)| peer.receive(datagram));
        for index in 0..n {
            assert_eq!(send(&mut host, 5, LESSER as usize), uni(index));
            for (at, (_, datagram)) in host.wait(Duration::from_millis(5)).iter().enumerate() {
                if at != 1 {
                    peer.receive(datagram);
                }
            }
        }
        for (_, told) in &peer.told {
            if let Told::Stream(id, at, len, _) = *told {
                got[id.index() as usize].insert(at..at + len);
            }
        }
        assert!(got[..n as usize].iter().all(|got| got.len() == 2), "each has a gap");
        let urgent = send(&mut host, 0, URGENT);
        let mut this = Self { host, peer, got, refused: 0, mixed: 0, urgent, all: false };
        this.answer(&[]);
        this
    }

    /// Acknowledges what was accepted, and sends something more.
    fn answer(&mut self, more: &[u8]) {
        let datagram = self.peer.packet(DATA, &[&self.peer.ack(DATA), more].concat());
        self.host.receive(datagram);
    }

    /// Whether the urgent stream is complete.
    fn is_done(&self) -> bool {
        self.got[self.urgent.index() as usize].first() == Some(0..URGENT as u64)
    }

    /// Whether the received data of the less urgent streams has no gaps.
    fn has_no_gaps(&self) -> bool {
        self.got[..self.urgent.index() as usize].iter().all(|got| got.len() == 1)
    }

    /// For 10 ms, data of the urgent stream is refused if `full`.
    fn turn(&mut self, full: bool) {
        let mut acks = false;
        for (_, datagram) in self.host.wait(Duration::from_millis(10)) {
            let (before, closed) = (self.peer.told.len(), (self.peer.resets.len(), self.peer.ack_delays.len()));
            self.peer.receive(&datagram);
            let news = &self.peer.told[before..];
            let refuses = |told| matches!(told, Told::Stream(id, ..) if self.all || id == self.urgent);
            if full && news.iter().any(|(_, told)| refuses(*told)) {
                let more = news.len() > 1 || closed != (self.peer.resets.len(), self.peer.ack_delays.len());
                self.refused += 1;
                self.mixed += u64::from(more && self.refused >= 10);
                self.peer.told.truncate(before);
                self.peer.resets.truncate(closed.0);
                self.peer.refuse();
                continue;
            }
            acks = true;
            for (_, told) in news {
                if let Told::Stream(id, at, len, _) = *told {
                    self.got[id.index() as usize].insert(at..at + len);
                }
            }
        }
        if acks {
            self.answer(&[]);
        }
    }

    /// The memory is full until `enough`; then everything finishes.
    fn play(mut self, enough: impl Fn(&Self) -> bool) -> Self {
        let mut turns = 0;
        while !enough(&self) {
            turns += 1;
            assert!(turns < 6_000, "a minute, and {} packets were refused: {:?}", self.refused, self.got);
            self.turn(true);
        }
        while !self.is_done() {
            turns += 1;
            assert!(turns < 12_000, "two minutes");
            self.turn(false);
        }
        assert!(self.host.closed().is_none());
        self
    }
}

/// Fails without turns (`quic::stream::turns`): the gaps are never filled.
#[test]
fn the_gaps_of_lesser_streams_are_filled_though_an_urgent_one_is_refused() {
    for n in [1, 3] {
        let full = Full::new(n).play(Full::has_no_gaps);
        assert!(full.refused >= 3 && full.refused < 100, "{} packets were refused", full.refused);
    }
}

/// RESET_STREAM of a less urgent stream, after which the peer may free its data. It must not be in the same packet as
/// refused data.
#[test]
fn the_reset_of_a_lesser_stream_arrives_though_an_urgent_one_is_refused() {
    let mut full = Full::new(1);
    full.all = true;
    (0..300).for_each(|_| full.turn(true));
    let conn = full.host.conn.unwrap();
    full.host.endpoint.conn(conn).unwrap().reset(uni(0), 9).unwrap();
    full.play(|this| this.peer.resets.contains(&(uni(0), 9)));
}

/// Credit and acknowledgements for the peer's data, which it may have to send before it has memory again.
#[test]
fn what_the_peer_sends_goes_on_though_an_urgent_stream_is_refused() {
    let mut full = Full::new(1);
    (0..300).for_each(|_| full.turn(true));
    let id = StreamId::new(Side::Client, Dir::Uni, 0);
    let mut sent = 0;
    for n in 0..20 {
        let limit = full.peer.stream_limit(id).max(1000);
        assert!(limit - sent >= 500, "no credit after {sent} bytes");
        let mut payload = frames(&[Frame::Stream(StreamHeader { id, offset: sent, len: Some(500), fin: n == 19 })]);
        payload.resize(payload.len() + 500, 7);
        sent += 500;
        full.answer(&payload);
        let conn = full.host.conn.unwrap();
        let mut conn = full.host.endpoint.conn(conn).unwrap();
        assert_eq!(std::iter::from_fn(|| conn.take(id)).map(|chunk| chunk.len()).sum::<usize>(), 500);
        (0..300).for_each(|_| full.turn(true));
    }
    assert_eq!(full.mixed, 0, "refused data is sent alone");
    full.play(|_| true);
}
