//! The functions of `sys` without system calls, on plain heap memory, so that Miri can run this layer.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::collections::BTreeMap;
use std::io;
use std::ptr::NonNull;
use std::sync::Mutex;

pub(super) const PAGE: usize = 4096;

static LAYOUTS: Mutex<BTreeMap<usize, Layout>> = Mutex::new(BTreeMap::new());

pub(super) fn map_huge(_len: usize, _page_shift: u32) -> io::Result<NonNull<u8>> {
    Err(io::Error::from(io::ErrorKind::Unsupported))
}

pub(super) fn map_plain(len: usize, align: usize) -> io::Result<NonNull<u8>> {
    let layout = Layout::from_size_align(len, align).map_err(|_| io::Error::from(io::ErrorKind::OutOfMemory))?;
    assert!(len > 0);
    // SAFETY: the layout is not of size 0.
    let at = NonNull::new(unsafe { alloc_zeroed(layout) }).ok_or(io::Error::from(io::ErrorKind::OutOfMemory))?;
    LAYOUTS.lock().unwrap().insert(at.addr().get(), layout);
    Ok(at)
}

/// # Safety
/// The bytes must be one whole mapping made by this module, and must no longer be used.
pub(super) unsafe fn unmap(at: NonNull<u8>, _len: usize) {
    let layout = LAYOUTS.lock().unwrap().remove(&at.addr().get()).expect("mapped here");
    // SAFETY: allocated with this layout in `map_plain`.
    unsafe { dealloc(at.as_ptr(), layout) };
}

pub(super) fn populate(_at: NonNull<u8>, _len: usize) -> io::Result<()> {
    Ok(())
}

pub(super) fn prefer_huge(_at: NonNull<u8>, _len: usize) {}

pub(super) fn lock(_at: NonNull<u8>, _len: usize) -> io::Result<()> {
    Err(io::Error::from(io::ErrorKind::Unsupported))
}

pub(super) fn unlock(_at: NonNull<u8>, _len: usize) {}

pub(super) fn prefer_node(_at: NonNull<u8>, _len: usize, _node: u32) {}

pub(super) fn node_of(_: NonNull<u8>) -> Option<u32> {
    None
}
