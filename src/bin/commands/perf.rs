//! `gannet perf server` and `gannet perf client`.

mod datagrams;
mod results;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use gannet::proto::perf::{ALPN, LiveCounts, PerfClient, PerfLive, PerfPlan, PerfServer, server_transport};
use gannet::quic::{ClientConfig, ServerConfig, TransportConfig};
use gannet::report::{machine, text};

use super::memory::working_memory;
use super::origin::DPDK;
use super::session::{
    Failure, Member, Renewal, Role, Session, check_places, client_tls, early_data, idle_cores, preferred_address,
    resolve, server_endpoint, tls_options,
};
use crate::args::{PerfClientArgs, PerfServerArgs};
use crate::terminal;
use results::Report;

/// Memory for receive buffers, in bytes.
const MEMORY: u64 = 1 << 30;

/// The maximum number of UDP ports from which one of several cores opens connections.
const MAX_FLOWS: u32 = 64;

/// Answers `perf client` until a signal arrives.
pub fn serve(args: &PerfServerArgs) -> Result<(), Failure> {
    let renewal = Renewal::new(&args.identity, &args.engine, tls_options(&args.engine, ALPN)?)?;
    let tls = renewal.tls()?;
    let endpoint = server_endpoint(&args.secret, args.retry)?;
    let memory = working_memory(&args.engine, args.cores.of(&args.engine).count(), MEMORY)?;
    let mut session = Session::open(&args.engine, &args.cores, 0, memory)?;
    session.endpoint = Some(endpoint);
    session.renewal = Some(renewal);
    session.drain = args.end.drain;
    serve_on(args, tls, session)
}

/// Like [`serve`], on a port that is already open.
pub fn serve_on(args: &PerfServerArgs, tls: Arc<rustls::ServerConfig>, mut session: Session) -> Result<(), Failure> {
    let mut wish = session.transport();
    wish.preferred_address = preferred_address(&args.preferred_address, &args.engine, args.listen)?;
    // Requests change nothing, so they may be repeated.
    let server = early_data(ServerConfig::new(tls, wish.clone())?, args.early_data);
    let (mut members, mut lives) = (Vec::new(), Vec::new());
    for pool in &session.pools {
        let app = PerfServer::new(pool.clone());
        lives.push(app.live());
        let server = server.clone().with_transport(server_transport(wish.clone(), pool))?;
        members.push(Member { app, server: Some(server) });
    }
    let mut watch = Watch::new(lives, !(args.engine.live || args.engine.log.verbose > 0));
    let ready = ready_line(&args.engine.addrs[0].addr, args.listen, &session);
    let role = Role::Server { listen: args.listen };
    session.run(members, role, || terminal::announce(&ready), || watch.look())?;
    Ok(())
}

fn ready_line(addr: &std::net::IpAddr, listen: u16, session: &Session) -> String {
    format!("ready: {} on {}", std::net::SocketAddr::new(*addr, listen), session.describe())
}

/// Makes requests and prints the results.
pub fn measure(args: &PerfClientArgs) -> Result<(), Failure> {
    if let Some((rate, len)) = args.datagrams {
        return datagrams::measure(args, rate, len);
    }
    let plan = plan(args)?;
    check_places(args.json.iter().chain(&args.hdr))?;
    let memory = working_memory(&args.engine, args.cores.of(&args.engine).count(), MEMORY)?;
    measure_on(args, plan, Session::open(&args.engine, &args.cores, 0, memory)?)
}

/// The plan of `args`; transport settings still have to be adapted to the port.
pub fn plan(args: &PerfClientArgs) -> Result<PerfPlan, Failure> {
    let remote = resolve(&args.connect, &args.engine)?;
    let name = args.server_name.clone().unwrap_or_else(|| args.connect.host.clone());
    let tls = client_tls(&args.trust, &args.identity, &tls_options(&args.engine, ALPN)?)?;
    let client = ClientConfig::new(tls, TransportConfig::default())?;
    let client = if args.resume || args.early_data { client.with_sessions(1) } else { client };
    let client = if args.early_data { client.with_early_data(true) } else { client };
    let plan = PerfPlan {
        upload: args.upload,
        download: args.download,
        requests: args.request_limit(),
        duration: args.duration,
        rate: args.rate,
        connections: args.connections,
        streams: args.streams,
        warmup: args.warmup.unwrap_or_default(),
        handshakes: args.handshakes,
        early_data: args.early_data,
        ..PerfPlan::new(remote, name, client)
    };
    plan.check()?;
    Ok(plan)
}

