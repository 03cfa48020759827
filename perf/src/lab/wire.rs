//! An in-memory wire between two ports in one thread. Frames are in hugepages, like a device's, and are used in turn,
//! so that a frame is as cold when it is reused as in a device's ring.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use gannet::datapath::{Burst, Caps, Checksum, Datapath, DatapathStats, RxFrame, TX_HEADROOM, TxFrame, TxOffload};
use gannet::mem::{AllocError, BufPool, MAX_BUF, PinnedBuf, prefetch_read};

/// The size of the Ethernet header and a VLAN tag, in bytes.
const L2_MAX: usize = 18;

/// The alignment of frames.
const CACHE_LINE: usize = 64;

/// Free frames, least recently used first.
type Home = Rc<RefCell<VecDeque<Box<Slot>>>>;

/// The memory of a frame. It does not move, like a device's buffers.
#[derive(Debug)]
struct Slot {
    memory: PinnedBuf,
    start: usize,
    end: usize,
    home: Home,
}

/// A frame on either side of the wire, the size of a pointer. It returns to its port when dropped.
#[derive(Debug)]
pub struct Frame(Option<Box<Slot>>);

impl Frame {
    fn slot(&self) -> &Slot {
        self.0.as_ref().expect("taken by drop only")
    }

    fn slot_mut(&mut self) -> &mut Slot {
        self.0.as_mut().expect("taken by drop only")
    }
}

impl Drop for Frame {
    fn drop(&mut self) {
        if let Some(slot) = self.0.take() {
            let home = Rc::clone(&slot.home);
            home.borrow_mut().push_back(slot);
        }
    }
}

/// One end of the wire.
#[derive(Debug)]
pub struct MemPort {
    caps: Caps,
    home: Home,
    incoming: Rc<RefCell<VecDeque<Frame>>>,
    outgoing: Rc<RefCell<VecDeque<Frame>>>,
    stats: DatapathStats,
}

/// Creates the two ends of a wire for IP packets of up to `mtu` bytes, with `frames` frames each. Checksums are
/// offloaded, as on a NIC.
///
/// # Errors
/// If there is no memory for the frames.
pub fn pair(mtu: u16, frames: usize, pool: &BufPool) -> Result<(MemPort, MemPort), AllocError> {
    let room = (TX_HEADROOM + L2_MAX + usize::from(mtu)).next_multiple_of(CACHE_LINE);
    let ring = || Rc::new(RefCell::new(VecDeque::with_capacity(frames)));
    let (to_left, to_right) = (ring(), ring());
    let port = |last, incoming, outgoing| {
        let mac = [2, 0, 0, 0, 0, last];
        let caps = Caps { mac, mtu, tx_ip_checksum: true, tx_udp_checksum: true };
        let home = slots(room, frames, pool)?;
        Ok(MemPort { caps, home, incoming, outgoing, stats: DatapathStats::default() })
    };
    Ok((port(1, Rc::clone(&to_left), Rc::clone(&to_right))?, port(2, to_right, to_left)?))
}

fn slots(room: usize, frames: usize, pool: &BufPool) -> Result<Home, AllocError> {
    let home = Home::default();
    let mut rest = pool.alloc((room * frames).min(MAX_BUF))?;
    for i in 0..frames {
        if rest.len() < room {
            rest = pool.alloc(room * (frames - i))?;
        }
        let (memory, others) = rest.split(room);
        home.borrow_mut().push_back(Box::new(Slot { memory, start: 0, end: 0, home: Rc::clone(&home) }));
        rest = others;
    }
    Ok(home)
}

impl MemPort {
    /// The number of frames that wait for the other end.
    pub fn sent(&self) -> usize {
        self.outgoing.borrow().len()
    }
}

impl Datapath for MemPort {
    type Rx = Frame;
    type Tx = Frame;

    fn caps(&self) -> Caps {
        self.caps
    }

    fn link_up(&mut self) -> bool {
        true
    }

    fn rx_burst(&mut self, burst: &mut Burst<Frame>) -> usize {
        let mut incoming = self.incoming.borrow_mut();
        let n = incoming.len().min(burst.remaining_capacity());
        // Prefetch the first line of each, like a driver.
        burst.extend(incoming.drain(..n).inspect(|frame| prefetch_read(&frame.data()[..1])));
        self.stats.rx_frames += n as u64;
        n
    }

    fn tx_alloc(&mut self) -> Option<Frame> {
        let mut slot = self.home.borrow_mut().pop_front()?;
        (slot.start, slot.end) = (TX_HEADROOM, slot.memory.len());
        Some(Frame(Some(slot)))
    }

    fn tx_burst(&mut self, burst: &mut Burst<Frame>) -> usize {
        let n = burst.len();
        self.outgoing.borrow_mut().extend(burst.drain(..));
        self.stats.tx_frames += n as u64;
        n
    }

    fn stats(&self) -> DatapathStats {
        self.stats
    }
}

impl RxFrame for Frame {
    fn data_mut(&mut self) -> &mut [u8] {
        let slot = self.slot_mut();
        &mut slot.memory[slot.start..slot.end]
    }

    fn ip_checksum(&self) -> Checksum {
        Checksum::Good
    }

    fn l4_checksum(&self) -> Checksum {
        Checksum::Good
    }

    fn prefetch(&self) {
        prefetch_read(self.data());
    }
}

impl TxFrame for Frame {
    fn payload_mut(&mut self) -> &mut [u8] {
        &mut self.slot_mut().memory[TX_HEADROOM..]
    }

    fn set_payload_len(&mut self, len: usize) {
        let slot = self.slot_mut();
        let most = slot.memory.len() - TX_HEADROOM;
        assert!(len <= most, "payload of {len} bytes in a frame for {most}");
        slot.end = TX_HEADROOM + len;
    }

    fn prepend(&mut self, n: usize) -> &mut [u8] {
        let slot = self.slot_mut();
        let start = slot.start;
        assert!(n <= start, "{n} bytes prepended with {start} bytes of headroom left");
        slot.start = start - n;
        &mut slot.memory[start - n..start]
    }

    fn data(&self) -> &[u8] {
        let slot = self.slot();
        &slot.memory[slot.start..slot.end]
    }

    fn data_mut(&mut self) -> &mut [u8] {
        RxFrame::data_mut(self)
    }

    // The other end accepts all checksums.
    fn set_offload(&mut self, _: TxOffload) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_cross_and_go_home() {
        let pool = BufPool::heap();
        let (mut a, mut b) = pair(1500, 3, &pool).unwrap();
        let mut burst = Burst::new();
        for i in 0..3u8 {
            let mut frame = a.tx_alloc().unwrap();
            frame.payload_mut()[0] = i;
            frame.set_payload_len(1);
            frame.prepend(2).fill(9);
            burst.push(frame);
        }
        assert!(a.tx_alloc().is_none());
        assert_eq!((a.tx_burst(&mut burst), a.sent()), (3, 3));
        let mut got = Burst::new();
        assert_eq!(b.rx_burst(&mut got), 3);
        assert_eq!(RxFrame::data_mut(&mut got[2]), [9, 9, 2]);
        assert!(a.tx_alloc().is_none());
        got.clear();
        assert!(a.tx_alloc().is_some());
        assert_eq!((a.stats().tx_frames, b.stats().rx_frames), (3, 3));
    }
}
