//! Packet buffers with a unique owner.

use std::ptr::NonNull;

use dpdk_sys::mbuf_head;

use crate::datapath::{Burst, Checksum, RxFrame, TX_HEADROOM, TxFrame, TxOffload};
use crate::mem::{prefetch_line, prefetch_read};

/// A packet buffer with a unique owner. Dropping it returns it to its pool.
///
/// Buffers are returned to the cache of the thread that drops them, so it may be another one than that which allocated
/// them. Many move faster by [`mesh`](crate::dpdk::mesh).
#[repr(transparent)]
pub struct Mbuf(NonNull<mbuf_head>);

// SAFETY: a buffer has one owner, and nothing of it belongs to a thread: pools may be used from any thread at any time, and
// each thread has a cache of its own there.
unsafe impl Send for Mbuf {}

impl Mbuf {
    /// Takes ownership of a raw buffer.
    ///
    /// # Safety
    /// `raw` is a live mbuf, alone or the head of a chain, that nobody else uses or frees. The bytes of its segments
    /// lie within their buffers, unless it is dropped without being accessed.
    pub unsafe fn from_raw(raw: NonNull<dpdk_sys::rte_mbuf>) -> Self {
        Self(raw.cast())
    }

    /// Releases ownership without freeing the buffer, for [`Mbuf::from_raw`] on any thread.
    pub fn into_raw(self) -> NonNull<dpdk_sys::rte_mbuf> {
        std::mem::ManuallyDrop::new(self).0.cast()
    }

    fn head(&self) -> &mbuf_head {
        // SAFETY: a live mbuf (invariant of `from_raw`); unique ownership keeps others from writing it.
        unsafe { self.0.as_ref() }
    }

    fn head_mut(&mut self) -> &mut mbuf_head {
        // SAFETY: as in `head`, and `self` is borrowed exclusively.
        unsafe { self.0.as_mut() }
    }

    /// The length of the whole packet, all segments, in bytes.
    pub fn len(&self) -> usize {
        self.head().pkt_len as usize
    }

    /// Returns whether the packet is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns whether the packet spans several buffers.
    pub fn is_chained(&self) -> bool {
        self.head().nb_segs != 1
    }

    /// The RSS hash that the device computed; 0 if none.
    pub fn rss_hash(&self) -> u32 {
        self.head().hash_rss
    }

    /// Returns whether the first segment's bytes lie within its buffer. Drivers that trust a peer's descriptors do not
    /// ensure that. A buffer out of bounds may only be dropped.
    #[inline]
    pub(super) fn in_bounds(&self) -> bool {
        let head = self.head();
        u32::from(head.data_off) + u32::from(head.data_len) <= u32::from(head.buf_len)
    }

    /// Returns whether all segments of a chain lie within their buffers and their number matches the first one's count.
    /// Recomputes the total length: the memif driver does not count the later segments of a zero-copy frame.
    pub(super) fn chain_in_bounds(&mut self) -> bool {
        let (mut at, mut left, mut len) = (self.0.as_ptr().cast_const(), self.head().nb_segs, 0u32);
        while left > 0 && !at.is_null() {
            // SAFETY: a segment of the chain that is ours, by its head or by the link of the one before; borrowed for
            // this turn only.
            let segment = unsafe { std::mem::ManuallyDrop::new(Self(NonNull::new_unchecked(at.cast_mut()))) };
            if !segment.in_bounds() {
                return false;
            }
            len += u32::from(segment.head().data_len);
            // SAFETY: a live segment.
            at = unsafe { dpdk_sys::gannet_mbuf_next(at.cast()) }.cast();
            left -= 1;
        }
        self.head_mut().pkt_len = len;
        left == 0 && at.is_null()
    }

    /// The bytes of the first segment.
    pub fn data(&self) -> &[u8] {
        let head = self.head();
        // SAFETY: `data_off + data_len` never exceeds `buf_len` bytes behind `buf_addr` (kept so by every method here
        // and, for what a driver gives, by `Queue::rx_burst`), and that memory belongs to this buffer alone.
        unsafe {
            let start = head.buf_addr.cast::<u8>().add(usize::from(head.data_off));
            std::slice::from_raw_parts(start, usize::from(head.data_len))
        }
    }

    /// The bytes of the first segment, mutably.
    pub fn data_mut(&mut self) -> &mut [u8] {
        let head = self.head_mut();
        // SAFETY: as in `data`, and `self` is borrowed exclusively.
        unsafe {
            let start = head.buf_addr.cast::<u8>().add(usize::from(head.data_off));
            std::slice::from_raw_parts_mut(start, usize::from(head.data_len))
        }
    }

    /// Initialises a raw buffer from a mempool as an empty packet with [`TX_HEADROOM`] bytes in front.
    ///
    /// Buffers in a pool are already unchained and have a reference count of one.
    pub(super) fn reset(&mut self) {
        let head = self.head_mut();
        head.data_off = TX_HEADROOM as u16;
        head.port = u16::MAX;
        head.ol_flags = 0;
        head.packet_type = 0;
        head.pkt_len = 0;
        head.data_len = 0;
        head.vlan_tci = 0;
        head.vlan_tci_outer = 0;
        head.tx_offload = 0;
    }

