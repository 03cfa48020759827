//! What the command line accepts and rejects.

use super::engine::{Congestion, Dad, Retry};
use super::tls::Suite;
use super::*;

const PORT: &str = "--port memif --set role=client --set socket=/tmp/s --addr 10.77.0.2/24";

fn load(line: &str) -> Result<Args, clap::Error> {
    Args::try_load_from(std::iter::once("gannet").chain(line.split_whitespace()))
}

/// The error message for `line`.
fn why(line: &str) -> String {
    load(line).expect_err(line).to_string()
}

fn get(line: &str) -> GetArgs {
    match load(line).unwrap().command {
        Command::Get(a) => a,
        other => panic!("{other:?}"),
    }
}

#[test]
fn definition_is_sound() {
    Args::command().debug_assert();
}

#[test]
fn every_help_text_renders_with_its_example() {
    for (line, part) in [
        ("--help", "gannet doctor"),
        ("serve --help", "--listen <UDPPORT>"),
        ("get --help", "--sha256"),
        ("perf client --help", "--rate 50k"),
        ("perf server --help", "--cert <PEM>"),
        ("report --help", "compare.html"),
        ("doctor --help", "--json"),
    ] {
        let e = load(line).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::DisplayHelp, "{line}");
        assert!(e.to_string().contains(part), "{line}: {e}");
    }
    assert!(!why("--help").contains("ring"), "hidden commands stay hidden");
}

#[test]
fn serve_with_everything() {
    let line = "serve --port af-packet --set iface=eth1 --set mtu=9000 --addr 10.77.0.1/24 --addr fd00::1/64 \
        --retry always \
        --gateway 10.77.0.254 --gateway fe80::1 --route 10.0.0.0/8=10.77.0.253 --vlan 7 --core 3 --listen 4433 \
        --cert c.pem --key k.pem --root www --upload-dir up --congestion newreno --suite chacha20 --suite aes128 \
        --versions v2,v1 --no-grease --max-udp-payload 8972 --pcap p --keylog k --stats s --stages h --live \
        --qlog q --qlog-limit 1M --qlog-every 10 --qlog-names qvis -vv";
    let Command::Serve(a) = load(line).unwrap().command else { panic!("not serve") };
    assert_eq!(a.engine.sets, [("iface".into(), "eth1".into()), ("mtu".into(), "9000".into())]);
    assert_eq!(a.engine.addrs.len(), 2);
    assert_eq!(a.engine.gateways.len(), 2);
    assert_eq!((a.engine.vlan, a.engine.core, a.listen), (Some(7), Some(3), 4433));
    assert_eq!(a.engine.congestion, Congestion::NewReno);
    assert_eq!(a.engine.suites, [Suite::ChaCha20, Suite::Aes128]);
    assert_eq!(a.engine.versions.map(|list| list.to_string()), Some("v2,v1".into()));
    assert!(a.engine.no_grease && a.engine.first_version.is_none());
    assert_eq!((a.engine.max_udp_payload, a.engine.log.verbose), (Some(8972), 2));
    assert_eq!((a.upload_dir, a.retry), (Some("up".into()), Retry::Always));
    assert_eq!((a.engine.stages, a.engine.live), (Some("h".into()), true));
    let qlog = a.engine.qlog.config().expect("settings");
    assert_eq!((qlog.dir.to_str(), qlog.limit, qlog.every), (Some("q"), 1 << 20, 10));
}

#[test]
fn early_data_is_for_connections_with_one_request() {
    let perf = format!("perf client {PORT} --insecure --connect 10.77.0.1:1 --early-data");
    assert!(why(&perf).contains("--handshakes"), "requests wait for all connections otherwise");
    assert!(load(&format!("{perf} --handshakes --download 1K")).is_ok());
}

