//! Datagrams of a simulated application. Each is tagged with its number, from which its length and contents follow.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use crate::base::Side;
use crate::base::time::Instant;
use crate::mem::PinnedBuf;
use crate::quic::{
    Conn, DatagramErrorKind, DatagramId, DatagramOptions, DatagramOutcome, Event, ProvideErrorKind, ReceivedDatagram,
    SendData,
};
use crate::sim::plan::DatagramPlan;

/// Length of buffers provided for datagrams.
const BUF: usize = 1500;

/// What was reported of a datagram that was queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Queued,
    Sent,
    Acked,
    Lost,
    LostAndAcked,
    Dropped,
}

/// The datagrams of one side.
#[derive(Debug)]
pub struct Datagrams {
    side: Side,
    plan: Option<DatagramPlan>,
    /// The next datagram to send.
    next: u32,
    /// Whether no more can be queued at present.
    full: bool,
    /// Whether the connection is there.
    connected: bool,
    fates: BTreeMap<DatagramId, Fate>,
    came: BTreeSet<u32>,
    posted: HashSet<usize>,
    /// Whether some may have come by a connection of which the application wants to know nothing.
    pub astray: bool,
    /// Datagrams that are kept until the next turn.
    pub kept: Vec<ReceivedDatagram>,
}

/// Description of an error.
pub type Failure = String;

/// Fails with a text unless a condition holds.
macro_rules! ensure {
    ($cond:expr, $($text:tt)*) => {
        if !$cond {
            return Err(format!($($text)*));
        }
    };
}
pub(super) use ensure;

impl Datagrams {
    /// Those of `side`.
    pub fn new(side: Side, plan: Option<DatagramPlan>) -> Self {
        Self {
            side,
            plan,
            next: 0,
            full: false,
            connected: false,
            fates: BTreeMap::new(),
            came: BTreeSet::new(),
            posted: HashSet::new(),
            astray: false,
            kept: Vec::new(),
        }
    }

    /// Whether all were sent and it is known what became of them.
    pub fn is_done(&self) -> bool {
        let Some(plan) = self.plan else { return true };
        let all = plan.accept[self.side.peer() as usize] == 0 || self.next >= plan.count[self.side as usize];
        all && !self.fates.values().any(|fate| matches!(fate, Fate::Queued | Fate::Sent))
    }

    /// Number of buffers and of datagrams with the engine.
    pub fn held(&self) -> (usize, usize) {
        (self.posted.len(), self.fates.values().filter(|fate| **fate == Fate::Queued).count())
    }

    /// Number of those acknowledged, and of those received.
    pub fn counts(&self) -> (usize, usize) {
        let acked = self.fates.values().filter(|fate| matches!(fate, Fate::Acked | Fate::LostAndAcked)).count();
        (acked, self.came.len())
    }

    /// Starts once the connection is there.
    pub fn start(&mut self, now: Instant, conn: &mut Conn<'_>) -> Result<(), Failure> {
        self.connected = true;
        let Some(plan) = self.plan else { return Ok(()) };
        for _ in 0..plan.buffers[self.side as usize] {
            self.provide(conn)?;
        }
        self.pump(now, conn)
    }

    fn provide(&mut self, conn: &mut Conn<'_>) -> Result<(), Failure> {
        let buf = PinnedBuf::unpinned(BUF);
        let at = buf.as_ptr() as usize;
        match conn.provide_datagram_buffer(buf).map_err(|refused| (refused.kind, refused.bufs.len())) {
            Ok(()) => ensure!(self.posted.insert(at), "the same memory twice"),
            Err((ProvideErrorKind::Closed, 1)) => {}
            Err((ProvideErrorKind::NoDatagrams, 1)) if self.accepts() == 0 => {}
            Err(why) => return Err(format!("datagrams: provide: {why:?}")),
        }
        Ok(())
    }

    fn accepts(&self) -> u16 {
        self.plan.map_or(0, |plan| plan.accept[self.side as usize])
    }

