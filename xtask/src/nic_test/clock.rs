//! Whether the emulated machines' clocks run as fast as ours.
//!
//! A kernel may misjudge the rate of its time stamp counter if the CPU that emulates it is taken away meanwhile. It
//! notices by comparing clocks, unless it is told to trust this one. Then every timeout in the machine is wrong, and
//! different in each machine.

use std::time::{Duration, Instant};

use super::guest::Guest;
use crate::error::{Error, Result};
use crate::interrupt::pause;

/// The time between two looks at a clock.
const SPAN: Duration = Duration::from_secs(1);

/// A clock is right if it is not off by more than this factor: wrong ones were off by five.
const TOLERANCE: f64 = 1.25;

/// The resolution of the clock, in seconds.
const RESOLUTION: f64 = 0.01;

/// A look at a machine's clock.
struct Look {
    asked: Instant,
    answered: Instant,
    /// What the clock showed at some time between them, in seconds.
    showed: f64,
}

impl Look {
    fn at(guest: &mut Guest) -> Result<Self> {
        let asked = Instant::now();
        let said = guest.ask("cut -d ' ' -f 1 /proc/uptime")?;
        let answered = Instant::now();
        let showed = said.parse().map_err(|_| Error::Unmet(format!("{} shows the time {said}", guest.name())))?;
        Ok(Self { asked, answered, showed })
    }

    /// Whether the clock may be right, given this later look.
    fn agrees(&self, later: &Self) -> bool {
        let least = later.asked.saturating_duration_since(self.answered).as_secs_f64();
        let most = later.answered.saturating_duration_since(self.asked).as_secs_f64();
        let showed = later.showed - self.showed;
        (least / TOLERANCE - RESOLUTION..=most * TOLERANCE + RESOLUTION).contains(&showed)
    }
}

/// Checks the clocks of these machines.
///
/// # Errors
/// If one is wrong, or its machine does not answer.
pub fn check(guests: [&mut Guest; 2]) -> Result<()> {
    let mut looks = Vec::new();
    for guest in guests {
        let look = Look::at(guest)?;
        looks.push((guest, look));
    }
    pause(SPAN)?;
    for (guest, look) in looks {
        let later = Look::at(guest)?;
        if !look.agrees(&later) {
            let source = guest.ask("cat /sys/devices/system/clocksource/clocksource0/current_clocksource")?;
            let (showed, real) = (later.showed - look.showed, later.asked.duration_since(look.asked).as_secs_f64());
            let name = guest.name();
            return Err(Error::Unmet(format!(
                "the clock of the emulated {name} ({source}) advanced by {showed:.2} s in {real:.2} s"
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_judged_by_what_is_certain() {
        let start = Instant::now();
        // Times in milliseconds.
        let look = |asked, answered, showed: u32| Look {
            asked: start + Duration::from_millis(asked),
            answered: start + Duration::from_millis(answered),
            showed: f64::from(showed) / 1000.0,
        };
        let first = look(0, 20, 7000);
        for right in [look(1000, 1020, 8000), look(1000, 1020, 8100), look(1000, 9000, 8000), look(1000, 9000, 15_900)]
        {
            assert!(first.agrees(&right), "{}", right.showed);
        }
        for wrong in [look(1000, 1020, 12_000), look(1000, 1020, 7200), look(9000, 9020, 8000)] {
            assert!(!first.agrees(&wrong), "{}", wrong.showed);
        }
    }
}
