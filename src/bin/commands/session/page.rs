//! The table of the live view, fitted to the terminal.

use std::collections::HashMap;
use std::time::Duration;

use gannet::net::NetDrop;
use gannet::quic;
use gannet::report::text::{self, with_unit};

/// Counters by name.
pub type Counts = HashMap<&'static str, u64>;

/// The size of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Lines, including the cursor's.
    pub rows: usize,
    /// Characters per line.
    pub columns: usize,
}

impl Size {
    /// The size if the output is not a terminal.
    pub const ENDLESS: Self = Self { rows: usize::MAX, columns: usize::MAX };

    /// Whether no line of `page` is too long.
    fn holds(self, page: &str) -> bool {
        page.lines().all(|line| line.chars().count() <= self.columns)
    }
}

/// One line of the table, with its rank: if there is no room for all lines, those of the highest rank are left out
/// first.
struct Row {
    rank: u8,
    label: String,
    new: String,
    total: String,
    /// `total` with three digits.
    short: String,
}

/// The previous counters and the current ones.
struct Look<'a> {
    last: &'a Counts,
    now: &'a Counts,
    passed: Duration,
    rows: Vec<Row>,
}

impl Look<'_> {
    fn total(&self, name: &str) -> u64 {
        self.now.get(name).copied().unwrap_or(0)
    }

    fn grown(&self, name: &str) -> u64 {
        self.total(name).saturating_sub(self.last.get(name).copied().unwrap_or(0))
    }

    fn rate(&self, n: u64) -> f64 {
        n as f64 / self.passed.as_secs_f64()
    }

    /// Adds a count, which is never shown with a fraction.
    fn count(&mut self, rank: u8, label: &str, name: &str) {
        let rate = self.rate(self.grown(name));
        let new = if rate < 999.5 { format!("{rate:.0}") } else { text::quantity(rate) };
        let total = self.total(name);
        let (label, total, short) = (label.to_owned(), text::count(total), text::quantity(total as f64));
        self.rows.push(Row { rank, label, new, total, short });
    }

    /// Adds a byte count: bits per second, and the total in bytes.
    fn data(&mut self, rank: u8, label: &str, name: &str) {
        let bytes = self.total(name) as f64;
        let (new, total) = (with_unit(self.rate(self.grown(name)) * 8.0, "bit/s"), with_unit(bytes, "B"));
        self.rows.push(Row { rank, label: label.to_owned(), new, short: total.clone(), total });
    }

    fn ratio(&mut self, rank: u8, label: &str, what: &str, of: &[&str], show: fn(f64) -> String) {
        let one = |part: u64, whole: u64| if whole == 0 { "-".to_owned() } else { show(part as f64 / whole as f64) };
        let new = one(self.grown(what), of.iter().map(|name| self.grown(name)).sum());
        let total = one(self.total(what), of.iter().map(|name| self.total(name)).sum());
        self.rows.push(Row { rank, label: label.to_owned(), new, short: total.clone(), total });
    }
}

fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}

fn each(n: f64) -> String {
    if n < 99.95 { format!("{n:.1}") } else { text::quantity(n.round()) }
}

/// Formats the counters of a core, or the sums over several, as a table of rates over `passed` and totals, for a part of
/// a terminal of this size.
pub fn table(cores: usize, last: &Counts, now: &Counts, passed: Duration, size: Size) -> String {
    let mut look = Look { last, now, passed, rows: Vec::new() };
    look.data(0, "received", "port_rx_bytes");
    look.data(0, "sent", "port_tx_bytes");
    look.count(2, "packets received", "port_rx_frames");
    look.count(2, "packets sent", "port_tx_frames");
    look.count(3, "packets lost", "quic_lost_packets");
    look.data(4, "data retransmitted", "quic_bytes_resent");
    look.count(2, "handshakes", "quic_handshakes");
    let open = look.total("quic_connections");
    let (total, short) = (text::count(open), text::quantity(open as f64));
    look.rows.push(Row { rank: 1, label: "connections open".into(), new: String::new(), total, short });
    look.ratio(1, "time busy", "core_busy_cycles", &["core_cycles"], percent);
    // A core that waits for the ring is neither idle nor busy.
    look.ratio(1, "time blocked by the port", "core_blocked_cycles", &["core_cycles"], percent);
    look.ratio(5, "cycles per packet", "core_busy_cycles", &["port_rx_frames", "port_tx_frames"], each);
    look.ratio(6, "packets per rx burst", "port_rx_frames", &["core_rx_bursts"], each);
    look.ratio(6, "packets per tx burst", "port_tx_frames", &["core_tx_bursts"], each);
    look.count(6, "frames the port refused", "port_tx_full");
    let device = [
        ("missed by the port", "device_rx_missed"),
        ("frames without a buffer", "device_rx_no_buffer"),
        ("receive errors", "device_rx_errors"),
        ("send errors", "device_tx_errors"),
    ];
    for (label, name) in device.into_iter().filter(|(_, name)| now.get(name).is_some_and(|&n| n > 0)) {
        look.count(1, label, name);
    }
    look.count(7, "events", "core_events");
    look.count(7, "sleeps", "core_sleeps");
    let net = NetDrop::ALL.iter().map(|why| why.label());
    for name in net
        .chain(quic::DropReason::ALL.iter().map(|(_, name)| *name))
        .filter(|name| now.get(name).is_some_and(|&n| n > 0))
    {
        // Counter names are not prose.
        let why = name.trim_start_matches("quic_").replace('_', " ");
        look.count(3, &format!("dropped: {why}"), name);
    }
    let who = if cores == 1 { "core 0".to_owned() } else { format!("{cores} cores") };
    fit(&who, look.rows, size)
}

