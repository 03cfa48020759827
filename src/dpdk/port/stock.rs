//! The spare buffers of a queue.

use std::mem::ManuallyDrop;
use std::ptr::NonNull;
use std::sync::Arc;

use crate::datapath::{BURST, Burst, TxFrame as _};
use crate::dpdk::mbuf::{Mbuf, RxMbuf, TxMbuf};
use crate::dpdk::pool::Pool;
use crate::mem::prefetch_write;

/// Raw buffers, taken from a pool in bulk.
pub(super) struct Stock {
    pool: Arc<Pool>,
    /// The length that payloads usually have, in bytes.
    usual: usize,
    spare: [*mut std::ffi::c_void; BURST],
    spares: usize,
}

impl Stock {
    pub(super) fn new(pool: Arc<Pool>, mtu: u16) -> Self {
        Self { pool, usual: usize::from(mtu), spare: [std::ptr::null_mut(); BURST], spares: 0 }
    }

    /// Takes an empty buffer.
    pub(super) fn take(&mut self) -> Option<Mbuf> {
        if self.spares == 0 {
            self.refill();
        }
        let last = self.spares.checked_sub(1)?;
        let raw = NonNull::new(self.spare[last])?;
        self.spares = last;
        if let Some(next) = last.checked_sub(1).and_then(|i| NonNull::new(self.spare[i])) {
            // SAFETY: a buffer that is ours; it stays in `spare`, so nobody drops it here.
            let mut next = ManuallyDrop::new(TxMbuf(unsafe { Mbuf::from_raw(next.cast()) }));
            // In memory shared with another core, that core has read this buffer last and has to give up its cache
            // lines.
            let room = next.payload_mut();
            let len = room.len().min(self.usual);
            prefetch_write(&mut room[..len]);
        }
        // SAFETY: a buffer fresh from the pool, which nobody else has.
        let mut mbuf = unsafe { Mbuf::from_raw(raw.cast()) };
        mbuf.reset();
        Some(mbuf)
    }

    fn refill(&mut self) {
        // Whole bursts are faster; near exhaustion single buffers are better than none.
        for want in [BURST, 1] {
            let pool = self.pool.as_ptr();
            // SAFETY: the pool is alive, and `spare` has room for `want` pointers.
            if unsafe { dpdk_sys::rte_mempool_get_bulk(pool, self.spare.as_mut_ptr(), want as u32) } == 0 {
                self.spares = want;
                return;
            }
        }
    }
}

impl Drop for Stock {
    fn drop(&mut self) {
        // SAFETY: the spare buffers are raw, come from this pool and are given back once.
        unsafe { dpdk_sys::rte_mempool_put_bulk(self.pool.as_ptr(), self.spare.as_ptr(), self.spares as u32) };
        self.spares = 0;
    }
}

/// Frees a burst with one call, which is cheaper than dropping its frames one by one.
pub(super) fn free(burst: &mut Burst<RxMbuf>) {
    let len = burst.len();
    // SAFETY: `RxMbuf` is a transparent pointer, and the frames are owned by the burst, which forgets them before they are
    // freed.
    unsafe {
        burst.set_len(0);
        dpdk_sys::rte_pktmbuf_free_bulk(burst.as_mut_ptr().cast(), len as u32);
    }
}