#[test]
fn load_balancers_are_for_servers() {
    let serve = format!("serve {PORT} --listen 4433 --cert c --key k --root w --quic-lb");
    let Command::Serve(a) = load(&format!("{serve} config=1,server-id=0a,key=f")).unwrap().command else {
        panic!("not serve")
    };
    let lb = a.secret.quic_lb.expect("settings");
    assert_eq!((lb.config, lb.server_id, lb.nonce, lb.key), (1, vec![10], 15, Some("f".into())));
    let why_not = why(&format!("{serve} config=7,server-id=0a"));
    assert!(why_not.contains("--quic-lb <SETTINGS>") && why_not.contains("configuration 7"), "{why_not}");
    let get = format!("get {PORT} --insecure https://10.77.0.1/f --quic-lb config=1,server-id=0a");
    assert!(why(&get).contains("unexpected argument '--quic-lb'"));
}

#[test]
fn routers_where_hosters_put_them() {
    let get = |addr: &str, more: &str| {
        let port = "--port memif --set role=client --set socket=/tmp/s";
        get(&format!("get {port} --addr {addr} --insecure https://10.77.0.1/f {more}"))
    };
    let a = get("203.0.113.7/32", "--gateway 172.31.1.1");
    assert_eq!((a.engine.gateways.len(), a.engine.dad), (1, Dad::Optimistic));
    let a = get("10.0.0.2/24", "--route 172.31.1.1/32=link --gateway 172.31.1.1 --dad strict");
    assert_eq!((a.engine.routes[0].via, a.engine.dad), (None, Dad::Strict));
    let a = get("10.0.0.2/24", "--gateway 10.0.0.254 --gateway 10.0.0.253 --dad off");
    assert_eq!(a.engine.gateways.len(), 2);
}

#[test]
fn get_needs_exactly_one_kind_of_trust() {
    let url = "https://10.77.0.1:4433/file";
    let a = get(&format!("get {PORT} --ca ca.pem -o out --sha256 {url}"));
    assert!(a.sha256 && !a.trust.insecure && a.trust.ca.is_some());
    assert_eq!(a.urls[0].authority.port, 4433);
    assert_eq!(a.engine.congestion, Congestion::Cubic);
    assert!(why(&format!("get {PORT} {url}")).contains("--insecure"));
    assert!(why(&format!("get {PORT} --ca c --insecure {url}")).contains("cannot be used with"));
}

#[test]
fn get_refuses_urls_that_clash() {
    let get = |urls: &str| why(&format!("get {PORT} --insecure {urls}"));
    assert!(get("").contains("<URL>"));
    assert!(
        get("https://10.77.0.1/a https://10.77.0.3/b").contains("different servers (10.77.0.1:443 and 10.77.0.3:443)")
    );
    assert!(get("https://10.77.0.1/x/a https://10.77.0.1/y/a").contains("same file, 'a'"));
    assert!(get("ftp://10.77.0.1/a").contains("https://"));
}

#[test]
fn bad_values_are_named() {
    let get = |more: &str| why(&format!("get {PORT} --insecure https://10.77.0.1/f {more}"));
    for (more, parts) in [
        ("--set mtu", vec!["'mtu'", "KEY=VALUE"]),
        ("--addr 10.77.0.3", vec!["10.77.0.3/24"]),
        ("--addr 10.77.0.2/25", vec!["given twice"]),
        ("--gateway 10.78.0.1", vec!["10.78.0.1", "(10.77.0.0/24)"]),
        ("--gateway 10.77.0.2", vec!["own --addr"]),
        ("--gateway 10.77.0.1 --gateway 10.77.0.1", vec!["10.77.0.1", "twice"]),
        ("--gateway 172.31.1.1", vec!["172.31.1.1", "--route 172.31.1.1/32=link"]),
        ("--dad sometimes", vec!["sometimes", "off", "optimistic", "strict"]),
        ("--gateway localhost", vec!["'localhost'"]),
        ("--route 10.0.0.0/8=10.78.0.1", vec!["next hop", "10.78.0.1"]),
        ("--vlan 4095", vec!["4095", "from 1 to 4094"]),
        ("--core x", vec!["'x'", "from 0 to 1023"]),
        ("--core -1", vec!["'-1'", "from 0 to 1023"]),
        ("--hold -1", vec!["'-1'", "64K"]),
        ("--suite rc4", vec!["rc4", "aes128", "chacha20"]),
        ("--congestion vegas", vec!["vegas", "newreno", "bbr"]),
        ("--max-udp-payload 1199", vec!["1199", "from 1200 to 65527"]),
        ("--versions v1,v3", vec!["'v3'", "v1 or v2"]),
        ("--versions v1 --first-version v2", vec!["--first-version v2", "--versions v1"]),
        ("-q -v", vec!["cannot be used with"]),
    ] {
        let e = get(more);
        assert!(parts.iter().all(|p| e.contains(p)), "{more}: {e}");
    }
    assert!(why("serve --port memif").contains("--addr"));
    let server = format!("perf server {PORT} --listen 1 --cert c --key k");
    let Command::Perf(PerfCommand::Server(a)) = load(&server).unwrap().command else { panic!("not perf server") };
    assert_eq!(a.retry, Retry::Auto);
    assert!(why(&format!("{server} --retry often")).contains("always"));
    assert!(why(&format!("perf server {PORT} --listen 0 --cert c --key k")).contains("from 1 to 65535"));
}

