//! Memory that the stack decrypts into and that applications own.
//!
//! * [`PinnedRegion`]: memory that stays in RAM: hugepages, locked ordinary pages, or a mapping provided by the
//!   application.
//! * [`PinnedBuf`]: a uniquely owned piece of such memory. Passing it to a stream transfers ownership; it is returned
//!   exactly once. Dropping it on any thread returns its memory to where it came from.
//! * [`BufPool`]: allocates `PinnedBuf`s in size classes from regions that it maps on demand, up to a limit.
//!
//! All `unsafe` code of this layer is about raw memory: `sys` (system calls), `region` and `owner` (ownership), `buf`
//! (pointer and length to slice), `prefetch` (hints), `sum` (wide registers), `cycles` (one register), `poison`
//! (AddressSanitizer), and one line of `pool` (addresses inside a block).

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

/// The atomics used by free lists.
use std::sync::atomic;

/// Maximum size of a buffer of a [`BufPool`], in bytes.
pub const MAX_BUF: usize = 1 << class::MAX_SHIFT;
