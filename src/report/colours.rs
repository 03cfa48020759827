//! The colours of a page: a stack has the same colour wherever it appears.

use super::{Bar, Series};

/// The number of colours; the page defines `--s0` to `--s7`.
pub const COLOURS: usize = 8;

/// The colours of one page, as numbers from 0. Series from [`COLOURS`] on are drawn with open dots.
#[derive(Debug)]
pub struct Palette {
    /// The colour of each series.
    series: Vec<usize>,
    /// The colour of each stack.
    stacks: Vec<(String, usize)>,
}

impl Palette {
    /// Assigns colours. Stacks get theirs in the order of their bars and share it with the first series whose name
    /// starts with theirs, or ends with it in brackets. All other series get colours of their own, since curves must be
    /// distinguishable.
    pub fn new(series: &[Series], bars: &[Bar]) -> Self {
        let mut stacks: Vec<(String, usize)> = Vec::new();
        for bar in bars {
            if !stacks.iter().any(|(stack, _)| *stack == bar.stack) {
                stacks.push((bar.stack.clone(), stacks.len()));
            }
        }
        let mut next = stacks.len();
        let mut taken = vec![false; stacks.len()];
        let series = series.iter().map(|s| {
            let is_of = |stack: &str| s.name.starts_with(stack) || s.name.ends_with(&format!(" ({stack})"));
            let lent = stacks.iter().position(|(stack, _)| is_of(stack)).filter(|i| !taken[*i]);
            if let Some(i) = lent {
                taken[i] = true;
                return i;
            }
            next += 1;
            next - 1
        });
        Self { series: series.collect(), stacks }
    }

    /// The colour of the series with the index `i`.
    pub fn series(&self, i: usize) -> usize {
        self.series[i]
    }

    /// The colour of a bar.
    pub fn bar(&self, bar: &Bar) -> usize {
        self.stacks.iter().find(|(stack, _)| *stack == bar.stack).map_or(0, |(_, colour)| *colour)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Latency;

    #[test]
    fn a_stack_has_one_colour_and_each_curve_its_own() {
        let bar = |label: &str, stack: &str| Bar { stack: stack.into(), ..Bar::new(label, 1.0, "Gbit/s") };
        let bars = [bar("MTU 1500", "Gannet"), bar("quinn over loopback", "quinn"), bar("MTU 9000", "Gannet")];
        let series = ["request (quinn)", "Gannet, 64 B", "Gannet, 64 in flight", "other"]
            .map(|n| Series::new(n, Latency::new()));
        let palette = Palette::new(&series, &bars);
        assert_eq!(bars.each_ref().map(|bar| palette.bar(bar)), [0, 1, 0]);
        assert_eq!([0, 1, 2, 3].map(|i| palette.series(i)), [1, 0, 2, 3]);
    }
}
