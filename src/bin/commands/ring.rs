//! `gannet ring`: server and client in one process, over an in-process ring, for `cargo xtask demo --wire ring`.

use std::path::Path;
use std::sync::atomic::Ordering;

use gannet::dpdk::{Eal, EalConfig, PortProfile};

use super::session::{Failure, Session, server_tls, tls_options};
use super::{get, perf, serve};
use crate::args::{Args, Command, PerfCommand, RingArgs};

/// Memory of each side, in bytes.
const MEMORY: u64 = 2 << 30;

const SERVER: &str = "10.77.0.1";

/// Fetches a file, then measures latency if requests are asked for.
pub fn run(args: &RingArgs) -> Result<(), Failure> {
    std::fs::create_dir_all(&args.out).map_err(|e| format!("cannot create {}: {e}", args.out.display()))?;
    let profile = PortProfile::load("ring", &[])?;
    let eal = Eal::init(&EalConfig::for_profiles(&[profile.clone(), profile.clone()]))?;
    if let Some(warning) = eal.warning() {
        tracing::warn!("{warning}");
    }
    fetch(args, &eal, &profile)?;
    if args.requests > 0 { measure(args, &eal, &profile) } else { Ok(()) }
}

/// Parses a command line like one that a user would type.
fn parse(command: &[&str], args: &RingArgs, server: bool, rest: &[String]) -> Result<Command, Failure> {
    let mut words: Vec<String> = ["gannet"].iter().chain(command).map(|w| (*w).to_owned()).collect();
    words.extend(["--port", "ring", "--addr"].map(String::from));
    if server {
        words.extend([format!("{SERVER}/24"), "--listen".into(), "4433".into()]);
        for (cert, key) in args.identity.pairs() {
            words.extend(["--cert".into(), path(cert), "--key".into(), path(key)]);
        }
    } else {
        words.extend(["10.77.0.2/24".into(), "--insecure".into()]);
    }
    words.extend_from_slice(rest);
    Ok(Args::try_load_from(words)?.command)
}

fn path(path: &Path) -> String {
    path.display().to_string()
}

fn fetch(args: &RingArgs, eal: &Eal, profile: &PortProfile) -> Result<(), Failure> {
    let name = args.file.trim_start_matches('/');
    let server = parse(&["serve"], args, true, &["--root".into(), path(&args.root)])?;
    let output = path(&args.out.join(name));
    let url = format!("https://{SERVER}:4433/{name}");
    let client = parse(&["get"], args, false, &["--sha256".into(), "-o".into(), output, url])?;
    let (Command::Serve(serve_args), Command::Get(get_args)) = (server, client) else {
        return Err("unexpected commands".into());
    };
    let tls = server_tls(&serve_args.identity, &tls_options(&serve_args.engine, gannet::proto::hq::ALPN)?)?;
    let plan = get::Plan::new(&get_args)?;
    let (left, right) = Session::open_pair(eal, profile, (&serve_args.engine, &get_args.engine), MEMORY)?;
    both(left, |left| serve::run_on(&serve_args, tls, left), || get::run_on(&get_args, plan, right))
}

fn measure(args: &RingArgs, eal: &Eal, profile: &PortProfile) -> Result<(), Failure> {
    let server = parse(&["perf", "server"], args, true, &[])?;
    let hdr = path(&args.out.join("latency.hdr"));
    let load = ["--connect", "10.77.0.1:4433", "--upload", "512", "--download", "4000", "--requests"];
    let mut rest: Vec<String> = load.map(String::from).to_vec();
    rest.extend([args.requests.to_string(), "--hdr".into(), hdr]);
    let client = parse(&["perf", "client"], args, false, &rest)?;
    let (Command::Perf(PerfCommand::Server(server)), Command::Perf(PerfCommand::Client(client))) = (server, client)
    else {
        return Err("unexpected commands".into());
    };
    let tls = server_tls(&server.identity, &tls_options(&server.engine, gannet::proto::perf::ALPN)?)?;
    let plan = perf::plan(&client)?;
    let (left, right) = Session::open_pair(eal, profile, (&server.engine, &client.engine), MEMORY)?;
    both(left, |left| perf::serve_on(&server, tls, left), || perf::measure_on(&client, plan, right))
}

/// Runs the server until the client has ended. The client's failure takes precedence.
fn both(
    left: Session,
    server: impl FnOnce(Session) -> Result<(), Failure> + Send,
    client: impl FnOnce() -> Result<(), Failure>,
) -> Result<(), Failure> {
    let stop = left.stop();
    std::thread::scope(|scope| {
        let server = scope.spawn(move || server(left));
        let result = client();
        stop.store(true, Ordering::Relaxed);
        let served = server.join().unwrap_or_else(|_| Err("the server panicked; this is a bug in Gannet".into()));
        result.and(served)
    })
}