#[test]
fn perf_client_load() {
    let client = |more: &str| load(&format!("perf client {PORT} --connect h.example:4433 --insecure {more}"));
    let Command::Perf(PerfCommand::Client(a)) = client("--upload 64K --download 1G").unwrap().command else {
        panic!("not perf client")
    };
    assert_eq!((a.upload, a.download, a.connections, a.streams), (64 << 10, 1 << 30, 1, 1));
    assert_eq!(a.request_limit(), Some(1));
    let line = "--rate 50k --duration 30s --connections 4 --source-ports 3 --streams 8 --hdr l.hdr --json r.json";
    let Command::Perf(PerfCommand::Client(a)) = client(line).unwrap().command else { panic!("not perf client") };
    assert_eq!((a.rate, a.duration), (Some(50_000.0), Some(Duration::from_secs(30))));
    assert_eq!((a.connections, a.source_ports, a.streams, a.request_limit()), (4, Some(3), 8, None));
    for (more, part) in [
        ("--upload 1X", "64K"),
        ("--connections 0", "0"),
        ("--source-ports 16385", "from 1 to 16384"),
        ("--duration 0", "above zero"),
    ] {
        let e = client(more).unwrap_err().to_string();
        assert!(e.contains(part), "{more}: {e}");
    }
    assert!(why(&format!("perf client {PORT} --connect h.example --insecure")).contains("h.example:4433"));
}

#[test]
fn report_doctor_and_ring() {
    let Command::Report(a) = load("report a.hdr b.hdr").unwrap().command else { panic!("not report") };
    assert_eq!((a.files.len(), a.output), (2, None));
    assert!(why("report").contains("FILE.hdr"));
    assert!(matches!(load("doctor --json").unwrap().command, Command::Doctor(DoctorArgs { json: true, .. })));
    let line = "ring --root r --cert c --key k --requests 5 --out d f";
    assert!(matches!(load(line).unwrap().command, Command::Ring(RingArgs { requests: 5, .. })));
}

/// Some errors used to show the usage of `gannet` itself.
#[test]
fn every_refusal_has_the_usage_of_its_command() {
    let port = "--port memif --addr 10.77.0.2/24 --addr 10.77.0.2/25";
    for (line, usage) in [
        (format!("serve {port} --listen 1 --cert c --key k --root r"), "Usage: gannet serve [OPTIONS]"),
        (format!("get {port} --insecure https://10.77.0.1/f"), "Usage: gannet get [OPTIONS]"),
        (format!("perf server {port} --listen 1 --cert c --key k"), "Usage: gannet perf server [OPTIONS]"),
        (format!("perf client {port} --insecure --connect 10.77.0.1:1"), "Usage: gannet perf client [OPTIONS]"),
        (format!("get {PORT} --insecure -o - https://10.77.0.1/a https://10.77.0.1/b"), "Usage: gannet get [OPTIONS]"),
    ] {
        let e = load(&line).unwrap_err();
        assert!(e.to_string().contains(usage), "{line}: {e}");
        assert_eq!(e.exit_code(), 2);
    }
}

