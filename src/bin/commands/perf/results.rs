//! The results of a client: those of all cores together, and of each.

use std::path::Path;
use std::time::SystemTime;

use gannet::proto::perf::PerfResults;
use gannet::report::file::write_atomically;
use gannet::report::{Bar, HdrLog, Series, text, write_hdr_log};
use serde_json::Map;

use crate::commands::origin::origin;
use crate::commands::session::{Counters, Failure};
use crate::output::say;
use crate::terminal;

/// The results of a run.
pub struct Report {
    sum: PerfResults,
    /// Of each core; `None` if it made no requests.
    cores: Vec<Option<PerfResults>>,
    counters: Counters,
}

/// A result; counts are printed as integers.
enum Value {
    Count(u64),
    Measure(f64),
}

impl Value {
    fn text(&self) -> String {
        match self {
            Self::Count(n) => n.to_string(),
            Self::Measure(n) => format!("{n:.3}"),
        }
    }

    fn json(&self) -> serde_json::Value {
        match *self {
            Self::Count(n) => n.into(),
            Self::Measure(n) => n.into(),
        }
    }
}

type Values = Vec<(&'static str, Value)>;

/// Results by name. `counter` reads the engine's counters.
fn values(results: &PerfResults, counter: impl Fn(&str) -> u64) -> Values {
    use Value::{Count, Measure};
    let (up, down) = results.bit_rates();
    vec![
        ("requests", Count(results.requests)),
        ("errors", Count(results.errors)),
        ("seconds", Measure(results.elapsed.as_secs_f64())),
        ("requests_per_second", Measure(results.request_rate())),
        ("upload_gbps", Measure(up / 1e9)),
        ("download_gbps", Measure(down / 1e9)),
        ("handshakes", Count(results.handshakes)),
        ("handshakes_per_second", Measure(results.handshake_rate())),
        ("handshakes_resumed", Count(counter("quic_handshakes_resumed"))),
        ("early_data_accepted", Count(counter("quic_early_data_accepted"))),
        ("early_data_rejected", Count(counter("quic_early_data_rejected"))),
        ("bytes_copied", Count(counter("quic_bytes_copied"))),
        ("sent_packets_lost", Count(counter("quic_lost_packets"))),
    ]
}

/// Percentiles by name, without those that the number of requests does not support.
fn percentiles(results: &PerfResults) -> Values {
    let latency = results.latency.summary();
    let handshake = results.handshake.summary();
    let us = |ns: u64| Value::Measure(ns as f64 / 1000.0);
    let all = [
        ("handshake_p50_us", handshake.p50),
        ("latency_p50_us", latency.p50),
        ("latency_p90_us", latency.p90),
        ("latency_p99_us", latency.p99),
        ("latency_p999_us", latency.p999),
        ("latency_p9999_us", latency.p9999),
    ];
    let mut all: Values = all.into_iter().filter_map(|(name, ns)| Some((name, us(ns?)))).collect();
    if latency.count > 0 {
        all.extend([("latency_min_us", us(latency.min)), ("latency_max_us", us(latency.max))]);
    }
    all
}

fn map(values: &Values) -> Map<String, serde_json::Value> {
    values.iter().map(|(name, value)| ((*name).to_owned(), value.json())).collect()
}

impl Report {
    /// The report of the `results` of each core; `None` for a core that made no requests.
    pub fn new<'a>(results: impl Iterator<Item = Option<&'a PerfResults>>, counters: Counters) -> Self {
        let cores: Vec<_> = results.map(Option::<&PerfResults>::cloned).collect();
        let mut sum = PerfResults::default();
        cores.iter().flatten().for_each(|results| sum.merge(results));
        Self { sum, cores, counters }
    }

    /// The results of all cores together, by name.
    fn values(&self) -> Values {
        let mut all = values(&self.sum, |name| self.counters.value(name));
        all.extend([
            ("device_rx_missed", Value::Count(self.counters.value("device_rx_missed"))),
            ("log_lines_lost", Value::Count(terminal::lost())),
        ]);
        all.extend(percentiles(&self.sum));
        all
    }

    /// The results of each core by name. Those of a core that made no requests are 0.
    fn of_cores(&self) -> impl Iterator<Item = Values> {
        let none = PerfResults::default();
        self.cores.iter().enumerate().map(move |(core, results)| {
            let results = results.as_ref().unwrap_or(&none);
            let mut all = vec![("core", Value::Count(core as u64))];
            all.extend(values(results, |name| self.counters.of_core(core, name)));
            all.extend(percentiles(results));
            all
        })
    }

    /// Prints the results, and a table of the cores if there are several.
    pub fn print(&self) {
        for (name, value) in self.values() {
            say(&format!("{name}: {}", value.text()));
        }
        if self.cores.len() > 1 {
            say(self.table().trim_end());
        }
    }

    fn table(&self) -> String {
        let columns = ["core", "requests", "errors", "handshakes", "upload_gbps", "download_gbps", "latency_p99_us"];
        let row = |values: Values| {
            columns.map(|column| {
                let value = values.iter().find(|(name, _)| *name == column);
                value.map_or_else(|| "-".to_owned(), |(_, value)| value.text())
            })
        };
        text::table(&columns, &self.of_cores().map(row).collect::<Vec<_>>())
    }

    /// Writes the results as one JSON object: those of all cores together, and an array `cores` with those of each.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write_json(&self, path: &Path) -> Result<(), Failure> {
        let mut all = map(&self.values());
        let cores = self.of_cores().enumerate().map(|(core, values)| {
            let mut one = map(&values);
            one.insert("cpu".to_owned(), self.counters.cpu(core).into());
            serde_json::Value::Object(one)
        });
        all.insert("cores".to_owned(), cores.collect());
        all.insert("run".to_owned(), origin());
        write_atomically(path, format!("{:#}\n", serde_json::Value::Object(all)).as_bytes())?;
        Ok(())
    }

    /// Writes the histograms: those of all cores together, and of each if there are several.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write_hdr(&self, path: &Path, start: SystemTime, facts: Vec<(String, String)>) -> Result<(), Failure> {
        let (up, down) = self.sum.bit_rates();
        let throughput = vec![
            Bar::new("download", down / 1e9, "Gbit/s"),
            Bar::new("upload", up / 1e9, "Gbit/s"),
            Bar::new("requests", self.sum.request_rate(), "requests/s"),
        ];
        let series = |results: &PerfResults, prefix: &str| {
            [("request", &results.latency), ("handshake", &results.handshake)]
                .into_iter()
                .filter(|(_, latency)| latency.count() > 0)
                .map(|(name, latency)| {
                    Series::new(format!("{prefix}{name}"), latency.clone()).recorded(start, results.elapsed)
                })
                .collect::<Vec<_>>()
        };
        let mut all = series(&self.sum, "");
        if self.cores.len() > 1 {
            for (core, results) in self.cores.iter().enumerate() {
                all.extend(results.iter().flat_map(|results| series(results, &format!("core {core}: "))));
            }
        }
        let throughput = throughput.into_iter().filter(|bar| bar.value > 0.0).collect();
        write_hdr_log(path, &HdrLog { facts, throughput, series: all })?;
        Ok(())
    }

    /// Fails if any request or connection has failed.
    ///
    /// # Errors
    /// The failures, each in a line of its own.
    pub fn outcome(&self) -> Result<(), Failure> {
        if self.sum.is_clean() { Ok(()) } else { Err(failures(&self.sum).into()) }
    }
}

