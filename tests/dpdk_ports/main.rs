//! Real DPDK ports, without hugepages, NICs or set-up. What needs root says so and is skipped without.
#![cfg(feature = "dpdk")]

mod attendance;
mod checksums;
#[cfg(feature = "cli")]
mod commands;
mod core_port;
#[cfg(feature = "proto")]
mod cores;
mod exchange;
mod host;
mod idle;
mod joined;
mod kernel;
mod memif_peer;
mod panics;
#[cfg(feature = "cli")]
#[allow(dead_code, reason = "shared with the tests against other implementations")]
#[path = "../peers/process.rs"]
mod process;
mod queues;
mod refusals;
mod rings;
mod shared_memory;
mod strangers;
mod support;
mod writers;
