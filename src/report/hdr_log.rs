//! Histogram files: the HdrHistogram interval log, version 1.3, which other tools can read too.
//!
//! Each series is one interval with its own tag. The other data of a report (the machine, throughput) is stored in
//! comments: `#fact KEY: VALUE` and `#bar UNIT VALUE LABEL`, with spaces in UNIT as `%20`, and VALUE with a spread as
//! `MEDIAN:MIN:MAX`.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{
    IntervalLogHistogram, IntervalLogIterator, IntervalLogWriterBuilder, LogEntry, Tag,
};

use super::decode::{self, BadHistogram};
use super::file::{WriteError, write_atomically};
use super::{Bar, Latency, Series};

/// The first line of every log.
const VERSION: &str = "[Histogram log format version 1.3]";
/// The column headers, as written by other tools.
const LEGEND: &str = "\"StartTimestamp\",\"Interval_Length\",\"Interval_Max\",\"Interval_Compressed_Histogram\"\n";
/// The log's `Interval_Max` is in milliseconds by convention.
const NS_PER_MS: f64 = 1e6;
/// A larger number of latencies in a series cannot be real, and sums of them could overflow.
const MAX_COUNT: u64 = 1 << 60;

/// The maximum file size: a run's histograms have some ten kilobytes each.
const MAX_FILE: u64 = 256 << 20;

/// The contents of an .hdr file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HdrLog {
    /// Facts about the machine and the run.
    pub facts: Vec<(String, String)>,
    /// The throughput of the same run.
    pub throughput: Vec<Bar>,
    /// The histograms.
    pub series: Vec<Series>,
}

/// The reason why an .hdr file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum HdrLogError {
    /// The file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The error.
        source: std::io::Error,
    },
    /// A line is damaged or of another format.
    #[error("{}:{line}: {why}; omit the file, or measure again", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Line number, from 1.
        line: usize,
        /// The problem.
        why: BadLine,
    },
    /// The file is too large to be a log.
    #[error("{} has more than {} MiB: was it written by --hdr?", .0.display(), MAX_FILE >> 20)]
    TooLarge(PathBuf),
    /// The file contains no histogram.
    #[error("{} contains no histogram: was it written by --hdr?", .0.display())]
    Empty(PathBuf),
}

/// The problem with a line.
#[derive(Debug, thiserror::Error)]
pub enum BadLine {
    /// Not UTF-8.
    #[error("this is not text: is it an HdrHistogram log?")]
    NotText,
    /// Neither a comment nor an interval.
    #[error("this is not a line of an HdrHistogram log: expected [Tag=NAME,]START,LENGTH,MAX,HISTOGRAM")]
    Syntax,
    /// The histogram is damaged.
    #[error(transparent)]
    Histogram(#[from] BadHistogram),
    /// The time is out of range.
    #[error("the time stamp is out of range")]
    Time,
}

/// Writes `log` to `path`, completely or not at all.
///
/// # Errors
/// If the file cannot be written.
pub fn write_hdr_log(path: &Path, log: &HdrLog) -> Result<(), WriteError> {
    let text =
        encode(log).map_err(|e| WriteError { path: path.into(), source: std::io::Error::other(e.to_string()) })?;
    write_atomically(path, &text)
}

/// Reads `path`, whatever tool wrote it. Intervals with the same tag become one series.
///
/// # Errors
/// If it cannot be read, is damaged (the error names the line), or contains no histogram.
pub fn read_hdr_log(path: &Path) -> Result<HdrLog, HdrLogError> {
    let mut bytes = Vec::new();
    // Devices may be endless.
    let read = File::open(path).and_then(|file| file.take(MAX_FILE + 1).read_to_end(&mut bytes));
    read.map_err(|source| HdrLogError::Read { path: path.into(), source })?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(HdrLogError::TooLarge(path.into()));
    }
    let untagged = path.file_stem().map_or_else(|| "latency".into(), |s| s.to_string_lossy().into_owned());
    let log = decode(&bytes, &untagged).map_err(|(line, why)| HdrLogError::Line { path: path.into(), line, why })?;
    if log.series.is_empty() {
        return Err(HdrLogError::Empty(path.into()));
    }
    Ok(log)
}

/// The log as text.
fn encode(log: &HdrLog) -> Result<Vec<u8>, Box<dyn std::error::Error>> {
    let base = log.series.iter().map(|s| s.start).min().unwrap_or(SystemTime::UNIX_EPOCH);
    let mut out = Vec::new();
    let mut serializer = V2DeflateSerializer::new();
    let mut head = IntervalLogWriterBuilder::new();
    head.add_comment(VERSION);
    for (key, value) in &log.facts {
        head.add_comment(&format!("fact {}: {}", one_line(key).replace(':', " "), one_line(value)));
    }
    for bar in &log.throughput {
        let value = match bar.spread {
            Some((min, max)) => format!("{}:{min}:{max}", bar.value),
            None => bar.value.to_string(),
        };
        head.add_comment(&format!("bar {} {value} {}", escape(&bar.unit), one_line(&bar.label)));
    }
    head.with_start_time(base).with_base_time(base);
    head.begin_log_with(&mut out, &mut serializer)?;
    out.extend_from_slice(LEGEND.as_bytes());
    let mut body = IntervalLogWriterBuilder::new();
    let mut writer = body.with_max_value_divisor(NS_PER_MS).begin_log_with(&mut out, &mut serializer)?;
    for s in &log.series {
        let since = s.start.duration_since(base).unwrap_or_default();
        writer.write_histogram(s.latency.histogram(), since, s.duration, Tag::new(&escape(&s.name)))?;
    }
    Ok(out)
}

