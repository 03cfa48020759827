//! The course of cells as a picture: rate, congestion window and round-trip time over time.

use std::path::{Path, PathBuf};

use gannet::report::file::write_atomically;
use plotters::coord::Shift;
use plotters::prelude::{
    ChartBuilder, Color, DrawingArea, IntoDrawingArea, LineSeries, PathElement, RGBColor, SVGBackend, WHITE,
};

use super::cell::Course;
use super::end::View;
use super::scenario::Scenario;
use super::world::TICK;
use crate::Failure;

/// The size of the picture.
const SIZE: (u32, u32) = (1200, 1100);

/// Colours that can be told apart (Okabe and Ito).
const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(230, 159, 0),
    RGBColor(60, 60, 60),
];

/// The number of ticks whose bytes make one point of the rate.
const SPAN: usize = 10;

/// A line: its name and its points.
type Line = (String, Vec<(f64, f64)>);

/// Writes the picture of the cells of a scenario, with the names of their stacks. Returns its path.
///
/// # Errors
/// If it cannot be written.
pub fn write(dir: &Path, scenario: &Scenario, cells: &[(&str, Course)]) -> Result<PathBuf, Failure> {
    let path = dir.join(format!("wan-{}.svg", scenario.name));
    write_atomically(&path, render(scenario, cells)?.as_bytes())?;
    Ok(path)
}

fn render(scenario: &Scenario, cells: &[(&str, Course)]) -> Result<String, Failure> {
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        area.fill(&WHITE).map_err(failure)?;
        let panels = area.split_evenly((3, 1));
        let name = &scenario.name;
        panel(&panels[0], &format!("{name}: goodput, Mbit/s"), &lines(cells, rate))?;
        panel(&panels[1], "congestion window, KiB", &lines(cells, |s| views(s, |v| v.window as f64 / 1024.0)))?;
        panel(&panels[2], "smoothed RTT, ms", &lines(cells, |s| views(s, |v| v.rtt.as_secs_f64() * 1e3)))?;
        area.present().map_err(failure)?;
    }
    Ok(svg)
}

fn failure(error: impl std::fmt::Display) -> Failure {
    format!("cannot draw: {error}").into()
}

/// The lines of all flows of all cells.
fn lines(cells: &[(&str, Course)], points: impl Fn(&[(u64, View)]) -> Vec<(f64, f64)>) -> Vec<Line> {
    let mut lines = Vec::new();
    for (name, course) in cells {
        for (i, flow) in course.flows.iter().enumerate() {
            let name = if course.flows.len() > 1 { format!("{name}, flow {}", i + 1) } else { (*name).to_owned() };
            lines.push((name, points(flow)));
        }
    }
    lines
}

fn seconds(tick: usize) -> f64 {
    TICK.as_secs_f64() * tick as f64
}

fn rate(samples: &[(u64, View)]) -> Vec<(f64, f64)> {
    let ends = (SPAN..samples.len()).step_by(SPAN);
    ends.map(|i| (seconds(i), (samples[i].0 - samples[i - SPAN].0) as f64 * 8.0 / 1e6 / seconds(SPAN))).collect()
}

fn views(samples: &[(u64, View)], value: impl Fn(&View) -> f64) -> Vec<(f64, f64)> {
    samples.iter().enumerate().map(|(i, (_, view))| (seconds(i + 1), value(view))).collect()
}

fn panel(area: &DrawingArea<SVGBackend<'_>, Shift>, title: &str, lines: &[Line]) -> Result<(), Failure> {
    let all = || lines.iter().flat_map(|(_, points)| points);
    let right = all().map(|point| point.0).fold(0.1, f64::max);
    let top = all().map(|point| point.1).fold(1e-3, f64::max) * 1.05;
    let mut chart = ChartBuilder::on(area)
        .caption(title, ("sans-serif", 20))
        .margin(10)
        .x_label_area_size(30)
        .y_label_area_size(70)
        .build_cartesian_2d(0.0..right, 0.0..top)
        .map_err(failure)?;
    chart.configure_mesh().x_desc("s").light_line_style(WHITE).draw().map_err(failure)?;
    for (i, (name, points)) in lines.iter().enumerate() {
        let colour = COLOURS[i % COLOURS.len()];
        let drawn = chart.draw_series(LineSeries::new(points.iter().copied(), &colour)).map_err(failure)?;
        drawn.label(name.clone()).legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], colour));
    }
    chart.configure_series_labels().background_style(WHITE.mix(0.8)).draw().map_err(failure)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wan::cell::Figures;
    use crate::wan::scenario::path;

    #[test]
    fn every_flow_has_a_line_in_each_panel() {
        let view = View { window: 1 << 20, rtt: TICK };
        let flow: Vec<_> = (0..100u64).map(|i| (i * 100_000, view)).collect();
        // 100 kB in 10 ms.
        assert!(rate(&flow).iter().all(|point| (point.1 - 80.0).abs() < 1e-9));
        let course = Course { figures: Figures::default(), flows: vec![flow.clone(), flow], ended: None };
        let svg = render(&path("some_path", 100, 20, 1.0), &[("gannet.cubic", course)]).unwrap();
        assert_eq!(svg.matches("gannet.cubic, flow 2").count(), 3);
        assert!(svg.contains("some_path") && svg.ends_with("</svg>\n"));
    }
}
