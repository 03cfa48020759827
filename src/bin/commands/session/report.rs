//! The counters of a run.

use std::path::Path;

use gannet::datapath::Datapath;
use gannet::datapath::exchange::Exchange;
use gannet::dpdk::Port;
use gannet::report::file::{WriteError, write_atomically};
use gannet::runtime::{App, Core};
use serde_json::{Map, Value};

use super::keylog;
use crate::commands::origin::origin;
use crate::terminal;

/// The counters of one core.
#[derive(Clone, Debug)]
pub struct CoreCounters {
    /// The CPU that it was pinned to, if any.
    cpu: Option<usize>,
    all: Vec<(&'static str, u64)>,
}

impl CoreCounters {
    /// The counters of `core`.
    pub fn of<D: Datapath, A: App, X: Exchange<D::Rx>>(core: &Core<D, A, X>, cpu: Option<usize>) -> Self {
        Self { cpu, all: core.counters().collect() }
    }

    fn json(&self, core: usize) -> Value {
        let mut map = json(&self.all);
        map.insert("core".to_owned(), core.into());
        map.insert("cpu".to_owned(), self.cpu.into());
        Value::Object(map)
    }
}

fn json(counters: &[(&'static str, u64)]) -> Map<String, Value> {
    counters.iter().map(|(name, value)| ((*name).to_owned(), (*value).into())).collect()
}

/// The counter `name`; 0 if there is none.
fn value_in(counters: &[(&'static str, u64)], name: &str) -> u64 {
    counters.iter().find(|(known, _)| *known == name).map_or(0, |(_, value)| *value)
}

/// Every counter with its name.
#[derive(Clone, Debug, Default)]
pub struct Counters {
    /// The sums over all cores, and the counters of the process and the device.
    all: Vec<(&'static str, u64)>,
    cores: Vec<CoreCounters>,
    /// The driver's own counters, by its names.
    driver: Vec<(String, u64)>,
    /// How load balancers route connection IDs; null if they do not.
    quic_lb: Value,
}

impl Counters {
    /// The counters of `cores`, whose connection IDs load balancers route by `quic_lb`.
    pub fn of(cores: Vec<CoreCounters>, quic_lb: Value) -> Self {
        let mut all = sum(cores.iter().map(|core| core.all.as_slice()));
        all.extend([("log_lines_lost", terminal::lost()), ("keylog_lines_lost", keylog::lost())]);
        Self { all, cores, driver: Vec::new(), quic_lb }
    }

    /// Adds counters of the process.
    pub fn add(&mut self, counters: impl IntoIterator<Item = (&'static str, u64)>) {
        self.all.extend(counters);
    }

    /// Adds the counters of the port's device: packets that never reached a queue are counted nowhere else.
    pub fn add_device(&mut self, port: &Port) {
        self.all.extend(port.stats().iter());
        self.driver = port.xstats();
    }

    /// The counter `name`; 0 if there is none.
    pub fn value(&self, name: &str) -> u64 {
        value_in(&self.all, name)
    }

    /// The counter `name` of a core; 0 if there is none.
    pub fn of_core(&self, core: usize, name: &str) -> u64 {
        self.cores.get(core).map_or(0, |core| value_in(&core.all, name))
    }

    /// The CPU that a core was pinned to, if any.
    pub fn cpu(&self, core: usize) -> Option<usize> {
        self.cores.get(core).and_then(|core| core.cpu)
    }

    /// Writes the counters as one JSON object: the sums, an array `cores` with those of each core, and an object `driver`
    /// with the driver's counters, whose names DPDK gives. `quic_lb` says how load balancers route connection IDs.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), WriteError> {
        let mut map = json(&self.all);
        map.insert("run".to_owned(), origin());
        map.insert("driver".to_owned(), self.driver.iter().cloned().collect());
        map.insert("quic_lb".to_owned(), self.quic_lb.clone());
        map.insert("cores".to_owned(), self.cores.iter().enumerate().map(|(n, core)| core.json(n)).collect());
        let mut text = serde_json::to_string_pretty(&map).unwrap_or_default();
        text.push('\n');
        write_atomically(path, text.as_bytes())
    }
}

/// Adds up counters by name.
pub fn sum<'a>(cores: impl Iterator<Item = &'a [(&'static str, u64)]>) -> Vec<(&'static str, u64)> {
    let mut all: Vec<(&'static str, u64)> = Vec::new();
    for counters in cores {
        for (i, (name, value)) in counters.iter().enumerate() {
            // All cores have the same counters in the same order.
            let same = all.get(i).is_some_and(|(known, _)| known == name);
            let at = if same { Some(i) } else { all.iter().position(|(known, _)| known == name) };
            match at {
                Some(at) => all[at].1 += value,
                None => all.push((name, *value)),
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_those_of_each_core_and_their_sum() {
        let core = |cpu, all: &[_]| CoreCounters { cpu, all: all.to_vec() };
        let counters = Counters::of(
            vec![core(Some(3), &[("a", 1), ("b", 2)]), core(None, &[("a", 10), ("c", 5), ("b", 20)])],
            Value::Null,
        );
        assert_eq!(["a", "b", "c"].map(|name| counters.value(name)), [11, 22, 5]);
        assert_eq!([0, 1, 2].map(|core| counters.of_core(core, "b")), [2, 20, 0]);
        assert_eq!([0, 1, 2].map(|core| counters.cpu(core)), [Some(3), None, None]);
        let file = tempfile::NamedTempFile::new().unwrap();
        counters.write(file.path()).unwrap();
        let written: Value = serde_json::from_slice(&std::fs::read(file.path()).unwrap()).unwrap();
        assert_eq!((&written["a"], &written["cores"][1]["a"]), (&11.into(), &10.into()));
        assert_eq!((&written["cores"][0]["cpu"], &written["cores"][1]["core"]), (&3.into(), &1.into()));
        assert_eq!(written["cores"][1]["cpu"], Value::Null);
    }
}
