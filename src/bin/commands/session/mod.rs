//! What every command that sends packets does: opens the port, runs one core on a thread of its own,
//! lets the main thread watch, and tells the counters in the end.

mod keylog;
mod live;
mod options;
mod report;
mod stages;

use std::error::Error;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use gannet::datapath::pcap::Pcap;
use gannet::datapath::{Caps, Datapath};
use gannet::dpdk::{Eal, EalConfig, Memory, PoolGuard, Port, PortProfile, Queue};
use gannet::mem::{BufPool, PoolConfig};
use gannet::quic::{EndpointConfig, ServerConfig};
use gannet::runtime::{App, Core, CoreConfig, Idle, Observer, Stages};
use gannet::wire::eth::Mac;

use crate::args::engine::EngineArgs;

pub use options::{
    client_tls, client_transport, net_config, resolve, server_endpoint, server_tls, tls_options, transport,
};
pub use report::Counters;

/// Whatever went wrong, as told to the user.
pub type Failure = Box<dyn Error + Send + Sync>;

/// An open port with its memory.
pub struct Session {
    args: EngineArgs,
    eal: Eal,
    /// Keeps the device until the end.
    port: Port,
    queue: Option<Queue>,
    /// Pinned memory for the application and the engine.
    pub pool: BufPool,
    /// The pool's hugepages are known to the device; before `port`, which it refers to.
    registered: Option<PoolGuard>,
    stop: Arc<AtomicBool>,
    /// The engine's settings, unless they are the usual ones.
    pub endpoint: Option<EndpointConfig>,
}

impl Session {
    /// Starts DPDK and opens the port. The pool holds at most `memory` bytes.
    ///
    /// # Errors
    /// A profile, a port or memory that cannot be had.
    pub fn open(args: &EngineArgs, memory: u64) -> Result<Self, Failure> {
        // What is written at the end should not fail then for what could be known now.
        for path in args.stats.iter().chain(&args.stages) {
            if let Some(dir) = missing_parent(path) {
                return Err(format!("cannot write {}: there is no directory {}", path.display(), dir.display()).into());
            }
        }
        let profile = PortProfile::load(&args.port, &args.sets)?;
        let eal = Eal::init(&EalConfig::for_profiles(std::slice::from_ref(&profile)))?;
        if let Some(warning) = eal.warning().filter(|_| !args.quiet) {
            eprintln!("warning: {warning}");
        }
        let mut port = Port::open(&eal, &profile)?;
        let queue = port.take_queues().into_iter().next();
        let (pool, stop) = (pool(&profile, memory)?, stop_on_signals()?);
        Ok(Self { args: args.clone(), eal, port, queue, pool, registered: None, stop, endpoint: None })
    }

    /// Two sessions of one process whose ports are connected by rings.
    ///
    /// # Errors
    /// A profile, a port or memory that cannot be had.
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
            Ok(Self { args: args.clone(), eal, port, queue, pool, registered: None, stop, endpoint: None })
        };
        Ok((session(left, one)?, session(right, two)?))
    }

    /// Maps memory for `count` buffers of `len` bytes now rather than on the first packets, and tells the
    /// device of it.
    ///
    /// # Errors
    /// Memory that cannot be had; a device that cannot reach it.
    pub fn prepare(&mut self, len: usize, count: usize) -> Result<(), Failure> {
        self.pool.prepare(len, count)?;
        self.registered = None;
        self.registered = Some(self.port.register_pool(&self.pool)?);
        Ok(())
    }

    /// What the port can do.
    pub fn caps(&self) -> Caps {
        self.port.caps()
    }

    /// Set by SIGINT or SIGTERM; whoever sets it ends the run as well.
    pub fn stop(&self) -> Arc<AtomicBool> {
        self.stop.clone()
    }

    /// A line that tells what is open.
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

    /// Runs `app` on a core until it is done or a signal comes. `ready` is called when the core polls,
    /// `watch` ten times a second while it does: what it says goes to standard error.
    ///
    /// # Errors
    /// Settings that do not fit the port, and ports that stop working.
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
            idle: if self.args.spin { Idle::Spin } else { Idle::Yield },
            link_patience: self.args.link_patience,
        };
        let (args, eal, stop) = (&self.args, &self.eal, &*self.stop);
        let mut live = args.live.then(|| live::View::new(self.describe()));
        let observer = (args.stages.is_some() || args.live)
            .then(|| Observer::new(args.stages.is_some(), live.as_ref().map(live::View::source)));
        let start = SystemTime::now();
        let (app, counters, stages) = std::thread::scope(|scope| {
            let poll = move || -> Driven<A> {
                if let Some(cpu) = args.core {
                    options::pin(cpu)?;
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
            let thread = std::thread::Builder::new().name("gannet-core".into()).spawn_scoped(scope, poll)?;
            while !thread.is_finished() {
                std::thread::park_timeout(Duration::from_millis(100));
                let line = watch();
                match &mut live {
                    Some(view) => view.look(line),
                    None => line.iter().for_each(|line| eprintln!("{line}")),
                }
            }
            thread.join().unwrap_or_else(|_| Err("the core has panicked; this is a bug in Gannet".into()))
        })?;
        if let Some(path) = &self.args.stats {
            counters.write(path)?;
        }
        if let (Some(path), Some(stages)) = (&self.args.stages, stages) {
            stages::keep(path, &stages, start, self.describe(), self.args.quiet)?;
        }
        Ok((app, counters))
    }

    /// Whether a signal asked for the end.
    pub fn interrupted(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// What is left of a core: the application, the counters, and the stage timers if there were any.
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

/// The first SIGINT or SIGTERM asks for an orderly end, the second one ends the process.
fn stop_on_signals() -> Result<Arc<AtomicBool>, Failure> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register_conditional_shutdown(signal, 130, stop.clone())?;
        signal_hook::flag::register(signal, stop.clone())?;
    }
    Ok(stop)
}

/// The directory that a file at `path` would have to be in, if it is not there.
pub fn missing_parent(path: &Path) -> Option<&Path> {
    path.parent().filter(|dir| !dir.as_os_str().is_empty() && !dir.is_dir())
}

/// Prints a line for whoever waits for it at the other end of a pipe.
pub fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    // Nobody reads it any more: nothing to be done about that.
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}