/// Parses a log; an error has the line number and the problem.
fn decode(bytes: &[u8], untagged: &str) -> Result<HdrLog, (usize, BadLine)> {
    let mut reader = Reader { log: HdrLog::default(), base: None, start: None };
    for (i, line) in bytes.split(|b| *b == b'\n').enumerate() {
        reader.line(line, untagged).map_err(|why| (i + 1, why))?;
    }
    Ok(reader.log)
}

/// The state of the parser.
struct Reader {
    log: HdrLog,
    /// The base of interval times, since the epoch.
    base: Option<Duration>,
    /// The start time of the process, since the epoch.
    start: Option<Duration>,
}

impl Reader {
    fn line(&mut self, line: &[u8], untagged: &str) -> Result<(), BadLine> {
        let line = std::str::from_utf8(line).map_err(|_| BadLine::NotText)?.trim_end_matches('\r');
        if line.is_empty() {
            return Ok(());
        }
        if let Some(fact) = line.strip_prefix("#fact ") {
            self.log.facts.extend(fact.split_once(": ").map(|(k, v)| (k.into(), v.into())));
        } else if let Some(bar) = line.strip_prefix("#bar ") {
            self.log.throughput.extend(parse_bar(bar));
        } else {
            match IntervalLogIterator::new(format!("{line}\n").as_bytes()).next() {
                None => {}
                Some(Ok(LogEntry::StartTime(t))) => self.start = Some(t),
                Some(Ok(LogEntry::BaseTime(t))) => self.base = Some(t),
                Some(Ok(LogEntry::Interval(interval))) => self.interval(&interval, untagged)?,
                Some(Err(_)) => return Err(BadLine::Syntax),
            }
        }
        Ok(())
    }

    fn interval(&mut self, interval: &IntervalLogHistogram<'_>, untagged: &str) -> Result<(), BadLine> {
        let at = interval.start_timestamp().checked_add(self.origin(interval.start_timestamp()));
        let start = at.and_then(|d| SystemTime::UNIX_EPOCH.checked_add(d)).ok_or(BadLine::Time)?;
        let end = start.checked_add(interval.duration()).ok_or(BadLine::Time)?;
        let name = interval.tag().map_or_else(|| untagged.to_string(), |t| unescape(t.as_str()));
        let histogram = decode::histogram(interval.encoded_histogram())?;
        let i = self.log.series.iter().position(|s| s.name == name).unwrap_or_else(|| {
            self.log.series.push(Series::new(name, Latency::new()).recorded(start, Duration::ZERO));
            self.log.series.len() - 1
        });
        let series = &mut self.log.series[i];
        if series.latency.count().saturating_add(histogram.len()) > MAX_COUNT {
            return Err(BadHistogram::TooMany.into());
        }
        series.latency.merge_histogram(&histogram);
        let known_end = series.start.checked_add(series.duration).unwrap_or(end);
        series.start = series.start.min(start);
        series.duration = end.max(known_end).duration_since(series.start).unwrap_or_default();
        Ok(())
    }

    /// The base of `timestamp`. Without a base time, timestamps more than a year before the start time are relative to
    /// it, as in the Java reader.
    fn origin(&self, timestamp: Duration) -> Duration {
        const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);
        match (self.base, self.start) {
            (Some(base), _) => base,
            (None, Some(start)) if timestamp.saturating_add(YEAR) < start => start,
            _ => Duration::ZERO,
        }
    }
}

/// `UNIT VALUE LABEL`.
fn parse_bar(s: &str) -> Option<Bar> {
    let (unit, rest) = s.split_once(' ')?;
    let (value, label) = rest.split_once(' ')?;
    let numbers: Option<Vec<f64>> = value.split(':').map(|n| n.parse().ok().filter(|n: &f64| n.is_finite())).collect();
    let (value, spread) = match numbers?[..] {
        [value] => (value, None),
        [value, min, max] if min <= value && value <= max => (value, Some((min, max))),
        _ => return None,
    };
    Some(Bar { spread, ..Bar::new(label, value, unescape(unit)) })
}

/// Replaces line breaks and other control characters in `s`.
fn one_line(s: &str) -> String {
    s.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Replaces characters that a tag cannot contain by `%XX`.
fn escape(s: &str) -> String {
    let mut out = String::with_capacity(s.len());
    for c in s.chars() {
        match c {
            ' ' | ',' | '%' | '\0'..='\x1f' | '\x7f' => out.push_str(&format!("%{:02X}", u32::from(c))),
            c => out.push(c),
        }
    }
    out
}

/// Reverts [`escape`]; leaves invalid sequences unchanged.
fn unescape(s: &str) -> String {
    let mut out = String::with_capacity(s.len());
    let mut rest = s;
    while let Some((plain, tail)) = rest.split_once('%') {
        out.push_str(plain);
        match tail.get(..2).and_then(|hex| u8::from_str_radix(hex, 16).ok()).filter(u8::is_ascii) {
            Some(c) => {
                out.push(char::from(c));
                rest = &tail[2..];
            }
            None => {
                out.push('%');
                rest = tail;
            }
        }
    }
    out + rest
}

#[cfg(test)]
#[path = "hdr_log_tests.rs"]
mod tests;