/// Measures over a port that is already open.
pub fn measure_on(args: &PerfClientArgs, mut plan: PerfPlan, mut session: Session) -> Result<(), Failure> {
    plan.client_config = plan.client_config.with_transport(session.client_transport())?;
    let clients = PerfClient::for_cores(&plan, &session.pools)?;
    let loaded: Vec<&PerfClient> = clients.iter().flatten().collect();
    if let Some(line) = idle_cores(clients.len(), loaded.len(), "connections and requests to share") {
        tracing::warn!("{line}");
    }
    // With several cores, many flows let the server use several cores, too.
    let most = loaded.iter().map(|client| client.plan().connections).max().unwrap_or(1);
    let usual = if clients.len() == 1 { 1 } else { most.min(MAX_FLOWS) as u16 };
    let flows = args.source_ports.unwrap_or(usual);
    let role = Role::Client { remote: plan.remote, flows };
    let mut watch = Watch::new(loaded.iter().map(|client| client.live()).collect(), args.engine.log.quiet);
    let start = SystemTime::now();
    let facts = facts(&session, args);
    let members = clients.into_iter().map(|app| Member { app, server: None }).collect();
    let (clients, counters) = session.run(members, role, || {}, || watch.look())?;
    let report = Report::new(clients.iter().map(|client| client.as_ref().map(PerfClient::results)), counters);
    report.print();
    if let Some(path) = &args.json {
        report.write_json(path)?;
    }
    if let Some(path) = &args.hdr {
        report.write_hdr(path, start, facts)?;
    }
    if session.interrupted() {
        return Err("interrupted".into());
    }
    report.outcome()
}

fn facts(session: &Session, args: &PerfClientArgs) -> Vec<(String, String)> {
    let mut facts = machine::facts(Path::new("/"), DPDK);
    facts.push(("Port".into(), session.describe()));
    let load = format!(
        "{} B up, {} B down, {} connections, {} requests in flight on each",
        args.upload, args.download, args.connections, args.streams
    );
    if session.cores() > 1 {
        facts.push(("Cores of the client".into(), session.cores().to_string()));
    }
    facts.push(("Load".into(), args.rate.map_or(load.clone(), |rate| format!("{load}, {rate} requests/s"))));
    facts
}

/// Prints a progress line each second.
struct Watch {
    /// One for each core.
    lives: Vec<Arc<PerfLive>>,
    quiet: bool,
    at: Instant,
    last: LiveCounts,
}

impl Watch {
    fn new(lives: Vec<Arc<PerfLive>>, quiet: bool) -> Self {
        Self { last: LiveCounts::default(), lives, quiet, at: Instant::now() }
    }

    fn look(&mut self) -> Option<String> {
        let passed = self.at.elapsed();
        if self.quiet || passed < Duration::from_secs(1) {
            return None;
        }
        let (now, seconds) = (self.lives.iter().map(|live| live.snapshot()).sum::<LiveCounts>(), passed.as_secs_f64());
        let rate = |new: u64, old: u64| new.saturating_sub(old) as f64 / seconds;
        let line = format!(
            "{} requests/s, up {}, down {}, {} connections, {} in flight, {} errors",
            text::quantity(rate(now.requests, self.last.requests)),
            text::with_unit(8.0 * rate(now.bytes_up, self.last.bytes_up), "bit/s"),
            text::with_unit(8.0 * rate(now.bytes_down, self.last.bytes_down), "bit/s"),
            now.connections,
            now.in_flight,
            now.errors
        );
        self.last = now;
        self.at = Instant::now();
        Some(line)
    }
}
