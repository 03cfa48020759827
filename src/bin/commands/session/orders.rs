//! What signals ask of a server while it runs: new certificates, and an end that waits for its clients.

use std::fs::File;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use gannet::quic::tls::TlsOptions;
use gannet::runtime::Control;
use signal_hook::SigId;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::{Failure, checked_server_tls};
use crate::args::engine::{EngineArgs, IdentityArgs};

/// The files of a server's certificate, which SIGHUP reads again.
#[derive(Clone)]
pub struct Renewal {
    /// The files.
    pub identity: IdentityArgs,
    /// The server's addresses, among others.
    pub engine: EngineArgs,
    /// The rest of the TLS configuration.
    pub options: TlsOptions,
}

impl Renewal {
    /// Reads the files, and uses them for new connections. If they cannot be used, nothing changes.
    fn renew(&self, control: &Control) {
        let files: Vec<String> =
            [&self.identity.cert, &self.identity.key].map(|path: &PathBuf| path.display().to_string()).into();
        let used = checked_server_tls(&self.identity, &self.engine, &self.options)
            .and_then(|tls| control.set_tls(tls).map_err(Failure::from));
        match used {
            Ok(()) => tracing::info!("new connections use the certificate that {} contain now", files.join(" and ")),
            Err(error) => tracing::warn!("the certificate was not replaced: {error}"),
        }
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

    /// From now on, the signals set only the returned flag, until the shutdown has been requested.
    fn redirect(&mut self) -> Result<Arc<AtomicBool>, Failure> {
        let asked = Arc::new(AtomicBool::new(false));
        for signal in END {
            signal_hook::flag::register(signal, asked.clone())?;
        }
        for id in self.stopping.drain(..) {
            signal_hook::low_level::unregister(id);
        }
        Ok(asked)
    }
}

/// Orders to a server that runs.
#[derive(Default)]
pub struct Orders {
    renewal: Option<Renewal>,
    reload: Arc<AtomicBool>,
    /// A thread is reading the certificate's files.
    reading: Arc<AtomicBool>,
    /// Whether the process was started from a terminal.
    has_terminal: bool,
    drain: Option<Drain>,
}

/// How a server ends.
struct Drain {
    /// How long connections may take.
    time: Duration,
    /// A signal has arrived since the last look.
    asked: Arc<AtomicBool>,
    /// When the draining began.
    since: Mutex<Option<Instant>>,
}

/// The terminal that the process was started from. It can no longer be opened when it has gone.
fn has_terminal() -> bool {
    File::open("/dev/tty").is_ok()
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
        let mut orders = Self { has_terminal: has_terminal(), ..Self::default() };
        if renewal.is_some() {
            signal_hook::flag::register(SIGHUP, orders.reload.clone())?;
            orders.renewal = renewal;
        }
        if let Some(time) = drain.filter(|time| !time.is_zero()) {
            orders.drain = Some(Drain { time, asked: signals.redirect()?, since: Mutex::default() });
        }
        Ok(orders)
    }

    /// Carries out what signals have asked for since the last call. Does not wait for files.
    pub fn look(&self, control: &Control) {
        if let Some(renewal) = &self.renewal
            && !self.reading.load(Ordering::Acquire)
            && self.reload.swap(false, Ordering::Relaxed)
        {
            self.hang_up(renewal, control);
        }
        if let Some(drain) = &self.drain {
            drain.look(control);
        }
    }

    /// SIGHUP has arrived: from the operator, or because the terminal was closed. That ends the process, as usual.
    fn hang_up(&self, renewal: &Renewal, control: &Control) {
        if self.has_terminal && !has_terminal() {
            return control.stop();
        }
        let (renewal, control, reading) = (renewal.clone(), control.clone(), self.reading.clone());
        self.reading.store(true, Ordering::Relaxed);
        let read = move || {
            renewal.renew(&control);
            reading.store(false, Ordering::Release);
        };
        if let Err(error) = std::thread::Builder::new().name("gannet-reload".into()).spawn(read) {
            self.reading.store(false, Ordering::Relaxed);
            tracing::warn!("the certificate was not replaced: {error}");
        }
    }
}

impl Drain {
    fn look(&self, control: &Control) {
        let mut since = self.since.lock().unwrap_or_else(PoisonError::into_inner);
        match (self.asked.swap(false, Ordering::Relaxed), *since) {
            (true, None) => {
                let time = self.time;
                tracing::info!(
                    "draining: new clients are refused, and connections have {time:?} to finish; another signal closes \
                     them"
                );
                *since = Some(Instant::now());
                control.drain();
            }
            (true, Some(_)) => control.stop(),
            (false, Some(since)) if since.elapsed() >= self.time => control.stop(),
            (false, _) => {}
        }
    }
}
