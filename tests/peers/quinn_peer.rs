//! hq-interop over quinn: a server and a client. Each runs in a process of its own: the test executable once more,
//! inside a namespace, entered by its `quinn_peer_entry` test.

use std::collections::HashSet;
use std::error::Error;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::{Component, Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{
    Connection, Endpoint, EndpointConfig, Incoming, MtuDiscoveryConfig, RecvStream, SendStream, TransportConfig,
    VarInt, default_runtime,
};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::WebPkiClientVerifier;
use rustls::version::TLS13;
use rustls::{ClientConfig, KeyLog, KeyLogFile, RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::netns::End;
use super::{ClientOptions, How, Misbehave, Role, ServerOptions};

/// Environment variable that holds the role of a peer process.
const ROLE: &str = "GANNET_QUINN_PEER";

/// Flow-control window in bytes, far above what is in flight.
const WINDOW: u32 = 64 << 20;

/// Longest request in bytes.
const REQUEST: usize = 4096;

/// Application error code of refused requests.
const REFUSED: u32 = 0x104;

type Failure = Box<dyn Error + Send + Sync>;

/// The command of a peer process at `end`.
pub fn command(end: &End, role: &Role) -> Command {
    let exe = std::env::current_exe().expect("the path of the test executable");
    let mut command = end.command(exe);
    command.args(["--exact", "quinn_peer_entry", "--ignored", "--nocapture", "--test-threads=1"]);
    command.env(ROLE, serde_json::to_string(role).expect("a role is JSON"));
    if let Role::Server(ServerOptions { keylog: Some(path), .. })
    | Role::Client(ClientOptions { keylog: Some(path), .. }) = role
    {
        command.env("SSLKEYLOGFILE", path);
    }
    command
}

/// What a peer process does; in the test itself, where no role is set, nothing.
pub fn entry() {
    let Ok(role) = std::env::var(ROLE) else { return };
    // The test runner has left the cursor behind the test's name.
    say(format_args!(""));
    let code = run(&role).unwrap_or_else(|e| {
        eprintln!("error: {e}");
        2
    });
    std::process::exit(code);
}

#[tokio::main(worker_threads = 2)]
async fn run(role: &str) -> Result<i32, Failure> {
    match serde_json::from_str(role)? {
        Role::Server(options) => serve(options).await,
        Role::Client(options) => {
            let mut code = 0;
            for _ in 0..options.flows {
                code = code.max(download(options.clone()).await?);
            }
            Ok(code)
        }
    }
}

/// Prints one line at once.
fn say(line: std::fmt::Arguments<'_>) {
    let mut out = io::stdout().lock();
    // A test that is gone reads no more.
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// Largest UDP payload in bytes on a link with this MTU, over either IP version.
fn udp_payload(mtu: u16) -> u16 {
    mtu - 48
}

fn transport(mtu: u16, idle_secs: u32) -> Arc<TransportConfig> {
    let mut discovery = MtuDiscoveryConfig::default();
    discovery.upper_bound(udp_payload(mtu));
    let mut config = TransportConfig::default();
    if mtu > 1500 {
        // The search for it would last longer than a small file, and losses at a slow receiver look like a black hole.
        config.min_mtu(udp_payload(mtu)).initial_mtu(udp_payload(mtu));
    }
    config
        .stream_receive_window(WINDOW.into())
        .receive_window(WINDOW.into())
        .send_window(WINDOW.into())
        .max_concurrent_bidi_streams(256_u32.into())
        .max_idle_timeout(Some(VarInt::from_u32(idle_secs * 1000).into()))
        .mtu_discovery_config(Some(discovery));
    Arc::new(config)
}

fn endpoint(addr: SocketAddr, mtu: u16, server: Option<quinn::ServerConfig>) -> Result<Endpoint, Failure> {
    let mut config = EndpointConfig::default();
    // Limits what may be received: the default would refuse jumbo frames.
    config.max_udp_payload_size(udp_payload(mtu).max(1472))?;
    let runtime = default_runtime().ok_or("no async runtime")?;
    Ok(Endpoint::new(config, server, std::net::UdpSocket::bind(addr)?, runtime)?)
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// Writes secrets only when `SSLKEYLOGFILE` is set.
fn key_log() -> Arc<dyn KeyLog> {
    Arc::new(KeyLogFile::new())
}

async fn serve(options: ServerOptions) -> Result<i32, Failure> {
    let chain = CertificateDer::pem_file_iter(&options.cert)?.collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_file(&options.key)?;
    let tls = ServerConfig::builder_with_provider(provider()).with_protocol_versions(&[&TLS13])?;
    let tls = match &options.client_ca {
        Some(ca) => {
            let roots = Arc::new(roots(ca)?);
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider()).build()?;
            tls.with_client_cert_verifier(verifier)
        }
        None => tls.with_no_client_auth(),
    };
    let mut tls = tls.with_single_cert(chain, key)?;
    tls.alpn_protocols = vec![options.alpn.clone().into_bytes()];
    tls.key_log = key_log();
    tls.max_early_data_size = if options.early_data { u32::MAX } else { 0 };
    let mut config = quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls)?));
    config.transport_config(transport(options.mtu, options.idle_secs));
    let endpoint = endpoint(options.listen, options.mtu, Some(config))?;
    say(format_args!("ready {}", endpoint.local_addr()?));
    let options = Arc::new(options);
    while let Some(incoming) = endpoint.accept().await {
        tokio::spawn(serve_connection(incoming, Arc::clone(&options)));
    }
    Ok(0)
}

