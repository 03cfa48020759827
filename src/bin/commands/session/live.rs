//! `--live`: what the core does, each second.

use std::collections::HashMap;
use std::fmt::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gannet::net::NetDrop;
use gannet::quic;
use gannet::report::text;
use gannet::runtime::CoreLive;

use crate::terminal;

/// How often the view is drawn anew.
const EVERY: Duration = Duration::from_secs(1);

/// Counters by name.
type Counts = HashMap<&'static str, u64>;

/// A view that stays in place on a terminal, and scrolls elsewhere.
pub struct View {
    source: Arc<CoreLive>,
    title: String,
    start: Instant,
    at: Instant,
    last: Counts,
    /// Counters of the port's device, which the core does not see.
    device: Counts,
    /// What the command has to say.
    line: Option<String>,
}

impl View {
    /// A view of a core at the port that `title` describes.
    pub fn new(title: String) -> Self {
        let now = Instant::now();
        let (last, device) = (Counts::new(), Counts::new());
        Self { source: Arc::default(), title, start: now, at: now, last, device, line: None }
    }

    /// Where the core publishes.
    pub fn source(&self) -> Arc<CoreLive> {
        self.source.clone()
    }

    /// What the port's device counts by now.
    pub fn device(&mut self, counts: impl Iterator<Item = (&'static str, u64)>) {
        self.device.extend(counts);
    }

    /// Draws the view if it is time to. `line` is what the command itself has to say since.
    pub fn look(&mut self, line: Option<String>) {
        self.line = line.or(self.line.take());
        let passed = self.at.elapsed();
        if passed < EVERY {
            return;
        }
        let now: Counts = self.source.snapshot().into_iter().chain(self.device.clone()).collect();
        let mut page = format!("{} · {} s\n", self.title, self.start.elapsed().as_secs());
        page.push_str(&render(&self.last, &now, passed));
        if let Some(line) = &self.line {
            let _ = writeln!(page, "{line}");
        }
        terminal::status(page, true);
        (self.last, self.at) = (now, Instant::now());
    }
}

/// The counters as a table: what came in `passed`, and what came in all.
fn render(last: &Counts, now: &Counts, passed: Duration) -> String {
    let total = |name: &str| now.get(name).copied().unwrap_or(0);
    let new = |name: &str| total(name).saturating_sub(last.get(name).copied().unwrap_or(0));
    let rate = |n: u64| n as f64 / passed.as_secs_f64();
    let ratio = |a: u64, b: u64| if b == 0 { "-".to_owned() } else { text::quantity(a as f64 / b as f64) };
    let per = |label: &str, what: &str, of: &[&str]| {
        let sum = |count: &dyn Fn(&str) -> u64| of.iter().map(|name| count(name)).sum();
        [label.to_owned(), ratio(new(what), sum(&new)), ratio(total(what), sum(&total))]
    };
    let mut rows = vec![
        [
            "connections".to_owned(),
            format!("{} new", text::quantity(rate(new("quic_handshakes")))),
            text::count(total("quic_connections")),
        ],
        per("cycles per packet", "core_busy_cycles", &["port_rx_frames", "port_tx_frames"]),
        [
            "idle turns".to_owned(),
            percent(new("core_idle_turns"), new("core_turns")),
            percent(total("core_idle_turns"), total("core_turns")),
        ],
        per("packets per rx burst", "port_rx_frames", &["core_rx_bursts"]),
        per("packets per tx burst", "port_tx_frames", &["core_tx_bursts"]),
    ];
    let mut counted = |label: &str, name: &str, scale: u64, unit: &str| {
        rows.push([
            label.to_owned(),
            format!("{}{unit}", text::quantity(rate(new(name) * scale))),
            text::count(total(name)),
        ]);
    };
    counted("rx packets", "port_rx_frames", 1, "");
    counted("rx bytes", "port_rx_bytes", 8, "bit");
    counted("tx packets", "port_tx_frames", 1, "");
    counted("tx bytes", "port_tx_bytes", 8, "bit");
    counted("tx ring full", "port_tx_full", 1, "");
    let device = [
        ("missed by the port", "device_rx_missed"),
        ("no buffer for", "device_rx_no_buffer"),
        ("rx errors", "device_rx_errors"),
        ("tx errors", "device_tx_errors"),
    ];
    for (label, name) in device.into_iter().filter(|(_, name)| total(name) > 0) {
        counted(label, name, 1, "");
    }
    counted("events", "core_events", 1, "");
    counted("packets lost", "quic_lost_packets", 1, "");
    counted("bytes sent again", "quic_bytes_resent", 1, "");
    let net = NetDrop::ALL.iter().map(|why| why.label());
    for name in net.chain(quic::DropReason::ALL.iter().map(|(_, name)| *name)).filter(|name| total(name) > 0) {
        counted(&format!("dropped: {}", name.trim_start_matches("quic_")), name, 1, "");
    }
    text::table(&["core 0", "per second", "in all"], &rows)
}

fn percent(part: u64, whole: u64) -> String {
    if whole == 0 { "-".to_owned() } else { format!("{:.1} %", 100.0 * part as f64 / whole as f64) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_ratios_and_totals() {
        let counts = |list: &[(&'static str, u64)]| list.iter().copied().collect::<Counts>();
        let last = counts(&[("port_rx_frames", 1000), ("core_busy_cycles", 5_000_000), ("core_turns", 10)]);
        let now = counts(&[
            ("port_rx_frames", 3000),
            ("port_tx_frames", 2000),
            ("core_rx_bursts", 100),
            ("core_busy_cycles", 7_000_000),
            ("core_turns", 20),
            ("core_idle_turns", 5),
            ("quic_duplicate", 7),
            ("quic_connections", 3),
            ("device_rx_missed", 6),
        ]);
        let page = render(&last, &now, Duration::from_secs(2));
        let row = |label: &str| {
            let line = page.lines().find(|line| line.starts_with(label)).unwrap_or_else(|| panic!("{label}: {page}"));
            line[label.len()..].split_whitespace().collect::<Vec<_>>().join(" ")
        };
        assert_eq!(row("rx packets "), "1.00 k 3,000");
        assert_eq!(row("cycles per packet"), "500 1.40 k", "2 M cycles for 4000 packets");
        assert_eq!(row("idle turns"), "50.0 % 25.0 %");
        assert_eq!(row("packets per rx burst"), "20 30");
        assert_eq!(row("connections"), "0 new 3");
        assert_eq!(row("dropped: duplicate"), "3.50 7");
        assert_eq!(row("missed by the port"), "3 6", "what never reached the core");
        assert!(!page.contains("dropped: malformed") && !page.contains("tx errors"), "only what happened: {page}");
    }

    #[test]
    fn nothing_yet_is_no_division_by_zero() {
        let page = render(&Counts::new(), &Counts::new(), Duration::from_secs(1));
        assert!(page.contains("cycles per packet") && !page.contains("NaN") && !page.contains("inf"), "{page}");
    }
}
