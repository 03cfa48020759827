//! Layer `dpdk`.
