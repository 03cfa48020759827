//! Layer `runtime`: one poll loop per core. A turn stamps the clock once, then receives a burst, lets the
//! engine and its timers work, hands events to the application, and sends. Nothing in it blocks.
#![forbid(unsafe_code)]

mod clock;
mod context;
mod core;
mod observe;
mod stats;

pub use self::core::{Core, CoreConfig, Idle, RunError};
pub use clock::Clock;
pub use context::{App, ConnectFailure, Context, Unreachable};
pub use observe::{CoreLive, Observer, Stage, Stages};
pub use stats::CoreStats;
