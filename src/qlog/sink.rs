//! The part in the poll loops: copies events to batches and passes these on, without ever waiting.

use std::collections::HashSet;
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crossbeam::channel::{Receiver, Sender, bounded, unbounded};

use super::QlogConfig;
use crate::base::aside::Aside;
use crate::base::time::{Duration, Instant};
use crate::quic::ConnId;
use crate::quic::trace::{TraceEvent, TraceSink, TraceStart};

/// Number of batches of one core: what the thread that writes may be behind.
const BATCHES: usize = 64;

/// Maximum number of batches of all cores in the queue.
const QUEUE: usize = 1024;

/// Sizes at which a batch is passed on, in records and bytes. A single packet may add 8 KiB more.
const RECORDS: usize = 512;
const BYTES: usize = 48 << 10;

/// Time after which a batch is passed on, even if there is room in it.
const AGE: Duration = Duration::from_millis(50);

/// How long the end waits for the thread that writes.
const PATIENCE: Duration = Duration::from_secs(2);

/// What happened to a traced connection.
#[derive(Debug)]
pub(super) enum What {
    /// Its trace begins.
    Begin(TraceStart),
    /// An event.
    Event(TraceEvent),
    /// Its trace ends.
    End,
    /// So many records of this core are missing.
    Missing(u64),
}

#[derive(Debug)]
pub(super) struct Record {
    pub(super) at: Instant,
    pub(super) conn: ConnId,
    pub(super) what: What,
    /// Where its bytes end in those of the batch.
    pub(super) end: usize,
}

/// Records in order.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) records: Vec<Record>,
    pub(super) bytes: Vec<u8>,
    /// Where it returns to.
    pub(super) home: Sender<Batch>,
    /// Where traces are reported for which no more is wanted.
    pub(super) full: Sender<ConnId>,
    /// The number of the sink.
    pub(super) sink: usize,
}

impl Batch {
    fn push(&mut self, at: Instant, conn: ConnId, what: What, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        self.records.push(Record { at, conn, what, end: self.bytes.len() });
    }

    /// Empties it, for use by its sink.
    pub(super) fn go_home(mut self) {
        self.records.clear();
        self.bytes.clear();
        let home = self.home.clone();
        // It is dropped if the sink is gone.
        let _ = home.try_send(self);
    }
}

/// What is counted.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) files: AtomicU64,
    pub(super) events: AtomicU64,
    pub(super) missing: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) failed: AtomicU64,
    /// Connections that are traced now.
    pub(super) open: AtomicUsize,
}

impl Counters {
    pub(super) fn all(&self) -> [(&'static str, u64); 5] {
        [
            ("qlog_files", &self.files),
            ("qlog_events", &self.events),
            ("qlog_events_missing", &self.missing),
            ("qlog_refused", &self.refused),
            ("qlog_failed", &self.failed),
        ]
        .map(|(name, count)| (name, count.load(Ordering::Relaxed)))
    }
}

/// Adds to a counter.
pub(super) fn count(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}

/// Who writes a batch.
enum Hand {
    Aside(Aside<Batch>),
    Direct(Mutex<Box<dyn FnMut(Batch) + Send>>),
}

/// The way from all sinks to whoever writes.
pub(super) struct Line {
    config: QlogConfig,
    pub(super) counters: Arc<Counters>,
    hand: Hand,
    /// Connections seen, to choose those that are traced; traces begun; sinks made.
    seen: AtomicU64,
    begun: AtomicU64,
    sinks: AtomicUsize,
}

impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Line").field("config", &self.config).field("counters", &self.counters).finish_non_exhaustive()
    }
}

impl Line {
    /// `write` runs on a thread of its own.
    pub(super) fn aside(
        config: QlogConfig,
        counters: Arc<Counters>,
        write: impl FnMut(Batch) + Send + 'static,
    ) -> io::Result<Self> {
        let aside = Aside::start("gannet-qlog", QUEUE, write)?;
        Ok(Self::new(config, counters, Hand::Aside(aside)))
    }

