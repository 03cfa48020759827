//! The engines of a simulated host, one for each of its cores, with the exchange between them.

use std::net::SocketAddr;

use crate::base::rng::Rng;
use crate::base::time::Instant;
use crate::datapath::Burst;
use crate::datapath::exchange::{Exchange, Handed, Mesh, mesh};
use crate::quic::{Arrival, ConnId, Datagram, Endpoint, Lead, Leads, Origin, RxMeta, TooBig, Undelivered};
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
    /// It has stopped: no more datagrams arrive there, and those that others hand over to it are not taken.
    stopped: bool,
    /// Datagrams that have arrived together, and where they lead.
    waiting: Vec<(RxMeta, Vec<u8>, Lead)>,
}

impl Core {
    /// Passes waiting datagrams to the engine if there are more than `most`. Returns the number of datagrams that were
    /// handled together with others.
    fn handle(&mut self, now: Instant, most: usize, origin: Origin) -> u64 {
        if self.waiting.len() <= most {
            return 0;
        }
        let mut waiting = std::mem::take(&mut self.waiting);
        let mut run: Vec<_> = waiting.iter_mut().map(|(meta, data, lead)| Datagram::new(meta, data, *lead)).collect();
        self.endpoint.handle_run(now, &mut run);
        for datagram in &run {
            if let Arrival::Answered(answer) = datagram.arrival {
                self.endpoint.set_answer_origin(answer, origin);
            }
        }
        if run.len() > 1 { run.len() as u64 } else { 0 }
    }
}

/// The cores of a host.
pub struct Cores {
    cores: Vec<Core>,
    /// The core that receives all datagrams, as they all have the same addresses.
    first: u8,
    /// Probability in per mille that a datagram with an ID of ours arrives at a random core.
    scatter: u64,
    rng: Rng,
    /// Maximum number of datagrams passed to an engine at a time.
    longest_run: usize,
    /// Number of datagrams handed over.
    pub handed: u64,
    /// Number of datagrams passed to an engine together with others.
    pub together: u64,
    /// Possible stateless resets, with the core that received each.
    resets: Vec<(usize, SocketAddr, [u8; 16])>,
    /// Number of resets and ICMP messages that another core has heeded than the one that they reached.
    pub relayed: u64,
}

impl Cores {
    /// A host with these engines, in order of their cores.
    pub fn new(endpoints: Vec<Endpoint>, first: u8, scatter: u64, rng: Rng, longest_run: usize) -> Self {
        let exchanges = mesh(endpoints.len() as u8, QUEUE);
        let core = |(endpoint, exchange)| Core { endpoint, exchange, stopped: false, waiting: Vec::new() };
        let cores = endpoints.into_iter().zip(exchanges).map(core).collect();
        Self { cores, first, scatter, rng, longest_run, handed: 0, together: 0, resets: Vec::new(), relayed: 0 }
    }

    /// Replaces all engines; there may be fewer than before.
    pub fn restart(&mut self, endpoints: Vec<Endpoint>) {
        let first = self.first % endpoints.len() as u8;
        let counts = (self.together, self.handed, self.relayed);
        *self = Self::new(endpoints, first, self.scatter, self.rng.clone(), self.longest_run);
        (self.together, self.handed, self.relayed) = counts;
    }

    /// The engines of all cores.
    pub fn all(&self) -> impl Iterator<Item = &Endpoint> {
        self.cores.iter().map(|core| &core.endpoint)
    }

    /// The engines of all cores that have not stopped.
    pub fn running(&mut self) -> impl Iterator<Item = &mut Endpoint> {
        self.cores.iter_mut().filter(|core| !core.stopped).map(|core| &mut core.endpoint)
    }

    /// The core that has the connection, or would get one.
    fn home(&self, conn: Option<ConnId>) -> usize {
        conn.map_or(self.first, |id| id.core()).into()
    }

    /// The engine of that core.
    pub fn of(&mut self, conn: Option<ConnId>) -> &mut Endpoint {
        let core = self.home(conn);
        &mut self.cores[core].endpoint
    }

    /// The same, for reading.
    pub fn peek(&self, conn: Option<ConnId>) -> &Endpoint {
        &self.cores[self.home(conn)].endpoint
    }

    /// Number of connections on all cores.
    pub fn connection_count(&self) -> usize {
        self.all().map(Endpoint::connection_count).sum()
    }

    /// The next time at which an engine has something to do.
    pub fn next_timeout(&self) -> Option<Instant> {
        self.cores.iter().filter(|core| !core.stopped).filter_map(|core| core.endpoint.next_timeout()).min()
    }

    /// Stops a core whose connections have been closed, unless some are left. From then on, its flows go to another
    /// core. Returns whether the core has stopped.
    pub fn stop(&mut self, core: u8) -> bool {
        let running = self.cores.iter().filter(|core| !core.stopped).count();
        // It may be gone since a crash.
        let Some(this) = self.cores.get_mut(usize::from(core)) else { return true };
        if running > 1 && this.endpoint.connection_count() == 0 {
            this.stopped = true;
        }
        if self.cores[usize::from(self.first)].stopped {
            self.first = self.cores.iter().position(|core| !core.stopped).expect("one is running") as u8;
        }
        self.cores[usize::from(core)].stopped
    }

    /// A random core that has not stopped.
    fn any(&mut self) -> usize {
        let running: Vec<_> = (0..self.cores.len()).filter(|core| !self.cores[*core].stopped).collect();
        running[self.rng.below(running.len() as u64) as usize]
    }

