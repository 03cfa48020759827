//! What runs on the cores of a session: one by itself, or a group.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use gannet::datapath::Datapath;
use gannet::datapath::exchange::{Alone, Exchange};
use gannet::datapath::pcap::Pcap;
use gannet::dpdk::{Eal, Frame, ThreadGuard, mesh};
use gannet::mem::BufPool;
use gannet::net::NetConfig;
use gannet::quic::{EndpointConfig, ServerConfig};
use gannet::runtime::{App, Control, Core, CoreConfig, CoreLive, Crew, Group, Observer, Place, Stages};

use super::orders::Orders;
use super::report::CoreCounters;
use super::{Failure, options};
use crate::args::engine::EngineArgs;

/// One core's application, and how it accepts connections.
pub struct Member<A> {
    /// The application.
    pub app: A,
    /// The configuration of accepted connections; `None` for clients.
    pub server: Option<ServerConfig>,
}

/// What remains of a finished core.
pub struct Left<A> {
    pub app: A,
    pub counters: CoreCounters,
    pub stages: Option<Stages>,
}

/// What all cores share.
pub struct Common<'a> {
    pub args: &'a EngineArgs,
    pub eal: &'a Eal,
    pub cpus: &'a [Option<usize>],
    pub pools: &'a [BufPool],
    pub net: NetConfig,
    pub listen: Option<u16>,
    /// The source ports of each core's connections.
    pub client_ports: Vec<Vec<u16>>,
    /// Where each core publishes its counters, if anyone looks.
    pub sources: Vec<Arc<CoreLive>>,
    pub stop: Arc<AtomicBool>,
    /// What signals ask for.
    pub orders: Orders,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Common<'_> {
    /// Prepares the thread of a core.
    fn enter(&self, core: u8) -> Result<ThreadGuard, Failure> {
        if let Some(cpu) = self.cpus[usize::from(core)] {
            options::pin(cpu)?;
        }
        Ok(self.eal.register_thread()?)
    }

    fn config(&self, core: u8, endpoint: EndpointConfig, server: Option<ServerConfig>) -> CoreConfig {
        CoreConfig {
            net: self.net.clone(),
            endpoint,
            server,
            listen: self.listen,
            client_ports: self.client_ports.get(usize::from(core)).cloned().unwrap_or_default(),
            pool: self.pools[usize::from(core)].clone(),
            idle: self.args.idle.mode(),
            link_patience: self.args.link_patience,
        }
    }

    fn begin<D: Datapath, A: App, X: Exchange<D::Rx>>(&self, number: u8, core: &mut Core<D, A, X>) {
        let (stages, live) = (self.args.stages.is_some(), self.sources.get(usize::from(number)).cloned());
        if stages || live.is_some() {
            core.observe(Observer::new(stages, live));
        }
    }

    fn finish<D: Datapath, A: App, X: Exchange<D::Rx>>(&self, number: u8, core: Core<D, A, X>) -> Left<A> {
        let counters = CoreCounters::of(&core, self.cpus[usize::from(number)]);
        let stages = core.stages().cloned();
        Left { app: core.into_app(), counters, stages }
    }

    /// Captures the packets of a core's queue in the file at `path`. If there are several cores, each has its own file.
    fn captured<D: Datapath>(&self, path: &Path, core: usize, queue: D) -> Result<Pcap<D>, Failure> {
        let path = if self.cpus.len() == 1 { path.to_owned() } else { numbered(path, core) };
        Pcap::create(queue, &path).map_err(|e| format!("cannot write the capture {}: {e}", path.display()).into())
    }

    /// Runs a core by itself. `watch` is called ten times a second on the calling thread.
    ///
    /// # Errors
    /// If settings do not suit the port, or the port stops working.
    pub fn alone<D: Datapath + Send, A: App + Send>(
        &self,
        queues: Vec<D>,
        endpoint: EndpointConfig,
        members: Vec<Member<A>>,
        ready: impl FnOnce() + Send,
        watch: impl FnMut() + Send,
    ) -> Result<Vec<Left<A>>, Failure> {
        if queues.is_empty() {
            return Err("the port has no queue".into());
        }
        self.crew(queues, vec![Alone], endpoint, members, ready, watch)
    }

    /// Runs a group of cores, one for each of `members`. The results are in the order of the cores.
    ///
    /// # Errors
    /// As [`Common::alone`], of the first core that fails.
    pub fn group<D, A>(
        &self,
        queues: Vec<D>,
        node: Option<u16>,
        endpoint: EndpointConfig,
        members: Vec<Member<A>>,
        ready: impl FnOnce() + Send,
        watch: impl FnMut() + Send,
    ) -> Result<Vec<Left<A>>, Failure>
    where
        D: Datapath<Rx: Frame> + Send,
        A: App + Send,
    {
        let ends = mesh(self.eal, self.cpus.len() as u8, node)?;
        self.crew(queues, ends, endpoint, members, ready, watch)
    }

    /// Runs all cores, with their captures if the user wants them.
    fn crew<D, X, A>(
        &self,
        queues: Vec<D>,
        ends: Vec<X>,
        endpoint: EndpointConfig,
        members: Vec<Member<A>>,
        ready: impl FnOnce() + Send,
        watch: impl FnMut() + Send,
    ) -> Result<Vec<Left<A>>, Failure>
    where
        D: Datapath + Send,
        X: Exchange<D::Rx> + Send,
        A: App + Send,
    {
        let Some(path) = &self.args.pcap else {
            return self.run(queues, ends, endpoint, members, ready, watch);
        };
        let captured = queues.into_iter().enumerate().map(|(core, queue)| self.captured(path, core, queue));
        self.run(captured.collect::<Result<_, _>>()?, ends, endpoint, members, ready, watch)
    }

    fn run<D, X, A>(
        &self,
        queues: Vec<D>,
        ends: Vec<X>,
        endpoint: EndpointConfig,
        members: Vec<Member<A>>,
        ready: impl FnOnce() + Send,
        watch: impl FnMut() + Send,
    ) -> Result<Vec<Left<A>>, Failure>
    where
        D: Datapath + Send,
        X: Exchange<D::Rx> + Send,
        A: App + Send,
    {
        let group = Group::new(self.cpus.len() as u8, endpoint).stop_on(self.stop.clone());
        let crew = Fleet {
            common: self,
            control: group.control(),
            members: Mutex::new(members.into_iter().map(Some).collect()),
            ready: Mutex::new(Some(ready)),
            watch: Mutex::new(watch),
        };
        match catch_unwind(AssertUnwindSafe(|| group.run_crew(queues, ends, &crew))) {
            Ok(ran) => ran.map_err(|error| error.cause),
            Err(_) => Err(PANIC.into()),
        }
    }
}

