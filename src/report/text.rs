//! Human-readable numbers and tables.

use super::Series;

/// Formats `ns` nanoseconds with a unit and three significant digits: `870 ns`, `12.3 µs`, `1.24 ms`, `3.50 s`.
pub fn time(ns: f64) -> String {
    let units = [("ns", 1.0), ("µs", 1e3), ("ms", 1e6), ("s", 1e9)];
    scaled(ns, &units).unwrap_or_else(|| format!("{ns:.0} ns"))
}

/// Formats a quantity with three significant digits: `870`, `12.3 k`, `1.24 M`.
pub fn quantity(n: f64) -> String {
    let units = [("", 1.0), (" k", 1e3), (" M", 1e6), (" G", 1e9), (" T", 1e12)];
    scaled(n, &units).unwrap_or_else(|| format!("{n}")).replace("  ", " ").trim_end().to_string()
}

/// Formats a quantity with a unit, which takes the prefix: `870 B`, `12.3 Mbit/s`.
pub fn with_unit(n: f64, unit: &str) -> String {
    let number = quantity(n);
    let gap = if number.ends_with(|c: char| c.is_ascii_digit()) { " " } else { "" };
    format!("{number}{gap}{unit}")
}

/// Formats a figure for display next to `unit`: with a prefix (`1.95 M`) if the unit is a plain rate such as
/// `requests/s`, and without one if it has a prefix itself (`Gbit/s`, `ns`).
pub fn amount(n: f64, unit: &str) -> String {
    let base = unit.split([' ', ',']).next().unwrap_or_default();
    if base.ends_with("/s") && !base.contains("bit") && !base.contains('B') { quantity(n) } else { plain(n) }
}

/// Formats a number with three significant digits, but all digits before the decimal point, with thousands separators:
/// `0.123`, `12.3`, `1,234`.
pub fn plain(n: f64) -> String {
    if !(0.0..1e15).contains(&n) {
        return format!("{n}");
    }
    match n {
        _ if n.fract() == 0.0 || n >= 99.95 => count(n.round() as u64),
        _ if n >= 9.995 => format!("{n:.1}"),
        _ if n >= 0.9995 => format!("{n:.2}"),
        _ => format!("{n:.3}"),
    }
}

/// Formats `n` with three significant digits in a suitable unit; `None` if it is negative or not finite.
fn scaled(n: f64, units: &[(&str, f64)]) -> Option<String> {
    if !n.is_finite() || n < 0.0 {
        return None;
    }
    // Values just below a unit round up to it: 999.6 ns is 1.00 µs.
    let (unit, scale) = *units.iter().rev().find(|(_, scale)| n >= scale * 0.9995).or(units.first())?;
    let v = n / scale;
    let whole = n.fract() == 0.0 && scale == 1.0;
    let digits = match v {
        _ if whole || v >= 99.95 => 0,
        v if v >= 9.995 => 1,
        _ => 2,
    };
    Some(format!("{v:.digits$} {unit}"))
}

/// Formats an integer with thousands separators: `1,234,567`.
pub fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() * 4 / 3);
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}

/// The column headers of [`summary_rows`].
pub const SUMMARY_HEAD: [&str; 10] = ["series", "count", "min", "mean", "p50", "p90", "p99", "p99.9", "p99.99", "max"];

/// One row of cells per series; `-` for percentiles that its number of samples does not support.
pub fn summary_rows(series: &[Series]) -> Vec<[String; 10]> {
    series
        .iter()
        .map(|s| {
            let t = s.latency.summary();
            let ns = |n: u64| if t.count == 0 { "-".into() } else { time(n as f64) };
            let part = |p: Option<u64>| p.map_or("-".into(), |ns| time(ns as f64));
            let mean = if t.count == 0 { "-".into() } else { time(t.mean) };
            let (name, n) = (s.name.clone(), count(t.count));
            let parts = [t.p50, t.p90, t.p99, t.p999, t.p9999].map(part);
            let [p50, p90, p99, p999, p9999] = parts;
            [name, n, ns(t.min), mean, p50, p90, p99, p999, p9999, ns(t.max)]
        })
        .collect()
}

