//! One RX/TX queue pair of a port.

use std::cell::Cell;
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::sync::Arc;

use super::PortInner;
use crate::datapath::{BURST, Burst, Caps, Datapath, DatapathStats, Refused, TxFrame};
use crate::dpdk::guard::Gate;
use crate::dpdk::mbuf::{Mbuf, RxMbuf, TxMbuf};
use crate::dpdk::pool::Pool;
use crate::dpdk::wakeups::Wakeups;
use crate::mem::prefetch_write;

/// The number of [`Datapath::link_up`] calls between two queries of the device.
const LINK_REFRESH: u32 = 1024;

/// A queue pair, owned by one core at a time. The port stays open as long as one of its queues lives.
///
/// Receive into an empty burst if possible: the vector receive functions of PCI drivers fill four or eight slots at a
/// time, and return nothing if fewer are free.
pub struct Queue {
    port: Arc<PortInner>,
    port_id: u16,
    id: u16,
    /// Buffers that the device sends from.
    stock: Stock,
    /// Private buffers for frames, if others can write to the device's buffers.
    private: Option<Box<Stock>>,
    stats: DatapathStats,
    /// Only for drivers that need it.
    gate: Option<Gate>,
    link: bool,
    link_age: u32,
    refused: Refused,
    wakeups: Box<Wakeups>,
    /// One user at a time: `Send`, but not `Sync`.
    _not_sync: PhantomData<Cell<()>>,
}

// SAFETY: a queue pair may be polled from any thread, one at a time; DPDK keeps no thread-local state in it. The spare
// buffers of its stocks are raw, belong to the queue alone and are in no thread's cache.
unsafe impl Send for Queue {}

impl Queue {
    pub(super) fn new(port: Arc<PortInner>, id: u16, gate: Option<Gate>, wakeups: Wakeups) -> Self {
        Self {
            port_id: port.id,
            stock: Stock::new(port.tx_pool(id).clone(), port.caps.mtu),
            private: port.private_pool(id).map(|pool| Box::new(Stock::new(pool.clone(), port.caps.mtu))),
            port,
            id,
            stats: DatapathStats::default(),
            gate,
            link: false,
            link_age: 0,
            refused: Refused::default(),
            wakeups: Box::new(wakeups),
            _not_sync: PhantomData,
        }
    }

    /// The queue's number within the port.
    pub fn id(&self) -> u16 {
        self.id
    }

    /// The name of the port.
    pub fn port_name(&self) -> &str {
        &self.port.name
    }

    /// Drops frames from position `from` on that do not lie within their buffers, linearises chained ones, and drops
    /// those that are too large for that.
    #[cold]
    fn sort_out(&mut self, burst: &mut Burst<RxMbuf>, from: usize) {
        let mut i = from;
        while i < burst.len() {
            let mbuf = &mut burst[i].0;
            if !if mbuf.is_chained() { mbuf.chain_in_bounds() } else { mbuf.in_bounds() } {
                self.stats.rx_out_of_bounds += 1;
                drop(burst.remove(i));
                continue;
            }
            if !mbuf.is_chained() {
                i += 1;
                continue;
            }
            let len = burst[i].0.len();
            let joined = self.stock.take().and_then(|mut whole| whole.gather(&burst[i].0, len).then_some(whole));
            match joined {
                Some(whole) => {
                    self.stats.rx_linearized_bytes += len as u64;
                    burst[i] = RxMbuf(whole);
                    i += 1;
                }
                None => {
                    self.stats.rx_oversize += 1;
                    drop(burst.remove(i));
                }
            }
        }
    }

    /// Calls the driver's burst function.
    #[inline]
    fn gated<T>(&mut self, burst: impl FnOnce() -> T) -> T {
        match &mut self.gate {
            None => burst(),
            Some(gate) => gate.inside(burst),
        }
    }

    /// Copies frames from position `from` on to private memory, whatever others write to them meanwhile.
    #[inline(never)]
    fn take_in(&mut self, burst: &mut Burst<RxMbuf>, from: usize) {
        let Some(private) = &mut self.private else { return };
        let mut i = from;
        while i < burst.len() {
            let fine = match private.take() {
                None => {
                    self.stats.rx_no_frame += 1;
                    false
                }
                Some(mut copy) => {
                    let fine = copy.copy_received(&mut burst[i].0);
                    if fine {
                        self.stats.rx_copied_bytes += copy.len() as u64;
                        burst[i] = RxMbuf(copy);
                    } else {
                        self.stats.rx_out_of_bounds += 1;
                    }
                    fine
                }
            };
            if fine {
                i += 1;
            } else {
                drop(burst.remove(i));
            }
        }
    }

    /// Copies as many frames of `burst` as the device has buffers for, and sends the copies.
    #[inline(never)]
    fn send_copies(&mut self, burst: &Burst<TxMbuf>) -> usize {
        let mut copies: Burst<TxMbuf> = Burst::new();
        for frame in burst {
            let Some(mut copy) = self.stock.take().filter(|_| !copies.is_full()) else { break };
            if !copy.copy_to_send(&frame.0) {
                break;
            }
            copies.push(TxMbuf(copy));
        }
        self.send_out(&mut copies)
    }

