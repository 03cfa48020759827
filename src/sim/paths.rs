//! Links on which real processes are compared with the simulation. `gannet-perf` plays a transfer over each in virtual
//! time, as cells of its table, and `gannet-interop` the same between `gannet serve` and `gannet get`.

use super::forwarder::{PER_MILLE, Shape};
use crate::base::time::Duration;

/// A transfer over a link.
#[derive(Clone, Debug)]
pub struct Path {
    /// Its name. No name begins with another.
    pub name: &'static str,
    /// The link to the client, which receives.
    pub down: Shape,
    /// The link to the server.
    pub up: Shape,
    /// The size of the file in bytes: some seconds' worth, so that the start matters little.
    pub bytes: u64,
    /// Whether BBR is compared as well as CUBIC.
    pub bbr: bool,
}

/// Rate of all bottlenecks in bit/s: what two processes and a forwarder carry on two slow CPUs without being the limit.
const RATE: u64 = 50_000_000;

/// A clean link with this round-trip time, and a queue of one product of rate and round-trip time.
fn clean(name: &'static str, rtt_ms: u64, megabytes: u64) -> Path {
    let up = Shape { delay: Duration::from_millis(rtt_ms) / 2, rate: RATE, queue: 1 << 20, ..Shape::default() };
    let down = Shape { queue: RATE / 8 * rtt_ms / 1000, ..up.clone() };
    Path { name, down, up, bytes: megabytes * 1_000_000, bbr: false }
}

/// All of them.
pub fn all() -> Vec<Path> {
    let with = |path: Path, change: &dyn Fn(Shape) -> Shape| Path { down: change(path.down), ..path };
    let jitter = |shape| Shape { jitter: Duration::from_millis(2), overtaking: true, ..shape };
    let late = |shape| Shape { late: 10 * PER_MILLE, late_by: Duration::from_millis(20), ..shape };
    let often = with(clean("path_loss_1", 20, 30), &|shape| Shape { loss: 10 * PER_MILLE, ..shape });
    vec![
        clean("path_clean_20ms", 20, 40),
        clean("path_clean_100ms", 100, 40),
        with(clean("path_loss_0.1", 20, 60), &|shape| Shape { loss: PER_MILLE, ..shape }),
        Path { bbr: true, ..often },
        with(clean("path_jitter_2ms", 50, 25), &jitter),
        with(clean("path_late_20ms", 50, 25), &late),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_prefixes_of_no_others() {
        let names: Vec<_> = all().iter().map(|path| path.name).collect();
        for (i, name) in names.iter().enumerate() {
            assert_eq!(names.iter().position(|other| other.starts_with(name)), Some(i));
            assert_eq!(names.iter().filter(|other| other.starts_with(name)).count(), 1);
        }
    }

    #[test]
    fn queues_hold_one_product_of_rate_and_round_trip_time() {
        let queues: Vec<_> = all().iter().map(|path| path.down.queue).collect();
        assert_eq!(queues, [125_000, 625_000, 125_000, 125_000, 312_500, 312_500]);
    }
}
