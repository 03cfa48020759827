//! The pool: buffers in size classes, carved from regions that are mapped as needed.
//!
//! Taking and returning a buffer is a swap on its class's free list. Only when that list is empty is a lock taken:
//! then a larger free block is carved, or a region is mapped; at the limit, free neighbours are joined and regions
//! without a buffer in use are given back to the system first.

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

/// How a [`BufPool`] gets its memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolConfig {
    /// Most bytes in use at a time, counted in whole size classes. The pool maps up to this much, rounded up to
    /// whole hugepages.
    pub limit_bytes: usize,
    /// Kind of pages.
    pub hugepages: Hugepages,
    /// NUMA node to prefer.
    pub numa_node: Option<u32>,
}

impl Default for PoolConfig {
    /// 1 GiB of whatever pages there are, on any node.
    fn default() -> Self {
        Self { limit_bytes: 1 << 30, hugepages: Hugepages::Auto, numa_node: None }
    }
}

/// What a pool holds, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PoolStats {
    /// Most bytes that may be in use.
    pub limit: usize,
    /// Bytes in buffers that are out, counted in whole size classes.
    pub in_use: usize,
    /// Bytes mapped: the sum of the four below.
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

/// A pool of [`PinnedBuf`](crate::mem::PinnedBuf)s, or a part of one ([`BufPool::part`]). Clones are handles to the same; buffers may outlive
/// all of them.
#[derive(Clone)]
pub struct BufPool(Arc<Part>);

/// Whom a buffer is charged to: the whole pool, or somebody who may have some of it.
struct Part {
    pool: Arc<Inner>,
    /// What this is a part of; `None`: it is the pool.
    whole: Option<Arc<Part>>,
    limit: usize,
    in_use: AtomicUsize,
}

impl Part {
    /// This part, what it is a part of, and so on.
    fn chain(&self) -> impl Iterator<Item = &Self> {
        std::iter::successors(Some(self), |part| part.whole.as_deref())
    }

    /// Charges `n` bytes to this part and to all that it is a part of.
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

/// A block that is out; goes back to its class's free list when dropped.
pub(super) struct Block {
    part: Arc<Part>,
    slot: SlotId,
    class: Class,
    backing: Backing,
}

struct Inner {
    config: PoolConfig,
    /// Plain unlocked memory, whatever `config` says.
    plain: bool,
    free: [CachePadded<FreeList>; COUNT],
    slots: Slots,
    table: Mutex<Table>,
    /// Holders of [`KeptRegions`]: as long as there are any, nothing is unmapped. Changes under the table's lock.
    keepers: AtomicUsize,
}

/// The regions of a pool, which stay mapped as long as this lives: for devices that are told of them.
pub struct KeptRegions {
    pool: BufPool,
    regions: Vec<RegionInfo>,
}

impl KeptRegions {
    /// Where they are.
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
    /// Slots that describe no block any more.
    unused: Vec<SlotId>,
    /// First slot never used.
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
    /// A pool; memory is mapped as buffers are asked for (see [`BufPool::prepare`]).
    ///
    /// # Errors
    /// [`AllocError::NoHugepages`] when they are required and there is not a single one.
    pub fn new(config: PoolConfig) -> Result<Self, AllocError> {
        let pool = Self::with(config, false);
        if config.hugepages == Hugepages::Require {
            pool.prepare(SLAB.min(config.limit_bytes.max(1)), 1)?;
        }
        Ok(pool)
    }

    /// A pool of plain memory without a limit, neither huge nor locked, that still recycles.
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

    /// A part of this pool, or of this part: what is taken from it counts here as well, until it comes back, and at most
    /// `limit_bytes` can be taken. Nothing is set aside for it; parts may add up to more than there is.
    pub fn part(&self, limit_bytes: usize) -> Self {
        let (pool, whole) = (self.0.pool.clone(), Some(self.0.clone()));
        Self(Arc::new(Part { pool, whole, limit: limit_bytes, in_use: AtomicUsize::new(0) }))
    }

    fn inner(&self) -> &Inner {
        &self.0.pool
    }

    /// Bytes in buffers that are out, counted in whole size classes; of a part, those taken from it.
    pub fn in_use(&self) -> usize {
        self.0.in_use.load(Ordering::Relaxed)
    }

    /// Most bytes that may be in use at a time.
    pub fn limit(&self) -> usize {
        self.0.limit
    }

    /// Whether there are other handles to it, parts of it or buffers from it.
    pub fn is_shared(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }

    /// A block for `len` bytes: where it is, its size, and what gives it back.
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

    /// Makes `count` buffers of `len` bytes ready, so that taking them later maps nothing.
    ///
    /// # Errors
    /// As for [`BufPool::alloc`].
    pub fn prepare(&self, len: usize, count: usize) -> Result<(), AllocError> {
        let all: Result<Vec<_>, _> = (0..count).map(|_| self.take(len)).collect();
        all.map(drop)
    }

    /// Gives every region without a buffer in use back to the system.
    pub fn trim(&self) {
        let mut table = self.inner().table();
        self.inner().coalesce(&mut table);
        self.inner().unmap_free(&mut table, usize::MAX);
    }

    /// What the pool holds. Of a part, `limit` and `in_use` are its own.
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

    /// The regions mapped at this moment, which then stay mapped for as long as the answer lives.
    pub fn keep_regions(&self) -> KeptRegions {
        let table = self.inner().table();
        self.inner().keepers.fetch_add(1, Ordering::Relaxed);
        let regions = table.regions.values().map(PinnedRegion::info).collect();
        drop(table);
        KeptRegions { pool: self.clone(), regions }
    }

    /// The regions mapped at this moment, by address.
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

    /// Makes a block free that nobody uses any more.
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

    /// A block of `class` although its list was empty.
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
        // A buffer may have come back meanwhile.
        self.map(table, class, in_use).or_else(|e| self.take(table, class).ok_or(e))
    }

    /// A free block of `class`, or one carved from the smallest larger one.
    fn take(&self, table: &mut Table, class: Class) -> Option<SlotId> {
        let sources = Class::all().skip(class.index()).take_while(|c| *c == class || c.size() <= SLAB);
        for from in sources {
            if let Some(slot) = self.list(from).pop(&self.slots) {
                return Some(self.carve(table, slot, from, class));
            }
        }
        None
    }

    /// Cuts a block of class `from` into blocks of class `to`, frees all but the first, returns that.
    fn carve(&self, table: &mut Table, slot: SlotId, from: Class, to: Class) -> SlotId {
        let (at, backing) = self.slots.block(slot);
        // Backwards, so that they are taken by ascending address.
        for i in (1..from.size() / to.size()).rev() {
            let piece = table.take_slot();
            // SAFETY: `i * to.size()` is below `from.size()`, the bytes of the block at `at`.
            self.slots.set(piece, unsafe { at.add(i * to.size()) }, backing);
            self.free(to, piece);
        }
        slot
    }

    /// Maps a region for `class`; a block of it.
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

    /// Joins free neighbours below a slab's size, so that free memory is in as large blocks as can be.
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

    /// Gives regions that are one free block back to the system, until `enough` bytes or none are left.
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
