//! Peers without memory for what an urgent stream sends: its packets are dropped and never acknowledged, until something
//! of a lesser stream makes room. They get it, as little as it may be, and whatever else the engine has to say.

use gannet::base::Side;
use gannet::base::range_set::RangeSet;
use gannet::base::time::Duration;
use gannet::quic::{Dir, Priority, SendData, StreamId, TransportConfig};
use gannet::wire::quic::frame::{Frame, StreamHeader};

use super::peer::{DATA, Peer, Told, frames};
use super::world::{Host, against_server};

/// Bytes of each lesser stream. A packet in the middle is lost on the way.
const LESSER: u64 = 3500;

/// Bytes of the urgent stream: always more than the congestion window takes.
const URGENT: usize = 200_000;

fn uni(index: u64) -> StreamId {
    StreamId::new(Side::Server, Dir::Uni, index)
}

/// Opens a stream of this urgency, and sends so many bytes.
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
    /// What has arrived of each stream.
    got: Vec<RangeSet>,
    refused: u64,
    /// Refused packets with more in them than one STREAM frame, from the tenth on.
    mixed: u64,
    urgent: StreamId,
    /// Everything else of streams is refused as well.
    all: bool,
}

impl Full {
    /// `n` lesser streams lack a packet each when a more urgent one begins.
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

    /// Acknowledges what was accepted, and says something more.
    fn answer(&mut self, more: &[u8]) {
        let datagram = self.peer.packet(DATA, &[&self.peer.ack(DATA), more].concat());
        self.host.receive(datagram);
    }

    /// Whether the urgent stream is there.
    fn is_done(&self) -> bool {
        self.got[self.urgent.index() as usize].first() == Some(0..URGENT as u64)
    }

    /// Whether what the peer has of the lesser streams has no gaps.
    fn has_no_gaps(&self) -> bool {
        self.got[..self.urgent.index() as usize].iter().all(|got| got.len() == 1)
    }

    /// For 10 ms, what comes of the urgent stream is refused if `full`.
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

    /// It is full until `enough`; then everything comes to its end.
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

/// RESET_STREAM of a lesser stream, after which the peer may forget what it has of it. It must not go along with what is
/// refused.
#[test]
fn the_reset_of_a_lesser_stream_arrives_though_an_urgent_one_is_refused() {
    let mut full = Full::new(1);
    full.all = true;
    (0..300).for_each(|_| full.turn(true));
    let conn = full.host.conn.unwrap();
    full.host.endpoint.conn(conn).unwrap().reset(uni(0), 9).unwrap();
    full.play(|this| this.peer.resets.contains(&(uni(0), 9)));
}

/// Credit and acknowledgements for what the peer sends, which it may have to send before it has memory again.
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
    assert_eq!(full.mixed, 0, "what is refused goes alone");
    full.play(|_| true);
}