    /// `write` runs where events are recorded.
    pub(super) fn direct(
        config: QlogConfig,
        counters: Arc<Counters>,
        write: impl FnMut(Batch) + Send + 'static,
    ) -> Self {
        Self::new(config, counters, Hand::Direct(Mutex::new(Box::new(write))))
    }

    fn new(config: QlogConfig, counters: Arc<Counters>, hand: Hand) -> Self {
        let [seen, begun] = [0, 0].map(AtomicU64::new);
        Self { config, counters, hand, seen, begun, sinks: AtomicUsize::new(0) }
    }

    /// Passes a batch on; returns it if there is no room.
    fn pass(&self, batch: Batch) -> Result<(), Batch> {
        match &self.hand {
            Hand::Aside(aside) => aside.offer(batch),
            Hand::Direct(write) => {
                (*write.lock().unwrap_or_else(PoisonError::into_inner))(batch);
                Ok(())
            }
        }
    }

    /// Whether another connection is traced.
    fn admits(&self) -> bool {
        let nth = self.seen.fetch_add(1, Ordering::Relaxed);
        if !nth.is_multiple_of(self.config.every.max(1)) {
            return false;
        }
        let open = self.counters.open.fetch_add(1, Ordering::Relaxed);
        if open < self.config.open && self.begun.fetch_add(1, Ordering::Relaxed) < self.config.files {
            return true;
        }
        self.counters.open.fetch_sub(1, Ordering::Relaxed);
        count(&self.counters.refused, 1);
        false
    }
}

impl Line {
    /// Waits until everything is written, but not for long. Returns whether it was.
    pub(super) fn finish(&self) -> bool {
        match &self.hand {
            Hand::Aside(aside) => aside.finish(PATIENCE),
            Hand::Direct(_) => true,
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if !self.finish() {
            tracing::warn!(dir = %self.config.dir.display(), "qlog files are incomplete: the disk is too slow");
        }
    }
}

/// Takes the events of one core.
#[derive(Debug)]
pub(super) struct Sink {
    line: Arc<Line>,
    number: usize,
    batch: Option<Batch>,
    /// When the first record of the batch was made.
    since: Instant,
    /// Batches that came back, and how to send them back.
    spare: (Sender<Batch>, Receiver<Batch>),
    /// Number of batches that exist.
    made: usize,
    /// Records for which there was no batch, and ends among them.
    missing: u64,
    ends: Vec<ConnId>,
    /// Traces that have not ended.
    open: HashSet<ConnId>,
    /// Reports of traces for which no more is wanted, and those traces.
    reports: (Sender<ConnId>, Receiver<ConnId>),
    full: Vec<ConnId>,
    /// The latest time that was passed in.
    now: Instant,
}

impl Sink {
    pub(super) fn new(line: Arc<Line>) -> Self {
        let number = line.sinks.fetch_add(1, Ordering::Relaxed);
        Self {
            line,
            number,
            batch: None,
            since: Instant::ZERO,
            spare: bounded(BATCHES),
            made: 0,
            missing: 0,
            ends: Vec::new(),
            open: HashSet::new(),
            // At most one for each traced connection.
            reports: unbounded(),
            full: Vec::new(),
            now: Instant::ZERO,
        }
    }

    /// The batch to add to; `None` if whoever writes is too far behind.
    fn batch(&mut self, now: Instant) -> Option<&mut Batch> {
        if self.batch.is_none() {
            let mut batch = self.spare.1.try_recv().ok().or_else(|| self.make())?;
            if self.missing > 0 {
                batch.push(now, ConnId::default(), What::Missing(std::mem::take(&mut self.missing)), &[]);
            }
            for conn in self.ends.drain(..) {
                batch.push(now, conn, What::End, &[]);
            }
            self.since = now;
            self.batch = Some(batch);
        }
        self.batch.as_mut()
    }

    fn make(&mut self) -> Option<Batch> {
        if self.made == BATCHES {
            return None;
        }
        self.made += 1;
        Some(Batch {
            records: Vec::with_capacity(RECORDS),
            bytes: Vec::with_capacity(BYTES + (16 << 10)),
            home: self.spare.0.clone(),
            full: self.reports.0.clone(),
            sink: self.number,
        })
    }

