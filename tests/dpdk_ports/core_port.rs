//! `api::CorePort`: applications on several cores of a real port that know nothing of DPDK. Their peers are quinn's, over
//! the kernel.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;

use gannet::api::*;
use gannet::base::cpus;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::CertificateDer;

use crate::kernel::{on_veth, run};
use crate::support::eventually;

const CORES: usize = 4;
/// If a hash spreads them over four queues, one of these stays empty in one of 25 million runs.
const CLIENTS: u16 = 64;
const OURS: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);
const KERNEL: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 2);
const ALPN: &[u8] = b"shout";

type Outcome<T = ()> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// The CPUs of four cores, on a machine with fewer as well.
fn cpus() -> Vec<usize> {
    cpus::allowed().into_iter().cycle().take(CORES).collect()
}

/// Opens `left`, whose other end has the kernel's address.
fn open(spread: bool) -> CorePort {
    run(&format!("ip addr add {KERNEL}/24 dev right"));
    let (settings, addrs) = ([("iface", "left")], [addr()]);
    let open = if spread { CorePort::open_spread } else { CorePort::open };
    open("af-packet", &settings, &addrs, &cpus()).unwrap_or_else(|e| panic!("{e}"))
}

fn addr() -> Cidr {
    format!("{OURS}/24").parse().unwrap()
}

fn tls_options() -> tls::TlsOptions {
    tls::TlsOptions { alpn: vec![ALPN.to_vec()], ..Default::default() }
}

/// Answers in upper case.
struct Shouter<'a> {
    /// Cores that are about to poll.
    started: &'a AtomicU8,
    begun: bool,
    served: u32,
}

impl App for Shouter<'_> {
    fn on_event(&mut self, cx: &mut Context<'_>, conn: ConnId, event: Event) {
        let (Event::Readable { id, .. }, Some(mut conn)) = (event, cx.conn(conn)) else { return };
        while let Some(chunk) = conn.take(id) {
            self.served += u32::from(chunk.is_last());
            let _ = conn.send(id, chunk.to_ascii_uppercase().into(), chunk.is_last());
        }
    }

    fn on_turn(&mut self, _: &mut Context<'_>) {
        if !std::mem::replace(&mut self.begun, true) {
            self.started.fetch_add(1, Ordering::Release);
        }
    }
}

async fn ask(client: u16, config: quinn::ClientConfig) -> Outcome<Vec<u8>> {
    let endpoint = quinn::Endpoint::client(SocketAddr::from((KERNEL, 20_000 + client)))?;
    let connection = endpoint.connect_with(config, (OURS, 4433).into(), "gannet.test")?.await?;
    let (mut send, mut receive) = connection.open_bi().await?;
    send.write_all(format!("client {client}").as_bytes()).await?;
    send.finish()?;
    let answer = receive.read_to_end(100).await?;
    connection.close(0u32.into(), b"");
    endpoint.wait_idle().await;
    Ok(answer)
}

fn ask_all(certificate: &CertificateDer<'static>) -> Outcome {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate.clone())?;
    let mut config = rustls::ClientConfig::builder_with_provider(aws_lc_rs::default_provider().into())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![ALPN.to_vec()];
    let config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(config)?));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let all: Vec<_> = (0..CLIENTS).map(|client| tokio::spawn(ask(client, config.clone()))).collect();
        for (client, asking) in all.into_iter().enumerate() {
            assert_eq!(asking.await??, format!("CLIENT {client}").as_bytes());
        }
        Ok(())
    })
}

fn shout(spread: bool) {
    let port = open(spread);
    let made = rcgen::generate_simple_self_signed(["gannet.test".to_owned()]).unwrap();
    let certificate = made.cert.der().clone();
    let key = made.signing_key.serialize_der().try_into().unwrap();
    let server = tls::server_config(vec![certificate.clone()], key, &tls_options()).unwrap();
    let server = ServerConfig::new(server, TransportConfig::default()).unwrap();
    let group = port.group(endpoint_config().unwrap());
    let (control, started) = (group.control(), AtomicU8::new(0));
    let make = |place: Place| {
        let config = CoreConfig::new(addr(), place.endpoint).serving(4433, server.clone());
        Ok((config, Shouter { started: &started, begun: false, served: 0 }))
    };
    let apps = thread::scope(|scope| {
        let serving = scope.spawn(|| port.run(group, make));
        eventually("the start of all cores", || {
            assert!(!serving.is_finished(), "the group has ended");
            usize::from(started.load(Ordering::Acquire)) == CORES
        });
        let asked = ask_all(&certificate);
        control.stop();
        let apps = serving.join().unwrap().unwrap_or_else(|e| panic!("{e}"));
        asked.unwrap_or_else(|e| panic!("{e}"));
        apps
    });
    let served: Vec<u32> = apps.iter().map(|app| app.served).collect();
    assert_eq!((served.len(), served.iter().sum::<u32>()), (CORES, CLIENTS.into()));
    assert!(served.iter().all(|n| *n > 0), "a core that has served nobody: {served:?}");
}

#[test]
fn an_application_serves_on_four_cores() {
    on_veth("core_port::an_application_serves_on_four_cores", 1500, || shout(false));
}

