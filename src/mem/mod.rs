//! Layer `mem`: memory that the stack decrypts into and applications own.
//!
//! * [`PinnedRegion`]: memory that stays in RAM: hugepages, locked ordinary pages, or a mapping of the application's.
//! * [`PinnedBuf`]: a uniquely owned piece of such memory. Moving it into a stream hands it over; it comes back
//!   exactly once. After its last use its memory goes home by itself, from whatever thread it is dropped on.
//! * [`BufPool`]: hands out `PinnedBuf`s in size classes from regions that it maps as needed, up to a limit.
//!
//! All `unsafe` of the layer is about raw memory: `sys` (system calls), `region` and `owner` (who frees what),
//! `buf` (pointer and length to slice), `prefetch` (hints), `sum` (wide registers), `cycles` (one register),
//! `poison` (what the sanitizer is told), and one line of `pool` (addresses inside a block).

mod buf;
mod class;
mod cycles;
mod error;
mod free_list;
#[cfg(test)]
mod free_list_tests;
mod owner;
mod pages;
mod poison;
mod pool;
mod prefetch;
mod region;
mod slots;
mod sum;
#[cfg_attr(miri, path = "sys_miri.rs")]
mod sys;
#[cfg(test)]
mod tests;

pub use buf::PinnedBuf;
pub use cycles::{cycles, cycles_per_ns};
pub use error::{AllocError, EmptyMapping};
pub use pages::{Backing, Hugepages};
pub use pool::{BufPool, KeptRegions, PoolConfig, PoolStats};
pub use prefetch::{prefetch_line, prefetch_object, prefetch_read, prefetch_write};
pub use region::{PinnedRegion, RegionInfo};
pub use sum::sum_words;

/// What the free lists are made of.
use std::sync::atomic;

/// Largest buffer of a [`BufPool`] in bytes.
pub const MAX_BUF: usize = 1 << class::MAX_SHIFT;