    /// Adds a record. False if there is no room.
    fn add(&mut self, now: Instant, conn: ConnId, what: What, bytes: &[u8]) -> bool {
        self.now = self.now.max(now);
        let Some(batch) = self.batch(now) else {
            self.missing += 1;
            count(&self.line.counters.missing, 1);
            return false;
        };
        batch.push(now, conn, what, bytes);
        if batch.records.len() >= RECORDS || batch.bytes.len() >= BYTES || now.saturating_since(self.since) >= AGE {
            self.submit();
        }
        true
    }

    /// Passes the batch on.
    fn submit(&mut self) {
        if let Some(batch) = self.batch.take()
            && let Err(batch) = self.line.pass(batch)
        {
            // Its records are lost, but neither are the ends of traces nor is the batch.
            self.missing += batch.records.len() as u64;
            count(&self.line.counters.missing, batch.records.len() as u64);
            for record in &batch.records {
                match record.what {
                    What::End => self.ends.push(record.conn),
                    What::Missing(n) => self.missing += n,
                    What::Begin(_) | What::Event(_) => {}
                }
            }
            batch.go_home();
        }
        self.full.extend(self.reports.1.try_iter().filter(|conn| self.open.contains(conn)));
    }
}

impl TraceSink for Sink {
    fn begin(&mut self, now: Instant, start: &TraceStart) -> bool {
        if !self.line.admits() {
            return false;
        }
        let begun = self.add(now, start.conn, What::Begin(*start), &[]);
        if begun {
            self.open.insert(start.conn);
        } else {
            self.line.counters.open.fetch_sub(1, Ordering::Relaxed);
        }
        begun
    }

    fn record(&mut self, now: Instant, conn: ConnId, event: TraceEvent, bytes: &[u8]) {
        self.add(now, conn, What::Event(event), bytes);
    }

    fn is_full(&self, conn: ConnId) -> bool {
        self.full.contains(&conn)
    }

    fn end(&mut self, now: Instant, conn: ConnId) {
        if !self.open.remove(&conn) {
            return;
        }
        self.full.retain(|other| *other != conn);
        self.line.counters.open.fetch_sub(1, Ordering::Relaxed);
        if !self.add(now, conn, What::End, &[]) {
            self.ends.push(conn);
        }
    }