/// Lines that a list of cores leaves for the table of sums: its header, what was received and sent, and the number of
/// lines left out.
const TABLE: usize = 4;

/// Formats a line for each of several cores: rates over `passed`, and the number of connections. If there is no room for
/// all, the last ones are left out.
pub fn cores(last: &[Counts], now: &[Counts], passed: Duration, size: Size) -> String {
    // Besides the header.
    let room = size.rows.saturating_sub(TABLE + 1);
    let shown = if now.len() > room { room.saturating_sub(1) } else { now.len() };
    let cells: Vec<[String; 6]> = (0..shown)
        .map(|core| {
            let mut look = Look { last: &last[core], now: &now[core], passed, rows: Vec::new() };
            look.ratio(0, "busy", "core_busy_cycles", &["core_cycles"], percent);
            look.data(0, "received", "port_rx_bytes");
            look.data(0, "sent", "port_tx_bytes");
            look.count(0, "handed over", "core_handed_over");
            let connections = text::quantity(look.total("quic_connections") as f64);
            let [busy, received, sent, handed] = std::array::from_fn(|i| std::mem::take(&mut look.rows[i].new));
            [core.to_string(), busy, received, sent, connections, handed]
        })
        .collect();
    let wide = || text::table(&["core", "busy", "received", "sent", "connections", "handed over"], &cells);
    let narrow = || {
        let four = cells.iter().map(|[core, busy, received, sent, ..]| [core, busy, received, sent].map(Clone::clone));
        let cells: Vec<_> = four.collect();
        text::table(&["core", "busy", "received", "sent"], &cells)
    };
    let mut page = wide();
    if !size.holds(&page) {
        page = narrow();
    }
    if shown < now.len() {
        page.push_str(&format!("{} more cores in a taller window\n", now.len() - shown));
    }
    page
}

