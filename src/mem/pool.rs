//! The pool: buffers in size classes, carved from regions that are mapped on demand.
//!
//! Allocating and returning a buffer takes one atomic exchange on the free list of its class. A lock is only taken if
//! that list is empty: then a larger free block is carved, or a region is mapped; at the limit, free neighbours are
//! joined and regions without buffers in use are unmapped first.

use std::collections::BTreeMap;
use std::fmt;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crossbeam::utils::CachePadded;

use super::class::{COUNT, Class, SLAB};
use super::free_list::{FreeList, SlotId};
use super::pages::{Backing, Hugepages};
use super::poison;
use super::slots::Slots;
use super::{AllocError, PinnedRegion, RegionInfo};

/// Configuration of a [`BufPool`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolConfig {
    /// Maximum number of bytes in use, counted in whole size classes. The pool maps up to this much, rounded up to
    /// whole hugepages.
    pub limit_bytes: usize,
    /// Whether to use hugepages.
    pub hugepages: Hugepages,
    /// Preferred NUMA node.
    pub numa_node: Option<u32>,
}

impl Default for PoolConfig {
    /// 1 GiB of any kind of pages, on any node.
    fn default() -> Self {
        Self { limit_bytes: 1 << 30, hugepages: Hugepages::Auto, numa_node: None }
    }
}

/// Memory of a pool, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PoolStats {
    /// Maximum number of bytes in use.
    pub limit: usize,
    /// Bytes in allocated buffers, counted in whole size classes.
    pub in_use: usize,
    /// Bytes mapped: the sum of the four fields below.
    pub reserved: usize,
    /// Bytes mapped on hugepages of 1 GiB.
    pub huge_1g: usize,
    /// Bytes mapped on hugepages of 2 MiB.
    pub huge_2m: usize,
    /// Bytes mapped on ordinary pages locked in RAM.
    pub locked: usize,
    /// Bytes mapped on ordinary pages that may be swapped out.
    pub unlocked: usize,
}

/// A pool of [`PinnedBuf`](crate::mem::PinnedBuf)s, or a part of one ([`BufPool::part`]). Clones are handles to the
/// same pool; buffers may outlive all of them.
#[derive(Clone)]
pub struct BufPool(Arc<Part>);

/// What a buffer is charged to: the whole pool, or a part of it.
struct Part {
    pool: Arc<Inner>,
    /// The pool or part that contains this part; `None` for the pool itself.
    whole: Option<Arc<Part>>,
    limit: usize,
    in_use: AtomicUsize,
}

impl Part {
    /// This part, the one that contains it, and so on.
    fn chain(&self) -> impl Iterator<Item = &Self> {
        std::iter::successors(Some(self), |part| part.whole.as_deref())
    }

    /// Charges `n` bytes to this part and all that contain it.
    fn charge(&self, n: usize) -> Result<(), AllocError> {
        for part in self.chain() {
            let wanted = |in_use: usize| in_use.checked_add(n).filter(|sum| *sum <= part.limit);
            if let Err(in_use) = part.in_use.fetch_update(Ordering::Relaxed, Ordering::Relaxed, wanted) {
                self.chain().take_while(|below| !std::ptr::eq(*below, part)).for_each(|below| below.uncharge_one(n));
                return Err(AllocError::Exhausted { limit: part.limit, in_use, wanted: n });
            }
        }
        Ok(())
    }

    fn uncharge(&self, n: usize) {
        self.chain().for_each(|part| part.uncharge_one(n));
    }

    fn uncharge_one(&self, n: usize) {
        self.in_use.fetch_sub(n, Ordering::Relaxed);
    }
}

/// An allocated block; returns to the free list of its class when dropped.
pub(super) struct Block {
    part: Arc<Part>,
    slot: SlotId,
    class: Class,
    backing: Backing,
}

struct Inner {
    config: PoolConfig,
    /// Whether to use plain unlocked memory, regardless of `config`.
    plain: bool,
    free: [CachePadded<FreeList>; COUNT],
    slots: Slots,
    table: Mutex<Table>,
    /// Number of [`KeptRegions`]; while there are any, nothing is unmapped. Changes under the table's lock.
    keepers: AtomicUsize,
}

/// The regions of a pool, which stay mapped while this lives, for devices that have to know them.
pub struct KeptRegions {
    pool: BufPool,
    regions: Vec<RegionInfo>,
}

impl KeptRegions {
    /// Their addresses.
    pub fn regions(&self) -> &[RegionInfo] {
        &self.regions
    }
}

impl Drop for KeptRegions {
    fn drop(&mut self) {
        let _table = self.pool.inner().table();
        self.pool.inner().keepers.fetch_sub(1, Ordering::Relaxed);
    }
}

#[derive(Default)]
struct Table {
    regions: BTreeMap<usize, PinnedRegion>,
    reserved: usize,
    /// Slots that no longer describe a block.
    unused: Vec<SlotId>,
    /// First slot that was never used.
    fresh: SlotId,
}

impl Table {
    fn take_slot(&mut self) -> SlotId {
        self.unused.pop().unwrap_or_else(|| {
            self.fresh += 1;
            self.fresh - 1
        })
    }
}

