//! One stream of one engine, frame by frame: a scripted peer with real keys sends exactly the frames given by a list of
//! steps, and every event is compared with the model.

use std::collections::VecDeque;
use std::ops::Range;

use gannet::base::Side;
use gannet::base::rng::Rng;
use gannet::base::time::Duration;
use gannet::mem::PinnedBuf;
use gannet::quic::{CloseReason, Dir, Event, Notify, StreamId, TransportConfig};
use gannet::wire::quic::TransportError;
use gannet::wire::quic::frame::{Frame, StreamHeader};

use super::model::{Model, POISON, byte};
use super::peer::{DATA, Peer, frames};
use super::world::{Host, against_client, against_server};

/// Low-water mark of the rigs, in bytes.
pub const LOW: u64 = 10;

/// One thing that happens.
#[derive(Clone, Debug)]
pub enum Step {
    /// The application provides buffers of these sizes.
    Provide(Vec<usize>),
    /// The peer sends a STREAM frame: offsets, and whether the stream ends there.
    Data(Range<u64>, bool),
    /// The peer reports that it is blocked.
    Blocked,
    /// The application reads what the first buffer has so far.
    Peek,
}

/// How a stream ends prematurely.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The peer resets it.
    Reset,
    /// The application stops it.
    Stop,
    /// The application closes the connection.
    Close,
    /// The peer closes the connection.
    PeerClose,
    /// Nothing is received any more.
    Timeout,
    /// The application takes the engine apart.
    TakeApart,
}

impl End {
    pub const ALL: [Self; 6] = [Self::Reset, Self::Stop, Self::Close, Self::PeerClose, Self::Timeout, Self::TakeApart];

    /// Whether the connection survives it.
    pub fn spares_connection(self) -> bool {
        matches!(self, Self::Reset | Self::Stop)
    }
}

/// Which stream: by opener and direction, as the engine under test sees it.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    Own,
    Peers,
    PeersUni,
}

impl Kind {
    pub const ALL: [Self; 3] = [Self::Own, Self::Peers, Self::PeersUni];
}

/// One engine and its scripted peer.
pub struct Rig {
    pub host: Option<Host>,
    pub peer: Peer,
    next: [u64; 3],
    unacked: u32,
}

/// One stream on a rig.
pub struct Play<'a> {
    rig: &'a mut Rig,
    pub id: StreamId,
    pub model: Model,
    notify: Notify,
    progress: u64,
    /// Addresses of the buffers owned by the engine, in order.
    out: VecDeque<usize>,
    /// Space left and bytes wanted of the last `ReceiveBufferLow`, and the number of those events.
    pub low: Option<(u64, u64)>,
    pub lows: u32,
    pub finished: bool,
    reset: bool,
    closed: Option<CloseReason>,
}

impl Rig {
    /// An engine in the role of `side`.
    pub fn new(side: Side) -> Self {
        Self::with(side, TransportConfig::default())
    }

    /// The same with other settings; windows are closed until buffers are provided.
    pub fn with(side: Side, config: TransportConfig) -> Self {
        let config = TransportConfig {
            max_data: 1 << 40,
            stream_window_bidi_local: 0,
            stream_window_bidi_remote: 0,
            stream_window_uni: 0,
            max_streams_bidi: 1 << 40,
            max_streams_uni: 1 << 40,
            receive_low_water: LOW,
            ..config
        };
        let (host, peer) = if side == Side::Server { against_server(config) } else { against_client(config) };
        Self { host: Some(host), peer, next: [0; 3], unacked: 0 }
    }

    pub fn host(&mut self) -> &mut Host {
        self.host.as_mut().expect("not taken apart yet")
    }

    /// Starts a stream on which nothing was sent.
    pub fn stream(&mut self, kind: Kind, notify: Notify) -> Play<'_> {
        let side = self.host().side;
        let next = &mut self.next[kind as usize];
        let id = match kind {
            Kind::Own => StreamId::new(side, Dir::Bidi, *next),
            Kind::Peers => StreamId::new(side.peer(), Dir::Bidi, *next),
            Kind::PeersUni => StreamId::new(side.peer(), Dir::Uni, *next),
        };
        *next += 1;
        if matches!(kind, Kind::Own) {
            let conn = self.host().conn.unwrap();
            assert_eq!(self.host().endpoint.conn(conn).unwrap().open(Dir::Bidi), Ok(id));
        } else {
            self.say(&stream_frame(id, 0..0, false, 0));
        }
        self.run();
        let host = self.host();
        let opened = host.events.drain(..).any(|(_, e)| matches!(e, Event::StreamOpened { id: new } if new == id));
        assert_eq!(opened, !matches!(kind, Kind::Own));
        let conn = host.conn.unwrap();
        if notify != Notify::default() {
            host.endpoint.conn(conn).unwrap().set_notify(id, notify).unwrap();
        }
        Play {
            rig: self,
            id,
            model: Model::default(),
            notify,
            progress: 0,
            out: VecDeque::new(),
            low: None,
            lows: 0,
            finished: false,
            reset: false,
            closed: None,
        }
    }

    /// The peer sends a packet with `payload`.
    pub fn say(&mut self, payload: &[u8]) {
        let datagram = self.peer.packet(DATA, payload);
        self.host().receive(datagram);
    }

    /// Runs the engine; the peer reads its packets and acknowledges some of them.
    pub fn run(&mut self) {
        let Some(host) = &mut self.host else { return };
        for (_, datagram) in host.run() {
            self.peer.receive(&datagram);
            self.unacked += 1;
        }
        if self.unacked >= 8 {
            self.unacked = 0;
            let ack = self.peer.ack(DATA);
            self.say(&ack);
        }
    }
}

