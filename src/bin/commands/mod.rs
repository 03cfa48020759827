//! The commands of `gannet`.

pub mod doctor;
pub mod report;
