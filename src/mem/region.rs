//! Regions: memory that stays in RAM.

use std::fmt;
use std::ptr::NonNull;
use std::sync::Once;

use super::class::SLAB;
use super::owner::Owner;
use super::pages::{Backing, Hugepages};
use super::{AllocError, EmptyMapping, poison, sys};

const GIB_SHIFT: u32 = 30;
const HUGE_SHIFT: u32 = 21;

/// Address of a region, for registering memory with a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegionInfo {
    /// Virtual address of the first byte.
    pub addr: usize,
    /// Length in bytes, a multiple of `page_size` unless the region is an application's own mapping.
    pub len: usize,
    /// Size of its pages in bytes.
    pub page_size: usize,
    /// Kind of those pages.
    pub backing: Backing,
}

enum Source {
    Mapped,
    Owner(Owner),
    /// The owner was returned.
    Returned,
}

/// A contiguous region of memory that stays in RAM. Dropping it unmaps the memory or drops its owner.
///
/// ```
/// use gannet::mem::PinnedRegion;
/// let mine = vec![7u8; 10_000]; // or a memory-mapped file
/// let mut buf = PinnedRegion::from_mapping(mine)?.into_buf();
/// buf[0] = 1; // pass it to a stream; later, when it is returned:
/// let mine: Vec<u8> = buf.take_owner().expect("it came from a Vec");
/// assert_eq!(mine[..2], [1, 7]);
/// # Ok::<(), gannet::mem::EmptyMapping<Vec<u8>>>(())
/// ```
pub struct PinnedRegion {
    pub(super) at: NonNull<u8>,
    pub(super) len: usize,
    page_size: usize,
    backing: Backing,
    source: Source,
}

// SAFETY: a region is the only owner of its memory. Raw pointers are not `Send` merely as a lint, and registered owners
// are `Send`.
unsafe impl Send for PinnedRegion {}
// SAFETY: a shared reference only allows reading plain numbers.
unsafe impl Sync for PinnedRegion {}

impl PinnedRegion {
    /// Maps at least `len` zeroed bytes, rounded up to whole pages and aligned to 2 MiB. Hugepages of 1 GiB are used if
    /// `len` is a multiple of that and the system has them.
    ///
    /// Without hugepages, [`Hugepages::Auto`] and [`Hugepages::Never`] use ordinary pages, locked if the system allows
    /// it. The first fallback of the process logs a warning that names the remedy; [`PinnedRegion::backing`] returns
    /// what was obtained. `numa_node` is a preference only: the first time that another node provides the memory, a
    /// warning names both.
    ///
    /// # Errors
    /// [`AllocError::Empty`], [`AllocError::NoHugepages`] with [`Hugepages::Require`], [`AllocError::System`].
    pub fn map(len: usize, hugepages: Hugepages, numa_node: Option<u32>) -> Result<Self, AllocError> {
        if len == 0 {
            return Err(AllocError::Empty);
        }
        if hugepages != Hugepages::Never {
            for (shift, backing) in [(GIB_SHIFT, Backing::Huge1G), (HUGE_SHIFT, Backing::Huge2M)] {
                if (backing == Backing::Huge2M || len.is_multiple_of(1 << shift))
                    && let Some(region) = Self::map_huge(len, shift, backing, numa_node)
                {
                    return Ok(region);
                }
            }
            if hugepages == Hugepages::Require {
                return Err(AllocError::NoHugepages { wanted: len, remedy: hugepage_remedy(len) });
            }
        }
        let mut region = Self::map_plain(len, numa_node)?;
        if hugepages == Hugepages::Auto {
            warn_no_hugepages(region.len);
            sys::prefer_huge(region.at, region.len);
        }
        match sys::lock(region.at, region.len) {
            Ok(()) => {
                region.backing = Backing::Locked;
                region.check_node(numa_node);
            }
            Err(e) => warn_not_locked(&e),
        }
        Ok(region)
    }

