//! A port: one network device, opened from a profile.

mod check;
mod configure;
mod device;
mod filters;
mod guest;
mod link;
mod memory;
mod queue;
mod rings;
mod stats;
mod steering;
mod stock;

use std::sync::Arc;

pub use guest::{SpreadQueue, StockQueue};
pub use memory::{MemoryGuard, PoolGuard};
pub use queue::Queue;
pub use stats::PortStats;

use super::eal::{Eal, EalInner};
use super::error::PortError;
use super::guard::Gate;
use super::log::Capture;
use super::pool::Pool;
use super::profile::{Memory, Offloads, PortProfile};
use super::wakeups::Wakeups;
use crate::datapath::Caps;
use crate::datapath::spread::FlowHash;
use device::Device;
use link::Link;

/// The state shared by a port and its queues. Fields are dropped from the top: first the device, then the pools that it
/// used, then the reference to EAL.
struct PortInner {
    id: u16,
    name: String,
    caps: Caps,
    /// Received checksums are treated as valid without a check ([`crate::dpdk::Offloads::None`]).
    trusting: bool,
    memory: Memory,
    device: Device,
    link: Link,
    queues: u16,
    /// For each queue, the pools to receive into and to send from; behind them, for each core without a queue, those to
    /// send from.
    pools: Vec<QueuePools>,
    _eal: Arc<EalInner>,
}

#[derive(Clone)]
struct QueuePools {
    rx: Arc<Pool>,
    /// The same pool, unless receive buffers are smaller than a frame.
    tx: Arc<Pool>,
    /// The pool that frames are copied to and built in, if others can write to the buffers above.
    private: Option<Arc<Pool>>,
}

impl PortInner {
    fn tx_pool(&self, queue: u16) -> &Arc<Pool> {
        &self.pools[usize::from(queue)].tx
    }

    fn private_pool(&self, queue: u16) -> Option<&Arc<Pool>> {
        self.pools[usize::from(queue)].private.as_ref()
    }

    fn link(&self) -> bool {
        self.link.query(|| self.device.link())
    }

    /// The reason why the device is gone for good, if it is.
    fn removed(&self) -> Option<String> {
        self.link.is_gone().then(|| self.device.removal())
    }

    pub(super) fn link_problem(&self) -> Option<String> {
        self.device.link_problem()
    }

    /// Accepts frames for these groups.
    pub(super) fn set_groups(&self, groups: &[[u8; 6]]) {
        filters::groups(&self.device, groups);
    }
}

/// An open port. It closes when it and all its queues are dropped: the device is stopped and removed, and its sockets
/// are closed.
pub struct Port {
    inner: Arc<PortInner>,
    queues: Vec<Queue>,
    /// How its queue pair is spread, and over how many cores.
    spread: Option<(FlowHash, u8)>,
}

impl Port {
    /// Creates or finds the device, configures it according to its capabilities, and starts it.
    ///
    /// A virtio-user port with `devargs.server = true` waits here for its peer.
    ///
    /// # Errors
    /// If a driver, interface, socket or permission is missing, the device does not support the profile's sizes, or
    /// there is too little memory.
    pub fn open(eal: &Eal, profile: &PortProfile) -> Result<Self, PortError> {
        let capture = Capture::start();
        let device = Device::create(eal, profile, &capture)?;
        Self::bring_up(eal, profile, device, None, &capture)
    }

    /// Opens two ports in this process that are connected by rings: frames sent on one arrive at the other without a
    /// copy. Sizes come from `profile`, whose driver is ignored.
    ///
    /// # Errors
    /// If there is too little memory.
    pub fn ring_pair(eal: &Eal, profile: &PortProfile) -> Result<(Self, Self), PortError> {
        let capture = Capture::start();
        let (left, right) = rings::pair(profile, &capture)?;
        // Buffers are passed by pointer, so their pools must outlive both ports.
        let pools = configure::pools(eal, profile, -1)?;
        let left = Self::bring_up(eal, profile, left, Some(pools.clone()), &capture)?;
        let right = Self::bring_up(eal, profile, right, Some(pools), &capture)?;
        Ok((left, right))
    }

    fn bring_up(
        eal: &Eal,
        profile: &PortProfile,
        mut device: Device,
        pools: Option<Vec<QueuePools>>,
        capture: &Capture,
    ) -> Result<Self, PortError> {
        let settled = configure::settle(&device, profile, capture)?;
        let pools = match pools {
            Some(pools) => pools,
            None => configure::pools(eal, profile, configure::socket(eal, profile, &device)?)?,
        };
        let up = configure::bring_up(&mut device, profile, &settled, &pools, capture);
        let caps = match up {
            Ok(caps) => caps,
            Err(error) => {
                // The queues may already refer to the pools.
                drop(device);
                return Err(error);
            }
        };
        let inner = Arc::new(PortInner {
            id: device.id(),
            name: device.name().to_owned(),
            caps,
            trusting: profile.offloads == Offloads::None,
            memory: profile.memory(),
            device,
            link: Link::default(),
            queues: profile.queues,
            pools,
            _eal: eal.0.clone(),
        });
        let sockets = inner.device.kernel_sockets();
        let queue = |id| {
            let wakeups = Wakeups::new(profile, inner.id, id, sockets.get(usize::from(id)).copied());
            Queue::new(inner.clone(), id, profile.needs_gate().then(Gate::new), wakeups)
        };
        let queues = (0..profile.queues).map(queue).collect();
        Ok(Self { inner, queues, spread: None })
    }

    /// The device's capabilities, as configured.
    pub fn caps(&self) -> Caps {
        self.inner.caps
    }

    /// The name of the device.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// Returns whether the process at the other end can write to this port's packet buffers.
    pub fn memory(&self) -> Memory {
        self.inner.memory
    }

    /// Returns whether frames are copied out of that memory before they are processed, and built outside it.
    pub fn copies_frames(&self) -> bool {
        self.inner.private_pool(0).is_some()
    }

    /// DPDK's port number.
    pub fn id(&self) -> u16 {
        self.inner.id
    }

    /// Takes all queue pairs, one per core; empty if they were taken before. What [`Port::steering`] is based on is
    /// logged.
    pub fn take_queues(&mut self) -> Vec<Queue> {
        // Asks the device.
        if tracing::enabled!(tracing::Level::DEBUG)
            && let Some(steering) = self.steering()
        {
            tracing::debug!(%steering, "the port has several queues");
        }
        std::mem::take(&mut self.queues)
    }

    /// Returns whether the link is up, or the process at the other end is connected.
    pub fn link_up(&self) -> bool {
        self.inner.link()
    }

    /// The NUMA node of the device, where its memory is. `None` for virtual devices, and if the machine does not say.
    pub fn node(&self) -> Option<u16> {
        self.inner.device.node()
    }

    /// The number of free packet buffers in all pools, and the total. The others are in the device's receive rings, in
    /// queues and in the application's hands.
    pub fn buffers(&self) -> (u32, u32) {
        let count = |sum: (u32, u32), pool: &Pool| (sum.0 + pool.available(), sum.1 + pool.size());
        self.inner.pools.iter().fold((0, 0), |sum, p| {
            let sum = p.private.iter().fold(count(sum, &p.rx), |sum, private| count(sum, private));
            if Arc::ptr_eq(&p.rx, &p.tx) { sum } else { count(sum, &p.tx) }
        })
    }
}
