//! The whole stack on four cores of one port. The clients are quinn's, over the kernel, each from a port of its own.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use gannet::api::{CoreConfig, EndpointConfig, ServerConfig, TransportConfig};
use gannet::base::rng::Rng;
use gannet::datapath::Datapath;
use gannet::datapath::exchange::Exchange;
use gannet::datapath::spread::Scatter;
use gannet::dpdk::{Eal, Port, RxMbuf, ThreadGuard, mesh};
use gannet::mem::{BufPool, Hugepages, PoolConfig};
use gannet::proto::hq::{ALPN, FILE_PATIENCE, HqServer, HqServerConfig};
use gannet::quic::tls::{self, TlsOptions};
use gannet::runtime::{Control, Core, Crew, Failure, Group, Place};
use quinn::crypto::rustls::QuicClientConfig;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::kernel::{on_veth, run};
use crate::support::*;

const CORES: u8 = 4;
const CLIENTS: u16 = 64;
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);
const KERNEL: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 2);
const PORT: u16 = 4433;
/// Bytes of the file that each client gets.
const FILE: usize = 300_000;

/// Shared by the servers of all cores.
struct Team<'a> {
    eal: &'a Eal,
    dir: &'a Path,
    tls: Arc<rustls::ServerConfig>,
    ready: AtomicBool,
}

/// The counters of a core.
type Counters = HashMap<&'static str, u64>;

impl<D: Datapath, X: Exchange<D::Rx>> Crew<D, X> for Team<'_> {
    type App = HqServer;
    type Guard = ThreadGuard;
    type Yield = Counters;

    fn enter(&self, _: u8) -> Result<ThreadGuard, Failure> {
        Ok(self.eal.register_thread()?)
    }

    fn make(&self, place: Place) -> Result<(CoreConfig, HqServer), Failure> {
        let pool =
            BufPool::new(PoolConfig { limit_bytes: 64 << 20, hugepages: Hugepages::Never, ..PoolConfig::default() })?;
        let mut transport = TransportConfig::default();
        HqServer::adapt(&mut transport, &pool);
        let server = ServerConfig::new(self.tls.clone(), transport)?;
        let app =
            HqServerConfig { root: self.dir.to_owned(), uploads: None, preload: 1 << 20, file_patience: FILE_PATIENCE };
        let app = HqServer::new(&app, &pool)?;
        let addr = format!("{SERVER}/24").parse().expect("an address");
        Ok((CoreConfig { pool, ..CoreConfig::new(addr, place.endpoint).serving(PORT, server) }, app))
    }

    fn ready(&self) {
        self.ready.store(true, Ordering::Release);
    }

    fn finish(&self, core: Core<D, HqServer, X>) -> Counters {
        core.counters().collect()
    }
}

/// Serves a file on `queues` while 64 clients download it, each over a flow of its own. Returns the counters of the
/// cores.
fn serve<D>(eal: &Eal, queues: Vec<D>) -> Vec<Counters>
where
    D: Datapath<Rx = RxMbuf> + Send,
{
    let dir = scratch();
    let file: Vec<u8> = (0..FILE as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    std::fs::write(dir.path().join("file"), &file).unwrap();
    let (certificate, key) = identity();
    let options = TlsOptions { alpn: vec![ALPN.to_vec()], ..TlsOptions::default() };
    let tls = tls::server_config(vec![certificate.clone()], key, &options).unwrap();
    let team = Team { eal, dir: dir.path(), tls, ready: AtomicBool::new(false) };
    let group = Group::new(CORES, EndpointConfig::from_seed([7; 32]));
    let control: Control = group.control();
    let ends = mesh::<RxMbuf>(eal, CORES, None).unwrap();
    thread::scope(|scope| {
        let server = scope.spawn(|| group.run_crew(queues, ends, &team));
        eventually("the start of all cores", || {
            assert!(!server.is_finished(), "the group has ended");
            team.ready.load(Ordering::Acquire)
        });
        let outcome = clients(&certificate, &file);
        control.stop();
        let counters = server.join().unwrap().unwrap_or_else(|e| panic!("{e}"));
        for (core, counters) in counters.iter().enumerate() {
            let mut all: Vec<_> = counters.iter().filter(|(_, n)| **n > 0).collect();
            all.sort();
            println!("core {core}: {all:?}");
        }
        assert_eq!(outcome, vec![Ok(()); usize::from(CLIENTS)], "every client is served");
        counters
    })
}

fn identity() -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
    let made = rcgen::generate_simple_self_signed(["gannet.test".to_owned()]).unwrap();
    (made.cert.der().clone(), PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into()))
}

/// Downloads the file over 64 connections at a time, and compares it.
fn clients(certificate: &CertificateDer<'static>, file: &[u8]) -> Vec<Result<(), String>> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate.clone()).unwrap();
    // One key share, so that the first flight is a single packet: if every packet goes to a random core, halves of it
    // on two cores would be two incomplete handshakes.
    let provider = CryptoProvider { kx_groups: vec![aws_lc_rs::kx_group::X25519], ..aws_lc_rs::default_provider() };
    let mut config = rustls::ClientConfig::builder_with_provider(provider.into())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![ALPN.to_vec()];
    let config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(config).unwrap()));
    let file: Arc<[u8]> = file.into();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let all: Vec<_> = (0..CLIENTS)
            .map(|client| {
                let (config, file) = (config.clone(), file.clone());
                tokio::spawn(tokio::time::timeout(Duration::from_secs(40), async move {
                    get(client, config, &file).await.map_err(|e| format!("client {client}: {e}"))
                }))
            })
            .collect();
        let mut outcome = Vec::new();
        for client in all {
            let result = client.await.unwrap();
            outcome.push(result.unwrap_or_else(|_| Err("no answer in time".to_owned())));
        }
        outcome
    })
}

