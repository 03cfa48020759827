//! Several cores that serve together: their threads, how they end, and a watchdog.

mod gate;
mod watchdog;

use std::any::Any;
use std::error::Error;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{Builder, ScopedJoinHandle, Thread};

use thiserror::Error;

use crate::base::time::Duration;
use crate::datapath::Datapath;
use crate::datapath::exchange::Exchange;
use crate::quic::{ConfigError, EndpointConfig, ServerConfig};
use crate::runtime::notes::{Members, Note, Unheard, mailboxes_of};
use crate::runtime::{App, Core, CoreConfig, Notes, Seat};
use gate::Gate;
use watchdog::{Sign, Watchdog, When};

/// The reason why a core cannot work.
pub type Failure = Box<dyn Error + Send + Sync>;

/// How long a turn may take before it is reported, by default.
const PATIENCE: Duration = Duration::from_millis(250);

/// How often [`Crew::watch`] is called.
const WATCH: Duration = Duration::from_millis(100);

/// Why a group ended: the first error of one of its cores, after which the others were stopped.
#[derive(Debug, Error)]
#[error("core {core}: {cause}")]
pub struct GroupError {
    /// The core.
    pub core: u8,
    /// What went wrong on it.
    #[source]
    pub cause: Failure,
}

/// What is wrong with a group as a whole.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Misfit {
    /// Each core needs one queue and one end of the exchange.
    #[error("{cores} cores need as many queues and ends of their exchange, not {queues} and {ends}")]
    Counts {
        /// Cores.
        cores: usize,
        /// Queue pairs.
        queues: usize,
        /// Ends of the exchange.
        ends: usize,
    },
    /// The settings of a core's engine do not come from [`Place::endpoint`].
    #[error(
        "the settings of its engine are not those of its place: use Place::endpoint, which has the group's secrets"
    )]
    Stranger,
}

/// Why TLS settings are not used, or not by all cores ([`Control::set_tls`]).
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SetTlsError {
    /// No connection can be accepted with them. Nothing has changed.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Some cores keep their settings; the others use the new ones.
    #[error(transparent)]
    Unheard(#[from] Unheard),
}

/// The core that an application is to run on.
#[derive(Clone, Debug)]
pub struct Place {
    /// The number of the core, from 0.
    pub core: u8,
    /// The number of cores.
    pub cores: u8,
    /// The settings of this core's engine: the group's secrets, and a part of its limits.
    pub endpoint: EndpointConfig,
}

/// What runs on the cores of a group. Every method is called on the thread of its core unless it says otherwise.
pub trait Crew<D: Datapath, X: Exchange<D::Rx>>: Sync {
    /// The application of a core.
    type App: App;
    /// What [`Crew::enter`] has set up for a core's thread; dropped after everything else of the core.
    type Guard;
    /// What remains of a core after it has ended.
    type Yield: Send;

    /// Prepares the thread of a core: pins it to a CPU, for example.
    ///
    /// # Errors
    /// The reason why the core cannot work.
    fn enter(&self, core: u8) -> Result<Self::Guard, Failure>;

    /// Creates the configuration and the application of a core. The engine's settings must come from `place`. The
    /// network layer's settings are totals for the whole group: each core gets its part ([`NetConfig::for_core`]).
    ///
    /// [`NetConfig::for_core`]: crate::net::NetConfig::for_core
    ///
    /// # Errors
    /// The reason why the core cannot work.
    fn make(&self, place: Place) -> Result<(CoreConfig, Self::App), Failure>;

    /// Called when a core is complete and before it polls, for example to observe it.
    fn begin(&self, core: &mut Core<D, Self::App, X>) {
        let _ = core;
    }

    /// Called once when all cores are complete, on the thread of one of them.
    fn ready(&self) {}

    /// Called about ten times a second, on the thread that called [`Group::run`].
    fn watch(&self) {}

    /// Takes apart a core that has ended, with or without an error. Not called after a panic.
    fn finish(&self, core: Core<D, Self::App, X>) -> Self::Yield;
}

/// A group of cores, each with a queue pair, an engine and an application of its own, in one process.
#[derive(Debug)]
pub struct Group {
    endpoint: EndpointConfig,
    cores: u8,
    stop: Arc<AtomicBool>,
    patience: Duration,
    members: Arc<Members>,
}

/// Controls a running group from any thread.
#[derive(Clone, Debug)]
pub struct Control {
    stop: Arc<AtomicBool>,
    members: Arc<Members>,
}

impl Control {
    /// Closes all connections and ends all cores.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
        self.members.wake_all();
    }

    /// Stops accepting connections: new clients are refused. The group ends when the last existing connection has
    /// ended.
    ///
    /// # Errors
    /// [`Unheard`] names the cores that still accept connections. The call can be repeated.
    pub fn drain(&self) -> Result<(), Unheard> {
        self.members.tell_all(&Note::Drain)
    }

    /// Uses other TLS settings, such as a new certificate, for all connections accepted from now on. Existing
    /// connections keep theirs. Each core begins with its next turn. Cores that accept no connections ignore this.
    ///
    /// # Errors
    /// [`SetTlsError`] if connections could not be accepted with them, or if some cores could not be told.
    pub fn set_tls(&self, tls: Arc<rustls::ServerConfig>) -> Result<(), SetTlsError> {
        let checked = ServerConfig::new(tls, crate::quic::TransportConfig::default())?;
        Ok(self.members.tell_all(&Note::Tls(checked.tls().clone()))?)
    }
}