#[test]
fn an_application_serves_on_four_cores_of_one_queue() {
    on_veth("core_port::an_application_serves_on_four_cores_of_one_queue", 1500, || shout(true));
}

/// Opens two connections, and asks once on each.
struct Asker<'a> {
    config: ClientConfig,
    opened: bool,
    left: u32,
    answers: &'a AtomicU64,
}

impl App for Asker<'_> {
    fn on_turn(&mut self, cx: &mut Context<'_>) {
        if !std::mem::replace(&mut self.opened, true) {
            for _ in 0..2 {
                cx.connect(&self.config, "peer.test", (KERNEL, 4433).into()).unwrap();
            }
        }
    }

    fn on_event(&mut self, cx: &mut Context<'_>, id: ConnId, event: Event) {
        match event {
            Event::Connected { .. } => {
                let mut conn = cx.conn(id).unwrap();
                let stream = conn.open(Dir::Bidi).unwrap();
                conn.send(stream, "please shout".into(), true).unwrap();
            }
            Event::Readable { id: stream, .. } => {
                let mut conn = cx.conn(id).unwrap();
                let mut answer = Vec::new();
                while let Some(chunk) = conn.take(stream) {
                    answer.extend_from_slice(&chunk);
                }
                assert_eq!(answer, b"PLEASE SHOUT");
                self.answers.fetch_add(1, Ordering::Relaxed);
                cx.close(id, 0, "thank you");
            }
            Event::Closed { .. } => self.left -= 1,
            _ => {}
        }
    }

    fn is_done(&self) -> bool {
        self.left == 0
    }
}

/// A server of quinn's that answers in upper case. Returns the ports of the clients of the first `count` connections.
async fn answer(endpoint: quinn::Endpoint, count: usize) -> Outcome<Vec<u16>> {
    let mut ports = Vec::new();
    let mut all = Vec::new();
    while all.len() < count {
        let connection = endpoint.accept().await.ok_or("no endpoint")?.await?;
        ports.push(connection.remote_address().port());
        all.push(tokio::spawn(async move {
            let (mut send, mut receive) = connection.accept_bi().await?;
            send.write_all(&receive.read_to_end(100).await?.to_ascii_uppercase()).await?;
            send.finish()?;
            connection.closed().await;
            Outcome::Ok(())
        }));
    }
    for one in all {
        one.await??;
    }
    Ok(ports)
}

fn serve_quinn(count: usize, ready: impl FnOnce()) -> Outcome<Vec<u16>> {
    let made = rcgen::generate_simple_self_signed(["peer.test".to_owned()])?;
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der())?;
    let mut config = rustls::ServerConfig::builder_with_provider(aws_lc_rs::default_provider().into())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    let config = quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(config)?));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let endpoint = quinn::Endpoint::server(config, SocketAddr::from((KERNEL, 4433)))?;
        ready();
        answer(endpoint, count).await
    })
}

/// Clients on four cores: each connection is from a port of its core.
fn ask_from_four(spread: bool) {
    let port = open(spread);
    let ports = port.client_ports(OURS.into(), (KERNEL, 4433).into(), 2).unwrap();
    let config = tls::insecure_client_config(&tls_options()).unwrap();
    let config = ClientConfig::new(config, TransportConfig::default()).unwrap();
    let answers = AtomicU64::new(0);
    let make = |place: Place| {
        let client_ports = ports[usize::from(place.core)].clone();
        let core = CoreConfig { client_ports, ..CoreConfig::new(addr(), place.endpoint) };
        Ok((core, Asker { config: config.clone(), opened: false, left: 2, answers: &answers }))
    };
    let (ready, is_ready) = mpsc::channel();
    let from = thread::scope(|scope| {
        let serving = scope.spawn(|| serve_quinn(2 * CORES, move || ready.send(()).unwrap()));
        is_ready.recv().expect("a server");
        let group = port.group(endpoint_config().unwrap());
        let apps = port.run(group, make).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(apps.len(), CORES);
        serving.join().unwrap().unwrap_or_else(|e| panic!("{e}"))
    });
    assert_eq!(answers.load(Ordering::Relaxed), 2 * CORES as u64);
    let (mut from, mut ports) = (from, ports.concat());
    from.sort_unstable();
    ports.sort_unstable();
    assert_eq!(from, ports, "a port for each connection");
}

#[test]
fn an_application_asks_from_four_cores() {
    on_veth("core_port::an_application_asks_from_four_cores", 1500, || ask_from_four(false));
}

#[test]
fn an_application_asks_from_four_cores_of_one_queue() {
    on_veth("core_port::an_application_asks_from_four_cores_of_one_queue", 1500, || ask_from_four(true));
}

/// What cannot be opened is refused before DPDK is started, with the limit.
#[test]
fn groups_of_impossible_sizes_are_refused() {
    for count in [0, 65, 300] {
        for open in [CorePort::open, CorePort::open_spread] {
            let error = open("af-packet", &[("iface", "lo")], &[addr()], &vec![0; count]).unwrap_err().to_string();
            assert_eq!(error, format!("{count} cores cannot exchange frames: 1 to 64 can"));
        }
    }
}