    /// Marks the frame's checksums as valid.
    pub(super) fn trust(&mut self) {
        self.head_mut().ol_flags |= dpdk_sys::GANNET_RX_IP_GOOD | dpdk_sys::GANNET_RX_L4_GOOD;
    }

    /// Copies the first `len` bytes of the chain `from` to this freshly reset buffer, after the headroom. Returns
    /// `false` if they do not fit or `from` is shorter.
    pub(super) fn gather(&mut self, from: &Self, len: usize) -> bool {
        let room = usize::from(self.head().buf_len).saturating_sub(TX_HEADROOM);
        if len > room || len > usize::from(u16::MAX) {
            return false;
        }
        // SAFETY: `room` bytes follow the headroom; `rte_pktmbuf_read` copies `len` bytes there when the range
        // is not contiguous, and otherwise returns a pointer into `from`, which is alive and does not overlap.
        unsafe {
            let to = self.head().buf_addr.cast::<u8>().add(TX_HEADROOM);
            let found = dpdk_sys::rte_pktmbuf_read(from.0.as_ptr().cast(), 0, len as u32, to.cast());
            if found.is_null() {
                return false;
            }
            if found != to.cast() {
                std::ptr::copy_nonoverlapping(found.cast::<u8>(), to, len);
            }
        }
        self.describe_received(from.head().ol_flags, from.head().hash_rss, len);
        true
    }

    /// Describes this buffer as a received frame of `len` bytes with the device's `flags` and `hash`.
    fn describe_received(&mut self, flags: u64, hash: u32, len: usize) {
        let head = self.head_mut();
        head.ol_flags = flags & RX_CHECKSUM_FLAGS;
        head.hash_rss = hash;
        head.data_len = len as u16;
        head.pkt_len = len as u32;
    }

    /// Copies the frame `from` to this freshly reset buffer. `from` is in memory that others can write to, so every
    /// field of it is read once and validated. Returns `false` if it is invalid or does not fit.
    pub(super) fn copy_received(&mut self, from: &mut Self) -> bool {
        let theirs = from.0.as_ptr().cast_const();
        // SAFETY: a live mbuf; volatile, since another process may write it at the same time.
        let (start, off, len, size, segments, flags, hash) = unsafe {
            (
                (&raw const (*theirs).buf_addr).read_volatile(),
                usize::from((&raw const (*theirs).data_off).read_volatile()),
                usize::from((&raw const (*theirs).data_len).read_volatile()),
                usize::from((&raw const (*theirs).buf_len).read_volatile()),
                (&raw const (*theirs).nb_segs).read_volatile(),
                (&raw const (*theirs).ol_flags).read_volatile(),
                (&raw const (*theirs).hash_rss).read_volatile(),
            )
        };
        if segments != 1 {
            return from.chain_in_bounds() && self.gather(from, from.len());
        }
        let room = usize::from(self.head().buf_len).saturating_sub(TX_HEADROOM);
        if off + len > size || len > room {
            return false;
        }
        // SAFETY: `len` bytes within the other's buffer, and room for them here.
        unsafe {
            let to = self.head().buf_addr.cast::<u8>().add(TX_HEADROOM);
            std::ptr::copy_nonoverlapping(start.cast::<u8>().add(off).cast_const(), to, len);
        }
        self.describe_received(flags, hash, len);
        true
    }

    /// Copies the frame `from`, which is to be sent, to this freshly reset buffer. Returns `false` if it does not fit.
    pub(super) fn copy_to_send(&mut self, from: &Self) -> bool {
        let (data, theirs) = (from.data(), from.head());
        let (off, flags, offload) = (theirs.data_off, theirs.ol_flags, theirs.tx_offload);
        let head = self.head_mut();
        if usize::from(off) + data.len() > usize::from(head.buf_len) {
            return false;
        }
        // SAFETY: room for as many bytes at the same place of this buffer, which is ours.
        unsafe {
            std::ptr::copy_nonoverlapping(data.as_ptr(), head.buf_addr.cast::<u8>().add(usize::from(off)), data.len())
        };
        head.data_off = off;
        head.data_len = data.len() as u16;
        head.pkt_len = data.len() as u32;
        head.ol_flags = flags;
        head.tx_offload = offload;
        true
    }

    /// Prefetches the first bytes of the packet.
    pub(super) fn prefetch(&self) {
        let head = self.head();
        prefetch_line(head.buf_addr.cast::<u8>().wrapping_add(usize::from(head.data_off)));
    }
}

impl Drop for Mbuf {
    fn drop(&mut self) {
        // SAFETY: a live mbuf with no other owner; the call frees the whole chain.
        unsafe { dpdk_sys::rte_pktmbuf_free(self.0.as_ptr().cast()) };
    }
}

const RX_CHECKSUM_FLAGS: u64 =
    dpdk_sys::GANNET_RX_IP_BAD | dpdk_sys::GANNET_RX_IP_GOOD | dpdk_sys::GANNET_RX_L4_BAD | dpdk_sys::GANNET_RX_L4_GOOD;

