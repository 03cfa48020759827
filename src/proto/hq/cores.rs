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
    /// Creates the clients of `cores` cores, which share the files in turn, the memory of [`HqClientConfig::hold`], the
    /// threads that write files, and `progress`. Each opens a connection of its own. `None` for a core without files:
    /// there are fewer files than cores.
    ///
    /// # Errors
    /// As [`HqClient::new`].
    pub fn for_cores(config: &HqClientConfig, progress: &Arc<Progress>, cores: u8) -> io::Result<Vec<Option<Self>>> {
        let step = config.jobs.len().min(cores.into());
        let files = Self::file_threads(step, None)?;
        let client = |(first, files)| {
            let share = Share { first, step, only: config.jobs.len() == 1 };
            let jobs = config.jobs.iter().skip(first).step_by(step).cloned().collect();
            let config = HqClientConfig { jobs, hold: config.hold / step as u64, ..config.clone() };
            Some(Self::with(config, share, progress.clone(), files))
        };
        let busy = files.into_iter().enumerate().take(step).map(client);
        Ok(busy.chain(std::iter::repeat_with(|| None)).take(cores.into()).collect())
    }

    /// [Finishes](Self::finish) the clients of all cores, and gathers their results.
    pub fn gather(clients: impl IntoIterator<Item = Self>) -> Outcomes {
        let (mut all, mut errors) = (Outcomes::default(), Vec::new());
        let mut clients: Vec<Self> = clients.into_iter().collect();
        clients.iter_mut().for_each(Self::finish);
        for client in &mut clients {
            all.handshake = all.handshake.max(client.handshake);
            all.fetched.append(&mut client.fetched);
            errors.extend(client.order.drain(..).zip(client.errors.drain(..)));
        }
        all.fetched.sort_by_key(|fetched| fetched.job);
        errors.sort_by_key(|(at, _)| *at);
        let mut told = HashSet::new();
        all.errors = errors.into_iter().map(|(_, error)| error).filter(|e| told.insert(e.to_string())).collect();
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::hq::tests::client_config;
    use crate::proto::hq::{Destination, Job};

    fn config(files: usize, hold: u64) -> HqClientConfig {
        HqClientConfig {
            remote: ([10, 9, 0, 1], 4433).into(),
            server_name: "hq.test".into(),
            client: client_config(),
            jobs: (0..files).map(|n| Job { path: format!("/{n}"), output: Destination::Nowhere }).collect(),
            migrate_every: None,
            hash: false,
            hold,
            resume: false,
        }
    }

    #[test]
    fn files_are_dealt_out_and_results_gathered_in_their_order() {
        let progress = Arc::default();
        let clients = HqClient::for_cores(&config(5, 300), &progress, 3).unwrap();
        let mut clients: Vec<HqClient> = clients.into_iter().flatten().collect();
        let paths = |client: &HqClient| client.jobs().iter().map(|job| job.path.clone()).collect::<Vec<_>>();
        assert_eq!(clients.iter().map(paths).collect::<Vec<_>>(), [vec!["/0", "/3"], vec!["/1", "/4"], vec!["/2"]]);
        assert!(clients.iter().all(|client| client.hold() == 100));
        // The last core arrives first, and the connections of two end for the same reason.
        for (core, job, path) in [(2, 2, "/2"), (0, 3, "/3"), (0, 0, "/0")] {
            let (path, output) = (path.to_owned(), Destination::Nowhere);
            clients[core].fetched.push(Fetched { job, path, output, bytes: 1, time: Duration::ZERO, sha256: None });
        }
        for (core, path) in [(1, "/4"), (0, "/0"), (1, "gone"), (2, "gone")] {
            clients[core].fail(FetchError::Refused { path: path.to_owned(), code: 404 });
        }
        clients[0].handshake = Some(Duration::from_millis(3));
        clients[2].handshake = Some(Duration::from_millis(2));
        let all = HqClient::gather(clients);
        assert_eq!(all.fetched.iter().map(|fetched| fetched.job).collect::<Vec<_>>(), [0, 2, 3]);
        let first: Vec<String> = all.errors.iter().take(3).map(ToString::to_string).collect();
        let told = |path: &str| FetchError::Refused { path: path.to_owned(), code: 404 }.to_string();
        assert_eq!(first, ["/4", "/0", "gone"].map(told));
        // No file was really fetched, so each is reported as missing as well.
        assert_eq!(all.errors.len(), 3 + 5);
        assert_eq!(all.handshake, Some(Duration::from_millis(3)));
    }

    #[test]
    fn cores_without_files_have_no_client() {
        for (files, cores) in [(2, 4), (4, 4), (1, 64)] {
            let clients = HqClient::for_cores(&config(files, 0), &Arc::default(), cores).unwrap();
            let busy: Vec<bool> = clients.iter().map(Option::is_some).collect();
            assert_eq!(busy, (0..usize::from(cores)).map(|core| core < files).collect::<Vec<_>>());
        }
    }
}
