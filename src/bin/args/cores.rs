//! The cores of a command: on which CPUs its poll loops run.

use std::str::FromStr;

use clap::Args;

use super::engine::EngineArgs;
use super::values::{BadValue, bad};

/// The highest CPU number.
const MAX_CPU: usize = 1023;

/// The maximum number of cores.
const MAX_CORES: usize = gannet::dpdk::MAX_CORES as usize;

/// The value of `--cores`: the CPU of each core, or `None` where the system may choose.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cores(Vec<Option<usize>>);

impl Cores {
    /// A single core.
    pub fn one(cpu: Option<usize>) -> Self {
        Self(vec![cpu])
    }

    /// The CPU of each core.
    pub fn cpus(&self) -> &[Option<usize>] {
        &self.0
    }

    /// The number of cores, at least 1 and at most [`MAX_CORES`].
    pub fn count(&self) -> u8 {
        self.0.len() as u8
    }

    fn add(&mut self, cpu: usize) -> Result<(), BadValue> {
        if self.0.contains(&Some(cpu)) {
            return bad(format!("CPU {cpu} is given twice; to run several cores on any CPUs, write for example any:4"));
        }
        if self.0.len() == MAX_CORES {
            return bad(format!("more than {MAX_CORES} cores"));
        }
        self.0.push(Some(cpu));
        Ok(())
    }
}

fn cpu(s: &str) -> Result<usize, BadValue> {
    match s.parse() {
        Ok(cpu) if cpu <= MAX_CPU && s.bytes().all(|b| b.is_ascii_digit()) => Ok(cpu),
        _ => bad(format!("'{s}' is not a CPU number from 0 to {MAX_CPU}: write for example 2-5, 2,4 or any:4")),
    }
}

impl FromStr for Cores {
    type Err = BadValue;

    fn from_str(s: &str) -> Result<Self, BadValue> {
        if let Some(count) = s.strip_prefix("any:") {
            return match count.parse() {
                Ok(count @ 1..=MAX_CORES) => Ok(Self(vec![None; count])),
                _ => bad(format!("'{count}' is not a number of cores from 1 to {MAX_CORES}")),
            };
        }
        let mut cores = Self::default();
        for part in s.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (cpu(first)?, cpu(last)?);
            if first > last {
                return bad(format!("the range {part} is empty: did you mean {last}-{first}?"));
            }
            (first..=last).try_for_each(|cpu| cores.add(cpu))?;
        }
        Ok(cores)
    }
}

/// Several cores.
#[derive(Clone, Debug, Default, Args)]
pub struct CoresArgs {
    /// CPUs to run poll loops on, one for each, 64 at most: 2-5, 2,4,6-7, or any:4 for four of them on any CPUs. Each
    /// polls a queue of the port and has connections of its own; the port is opened with as many queues. Clients deal
    /// their connections (get: one for each core, and the files) out to the cores in turn.
    #[arg(long, value_name = "LIST", conflicts_with = "core", help_heading = "Engine")]
    pub cores: Option<Cores>,

    /// Use one queue of the port for all --cores: the first sends and receives for all, and spreads connections over
    /// them. For ports that have a single queue.
    #[arg(long, requires = "cores", help_heading = "Engine")]
    pub spread: bool,
}

impl CoresArgs {
    /// The cores, of which there is one without --cores.
    pub fn of(&self, engine: &EngineArgs) -> Cores {
        self.cores.clone().unwrap_or_else(|| Cores::one(engine.core))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(s: &str) -> Vec<usize> {
        s.parse::<Cores>().unwrap().cpus().iter().map(|cpu| cpu.unwrap()).collect()
    }

    fn why(s: &str) -> String {
        s.parse::<Cores>().expect_err(s).to_string()
    }

    #[test]
    fn lists_and_ranges() {
        assert_eq!((list("3"), list("2-5"), list("7,2-3")), (vec![3], vec![2, 3, 4, 5], vec![7, 2, 3]));
        assert_eq!("any:3".parse::<Cores>().unwrap().cpus(), [None; 3]);
        assert_eq!("0-63".parse::<Cores>().unwrap().count(), 64);
    }

    #[test]
    fn what_is_no_list_of_cpus_is_refused() {
        for twice in ["0,0", "2-5,4", "1-1,1"] {
            assert!(why(twice).contains("given twice"), "{twice}: {}", why(twice));
        }
        for bad in ["", ",", "1,", "a", "1-", "-1", "1-2-3", "+1", "1024", "99999999999999999999", "0x1", "1 ,2"] {
            assert!(why(bad).contains("is not a CPU number"), "{bad}: {}", why(bad));
        }
        assert!(why("5-2").contains("did you mean 2-5"));
        assert!(why("0-64").contains("more than 64 cores"));
        for bad in ["any:", "any:0", "any:65", "any:-1", "any:x"] {
            assert!(why(bad).contains("from 1 to 64"), "{bad}: {}", why(bad));
        }
    }
}