    /// A datagram has arrived at the core `at`, or by default at the first one: handles it, or hands it over to the core
    /// of its connection.
    pub fn arrive(
        &mut self,
        now: Instant,
        at: Option<u8>,
        meta: RxMeta,
        data: Vec<u8>,
        origin: Origin,
    ) -> Result<(), Failure> {
        let mut at = usize::from(at.filter(|at| self.is_running(*at)).unwrap_or(self.first));
        let mut lead = self.lead(at, &data);
        // Stateless resets look like packets with short headers.
        let scattered = !matches!(lead, Lead::Unknown) || data.first().is_some_and(|first| first & 0x80 == 0);
        if self.scatter > 0 && scattered && self.rng.chance(self.scatter) {
            at = self.any();
            lead = self.lead(at, &data);
        }
        let Lead::Core(to, tag) = lead else {
            let core = &mut self.cores[at];
            core.waiting.push((meta, data, lead));
            self.together += core.handle(now, self.longest_run - 1, origin);
            self.note_resets(at);
            return Ok(());
        };
        self.handed += 1;
        let mut burst = Burst::from_iter([Handed { frame: Frame { meta, data }, tag: Some(tag) }]);
        let taken = self.cores[at].exchange.offer(to, &mut burst);
        if taken == 1 || self.cores[usize::from(to)].stopped { Ok(()) } else { Err("the exchange is full".into()) }
    }

    fn is_running(&self, core: u8) -> bool {
        self.cores.get(usize::from(core)).is_some_and(|core| !core.stopped)
    }

    fn lead(&mut self, core: usize, data: &[u8]) -> Lead {
        let mut leads = Leads::new();
        let endpoint = &mut self.cores[core].endpoint;
        endpoint.lead(&mut leads, data);
        endpoint.route(&mut leads);
        leads[0]
    }

    /// All cores handle the datagrams that have arrived there, and those that others have handed over. After that, they
    /// handle what others have passed on.
    pub fn take_over(&mut self, now: Instant, origin: Origin) {
        for at in 0..self.cores.len() {
            let core = &mut self.cores[at];
            if core.stopped {
                continue;
            }
            self.together += core.handle(now, 0, origin);
            let mut burst = Burst::new();
            while core.exchange.take(&mut burst) > 0 {
                for Handed { frame: Frame { meta, data }, tag } in burst.drain(..) {
                    let mut leads = Leads::new();
                    core.endpoint.lead_handed(&mut leads, tag, &data);
                    core.waiting.push((meta, data, leads[0]));
                    self.together += core.handle(now, self.longest_run - 1, origin);
                }
            }
            self.together += core.handle(now, 0, origin);
            self.note_resets(at);
        }
        for (at, remote, token) in std::mem::take(&mut self.resets) {
            self.relayed += u64::from(self.relay(at, |endpoint| endpoint.relayed_reset(now, remote, &token)));
        }
    }

    /// Notes what a core has received that may be stateless resets of connections on other cores.
    fn note_resets(&mut self, at: usize) {
        let endpoint = &mut self.cores[at].endpoint;
        self.resets
            .extend(std::iter::from_fn(|| endpoint.poll_foreign_reset()).map(|(remote, token)| (at, remote, token)));
    }

    /// Passes something on to all cores but `at`. Returns whether one of them heeds it.
    fn relay(&mut self, at: usize, mut heeds: impl FnMut(&mut Endpoint) -> bool) -> bool {
        let others = self.cores.iter_mut().enumerate().filter(|(core, other)| *core != at && !other.stopped);
        others.map(|(_, other)| heeds(&mut other.endpoint)).fold(false, |any, heeded| any | heeded)
    }

    /// The core at which an ICMP message arrives.
    fn icmp_arrives(&mut self) -> usize {
        if self.scatter > 0 { self.any() } else { self.first.into() }
    }

    /// A report about the size of a datagram has arrived, at any core.
    pub fn packet_too_big(&mut self, now: Instant, news: &TooBig<'_>) {
        let at = self.icmp_arrives();
        if !self.cores[at].endpoint.packet_too_big(now, news) {
            self.relayed += u64::from(self.relay(at, |endpoint| endpoint.relayed_too_big(now, news)));
        }
    }

    /// A report that a datagram was not delivered has arrived, at any core. Returns whether it is believed.
    pub fn is_undelivered(&mut self, news: &Undelivered<'_>) -> bool {
        let at = self.icmp_arrives();
        if self.cores[at].endpoint.is_undelivered(news) {
            return true;
        }
        let believed = self.relay(at, |endpoint| endpoint.relayed_undelivered(news));
        self.relayed += u64::from(believed);
        believed
    }

    /// Checks that only the `owner` of the connection with `remote` has sent stateless resets, unless it is a core that
    /// does not exist any more.
    pub fn check_resets(&self, owner: Option<u8>, remote: SocketAddr) -> Result<(), Failure> {
        let Some(owner) = owner.filter(|owner| usize::from(*owner) < self.cores.len()) else { return Ok(()) };
        for (core, n) in self.cores.iter().zip(0..) {
            let sent = core.endpoint.stats().resets_sent;
            if sent > 0 && n != owner {
                return Err(format!("core {n} has sent {sent} resets to {remote} for connections of another core"));
            }
        }
        Ok(())
    }
}
