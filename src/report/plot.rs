//! The percentile plot, as SVG: each step to the right is one more nine, which gives the tail room.

use plotters::element::{Circle, PathElement, Text};
use plotters::prelude::{DrawingArea, IntoDrawingArea, SVGBackend};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{FontTransform, IntoFont, RGBColor, ShapeStyle, TextStyle};

use super::colours::COLOURS;
use super::{Series, text};

/// The height in units of half a pixel, which makes curves smooth although coordinates are integers.
const HEIGHT: u32 = 900;
/// The widths for desktops and for phones, where text of the same size takes a larger share.
const WIDTHS: [u32; 2] = [1920, 700];
const LEFT: f64 = 190.0;
/// The margin on the right: room for half of the last label.
const MARGIN: f64 = 90.0;
const TOP: f64 = 30.0;
const BOTTOM: f64 = 790.0;
const FONT: i32 = 30;
/// The approximate average width of a character; browsers choose the font.
const LETTER: f64 = 17.0;
/// The number of points in a curve over the full width.
const POINTS: u32 = 600;
/// The maximum number of nines shown: 10^9 samples.
const MAX_NINES: f64 = 9.0;

// Placeholders for CSS variables: SVG from plotters has fixed colours, but the page has a light and a dark set.
const INK: RGBColor = RGBColor(1, 2, 3);
const GRID: RGBColor = RGBColor(4, 5, 6);
const FAINT: RGBColor = RGBColor(7, 8, 9);
const fn series_colour(i: usize) -> RGBColor {
    RGBColor(16, 17, (i % COLOURS) as u8)
}

/// A value axis from `lo` to `hi` (nanoseconds), with the positions of lines and labels.
#[derive(Debug, PartialEq)]
struct Axis {
    log: bool,
    lo: f64,
    hi: f64,
    /// Lines with a label.
    major: Vec<f64>,
    /// Lines without.
    minor: Vec<f64>,
}

impl Axis {
    /// Creates an axis for values from `min` to `max` ns: logarithmic if they differ by a factor of 8 or more.
    fn covering(min: f64, max: f64) -> Self {
        let min = min.max(1.0);
        let max = max.max(min * 1.001);
        if max / min >= 8.0 { Self::logarithmic(min, max) } else { Self::linear(max) }
    }

    fn logarithmic(min: f64, max: f64) -> Self {
        let decades = min.log10().floor() as i32..=max.log10().ceil() as i32;
        let steps = |of: &[f64]| -> Vec<f64> {
            decades.clone().flat_map(|d| of.iter().map(move |s| s * 10f64.powi(d))).collect()
        };
        let nice = steps(&[1.0, 2.0, 5.0]);
        let lo = nice.iter().copied().rfind(|v| *v <= min).unwrap_or(min);
        let hi = nice.iter().copied().find(|v| *v >= max).unwrap_or(max);
        let shown = |v: &f64| (lo..=hi).contains(v);
        // Up to three decades have room for labels at 1, 2 and 5.
        let wide = hi / lo > 1001.0;
        let mut major = if wide { steps(&[1.0]) } else { nice };
        let mut minor = steps(&[2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0]);
        // The ends are always labelled.
        major.retain(|v| *v > lo && *v < hi);
        major.insert(0, lo);
        major.push(hi);
        minor.retain(|v| shown(v) && !major.contains(v));
        Self { log: true, lo, hi, major, minor }
    }

    fn linear(max: f64) -> Self {
        let raw = max / 5.0;
        let scale = 10f64.powf(raw.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].map(|s| s * scale).into_iter().find(|s| *s >= raw).unwrap_or(raw);
        let lines = (max / step).ceil() as u32;
        let major = (0..=lines).map(|i| f64::from(i) * step).collect();
        Self { log: false, lo: 0.0, hi: f64::from(lines) * step, major, minor: Vec::new() }
    }

