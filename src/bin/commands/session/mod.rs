//! What all commands that send packets share: opening the port, running cores on threads of their own while the main
//! thread watches, and reporting the counters.

mod certificate;
mod group;
mod hang_up;
mod keylog;
mod live;
mod load_balancer;
mod options;
mod orders;
mod page;
mod preferred;
mod report;
mod stages;
mod tls;

use std::error::Error;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, SystemTime};

use gannet::api::{Qlog, QlogConfig};
use gannet::datapath::Caps;
use gannet::datapath::steering::{client_ports, first_client_port};
use gannet::dpdk::{
    Bus, Claim, Eal, EalConfig, Memory, PoolGuard, Port, PortError, PortProfile, ProfileError, Queue, SpreadQueue,
    far_cpus,
};
use gannet::mem::{BufPool, PoolConfig};
use gannet::net::{NetConfig, NetError};
use gannet::proto::perf::PlanError;
use gannet::quic::{ConfigError, EndpointConfig, TransportConfig};
use gannet::report::machine;
use gannet::runtime::{App, Idle};
use gannet::wire::eth::Mac;

use super::memory;
use crate::args::cores::{Cores, CoresArgs};
use crate::args::engine::EngineArgs;
use crate::terminal;
use group::{Common, Left};
use orders::{Orders, Signals};

pub use group::Member;
pub use options::{early_data, net_config, resolve, resuming, server_endpoint};
pub use orders::Renewal;
pub use preferred::preferred_address;
pub use report::Counters;
pub use tls::{client_tls, server_tls, tls_options};

/// Any error, for display to the user.
pub type Failure = Box<dyn Error + Send + Sync>;

/// Arguments that are inconsistent, or impossible on this machine.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Usage(pub String);

/// Returns whether the command line is at fault.
pub fn is_usage(failure: &Failure) -> bool {
    let profile = failure.downcast_ref::<ProfileError>();
    let plan = failure.downcast_ref::<PlanError>();
    let net = failure.downcast_ref::<NetError>();
    let port = failure.downcast_ref::<PortError>();
    failure.is::<Usage>()
        || failure.is::<memory::TooMuch>()
        || failure.is::<memory::TooLittle>()
        || failure.is::<ConfigError>()
        || profile.is_some_and(|error| !matches!(error, ProfileError::Read { .. }))
        || plan.is_some_and(|error| !matches!(error, PlanError::Memory { .. }))
        || port.is_some_and(|error| matches!(error, PortError::Queues { .. } | PortError::Cores { .. }))
        || net.is_some_and(|error| !matches!(error, NetError::BadMac))
}

/// An open port with its memory.
pub struct Session {
    args: EngineArgs,
    eal: Eal,
    /// Keeps the device open until the end.
    port: Port,
    /// The claim on our addresses on the port's interface; dropped after the port.
    _claim: Option<Claim>,
    cores: Cores,
    queues: Queues,
    /// Pinned memory that all cores use. If there is only one core, it is the core's pool.
    pub shared: BufPool,
    /// Pinned memory for the application and the engine of each core.
    pub pools: Vec<BufPool>,
    /// The registrations of pools with the device; dropped before `port`, which they refer to.
    registered: Vec<PoolGuard>,
    signals: Signals,
    /// A signal has ended the run.
    interrupted: bool,
    /// The engine's settings, if not the defaults.
    pub endpoint: Option<EndpointConfig>,
    /// The certificate's files, if a signal may ask to read them again.
    pub renewal: Option<Renewal>,
    /// How long connections may take to finish when a signal requests the end.
    pub drain: Option<Duration>,
    /// Writes qlog files, if they are wanted.
    qlog: Option<Qlog>,
    /// Dropped last, when all of the above is closed.
    closing: Closing,
}

