//! `gannet perf server` and `gannet perf client`.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use gannet::proto::perf::{
    ALPN, LiveCounts, PerfClient, PerfLive, PerfPlan, PerfResults, PerfServer, server_transport,
};
use gannet::quic::{ClientConfig, ServerConfig, TransportConfig};
use gannet::report::file::write_atomically;
use gannet::report::{Bar, HdrLog, Series, machine, text, write_hdr_log};

use super::origin::{DPDK, origin};
use super::session::{
    Counters, Failure, Member, Session, check_places, checked_server_tls, client_tls, client_transport, resolve,
    server_endpoint, tls_options, transport,
};
use crate::args::{PerfClientArgs, PerfServerArgs};
use crate::output::say;
use crate::terminal;

/// Memory for receive buffers, in bytes.
const MEMORY: u64 = 1 << 30;

/// Answers `perf client` until a signal arrives.
pub fn serve(args: &PerfServerArgs) -> Result<(), Failure> {
    let tls = checked_server_tls(&args.identity, &args.engine, &tls_options(&args.engine, ALPN)?)?;
    let endpoint = server_endpoint(&args.secret, args.retry)?;
    let mut session = Session::open_for(&args.engine, &args.cores, 0, MEMORY)?;
    session.endpoint = Some(endpoint);
    serve_on(args, tls, session)
}

/// Like [`serve`], on a port that is already open.
pub fn serve_on(args: &PerfServerArgs, tls: Arc<rustls::ServerConfig>, mut session: Session) -> Result<(), Failure> {
    let wish = transport(&args.engine, &session.caps());
    let (mut members, mut lives) = (Vec::new(), Vec::new());
    for pool in &session.pools {
        let app = PerfServer::new(pool.clone());
        lives.push(app.live());
        let server = ServerConfig::new(tls.clone(), server_transport(wish.clone(), pool))?;
        members.push(Member { app, server: Some(server) });
    }
    let mut watch = Watch::new(lives, !(args.engine.live || args.engine.log.verbose > 0));
    let ready = ready_line(&args.engine.addrs[0].addr, args.listen, &session);
    session.run_all(members, Some(args.listen), || terminal::announce(&ready), || watch.look())?;
    Ok(())
}

fn ready_line(addr: &std::net::IpAddr, listen: u16, session: &Session) -> String {
    format!("ready: {} on {}", std::net::SocketAddr::new(*addr, listen), session.describe())
}

/// Makes requests and prints the results.
pub fn measure(args: &PerfClientArgs) -> Result<(), Failure> {
    let plan = plan(args)?;
    check_places(args.json.iter().chain(&args.hdr))?;
    measure_on(args, plan, Session::open(&args.engine, MEMORY)?)
}

/// The plan of `args`; transport settings still have to be adapted to the port.
pub fn plan(args: &PerfClientArgs) -> Result<PerfPlan, Failure> {
    let remote = resolve(&args.connect, &args.engine)?;
    let name = args.server_name.clone().unwrap_or_else(|| args.connect.host.clone());
    let tls = client_tls(&args.trust, &tls_options(&args.engine, ALPN)?)?;
    let client = ClientConfig::new(tls, TransportConfig::default())?;
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
        ..PerfPlan::new(remote, name, client)
    };
    plan.check()?;
    Ok(plan)
}

/// Measures over a port that is already open.
pub fn measure_on(args: &PerfClientArgs, mut plan: PerfPlan, mut session: Session) -> Result<(), Failure> {
    plan.client_config = plan.client_config.with_transport(client_transport(&args.engine, &session.caps()))?;
    let app = PerfClient::new(plan, session.pools[0].clone())?;
    let mut watch = Watch::new(vec![app.live()], args.engine.log.quiet);
    let start = SystemTime::now();
    let facts = facts(&session, args);
    let (app, counters) = session.run(app, || watch.look())?;
    let results = app.results();
    print(results, &counters);
    if let Some(path) = &args.json {
        write_json(path, results, &counters)?;
    }
    if let Some(path) = &args.hdr {
        write_hdr(path, results, start, facts)?;
    }
    if session.interrupted() {
        return Err("interrupted".into());
    }
    if results.is_clean() { Ok(()) } else { Err(failures(results).into()) }
}