const PANIC: &str = "the core panicked; this is a bug in Gannet";

/// `capture.pcap` for core 2: `capture.2.pcap`.
fn numbered(path: &Path, core: usize) -> PathBuf {
    match path.extension() {
        Some(extension) => path.with_extension(format!("{core}.{}", extension.to_string_lossy())),
        None => path.with_added_extension(core.to_string()),
    }
}

/// A group's members, until each core takes its own.
struct Fleet<'a, A, R, W> {
    common: &'a Common<'a>,
    control: Control,
    members: Mutex<Vec<Option<Member<A>>>>,
    ready: Mutex<Option<R>>,
    watch: Mutex<W>,
}

impl<D, X, A, R, W> Crew<D, X> for Fleet<'_, A, R, W>
where
    D: Datapath,
    X: Exchange<D::Rx>,
    A: App + Send,
    R: FnOnce() + Send,
    W: FnMut() + Send,
{
    type App = A;
    type Guard = ThreadGuard;
    type Yield = Left<A>;

    fn enter(&self, core: u8) -> Result<ThreadGuard, Failure> {
        self.common.enter(core)
    }

    fn make(&self, place: Place) -> Result<(CoreConfig, A), Failure> {
        let Place { core, endpoint, .. } = place;
        let taken = lock(&self.members).get_mut(usize::from(core)).and_then(Option::take);
        let Member { app, server } = taken.ok_or("a core without an application")?;
        Ok((self.common.config(core, endpoint, server), app))
    }

    fn begin(&self, core: &mut Core<D, A, X>) {
        let number = core.number();
        self.common.begin(number, core);
    }

    fn ready(&self) {
        if let Some(ready) = lock(&self.ready).take() {
            ready();
        }
    }

    fn watch(&self) {
        self.common.orders.look(&self.control);
        (lock(&self.watch))();
    }

    fn finish(&self, core: Core<D, A, X>) -> Left<A> {
        let number = core.number();
        self.common.finish(number, core)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_core_has_a_capture_of_its_own() {
        assert_eq!(numbered(Path::new("/tmp/a.b/frames.pcap"), 2), Path::new("/tmp/a.b/frames.2.pcap"));
        assert_eq!(numbered(Path::new("frames"), 0), Path::new("frames.0"));
    }
}
