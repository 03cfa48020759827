//! `gannet get`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use gannet::proto::hq::{self, Destination, Fetched, HqClient, HqClientConfig, Job, Outcomes, Progress};
use gannet::quic::ClientConfig;

use super::memory::{Wish, working_memory_and};
use super::session::{
    Counters, Failure, Member, Role, Session, Usage, client_tls, idle_cores, missing_parent, resolve, resuming,
    tls_options,
};
use crate::args::{GetArgs, target::Url};
use crate::output::{say, stdout_is_taken};
use crate::terminal::ProgressLine;

/// Memory for files in transit, in addition to what --hold keeps, in bytes.
const WORKING_MEMORY: u64 = 512 << 20;

/// Number of source ports of a core whose connection moves.
const MIGRATION_PORTS: u16 = 16;

/// Fetches the files.
pub fn run(args: &GetArgs) -> Result<(), Failure> {
    let plan = Plan::new(args)?;
    if args.to_stdout() {
        stdout_is_taken();
    }
    let cores = args.cores.of(&args.engine).count();
    let wish = Wish { flag: "--hold", bytes: args.hold };
    let both = "--memory together with --hold";
    let memory = working_memory_and(&wish, both, &args.engine, cores, WORKING_MEMORY)?;
    // Each core gets an equal part of the memory, but only those that have files use theirs for --hold.
    let busy = plan.busy(cores) as u64;
    let memory = if args.hold == 0 { memory } else { memory.saturating_mul(cores.into()).div_ceil(busy) };
    run_on(args, plan, Session::open(&args.engine, &args.cores, 0, memory)?)
}

/// The results of the checks that need no port.
pub struct Plan {
    jobs: Vec<Job>,
    remote: SocketAddr,
    server_name: String,
    tls: Arc<rustls::ClientConfig>,
}

impl Plan {
    /// Checks `args` and makes the plan.
    pub fn new(args: &GetArgs) -> Result<Self, Failure> {
        let authority = &args.urls.first().ok_or("no URL")?.authority;
        Ok(Self {
            jobs: jobs(args)?,
            remote: resolve(authority, &args.engine)?,
            server_name: args.server_name.clone().unwrap_or_else(|| authority.host.clone()),
            tls: client_tls(&args.trust, &args.identity, &tls_options(&args.engine, hq::ALPN)?)?,
        })
    }

    /// How many of `cores` cores have files to fetch.
    fn busy(&self, cores: u8) -> usize {
        self.jobs.len().clamp(1, cores.into())
    }
}

/// Fetches the files over a port that is already open.
pub fn run_on(args: &GetArgs, plan: Plan, mut session: Session) -> Result<(), Failure> {
    let (cores, busy) = (session.cores(), plan.busy(session.cores()));
    if let Some(line) = idle_cores(cores.into(), busy, "files") {
        tracing::warn!("{line}");
    }
    let Plan { jobs, remote, server_name, tls } = plan;
    let (buf, count) = hq::receive_buffers(args.hold / busy as u64);
    session.prepare(busy, buf, count)?;
    let mut config = session.client_transport();
    HqClient::adapt(&mut config);
    let progress = Arc::new(Progress::default());
    let client = HqClientConfig {
        remote,
        server_name,
        client: resuming(ClientConfig::new(tls, config)?, &args.resume),
        migrate_every: args.migrate_every,
        jobs,
        hash: args.sha256,
        hold: args.hold,
        resume: args.resume.is_wanted(),
    };
    let clients = HqClient::for_cores(&client, &progress, cores)?;
    let members = clients.into_iter().map(|app| Member { app, server: None }).collect();
    let mut bar = ProgressLine::new(args.engine.log.quiet || args.engine.live);
    let watch = || {
        bar.set_position(progress.bytes.load(Ordering::Relaxed));
        None
    };
    let (clients, counters) = session.run(
        members,
        Role::Client { remote, flows: if args.migrate_every.is_some() { MIGRATION_PORTS } else { 1 } },
        || {},
        watch,
    )?;
    bar.finish_and_clear();
    let outcomes = HqClient::gather(clients.into_iter().flatten());
    print(&outcomes, &counters, args);
    let interrupted = session.interrupted().then(|| "interrupted".to_owned());
    let errors: Vec<String> = interrupted.into_iter().chain(outcomes.errors.iter().map(ToString::to_string)).collect();
    if errors.is_empty() { Ok(()) } else { Err(errors.join("\ngannet: ").into()) }
}

/// The output of each URL.
fn jobs(args: &GetArgs) -> Result<Vec<Job>, Failure> {
    let (urls, output) = (&args.urls, args.output.as_deref());
    if args.to_stdout() {
        return Ok(urls.iter().map(|url| Job { path: url.path.clone(), output: Destination::Stdout }).collect());
    }
    let in_dir = |dir: &Path, url: &Url| dir.join(url.file_name());
    let is_dir = |path: &Path| path.is_dir() || path.as_os_str().as_encoded_bytes().ends_with(b"/");
    let place = |url: &Url| -> Result<PathBuf, Failure> {
        match output {
            None => Ok(in_dir(Path::new("."), url)),
            Some(dir) if is_dir(dir) => {
                if dir.is_dir() {
                    Ok(in_dir(dir, url))
                } else {
                    Err(format!("no such directory: {}", dir.display()).into())
                }
            }
            Some(dir) if urls.len() > 1 => {
                let dir = dir.display();
                Err(Usage(format!("several files cannot all be written to {dir}: give a directory with -o")).into())
            }
            Some(file) => match missing_parent(file) {
                Some(dir) => Err(format!("no such directory: {}", dir.display()).into()),
                None => Ok(file.to_owned()),
            },
        }
    };
    urls.iter().map(|url| Ok(Job { path: url.path.clone(), output: Destination::File(place(url)?) })).collect()
}

fn print(outcomes: &Outcomes, counters: &Counters, args: &GetArgs) {
    let several = args.urls.len() > 1;
    for Fetched { path, output, bytes, time, sha256, .. } in &outcomes.fetched {
        if several {
            say(&format!("file: {path}"));
        }
        if let Destination::File(output) = output {
            say(&format!("output: {}", output.display()));
        }
        if let Some(sha256) = sha256 {
            say(&format!("sha256: {sha256}"));
        }
        let seconds = time.as_secs_f64();
        say(&format!("bytes: {bytes}"));
        say(&format!("seconds: {seconds:.6}"));
        say(&format!("goodput_gbps: {:.3}", *bytes as f64 * 8e-9 / seconds.max(1e-9)));
    }
    if outcomes.fetched.is_empty() {
        return;
    }
    if let Some(time) = outcomes.handshake {
        say(&format!("handshake_us: {}", time.as_micros()));
    }
    if args.resume.is_wanted() {
        for name in ["handshakes_resumed", "early_data_accepted", "early_data_rejected"] {
            say(&format!("{name}: {}", counters.value(&format!("quic_{name}"))));
        }
    }
    for name in ["bytes_direct", "bytes_staged", "bytes_copied"] {
        say(&format!("{name}: {}", counters.value(&format!("quic_{name}"))));
    }
    // Only the server knows which packets to us were lost.
    say(&format!("sent_packets_lost: {}", counters.value("quic_lost_packets")));
}
