//! Layer `runtime`: one poll loop per core. A turn reads the clock once, receives a burst, runs the engine and its
//! timers, hands events to the application, and sends. Nothing in a turn blocks; what happens between turns without
//! work is up to [`Idle`].
#![forbid(unsafe_code)]

mod clock;
mod context;
mod core;
mod group;
mod idle;
mod notes;
mod observe;
mod seat;
mod stats;
pub(crate) mod waker;

pub use self::core::{Core, CoreConfig, RunError};
pub use clock::Clock;
pub use context::{App, ConnectFailure, Context, Unreachable};
#[cfg(feature = "dpdk")]
pub(crate) use group::Makers;
pub use group::{Control, Crew, Failure, Group, GroupError, Misfit, Place, SetTlsError};
pub use idle::Idle;
pub use notes::{Notes, Unheard, mailboxes};
pub use observe::{CoreLive, Observer, Stage, Stages};
pub use seat::Seat;
pub use stats::CoreStats;
pub use waker::Waker;
