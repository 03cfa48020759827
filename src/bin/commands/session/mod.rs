//! What all commands that send packets share: opening the port, running one core on its own thread while the main
//! thread watches, and reporting the counters.

mod certificate;
mod keylog;
mod live;
mod options;
mod page;
mod report;
mod stages;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, SystemTime};

use gannet::datapath::pcap::Pcap;
use gannet::datapath::{Caps, Datapath};
use gannet::dpdk::{Bus, Claim, Eal, EalConfig, Memory, PoolGuard, Port, PortProfile, ProfileError, Queue};
use gannet::mem::{BufPool, PoolConfig};
use gannet::net::NetError;
use gannet::proto::perf::PlanError;
use gannet::quic::{ConfigError, EndpointConfig, ServerConfig, TransportConfig};
use gannet::report::machine;
use gannet::runtime::{App, Core, CoreConfig, Idle, Observer, Stages};
use gannet::wire::eth::Mac;

use super::memory;
use crate::args::engine::EngineArgs;
use crate::terminal;

pub use options::{
    checked_server_tls, client_tls, client_transport, net_config, resolve, server_endpoint, server_tls, tls_options,
    transport,
};
pub use report::Counters;

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
    failure.is::<Usage>()
        || failure.is::<memory::TooMuch>()
        || failure.is::<ConfigError>()
        || profile.is_some_and(|error| !matches!(error, ProfileError::Read { .. }))
        || plan.is_some_and(|error| !matches!(error, PlanError::Memory { .. }))
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
    queue: Option<Queue>,
    /// Pinned memory for the application and the engine.
    pub pool: BufPool,
    /// The registration of the pool with the device; dropped before `port`, which it refers to.
    registered: Option<PoolGuard>,
    stop: Arc<AtomicBool>,
    /// The engine's settings, if not the defaults.
    pub endpoint: Option<EndpointConfig>,
    /// Dropped last, when all of the above is closed.
    closing: Closing,
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
    /// Starts DPDK and opens the port. The pool holds at most `memory` bytes.
    ///
    /// # Errors
    /// If the profile is invalid, or the port or the memory is not available.
    pub fn open(args: &EngineArgs, memory: u64) -> Result<Self, Failure> {
        check_places(args.stats.iter().chain(&args.stages))?;
        if let Some(max_idle_timeout) = args.idle_timeout {
            let settings = TransportConfig { max_idle_timeout, ..TransportConfig::default() };
            settings.validate().map_err(|e| Usage(format!("--idle-timeout: {e}")))?;
        }
        let mut profile = PortProfile::load(&args.port, &args.sets)?.for_cores(1)?;
        profile.vlan = args.vlan;
        // Interrupts do not hurt virtual devices.
        profile.interrupts = match args.idle.mode() {
            Idle::Spin => false,
            Idle::Yield => profile.bus() == Bus::Vdev,
            Idle::Sleep => true,
        };
        args.core.map(options::usable_cpu).transpose()?;
        let addrs: Vec<_> = args.addrs.iter().map(|cidr| cidr.addr).collect();
        let claim = Some(profile.claim(&addrs)?);
        let eal = Eal::init(&EalConfig::for_profiles(std::slice::from_ref(&profile)))?;
        if let Some(warning) = eal.warning() {
            tracing::warn!("{warning}");
        }
        let mut port = Port::open(&eal, &profile)?;
        let queue = port.take_queues().into_iter().next();
        let (pool, stop) = (pool(&profile, memory)?, stop_on_signals()?);
        let (args, closing) = (args.clone(), Closing::new());
        Ok(Self { args, eal, port, _claim: claim, queue, pool, registered: None, stop, endpoint: None, closing })
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
            let queue = port.take_queues().into_iter().next();
            let pool = pool(profile, memory)?;
            let stop = stop_on_signals()?;
            let eal = eal.clone();
            let (args, closing) = (args.clone(), Closing::new());
            Ok(Self { args, eal, port, _claim: None, queue, pool, registered: None, stop, endpoint: None, closing })
        };
        Ok((session(left, one)?, session(right, two)?))
    }

    /// Maps memory for `count` buffers of `len` bytes now rather than on the first packets, and registers it with the
    /// device if the device can reach it.
    ///
    /// # Errors
    /// If the memory is not available.
    pub fn prepare(&mut self, len: usize, count: usize) -> Result<(), Failure> {
        self.pool.prepare(len, count)?;
        self.registered = None;
        // Optional, as frames are in DPDK's memory. A device behind an IOMMU with 39 address bits, for example, cannot
        // map our 47-bit addresses.
        self.registered = self.port.register_pool(&self.pool).ok();
        Ok(())
    }

    /// The port's capabilities.
    pub fn caps(&self) -> Caps {
        self.port.caps()
    }

    /// The flag that ends the run: set by SIGINT and SIGTERM, and by anyone else who wants it to end.
    pub fn stop(&self) -> Arc<AtomicBool> {
        self.stop.clone()
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
        format!("port {port} ({name}), MAC {}, MTU {mtu}, {memory} ({peer}), {crypto}", Mac(mac))
    }

    /// Runs `app` on a core until it is done or a signal arrives. `ready` is called when the core polls, and `watch`
    /// ten times a second afterwards: its lines go to standard error.
    ///
    /// # Errors
    /// If settings do not suit the port, or the port stops working.
    pub fn run<A: App + Send>(
        &mut self,
        app: A,
        server: Option<(u16, ServerConfig)>,
        ready: impl FnOnce() + Send,
        mut watch: impl FnMut() -> Option<String>,
    ) -> Result<(A, Counters), Failure> {
        let queue = self.queue.take().ok_or("the port has no queue")?;
        let (listen, server) = server.unzip();
        let config = CoreConfig {
            net: net_config(&self.args, listen)?,
            endpoint: self.endpoint.take().map_or_else(gannet::api::endpoint_config, Ok)?,
            server,
            listen,
            client_port: options::client_port()?,
            pool: self.pool.clone(),
            idle: self.args.idle.mode(),
            link_patience: self.args.link_patience,
        };
        if let Some(warning) = crowd(config.idle) {
            tracing::warn!("{warning}");
        }
        let (args, eal, stop) = (&self.args, &self.eal, &*self.stop);
        let mut live = args.live.then(|| live::View::new(self.describe()));
        let observer = (args.stages.is_some() || args.live)
            .then(|| Observer::new(args.stages.is_some(), live.as_ref().map(live::View::source)));
        let start = SystemTime::now();
        let (app, mut counters, stages) = std::thread::scope(|scope| {
            let poll = move || -> Driven<A> {
                if let Some(cpu) = args.core {
                    options::pin(options::usable_cpu(cpu)?)?;
                }
                let _registered = eal.register_thread()?;
                match &args.pcap {
                    None => drive(queue, config, app, observer, stop, ready),
                    Some(path) => {
                        let queue = Pcap::create(queue, path)
                            .map_err(|e| format!("cannot write the capture {}: {e}", path.display()))?;
                        drive(queue, config, app, observer, stop, ready)
                    }
                }
            };
            let watcher = std::thread::current();
            let poll = move || {
                let driven = poll();
                // Wake the watcher, which would notice the end only at its next look.
                watcher.unpark();
                driven
            };
            let thread = std::thread::Builder::new().name("gannet-core".into()).spawn_scoped(scope, poll)?;
            while !thread.is_finished() {
                std::thread::park_timeout(Duration::from_millis(100));
                let line = watch();
                match &mut live {
                    Some(view) => view.look(line, || self.port.stats().iter()),
                    None => line.iter().for_each(|line| terminal::tell(line)),
                }
            }
            thread.join().unwrap_or_else(|_| Err("the core panicked; this is a bug in Gannet".into()))
        })?;
        counters.add_device(&self.port);
        if let Some(path) = &self.args.stats {
            counters.write(path)?;
        }
        if let (Some(path), Some(stages)) = (&self.args.stages, stages) {
            stages::keep(path, &stages, start, self.describe(), self.args.log.quiet)?;
        }
        Ok((app, counters))
    }

    /// Returns whether a signal requested the end.
    pub fn interrupted(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// Warns about competing tasks if the loop never yields its CPU.
fn crowd(idle: Idle) -> Option<String> {
    let cpus = std::thread::available_parallelism().ok()?.get();
    let others = machine::runnable(Path::new("/")).filter(|&others| idle == Idle::Spin && others >= cpus)?;
    Some(format!(
        "{others} other tasks compete for {cpus} CPUs: with --idle spin, they stop the poll loop for milliseconds"
    ))
}

/// What a finished core leaves: the application, the counters, and the stage timers if there were any.
type Driven<A> = Result<(A, Counters, Option<Stages>), Failure>;

fn drive<D: Datapath, A: App>(
    datapath: D,
    config: CoreConfig,
    app: A,
    observer: Option<Observer>,
    stop: &AtomicBool,
    ready: impl FnOnce(),
) -> Driven<A> {
    let mut core = Core::new(datapath, config, app)?;
    if let Some(observer) = observer {
        core.observe(observer);
    }
    ready();
    core.run(stop)?;
    let (counters, stages) = (Counters::of(&core), core.stages().cloned());
    Ok((core.into_app(), counters, stages))
}

fn pool(profile: &PortProfile, memory: u64) -> Result<BufPool, Failure> {
    let limit_bytes = usize::try_from(memory)?;
    Ok(BufPool::new(PoolConfig { limit_bytes, hugepages: profile.hugepages, ..PoolConfig::default() })?)
}

/// The first SIGINT or SIGTERM requests an orderly shutdown, the second ends the process.
fn stop_on_signals() -> Result<Arc<AtomicBool>, Failure> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register_conditional_shutdown(signal, 130, stop.clone())?;
        signal_hook::flag::register(signal, stop.clone())?;
    }
    Ok(stop)
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