/// The summaries of all series as an aligned table, ending with a newline.
pub fn summary_table(series: &[Series]) -> String {
    table(&SUMMARY_HEAD, &summary_rows(series))
}

/// Aligns `rows` under `head`: the first column to the left, the others to the right.
pub fn table<const N: usize>(head: &[&str; N], rows: &[[String; N]]) -> String {
    let width = |s: &str| s.chars().count();
    let mut widths = head.map(width);
    for row in rows {
        for (w, cell) in widths.iter_mut().zip(row) {
            *w = (*w).max(width(cell));
        }
    }
    let mut out = String::new();
    let head = head.map(String::from);
    for row in std::iter::once(&head).chain(rows) {
        let cells: Vec<String> = row
            .iter()
            .zip(widths)
            .enumerate()
            .map(|(i, (cell, w))| if i == 0 { format!("{cell:<w$}") } else { format!("{cell:>w$}") })
            .collect();
        out.push_str(cells.join("  ").trim_end());
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Latency;

    #[test]
    fn times_have_three_digits_and_a_unit() {
        for (ns, want) in [
            (0.0, "0 ns"),
            (870.0, "870 ns"),
            (12.34, "12.3 ns"),
            (999.6, "1.00 µs"),
            (1000.0, "1.00 µs"),
            (12_345.0, "12.3 µs"),
            (99_960.0, "100 µs"),
            (999_400.0, "999 µs"),
            (1_240_000.0, "1.24 ms"),
            (3.5e9, "3.50 s"),
            (3.6e12, "3600 s"),
        ] {
            assert_eq!(time(ns), want);
        }
        assert_eq!(time(f64::NAN), "NaN ns");
        assert_eq!(quantity(870.0), "870");
        assert_eq!(quantity(12.3456), "12.3");
        assert_eq!(quantity(12_345.0), "12.3 k");
        assert_eq!(quantity(1.24e6), "1.24 M");
    }

    #[test]
    fn amounts_have_one_prefix() {
        for (n, unit, want) in [
            (1_950_000.0, "requests/s, one server core", "1.95 M"),
            (14_355.0, "handshakes/s", "14.4 k"),
            (40.23, "Gbit/s", "40.2"),
            (1950.0, "Gbit/s", "1,950"),
            (229.4, "ns per packet", "229"),
            (0.4163, "of the limit", "0.416"),
        ] {
            assert_eq!(amount(n, unit), want, "{unit}");
        }
        assert_eq!(with_unit(870.0, "bit/s"), "870 bit/s");
        assert_eq!(with_unit(12_345_678.0, "bit/s"), "12.3 Mbit/s");
        assert_eq!([plain(0.0), plain(9.999), plain(f64::NAN), plain(-1.0)], ["0", "10.0", "NaN", "-1"]);
    }

    #[test]
    fn counts_are_grouped() {
        for (n, want) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(count(n), want);
        }
    }

    #[test]
    fn the_table_is_aligned() {
        let mut fast = Latency::new();
        (1..=1000).for_each(|n| fast.record(n * 100));
        let series = [Series::new("a long name", fast), Series::new("none", Latency::new())];
        let t = summary_table(&series);
        let lines: Vec<&str> = t.lines().collect();
        assert_eq!(lines.len(), 3);
        assert!(lines[0].starts_with("series       count"), "{t}");
        assert!(lines[1].starts_with("a long name  1,000") && lines[1].contains("µs"), "{t}");
        assert!(lines[2].ends_with('-'), "{t}");
        let ends: Vec<usize> = lines.iter().map(|l| l.chars().count()).collect();
        assert!(ends.iter().all(|e| *e == ends[0]), "{t}");
    }
}