    /// The position of `ns` between `lo` (0) and `hi` (1).
    fn position(&self, ns: f64) -> f64 {
        let p = if self.log {
            (ns.max(1.0) / self.lo).log10() / (self.hi / self.lo).log10()
        } else {
            (ns - self.lo) / (self.hi - self.lo)
        };
        p.clamp(0.0, 1.0)
    }
}

/// `0%`, `90%`, `99%`, `99.9%` ...
fn nines(n: u32) -> String {
    match n {
        0 => "0%".into(),
        1 => "90%".into(),
        2 => "99%".into(),
        n => format!("99.{}%", "9".repeat(n as usize - 2)),
    }
}

/// The share of samples at `x` nines.
fn share(x: f64) -> f64 {
    1.0 - 10f64.powf(-x)
}

/// The number of nines that `count` samples support: the maximum of 1000 samples is at three.
fn depth(count: u64) -> f64 {
    (count.max(1) as f64).log10().min(MAX_NINES)
}

/// The plot.
struct Plot<'a> {
    area: DrawingArea<SVGBackend<'a>, plotters::coord::Shift>,
    width: u32,
    axis: &'a Axis,
    /// The number of nines at the right edge.
    depth: f64,
}

type Drawn = Result<(), plotters::drawing::DrawingAreaErrorKind<std::io::Error>>;

/// The percentile plot of all non-empty series, wide and narrow, as `<svg>` elements with the CSS variables `--ink`,
/// `--grid`, `--faint` and `--s0` to `--s7` as colours; `None` if all are empty. `colour` returns the colour number of
/// each series.
pub fn percentiles(series: &[Series], colour: impl Fn(usize) -> usize) -> Option<[String; 2]> {
    let filled: Vec<(usize, &Series)> =
        series.iter().enumerate().filter(|(_, s)| s.latency.count() > 0).map(|(i, s)| (colour(i), s)).collect();
    let sums: Vec<_> = filled.iter().map(|(_, s)| s.latency.summary()).collect();
    let axis = Axis::covering(sums.iter().map(|s| s.min).min()? as f64, sums.iter().map(|s| s.max).max()? as f64);
    let depth = sums.iter().map(|s| depth(s.count)).fold(1.0, f64::max);
    let [wide, narrow] = WIDTHS.map(|width| {
        let mut svg = String::new();
        let area = SVGBackend::with_string(&mut svg, (width, HEIGHT)).into_drawing_area();
        // Drawing to memory fails only if out of memory.
        Plot { area, width, axis: &axis, depth }.draw(&filled).ok()?;
        Some(themed(svg))
    });
    Some([wide?, narrow?])
}