/// The verdict in a pair of flags. Both together mean that the field is not filled in, but the data is intact (it never
/// left the machine).
const fn verdict(flags: u64, bad: u64, good: u64) -> Checksum {
    match (flags & bad != 0, flags & good != 0) {
        (_, true) => Checksum::Good,
        (true, false) => Checksum::Bad,
        (false, false) => Checksum::Unknown,
    }
}

/// A received frame.
#[repr(transparent)]
pub struct RxMbuf(pub(super) Mbuf);

impl RxMbuf {
    /// Returns the underlying buffer.
    pub fn into_mbuf(self) -> Mbuf {
        self.0
    }

    /// Makes a received frame of `mbuf`, for hand-over between cores. Of a chained buffer only the first segment is
    /// visible.
    pub fn from_mbuf(mbuf: Mbuf) -> Self {
        Self(mbuf)
    }

    /// The RSS hash that the device computed; 0 if none.
    pub fn rss_hash(&self) -> u32 {
        self.0.rss_hash()
    }
}

impl RxFrame for RxMbuf {
    fn data_mut(&mut self) -> &mut [u8] {
        self.0.data_mut()
    }

    fn ip_checksum(&self) -> Checksum {
        verdict(self.0.head().ol_flags, dpdk_sys::GANNET_RX_IP_BAD, dpdk_sys::GANNET_RX_IP_GOOD)
    }

    fn l4_checksum(&self) -> Checksum {
        verdict(self.0.head().ol_flags, dpdk_sys::GANNET_RX_L4_BAD, dpdk_sys::GANNET_RX_L4_GOOD)
    }

    fn prefetch(&self) {
        prefetch_read(self.0.data());
    }
}

/// A frame to be sent.
#[repr(transparent)]
pub struct TxMbuf(pub(super) Mbuf);

impl TxFrame for TxMbuf {
    fn payload_mut(&mut self) -> &mut [u8] {
        let head = self.0.head_mut();
        let room = usize::from(head.buf_len).saturating_sub(TX_HEADROOM);
        // SAFETY: `room` bytes of this buffer follow the headroom, and `self` is borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(head.buf_addr.cast::<u8>().add(TX_HEADROOM), room) }
    }

    fn set_payload_len(&mut self, len: usize) {
        let head = self.0.head_mut();
        let room = usize::from(head.buf_len).saturating_sub(usize::from(head.data_off));
        assert!(len <= room, "payload of {len} bytes in a buffer of {room}");
        head.data_len = len as u16;
        head.pkt_len = len as u32;
    }

    fn prepend(&mut self, n: usize) -> &mut [u8] {
        let head = self.0.head_mut();
        assert!(n <= usize::from(head.data_off), "{n} bytes do not fit into a headroom of {}", head.data_off);
        head.data_off -= n as u16;
        head.data_len += n as u16;
        head.pkt_len += n as u32;
        &mut self.0.data_mut()[..n]
    }

    fn data(&self) -> &[u8] {
        self.0.data()
    }

    fn data_mut(&mut self) -> &mut [u8] {
        self.0.data_mut()
    }

    fn set_offload(&mut self, offload: TxOffload) {
        let head = self.0.head_mut();
        let mut flags = 0;
        if offload.ip_checksum {
            flags |= dpdk_sys::GANNET_TX_IP_CKSUM;
        }
        if offload.udp_checksum {
            flags |= dpdk_sys::GANNET_TX_UDP_CKSUM;
        }
        if flags != 0 {
            flags |= if offload.ipv6 { dpdk_sys::GANNET_TX_IPV6 } else { dpdk_sys::GANNET_TX_IPV4 };
        }
        head.ol_flags = flags;
        head.tx_offload = u64::from(offload.l2_len) | u64::from(offload.l3_len) << dpdk_sys::TX_OFFLOAD_L3_SHIFT;
    }
}

/// Removes the first `n` frames of `burst` without dropping them; the others move to its front.
///
/// # Safety
/// `n` is at most the length of the burst.
#[inline]
pub(super) unsafe fn forget_front<T>(burst: &mut Burst<T>, n: usize) {
    let left = burst.len() - n;
    // SAFETY: the `left` frames behind the first `n` are moved to the front, and the burst then has no others.
    unsafe {
        let first = burst.as_mut_ptr();
        burst.set_len(0);
        std::ptr::copy(first.add(n), first, left);
        burst.set_len(left);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksum_flags() {
        use dpdk_sys::{GANNET_RX_L4_BAD as BAD, GANNET_RX_L4_GOOD as GOOD};
        assert_eq!(verdict(0, BAD, GOOD), Checksum::Unknown);
        assert_eq!(verdict(BAD, BAD, GOOD), Checksum::Bad);
        assert_eq!(verdict(GOOD, BAD, GOOD), Checksum::Good);
        assert_eq!(verdict(GOOD | BAD, BAD, GOOD), Checksum::Good);
        assert_eq!(verdict(dpdk_sys::GANNET_RX_IP_BAD, BAD, GOOD), Checksum::Unknown);
    }
}
