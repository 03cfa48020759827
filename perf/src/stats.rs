//! Samples and their statistics.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

/// Statistics of repeated measurements.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stat {
    /// The median.
    pub median: f64,
    /// The minimum.
    pub min: f64,
    /// The maximum.
    pub max: f64,
}

impl Stat {
    /// The statistics of samples; `None` if there are none. Non-finite values are ignored.
    pub fn of(samples: &[f64]) -> Option<Self> {
        let mut sorted: Vec<f64> = samples.iter().copied().filter(|v| v.is_finite()).collect();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let mid = sorted.len() / 2;
        let median = if sorted.len() % 2 == 1 { sorted[mid] } else { f64::midpoint(sorted[mid - 1], sorted[mid]) };
        Some(Self { median, min, max })
    }
}

/// Samples by key. A ratio gets one sample per repeat, from values measured in direct succession.
#[derive(Clone, Debug, Default)]
pub struct Sheet(BTreeMap<String, Vec<f64>>);

impl Sheet {
    /// Adds a sample.
    pub fn add(&mut self, key: impl Into<String>, value: f64) {
        self.0.entry(key.into()).or_default().push(value);
    }

    /// The statistics of the samples of `key`.
    pub fn stat(&self, key: &str) -> Option<Stat> {
        Stat::of(self.0.get(key)?)
    }

    /// The median of the samples of `key`.
    pub fn median(&self, key: &str) -> Option<f64> {
        self.stat(key).map(|stat| stat.median)
    }

    /// Every key with its statistics, ordered by name.
    pub fn stats(&self) -> impl Iterator<Item = (&str, Stat)> {
        self.0.iter().filter_map(|(key, samples)| Some((key.as_str(), Stat::of(samples)?)))
    }

    /// The samples of all keys that do not begin with `prefix`: parts with a table of their own have them there.
    #[must_use]
    pub fn without(&self, prefix: &str) -> Self {
        let rest = self.0.iter().filter(|(key, _)| !key.starts_with(prefix));
        Self(rest.map(|(key, samples)| (key.clone(), samples.clone())).collect())
    }

    /// One flat object: key to median, min and max.
    pub fn to_json(&self) -> Value {
        let all = self.stats().map(|(key, s)| {
            (key.to_owned(), json!({ "median": round(s.median), "min": round(s.min), "max": round(s.max) }))
        });
        Value::Object(all.collect::<Map<_, _>>())
    }
}

/// Rounds to six significant digits: more are noise.
fn round(v: f64) -> f64 {
    format!("{v:.5e}").parse().unwrap_or(v)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(Stat::of(&[]), None);
        assert_eq!(Stat::of(&[f64::NAN]), None);
        assert_eq!(Stat::of(&[3.0]), Some(Stat { median: 3.0, min: 3.0, max: 3.0 }));
        assert_eq!(Stat::of(&[9.0, 1.0, 4.0]), Some(Stat { median: 4.0, min: 1.0, max: 9.0 }));
        assert_eq!(Stat::of(&[4.0, 1.0, 9.0, 2.0]).unwrap().median, 3.0);
        assert_eq!(Stat::of(&[1.0, f64::INFINITY, 2.0]).unwrap().max, 2.0);
    }

    #[test]
    fn keys_of_a_part_can_be_left_out() {
        let mut sheet = Sheet::default();
        ["wan.a", "want", "b"].iter().for_each(|key| sheet.add(*key, 1.0));
        assert_eq!(sheet.without("wan.").stats().map(|(key, _)| key).collect::<Vec<_>>(), ["b", "want"]);
    }

    #[test]
    fn json_is_flat_and_sorted() {
        let mut sheet = Sheet::default();
        sheet.add("b.x", 2.0);
        sheet.add("b.x", 4.0);
        sheet.add("a", 1.0 / 3.0);
        sheet.add("none", f64::NAN);
        let text = sheet.to_json().to_string();
        assert_eq!(
            text,
            r#"{"a":{"max":0.333333,"median":0.333333,"min":0.333333},"b.x":{"max":4.0,"median":3.0,"min":2.0}}"#
        );
    }
}
