//! Machine-readable reports.

use gannet::report::{ReportInput, Series};
use serde_json::{Value, json};

/// The header of the CSV.
const HEAD: [&str; 11] =
    ["series", "count", "min_ns", "mean_ns", "p50_ns", "p90_ns", "p99_ns", "p999_ns", "p9999_ns", "max_ns", "seconds"];

/// One line per series. Percentiles that the number of samples does not support are empty.
///
/// # Errors
/// None in practice, as it writes to memory.
pub fn csv(series: &[Series]) -> Result<String, csv::Error> {
    let mut out = csv::Writer::from_writer(Vec::new());
    out.write_record(HEAD)?;
    for s in series {
        let t = s.latency.summary();
        let some = |n: u64| if t.count == 0 { String::new() } else { n.to_string() };
        let part = |p: Option<u64>| p.map_or_else(String::new, |ns| ns.to_string());
        let mean = if t.count == 0 { String::new() } else { format!("{:.1}", t.mean) };
        let seconds = if s.duration.is_zero() { String::new() } else { s.duration.as_secs_f64().to_string() };
        let [p50, p90, p99, p999, p9999] = [t.p50, t.p90, t.p99, t.p999, t.p9999].map(part);
        let (name, count) = (s.name.clone(), t.count.to_string());
        out.write_record([name, count, some(t.min), mean, p50, p90, p99, p999, p9999, some(t.max), seconds])?;
    }
    let bytes = out.into_inner().map_err(|e| csv::Error::from(std::io::Error::other(e.to_string())))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The whole report as one object. Times are in nanoseconds; percentiles that the number of samples does not support
/// are null.
pub fn json(input: &ReportInput, run: Value) -> String {
    let series: Vec<Value> = input
        .series
        .iter()
        .map(|s| json!({ "name": s.name, "seconds": s.duration.as_secs_f64(), "latency_ns": s.latency.summary() }))
        .collect();
    let bars: Vec<Value> = input
        .throughput
        .iter()
        .map(|bar| {
            let (min, max) = bar.spread.unwrap_or((bar.value, bar.value));
            json!({ "label": bar.label, "unit": bar.unit, "value": bar.value, "min": min, "max": max })
        })
        .collect();
    let facts: serde_json::Map<String, Value> =
        input.facts.iter().map(|(key, value)| (key.clone(), value.as_str().into())).collect();
    let all = json!({ "run": run, "title": input.title, "series": series, "throughput": bars, "facts": facts });
    format!("{all:#}\n")
}
