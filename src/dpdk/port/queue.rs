//! One RX/TX queue pair of a port.

use std::cell::Cell;
use std::marker::PhantomData;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use super::PortInner;
use super::link::View;
use super::stock::{Stock, free};
use crate::datapath::{BURST, Burst, Caps, Datapath, DatapathStats, Refused};
use crate::dpdk::guard::Gate;
use crate::dpdk::mbuf::{RxMbuf, TxMbuf, forget_front};
use crate::dpdk::wakeups::Wakeups;

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
    link: View,
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
            link: View::default(),
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
        // SAFETY: `len` owned buffers, `TxMbuf` being a transparent pointer. The driver takes the first `sent`, and
        // the burst forgets exactly those.
        unsafe {
            let first = burst.as_mut_ptr();
            let (port, id) = (self.port_id, self.id);
            let sent = self.gated(|| usize::from(dpdk_sys::rte_eth_tx_burst(port, id, first.cast(), len as u16)));
            forget_front(burst, sent);
            sent
        }
    }
}

impl Datapath for Queue {
    type Rx = RxMbuf;
    type Tx = TxMbuf;

    fn caps(&self) -> Caps {
        self.port.caps
    }

    fn link_up(&mut self) -> bool {
        self.link.is_up(&self.port.link, || self.port.device.link())
    }

    fn link_problem(&self) -> Option<String> {
        self.port.link_problem()
    }

    fn removed(&self) -> Option<String> {
        self.port.removed()
    }

    fn set_multicast(&mut self, groups: &[[u8; 6]]) {
        self.port.set_groups(groups);
    }

    /// Without a link nobody can wake the core.
    fn arm(&mut self) -> bool {
        self.link.refresh();
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
        free(burst);
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
