//! Renders a report as one self-contained HTML page: no scripts, no fonts, nothing from the network.

use std::fmt::Write;

use super::colours::{COLOURS, Palette};
use super::{Bar, Series, plot, text};

const STYLE: &str = include_str!("style.css");

/// The contents of a page. Empty sections are omitted.
#[derive(Clone, Debug, Default)]
pub struct ReportInput {
    /// The heading.
    pub title: String,
    /// Latency series.
    pub series: Vec<Series>,
    /// Throughput.
    pub throughput: Vec<Bar>,
    /// Facts about the machine and the run.
    pub facts: Vec<(String, String)>,
}

/// Renders the page.
pub fn render(input: &ReportInput) -> String {
    let title = escape(&input.title);
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>{title}</title>\n<style>\n{STYLE}</style>\n\
         </head>\n<body>\n<main>\n<h1>{title}</h1>\n"
    );
    // For times lower is better, for rates higher: they get separate headings.
    let (times, rates): (Vec<&Bar>, Vec<&Bar>) = input.throughput.iter().partition(|bar| bar.unit.starts_with("ns"));
    let palette = Palette::new(&input.series, &input.throughput);
    let bars = [bars("Throughput", &rates, &palette), bars("Time", &times, &palette)];
    for section in [latency(&input.series, &palette), bars.concat(), facts(&input.facts)] {
        page.push_str(&section);
    }
    page.push_str("</main>\n</body>\n</html>\n");
    page
}

/// Legend, plot and table.
fn latency(series: &[Series], palette: &Palette) -> String {
    if series.is_empty() {
        return String::new();
    }
    let mut out = String::from("<section>\n<h2>Latency</h2>\n");
    let of = |i: usize| palette.series(i);
    if let Some([wide, narrow]) = plot::percentiles(series, of) {
        let legend: String =
            series.iter().enumerate().map(|(i, s)| format!("<li>{}</li>\n", named(of(i), &s.name))).collect();
        let _ = write!(
            out,
            "<ul class=\"legend\">\n{legend}</ul>\n<figure>\n<div class=\"for-desks\">{wide}</div>\n\
             <div class=\"for-phones\">{narrow}</div>\n<figcaption>Each step to the right is one more nine. A curve \
             ends at its longest sample; dots mark the percentiles of the table.</figcaption>\n</figure>\n"
        );
    }
    out.push_str("<div class=\"wide\">\n<table>\n<thead><tr>");
    for head in text::SUMMARY_HEAD {
        let _ = write!(out, "<th>{head}</th>");
    }
    out.push_str("</tr></thead>\n<tbody>\n");
    for (i, (row, s)) in text::summary_rows(series).iter().zip(series).enumerate() {
        let _ = write!(out, "<tr><td>{}{}</td>", named(of(i), &s.name), pace(s));
        for cell in &row[1..] {
            let _ = write!(out, "<td>{cell}</td>");
        }
        out.push_str("</tr>\n");
    }
    out.push_str("</tbody>\n</table>\n</div>\n</section>\n");
    out
}

/// A series' colour and name.
fn named(i: usize, name: &str) -> String {
    let (colour, open) = (i % COLOURS, if i < COLOURS { "" } else { " open" });
    format!("<i class=\"dot{open}\" style=\"--c:var(--s{colour})\"></i>{}", escape(name))
}

/// The duration and rate of a series, if known.
fn pace(s: &Series) -> String {
    let secs = s.duration.as_secs_f64();
    if secs <= 0.0 {
        return String::new();
    }
    let rate = text::quantity(s.latency.count() as f64 / secs);
    format!("<small>{} at {rate}/s</small>", text::time(secs * 1e9))
}

/// Bars, grouped by unit, each group with its own scale. A line across the end of a bar shows the range of its repeats.
fn bars(title: &str, bars: &[&Bar], palette: &Palette) -> String {
    let mut units: Vec<&str> = Vec::new();
    for bar in bars {
        if !units.contains(&bar.unit.as_str()) {
            units.push(&bar.unit);
        }
    }
    let mut out = String::new();
    for unit in units {
        let group = || bars.iter().filter(|b| b.unit == unit);
        let max = group().map(|b| b.spread.map_or(b.value, |(_, max)| max)).fold(f64::MIN_POSITIVE, f64::max);
        let percent = |v: f64| (v / max * 100.0).clamp(0.0, 100.0);
        let _ = write!(out, "<h3>{}</h3>\n<div class=\"bars\">\n", escape(unit));
        for bar in group() {
            let (mut line, mut range) = (String::new(), String::new());
            if let Some((least, most)) = bar.spread {
                let (from, to) = (percent(least), percent(most));
                let _ = write!(line, "<i style=\"left:{from:.1}%;width:{:.1}%\"></i>", to - from);
                let _ = write!(range, " <small>{} to {}</small>", text::amount(least, unit), text::amount(most, unit));
            }
            let _ = writeln!(
                out,
                "<span>{}</span><div><b style=\"width:{:.1}%;--c:var(--s{})\"></b>{line}</div><span>{}{range}</span>",
                escape(&bar.label),
                percent(bar.value),
                palette.bar(bar) % COLOURS,
                escape(&text::amount(bar.value, unit)),
            );
        }
        out.push_str("</div>\n");
    }
    if out.is_empty() { out } else { format!("<section>\n<h2>{title}</h2>\n{out}</section>\n") }
}

