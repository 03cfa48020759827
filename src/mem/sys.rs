//! System calls for regions, without any policy.

use std::io;
use std::ptr::NonNull;

use libc::{c_int, c_ulong};

/// Size of an ordinary page in bytes.
pub(super) const PAGE: usize = 4096;

fn mmap(len: usize, flags: c_int) -> io::Result<NonNull<u8>> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | flags;
    // SAFETY: an anonymous mapping at an address chosen by the kernel affects no existing memory.
    let at = unsafe { libc::mmap(std::ptr::null_mut(), len, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
    if at == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    NonNull::new(at.cast()).ok_or_else(|| io::Error::from(io::ErrorKind::OutOfMemory))
}

/// Maps `len` zeroed bytes of hugepages of `1 << page_shift` bytes; `len` is a multiple of that.
pub(super) fn map_huge(len: usize, page_shift: u32) -> io::Result<NonNull<u8>> {
    mmap(len, libc::MAP_HUGETLB | ((page_shift as c_int) << libc::MAP_HUGE_SHIFT))
}

/// Maps `len` zeroed bytes of ordinary pages, aligned to `align`; both are multiples of [`PAGE`].
pub(super) fn map_plain(len: usize, align: usize) -> io::Result<NonNull<u8>> {
    let slack = align - PAGE;
    let whole = len.checked_add(slack).ok_or_else(|| io::Error::from(io::ErrorKind::OutOfMemory))?;
    let start = mmap(whole, libc::MAP_NORESERVE)?;
    let before = start.addr().get().wrapping_neg() % align;
    // SAFETY: `before <= slack`, so the aligned start and the `len` bytes behind it lie in the mapping.
    let aligned = unsafe { start.add(before) };
    // SAFETY: both pieces lie inside the new mapping, which nobody else knows yet.
    unsafe {
        unmap(start, before);
        unmap(aligned.add(len), slack - before);
    }
    Ok(aligned)
}

/// Unmaps memory.
///
/// # Safety
/// The bytes must be a whole-page part of a mapping made by this module, and must no longer be used.
pub(super) unsafe fn unmap(at: NonNull<u8>, len: usize) {
    if len > 0 {
        // SAFETY: by contract, nothing refers to these pages.
        let rc = unsafe { libc::munmap(at.as_ptr().cast(), len) };
        debug_assert_eq!(rc, 0, "munmap of {len} bytes");
    }
}

/// Faults all pages in for writing. Fails if there is no memory for the mapping after all. Kernels that do not support
/// this (before 5.14) fault them in lazily instead.
pub(super) fn populate(at: NonNull<u8>, len: usize) -> io::Result<()> {
    match madvise(at, len, libc::MADV_POPULATE_WRITE) {
        Err(e) if e.raw_os_error() != Some(libc::EINVAL) => Err(e),
        _ => Ok(()),
    }
}

/// Requests transparent hugepages, as a hint.
pub(super) fn prefer_huge(at: NonNull<u8>, len: usize) {
    let _ = madvise(at, len, libc::MADV_HUGEPAGE);
}

fn madvise(at: NonNull<u8>, len: usize, advice: c_int) -> io::Result<()> {
    // SAFETY: the advice values used here never change the contents of memory.
    match unsafe { libc::madvise(at.as_ptr().cast(), len, advice) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Locks pages in RAM, which also faults them in.
pub(super) fn lock(at: NonNull<u8>, len: usize) -> io::Result<()> {
    // SAFETY: locking changes no contents; a bad range is reported as an error.
    match unsafe { libc::mlock(at.as_ptr().cast(), len) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Unlocks the pages that lie completely in the range. Locks do not nest, so pages shared with neighbours at both ends
/// stay locked.
pub(super) fn unlock(at: NonNull<u8>, len: usize) {
    let start = at.addr().get();
    let (first, end) = (start.next_multiple_of(PAGE), (start + len) / PAGE * PAGE);
    if first < end {
        // SAFETY: unlocking changes no contents; the range lies in the caller's memory.
        unsafe { libc::munlock(at.as_ptr().wrapping_add(first - start).cast(), end - first) };
    }
}

/// Prefers NUMA node `node` for pages not yet faulted in. Best effort: it has no effect on machines without NUMA.
pub(super) fn prefer_node(at: NonNull<u8>, len: usize, node: u32) {
    const MPOL_PREFERRED: c_ulong = 1;
    const WORDS: usize = 16;
    const BITS: u32 = c_ulong::BITS;
    let mut mask: [c_ulong; WORDS] = [0; WORDS];
    let Some(word) = mask.get_mut((node / BITS) as usize) else { return };
    *word |= 1 << (node % BITS);
    // SAFETY: the kernel reads `mask` (the bit count is its size) and changes no contents of the range.
    unsafe {
        let max_node = WORDS as c_ulong * c_ulong::from(BITS);
        libc::syscall(libc::SYS_mbind, at.as_ptr(), len, MPOL_PREFERRED, mask.as_ptr(), max_node, 0 as c_ulong);
    }
}

/// The NUMA node of the page at `at`, which has been faulted in. `None` if the kernel does not say.
pub(super) fn node_of(at: NonNull<u8>) -> Option<u32> {
    const MPOL_F_NODE: c_ulong = 1;
    const MPOL_F_ADDR: c_ulong = 2;
    let mut node: c_int = -1;
    // SAFETY: the kernel writes a number to `node`, the only memory of ours that it accesses. It looks up the page at the
    // address, and may fault it in, but does not touch its contents.
    let rc = unsafe {
        let (no_mask, bits) = (std::ptr::null_mut::<c_ulong>(), 0 as c_ulong);
        libc::syscall(libc::SYS_get_mempolicy, &raw mut node, no_mask, bits, at.as_ptr(), MPOL_F_NODE | MPOL_F_ADDR)
    };
    u32::try_from(node).ok().filter(|_| rc == 0)
}