/// No message is one of the standard library's parsers, or one of clap's about an option that nobody meant: each value
/// says what it expects.
#[test]
fn values_say_what_they_expect() {
    let get = format!("get {PORT} --insecure https://10.77.0.1/f");
    let client = format!("perf client {PORT} --insecure --connect 10.77.0.1:1");
    let server = format!("perf server {PORT} --cert c --key k");
    for line in [
        format!("{get} --vlan x"),
        format!("{get} --max-udp-payload 1.5"),
        format!("{get} --core -3"),
        format!("{get} --hold -1"),
        format!("{get} --idle-timeout -1s"),
        format!("{server} --listen -1"),
        format!("{server} --listen http"),
        format!("{client} --requests -1"),
        format!("{client} --connections many"),
        format!("{client} --streams 0"),
        format!("{client} --rate -5"),
        format!("{client} --upload -1"),
        format!("{client} --duration -2"),
    ] {
        let e = why(&line);
        for word in ["invalid digit", "unexpected argument", "not in 1..", "number too"] {
            assert!(!e.contains(word), "{line}: {e}");
        }
        assert!(e.contains("expected") || e.contains("number is missing"), "{line}: {e}");
    }
}

#[test]
fn commands_run_on_several_cores() {
    let rest = "--port memif --addr 10.77.0.2/24";
    let server = format!("perf server {rest} --listen 4433 --cert c --key k");
    let client = format!("perf client {rest} --insecure --connect 10.77.0.1:4433");
    let files = format!("serve {rest} --listen 4433 --cert c --key k --root r");
    let get = format!("get {rest} --insecure https://10.77.0.1/a");
    for command in [server, client, files, get] {
        let cores = |line: &str| {
            let (engine, cores) = match load(&format!("{command} {line}")).unwrap().command {
                Command::Perf(PerfCommand::Server(a)) => (a.engine, a.cores),
                Command::Perf(PerfCommand::Client(a)) => (a.engine, a.cores),
                Command::Serve(a) => (a.engine, a.cores),
                Command::Get(a) => (a.engine, a.cores),
                other => panic!("{other:?}"),
            };
            (cores.of(&engine).cpus().to_vec(), cores.spread)
        };
        assert_eq!(cores(""), (vec![None], false));
        assert_eq!(cores("--core 3"), (vec![Some(3)], false));
        assert_eq!(cores("--cores 2-3,7"), (vec![Some(2), Some(3), Some(7)], false));
        assert_eq!(cores("--cores any:2 --spread"), (vec![None; 2], true));
        let refused = |line: &str| why(&format!("{command} {line}"));
        assert!(refused("--cores 0,0").contains("CPU 0 is given twice"));
        assert!(refused("--cores any:65").contains("from 1 to 64"));
        assert!(refused("--cores -1").contains("is not a CPU number"), "{}", refused("--cores -1"));
        assert!(refused("--core 1 --cores 2").contains("cannot be used with"));
        assert!(refused("--spread").contains("--cores"));
        let words: Vec<&str> = command.split(' ').take_while(|word| !word.starts_with('-')).collect();
        let help = load(&format!("{} --help", words.join(" "))).unwrap_err().to_string();
        assert!(help.contains("--cores <LIST>") && help.contains("--spread"), "{help}");
    }
}

#[test]
fn early_data_is_for_those_who_return() {
    let base = format!("get {PORT} --insecure https://10.77.0.1/a https://10.77.0.1/b -o dir");
    for (more, wanted, early) in [("", false, false), ("--resume", true, false), ("--early-data", true, true)] {
        let args = get(&format!("{base} {more}"));
        assert_eq!((args.resume.is_wanted(), args.resume.early_data), (wanted, early), "{more}");
    }
    let serve = format!("serve {PORT} --listen 443 --cert c --key k --root www --early-data");
    assert!(load(&serve).is_ok());
    assert!(why(&format!("{serve} --upload-dir up")).contains("--upload-dir"), "uploads must not be repeated");
}
