//! Two cores in one thread, joined by memory: what is measured here is the stack's own cost and nothing else.

pub mod apps;
pub mod wire;
pub mod world;
