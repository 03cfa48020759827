//! The cores that the two processes poll on.

use std::fs;

/// A core for each process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cores {
    /// The server's.
    pub server: usize,
    /// The client's.
    pub client: usize,
}

/// The first two cores that we may use; the same one twice if there is only one.
pub fn pick() -> Cores {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    let cores = parse(list.unwrap_or_default());
    let server = cores.first().copied().unwrap_or(0);
    Cores { server, client: cores.get(1).copied().unwrap_or(server) }
}

/// The first cores of a list such as `0-3,8`.
fn parse(list: &str) -> Vec<usize> {
    let ranges = list.trim().split(',').filter_map(|range| {
        let (from, to) = range.split_once('-').unwrap_or((range, range));
        Some(from.parse().ok()?..=to.parse().ok()?)
    });
    ranges.flatten().take(2).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_cores() {
        assert_eq!(parse("\t0-63\n"), [0, 1]);
        assert_eq!(parse("3,7-9"), [3, 7]);
        assert_eq!(parse("5"), [5]);
        assert!(parse("").is_empty());
    }
}