async fn serve_connection(incoming: Incoming, options: Arc<ServerOptions>) {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    if options.retry && !incoming.remote_address_validated() {
        say(format_args!("retry"));
        return incoming.retry().unwrap_or_else(|e| eprintln!("retry: {e}"));
    }
    let connection = match incoming.await {
        Ok(connection) => connection,
        Err(e) => return eprintln!("handshake: {e}"),
    };
    say(format_args!("connection {}", COUNT.fetch_add(1, Ordering::Relaxed) + 1));
    tokio::spawn(echo(connection.clone()));
    loop {
        let (send, recv) = match connection.accept_bi().await {
            Ok(stream) => stream,
            Err(e) => return eprintln!("connection: {e}"),
        };
        let (connection, options) = (connection.clone(), Arc::clone(&options));
        tokio::spawn(async move {
            if let Err(e) = answer(send, recv, &connection, &options).await {
                eprintln!("request: {e}");
            }
        });
    }
}

/// Sends datagrams back.
async fn echo(connection: Connection) {
    while let Ok(datagram) = connection.read_datagram().await {
        if let Err(e) = connection.send_datagram(datagram) {
            eprintln!("datagram: {e}");
        }
    }
}

/// Sends `count` datagrams, one every millisecond, and returns how many of them came back.
async fn bounce(connection: &Connection, count: u32) -> Result<u32, Failure> {
    let mut missing: HashSet<Vec<u8>> = HashSet::new();
    for n in 0..count {
        let mut data = vec![n as u8; 16 + n as usize % 1000];
        data[..4].copy_from_slice(&n.to_be_bytes());
        missing.insert(data.clone());
        connection.send_datagram(data.into())?;
        tokio::time::sleep(Duration::from_millis(1)).await;
        while let Ok(datagram) = tokio::time::timeout(Duration::ZERO, connection.read_datagram()).await {
            if !missing.remove(&datagram?[..]) {
                return Err("a datagram that was not sent, or came twice".into());
            }
        }
    }
    while !missing.is_empty() {
        let Ok(datagram) = tokio::time::timeout(Duration::from_secs(1), connection.read_datagram()).await else {
            break;
        };
        if !missing.remove(&datagram?[..]) {
            return Err("a datagram that was not sent, or came twice".into());
        }
    }
    Ok(count - missing.len() as u32)
}

async fn answer(
    mut send: SendStream,
    mut recv: RecvStream,
    connection: &Connection,
    options: &ServerOptions,
) -> Result<(), Failure> {
    let request = String::from_utf8(recv.read_to_end(REQUEST).await?)?;
    let path = request.strip_prefix("GET ").and_then(|r| r.strip_suffix("\r\n"));
    let path = path.ok_or_else(|| format!("not a GET line: {request:?}"))?;
    say(format_args!("request {path}"));
    let opened = match local(&options.root, path) {
        Some(file) => tokio::fs::File::open(file).await,
        None => Err(io::ErrorKind::PermissionDenied.into()),
    };
    let Ok(mut file) = opened else {
        send.reset(REFUSED.into())?;
        return Err(format!("no file for {path}").into());
    };
    let Some(Misbehave { after, how }) = options.misbehave else {
        tokio::io::copy(&mut file, &mut send).await?;
        return Ok(send.finish()?);
    };
    tokio::io::copy(&mut file.take(after), &mut send).await?;
    // What a reset or a close overtakes is not sent at all: give it a head start.
    tokio::time::sleep(Duration::from_millis(200)).await;
    match how {
        How::Stall => {}
        How::Close => connection.close(REFUSED.into(), b"misbehaving"),
        How::Reset => send.reset(REFUSED.into())?,
    }
    say(format_args!("misbehaved {path}"));
    // Dropping the stream would finish it.
    std::future::pending().await
}

