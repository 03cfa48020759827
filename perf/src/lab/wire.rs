//! A wire of memory between two ports in one thread. Frames lie in hugepages, as a device's do, and are used in
//! turn, so that a frame is as cold when it comes round again as in a device's ring.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use gannet::datapath::{Burst, Caps, Checksum, Datapath, DatapathStats, RxFrame, TX_HEADROOM, TxFrame, TxOffload};
use gannet::mem::{AllocError, BufPool, MAX_BUF, PinnedBuf};

/// Ethernet header and one VLAN tag, bytes.
const L2_MAX: usize = 18;

/// Frames start at multiples of this.
const CACHE_LINE: usize = 64;

/// Memory of free frames: the one that was used longest ago comes first.
type Home = Rc<RefCell<VecDeque<PinnedBuf>>>;

/// A frame on either side of the wire. It goes home when dropped.
#[derive(Debug)]
pub struct Frame {
    memory: Option<PinnedBuf>,
    start: usize,
    end: usize,
    home: Home,
}

impl Frame {
    fn bytes(&self) -> &[u8] {
        self.memory.as_deref().unwrap_or_default()
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        self.memory.as_deref_mut().unwrap_or_default()
    }
}

impl Drop for Frame {
    fn drop(&mut self) {
        if let Some(memory) = self.memory.take() {
            self.home.borrow_mut().push_back(memory);
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

/// The two ends of a wire for IP packets of up to `mtu` bytes, `frames` frames each. Checksums are the device's
/// work, as on a network card.
///
/// # Errors
/// When there is no memory for the frames.
pub fn pair(mtu: u16, frames: usize, pool: &BufPool) -> Result<(MemPort, MemPort), AllocError> {
    let room = (TX_HEADROOM + L2_MAX + usize::from(mtu)).next_multiple_of(CACHE_LINE);
    let ring = || Rc::new(RefCell::new(VecDeque::with_capacity(frames)));
    let (to_left, to_right) = (ring(), ring());
    let port = |last, incoming, outgoing| {
        let mac = [2, 0, 0, 0, 0, last];
        let caps = Caps { mac, mtu, tx_ip_checksum: true, tx_udp_checksum: true };
        let home = Rc::new(RefCell::new(memory(room, frames, pool)?));
        Ok(MemPort { caps, home, incoming, outgoing, stats: DatapathStats::default() })
    };
    Ok((port(1, Rc::clone(&to_left), Rc::clone(&to_right))?, port(2, to_right, to_left)?))
}

fn memory(room: usize, frames: usize, pool: &BufPool) -> Result<VecDeque<PinnedBuf>, AllocError> {
    let mut all = VecDeque::with_capacity(frames);
    let mut rest = pool.alloc((room * frames).min(MAX_BUF))?;
    while all.len() < frames {
        if rest.len() < room {
            rest = pool.alloc(room * (frames - all.len()))?;
        }
        let (one, others) = rest.split(room);
        all.push_back(one);
        rest = others;
    }
    Ok(all)
}

impl MemPort {
    /// Frames that wait for the other end.
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
        burst.extend(incoming.drain(..n));
        self.stats.rx_frames += n as u64;
        n
    }

    fn tx_alloc(&mut self) -> Option<Frame> {
        let memory = self.home.borrow_mut().pop_front()?;
        Some(Frame { start: TX_HEADROOM, end: memory.len(), memory: Some(memory), home: Rc::clone(&self.home) })
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
        let (start, end) = (self.start, self.end);
        &mut self.bytes_mut()[start..end]
    }

    fn ip_checksum(&self) -> Checksum {
        Checksum::Good
    }

    fn l4_checksum(&self) -> Checksum {
        Checksum::Good
    }
}

impl TxFrame for Frame {
    fn payload_mut(&mut self) -> &mut [u8] {
        &mut self.bytes_mut()[TX_HEADROOM..]
    }

    fn set_payload_len(&mut self, len: usize) {
        let most = self.bytes().len() - TX_HEADROOM;
        assert!(len <= most, "payload of {len} bytes in a frame for {most}");
        self.end = TX_HEADROOM + len;
    }

    fn prepend(&mut self, n: usize) -> &mut [u8] {
        let start = self.start;
        assert!(n <= start, "{n} bytes prepended with {start} bytes of headroom left");
        self.start = start - n;
        &mut self.bytes_mut()[start - n..start]
    }

    fn data(&self) -> &[u8] {
        &self.bytes()[self.start..self.end]
    }

    fn data_mut(&mut self) -> &mut [u8] {
        RxFrame::data_mut(self)
    }

    // The other end takes all checksums for good.
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
