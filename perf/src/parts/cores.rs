//! Two cores at once: how the throughput of the engine grows with a second CPU, and what a packet costs that arrives at
//! the wrong core.

mod handover;
mod latency;
mod machine;
mod scaling;

use crate::Failure;
use crate::lab::group::Ports;
use crate::run::Run;

/// Measures the part.
///
/// # Errors
/// If DPDK cannot be started, there is no memory, or requests are not answered.
pub fn measure(run: &mut Run) -> Result<(), Failure> {
    if run.cores[0] == run.cores[1] {
        run.note("cores: needs two CPUs");
        return Ok(());
    }
    scaling::measure(run)?;
    let mut ports = Ports::open()?;
    handover::measure(run, &mut ports)?;
    latency::measure(run, ports)
}
