//! Other implementations as programs, which run like Gannet: two processes, a CPU each.
//!
//! They speak the perf protocol: a request is the size of the answer as 8 bytes, then payload, then the end of the
//! stream.

mod load;
#[cfg(feature = "peers")]
pub mod quiche;
pub mod quinn;
#[cfg(feature = "peers")]
pub mod s2n;
pub mod tls;

use std::process::Command;

use clap::ValueEnum;

use crate::Failure;
use crate::cli::{PeerArgs, PeerKind};
use crate::cores::pin;

/// IPv4 and UDP headers, bytes.
const HEADERS: u16 = 28;

/// Stream and connection windows in bytes, large enough never to be the limit.
const WINDOW: u32 = 64 << 20;

impl PeerKind {
    /// Its name.
    pub fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

/// Runs one end of an implementation.
///
/// # Errors
/// If it fails.
pub fn run(args: &PeerArgs) -> Result<(), Failure> {
    if let Some(core) = args.core {
        pin(core);
    }
    match args.kind {
        PeerKind::Quinn => quinn::run(args),
        #[cfg(feature = "peers")]
        PeerKind::S2n => s2n::run(args),
        #[cfg(feature = "peers")]
        PeerKind::Quiche => quiche::run(args),
        #[cfg(not(feature = "peers"))]
        other => Err(format!("{} is not built in: build with --features peers", other.name()).into()),
    }
}

/// The command that runs one end of an implementation.
///
/// # Errors
/// If this program cannot be found.
pub fn command(namespace: Option<&str>, kind: PeerKind, args: &[String]) -> Result<Command, Failure> {
    let program = std::env::current_exe()?;
    let mut command = crate::process::command(&program, namespace);
    command.arg("peer").arg(kind.name()).args(args);
    Ok(command)
}