fn facts(facts: &[(String, String)]) -> String {
    if facts.is_empty() {
        return String::new();
    }
    let rows: String = facts.iter().map(|(k, v)| format!("<dt>{}</dt><dd>{}</dd>\n", escape(k), escape(v))).collect();
    format!("<section>\n<h2>Measured on</h2>\n<dl>\n{rows}</dl>\n</section>\n")
}

/// Escapes `s` for HTML elements and attributes.
fn escape(s: &str) -> String {
    let mut out = String::with_capacity(s.len());
    for c in s.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Latency;
    use std::time::{Duration, SystemTime};

    fn bar(label: &str, value: f64, unit: &str) -> Bar {
        Bar::new(label, value, unit)
    }

    fn input() -> ReportInput {
        let mut l = Latency::new();
        (1..=10_000).for_each(|n| l.record(n * 10));
        let run = Series::new("one <b>", l).recorded(SystemTime::UNIX_EPOCH, Duration::from_secs(2));
        ReportInput {
            title: "a & b".into(),
            series: vec![run, Series::new("two", Latency::new())],
            throughput: vec![bar("down", 20.0, "Gbit/s"), bar("up", 5.0, "Gbit/s"), bar("rps", 1e6, "requests/s")],
            facts: vec![("CPU".into(), "\"x\"".into())],
        }
    }

    #[test]
    fn everything_is_there_and_escaped() {
        let page = render(&input());
        for part in [
            "<title>a &amp; b</title>",
            "one &lt;b&gt;",
            "<small>2.00 s at 5.00 k/s</small>",
            "<td>10,000</td>",
            "<svg",
            "width:25.0%",
            "<h3>requests/s</h3>",
            "<dt>CPU</dt><dd>&quot;x&quot;</dd>",
        ] {
            assert!(page.contains(part), "{part} is missing");
        }
        assert!(!page.contains("one <b>") && !page.contains("<h2>Time</h2>"));
        let mut timed = input();
        timed.throughput.push(bar("seal", 95.0, "ns per packet"));
        let page = render(&timed);
        let stages = page.split_once("<h2>Time</h2>").map(|(_, rest)| rest.contains("ns per packet"));
        assert_eq!(stages, Some(true), "times have a heading of their own");
        assert!(!page.contains("://") && !page.contains("<script") && !page.contains("src="), "self-contained");
    }

    #[test]
    fn repeats_are_shown_with_their_spread_and_stacks_in_their_colour() {
        let throughput = vec![
            Bar { spread: Some((20.0, 40.0)), ..bar("ours", 30.0, "Gbit/s") },
            Bar { stack: "quinn".into(), ..bar("theirs", 10.0, "Gbit/s") },
            bar("ours", 1_950_000.0, "requests/s, one server core"),
        ];
        let page = render(&ReportInput { throughput, ..ReportInput::default() });
        for part in [
            "width:75.0%;--c:var(--s0)",
            "<i style=\"left:50.0%;width:50.0%\"></i>",
            "30 <small>20 to 40</small>",
            "width:25.0%;--c:var(--s1)",
            "width:100.0%;--c:var(--s0)",
            "1.95 M",
        ] {
            assert!(page.contains(part), "{part} is missing in {page}");
        }
    }

    #[test]
    fn tags_are_balanced() {
        let page = render(&input());
        for tag in
            ["html", "main", "section", "table", "tr", "td", "th", "div", "ul", "li", "svg", "text", "dl", "figure"]
        {
            let opened = page.matches(&format!("<{tag}>")).count() + page.matches(&format!("<{tag} ")).count();
            assert_eq!(opened, page.matches(&format!("</{tag}>")).count(), "<{tag}>");
        }
    }

    #[test]
    fn empty_sections_are_left_out() {
        let page = render(&ReportInput { title: "t".into(), ..Default::default() });
        assert!(!page.contains("<section") && page.contains("<h1>t</h1>"));
        let odd = ReportInput { throughput: vec![bar("x", f64::NAN, "u"), bar("y", -1.0, "u")], ..Default::default() };
        assert!(render(&odd).contains("width:0.0%"));
    }
}
