//! Basics: hexadecimal digits, time, seeded randomness, rate limits, range sets, timers, CPUs, and background work.
#![forbid(unsafe_code)]

pub mod aside;
pub mod cpus;
pub mod hex;
pub mod id_map;
pub mod limit;
pub mod printable;
pub mod range_set;
pub mod rng;
pub mod time;
pub mod timer;

/// An end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// The end that opened the connection.
    Client,
    /// The end that accepted it.
    Server,
}

impl Side {
    /// The other end.
    pub const fn peer(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }
}

/// The part of core `core` of `of` in a limit of `total`: as much as the others have or one more, and at least one,
/// unless there is nothing to divide.
pub fn share(total: usize, core: u8, of: u8) -> usize {
    let (core, of) = (usize::from(core), usize::from(of));
    (total / of + usize::from(core < total % of)).max(total.min(1))
}