impl Group {
    /// A group of `cores` cores. Their engines have the secrets of `endpoint`, and share its limits
    /// ([`EndpointConfig::for_core`]).
    ///
    /// # Panics
    /// If `cores` is 0.
    pub fn new(cores: u8, endpoint: EndpointConfig) -> Self {
        assert!(cores > 0, "a group has at least one core");
        let seed = u64::from_le_bytes(*endpoint.seed.first_chunk().expect("32 bytes"));
        Self { cores, stop: Arc::default(), patience: PATIENCE, members: Members::new(cores, seed), endpoint }
    }

    /// Also ends the group when `stop` is set: by a signal handler, for example, or with the flag of
    /// [`HandleApp::stop`](crate::api::HandleApp::stop).
    #[must_use]
    pub fn stop_on(mut self, stop: Arc<AtomicBool>) -> Self {
        self.stop = stop;
        self
    }

    /// Sets how long a turn of a core may take before a warning names the core. The default is 250 ms.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Returns a control for the group while it runs.
    pub fn control(&self) -> Control {
        Control { stop: self.stop.clone(), members: self.members.clone() }
    }

    /// Runs the applications that `make` creates, one on each core, until all are done or the group is stopped. Returns
    /// the applications in the order of the cores. [`Group::run_crew`] describes the rest; a [`Crew`] also lets a
    /// program prepare threads and read counters.
    ///
    /// # Errors
    /// As [`Group::run_crew`].
    ///
    /// # Panics
    /// As [`Group::run_crew`].
    pub fn run<D, X, A>(
        self,
        queues: Vec<D>,
        mesh: Vec<X>,
        make: impl Fn(Place) -> Result<(CoreConfig, A), Failure> + Sync,
    ) -> Result<Vec<A>, GroupError>
    where
        D: Datapath + Send,
        X: Exchange<D::Rx> + Send,
        A: App + Send,
    {
        self.run_crew(queues, mesh, &Makers { enter: |_| Ok(()), make })
    }

    /// Runs `crew` on every core, each with a thread, a queue and an end of the exchange of its own, until all
    /// applications are done. A core that is done keeps polling until all are, as packets for others may reach it.
    /// Returns the results of [`Crew::finish`], in the order of the cores.
    ///
    /// If a turn takes too long because an application does not return, a warning names its core. The other cores are
    /// not held up.
    ///
    /// # Errors
    /// The first error of a core. It stops the other cores, which close their connections.
    ///
    /// # Panics
    /// Resumes the panic of an application once all cores have ended and all peers have been notified. The connections
    /// of that application's core are closed with INTERNAL_ERROR.
    pub fn run_crew<D, X, C>(self, queues: Vec<D>, mesh: Vec<X>, crew: &C) -> Result<Vec<C::Yield>, GroupError>
    where
        D: Datapath + Send,
        X: Exchange<D::Rx> + Send,
        C: Crew<D, X>,
    {
        let (cores, queue_count, ends) = (usize::from(self.cores), queues.len(), mesh.len());
        if queue_count != cores || ends != cores {
            let cause = Misfit::Counts { cores, queues: queue_count, ends }.into();
            return Err(GroupError { core: 0, cause });
        }
        let run =
            Run { group: &self, gate: Gate::new(self.cores), failed: OnceLock::new(), caller: std::thread::current() };
        let mut results = std::thread::scope(|scope| {
            let mut threads = Vec::new();
            for (core, ((queue, exchange), notes)) in
                (0..).zip(queues.into_iter().zip(mesh).zip(mailboxes_of(&self.members)))
            {
                let run = &run;
                let thread = Builder::new().name(format!("gannet-core-{core}"));
                let body = move || run.core(core, queue, exchange, notes, crew);
                match thread.spawn_scoped(scope, body) {
                    Ok(thread) => threads.push(thread),
                    Err(error) => {
                        run.fail(core);
                        threads.push(scope.spawn(move || Err(error.into())));
                    }
                }
            }
            let alarm = Alarm(&run);
            run.watch(&threads, || crew.watch());
            drop(alarm);
            threads.into_iter().map(ScopedJoinHandle::join).collect::<Vec<_>>()
        });
        if let Some(panic) = results.iter_mut().find_map(take_panic) {
            resume_unwind(panic);
        }
        let first = run.failed.get().copied();
        let (mut yields, mut failure) = (Vec::new(), None);
        for (core, result) in (0..).zip(results.into_iter().flatten()) {
            match result {
                Ok(left) => yields.push(left),
                Err(cause) if first == Some(core) || failure.is_none() => failure = Some(GroupError { core, cause }),
                Err(_) => {}
            }
        }
        failure.map_or(Ok(yields), Err)
    }
}