/// What the cores of a session do.
#[derive(Clone, Copy, Debug)]
pub enum Role {
    /// Accept connections.
    Server {
        /// The UDP port to listen on.
        listen: u16,
    },
    /// Open connections.
    Client {
        /// The server.
        remote: SocketAddr,
        /// The number of UDP ports from which each core opens connections, in turn.
        flows: u16,
    },
}

/// The queue pair of each core.
enum Queues {
    /// A queue pair of the port.
    Own(Vec<Queue>),
    /// A share of the port's only queue pair.
    Spread(Vec<SpreadQueue>),
}

/// How long the device and DPDK may take to close.
const CLOSE_PATIENCE: Duration = Duration::from_secs(10);

/// Ends the process even if its device does not close.
struct Closing {
    closed: Option<Receiver<()>>,
    _open: Sender<()>,
}

impl Closing {
    fn new() -> Self {
        let (open, closed) = channel();
        Self { closed: Some(closed), _open: open }
    }

    /// Starts the time limit of [`CLOSE_PATIENCE`].
    fn begin(&mut self) {
        let Some(closed) = self.closed.take() else { return };
        let watch = move || {
            if closed.recv_timeout(CLOSE_PATIENCE) == Err(RecvTimeoutError::Timeout) {
                terminal::fail(&format!("DPDK has not closed the port within {CLOSE_PATIENCE:?}: exiting anyway"));
                terminal::finish();
                signal_hook::low_level::exit(1);
            }
        };
        // If the thread cannot be spawned, there is no time limit.
        let _ = std::thread::Builder::new().name("gannet-exit".into()).spawn(watch);
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.closing.begin();
    }
}

impl Session {
    /// Starts DPDK and opens the port for `cores`. Their pools hold at most `memory` bytes in total, and `shared` bytes
    /// are for memory that all cores use.
    ///
    /// # Errors
    /// If the profile is invalid, or the cores, the port or the memory are not available.
    pub fn open(args: &EngineArgs, cores: &CoresArgs, shared: u64, memory: u64) -> Result<Self, Failure> {
        check_places(args.stats.iter().chain(&args.stages))?;
        if let Some(max_idle_timeout) = args.idle_timeout {
            let settings = TransportConfig { max_idle_timeout, ..TransportConfig::default() };
            settings.validate().map_err(|e| Usage(format!("--idle-timeout: {e}")))?;
        }
        let flag = if cores.cores.is_some() { "--cores" } else { "--core" };
        let (spread, cores) = (cores.spread && cores.of(args).count() > 1, cores.of(args));
        options::check_cpus(flag, cores.cpus().iter().flatten().copied())?;
        let mut profile = profile(args, &cores, spread)?;
        profile.vlan = args.vlan;
        // Interrupts do not hurt virtual devices.
        profile.interrupts = match args.idle.mode() {
            Idle::Spin => false,
            Idle::Yield => profile.bus() == Bus::Vdev,
            Idle::Sleep => true,
        };
        let addrs: Vec<_> = args.addrs.iter().map(|cidr| cidr.addr).collect();
        let claim = Some(profile.claim(&addrs)?);
        let eal = Eal::init(&EalConfig::for_profiles(std::slice::from_ref(&profile)))?;
        if let Some(warning) = eal.warning() {
            tracing::warn!("{warning}");
        }
        let mut port = Port::open(&eal, &profile)?;
        let queues = if spread { Queues::Spread(port.take_spread(&eal)?) } else { Queues::Own(port.take_queues()) };
        if let Some(warning) = far_cpus(port.node(), cores.cpus().iter().flatten().copied()) {
            tracing::warn!("{warning}");
        }
        let pools = pools(&profile, port.node(), shared, memory, &cores)?;
        Self::new(args, eal, claim, port, queues, cores, pools)
    }