/// The file that a request means; none when it would leave `root`.
fn local(root: &Path, path: &str) -> Option<PathBuf> {
    let relative = Path::new(path.strip_prefix('/')?);
    relative.components().all(|c| matches!(c, Component::Normal(_))).then(|| root.join(relative))
}

/// The authorities in a PEM file.
fn roots(path: &Path) -> Result<RootCertStore, Failure> {
    let mut roots = RootCertStore::empty();
    for cert in CertificateDer::pem_file_iter(path)? {
        roots.add(cert?)?;
    }
    Ok(roots)
}

async fn download(options: ClientOptions) -> Result<i32, Failure> {
    let tls = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .with_root_certificates(roots(&options.ca)?);
    let mut tls = match &options.identity {
        Some([cert, key]) => {
            let chain = CertificateDer::pem_file_iter(cert)?.collect::<Result<Vec<_>, _>>()?;
            tls.with_client_auth_cert(chain, PrivateKeyDer::from_pem_file(key)?)?
        }
        None => tls.with_no_client_auth(),
    };
    tls.alpn_protocols = vec![options.alpn.clone().into_bytes()];
    tls.key_log = key_log();
    tls.enable_early_data = options.returns.is_some();
    let mut config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?));
    config.transport_config(transport(options.mtu, options.idle_secs));
    let any =
        SocketAddr::new(if options.remote.is_ipv4() { [0; 4].into() } else { IpAddr::V6(Ipv6Addr::UNSPECIFIED) }, 0);
    let endpoint = endpoint(any, options.mtu, None)?;
    let name = options.name.clone().unwrap_or_else(|| options.remote.ip().to_string());
    let paths = &options.paths[..];
    let connection = endpoint.connect_with(config.clone(), options.remote, &name)?.await?;
    say(format_args!("connected"));
    if options.datagrams > 0 {
        say(format_args!("returned {}", bounce(&connection, options.datagrams).await?));
    }
    if let Some(go) = &options.returns {
        let (first, others) = paths.split_at(1);
        let code = fetch_all(&connection, first, &options.out).await?;
        connection.close(0_u32.into(), b"done");
        say(format_args!("returns"));
        while code == 0 && !go.exists() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let early = endpoint.connect_with(config, options.remote, &name)?.into_0rtt();
        let (again, accepted) = early.map_err(|_| "0-RTT is not possible")?;
        let mut code = fetch_all(&again, others, &options.out).await?;
        // quinn leaves it to its applications to send again what was rejected.
        let accepted = accepted.await;
        say(format_args!("early {accepted}"));
        if !accepted {
            code = fetch_all(&again, others, &options.out).await?;
        }
        again.close(0_u32.into(), b"done");
        endpoint.wait_idle().await;
        return Ok(code);
    }
    let code = fetch_all(&connection, paths, &options.out).await?;
    connection.close(0_u32.into(), b"done");
    endpoint.wait_idle().await;
    Ok(code)
}

/// Downloads all files at once.
async fn fetch_all(connection: &Connection, paths: &[String], out: &Path) -> Result<i32, Failure> {
    let fetches = paths.iter().map(|path| {
        let (connection, path) = (connection.clone(), path.clone());
        let name = path.rsplit('/').next().filter(|n| !n.is_empty()).unwrap_or("index");
        let file = out.join(name);
        tokio::spawn(async move {
            let fetched = fetch(&connection, &path, &file).await;
            match &fetched {
                Ok((bytes, sha256)) => say(format_args!("ok {path} {bytes} {sha256}")),
                Err(e) => say(format_args!("failed {path} {e}")),
            }
            fetched.is_ok()
        })
    });
    let mut code = 0;
    for fetch in fetches.collect::<Vec<_>>() {
        if !fetch.await? {
            code = 1;
        }
    }
    Ok(code)
}

/// Length in bytes and SHA-256 of a file, downloaded to `file`. What came of an incomplete one is kept there.
async fn fetch(connection: &Connection, path: &str, file: &Path) -> Result<(u64, String), Failure> {
    let (mut send, mut recv) = connection.open_bi().await?;
    send.write_all(format!("GET {path}\r\n").as_bytes()).await?;
    send.finish()?;
    let (mut hash, mut bytes) = (Sha256::new(), 0);
    let mut out = tokio::fs::File::create(file).await?;
    let mut block = vec![0; 1 << 18];
    while let Some(n) = recv.read(&mut block).await? {
        if bytes == 0 {
            say(format_args!("receiving {path}"));
        }
        hash.update(&block[..n]);
        out.write_all(&block[..n]).await?;
        out.flush().await?;
        bytes += n as u64;
    }
    Ok((bytes, super::files::hex(&hash.finalize())))
}
