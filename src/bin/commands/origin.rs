//! What the figures of this process have to be read with.

use std::path::Path;

use gannet::report::machine;

/// The version of DPDK that this was built with.
pub const DPDK: Option<&str> = Some(gannet::dpdk::BUILT_AGAINST);

/// The member `run` of what is written as JSON ([`machine::Origin`]).
pub fn origin() -> serde_json::Value {
    serde_json::to_value(machine::origin(Path::new("/"), DPDK)).unwrap_or_default()
}