impl BufPool {
    /// Creates a pool. Memory is mapped when buffers are allocated (see [`BufPool::prepare`]).
    ///
    /// # Errors
    /// [`AllocError::NoHugepages`] if hugepages are required and there are none.
    pub fn new(config: PoolConfig) -> Result<Self, AllocError> {
        let pool = Self::with(config, false);
        if config.hugepages == Hugepages::Require {
            pool.prepare(SLAB.min(config.limit_bytes.max(1)), 1)?;
        }
        Ok(pool)
    }

    /// Creates a pool of plain memory, neither huge nor locked, without a limit. It still recycles buffers.
    pub fn heap() -> Self {
        let config = PoolConfig { limit_bytes: usize::MAX, hugepages: Hugepages::Never, numa_node: None };
        Self::with(config, true)
    }

    fn with(config: PoolConfig, plain: bool) -> Self {
        let inner = Inner {
            config,
            plain,
            free: Default::default(),
            slots: Slots::default(),
            table: Mutex::default(),
            keepers: AtomicUsize::new(0),
        };
        let (pool, in_use) = (Arc::new(inner), AtomicUsize::new(0));
        Self(Arc::new(Part { pool, whole: None, limit: config.limit_bytes, in_use }))
    }

    /// Creates a part of this pool or part. What is allocated from it counts in both until it is returned, and at most
    /// `limit_bytes` can be allocated. No memory is reserved for it; the limits of parts may exceed the pool's in
    /// total.
    pub fn part(&self, limit_bytes: usize) -> Self {
        let (pool, whole) = (self.0.pool.clone(), Some(self.0.clone()));
        Self(Arc::new(Part { pool, whole, limit: limit_bytes, in_use: AtomicUsize::new(0) }))
    }

    fn inner(&self) -> &Inner {
        &self.0.pool
    }

    /// Bytes in allocated buffers, counted in whole size classes; for a part, in those allocated from it.
    pub fn in_use(&self) -> usize {
        self.0.in_use.load(Ordering::Relaxed)
    }

    /// Maximum number of bytes in use.
    pub fn limit(&self) -> usize {
        self.0.limit
    }

    /// Whether there are other handles to it, parts of it, or buffers from it.
    pub fn is_shared(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }

    /// Takes a block for `len` bytes: its address, its size, and the guard that returns it.
    pub(super) fn take(&self, len: usize) -> Result<(NonNull<u8>, usize, Block), AllocError> {
        let inner = self.inner();
        let class = Class::for_len(len)?;
        self.0.charge(class.size())?;
        let slot = inner.list(class).pop(&inner.slots).map_or_else(|| inner.refill(class, self.in_use()), Ok);
        let slot = slot.inspect_err(|_| self.0.uncharge(class.size()))?;
        let (at, backing) = inner.slots.block(slot);
        poison::allow(at, class.size());
        Ok((at, class.size(), Block { part: self.0.clone(), slot, class, backing }))
    }

    /// Prepares `count` buffers of `len` bytes, so that allocating them later maps no memory.
    ///
    /// # Errors
    /// As for [`BufPool::alloc`].
    pub fn prepare(&self, len: usize, count: usize) -> Result<(), AllocError> {
        let all: Result<Vec<_>, _> = (0..count).map(|_| self.take(len)).collect();
        all.map(drop)
    }

    /// Unmaps every region without a buffer in use.
    pub fn trim(&self) {
        let mut table = self.inner().table();
        self.inner().coalesce(&mut table);
        self.inner().unmap_free(&mut table, usize::MAX);
    }

    /// The pool's memory. For a part, `limit` and `in_use` are its own.
    pub fn stats(&self) -> PoolStats {
        let (limit, in_use) = (self.limit(), self.in_use());
        let mut stats = PoolStats { limit, in_use, ..PoolStats::default() };
        for region in self.regions() {
            stats.reserved += region.len;
            *match region.backing {
                Backing::Huge1G => &mut stats.huge_1g,
                Backing::Huge2M => &mut stats.huge_2m,
                Backing::Locked => &mut stats.locked,
                Backing::Unlocked => &mut stats.unlocked,
            } += region.len;
        }
        stats
    }

    /// The regions currently mapped. They stay mapped while the result lives.
    pub fn keep_regions(&self) -> KeptRegions {
        let table = self.inner().table();
        self.inner().keepers.fetch_add(1, Ordering::Relaxed);
        let regions = table.regions.values().map(PinnedRegion::info).collect();
        drop(table);
        KeptRegions { pool: self.clone(), regions }
    }

    /// The regions currently mapped, by address.
    pub fn regions(&self) -> Vec<RegionInfo> {
        self.inner().table().regions.values().map(PinnedRegion::info).collect()
    }
}

impl fmt::Debug for BufPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stats = self.stats();
        write!(f, "BufPool({} of {} bytes in use, {} mapped)", stats.in_use, stats.limit, stats.reserved)
    }
}