impl Plot<'_> {
    fn draw(&self, series: &[(usize, &Series)]) -> Drawn {
        self.grid()?;
        for (colour, s) in series {
            self.curve(*colour, s)?;
        }
        self.area.present()
    }

    fn right(&self) -> f64 {
        f64::from(self.width) - MARGIN
    }

    fn x(&self, nines: f64) -> i32 {
        (LEFT + (self.right() - LEFT) * (nines / self.depth).clamp(0.0, 1.0)) as i32
    }

    fn y(&self, ns: f64) -> i32 {
        (BOTTOM - (BOTTOM - TOP) * self.axis.position(ns)) as i32
    }

    fn grid(&self) -> Drawn {
        let (left, right, top, bottom) = (LEFT as i32, self.right() as i32, TOP as i32, BOTTOM as i32);
        for ns in &self.axis.minor {
            self.line(vec![(left, self.y(*ns)), (right, self.y(*ns))], FAINT, 1)?;
        }
        for ns in &self.axis.major {
            let y = self.y(*ns);
            self.line(vec![(left, y), (right, y)], GRID, 2)?;
            self.text(text::time(*ns).replace(".00 ", " ").replace(".0 ", " "), (left - 16, y), HPos::Right)?;
        }
        let half = |label: &str| label.chars().count() as f64 * LETTER / 2.0;
        // The 50 % label is shown where those of 0 and 90 % are far enough apart.
        let mut labels: Vec<(f64, String)> = (0..=self.depth as u32).map(|n| (f64::from(n), nines(n))).collect();
        labels.insert(1, (-0.5f64.log10(), "50%".into()));
        let mut used = f64::MIN;
        for (at, label) in labels {
            let x = self.x(at);
            let whole = at.fract() == 0.0;
            self.line(vec![(x, top), (x, bottom)], if whole { GRID } else { FAINT }, if whole { 2 } else { 1 })?;
            let half = half(&label);
            if f64::from(x) - half > used + LETTER {
                used = f64::from(x) + half;
                self.text(label, (x, bottom + 34), HPos::Center)?;
            }
        }
        let title = if right - left > 1000 { "percentile: share of samples that took no longer" } else { "percentile" };
        self.text(title.into(), ((left + right) / 2, bottom + 86), HPos::Center)?;
        let upright = TextStyle::from(("sans-serif", FONT).into_font().transform(FontTransform::Rotate270));
        let style = upright.color(&INK).pos(Pos::new(HPos::Center, VPos::Center));
        self.area.draw(&Text::new("time".to_string(), (24, (top + bottom) / 2), style))
    }

    /// The curve of a series, with dots at the percentiles that tables show and at the maximum.
    fn curve(&self, colour: usize, s: &Series) -> Drawn {
        let end = depth(s.latency.count());
        let at = |x: f64| (self.x(x), self.y(s.latency.quantile(if x >= end { 1.0 } else { share(x) }) as f64));
        let points = f64::from(POINTS) * end / self.depth;
        let mut path: Vec<(i32, i32)> = (0..=points as u32).map(|n| at(f64::from(n) / points.max(1.0) * end)).collect();
        path.push(at(end));
        path.dedup();
        self.line(path, series_colour(colour), 5)?;
        let dots = [-0.5f64.log10(), 1.0, 2.0, 3.0, 4.0].into_iter().filter(|x| *x < end).chain([end]);
        for x in dots {
            // Series beyond the last colour have open dots.
            let style = ShapeStyle { color: series_colour(colour).into(), filled: colour < COLOURS, stroke_width: 4 };
            self.area.draw(&Circle::new(at(x), 8, style))?;
        }
        Ok(())
    }

    fn line(&self, points: Vec<(i32, i32)>, colour: RGBColor, stroke_width: u32) -> Drawn {
        self.area.draw(&PathElement::new(points, ShapeStyle { color: colour.into(), filled: false, stroke_width }))
    }

    fn text(&self, text: String, at: (i32, i32), h: HPos) -> Drawn {
        let style = TextStyle::from(("sans-serif", FONT).into_font()).color(&INK).pos(Pos::new(h, VPos::Center));
        self.area.draw(&Text::new(text, at, style))
    }
}