fn failures(results: &PerfResults) -> String {
    let mut lines: Vec<String> = results.failures.iter().map(|(why, n)| format!("{why} ({n} times)")).collect();
    if results.other_failures > 0 {
        lines.push(format!("{} other failures", results.other_failures));
    }
    if lines.is_empty() {
        lines.push(format!("{} requests were not answered in time", results.unfinished));
    }
    lines.join("\ngannet: ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use gannet::report::read_hdr_log;

    fn results(requests: u64, latency_us: u64) -> PerfResults {
        let mut results =
            PerfResults { requests, elapsed: std::time::Duration::from_secs(2), ..PerfResults::default() };
        (0..requests).for_each(|_| results.latency.record(latency_us * 1000));
        results
    }

    fn report() -> Report {
        let (a, b) = (results(100, 10), results(300, 1000));
        Report::new([Some(&a), None, Some(&b)].into_iter(), Counters::default())
    }

    #[test]
    fn the_whole_is_the_sum_of_its_cores() {
        let file = tempfile::NamedTempFile::new().unwrap();
        report().write_json(file.path()).unwrap();
        let written: serde_json::Value = serde_json::from_slice(&std::fs::read(file.path()).unwrap()).unwrap();
        let of = |value: &serde_json::Value| (value["requests"].as_u64(), value["requests_per_second"].as_f64());
        assert_eq!(of(&written), (Some(400), Some(200.0)));
        let cores = written["cores"].as_array().unwrap();
        assert_eq!(
            cores.iter().map(of).collect::<Vec<_>>(),
            [(Some(100), Some(50.0)), (Some(0), Some(0.0)), (Some(300), Some(150.0))]
        );
        assert_eq!((&cores[2]["core"], &cores[2]["cpu"]), (&2.into(), &serde_json::Value::Null));
        // A quarter of the requests was fast, so the median is that of the slow core.
        let p50 = |value: &serde_json::Value| value["latency_p50_us"].as_f64().unwrap();
        assert!((p50(&cores[0]) - 10.0).abs() < 0.1, "{written}");
        assert!((p50(&written) - 1000.0).abs() < 10.0 && cores[1].get("latency_p50_us").is_none(), "{written}");
    }

    #[test]
    fn histograms_of_cores_stand_beside_that_of_all() {
        let file = tempfile::NamedTempFile::new().unwrap();
        report().write_hdr(file.path(), SystemTime::now(), Vec::new()).unwrap();
        let log = read_hdr_log(file.path()).unwrap();
        let series: Vec<_> = log.series.iter().map(|series| (series.name.as_str(), series.latency.count())).collect();
        assert_eq!(series, [("request", 400), ("core 0: request", 100), ("core 2: request", 300)]);
    }

    #[test]
    fn a_table_names_each_core() {
        let table = report().table();
        let lines: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[0][..2], ["core", "requests"], "{table}");
        let rows: Vec<_> = lines[1..].iter().map(|line| (line[0], line[1], line[6] == "-")).collect();
        assert_eq!(rows, [("0", "100", false), ("1", "0", true), ("2", "300", false)], "{table}");
    }
}