    /// Queues a few more.
    pub fn pump(&mut self, now: Instant, conn: &mut Conn<'_>) -> Result<(), Failure> {
        let Some(plan) = self.plan.filter(|_| self.connected) else { return Ok(()) };
        let mut queued = 0;
        while queued < 3 && !self.full && self.next < plan.count[self.side as usize] {
            let data = plan.contents(self.side, self.next);
            let len = data.len();
            let deadline = plan.within.filter(|_| self.next.is_multiple_of(3)).map(|within| now + within);
            let options = DatagramOptions { urgency: (self.next % 4) as u8 / 2, deadline };
            let limit = conn.max_datagram_len();
            match conn.send_datagram(SendData::Bytes(data.into()), options) {
                Ok(id) => {
                    ensure!(limit.is_some_and(|limit| len <= limit), "{len} bytes are too many for {limit:?}");
                    ensure!(self.fates.insert(id, Fate::Queued).is_none(), "{id:?} twice");
                    queued += 1;
                }
                Err(refused) => {
                    ensure!(refused.data.len() == len, "the datagram did not come back");
                    match refused.kind {
                        DatagramErrorKind::TooLarge { max } => {
                            ensure!(len > max && limit == Some(max), "{len} > {max}")
                        }
                        DatagramErrorKind::Full => {
                            self.full = true;
                            return Ok(());
                        }
                        DatagramErrorKind::Closed => return Ok(()),
                        DatagramErrorKind::Unsupported => {
                            let peer = plan.accept[self.side.peer() as usize];
                            ensure!(peer < 2, "the peer accepts {peer}");
                            self.next = plan.count[self.side as usize];
                            return Ok(());
                        }
                    }
                }
            }
            self.next += 1;
        }
        Ok(())
    }

    /// Handles an event about datagrams.
    pub fn on_event(&mut self, now: Instant, conn: &mut Conn<'_>, event: Event) -> Result<(), Failure> {
        match event {
            Event::DatagramsReadable => {
                while let Some(datagram) = conn.take_datagram() {
                    self.on_datagram(&datagram)?;
                    self.kept.push(datagram);
                }
            }
            Event::DatagramBuffer { buf, received, .. } => {
                ensure!(self.posted.remove(&(buf.as_ptr() as usize)), "a datagram's buffer that was not out");
                if let Some(len) = received {
                    self.on_datagram(&buf[..len])?;
                    self.provide(conn)?;
                }
            }
            Event::DatagramSpaceLow { left } => ensure!(self.posted.len() >= left, "{left} buffers are left"),
            Event::DatagramDone { id, data, outcome } => {
                let plan = self.plan.ok_or("nothing was sent")?;
                let expected = match outcome {
                    DatagramOutcome::Expired => plan.within.is_some(),
                    DatagramOutcome::Overflow => plan.oldest[1],
                    DatagramOutcome::Sent | DatagramOutcome::TooLarge | DatagramOutcome::Closed => true,
                };
                ensure!(expected && data.len() >= 4, "{id:?}: {outcome:?}");
                let sent = if outcome == DatagramOutcome::Sent { Fate::Sent } else { Fate::Dropped };
                self.change(id, &[(Fate::Queued, sent)])?;
            }
            Event::DatagramAcked { id } => {
                self.change(id, &[(Fate::Sent, Fate::Acked), (Fate::Lost, Fate::LostAndAcked)])?;
            }
            Event::DatagramLost { id } => self.change(id, &[(Fate::Sent, Fate::Lost)])?,
            Event::DatagramsWritable => self.full = false,
            other => return Err(format!("not about datagrams: {other:?}")),
        }
        self.pump(now, conn)
    }

    fn change(&mut self, id: DatagramId, steps: &[(Fate, Fate)]) -> Result<(), Failure> {
        let fate = self.fates.get_mut(&id).ok_or("a datagram that was not queued")?;
        let step = steps.iter().find(|(from, _)| from == fate);
        *fate = step.ok_or_else(|| format!("{id:?} was {fate:?} before {steps:?}"))?.1;
        Ok(())
    }

    fn on_datagram(&mut self, data: &[u8]) -> Result<(), Failure> {
        let n = data.first_chunk().map(|n| u32::from_be_bytes(*n)).ok_or("a datagram without its number")?;
        let (from, plan) = (self.side.peer(), self.plan.ok_or("no datagrams are planned")?);
        ensure!(n < plan.count[from as usize] && data == plan.contents(from, n), "datagram {n} is damaged: {data:?}");
        ensure!(data.len() + 2 <= usize::from(self.accepts()), "datagram {n} of {} bytes", data.len());
        ensure!(self.came.insert(n), "datagram {n} came twice");
        Ok(())
    }
}