    fn rest(&mut self, now: Instant) {
        if self.batch.is_some() && now.saturating_since(self.since) >= AGE {
            self.submit();
        }
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        let now = self.now;
        for conn in std::mem::take(&mut self.open) {
            self.line.counters.open.fetch_sub(1, Ordering::Relaxed);
            if !self.add(now, conn, What::End, &[]) {
                self.ends.push(conn);
            }
        }
        self.submit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Side;
    use crate::wire::quic::ConnectionId;

    fn start(n: u32) -> TraceStart {
        let original_dcid = ConnectionId::new(&n.to_be_bytes()).unwrap();
        TraceStart { conn: ConnId::new(n, 0), side: Side::Client, original_dcid, wall: Duration::ZERO }
    }

    const AT: Instant = Instant::from_nanos(5);

    /// A line whose batches wait in the channel.
    fn line(config: QlogConfig) -> (Arc<Line>, Receiver<Batch>) {
        let (to, from) = unbounded();
        let line = Line::direct(config, Arc::default(), move |batch| to.send(batch).unwrap());
        (Arc::new(line), from)
    }

    #[test]
    fn limits_decide_which_connections_are_traced() {
        let config = QlogConfig { every: 3, open: 2, files: 3, ..QlogConfig::new("") };
        let (line, _batches) = line(config);
        let mut sink = Sink::new(line.clone());
        let traced: Vec<_> = (0..12).filter(|n| sink.begin(AT, &start(*n))).collect();
        assert_eq!(traced, [0, 3], "two at a time");
        sink.end(AT, ConnId::new(0, 0));
        sink.end(AT, ConnId::new(3, 0));
        sink.end(AT, ConnId::new(3, 0));
        let traced: Vec<_> = (12..24).filter(|n| sink.begin(AT, &start(*n))).collect();
        assert_eq!(traced, [12], "three in all");
        assert_eq!(line.counters.all()[3], ("qlog_refused", 5));
        assert_eq!(line.counters.open.load(Ordering::Relaxed), 1);
        drop(sink);
        assert_eq!(line.counters.open.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn batches_are_passed_on_when_they_are_full_or_old_and_in_the_end() {
        let (line, batches) = line(QlogConfig::new(""));
        let mut sink = Sink::new(line);
        assert!(sink.begin(AT, &start(1)));
        let conn = ConnId::new(1, 0);
        for _ in 1..RECORDS {
            assert!(batches.is_empty());
            sink.record(AT, conn, TraceEvent::Spin(true), b"xy");
        }
        let batch = batches.try_recv().unwrap();
        assert_eq!((batch.records.len(), batch.bytes.len()), (RECORDS, 2 * (RECORDS - 1)));
        sink.record(AT, conn, TraceEvent::Retransmit, &[1; BYTES]);
        assert_eq!(batches.try_recv().unwrap().records.len(), 1);
        sink.record(AT, conn, TraceEvent::Spin(true), &[]);
        sink.rest(AT + AGE / 2);
        assert!(batches.is_empty());
        sink.rest(AT + AGE);
        assert_eq!(batches.try_recv().unwrap().records.len(), 1);
        sink.rest(AT + 3 * AGE);
        assert!(batches.is_empty(), "there is nothing to pass on");
        drop(sink);
        assert!(matches!(batches.try_recv().unwrap().records[..], [Record { what: What::End, .. }]));
    }

    /// Nobody takes the batches.
    #[test]
    fn what_has_no_room_is_counted_and_told_later_and_ends_are_not_lost() {
        let (line, batches) = line(QlogConfig::new(""));
        let mut sink = Sink::new(line.clone());
        let (one, two) = (ConnId::new(1, 0), ConnId::new(2, 0));
        assert!(sink.begin(AT, &start(1)) && sink.begin(AT, &start(2)));
        let most = BATCHES * RECORDS;
        (2..most + 10).for_each(|_| sink.record(AT, one, TraceEvent::Spin(true), &[]));
        assert!(!sink.begin(AT, &start(3)), "it could not be told");
        sink.end(AT, two);
        assert_eq!(batches.len(), BATCHES);
        assert_eq!(line.counters.all()[2], ("qlog_events_missing", 12));
        assert_eq!(line.counters.open.load(Ordering::Relaxed), 1);
        batches.try_recv().unwrap().go_home();
        sink.record(AT, one, TraceEvent::Spin(false), &[]);
        drop(sink);
        let last = batches.try_iter().last().unwrap();
        let kinds: Vec<_> = last.records.iter().map(|record| (record.conn, &record.what)).collect();
        assert!(
            matches!(kinds[..], [
            (_, What::Missing(12)),
            (a, What::End),
            (b, What::Event(_)),
            (c, What::End)
        ] if a == two && b == one && c == one),
            "{kinds:?}"
        );
    }

    #[test]
    fn a_trace_that_is_reported_as_full_is_full_until_it_ends() {
        let (line, batches) = line(QlogConfig::new(""));
        let mut sink = Sink::new(line);
        assert!(sink.begin(AT, &start(1)) && sink.begin(AT, &start(2)));
        sink.rest(AT + AGE);
        let batch = batches.try_recv().unwrap();
        batch.full.send(ConnId::new(2, 0)).unwrap();
        batch.full.send(ConnId::new(9, 0)).unwrap();
        assert!(!sink.is_full(ConnId::new(2, 0)), "it does not look for every event");
        sink.record(AT + AGE, ConnId::new(1, 0), TraceEvent::Spin(true), &[]);
        sink.rest(AT + 2 * AGE);
        assert_eq!([1, 2, 9].map(|n| sink.is_full(ConnId::new(n, 0))), [false, true, false]);
        sink.end(AT, ConnId::new(2, 0));
        assert!(!sink.is_full(ConnId::new(2, 0)));
    }
}
