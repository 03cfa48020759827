//! The queue pairs of cores that share a port with a single one.

use std::sync::Arc;

use super::link::View;
use super::stock::{Stock, free};
use super::{Port, PortInner, Queue};
use crate::base::rng::Rng;
use crate::datapath::spread::{FlowHash, Guest, Host, Spread};
use crate::datapath::{Burst, Caps, Datapath, DatapathStats};
use crate::dpdk::eal::Eal;
use crate::dpdk::error::PortError;
use crate::dpdk::exchange::{RingExchange, mesh};
use crate::dpdk::mbuf::{RxMbuf, TxMbuf};

/// Provides frames to send for a core without a queue of its own, and describes the port. Receives and sends nothing:
/// the core that polls the port does ([`Spread`]).
pub struct StockQueue {
    port: Arc<PortInner>,
    stock: Stock,
    link: View,
    /// Calls that found no free frame.
    tx_no_frame: u64,
}

// SAFETY: as for a `Queue`: the spare buffers of the stock are raw, belong to it alone and are in no thread's cache.
unsafe impl Send for StockQueue {}

/// One core's share of a port with one queue pair ([`Port::take_spread`]).
pub type SpreadQueue = Spread<Queue, StockQueue, RingExchange<RxMbuf>, RingExchange<TxMbuf>>;

impl Port {
    /// Takes the port's only queue pair, and shares it between the cores that the profile was opened for
    /// ([`crate::dpdk::PortProfile::spread_over`]): the first in the list polls it, spreads what it receives over all
    /// cores by flow, and sends for the others. The list is empty if the queue pair has been taken before, or if there
    /// are several.
    ///
    /// # Errors
    /// [`PortError::Cores`] if the profile is for too many cores, and other errors if there is too little memory.
    pub fn take_spread(&mut self, eal: &Eal) -> Result<Vec<SpreadQueue>, PortError> {
        if self.queues.len() != 1 {
            return Ok(Vec::new());
        }
        let Some(queue) = self.queues.pop() else { return Ok(Vec::new()) };
        // There is a pool for each core.
        let cores = u8::try_from(self.inner.pools.len()).unwrap_or(u8::MAX);
        let node = self.node();
        let mut received = mesh(eal, cores, node)?.into_iter();
        let mut sent = mesh(eal, cores, node)?.into_iter();
        let mut rng = Rng::from_os().map_err(|e| PortError::Exchange { slots: 0, reason: e.to_string() })?;
        let hash = FlowHash::new([rng.next_u64(), rng.next_u64(), rng.next_u64()]);
        self.spread = Some((hash, cores));
        let first = received.next().zip(sent.next());
        let host = first.map(|(received, sent)| Spread::Host(Host::new(queue, received, sent, hash)));
        let guests = received.zip(sent).map(|(received, sent)| {
            let source = StockQueue::new(self.inner.clone(), received.core().into());
            Spread::Guest(Guest::new(source, received, sent))
        });
        Ok(host.into_iter().chain(guests).collect())
    }
}

impl StockQueue {
    fn new(port: Arc<PortInner>, core: u16) -> Self {
        // A core with private buffers uses them: its frames are copied when they are sent.
        let pool = port.private_pool(core).unwrap_or_else(|| port.tx_pool(core)).clone();
        Self { stock: Stock::new(pool, port.caps.mtu), link: View::default(), tx_no_frame: 0, port }
    }
}

impl Datapath for StockQueue {
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

    fn rx_burst(&mut self, _: &mut Burst<RxMbuf>) -> usize {
        0
    }

    fn release(&mut self, burst: &mut Burst<RxMbuf>) {
        free(burst);
    }

    fn tx_alloc(&mut self) -> Option<TxMbuf> {
        let frame = self.stock.take().map(TxMbuf);
        self.tx_no_frame += u64::from(frame.is_none());
        frame
    }

    fn tx_burst(&mut self, _: &mut Burst<TxMbuf>) -> usize {
        0
    }

    fn stats(&self) -> DatapathStats {
        DatapathStats { tx_no_frame: self.tx_no_frame, ..DatapathStats::default() }
    }
}