/// Replaces placeholder colours by CSS variables. Within HTML, SVG needs no namespace.
fn themed(svg: String) -> String {
    let mut svg = svg.replace(" xmlns=\"http://www.w3.org/2000/svg\"", "");
    let named = [(INK, "ink".to_string()), (GRID, "grid".into()), (FAINT, "faint".into())];
    let all = named.into_iter().chain((0..COLOURS).map(|i| (series_colour(i), format!("s{i}"))));
    for (RGBColor(r, g, b), name) in all {
        for property in ["fill", "stroke"] {
            let fixed = format!("{property}=\"#{r:02X}{g:02X}{b:02X}\"");
            svg = svg.replace(&fixed, &format!("style=\"{property}:var(--{name})\""));
        }
    }
    svg
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Latency;

    fn series(range: std::ops::Range<u64>) -> Series {
        let mut l = Latency::new();
        range.for_each(|n| l.record(n));
        Series::new("s", l)
    }

    #[test]
    fn axes_cover_their_values_with_round_numbers() {
        let a = Axis::covering(12_000.0, 84_000.0);
        assert_eq!((a.log, a.lo, a.hi), (false, 0.0, 100_000.0));
        assert_eq!(a.major, [0.0, 20_000.0, 40_000.0, 60_000.0, 80_000.0, 100_000.0]);
        let a = Axis::covering(1200.0, 84_000.0);
        assert_eq!((a.log, a.lo, a.hi), (true, 1000.0, 100_000.0));
        assert_eq!(a.major.iter().map(|v| v.round()).collect::<Vec<_>>(), [1e3, 2e3, 5e3, 1e4, 2e4, 5e4, 1e5]);
        let a = Axis::covering(0.0, 3.6e12);
        assert!(a.major.len() <= 14 && a.lo <= 1.0 && a.hi >= 3.6e12, "{a:?}");
        let a = Axis::covering(5.0, 5.0);
        assert!(a.position(0.0) == 0.0 && a.position(5.0) > 0.5 && a.position(1e9) == 1.0, "{a:?}");
    }

    #[test]
    fn nines_are_spelled_out() {
        assert_eq!([0, 1, 2, 3, 5].map(nines), ["0%", "90%", "99%", "99.9%", "99.999%"]);
        assert_eq!((depth(0), depth(1), depth(1000)), (0.0, 0.0, 3.0));
        assert!((share(3.0) - 0.999).abs() < 1e-12);
    }

    #[test]
    fn every_filled_series_has_a_curve_in_its_colour() {
        let all = [series(1000..2000), Series::new("none", Latency::new()), series(50_000..150_000)];
        for svg in percentiles(&all, |i| i).unwrap() {
            assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
            for (colour, there) in [(0, true), (1, false), (2, true)] {
                assert_eq!(svg.contains(&format!("stroke:var(--s{colour})")), there, "series {colour}");
            }
            assert!(svg.contains("<text") && svg.contains("\n0%\n") && svg.contains("10 µs"), "axis labels");
            assert!(svg.contains("\ntime\n") && svg.contains("\npercentile"), "axis titles");
            assert!(!svg.contains("#0"), "no colour is left that the page cannot set");
        }
    }

    /// The labels below the plot, with the positions of their centres.
    fn labels(svg: &str) -> Vec<(f64, String)> {
        let mut all = Vec::new();
        for text in svg.split("<text ").skip(1) {
            let value = |name: &str| text.split_once(&format!("{name}=\"")).unwrap().1.split_once('"').unwrap().0;
            let words = text.split_once('>').unwrap().1.split_once('<').unwrap().0.trim();
            if value("text-anchor") == "middle" && words.ends_with('%') {
                all.push((value("x").parse().unwrap(), words.to_string()));
            }
        }
        all
    }

    #[test]
    fn labels_are_inside_and_do_not_touch() {
        for count in [1u64, 2, 40, 1_000_000, 10_000_000, 999_999_999] {
            let mut l = Latency::new();
            l.record_corrected(count, 1);
            for (svg, width) in percentiles(&[Series::new("s", l.clone())], |i| i).unwrap().iter().zip(WIDTHS) {
                let mut end = 0.0;
                let labels = labels(svg);
                assert!(labels.len() > 1, "{labels:?}");
                for (x, label) in labels {
                    let half = label.len() as f64 * LETTER / 2.0;
                    assert!(x - half >= end && x + half <= f64::from(width), "{count}, {width}: {label} at {x}");
                    end = x + half;
                }
            }
        }
    }

    #[test]
    fn nothing_and_single_values_do_not_break_it() {
        assert_eq!(percentiles(&[], |i| i), None);
        assert_eq!(percentiles(&[Series::new("none", Latency::new())], |i| i), None);
        assert!(percentiles(&[series(0..1)], |i| i).is_some());
        assert!(percentiles(&[series(u64::MAX - 1..u64::MAX)], |i| i).is_some());
    }
}
