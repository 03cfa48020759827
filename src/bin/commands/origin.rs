//! The circumstances of this process's figures.

use std::path::Path;

use gannet::report::machine;

/// The version of DPDK that this program was built with.
pub const DPDK: Option<&str> = Some(gannet::dpdk::BUILT_AGAINST);

/// The member `run` of JSON output ([`machine::Origin`]).
pub fn origin() -> serde_json::Value {
    serde_json::to_value(machine::origin(Path::new("/"), DPDK)).unwrap_or_default()
}
