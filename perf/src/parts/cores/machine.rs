//! What kind of machine this is: whether two CPUs are two cores or share one.

use std::fs;

/// Above this ratio, two CPUs do the work of two cores.
const TWO: f64 = 1.8;

/// Below this ratio, they do that of siblings: hyperthreads, which share the units of one core.
const ONE: f64 = 1.5;

/// A description of two CPUs by what they do rather than by what they claim: on a virtual machine, the topology is what
/// the host says. `scaling` is the throughput of the AEAD on both at once, divided by that on one. `claim` is the
/// kernel's list of the first CPU's siblings, `round_trip` the time of a cache line from one to the other and back, in
/// ns.
pub fn describe(cpus: [usize; 2], scaling: f64, round_trip: f64, claim: Option<&str>) -> String {
    let [a, b] = cpus;
    let kind = if scaling >= TWO {
        "behave like two cores"
    } else if scaling > ONE {
        "are neither two undisturbed cores nor siblings of one: other programs may have used them"
    } else {
        "behave like siblings of one core"
    };
    let claim = match claim.map(str::trim) {
        Some(list) if list != a.to_string() => {
            format!("; according to the system, the core of CPU {a} has CPUs {list}")
        }
        Some(_) => format!("; according to the system, CPU {a} has a core of its own"),
        None => String::new(),
    };
    format!(
        "cores: CPUs {a} and {b} {kind}: the AEAD alone is {scaling:.2} times as fast on both, and a cache line takes \
         {round_trip:.0} ns there and back{claim}"
    )
}

/// The kernel's list of the CPUs on the same core as `cpu`, if it tells.
pub fn siblings(cpu: usize) -> Option<String> {
    fs::read_to_string(format!("/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machines_are_told_apart_by_what_they_do() {
        let say = |scaling, claim| describe([0, 1], scaling, 85.4, claim);
        let two = say(1.97, Some("0\n"));
        assert!(two.contains("two cores") && two.contains("1.97") && two.contains("85 ns"), "{two}");
        assert!(two.ends_with("CPU 0 has a core of its own"), "{two}");
        let siblings = say(1.21, Some("0-1\n"));
        assert!(siblings.contains("siblings of one core") && siblings.ends_with("has CPUs 0-1"), "{siblings}");
        // The claim does not decide.
        assert!(say(1.21, Some("0")).contains("behave like siblings"));
        assert!(say(1.65, None).contains("neither"));
        assert!(say(1.5, None).contains("siblings") && say(1.8, None).contains("behave like two"));
        assert!(describe([3, 5], 2.0, 1.0, Some("3")).contains("CPUs 3 and 5"));
    }
}
