//! The commands of `gannet`.

pub mod doctor;
pub mod get;
pub mod report;
pub mod serve;
pub mod session;
