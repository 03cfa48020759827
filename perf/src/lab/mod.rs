//! Cores in one process: a pair in one thread, connected by memory, to measure only the stack's own cost; and two cores
//! of a group on two CPUs.

pub mod apps;
pub mod group;
pub mod visits;
pub mod wire;
pub mod world;
