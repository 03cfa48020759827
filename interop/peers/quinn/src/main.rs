//! hq-interop over quinn, and over noq, which is a fork of it. See ../README.md.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use peer_common::{DATAGRAMS, ENOUGH, Failure, REFUSED, Task, WINDOW, came_back, datagram, end, say, tls};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{
    AckFrequencyConfig, Connection, Endpoint, EndpointConfig, MtuDiscoveryConfig, TransportConfig, VarInt,
    default_runtime,
};
use rustls::crypto::{CryptoProvider, aws_lc_rs};

/// Of both roles. Servers know one more.
const CASES: [&str; 13] = [
    "transfer",
    "reset",
    "multiconnect",
    "chacha20",
    "retry",
    "resumption",
    "zerortt",
    "keyupdate",
    "ecn",
    "stopsending",
    "migration",
    "datagrams",
    "ackfrequency",
];

#[tokio::main(worker_threads = 2)]
async fn main() {
    let done = async {
        let task = Arc::new(Task::load(&CASES, &[&CASES[..], &["preferredaddress"]].concat())?);
        if task.is_server { serve(task).await } else { get(task).await }
    };
    end(done.await);
}

fn provider(task: &Task) -> Arc<CryptoProvider> {
    let mut provider = aws_lc_rs::default_provider();
    if task.case == "chacha20" {
        // quinn wants a suite for Initial packets to be there; rustls takes that from the list as well.
        provider.cipher_suites.sort_by_key(|s| s.suite() != rustls::CipherSuite::TLS13_CHACHA20_POLY1305_SHA256);
        if !task.is_server {
            provider.cipher_suites.truncate(1);
        }
    }
    Arc::new(provider)
}

/// The suite of Initial packets (RFC 9001 §5.2).
fn initial_suite() -> rustls::quic::Suite {
    let suites = aws_lc_rs::default_provider().cipher_suites;
    suites
        .iter()
        .find(|s| s.suite() == rustls::CipherSuite::TLS13_AES_128_GCM_SHA256)
        .and_then(|s| s.tls13())
        .and_then(|s| s.quic_suite())
        .expect("AES-128-GCM")
}

fn transport(task: &Task) -> Arc<TransportConfig> {
    let mut discovery = MtuDiscoveryConfig::default();
    discovery.upper_bound(task.payload());
    let mut config = TransportConfig::default();
    config
        .stream_receive_window(WINDOW.into())
        .receive_window(WINDOW.into())
        .send_window(WINDOW.into())
        .max_concurrent_bidi_streams(100_u32.into())
        .max_idle_timeout(Some(VarInt::from_u32(30_000).into()))
        .mtu_discovery_config(Some(discovery));
    if task.case == "ackfrequency" {
        let mut asked = AckFrequencyConfig::default();
        asked.ack_eliciting_threshold(30_u32.into()).max_ack_delay(Some(Duration::from_millis(100)));
        config.ack_frequency_config(Some(asked));
    }
    Arc::new(config)
}

fn endpoint(task: &Task, server: Option<quinn::ServerConfig>) -> Result<Endpoint, Failure> {
    let mut config = EndpointConfig::default();
    config.max_udp_payload_size(task.payload().max(1472))?;
    let addr = match task.case.as_str() {
        "preferredaddress" => (task.any().ip(), task.listen.port()).into(),
        _ if task.is_server => task.listen,
        _ => task.any(),
    };
    let runtime = default_runtime().ok_or("no async runtime")?;
    Ok(Endpoint::new(config, server, std::net::UdpSocket::bind(addr)?, runtime)?)
}

async fn serve(task: Arc<Task>) -> Result<(), Failure> {
    let mut tls = tls::server(&task, provider(&task))?;
    if task.case == "zerortt" {
        tls.max_early_data_size = u32::MAX;
    }
    let crypto = QuicServerConfig::with_initial(Arc::new(tls), initial_suite())?;
    let mut config = quinn::ServerConfig::with_crypto(Arc::new(crypto));
    config.transport_config(transport(&task));
    if task.case == "preferredaddress" {
        config.preferred_address_v4(Some(std::env::var("PREFERRED")?.parse()?));
    }
    let endpoint = endpoint(&task, Some(config))?;
    say("ready");
    while let Some(incoming) = endpoint.accept().await {
        if task.case == "retry" && !incoming.remote_address_validated() {
            let _ = incoming.retry();
            continue;
        }
        let task = Arc::clone(&task);
        tokio::spawn(async move {
            let connection = match incoming.accept() {
                // 0.5-RTT data, as in other servers; requests in 0-RTT need it.
                Ok(connecting) => match connecting.into_0rtt() {
                    Ok((connection, _)) => connection,
                    Err(connecting) => match connecting.await {
                        Ok(connection) => connection,
                        Err(e) => return eprintln!("handshake: {e}"),
                    },
                },
                Err(e) => return eprintln!("accept: {e}"),
            };
            if task.case == "datagrams" {
                tokio::spawn(echo(connection.clone()));
            }
            loop {
                let (mut send, mut recv) = match connection.accept_bi().await {
                    Ok(stream) => stream,
                    Err(e) => return say(&format!("closed {e}")),
                };
                let task = Arc::clone(&task);
                tokio::spawn(async move {
                    let Ok(request) = recv.read_to_end(4096).await else { return };
                    match task.answer(&request) {
                        Some(body) => {
                            if let Err(e) = send.write_all(&body).await {
                                say(&format!("stream {e}"));
                            }
                            let _ = send.finish();
                        }
                        None => drop(send.reset(REFUSED.into())),
                    }
                });
            }
        });
    }
    Ok(())
}