fn facts(session: &Session, args: &PerfClientArgs) -> Vec<(String, String)> {
    let mut facts = machine::facts(Path::new("/"), DPDK);
    facts.push(("Port".into(), session.describe()));
    let load = format!(
        "{} B up, {} B down, {} connections, {} requests in flight on each",
        args.upload, args.download, args.connections, args.streams
    );
    facts.push(("Load".into(), args.rate.map_or(load.clone(), |rate| format!("{load}, {rate} requests/s"))));
    facts
}

fn failures(results: &PerfResults) -> String {
    let mut lines: Vec<String> = results.failures.iter().map(|(why, n)| format!("{why} ({n} times)")).collect();
    if results.other_failures > 0 {
        lines.push(format!("{} other failures", results.other_failures));
    }
    if lines.is_empty() {
        lines.push(format!("{} requests were not answered in time", results.unfinished));
    }
    lines.join("\ngannet: ")
}

/// A result; counts are printed as integers.
enum Value {
    Count(u64),
    Measure(f64),
}

/// All results by name, without percentiles that the number of requests does not support.
fn values(results: &PerfResults, counters: &Counters) -> Vec<(&'static str, Value)> {
    use Value::{Count, Measure};
    let latency = results.latency.summary();
    let handshake = results.handshake.summary();
    let (up, down) = results.bit_rates();
    let us = |ns: u64| Measure(ns as f64 / 1000.0);
    let mut all = vec![
        ("requests", Count(results.requests)),
        ("errors", Count(results.errors)),
        ("seconds", Measure(results.elapsed.as_secs_f64())),
        ("requests_per_second", Measure(results.request_rate())),
        ("upload_gbps", Measure(up / 1e9)),
        ("download_gbps", Measure(down / 1e9)),
        ("handshakes", Count(results.handshakes)),
        ("handshakes_per_second", Measure(results.handshake_rate())),
        ("bytes_copied", Count(counters.value("quic_bytes_copied"))),
        ("sent_packets_lost", Count(counters.value("quic_lost_packets"))),
        ("device_rx_missed", Count(counters.value("device_rx_missed"))),
        ("log_lines_lost", Count(terminal::lost())),
    ];
    let percentiles = [
        ("handshake_p50_us", handshake.p50),
        ("latency_p50_us", latency.p50),
        ("latency_p90_us", latency.p90),
        ("latency_p99_us", latency.p99),
        ("latency_p999_us", latency.p999),
        ("latency_p9999_us", latency.p9999),
    ];
    all.extend(percentiles.into_iter().filter_map(|(name, ns)| Some((name, us(ns?)))));
    if latency.count > 0 {
        all.extend([("latency_min_us", us(latency.min)), ("latency_max_us", us(latency.max))]);
    }
    all
}

fn print(results: &PerfResults, counters: &Counters) {
    for (name, value) in values(results, counters) {
        match value {
            Value::Count(n) => say(&format!("{name}: {n}")),
            Value::Measure(n) => say(&format!("{name}: {n:.3}")),
        }
    }
}

fn write_json(path: &Path, results: &PerfResults, counters: &Counters) -> Result<(), Failure> {
    let json = |value| match value {
        Value::Count(n) => serde_json::Value::from(n),
        Value::Measure(n) => n.into(),
    };
    let mut map: serde_json::Map<String, serde_json::Value> =
        values(results, counters).into_iter().map(|(name, value)| (name.to_owned(), json(value))).collect();
    map.insert("run".to_owned(), origin());
    write_atomically(path, format!("{:#}\n", serde_json::Value::Object(map)).as_bytes())?;
    Ok(())
}

fn write_hdr(
    path: &Path,
    results: &PerfResults,
    start: SystemTime,
    facts: Vec<(String, String)>,
) -> Result<(), Failure> {
    let (up, down) = results.bit_rates();
    let throughput = vec![
        Bar::new("download", down / 1e9, "Gbit/s"),
        Bar::new("upload", up / 1e9, "Gbit/s"),
        Bar::new("requests", results.request_rate(), "requests/s"),
    ];
    let series = [("request", &results.latency), ("handshake", &results.handshake)]
        .into_iter()
        .filter(|(_, latency)| latency.count() > 0)
        .map(|(name, latency)| Series::new(name, latency.clone()).recorded(start, results.elapsed));
    let log = HdrLog {
        facts,
        throughput: throughput.into_iter().filter(|bar| bar.value > 0.0).collect(),
        series: series.collect(),
    };
    write_hdr_log(path, &log)?;
    Ok(())
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
