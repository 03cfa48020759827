//! The part on a thread of its own: encodes events and writes them to files.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::Arc;

use super::QlogConfig;
use super::encode::{Encoder, file_name};
use super::sink::{Batch, Counters, Record, What, count};
use crate::base::time::{Duration, Instant};
use crate::quic::ConnId;
use crate::quic::trace::TraceStart;

/// Maximum number of files for one ID, which a client may use again and again.
const SAME_ID: u32 = 1000;

/// A sink's number and its connection: two engines with the same core number give the same IDs.
type Key = (usize, ConnId);

/// The file of one connection.
#[derive(Debug)]
struct Trace {
    /// `None` if nothing more is written: it is as large as it may be, or could not be written.
    file: Option<File>,
    path: PathBuf,
    encoder: Encoder,
    /// When it began, and the latest time written, since then.
    began: Instant,
    latest: Duration,
    /// Bytes written so far, and those to be written next.
    written: u64,
    pending: Vec<u8>,
}

/// Writes the files.
#[derive(Debug)]
pub(super) struct Writer {
    config: QlogConfig,
    counters: Arc<Counters>,
    traces: HashMap<Key, Trace>,
    /// Those with something to be written.
    touched: Vec<Key>,
    record: Vec<u8>,
    /// Whether the operator was told that files cannot be written.
    warned: bool,
}

impl Writer {
    /// Makes the directory, and checks that it can be written to.
    pub(super) fn new(config: QlogConfig, counters: Arc<Counters>) -> io::Result<Self> {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&config.dir)?;
        let probe = config.dir.join(format!(".gannet-{}", std::process::id()));
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&probe)?;
        std::fs::remove_file(&probe)?;
        Ok(Self { config, counters, traces: HashMap::new(), touched: Vec::new(), record: Vec::new(), warned: false })
    }

    /// Writes a batch and returns it to its sink.
    pub(super) fn write(&mut self, batch: Batch) {
        let mut from = 0;
        for record in &batch.records {
            let bytes = batch.bytes.get(from..record.end).unwrap_or_default();
            from = record.end;
            self.handle(record, bytes, &batch);
        }
        for key in std::mem::take(&mut self.touched) {
            self.flush(key, &batch);
        }
        batch.go_home();
    }

    fn handle(&mut self, record: &Record, bytes: &[u8], batch: &Batch) {
        let key = (batch.sink, record.conn);
        match &record.what {
            What::Begin(start) => self.begin(record.at, start, batch),
            What::Event(event) => {
                let Some(trace) = self.traces.get_mut(&key).filter(|trace| trace.file.is_some()) else { return };
                self.record.clear();
                let time = trace.time(record.at);
                trace.encoder.event(time, event, bytes, &mut self.record);
                count(&self.counters.events, 1);
                self.append(key, batch);
            }
            What::End => {
                self.flush(key, batch);
                self.traces.remove(&key);
            }
            What::Missing(n) => {
                let text = format!("{n} events of this core's connections are missing: they came too fast");
                let all = self.traces.iter().filter(|((sink, _), trace)| *sink == batch.sink && trace.file.is_some());
                for key in all.map(|(key, _)| *key).collect::<Vec<_>>() {
                    self.warn(key, record.at, &text);
                    self.append(key, batch);
                }
            }
        }
    }

    /// Makes `record` a warning for the trace.
    fn warn(&mut self, key: Key, at: Instant, text: &str) {
        self.record.clear();
        if let Some(trace) = self.traces.get_mut(&key) {
            let time = trace.time(at);
            trace.encoder.warning(time, text, &mut self.record);
        }
    }

    fn begin(&mut self, at: Instant, start: &TraceStart, batch: &Batch) {
        let (path, file) = match self.create(start) {
            Ok((path, file)) => {
                count(&self.counters.files, 1);
                (path, Some(file))
            }
            Err((path, error)) => {
                self.fail(&path, &error);
                // It is reported, so that the connection's tracing costs nothing further.
                let _ = batch.full.send(start.conn);
                (path, None)
            }
        };
        let encoder = Encoder::new(self.config.names);
        let mut pending = Vec::new();
        encoder.header(start, &mut pending);
        let trace = Trace { file, path, encoder, began: at, latest: Duration::ZERO, written: 0, pending };
        let key = (batch.sink, start.conn);
        self.traces.insert(key, trace);
        self.touched.push(key);
    }

    /// Makes the file of a connection. Existing ones are kept.
    fn create(&self, start: &TraceStart) -> Result<(PathBuf, File), (PathBuf, io::Error)> {
        let mut nth = 0;
        loop {
            let path = self.config.dir.join(file_name(&start.original_dcid, start.side, nth));
            match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
                Ok(file) => return Ok((path, file)),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && nth < SAME_ID => nth += 1,
                Err(error) => return Err((path, error)),
            }
        }
    }

    /// Adds `record` to what is to be written, or ends the file if it gets too large.
    fn append(&mut self, key: Key, batch: &Batch) {
        let Some(trace) = self.traces.get_mut(&key) else { return };
        if trace.pending.is_empty() {
            self.touched.push(key);
        }
        let size = trace.written + (trace.pending.len() + self.record.len()) as u64;
        if size <= self.config.limit {
            trace.pending.extend_from_slice(&self.record);
            return;
        }
        let text = format!("the file is as large as it may be, {} bytes: what follows is missing", self.config.limit);
        let latest = trace.latest;
        trace.encoder.warning(latest, &text, &mut trace.pending);
        self.flush(key, batch);
        if let Some(trace) = self.traces.get_mut(&key) {
            trace.file = None;
        }
        let _ = batch.full.send(key.1);
    }

    /// Writes what is to be written.
    fn flush(&mut self, key: Key, batch: &Batch) {
        let Some(trace) = self.traces.get_mut(&key) else { return };
        let pending = std::mem::take(&mut trace.pending);
        let Some(file) = &mut trace.file else { return };
        trace.written += pending.len() as u64;
        if let Err(error) = file.write_all(&pending) {
            trace.file = None;
            let path = trace.path.clone();
            self.fail(&path, &error);
            let _ = batch.full.send(key.1);
            return;
        }
        trace.pending = pending;
        trace.pending.clear();
    }

    /// Counts a file that cannot be made or written to, and tells the operator once.
    fn fail(&mut self, path: &std::path::Path, error: &io::Error) {
        count(&self.counters.failed, 1);
        if !std::mem::replace(&mut self.warned, true) {
            tracing::warn!(file = %path.display(), %error, "cannot write a qlog; connections continue without");
        }
    }
}

