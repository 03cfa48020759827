//! The engines of a simulated host, one for each of its cores, with the exchange between them.

use std::net::SocketAddr;

use crate::base::rng::Rng;
use crate::base::time::Instant;
use crate::datapath::Burst;
use crate::datapath::exchange::{Exchange, Handed, Mesh, mesh};
use crate::quic::{Arrival, ConnId, Datagram, Endpoint, Lead, Leads, Origin, RxMeta};
use crate::sim::Failure;

/// Capacity of the queue between two cores: more datagrams than arrive at the same time.
const QUEUE: usize = 4096;

/// A datagram on its way to another core.
#[derive(Debug)]
struct Frame {
    meta: RxMeta,
    data: Vec<u8>,
}

/// A core's engine and its access to the others.
struct Core {
    endpoint: Endpoint,
    exchange: Mesh<Frame>,
    /// It has stopped: nothing arrives there any more, and nobody takes what others hand over to it.
    stopped: bool,
}

/// The cores of a host.
pub struct Cores {
    cores: Vec<Core>,
    /// The core that receives all datagrams, as they all have the same addresses.
    first: u8,
    /// Probability in per mille that a datagram with an ID of ours arrives at a random core.
    scatter: u64,
    rng: Rng,
    /// Number of datagrams handed over.
    pub handed: u64,
}

impl Cores {
    /// A host with these engines, in order of their cores.
    pub fn new(endpoints: Vec<Endpoint>, first: u8, scatter: u64, rng: Rng) -> Self {
        let exchanges = mesh(endpoints.len() as u8, QUEUE);
        let core = |(endpoint, exchange)| Core { endpoint, exchange, stopped: false };
        Self { cores: endpoints.into_iter().zip(exchanges).map(core).collect(), first, scatter, rng, handed: 0 }
    }

    /// Replaces all engines.
    pub fn restart(&mut self, endpoints: Vec<Endpoint>) {
        *self = Self::new(endpoints, self.first, self.scatter, self.rng.clone());
    }

    /// The engines of all cores.
    pub fn all(&self) -> impl Iterator<Item = &Endpoint> {
        self.cores.iter().map(|core| &core.endpoint)
    }

    /// The engines of all cores that have not stopped.
    pub fn running(&mut self) -> impl Iterator<Item = &mut Endpoint> {
        self.cores.iter_mut().filter(|core| !core.stopped).map(|core| &mut core.endpoint)
    }

    /// The engine of the core that has the connection, or would get one.
    pub fn of(&mut self, conn: Option<ConnId>) -> &mut Endpoint {
        let core = conn.map_or(self.first, |id| id.core());
        &mut self.cores[usize::from(core)].endpoint
    }

    /// The same, to look at.
    pub fn peek(&self, conn: Option<ConnId>) -> &Endpoint {
        let core = conn.map_or(self.first, |id| id.core());
        &self.cores[usize::from(core)].endpoint
    }

    /// Number of connections on all cores.
    pub fn connection_count(&self) -> usize {
        self.all().map(Endpoint::connection_count).sum()
    }

    /// The next time at which an engine has something to do.
    pub fn next_timeout(&self) -> Option<Instant> {
        self.cores.iter().filter(|core| !core.stopped).filter_map(|core| core.endpoint.next_timeout()).min()
    }

    /// Stops a core, whose connections are closed already, if it has none left. Its flows go to another core from now on.
    pub fn stop(&mut self, core: u8) -> bool {
        let running = self.cores.iter().filter(|core| !core.stopped).count();
        let this = &mut self.cores[usize::from(core)];
        if running > 1 && this.endpoint.connection_count() == 0 {
            this.stopped = true;
        }
        if self.cores[usize::from(self.first)].stopped {
            self.first = self.cores.iter().position(|core| !core.stopped).expect("one is running") as u8;
        }
        self.cores[usize::from(core)].stopped
    }

    /// A datagram has arrived: handles it, or hands it over to the core of its connection.
    pub fn arrive(&mut self, now: Instant, meta: RxMeta, mut data: Vec<u8>, origin: Origin) -> Result<(), Failure> {
        let mut at = usize::from(self.first);
        let mut lead = self.lead(at, &data);
        if self.scatter > 0 && !matches!(lead, Lead::Unknown) && self.rng.chance(self.scatter) {
            let running: Vec<_> = (0..self.cores.len()).filter(|core| !self.cores[*core].stopped).collect();
            at = running[self.rng.below(running.len() as u64) as usize];
            lead = self.lead(at, &data);
        }
        let Lead::Core(to, tag) = lead else {
            handle(&mut self.cores[at].endpoint, now, &meta, &mut data, lead, origin);
            return Ok(());
        };
        self.handed += 1;
        let mut burst = Burst::from_iter([Handed { frame: Frame { meta, data }, tag: Some(tag) }]);
        let taken = self.cores[at].exchange.offer(to, &mut burst);
        if taken == 1 || self.cores[usize::from(to)].stopped { Ok(()) } else { Err("the exchange is full".into()) }
    }

    fn lead(&mut self, core: usize, data: &[u8]) -> Lead {
        let mut leads = Leads::new();
        let endpoint = &mut self.cores[core].endpoint;
        endpoint.lead(&mut leads, data);
        endpoint.route(&mut leads);
        leads[0]
    }

    /// All cores take over what others have handed over.
    pub fn take_over(&mut self, now: Instant, origin: Origin) {
        for core in self.cores.iter_mut().filter(|core| !core.stopped) {
            let mut burst = Burst::new();
            while core.exchange.take(&mut burst) > 0 {
                for Handed { frame: Frame { meta, mut data }, tag } in burst.drain(..) {
                    let mut leads = Leads::new();
                    core.endpoint.lead_handed(&mut leads, tag, &data);
                    handle(&mut core.endpoint, now, &meta, &mut data, leads[0], origin);
                }
            }
        }
    }

    /// Checks that nobody but the owner of connections has sent stateless resets: `owner`, the address of whose connections
    /// is `remote`.
    pub fn check_resets(&self, conn: Option<ConnId>, remote: SocketAddr) -> Result<(), Failure> {
        for (core, n) in self.cores.iter().zip(0..) {
            let sent = core.endpoint.stats().resets_sent;
            if sent > 0 && conn.is_some_and(|id| id.core() != n) {
                return Err(format!("core {n} has sent {sent} resets to {remote} for connections of another core"));
            }
        }
        Ok(())
    }
}

fn handle(endpoint: &mut Endpoint, now: Instant, meta: &RxMeta, data: &mut [u8], lead: Lead, origin: Origin) {
    let mut datagram = Datagram::new(meta, data, lead);
    endpoint.handle_run(now, std::slice::from_mut(&mut datagram));
    if let Arrival::Answered(answer) = datagram.arrival {
        endpoint.set_answer_origin(answer, origin);
    }
}