    /// Opens two sessions in one process whose ports are connected by rings.
    ///
    /// # Errors
    pub fn open_pair(
        eal: &Eal,
        profile: &PortProfile,
        (left, right): (&EngineArgs, &EngineArgs),
        memory: u64,
    ) -> Result<(Self, Self), Failure> {
        let (one, two) = Port::ring_pair(eal, profile)?;
        let session = |args: &EngineArgs, mut port: Port| -> Result<Self, Failure> {
            let (queues, cores) = (Queues::Own(port.take_queues()), Cores::one(args.core));
            let pools = pools(profile, port.node(), 0, memory, &cores)?;
            Self::new(args, eal.clone(), None, port, queues, cores, pools)
        };
        Ok((session(left, one)?, session(right, two)?))
    }

    /// A session on an open port.
    fn new(
        args: &EngineArgs,
        eal: Eal,
        claim: Option<Claim>,
        port: Port,
        queues: Queues,
        cores: Cores,
        (shared, pools): (BufPool, Vec<BufPool>),
    ) -> Result<Self, Failure> {
        let qlog = args.qlog.config().map(start_qlog).transpose()?;
        Ok(Self {
            args: args.clone(),
            eal,
            port,
            _claim: claim,
            cores,
            queues,
            shared,
            pools,
            registered: Vec::new(),
            signals: Signals::new()?,
            interrupted: false,
            endpoint: None,
            renewal: None,
            drain: None,
            qlog,
            closing: Closing::new(),
        })
    }

    /// Maps memory for `count` buffers of `len` bytes in the pool of each of the first `cores` cores now rather than on
    /// the first packets, and registers it with the device if the device can reach it.
    ///
    /// # Errors
    /// If the memory is not available.
    pub fn prepare(&mut self, cores: usize, len: usize, count: usize) -> Result<(), Failure> {
        self.registered.clear();
        for pool in self.pools.iter().take(cores) {
            pool.prepare(len, count)?;
            // Optional, as frames are in DPDK's memory. A device behind an IOMMU with 39 address bits, for example,
            // cannot map our 47-bit addresses.
            self.registered.extend(self.port.register_pool(pool).ok());
        }
        Ok(())
    }

    /// The number of cores.
    pub fn cores(&self) -> u8 {
        self.cores.count()
    }

    /// The port's capabilities.
    fn caps(&self) -> Caps {
        self.port.caps()
    }

    /// Transport settings for the port, and for the memory of each core.
    pub fn transport(&self) -> TransportConfig {
        options::transport(&self.args, &self.caps(), self.cores())
    }

    /// The same for clients.
    pub fn client_transport(&self) -> TransportConfig {
        options::client_transport(&self.args, &self.caps(), self.cores())
    }

    /// The flag that ends the run: set by SIGINT and SIGTERM, and by anyone else who wants it to end.
    pub fn stop(&self) -> Arc<AtomicBool> {
        self.signals.stop.clone()
    }

    /// Describes the session in one line.
    pub fn describe(&self) -> String {
        let Caps { mac, mtu, .. } = self.caps();
        let memory = if self.eal.hugepages() { "hugepages" } else { "ordinary memory" };
        let crypto = gannet::crypto::backend_name();
        let (port, name) = (&self.args.port, self.port.name());
        let peer = match (self.port.memory(), self.port.copies_frames()) {
            (Memory::Private, _) => "private",
            (Memory::Shared, true) => "shared with the peer, frames are copied",
            (Memory::Shared, false) => "shared with a trusted peer",
        };
        let ids = self.endpoint.as_ref().and_then(|endpoint| load_balancer::words(&endpoint.cid));
        let ids = ids.map_or_else(String::new, |ids| format!(", {ids}"));
        format!("port {port} ({name}), MAC {}, MTU {mtu}, {memory} ({peer}), {crypto}{ids}", Mac(mac))
    }

