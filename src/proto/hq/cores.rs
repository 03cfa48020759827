//! The clients of several cores.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;

use super::client::{HqClient, Share};
use super::{FetchError, Fetched, HqClientConfig, Progress};
use crate::base::time::Duration;

/// The results of the clients of all cores.
#[derive(Debug, Default)]
pub struct Outcomes {
    /// The fetched files, in the order of their jobs.
    pub fetched: Vec<Fetched>,
    /// Errors, the first to occur first. Where several connections failed for the same reason, it is there once.
    pub errors: Vec<FetchError>,
    /// The longest handshake, from the first packet to its end.
    pub handshake: Option<Duration>,
}

impl HqClient {
    /// Creates the clients of `cores` cores, which share the files in turn, the memory of [`HqClientConfig::hold`] and
    /// `progress`. Each opens a connection of its own. `None` for a core without files: there are fewer files than cores.
    ///
    /// # Errors
    /// As [`HqClient::new`].
    pub fn for_cores(config: &HqClientConfig, progress: &Arc<Progress>, cores: u8) -> io::Result<Vec<Option<Self>>> {
        let step = config.jobs.len().min(cores.into());
        let client = |first: usize| {
            let share = Share { first, step, only: config.jobs.len() == 1 };
            let jobs = config.jobs.iter().skip(first).step_by(step.max(1)).cloned().collect();
            let config = HqClientConfig { jobs, hold: config.hold / step.max(1) as u64, ..config.clone() };
            Self::with(config, share, progress.clone(), None)
        };
        (0..usize::from(cores)).map(|core| (core < step).then(|| client(core)).transpose()).collect()
    }

    /// [Finishes](Self::finish) the clients of all cores, and gathers their results.
    pub fn gather(clients: impl IntoIterator<Item = Self>) -> Outcomes {
        let (mut all, mut errors) = (Outcomes::default(), Vec::new());
        let mut clients: Vec<Self> = clients.into_iter().collect();
        clients.iter_mut().for_each(Self::finish);
        for client in clients.iter_mut() {
            all.handshake = all.handshake.max(client.handshake);
            all.fetched.append(&mut client.fetched);
            errors.extend(client.order.drain(..).zip(client.errors.drain(..)));
        }
        // Threads that hang are waited for at the same time.
        std::thread::scope(|scope| clients.into_iter().for_each(|client| drop(scope.spawn(move || drop(client)))));
        all.fetched.sort_by_key(|fetched| fetched.job);
        errors.sort_by_key(|(at, _)| *at);
        let mut told = HashSet::new();
        all.errors = errors.into_iter().map(|(_, error)| error).filter(|e| told.insert(e.to_string())).collect();
        all
    }
}