    /// Warns if pages that have been faulted in are not on the node that was asked for.
    fn check_node(&self, wanted: Option<u32>) {
        let actual = wanted.and_then(|_| sys::node_of(self.at));
        if let Some(warning) = elsewhere(wanted, actual, self.len, self.backing) {
            static ONCE: Once = Once::new();
            ONCE.call_once(|| tracing::warn!("{warning}"));
        }
    }

    /// Maps ordinary pages, not locked, which are faulted in when accessed.
    pub(super) fn map_unlocked(len: usize) -> Result<Self, AllocError> {
        Self::map_plain(len, None)
    }

    fn map_plain(len: usize, numa_node: Option<u32>) -> Result<Self, AllocError> {
        let system = |errno| AllocError::System { wanted: len, errno };
        let len = len.checked_next_multiple_of(sys::PAGE).ok_or(system(libc::ENOMEM))?;
        let at = sys::map_plain(len, SLAB).map_err(|e| system(e.raw_os_error().unwrap_or(libc::ENOMEM)))?;
        if let Some(node) = numa_node {
            sys::prefer_node(at, len, node);
        }
        Ok(Self { at, len, page_size: sys::PAGE, backing: Backing::Unlocked, source: Source::Mapped })
    }

    fn map_huge(len: usize, shift: u32, backing: Backing, numa_node: Option<u32>) -> Option<Self> {
        let page_size = 1 << shift;
        let len = len.checked_next_multiple_of(page_size)?;
        let at = sys::map_huge(len, shift).ok()?;
        let region = Self { at, len, page_size, backing, source: Source::Mapped };
        if let Some(node) = numa_node {
            sys::prefer_node(at, len, node);
        }
        // A reservation may lack pages (cgroup limits); detect that now rather than by SIGBUS later.
        sys::populate(at, len).ok()?;
        region.check_node(numa_node);
        Some(region)
    }

    /// Registers memory that the application provides: the bytes of `owner`. The pages are locked in RAM if the system
    /// allows it ([`PinnedRegion::backing`] returns whether they are). The owner is kept without being accessed until
    /// [`PinnedBuf::take_owner`](super::PinnedBuf::take_owner) returns it or the buffer is dropped.
    ///
    /// # Errors
    /// [`EmptyMapping`] with the owner if it has no bytes.
    pub fn from_mapping<T: AsMut<[u8]> + Send + 'static>(owner: T) -> Result<Self, EmptyMapping<T>> {
        let (owner, at, len) = Owner::new(owner).map_err(EmptyMapping)?;
        let backing = match sys::lock(at, len) {
            Ok(()) => Backing::Locked,
            Err(e) => {
                warn_not_locked(&e);
                Backing::Unlocked
            }
        };
        Ok(Self { at, len, page_size: sys::PAGE, backing, source: Source::Owner(owner) })
    }

    /// Kind of pages.
    pub fn backing(&self) -> Backing {
        self.backing
    }

    /// Address and kind of the region.
    pub fn info(&self) -> RegionInfo {
        RegionInfo { addr: self.at.addr().get(), len: self.len, page_size: self.page_size, backing: self.backing }
    }

    /// First byte of the region.
    pub(super) fn base(&self) -> NonNull<u8> {
        self.at
    }

    /// The registered owner, if it is a `T`.
    pub(super) fn take_owner<T: 'static>(mut self) -> Result<T, Self> {
        match std::mem::replace(&mut self.source, Source::Returned) {
            Source::Owner(owner) => owner.take().map_err(|owner| {
                self.source = Source::Owner(owner);
                self
            }),
            source => {
                self.source = source;
                Err(self)
            }
        }
    }
}