async fn get(task: Arc<Task>) -> Result<(), Failure> {
    let mut tls = tls::client(&task, provider(&task))?;
    tls.enable_early_data = task.case == "zerortt";
    let crypto = QuicClientConfig::with_initial(Arc::new(tls), initial_suite())?;
    let mut config = quinn::ClientConfig::new(Arc::new(crypto));
    config.transport_config(transport(&task));
    let mut endpoint = endpoint(&task, None)?;
    endpoint.set_default_client_config(config);
    let mut all = true;
    for (number, paths) in task.connections().into_iter().enumerate() {
        let connecting = endpoint.connect(task.server, &task.server.ip().to_string())?;
        let connection = if task.case == "zerortt" && number > 0 {
            match connecting.into_0rtt() {
                Ok((connection, accepted)) => {
                    tokio::spawn(async move { say(&format!("accepted {}", accepted.await)) });
                    connection
                }
                Err(_) => return Err("no 0-RTT keys".into()),
            }
        } else {
            connecting.await?
        };
        if task.case == "datagrams" {
            bounce(&connection).await?;
            connection.close(0_u32.into(), b"");
            break;
        }
        let mut paths = paths.into_iter();
        if task.case == "stopsending"
            && let Some(first) = paths.next()
        {
            let (mut send, mut recv) = connection.open_bi().await?;
            send.write_all(format!("GET {first}\r\n").as_bytes()).await?;
            send.finish()?;
            let (mut got, mut block) = (0, [0; 4096]);
            while got < ENOUGH {
                got += recv.read(&mut block).await?.ok_or("too short")? as u64;
            }
            recv.stop(VarInt::from_u32(0x10))?;
        }
        let tasks: Vec<_> = paths
            .map(|path| {
                let (connection, task) = (connection.clone(), Arc::clone(&task));
                tokio::spawn(async move { fetch(&connection, &path, &task).await })
            })
            .collect();
        if task.case == "keyupdate" {
            tokio::time::sleep(Duration::from_millis(100)).await;
            connection.force_key_update();
        }
        if task.case == "migration" {
            tokio::time::sleep(Duration::from_millis(300)).await;
            endpoint.rebind(std::net::UdpSocket::bind(task.any())?)?;
        }
        for one in tasks {
            if let Err(e) = one.await? {
                say(&format!("failed {e}"));
                all = false;
            }
        }
        if number == 0 && matches!(task.case.as_str(), "resumption" | "zerortt") {
            // Tickets may arrive after the file.
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        connection.close(0_u32.into(), b"");
    }
    endpoint.wait_idle().await;
    if all { Ok(()) } else { Err("not all files have arrived".into()) }
}

/// Sends datagrams back.
async fn echo(connection: Connection) {
    while let Ok(datagram) = connection.read_datagram().await {
        if let Err(e) = connection.send_datagram(datagram) {
            say(&format!("datagram {e}"));
        }
    }
}

/// Sends datagrams, and waits until they come back.
async fn bounce(connection: &Connection) -> Result<(), Failure> {
    let mut missing = BTreeSet::new();
    for n in 0..DATAGRAMS {
        connection.send_datagram(datagram(n).into())?;
        missing.insert(datagram(n));
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    while !missing.is_empty()
        && let Ok(got) = tokio::time::timeout(Duration::from_secs(1), connection.read_datagram()).await
    {
        if !missing.remove(&got?[..]) {
            return Err("a datagram that was not sent, or came twice".into());
        }
    }
    came_back(usize::from(DATAGRAMS) - missing.len())
}

async fn fetch(connection: &Connection, path: &str, task: &Task) -> Result<(), Failure> {
    let (mut send, mut recv) = connection.open_bi().await?;
    send.write_all(format!("GET {path}\r\n").as_bytes()).await?;
    send.finish()?;
    let body = recv.read_to_end(usize::MAX).await?;
    tokio::fs::write(task.target(path), body).await?;
    Ok(())
}