async fn get(client: u16, config: quinn::ClientConfig, file: &[u8]) -> Result<(), Failure> {
    let endpoint = quinn::Endpoint::client(SocketAddr::from((KERNEL, 20_000 + client)))?;
    let connection = endpoint.connect_with(config, SocketAddr::from((SERVER, PORT)), "gannet.test")?.await?;
    let (mut send, mut receive) = connection.open_bi().await?;
    send.write_all(b"GET /file\r\n").await?;
    send.finish()?;
    let got = receive.read_to_end(2 * FILE).await?;
    connection.close(0u32.into(), b"");
    endpoint.wait_idle().await;
    if got == file { Ok(()) } else { Err(format!("{} bytes, not those of the file", got.len()).into()) }
}

/// Checks what must hold wherever packets arrive.
fn check(counters: &[Counters]) {
    assert_eq!(counters.len(), usize::from(CORES));
    let sum = |name: &str| counters.iter().map(|core| core[name]).sum::<u64>();
    assert!(sum("quic_handshakes") >= u64::from(CLIENTS));
    for name in ["quic_resets_sent", "core_exchange_full", "port_spread_full", "port_rx_out_of_bounds"] {
        assert_eq!(sum(name), 0, "{name}");
    }
    assert!(counters.iter().all(|core| core["quic_handshakes"] > 0), "a core that has served nobody");
}

fn handed_over(counters: &[Counters]) -> u64 {
    counters.iter().map(|core| core["core_handed_over"]).sum()
}

fn four(eal: &Eal, name: &str, iface: &str) -> Port {
    let port = Port::open(eal, &profile(name, &[("iface", iface), ("queues", "4")]).for_cores(4).unwrap()).unwrap();
    run(&format!("ip link set {iface} up"));
    port
}

#[test]
fn af_packet_serves_64_flows_on_four_cores() {
    on_veth("cores::af_packet_serves_64_flows_on_four_cores", 1500, || {
        run(&format!("ip addr add {KERNEL}/24 dev right"));
        let eal = eal();
        let mut port = four(&eal, "af-packet", "left");
        let before = port.buffers();
        let counters = serve(&eal, port.take_queues());
        check(&counters);
        assert_eq!(handed_over(&counters), 0, "the kernel keeps flows together");
        assert_eq!(port.buffers(), before, "every buffer is back");
    });
}

#[test]
fn a_tap_serves_64_flows_on_four_cores() {
    on_veth("cores::a_tap_serves_64_flows_on_four_cores", 1500, || {
        let eal = eal();
        let mut port = four(&eal, "tap", "gannet-cores");
        run(&format!("ip addr add {KERNEL}/24 dev gannet-cores"));
        let before = port.buffers();
        let counters = serve(&eal, port.take_queues());
        check(&counters);
        assert_eq!(port.buffers(), before, "every buffer is back");
    });
}

/// Each packet goes to a random core first. None is lost, no connection is reset, files are complete, and every buffer
/// is returned, whichever core freed it.
#[test]
fn packets_that_arrive_anywhere_find_their_connections() {
    on_veth("cores::packets_that_arrive_anywhere_find_their_connections", 1500, || {
        run(&format!("ip addr add {KERNEL}/24 dev right"));
        let eal = eal();
        let mut port = four(&eal, "af-packet", "left");
        let before = port.buffers();
        let scatter = mesh::<RxMbuf>(&eal, CORES, None).unwrap();
        let queues = (0..).zip(port.take_queues().into_iter().zip(scatter));
        let queues = queues.map(|(core, (queue, end))| Scatter::new(queue, end, core, Rng::from_u64(core.into())));
        let counters = serve(&eal, queues.collect());
        check(&counters);
        let received: u64 = counters.iter().map(|core| core["port_rx_frames"]).sum();
        let handed = handed_over(&counters);
        // Three quarters of the packets of a connection arrive at a wrong core.
        assert!(handed > received / 2 && handed < received, "{handed} of {received} handed over");
        assert_eq!(port.buffers(), before, "every buffer is back");
    });
}

/// A port with one queue pair, shared by four cores.
#[test]
fn one_queue_serves_64_flows_on_four_cores() {
    on_veth("cores::one_queue_serves_64_flows_on_four_cores", 1500, || {
        run(&format!("ip addr add {KERNEL}/24 dev right"));
        let eal = eal();
        let one = profile("af-packet", &[("iface", "left")]).spread_over(CORES.into()).unwrap();
        let mut port = Port::open(&eal, &one).unwrap();
        let before = port.buffers();
        let queues = port.take_spread(&eal).unwrap();
        let counters = serve(&eal, queues);
        check(&counters);
        assert_eq!(handed_over(&counters), 0, "flows stay together");
        assert_eq!(port.buffers(), before, "every buffer is back");
    });
}