    /// Hands the front of `burst` to the device, which then owns it.
    #[inline]
    fn send_out(&mut self, burst: &mut Burst<TxMbuf>) -> usize {
        let len = burst.len();
        // SAFETY: `len` owned buffers, `TxMbuf` being a transparent pointer. The driver takes the first `sent`; the
        // burst forgets exactly those and moves the rest to its front.
        unsafe {
            let first = burst.as_mut_ptr();
            let (port, id) = (self.port_id, self.id);
            let sent = self.gated(|| usize::from(dpdk_sys::rte_eth_tx_burst(port, id, first.cast(), len as u16)));
            burst.set_len(0);
            std::ptr::copy(first.add(sent), first, len - sent);
            burst.set_len(len - sent);
            sent
        }
    }
}

/// Raw buffers, taken from a pool in bulk.
struct Stock {
    pool: Arc<Pool>,
    /// The length that payloads usually have, in bytes.
    usual: usize,
    spare: [*mut std::ffi::c_void; BURST],
    spares: usize,
}

impl Stock {
    fn new(pool: Arc<Pool>, mtu: u16) -> Self {
        Self { pool, usual: usize::from(mtu), spare: [std::ptr::null_mut(); BURST], spares: 0 }
    }

    /// Takes an empty buffer.
    fn take(&mut self) -> Option<Mbuf> {
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

impl Datapath for Queue {
    type Rx = RxMbuf;
    type Tx = TxMbuf;

    fn caps(&self) -> Caps {
        self.port.caps
    }

    fn link_up(&mut self) -> bool {
        if self.link_age == 0 {
            self.link = self.port.link();
            // A link that is down is queried more often, as somebody waits for it.
            self.link_age = if self.link { LINK_REFRESH } else { LINK_REFRESH / 16 };
        }
        self.link_age -= 1;
        self.link
    }

    fn link_problem(&self) -> Option<String> {
        self.port.link_problem()
    }

    fn set_multicast(&mut self, groups: &[[u8; 6]]) {
        self.port.set_groups(groups);
    }

    /// Without a link nobody can wake the core.
    fn arm(&mut self) -> bool {
        self.link_age = 0;
        self.link_up() && self.wakeups.arm()
    }

    fn wake_file(&self) -> Option<BorrowedFd<'_>> {
        self.wakeups.file()
    }

    fn disarm(&mut self) {
        self.wakeups.disarm();
    }

    fn rx_burst(&mut self, burst: &mut Burst<RxMbuf>) -> usize {
        let from = burst.len();
        let room = BURST - from;
        // SAFETY: `room` slots behind `from` are spare capacity of the burst, `RxMbuf` is a transparent pointer,
        // and the driver fills `got <= room` of them with buffers that are ours from now on. Only this queue
        // object polls this queue.
        let got = unsafe {
            let free = burst.as_mut_ptr().add(from).cast();
            let (port, id) = (self.port_id, self.id);
            let got = self.gated(|| usize::from(dpdk_sys::rte_eth_rx_burst(port, id, free, room as u16)));
            burst.set_len(from + got);
            got
        };
        if self.private.is_some() {
            self.take_in(burst, from);
        }
        let (mut bytes, mut odd) = (0, false);
        for frame in &mut burst[from..] {
            frame.0.prefetch();
            if self.port.trusting {
                frame.0.trust();
            }
            bytes += frame.0.len() as u64;
            // Lengths come from the other side, which may have sent anything.
            odd |= frame.0.is_chained() | !frame.0.in_bounds();
        }
        self.stats.rx_frames += got as u64;
        self.stats.rx_bytes += bytes;
        if odd {
            self.sort_out(burst, from);
        }
        burst.len() - from
    }

    /// Frees the frames with one call, which is cheaper than dropping them one by one.
    fn release(&mut self, burst: &mut Burst<RxMbuf>) {
        let len = burst.len();
        // SAFETY: `RxMbuf` is a transparent pointer, and the frames are owned by the burst, which forgets them
        // before they are freed.
        unsafe {
            burst.set_len(0);
            dpdk_sys::rte_pktmbuf_free_bulk(burst.as_mut_ptr().cast(), len as u32);
        }
    }

    fn tx_alloc(&mut self) -> Option<TxMbuf> {
        let stock = match &mut self.private {
            None => &mut self.stock,
            Some(private) => private,
        };
        let frame = stock.take().map(TxMbuf);
        self.stats.tx_no_frame += u64::from(frame.is_none());
        frame
    }

    fn tx_burst(&mut self, burst: &mut Burst<TxMbuf>) -> usize {
        let len = burst.len();
        if len == 0 {
            return 0;
        }
        // Without a peer there is no point in retrying.
        if self.refused.any() && !self.link_up() {
            self.stats.tx_full += self.refused.count(0, len);
            return 0;
        }
        // Lengths are read before the driver owns, and perhaps frees, the buffers.
        let mut lengths = [0u32; BURST];
        for (length, frame) in lengths.iter_mut().zip(burst.iter()) {
            *length = frame.0.len() as u32;
        }
        let sent = if self.private.is_none() {
            self.send_out(burst)
        } else {
            let sent = self.send_copies(burst);
            burst.drain(..sent);
            sent
        };
        self.stats.tx_frames += sent as u64;
        self.stats.tx_bytes += lengths[..sent].iter().map(|&l| u64::from(l)).sum::<u64>();
        if sent < len || self.refused.any() {
            self.stats.tx_full += self.refused.count(sent, len - sent);
        }
        sent
    }

    fn stats(&self) -> DatapathStats {
        self.stats
    }
}
