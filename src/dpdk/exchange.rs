//! Frames from core to core, by pointer.

use std::marker::PhantomData;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::eal::{Eal, EalInner};
use super::error::{PortError, text};
use super::mbuf::{RxMbuf, TxMbuf, forget_front};
use super::room::{MAX_CORES, slots};
use crate::datapath::exchange::{Exchange, Handed};
use crate::datapath::{BURST, Burst};

/// Alignment of rings, in bytes: two cache lines, as CPUs fetch lines in pairs.
const ALIGN: u32 = 128;

/// A frame that can move to another core: a pointer to an mbuf.
pub trait Frame: sealed::Sealed {}

impl Frame for RxMbuf {}
impl Frame for TxMbuf {}

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::RxMbuf {}
    impl Sealed for super::TxMbuf {}
}

// Rings copy elements as bytes, as a move does.
const _: () = assert!(
    size_of::<Handed<RxMbuf>>() == dpdk_sys::GANNET_HANDED_SIZE as usize
        && size_of::<Handed<TxMbuf>>() == dpdk_sys::GANNET_HANDED_SIZE as usize
        && align_of::<Handed<RxMbuf>>() <= 8
);

/// Which rings to a core contain frames: bit n stands for the ring from core n. It has a cache line of its own, and so
/// has the line that CPUs fetch along with it.
#[repr(align(128))]
struct Waiting(AtomicU64);

/// The rings between all cores of a group.
struct Mesh<F: Frame> {
    cores: u8,
    /// From core `f` to core `t` at `f * cores + t`; none from a core to itself.
    rings: Vec<Option<NonNull<dpdk_sys::rte_ring>>>,
    waiting: Vec<Waiting>,
    _eal: Arc<EalInner>,
    _frames: PhantomData<F>,
}

// SAFETY: a ring has one producer and one consumer: two of the ends that `mesh` creates, each of which is used by one
// thread at a time (`&mut`). Whole mbufs are passed, and their pools may be used from any thread.
unsafe impl<F: Frame> Send for Mesh<F> {}
// SAFETY: as above.
unsafe impl<F: Frame> Sync for Mesh<F> {}

impl<F: Frame> Mesh<F> {
    fn ring(&self, from: u8, to: u8) -> Option<NonNull<dpdk_sys::rte_ring>> {
        self.rings[usize::from(from) * usize::from(self.cores) + usize::from(to)]
    }
}

impl<F: Frame> Drop for Mesh<F> {
    fn drop(&mut self) {
        for ring in self.rings.iter().flatten() {
            let mut left: Burst<Handed<F>> = Burst::new();
            // SAFETY: no end is left, so nobody else uses the ring.
            unsafe {
                while dequeue(*ring, &mut left) > 0 {
                    left.clear();
                }
                dpdk_sys::rte_free(ring.as_ptr().cast());
            }
        }
    }
}

/// Takes frames out of `ring` until `burst` is full. Returns how many.
///
/// # Safety
/// Nothing else takes frames out of the ring, and its elements are `Handed<F>`.
unsafe fn dequeue<F: Frame>(ring: NonNull<dpdk_sys::rte_ring>, burst: &mut Burst<Handed<F>>) -> usize {
    let len = burst.len();
    // SAFETY: `BURST - len` slots are spare capacity of the burst; the ring copies `got` elements there, which are moved
    // by that, as nothing looks at the ring's copies any more.
    unsafe {
        let free = burst.as_mut_ptr().add(len);
        let got = dpdk_sys::gannet_handed_dequeue(ring.as_ptr(), free.cast(), (BURST - len) as u32) as usize;
        burst.set_len(len + got);
        got
    }
}

/// One core's end of the rings between all cores of a group ([`mesh`]). Frames move by pointer, up to a burst at a time.
///
/// Frames that are left in the rings are freed along with the last end.
pub struct RingExchange<F: Frame> {
    mesh: Arc<Mesh<F>>,
    core: u8,
    /// Rings that have not been found empty since their bits were taken.
    pending: u64,
    /// Where the next look begins, so that the cores take turns.
    next: u8,
}

impl<F: Frame> std::fmt::Debug for RingExchange<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RingExchange").field("core", &self.core).field("cores", &self.mesh.cores).finish()
    }
}

