//! What signals ask of a server while it runs: new certificates, and an end that waits for its clients.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use gannet::quic::tls::TlsOptions;
use gannet::runtime::{Control, SetTlsError};
use signal_hook::SigId;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::SignalsInfo;
use signal_hook::iterator::exfiltrator::WithOrigin;

use super::Failure;
use super::hang_up::HangUps;
use super::tls::{checked_server_tls, listed};
use crate::args::engine::EngineArgs;
use crate::args::tls::IdentityArgs;

/// A server's certificates, whose files SIGHUP reads again.
pub struct Renewal {
    source: Source,
    hang_ups: HangUps,
}

/// Where a server's TLS configuration comes from.
#[derive(Clone)]
struct Source {
    /// The files.
    identity: IdentityArgs,
    /// The server's addresses, among others.
    engine: EngineArgs,
    /// The rest of the TLS configuration.
    options: TlsOptions,
}

impl Renewal {
    /// From now on, SIGHUP asks for a new certificate rather than ending the process.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn new(identity: &IdentityArgs, engine: &EngineArgs, options: TlsOptions) -> Result<Self, Failure> {
        let source = Source { identity: identity.clone(), engine: engine.clone(), options };
        Ok(Self { source, hang_ups: HangUps::new()? })
    }

    /// Reads the files for the first time.
    ///
    /// # Errors
    /// If they cannot be used.
    pub fn tls(&self) -> Result<Arc<rustls::ServerConfig>, Failure> {
        self.source.tls()
    }
}

impl Source {
    fn tls(&self) -> Result<Arc<rustls::ServerConfig>, Failure> {
        checked_server_tls(&self.identity, &self.engine, &self.options)
    }

    /// Reads the files again, and uses them for new connections. If they cannot be used, nothing changes.
    fn renew(&self, control: &Control) {
        match self.identity.files().try_for_each(check_file).and_then(|()| self.tls()) {
            Ok(tls) => match control.set_tls(tls) {
                Ok(()) => {
                    let files = listed(self.identity.files());
                    tracing::info!("read {files}: all cores were told to use them for new connections");
                }
                Err(SetTlsError::Unheard(unheard)) => {
                    tracing::warn!("the certificate was not replaced on all cores: {unheard}; send SIGHUP again");
                }
                Err(error) => tracing::warn!("the certificate was not replaced: {error}"),
            },
            Err(error) => tracing::warn!("the certificate was not replaced: {error}"),
        }
    }
}

/// Checks that `path` is a regular file. Anything else can be read at the start, such as a pipe from a shell, but has
/// nothing more to read later, which would be waited for without end.
fn check_file(path: &Path) -> Result<(), Failure> {
    match path.metadata() {
        Ok(metadata) if metadata.is_file() => Ok(()),
        Ok(_) => Err(format!("{} is not a regular file", path.display()).into()),
        Err(error) => Err(format!("cannot read {}: {error}", path.display()).into()),
    }
}

/// The signals that end the process.
pub struct Signals {
    /// Closes all connections and ends the run.
    pub stop: Arc<AtomicBool>,
    stopping: Vec<SigId>,
}

/// The signals that request the end of a run.
const END: [i32; 2] = [SIGINT, SIGTERM];

impl Signals {
    /// The first SIGINT or SIGTERM requests an orderly shutdown, the second ends the process.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn new() -> Result<Self, Failure> {
        let stop = Arc::new(AtomicBool::new(false));
        let mut stopping = Vec::new();
        for signal in END {
            signal_hook::flag::register_conditional_shutdown(signal, 130, stop.clone())?;
            stopping.push(signal_hook::flag::register(signal, stop.clone())?);
        }
        Ok(Self { stop, stopping })
    }

    /// From now on, the signals only wait to be looked at, until the shutdown has been requested.
    fn redirect(&mut self) -> Result<SignalsInfo<WithOrigin>, Failure> {
        let waiting = SignalsInfo::new(END)?;
        for id in self.stopping.drain(..) {
            signal_hook::low_level::unregister(id);
        }
        Ok(waiting)
    }

    /// The run has ended, and nobody looks at signals any more: the next one ends the process. Returns whether the run's
    /// end was requested.
    pub fn end_of_run(&self) -> bool {
        self.stop.swap(true, Ordering::Relaxed)
    }
}

/// Orders to a server that runs.
#[derive(Default)]
pub struct Orders {
    renewal: Option<Renewal>,
    /// The certificate is to be read, perhaps when the reading that is under way has ended.
    reload: AtomicBool,
    /// A thread is reading the certificate's files.
    reading: Arc<AtomicBool>,
    drain: Option<Mutex<Drain>>,
}

