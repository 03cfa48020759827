//! Real DPDK ports, without hugepages, NICs or set-up. What needs root says so and is skipped without.
#![cfg(feature = "dpdk")]

mod checksums;
mod joined;
mod kernel;
mod refusals;
mod rings;
mod shared_memory;
mod support;