impl Block {
    pub(super) fn backing(&self) -> Backing {
        self.backing
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        self.part.pool.free(self.class, self.slot);
        self.part.uncharge(self.class.size());
    }
}

impl Inner {
    fn list(&self, class: Class) -> &FreeList {
        &self.free[class.index()]
    }

    /// Frees a block that is no longer used.
    fn free(&self, class: Class, slot: SlotId) {
        if poison::ON {
            poison::forbid(self.slots.block(slot).0, class.size());
        }
        self.list(class).push(&self.slots, slot);
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn exhausted(&self, class: Class, in_use: usize) -> AllocError {
        AllocError::Exhausted { limit: self.config.limit_bytes, in_use, wanted: class.size() }
    }

    /// A block of `class` when its list is empty.
    #[cold]
    fn refill(&self, class: Class, in_use: usize) -> Result<SlotId, AllocError> {
        let table = &mut *self.table();
        if let Some(slot) = self.take(table, class) {
            return Ok(slot);
        }
        if let Ok(slot) = self.map(table, class, in_use) {
            return Ok(slot);
        }
        self.coalesce(table);
        if let Some(slot) = self.take(table, class) {
            return Ok(slot);
        }
        self.unmap_free(table, class.region_len());
        // A buffer may have been returned in the meantime.
        self.map(table, class, in_use).or_else(|e| self.take(table, class).ok_or(e))
    }

    /// A free block of `class`, or one carved from the smallest larger block.
    fn take(&self, table: &mut Table, class: Class) -> Option<SlotId> {
        let sources = Class::all().skip(class.index()).take_while(|c| *c == class || c.size() <= SLAB);
        for from in sources {
            if let Some(slot) = self.list(from).pop(&self.slots) {
                return Some(self.carve(table, slot, from, class));
            }
        }
        None
    }

    /// Carves a block of class `from` into blocks of class `to`; frees all but the first, which is returned.
    fn carve(&self, table: &mut Table, slot: SlotId, from: Class, to: Class) -> SlotId {
        let (at, backing) = self.slots.block(slot);
        // Backwards, so that they are allocated in ascending order of addresses.
        for i in (1..from.size() / to.size()).rev() {
            let piece = table.take_slot();
            // SAFETY: `i * to.size()` is below `from.size()`, the bytes of the block at `at`.
            self.slots.set(piece, unsafe { at.add(i * to.size()) }, backing);
            self.free(to, piece);
        }
        slot
    }

    /// Maps a region for `class`; returns a block of it.
    fn map(&self, table: &mut Table, class: Class, in_use: usize) -> Result<SlotId, AllocError> {
        let len = class.region_len();
        let ceiling = self.config.limit_bytes.checked_next_multiple_of(SLAB).unwrap_or(usize::MAX);
        if table.reserved.saturating_add(len) > ceiling {
            return Err(self.exhausted(class, in_use));
        }
        let region = match self.plain {
            true => PinnedRegion::map_unlocked(len)?,
            false => PinnedRegion::map(len, self.config.hugepages, self.config.numa_node)?,
        };
        table.reserved += len;
        let slot = table.take_slot();
        self.slots.set(slot, region.base(), region.backing());
        table.regions.insert(region.info().addr, region);
        Ok(if class.size() < len { self.carve(table, slot, Class::for_len(len)?, class) } else { slot })
    }

    /// Joins free neighbours below the size of a slab, so that free memory consists of the largest possible blocks.
    fn coalesce(&self, table: &mut Table) {
        let mut joined: Vec<(usize, SlotId)> = Vec::new();
        for class in Class::all().take_while(|class| class.size() <= SLAB) {
            let drained = std::iter::from_fn(|| self.list(class).pop(&self.slots));
            let mut blocks = std::mem::take(&mut joined);
            blocks.extend(drained.map(|slot| (self.slots.block(slot).0.addr().get(), slot)));
            blocks.sort_unstable();
            let mut blocks = blocks.into_iter().peekable();
            while let Some((addr, slot)) = blocks.next() {
                let buddy = |next: &(usize, SlotId)| next.0 == addr + class.size();
                let is_front = class.size() < SLAB && addr.is_multiple_of(2 * class.size());
                if is_front && let Some((_, back)) = blocks.next_if(buddy) {
                    table.unused.push(back);
                    joined.push((addr, slot));
                } else {
                    self.list(class).push(&self.slots, slot);
                }
            }
        }
    }

    /// Unmaps regions that are one free block, until `enough` bytes are unmapped or none are left.
    fn unmap_free(&self, table: &mut Table, enough: usize) {
        if self.keepers.load(Ordering::Relaxed) > 0 {
            return;
        }
        let mut freed: usize = 0;
        for class in Class::all().rev().take_while(|class| class.size() >= SLAB) {
            while freed < enough
                && let Some(slot) = self.list(class).pop(&self.slots)
            {
                let region = table.regions.remove(&self.slots.block(slot).0.addr().get());
                debug_assert!(region.is_some(), "a block of {} bytes is a region", class.size());
                freed = freed.saturating_add(class.size());
                table.reserved -= class.size();
                table.unused.push(slot);
            }
        }
    }
}