impl Trace {
    /// The time to write for something that happened at `at`: not before that of the event before
    /// (main-schema-14 §7.1).
    fn time(&mut self, at: Instant) -> Duration {
        self.latest = self.latest.max(at.saturating_since(self.began));
        self.latest
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::base::Side;
    use crate::qlog::Qlog;
    use crate::quic::trace::{TraceEvent, Tracer};
    use crate::wire::quic::ConnectionId;

    const AT: Instant = Instant::from_nanos(1_000_000);

    fn start(n: u32, dcid: &[u8]) -> TraceStart {
        let original_dcid = ConnectionId::new(dcid).unwrap();
        TraceStart { conn: ConnId::new(n, 0), side: Side::Server, original_dcid, wall: Duration::ZERO }
    }

    fn values(qlog: &Qlog) -> [u64; 5] {
        qlog.counters().map(|(_, value)| value)
    }

    /// The names of the files in `dir`, in order, with their records.
    fn read(dir: &Path) -> Vec<(String, Vec<String>)> {
        let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
        let mut files: Vec<_> = entries
            .map(|entry| {
                let text = std::fs::read_to_string(entry.path()).unwrap();
                let records = text.split_terminator('\u{1e}').skip(1).map(str::to_owned).collect();
                (entry.file_name().into_string().unwrap(), records)
            })
            .collect();
        files.sort_by(|a, b| a.0.cmp(&b.0));
        files
    }

    #[test]
    fn each_connection_has_a_file_of_its_own_even_if_ids_repeat() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b");
        let qlog = Qlog::start(QlogConfig::new(&path)).unwrap();
        let mut sink = qlog.sink();
        for (n, dcid) in [(1, &[0xab; 8][..]), (2, &[0xab; 8]), (3, b"../x/../")] {
            assert!(sink.begin(AT, &start(n, dcid)));
            sink.record(AT + Duration::from_millis(2), ConnId::new(n, 0), TraceEvent::Spin(true), &[]);
            // A packet is handled as of the time when it arrived.
            sink.record(AT, ConnId::new(n, 0), TraceEvent::Spin(false), &[]);
        }
        (1..=3).for_each(|n| sink.end(AT, ConnId::new(n, 0)));
        drop(sink);
        assert!(qlog.finish());
        let files = read(&path);
        let names: Vec<_> = files.iter().map(|(name, _)| name.as_str()).collect();
        let twice = "abababababababab_server";
        assert_eq!(names, ["2e2e2f782f2e2e2f_server.sqlog", &*format!("{twice}.sqlog"), &*format!("{twice}_1.sqlog")]);
        for (name, records) in &files {
            assert_eq!(records.len(), 3);
            assert!(records[1..].iter().all(|record| record.starts_with("{\"time\":2,")), "{name}: {records:?}");
        }
        use std::os::unix::fs::PermissionsExt;
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(&path.join(names[0]))), (0o700, 0o600));
        assert_eq!(values(&qlog), [3, 6, 0, 0, 0]);
    }

    #[test]
    fn a_file_ends_at_its_limit_and_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let qlog = Qlog::direct(QlogConfig { limit: 2000, ..QlogConfig::new(dir.path()) }).unwrap();
        let mut sink = qlog.sink();
        let (one, two) = (ConnId::new(1, 0), ConnId::new(2, 0));
        assert!(sink.begin(AT, &start(1, &[1; 8])) && sink.begin(AT, &start(2, &[2; 8])));
        (0..2000).for_each(|_| sink.record(AT, one, TraceEvent::Spin(true), &[]));
        sink.record(AT, two, TraceEvent::Spin(true), &[]);
        assert!(sink.is_full(one) && !sink.is_full(two), "tracing goes on for the other only");
        drop(sink);
        let files = read(dir.path());
        let last = files[0].1.last().unwrap();
        assert!(last.contains("loglevel:warning") && last.contains("as large as it may be"), "{last}");
        let size = std::fs::metadata(dir.path().join(&files[0].0)).unwrap().len();
        assert!((1900..2200).contains(&size), "{size}");
        assert_eq!(files[1].1.len(), 2);
    }

    #[test]
    fn missing_events_are_told_in_the_files_of_their_core() {
        let dir = tempfile::tempdir().unwrap();
        let counters = Arc::new(Counters::default());
        let mut writer = Writer::new(QlogConfig::new(dir.path()), counters).unwrap();
        let (home, full) = (crossbeam::channel::bounded(1).0, crossbeam::channel::unbounded().0);
        let batch = |sink, whats: Vec<(u32, What)>| {
            let records = whats.into_iter();
            let records = records.map(|(n, what)| Record { at: AT, conn: ConnId::new(n, 0), what, end: 0 }).collect();
            Batch { records, bytes: Vec::new(), home: home.clone(), full: full.clone(), sink }
        };
        writer.write(batch(0, vec![(1, What::Begin(start(1, &[1; 8])))]));
        writer.write(batch(1, vec![(2, What::Begin(start(2, &[2; 8])))]));
        writer.write(batch(1, vec![(0, What::Missing(77)), (2, What::End)]));
        drop(writer);
        let files = read(dir.path());
        assert_eq!((files[0].1.len(), files[1].1.len()), (1, 2));
        let told = &files[1].1[1];
        assert!(told.contains("loglevel:warning") && told.contains("77 events"), "{told}");
    }

    #[test]
    fn a_full_disk_ends_the_file_and_is_counted() {
        let dir = tempfile::tempdir().unwrap();
        let counters = Arc::new(Counters::default());
        let mut writer = Writer::new(QlogConfig::new(dir.path()), counters.clone()).unwrap();
        let (home, _home) = crossbeam::channel::bounded(9);
        let (full, reports) = crossbeam::channel::unbounded();
        let batch = |what| {
            let records = vec![Record { at: AT, conn: ConnId::new(1, 0), what, end: 0 }];
            Batch { records, bytes: Vec::new(), home: home.clone(), full: full.clone(), sink: 0 }
        };
        writer.write(batch(What::Begin(start(1, &[1; 8]))));
        let trace = writer.traces.get_mut(&(0, ConnId::new(1, 0))).unwrap();
        trace.file = Some(OpenOptions::new().write(true).open("/dev/full").unwrap());
        for _ in 0..3 {
            writer.write(batch(What::Event(TraceEvent::Spin(true))));
        }
        assert_eq!(counters.all().map(|(_, value)| value), [1, 1, 0, 0, 1], "once, and nothing is encoded in vain");
        assert_eq!(reports.try_iter().collect::<Vec<_>>(), [ConnId::new(1, 0)]);
        writer.write(batch(What::End));
        assert!(writer.traces.is_empty());
    }

    #[test]
    fn a_directory_that_vanishes_is_counted_and_may_come_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("q");
        let qlog = Qlog::direct(QlogConfig::new(&path)).unwrap();
        let mut sink = qlog.sink();
        std::fs::remove_dir(&path).unwrap();
        for n in [1, 2] {
            assert!(sink.begin(AT, &start(n, &[1; 8])));
            sink.rest(AT + Duration::from_secs(u64::from(n)));
            assert!(sink.is_full(ConnId::new(n, 0)));
        }
        std::fs::create_dir(&path).unwrap();
        assert!(sink.begin(AT, &start(3, &[1; 8])));
        drop(sink);
        assert_eq!(values(&qlog), [1, 0, 0, 0, 2]);
        assert_eq!(read(&path).len(), 1);
    }

    #[test]
    fn a_directory_that_cannot_be_written_to_is_an_error_at_the_start() {
        for path in ["/dev/null/qlogs", "/proc/qlogs"] {
            assert!(Qlog::start(QlogConfig::new(path)).is_err(), "{path}");
        }
    }
}