/// Connects `cores` cores with each other: one ring with a single producer and a single consumer for each ordered pair,
/// in memory of NUMA node `node`. The end at index n is that of core n.
///
/// # Errors
/// [`PortError::Cores`] for none or more than [`MAX_CORES`], and [`PortError::Exchange`] if memory is short.
pub fn mesh<F: Frame>(eal: &Eal, cores: u8, node: Option<u16>) -> Result<Vec<RingExchange<F>>, PortError> {
    if cores == 0 || cores > MAX_CORES {
        return Err(PortError::Cores { want: cores.into(), max: MAX_CORES.into() });
    }
    let mut mesh = Mesh {
        cores,
        rings: Vec::with_capacity(usize::from(cores) * usize::from(cores)),
        waiting: (0..cores).map(|_| Waiting(AtomicU64::new(0))).collect(),
        _eal: eal.0.clone(),
        _frames: PhantomData,
    };
    for (from, to) in (0..cores).flat_map(|from| (0..cores).map(move |to| (from, to))) {
        let ring = if from == to { None } else { Some(ring(slots(cores), node)?) };
        mesh.rings.push(ring);
    }
    let mesh = Arc::new(mesh);
    Ok((0..cores).map(|core| RingExchange { mesh: mesh.clone(), core, pending: 0, next: 0 }).collect())
}

/// An empty ring in memory of NUMA node `node`, to be freed with `rte_free`. `rte_ring_create` is not used: each of its
/// rings takes one of the 2,560 memory zones of a process.
fn ring(slots: u32, node: Option<u16>) -> Result<NonNull<dpdk_sys::rte_ring>, PortError> {
    let fail = |reason| PortError::Exchange { slots, reason };
    // SAFETY: takes no pointers.
    let size = unsafe { dpdk_sys::rte_ring_get_memsize_elem(dpdk_sys::GANNET_HANDED_SIZE, slots) };
    let size = usize::try_from(size).map_err(|_| fail(text(size as i32)))?;
    let allocate = |node: i32| {
        // SAFETY: EAL is up; no name is allowed.
        let memory = unsafe { dpdk_sys::rte_malloc_socket(std::ptr::null(), size, ALIGN, node) };
        NonNull::new(memory.cast::<dpdk_sys::rte_ring>())
    };
    // If that node has no memory, another one will do.
    let there = node.and_then(|node| allocate(node.into()));
    let ring = there.or_else(|| allocate(-1)).ok_or_else(|| fail(text(libc::ENOMEM)))?;
    let flags = dpdk_sys::RING_F_SP_ENQ | dpdk_sys::RING_F_SC_DEQ;
    // SAFETY: the memory is as large as such a ring and aligned, and the name is NUL-terminated.
    let code = unsafe { dpdk_sys::rte_ring_init(ring.as_ptr(), c"gannet_exchange".as_ptr(), slots, flags) };
    if code != 0 {
        // SAFETY: allocated above, and not used.
        unsafe { dpdk_sys::rte_free(ring.as_ptr().cast()) };
        return Err(fail(text(code)));
    }
    Ok(ring)
}

impl<F: Frame> RingExchange<F> {
    /// The core that this end belongs to.
    pub fn core(&self) -> u8 {
        self.core
    }
}

impl<F: Frame> Exchange<F> for RingExchange<F> {
    fn cores(&self) -> u8 {
        self.mesh.cores
    }

    /// Takes no frames for this core itself, or for a core that does not exist.
    fn offer(&mut self, to: u8, burst: &mut Burst<Handed<F>>) -> usize {
        let len = burst.len();
        if len == 0 || to >= self.mesh.cores {
            return 0;
        }
        let Some(ring) = self.mesh.ring(self.core, to) else { return 0 };
        // SAFETY: this end is the ring's only producer, and belongs to one thread. The ring takes the first `taken`
        // elements, and the burst forgets exactly those.
        let taken = unsafe {
            let first = burst.as_mut_ptr();
            let taken = dpdk_sys::gannet_handed_enqueue(ring.as_ptr(), first.cast(), len as u32) as usize;
            forget_front(burst, taken);
            taken
        };
        if taken > 0 {
            // After the elements, so that whoever sees the bit sees them as well. Set even if it seems to be set
            // already: that read might happen before the elements are visible, and the other core might look in
            // between.
            self.mesh.waiting[usize::from(to)].0.fetch_or(1 << self.core, Ordering::AcqRel);
        }
        taken
    }

    fn take(&mut self, burst: &mut Burst<Handed<F>>) -> usize {
        let waiting = &self.mesh.waiting[usize::from(self.core)].0;
        // Most turns end here: the word stays in this core's cache until another core writes to it.
        if waiting.load(Ordering::Relaxed) != 0 {
            self.pending |= waiting.swap(0, Ordering::AcqRel);
        }
        if self.pending == 0 {
            return 0;
        }
        let before = burst.len();
        let mut unseen = self.pending;
        while unseen != 0 && !burst.is_full() {
            // The first at or after `next`, starting over at the end.
            let from = (unseen.rotate_right(self.next.into()).trailing_zeros() as u8 + self.next) % 64;
            unseen &= !(1 << from);
            self.next = (from + 1) % 64;
            let Some(ring) = self.mesh.ring(from, self.core) else { continue };
            // SAFETY: this end is the ring's only consumer, and belongs to one thread.
            unsafe { dequeue(ring, burst) };
            if !burst.is_full() {
                self.pending &= !(1 << from);
            }
        }
        burst.len() - before
    }
}