impl Drop for PinnedRegion {
    fn drop(&mut self) {
        match &self.source {
            // SAFETY: mapped in `map`, and all users of the address (a buffer, a pool) own this region.
            Source::Mapped => unsafe {
                poison::allow(self.at, self.len);
                sys::unmap(self.at, self.len);
            },
            Source::Owner(_) | Source::Returned if self.backing == Backing::Locked => sys::unlock(self.at, self.len),
            Source::Owner(_) | Source::Returned => {}
        }
    }
}

impl fmt::Debug for PinnedRegion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PinnedRegion({:#x}+{:#x} {:?})", self.at.addr(), self.len, self.backing)
    }
}

fn hugepage_remedy(len: usize) -> String {
    let pages = len.div_ceil(SLAB).max(1024);
    format!("as root: sysctl -w vm.nr_hugepages={pages} (2 MiB each)")
}

/// What to tell the operator about memory of `len` bytes that was `wanted` on a NUMA node and is on another.
fn elsewhere(wanted: Option<u32>, actual: Option<u32>, len: usize, backing: Backing) -> Option<String> {
    let (wanted, actual) = wanted.zip(actual).filter(|(wanted, actual)| wanted != actual)?;
    let (mib, pages) = (len >> 20, len.div_ceil(SLAB));
    Some(match backing {
        Backing::Huge1G | Backing::Huge2M => format!(
            "NUMA node {wanted} has no hugepages left for {mib} MiB, which are taken from node {actual} (slower); as \
             root, add at least {pages} to the number in \
             /sys/devices/system/node/node{wanted}/hugepages/hugepages-2048kB/nr_hugepages"
        ),
        Backing::Locked | Backing::Unlocked => {
            format!("NUMA node {wanted} has no memory left for {mib} MiB, which are taken from node {actual} (slower)")
        }
    })
}

fn warn_no_hugepages(len: usize) {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let remedy = hugepage_remedy(len);
        tracing::warn!("no free hugepages, using ordinary pages (slower); {remedy}");
    });
}