/// The rows that fit, in the widest form that fits.
fn fit(who: &str, mut rows: Vec<Row>, size: Size) -> String {
    let all = rows.len();
    // The header takes a line, and so does the note about missing ones.
    if all > size.rows.saturating_sub(1) {
        let room = size.rows.saturating_sub(2);
        while rows.len() > room
            && let Some(worst) = (0..rows.len()).rev().max_by_key(|&i| (rows[i].rank, i))
        {
            rows.remove(worst);
        }
    }
    let missing = all - rows.len();
    let three = |short: bool| {
        let cells: Vec<_> = rows
            .iter()
            .map(|r| [&r.label, &r.new, if short { &r.short } else { &r.total }].map(Clone::clone))
            .collect();
        text::table(&[who, "per second", "total"], &cells)
    };
    let two = || {
        // A row without a rate shows its total.
        let cells: Vec<_> = rows
            .iter()
            .map(|r| [&r.label, if r.new.is_empty() { &r.short } else { &r.new }].map(Clone::clone))
            .collect();
        text::table(&[who, "per second"], &cells)
    };
    let mut page = [three(false), three(true)].into_iter().find(|page| size.holds(page)).unwrap_or_else(two);
    if missing > 0 {
        page.push_str(&format!("{missing} more lines in a taller window\n"));
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(list: &[(&'static str, u64)]) -> Counts {
        list.iter().copied().collect()
    }

    fn row(page: &str, label: &str) -> String {
        let line = page.lines().find(|line| line.starts_with(label)).unwrap_or_else(|| panic!("{label}: {page}"));
        line[label.len()..].split_whitespace().collect::<Vec<_>>().join(" ")
    }

    /// Counters of a core, all of them in use.
    fn busy() -> (Counts, Counts) {
        let last = counts(&[
            ("port_rx_frames", 1000),
            ("core_busy_cycles", 5_000_000),
            ("core_cycles", 10_000_000),
            ("quic_handshakes", 3),
        ]);
        let now = counts(&[
            ("port_rx_frames", 3000),
            ("port_rx_bytes", 123_456_789_012),
            ("port_tx_frames", 2000),
            ("core_rx_bursts", 100),
            ("core_busy_cycles", 7_000_000),
            ("core_blocked_cycles", 9_000_000),
            ("core_cycles", 20_000_000),
            ("quic_handshakes", 10),
            ("quic_duplicate", 7),
            ("quic_connections", 3),
            ("device_rx_missed", 6),
        ]);
        (last, now)
    }

    #[test]
    fn rates_ratios_and_totals() {
        let (last, now) = busy();
        let page = table(1, &last, &now, Duration::from_secs(2), Size::ENDLESS);
        assert_eq!(row(&page, "received"), "494 Gbit/s 123 GB");
        assert_eq!(row(&page, "packets received"), "1.00 k 3,000");
        assert_eq!(row(&page, "cycles per packet"), "500 1.40 k", "2 M cycles for 4000 packets");
        assert_eq!(row(&page, "time busy"), "20.0 % 35.0 %");
        assert_eq!(row(&page, "packets per rx burst"), "20.0 30.0");
        assert_eq!(row(&page, "connections open"), "3");
        assert_eq!(row(&page, "missed by the port"), "3 6", "what never reached the core");
        assert!(!page.contains("dropped: malformed") && !page.contains("send errors"), "only what happened: {page}");
    }

    /// The view used to show "3.50 new" connections, "12 bit" without "per second", and fractions of packets.
    #[test]
    fn what_is_whole_is_shown_whole_and_rates_have_units() {
        let (last, now) = busy();
        let page = table(1, &last, &now, Duration::from_secs(2), Size::ENDLESS);
        assert_eq!(row(&page, "handshakes"), "4 10");
        assert_eq!(row(&page, "dropped: duplicate"), "4 7");
    }

    /// Turns that only found the ring full used to count as idle: 99.6 % of a sender's turns did.
    #[test]
    fn who_waits_for_the_ring_is_not_idle() {
        let (last, now) = busy();
        let page = table(1, &last, &now, Duration::from_secs(2), Size::ENDLESS);
        assert_eq!(row(&page, "time blocked by the port"), "90.0 % 45.0 %");
        assert!(!page.contains("idle"), "{page}");
    }

    #[test]
    fn a_narrow_terminal_shows_less_of_each_row_and_a_low_one_fewer() {
        let (last, now) = busy();
        let shown = |rows, columns| {
            let page = table(1, &last, &now, Duration::from_secs(1), Size { rows, columns });
            assert!(page.lines().count() <= rows, "{page}");
            assert!(page.lines().all(|line| line.chars().count() <= columns), "{page}");
            page
        };
        assert!(shown(100, 80).contains("3,000"));
        assert!(shown(100, 40).contains("per second"));
        for (rows, columns) in [(10, 40), (10, 80), (6, 40)] {
            let page = shown(rows, columns);
            for label in ["received", "sent"] {
                row(&page, label);
            }
            assert!(page.ends_with("more lines in a taller window\n"), "{page}");
        }
        let page = shown(10, 80);
        // Problems rank above the number of packets per burst.
        row(&page, "time blocked by the port");
        assert!(!page.contains("burst"), "{page}");
    }

    #[test]
    fn nothing_yet_is_no_division_by_zero() {
        let page = table(1, &Counts::new(), &Counts::new(), Duration::from_secs(1), Size::ENDLESS);
        assert!(page.contains("cycles per packet") && !page.contains("NaN") && !page.contains("inf"), "{page}");
    }

    #[test]
    fn each_core_and_the_sum_fit_into_a_small_terminal() {
        let (last, now) = busy();
        let mut other = now.clone();
        other.insert("core_busy_cycles", 5_000_000);
        other.insert("core_handed_over", 4000);
        for (count, rows, columns) in [(2, 100, 80), (4, 9, 40), (64, 9, 40), (8, 24, 80)] {
            let size = Size { rows, columns };
            let each: Vec<Counts> =
                (0..count).map(|core| if core == 1 { other.clone() } else { now.clone() }).collect();
            let list = cores(&vec![last.clone(); count], &each, Duration::from_secs(2), size);
            let rest = Size { rows: rows - list.lines().count(), ..size };
            let page = list + &table(count, &last, &now, Duration::from_secs(2), rest);
            assert!(page.lines().count() <= rows, "{page}");
            assert!(page.lines().all(|line| line.chars().count() <= columns), "{page}");
            let line = row(&page, "1 ");
            let want = if columns == 80 { "0.0 % 494 Gbit/s 0 bit/s 3 2.00 k" } else { "0.0 % 494 Gbit/s 0 bit/s" };
            assert_eq!(line, want, "{page}");
            assert!(page.contains(&format!("{count} cores ")) && page.contains("494 Gbit/s"), "{page}");
            assert_eq!(page.contains("more cores in a taller window"), count == 64, "{page}");
            row(&page, "sent");
        }
    }
}
