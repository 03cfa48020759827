//! Two cores in one thread, connected by memory, to measure only the stack's own cost.

pub mod apps;
pub mod wire;
pub mod world;