/// Takes a thread's panic out of its result.
fn take_panic<T>(result: &mut std::thread::Result<T>) -> Option<Box<dyn Any + Send>> {
    result.as_mut().err().map(|panic| std::mem::replace(panic, Box::new(())))
}

/// A crew of applications that need no more than a prepared thread.
pub(crate) struct Makers<E, M> {
    /// [`Crew::enter`].
    pub(crate) enter: E,
    /// [`Crew::make`].
    pub(crate) make: M,
}

impl<D, X, A, G, E, M> Crew<D, X> for Makers<E, M>
where
    D: Datapath,
    X: Exchange<D::Rx>,
    A: App + Send,
    E: Fn(u8) -> Result<G, Failure> + Sync,
    M: Fn(Place) -> Result<(CoreConfig, A), Failure> + Sync,
{
    type App = A;
    type Guard = G;
    type Yield = A;

    fn enter(&self, core: u8) -> Result<G, Failure> {
        (self.enter)(core)
    }

    fn make(&self, place: Place) -> Result<(CoreConfig, A), Failure> {
        (self.make)(place)
    }

    fn finish(&self, core: Core<D, A, X>) -> A {
        core.into_app()
    }
}

/// A running group.
struct Run<'a> {
    group: &'a Group,
    /// Lets cores poll when all are complete.
    gate: Gate,
    /// The first core that failed.
    failed: OnceLock<u8>,
    caller: Thread,
}

impl Run<'_> {
    /// Everything that runs on the thread of a core.
    fn core<D, X, C>(&self, core: u8, queue: D, exchange: X, notes: Notes, crew: &C) -> Result<C::Yield, Failure>
    where
        D: Datapath,
        X: Exchange<D::Rx>,
        C: Crew<D, X>,
    {
        let mut end = End { run: self, core, well: false };
        let cores = self.group.cores;
        let base = &self.group.endpoint;
        let _guard = crew.enter(core)?;
        let (mut config, app) = crew.make(Place { core, cores, endpoint: base.for_core(core, cores) })?;
        if !config.endpoint.has_secrets_of(base) || config.endpoint.core != core {
            return Err(Misfit::Stranger.into());
        }
        if config.net.cores != cores {
            config.net = config.net.for_core(core, cores);
        }
        let seat = Seat { core, cores, exchange, notes: Some(notes) };
        let mut member = Core::in_group(queue, config, app, seat)?;
        crew.begin(&mut member);
        if self.gate.pass(|| self.group.stop.load(Ordering::Relaxed)) {
            crew.ready();
        }
        let ran = member.run(&self.group.stop);
        self.group.members.rests(core);
        if ran.is_err() {
            self.fail(core);
        }
        let left = crew.finish(member);
        ran?;
        end.well = true;
        Ok(left)
    }

    /// Records that a core cannot work, and ends the others.
    fn fail(&self, core: u8) {
        let _ = self.failed.set(core);
        self.stop();
    }

    fn stop(&self) {
        self.group.stop.store(true, Ordering::Relaxed);
        self.gate.open();
        self.group.members.wake_all();
    }

    /// Watches over the cores until all have ended.
    fn watch<T>(&self, threads: &[ScopedJoinHandle<'_, T>], mut each: impl FnMut()) {
        let mut watchdog = Watchdog::new(self.group.cores, self.group.patience);
        let step = (self.group.patience / 4).clamp(Duration::from_millis(1), WATCH);
        let mut last = std::time::Instant::now();
        let (mut now, mut watched) = (When::default(), Duration::ZERO);
        while threads.iter().any(|thread| !thread.is_finished()) {
            std::thread::park_timeout(step);
            let passed = std::mem::replace(&mut last, std::time::Instant::now()).elapsed();
            // While the whole process is stopped, no core is held up.
            now.watched += passed.min(2 * step);
            now.real += passed;
            let ended = |core: usize| threads.get(core).is_none_or(ScopedJoinHandle::is_finished);
            for (core, beat) in self.group.members.beats().enumerate() {
                match watchdog.look(now, core, beat, ended(core)) {
                    None => {}
                    Some(Sign::Stalls(time)) => tracing::warn!(
                        core,
                        ?time,
                        "a core does not finish its turn: its application has not returned, or the system does not let it run"
                    ),
                    Some(Sign::GoesOn(time)) => tracing::info!(core, ?time, "a core that was held up goes on"),
                }
            }
            if now.watched >= watched + WATCH {
                watched = now.watched;
                each();
            }
        }
    }
}

/// Stops the cores if the thread that waits for them panics: it goes on only when they have ended.
struct Alarm<'a>(&'a Run<'a>);

impl Drop for Alarm<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.stop();
        }
    }
}

/// Acts when a core's thread ends, even by a panic.
struct End<'a> {
    run: &'a Run<'a>,
    core: u8,
    well: bool,
}

impl Drop for End<'_> {
    fn drop(&mut self) {
        // After a panic as well: core 0 may be waiting for it.
        self.run.group.members.rests(self.core);
        if !self.well {
            self.run.fail(self.core);
        }
        self.run.caller.unpark();
    }
}

#[cfg(test)]
mod tests;