impl Orders {
    /// Takes orders from signals: SIGHUP renews the certificate if there is a `renewal`; if connections have `drain` to
    /// finish, SIGINT and SIGTERM wait for them first.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn from_signals(
        signals: &mut Signals,
        renewal: Option<Renewal>,
        drain: Option<Duration>,
    ) -> Result<Self, Failure> {
        let drain = match drain.filter(|time| !time.is_zero()) {
            Some(time) => Some(Mutex::new(Drain { signals: signals.redirect()?, ending: Ending::new(time) })),
            None => None,
        };
        Ok(Self { renewal, drain, ..Self::default() })
    }

    /// Carries out what signals have asked for since the last call. Does not wait for files.
    pub fn look(&self, control: &Control) {
        let asked = self.renewal.as_ref().map(|renewal| renewal.hang_ups.look()).unwrap_or_default();
        match &self.drain {
            Some(drain) => drain.lock().unwrap_or_else(PoisonError::into_inner).look(control, asked.hung_up),
            None if asked.hung_up => control.stop(),
            None => {}
        }
        self.reload.fetch_or(asked.reload, Ordering::Relaxed);
        if let Some(renewal) = &self.renewal
            && self.reload.load(Ordering::Relaxed)
            && let Some(reading) = Reading::begin(&self.reading)
        {
            self.reload.store(false, Ordering::Relaxed);
            read(&renewal.source, control, reading);
        }
    }
}

/// Reads the certificate again, on a thread of its own.
fn read(source: &Source, control: &Control, reading: Reading) {
    let (source, control) = (source.clone(), control.clone());
    let read = move || {
        let _reading = reading;
        source.renew(&control);
    };
    if let Err(error) = std::thread::Builder::new().name("gannet-reload".into()).spawn(read) {
        tracing::warn!("the certificate was not replaced: {error}");
    }
}

/// The certificate is being read, until this is dropped: by a panic, too.
struct Reading(Arc<AtomicBool>);

impl Reading {
    /// `None` if it is being read already.
    fn begin(flag: &Arc<AtomicBool>) -> Option<Self> {
        (!flag.swap(true, Ordering::Acquire)).then(|| Self(flag.clone()))
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!("the certificate was not replaced: reading it panicked, which is a bug in Gannet");
        }
        self.0.store(false, Ordering::Release);
    }
}

/// An end that waits for connections.
struct Drain {
    /// SIGINT and SIGTERM. Up to five of each wait to be looked at.
    signals: SignalsInfo<WithOrigin>,
    ending: Ending,
}

impl Drain {
    /// A terminal that has `hung_up` is like the first signal.
    fn look(&mut self, control: &Control, hung_up: bool) {
        let signals = self.signals.pending().count();
        let ending = &mut self.ending;
        match ending.step(signals, hung_up, Instant::now()) {
            Step::Wait => {}
            Step::Begin => {
                let time = ending.time;
                tracing::info!(
                    "draining: new clients are refused, and connections have {time:?} to finish; another signal closes \
                     them"
                );
            }
            Step::Stop => return control.stop(),
        }
        if ending.since.is_some() && !ending.told {
            match control.drain() {
                Ok(()) => ending.told = true,
                // Until they do, every look tells them again.
                Err(unheard) if !std::mem::replace(&mut ending.reported, true) => {
                    tracing::warn!("some cores still accept clients: {unheard}");
                }
                Err(_) => {}
            }
        }
    }
}

/// How far a server is with its end.
struct Ending {
    /// How long connections may take.
    time: Duration,
    /// When the draining began.
    since: Option<Instant>,
    /// All cores have been told.
    told: bool,
    /// That some cores cannot be told has been reported.
    reported: bool,
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Wait,
    /// Begin to drain.
    Begin,
    /// Close all connections.
    Stop,
}

impl Ending {
    fn new(time: Duration) -> Self {
        Self { time, since: None, told: false, reported: false }
    }

    /// `signals` have arrived since the last step. However often a terminal hangs up, it does not count as the second.
    fn step(&mut self, signals: usize, hung_up: bool, now: Instant) -> Step {
        match self.since {
            None if signals == 0 && !hung_up => Step::Wait,
            None if signals < 2 => {
                self.since = Some(now);
                Step::Begin
            }
            Some(since) if signals == 0 && now.saturating_duration_since(since) < self.time => Step::Wait,
            _ => Step::Stop,
        }
    }
}

#[cfg(test)]
mod tests;
