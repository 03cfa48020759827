//! A simulated device with several queue pairs, and links to several hosts.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crossbeam::queue::ArrayQueue;

use super::{SimPort, SimRx, SimTx};
use crate::datapath::{Burst, Caps, Datapath, DatapathStats, TxFrame};

/// The maximum number of frames in a queue; further ones are lost.
const DEPTH: usize = 1024;

/// Chooses the queue of a received frame, as RSS does.
type Pick = dyn FnMut(&[u8]) -> usize + Send;

struct Device {
    links: Vec<SimPort>,
    pick: Box<Pick>,
}

/// One queue pair of a simulated device; see [`SimPort::into_queues`].
pub struct SimQueue {
    device: Arc<Mutex<Device>>,
    received: Arc<[ArrayQueue<SimRx>]>,
    number: usize,
    stats: DatapathStats,
}

impl SimPort {
    /// Makes a device with `count` queue pairs out of a port. `pick` chooses the queue of each received frame, modulo
    /// `count`, as RSS does by a hash of the addresses.
    pub fn into_queues(self, count: u8, pick: impl FnMut(&[u8]) -> usize + Send + 'static) -> Vec<SimQueue> {
        Self::join(vec![self], count, pick)
    }

    /// The same for a device that has links to several hosts, as if there were a switch in between: frames are sent on
    /// the link whose other end has their MAC address, and those to groups on all links. The device's own MAC address
    /// is that of the first port.
    ///
    /// # Panics
    /// If there are no links or no queues.
    pub fn join(links: Vec<Self>, count: u8, pick: impl FnMut(&[u8]) -> usize + Send + 'static) -> Vec<SimQueue> {
        assert!(!links.is_empty() && count > 0, "a device with {} links and {count} queues", links.len());
        let device = Arc::new(Mutex::new(Device { links, pick: Box::new(pick) }));
        let received: Arc<[_]> = (0..count).map(|_| ArrayQueue::new(DEPTH)).collect();
        let queue = |number| SimQueue {
            device: device.clone(),
            received: received.clone(),
            number: usize::from(number),
            stats: DatapathStats::default(),
        };
        (0..count).map(queue).collect()
    }
}

impl SimQueue {
    fn device(&self) -> MutexGuard<'_, Device> {
        self.device.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Device {
    /// Sends a frame on the links that lead to its destination. Frames that a full link does not take are lost.
    fn send(&mut self, frame: SimTx) {
        let dst = frame.data().first_chunk::<6>().copied().unwrap_or_default();
        let to = |link: &SimPort| link.config.macs[1 - link.side] == dst;
        if let Some(link) = self.links.iter_mut().find(|link| to(link)) {
            link.tx_burst(&mut Burst::from_iter([frame]));
            return;
        }
        for link in &mut self.links {
            let Some(mut copy) = link.tx_alloc() else { continue };
            let data = frame.data();
            copy.frame.bytes[..data.len()].copy_from_slice(data);
            (copy.frame.start, copy.frame.end, copy.offload) = (0, data.len(), frame.offload);
            link.tx_burst(&mut Burst::from_iter([copy]));
        }
    }
}

impl Datapath for SimQueue {
    type Rx = SimRx;
    type Tx = SimTx;

    fn caps(&self) -> Caps {
        self.device().links[0].caps()
    }

    fn link_up(&mut self) -> bool {
        self.device().links.iter_mut().any(Datapath::link_up)
    }

    fn rx_burst(&mut self, burst: &mut Burst<SimRx>) -> usize {
        let mut device = self.device();
        let Device { links, pick } = &mut *device;
        for link in links {
            let mut arrived = Burst::new();
            link.rx_burst(&mut arrived);
            for frame in arrived {
                let _ = self.received[pick(frame.0.data()) % self.received.len()].push(frame);
            }
        }
        drop(device);
        let before = burst.len();
        while !burst.is_full()
            && let Some(frame) = self.received[self.number].pop()
        {
            self.stats.rx_frames += 1;
            self.stats.rx_bytes += frame.0.data().len() as u64;
            burst.push(frame);
        }
        burst.len() - before
    }

    fn tx_alloc(&mut self) -> Option<SimTx> {
        self.device().links[0].tx_alloc()
    }

    fn tx_burst(&mut self, burst: &mut Burst<SimTx>) -> usize {
        let count = burst.len();
        let mut device = self.device.lock().unwrap_or_else(PoisonError::into_inner);
        for frame in burst.drain(..) {
            self.stats.tx_frames += 1;
            self.stats.tx_bytes += frame.data().len() as u64;
            device.send(frame);
        }
        count
    }

    fn stats(&self) -> DatapathStats {
        self.stats
    }
}

impl fmt::Debug for SimQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SimQueue({}, {:?})", self.number, self.stats)
    }
}
