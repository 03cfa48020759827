//! `gannet perf client --datagrams`.

use std::path::Path;
use std::time::{Duration, SystemTime};

use gannet::proto::perf::{ALPN, DatagramClient, DatagramPlan, DatagramResults, datagram_transport};
use gannet::quic::{ClientConfig, TransportConfig};
use gannet::report::file::write_atomically;
use gannet::report::{HdrLog, Series, machine, write_hdr_log};

use super::MEMORY;
use crate::args::PerfClientArgs;
use crate::commands::memory::working_memory;
use crate::commands::origin::{DPDK, origin};
use crate::commands::session::{
    Counters, Failure, Member, Role, Session, check_places, client_tls, resolve, tls_options,
};
use crate::output::say;

/// How long datagrams are sent if nothing else is asked for.
const DURATION: Duration = Duration::from_secs(10);

/// Sends `rate` datagrams of `len` bytes per second and prints what became of them.
pub fn measure(args: &PerfClientArgs, rate: f64, len: usize) -> Result<(), Failure> {
    check_places(args.json.iter().chain(&args.hdr))?;
    let cores = args.cores.of(&args.engine).count();
    let remote = resolve(&args.connect, &args.engine)?;
    let tls = client_tls(&args.trust, &args.identity, &tls_options(&args.engine, ALPN)?)?;
    let client_config = ClientConfig::new(tls, TransportConfig::default())?;
    let memory = working_memory(&args.engine, cores, MEMORY)?;
    let mut session = Session::open(&args.engine, &args.cores, 0, memory)?;
    let transport = datagram_transport(session.client_transport());
    let plan = DatagramPlan {
        remote,
        server_name: args.server_name.clone().unwrap_or_else(|| args.connect.host.clone()),
        client_config: client_config.with_transport(transport)?,
        rate: rate / session.pools.len() as f64,
        len,
        duration: args.duration.unwrap_or(DURATION),
    };
    let mut members = Vec::new();
    for pool in &session.pools {
        members.push(Member { app: DatagramClient::new(plan.clone(), pool.clone())?, server: None });
    }
    let role = Role::Client { remote, flows: args.source_ports.unwrap_or(1) };
    let start = SystemTime::now();
    let mut facts = machine::facts(Path::new("/"), DPDK);
    facts.push(("Port".into(), session.describe()));
    facts.push(("Load".into(), format!("{rate} datagrams/s of {len} B")));
    let (clients, counters) = session.run(members, role, || {}, || None)?;
    let mut sum = DatagramResults::default();
    clients.iter().for_each(|client| sum.merge(client.results()));
    let values = values(&sum, &counters);
    values.iter().for_each(|(name, value)| say(&format!("{name}: {value}")));
    if let Some(path) = &args.json {
        let mut all: serde_json::Map<_, _> = values.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        all.insert("run".to_owned(), origin());
        write_atomically(path, format!("{:#}\n", serde_json::Value::Object(all)).as_bytes())?;
    }
    if let Some(path) = &args.hdr {
        let series = Series::new("datagram", sum.latency.clone()).recorded(start, sum.elapsed);
        write_hdr_log(path, &HdrLog { facts, throughput: Vec::new(), series: vec![series] })?;
    }
    if session.interrupted() {
        return Err("interrupted".into());
    }
    match sum.failure {
        Some(why) => Err(why.into()),
        None if sum.returned == 0 => Err("no datagram came back".into()),
        None => Ok(()),
    }
}

/// The results by name.
fn values(results: &DatagramResults, counters: &Counters) -> Vec<(&'static str, serde_json::Value)> {
    let thousandths = |n: f64| serde_json::Value::from((n * 1000.0).round() / 1000.0);
    let latency = results.latency.summary();
    let mut all = vec![
        ("datagrams_due", results.due.into()),
        ("datagrams_sent", results.sent.into()),
        ("datagrams_unsent", results.unsent.into()),
        ("datagrams_returned", results.returned.into()),
        ("datagrams_lost_on_the_way", results.lost.into()),
        ("loss_percent", thousandths(100.0 * results.loss())),
        ("seconds", thousandths(results.elapsed.as_secs_f64())),
        ("bytes_copied", counters.value("quic_bytes_copied").into()),
        ("sent_packets_lost", counters.value("quic_lost_packets").into()),
    ];
    let percentiles = [
        ("latency_p50_us", latency.p50),
        ("latency_p99_us", latency.p99),
        ("latency_p999_us", latency.p999),
        ("latency_max_us", (latency.count > 0).then_some(latency.max)),
    ];
    all.extend(percentiles.into_iter().filter_map(|(name, ns)| Some((name, thousandths(ns? as f64 / 1000.0)))));
    all
}