/// A STREAM frame with data.
pub fn stream_frame(id: StreamId, range: Range<u64>, fin: bool, copy: u8) -> Vec<u8> {
    let len = Some(range.end - range.start);
    let mut payload = frames(&[Frame::Stream(StreamHeader { id, offset: range.start, len, fin })]);
    payload.extend(range.map(|at| byte(at, copy)));
    payload
}

impl Play<'_> {
    fn conn(&mut self) -> gannet::quic::Conn<'_> {
        let host = self.rig.host();
        let conn = host.conn.unwrap();
        host.endpoint.conn(conn).expect("the connection is there")
    }

    /// Plays `steps`; with `net`, consecutive frames are shuffled and repeated.
    pub fn play(&mut self, steps: &[Step], net: Option<u64>) {
        let mut rng = net.map(Rng::from_u64);
        let mut rest = steps;
        while let Some(step) = rest.first() {
            if self.is_over() {
                return;
            }
            let run = rest.iter().take_while(|s| matches!(s, Step::Data(..))).count();
            match &mut rng {
                Some(rng) if run > 0 => {
                    self.shuffled(&rest[..run], rng);
                    rest = &rest[run..];
                }
                _ => {
                    self.step(step, 0);
                    rest = &rest[1..];
                }
            }
        }
    }

    /// Frames in random order, some repeatedly: the effects of loss, reordering and duplication.
    fn shuffled(&mut self, run: &[Step], rng: &mut Rng) {
        let mut order: Vec<(usize, u8)> = (0..run.len()).map(|i| (i, 0)).collect();
        for copy in 1..=2 {
            order.extend((0..run.len()).filter(|_| rng.chance(400)).map(|i| (i, copy)).collect::<Vec<_>>());
        }
        for i in (1..order.len()).rev() {
            order.swap(i, rng.below(i as u64 + 1) as usize);
        }
        for (i, copy) in order {
            if self.is_over() {
                return;
            }
            self.step(&run[i], copy);
        }
    }

    /// Whether the stream or its connection has ended.
    pub fn is_over(&self) -> bool {
        self.finished || self.reset || self.closed.is_some()
    }

    /// Plays one step and checks its effects.
    pub fn step(&mut self, step: &Step, copy: u8) {
        let id = self.id;
        match step {
            Step::Provide(sizes) => self.provide(sizes),
            Step::Data(range, fin) => return self.data(range.clone(), *fin, copy),
            Step::Blocked => {
                let limit = self.conn().stream_stats(id).unwrap().announced;
                self.rig.say(&frames(&[Frame::StreamDataBlocked { id, limit }]));
            }
            Step::Peek => {
                let first = self.model.out.first().copied();
                let bytes = self.conn().peek(id).unwrap_or_default().to_vec();
                let valid = first.map_or(0, |(at, len)| (self.model.contiguous() - at).min(len as u64));
                assert_eq!(bytes.len() as u64, valid);
            }
        }
        self.settle();
    }

    fn provide(&mut self, sizes: &[usize]) {
        let bufs: Vec<_> = sizes
            .iter()
            .map(|len| {
                let mut buf = PinnedBuf::unpinned(*len);
                buf.fill(POISON);
                self.out.push_back(buf.as_ptr() as usize);
                buf
            })
            .collect();
        let id = self.id;
        match self.conn().provide_receive_buffers(id, bufs) {
            Ok(()) => self.model.provide(sizes),
            Err(error) => {
                assert!(self.model.size.is_some_and(|size| size <= self.model.provided), "{error}");
                assert_eq!(error.bufs.len(), sizes.len());
                self.out.truncate(self.out.len() - sizes.len());
            }
        }
    }

    fn data(&mut self, range: Range<u64>, fin: bool, copy: u8) {
        self.rig.say(&stream_frame(self.id, range.clone(), fin, copy));
        let expected = self.model.data(&range, fin, copy);
        self.settle();
        let error = self.closed.as_ref().map(|reason| match reason {
            CloseReason::Transport { code, .. } => TransportError(*code),
            other => panic!("closed by {other:?}"),
        });
        assert_eq!(error, expected.err(), "{range:?} {fin}, provided {}", self.model.provided);
    }

    /// Polls the events and checks them.
    fn settle(&mut self) {
        self.rig.run();
        let Some(host) = &mut self.rig.host else { return };
        let events: Vec<_> = host.events.drain(..).map(|(_, event)| event).collect();
        events.into_iter().for_each(|event| self.on_event(event));
        self.check();
    }

    fn on_event(&mut self, event: Event) {
        assert!(self.closed.is_none(), "an event after Closed: {event:?}");
        match event {
            Event::Progress { id, contiguous, .. } => {
                assert_eq!((id, self.notify), (self.id, Notify::Progress));
                assert!(contiguous > self.progress);
                self.progress = contiguous;
            }
            Event::Buffer { id, buf, offset, valid, .. } => {
                assert_eq!(id, self.id);
                assert_eq!(self.out.pop_front(), Some(buf.as_ptr() as usize), "in order, each once");
                let expected = self.model.out.remove(0);
                assert_eq!((offset, buf.len()), expected);
                self.model.check(&buf, offset, valid);
            }
            Event::Finished { id, size, placement, .. } => {
                assert_eq!((id, Some(size)), (self.id, self.model.size));
                assert!(self.out.is_empty(), "buffers come back before the end");
                assert_eq!((placement.direct + placement.staged, placement.copied), (size, 0));
                self.finished = true;
            }
            Event::ReceiveBufferLow { id, provided_left, wanted, .. } => {
                assert_eq!(id, self.id);
                assert_eq!(provided_left, self.model.provided.saturating_sub(self.model.high));
                self.low = Some((provided_left, wanted));
                self.lows += 1;
            }
            Event::Reset { id, code, .. } => {
                assert_eq!((id, code), (self.id, 9));
                self.reset = true;
            }
            Event::Closed { reason } => self.closed = Some(reason),
            other => panic!("unexpected {other:?}"),
        }
    }

    /// Checks the state between events.
    fn check(&mut self) {
        if self.is_over() {
            assert!(self.out.is_empty(), "{} buffers did not come back", self.out.len());
            return;
        }
        assert!(!self.model.is_complete(), "the end was not told");
        let contiguous = self.model.contiguous();
        if self.notify == Notify::Progress {
            assert_eq!(self.progress, contiguous, "bytes that were not told of");
            let full = self.model.out.first().is_some_and(|(at, len)| at + *len as u64 <= contiguous);
            assert!(!full, "a full buffer did not come back");
        }
        let (provided, size) = (self.model.provided, self.model.size);
        let id = self.id;
        let stats = self.conn().stream_stats(id).unwrap();
        assert_eq!((stats.contiguous, stats.provided, stats.size), (contiguous, provided, size));
        assert!(stats.announced == self.model.limit() || size.is_some(), "the window follows what is provided");
        let left = provided.saturating_sub(self.model.high);
        if size.is_none_or(|size| size > provided) && provided > 0 && left < LOW.min((provided / 2).max(1)) {
            assert!(self.low.is_some(), "{left} bytes left, and the application was not told");
        }
    }

    /// Ends the stream; all memory has to be returned.
    pub fn end(&mut self, end: End) {
        let id = self.id;
        match end {
            _ if self.is_over() => {}
            End::Reset => {
                let final_size = self.model.size.unwrap_or(self.model.high);
                self.rig.say(&frames(&[Frame::ResetStream { id, code: 9, final_size }]));
            }
            End::Stop => {
                assert_eq!(self.conn().stop_sending(id, 7), Ok(()));
                self.reset = true;
            }
            End::Close => {
                self.conn().close(3, "enough");
            }
            End::PeerClose => self.rig.say(&frames(&[Frame::ApplicationClose { code: 4, reason: b"" }])),
            End::Timeout => drop(self.rig.host().wait(Duration::from_secs(60))),
            End::TakeApart => {
                let host = self.rig.host.take().expect("not taken apart yet");
                host.endpoint.into_events().for_each(|(_, event)| self.on_event(event));
                self.check();
            }
        }
        self.settle();
        assert!(self.is_over() && self.out.is_empty(), "{} buffers did not come back", self.out.len());
        match (end, &self.closed) {
            (End::Close, reason) => assert!(matches!(reason, None | Some(CloseReason::Local { code: 3 }))),
            (End::Timeout, reason) => assert!(matches!(reason, None | Some(CloseReason::IdleTimeout))),
            _ => {}
        }
    }
}
