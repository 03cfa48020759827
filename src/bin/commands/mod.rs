//! The commands of `gannet`.

pub mod doctor;
pub mod get;
pub mod memory;
pub mod origin;
pub mod perf;
pub mod report;
pub mod ring;
pub mod serve;
pub mod session;