    /// Runs an application on each core until all are done or a signal arrives. `ready` is called when all cores are
    /// about to poll, and `watch` ten times a second: its lines go to standard error.
    ///
    /// # Errors
    /// If settings do not suit the port, or the port stops working.
    pub fn run<A: App + Send>(
        &mut self,
        members: Vec<Member<A>>,
        role: Role,
        ready: impl FnOnce() + Send,
        mut watch: impl FnMut() -> Option<String> + Send,
    ) -> Result<(Vec<A>, Counters), Failure> {
        let mut endpoint = self.endpoint.clone().map_or_else(gannet::api::endpoint_config, Ok)?;
        endpoint.grease = !self.args.no_grease;
        endpoint.tracer = self.qlog.clone().map(|qlog| Arc::new(qlog) as _);
        let ids = load_balancer::json(&endpoint.cid);
        let (idle, cores) = (self.args.idle.mode(), self.cores.cpus().len());
        if let Some(warning) = crowd(idle, cores) {
            tracing::warn!("{warning}");
        }
        let listen = match role {
            Role::Server { listen } => Some(listen),
            Role::Client { .. } => None,
        };
        let net = net_config(&self.args, listen)?;
        let mut live = self.args.live.then(|| live::View::new(self.describe(), cores));
        let common = Common {
            args: &self.args,
            eal: &self.eal,
            cpus: self.cores.cpus(),
            pools: &self.pools,
            client_ports: self.client_ports(&net, role)?,
            net,
            listen,
            sources: live.as_ref().map(live::View::sources).unwrap_or_default(),
            stop: self.stop(),
            orders: Orders::from_signals(&mut self.signals, self.renewal.take(), self.drain.take())?,
        };
        let node = self.port.node();
        // Ports may be sent to another thread, but not shared.
        let device = &mut self.port;
        let look = move || {
            let line = watch();
            match &mut live {
                Some(view) => view.look(line, || device.stats().iter()),
                None => line.iter().for_each(|line| terminal::tell(line)),
            }
        };
        let start = SystemTime::now();
        let ran = match std::mem::replace(&mut self.queues, Queues::Own(Vec::new())) {
            Queues::Own(queues) if cores == 1 => common.alone(queues, endpoint, members, ready, look),
            Queues::Own(queues) => common.group(queues, node, endpoint, members, ready, look),
            Queues::Spread(queues) => common.group(queues, node, endpoint, members, ready, look),
        };
        self.interrupted = self.signals.end_of_run();
        self.report(ran?, ids, start)
    }

    /// Writes the files that the user wants about a run that began at `start`, in which load balancers routed connection
    /// IDs by `ids`. Returns what is left of it.
    ///
    /// # Errors
    /// If a file cannot be written.
    fn report<A>(
        &self,
        left: Vec<Left<A>>,
        ids: serde_json::Value,
        start: SystemTime,
    ) -> Result<(Vec<A>, Counters), Failure> {
        let (mut apps, mut counters, mut stages) = (Vec::new(), Vec::new(), Vec::new());
        for core in left {
            apps.push(core.app);
            counters.push(core.counters);
            stages.extend(core.stages);
        }
        let mut counters = Counters::of(counters, ids);
        counters.add_device(&self.port);
        if let Some(qlog) = &self.qlog {
            qlog.finish();
            counters.add(qlog.counters());
        }
        if let Some(path) = &self.args.stats {
            counters.write(path)?;
        }
        if let (Some(path), false) = (&self.args.stages, stages.is_empty()) {
            stages::keep(path, &stages, start, self.describe(), self.args.log.quiet)?;
        }
        Ok((apps, counters))
    }

    /// A client's source ports for each core, whose answers arrive at that core if the port's steering is known.
    fn client_ports(&self, net: &NetConfig, role: Role) -> Result<Vec<Vec<u16>>, Failure> {
        let Role::Client { remote, flows } = role else { return Ok(Vec::new()) };
        let first = first_client_port()?;
        let local = net.source_for(remote.ip())?;
        let cores = u16::from(self.cores.count());
        Ok(client_ports(self.port.steering().as_ref(), (cores, flows), local, remote, first))
    }