fn warn_not_locked(error: &std::io::Error) {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        tracing::warn!(
            "memory cannot be locked ({error}) and may be swapped out; \
             raise RLIMIT_MEMLOCK (ulimit -l unlimited, or LimitMEMLOCK=infinity in the service) or grant CAP_IPC_LOCK"
        );
    });
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::mem::PinnedBuf;

    /// Bytes inside the object itself, and a count of drops.
    #[derive(Debug)]
    struct Inline([u8; 100], Arc<AtomicUsize>);

    impl AsMut<[u8]> for Inline {
        fn as_mut(&mut self) -> &mut [u8] {
            &mut self.0
        }
    }

    impl Drop for Inline {
        fn drop(&mut self) {
            self.1.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn inline() -> (PinnedBuf, Arc<AtomicUsize>) {
        let drops = Arc::new(AtomicUsize::new(0));
        (PinnedRegion::from_mapping(Inline([3; 100], drops.clone())).unwrap().into_buf(), drops)
    }

    #[test]
    fn maps_zeroed_aligned_memory() {
        for len in [1, 4096, SLAB + 1] {
            for hugepages in [Hugepages::Auto, Hugepages::Never] {
                let region = PinnedRegion::map(len, hugepages, Some(0)).unwrap();
                let info = region.info();
                assert!(info.len >= len && info.len.is_multiple_of(info.page_size), "{info:?}");
                assert!(info.addr.is_multiple_of(SLAB), "{info:?}");
                let huge = matches!(region.backing(), Backing::Huge1G | Backing::Huge2M);
                assert!(!huge || hugepages == Hugepages::Auto && info.page_size >= SLAB);
                let mut buf = region.into_buf();
                assert_eq!((buf.len(), buf.addr(), buf.backing()), (info.len, info.addr, info.backing));
                assert!(buf.iter().all(|b| *b == 0));
                buf.fill(0xa5);
            }
        }
    }

    #[test]
    fn memory_of_another_node_is_told() {
        let said = |wanted, actual, backing| elsewhere(wanted, actual, 64 << 20, backing);
        assert_eq!(said(None, None, Backing::Huge2M), None);
        assert_eq!(said(Some(1), Some(1), Backing::Huge2M), None);
        assert_eq!(said(Some(1), None, Backing::Huge2M), None, "the kernel does not say");
        let huge = said(Some(1), Some(0), Backing::Huge2M).unwrap();
        for part in ["node 1 has no hugepages left for 64 MiB", "from node 0", "at least 32", "node1/hugepages"] {
            assert!(huge.contains(part), "{part} is not in: {huge}");
        }
        let plain = said(Some(1), Some(0), Backing::Locked).unwrap();
        assert!(plain.contains("node 1 has no memory left for 64 MiB") && !plain.contains("hugepages"), "{plain}");
        let region = PinnedRegion::map(SLAB, Hugepages::Never, Some(0)).unwrap();
        // On a kernel with NUMA, memory is on the only node.
        assert!(region.backing() == Backing::Unlocked || matches!(sys::node_of(region.at), None | Some(0)));
    }

    #[test]
    fn impossible_regions_are_errors() {
        assert_eq!(PinnedRegion::map(0, Hugepages::Auto, None).unwrap_err(), AllocError::Empty);
        for len in [usize::MAX, usize::MAX / 2, 1 << 50] {
            let error = PinnedRegion::map(len, Hugepages::Never, None).unwrap_err();
            assert!(matches!(error, AllocError::System { wanted, .. } if wanted == len), "{error}");
            let error = PinnedRegion::map(len, Hugepages::Require, None).unwrap_err();
            assert!(matches!(error, AllocError::NoHugepages { .. }), "{error}");
            assert!(error.to_string().contains("sysctl -w vm.nr_hugepages="), "{error}");
        }
    }

    #[test]
    fn a_mapping_comes_back_with_what_was_written() {
        let vec = vec![1; 9000];
        let addr = vec.as_ptr().addr();
        let mut buf = PinnedRegion::from_mapping(vec).unwrap().into_buf();
        assert_eq!((buf.addr(), buf.len()), (addr, 9000));
        buf[8999] = 2;
        let vec: Vec<u8> = std::thread::spawn(|| buf.take_owner().unwrap()).join().unwrap();
        assert_eq!((vec.as_ptr().addr(), vec.len(), vec[0], vec[8999]), (addr, 9000, 1, 2));
    }

    #[test]
    fn an_owner_is_dropped_exactly_once() {
        let (mut buf, drops) = inline();
        buf[99] = 4;
        let (front, back) = buf.split(50);
        drop(front);
        assert_eq!((drops.load(Ordering::Relaxed), back[49]), (0, 4));
        drop(back);
        assert_eq!(drops.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn only_the_right_owner_and_only_the_last_part_gives_it_back() {
        let (buf, drops) = inline();
        let buf = buf.take_owner::<Vec<u8>>().unwrap_err();
        let (mut front, back) = buf.split(1);
        front[0] = 7;
        let back = back.take_owner::<Inline>().unwrap_err();
        assert_eq!((back.len(), back[0]), (99, 3));
        drop(front);
        let owner: Inline = back.take_owner().unwrap();
        assert_eq!((owner.0[..2].to_vec(), drops.load(Ordering::Relaxed)), (vec![7, 3], 0));
        drop(owner);
        assert_eq!(drops.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn other_memory_has_no_owner() {
        let buf = PinnedRegion::map(1, Hugepages::Never, None).unwrap().into_buf();
        let buf = buf.take_owner::<Vec<u8>>().unwrap_err();
        assert_eq!(buf[0], 0);
        assert!(PinnedBuf::unpinned(1).take_owner::<Vec<u8>>().is_err());
    }

    #[test]
    fn an_empty_mapping_is_refused_and_returned() {
        let EmptyMapping(vec) = PinnedRegion::from_mapping(Vec::<u8>::with_capacity(5)).unwrap_err();
        assert!(vec.is_empty());
    }
}