    /// Returns whether a signal requested the end of the run.
    pub fn interrupted(&self) -> bool {
        self.interrupted
    }
}

/// Starts writing qlog files.
fn start_qlog(config: QlogConfig) -> Result<Qlog, Failure> {
    let dir = config.dir.clone();
    Qlog::start(config).map_err(|e| format!("cannot write qlog files to {}: {e}", dir.display()).into())
}

/// A warning if poll loops that never yield have to share CPUs, with each other or with other tasks.
fn crowd(idle: Idle, cores: usize) -> Option<String> {
    if idle != Idle::Spin {
        return None;
    }
    let cpus = std::thread::available_parallelism().ok()?.get();
    if cores > cpus {
        return Some(format!(
            "{cores} cores share {cpus} CPUs: with --idle spin, they stop each other for milliseconds"
        ));
    }
    let others = machine::runnable(Path::new("/")).filter(|&others| others >= cpus)?;
    Some(format!(
        "{others} other tasks compete for {cpus} CPUs: with --idle spin, they stop the poll loop for milliseconds"
    ))
}

/// The profile of a port with a queue for each of `cores`, or one for all if it is `spread`.
fn profile(args: &EngineArgs, cores: &Cores, spread: bool) -> Result<PortProfile, Failure> {
    let count = u16::from(cores.count());
    let mut sets = args.sets.clone();
    if count > 1 && !spread && sets.iter().all(|(key, _)| key != "queues") {
        sets.push(("queues".into(), count.to_string()));
    }
    let profile = PortProfile::load(&args.port, &sets)?;
    Ok(if spread { profile.spread_over(count)? } else { profile.for_cores(count)? })
}

/// A pool of `shared` bytes for all cores, and one for each of them, which have `memory` bytes in total, on a NUMA node if
/// possible. There is only one pool if there is only one core.
fn pools(
    profile: &PortProfile,
    node: Option<u16>,
    shared: u64,
    memory: u64,
    cores: &Cores,
) -> Result<(BufPool, Vec<BufPool>), Failure> {
    let pool = |bytes: u64| -> Result<BufPool, Failure> {
        let limit_bytes = usize::try_from(bytes)?;
        let config = PoolConfig { limit_bytes, hugepages: profile.hugepages, numa_node: node.map(u32::from) };
        Ok(BufPool::new(config)?)
    };
    let count = cores.count();
    if count == 1 {
        let pool = pool(shared + memory)?;
        return Ok((pool.clone(), vec![pool]));
    }
    let each: Result<_, _> = (0..count).map(|_| pool(memory / u64::from(count))).collect();
    // The shared files may be so small that they take more than twice their size.
    Ok((pool(shared + memory)?, each?))
}

/// Says that only `busy` of `cores` cores have work, if that is so. The others still poll their queues, whose number the
/// other end may depend on.
pub fn idle_cores(cores: usize, busy: usize, what: &str) -> Option<String> {
    let named = |n: usize| format!("{n} core{}", if n == 1 { "" } else { "s" });
    (busy < cores).then(|| {
        format!(
            "only {} of {cores} can be used, as there are not more {what}; the other{} only pass{} on packets",
            named(busy),
            if cores - busy == 1 { "" } else { "s" },
            if cores - busy == 1 { "es" } else { "" },
        )
    })
}

/// Checks that the directories of output files exist, before the run rather than after it.
///
/// # Errors
/// If a file's directory does not exist.
pub fn check_places<'a>(files: impl IntoIterator<Item = &'a PathBuf>) -> Result<(), Failure> {
    for path in files {
        if let Some(dir) = missing_parent(path) {
            return Err(format!("cannot write {}: no such directory: {}", path.display(), dir.display()).into());
        }
    }
    Ok(())
}

/// The parent directory of `path`, if it does not exist.
pub fn missing_parent(path: &Path) -> Option<&Path> {
    path.parent().filter(|dir| !dir.as_os_str().is_empty() && !dir.is_dir())
}
