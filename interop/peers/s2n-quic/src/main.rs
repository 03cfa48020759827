//! hq-interop over s2n-quic, with rustls. See ../README.md.

use std::sync::Arc;

use bytes::Bytes;
use peer_common::{ENOUGH, Failure, REFUSED, Task, WINDOW, end, say, tls};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use s2n_quic::client::Connect;
use s2n_quic::provider::address_token;
use s2n_quic::provider::endpoint_limits;
use s2n_quic::provider::io;
use s2n_quic::provider::limits::Limits;
use s2n_quic::provider::tls::rustls as provider;
use s2n_quic::{Client, Server};

const CLIENT: [&str; 9] =
    ["transfer", "reset", "multiconnect", "chacha20", "retry", "resumption", "ecn", "stopsending", "delayedacks"];
const SERVER: [&str; 10] = [
    "reset",
    "keyupdate",
    "transfer",
    "multiconnect",
    "chacha20",
    "retry",
    "resumption",
    "ecn",
    "delayedacks",
    "migration",
];

#[tokio::main(worker_threads = 2)]
async fn main() {
    let done = async {
        let task = Arc::new(Task::load(&CLIENT, &SERVER)?);
        if task.is_server { serve(task).await } else { get(task).await }
    };
    end(done.await);
}

fn crypto(task: &Task) -> Arc<CryptoProvider> {
    let mut crypto = aws_lc_rs::default_provider();
    if task.case == "chacha20" {
        crypto.cipher_suites.retain(|s| s.suite() == rustls::CipherSuite::TLS13_CHACHA20_POLY1305_SHA256);
    }
    Arc::new(crypto)
}

fn limits(task: &Task) -> Result<Limits, Failure> {
    let window = u64::from(WINDOW);
    let mut limits = Limits::new()
        .with_data_window(window)?
        .with_bidirectional_local_data_window(window)?
        .with_bidirectional_remote_data_window(window)?
        .with_max_send_buffer_size(WINDOW)?
        .with_max_open_remote_bidirectional_streams(100)?;
    if task.case == "delayedacks" {
        limits = limits.with_max_ack_delay(std::time::Duration::from_millis(200))?;
    }
    Ok(limits)
}

fn sockets(task: &Task) -> Result<io::Default, Failure> {
    let address = if task.is_server { task.listen } else { task.any() };
    Ok(io::Default::builder().with_receive_address(address)?.with_max_mtu(task.mtu)?.build()?)
}

async fn serve(task: Arc<Task>) -> Result<(), Failure> {
    let tls = tls::server(&task, crypto(&task))?;
    let builder = Server::builder()
        .with_io(sockets(&task)?)?
        .with_limits(limits(&task)?)?
        .with_address_token(address_token::Default::default())?
        .with_tls(provider::Server::from(Arc::new(tls)))?;
    // Retry is asked for when more handshakes than this are in flight.
    let handshakes = if task.case == "retry" { 0 } else { 1000 };
    let limits = endpoint_limits::Default::builder().with_inflight_handshake_limit(handshakes)?.build()?;
    let mut server = builder.with_endpoint_limits(limits)?.start()?;
    say("ready");
    while let Some(mut connection) = server.accept().await {
        let task = Arc::clone(&task);
        tokio::spawn(async move {
            loop {
                match connection.accept_bidirectional_stream().await {
                    Ok(Some(mut stream)) => {
                        let task = Arc::clone(&task);
                        tokio::spawn(async move {
                            let mut request = Vec::new();
                            while let Ok(Some(bytes)) = stream.receive().await {
                                request.extend_from_slice(&bytes);
                            }
                            match task.answer(&request) {
                                Some(body) => {
                                    if let Err(e) = stream.send(Bytes::from(body)).await {
                                        say(&format!("stream {e}"));
                                    }
                                    let _ = stream.finish();
                                }
                                None => drop(stream.reset(REFUSED.into())),
                            }
                        });
                    }
                    Ok(None) => return say("closed"),
                    Err(e) => return say(&format!("closed {e}")),
                }
            }
        });
    }
    Ok(())
}

async fn get(task: Arc<Task>) -> Result<(), Failure> {
    let tls = tls::client(&task, crypto(&task))?;
    let client = Client::builder()
        .with_io(sockets(&task)?)?
        .with_limits(limits(&task)?)?
        .with_tls(provider::Client::from(Arc::new(tls)))?
        .start()?;
    let mut all = true;
    for (number, paths) in task.connections().into_iter().enumerate() {
        let connect = Connect::new(task.server).with_server_name(task.server.ip().to_string());
        let connection = client.connect(connect).await?;
        let mut paths = paths.into_iter();
        if task.case == "stopsending"
            && let Some(first) = paths.next()
        {
            let mut stream = connection.handle().open_bidirectional_stream().await?;
            stream.send(Bytes::from(format!("GET {first}\r\n"))).await?;
            stream.finish()?;
            let mut got = 0;
            while got < ENOUGH {
                got += stream.receive().await?.ok_or("too short")?.len() as u64;
            }
            stream.stop_sending(0x10_u32.into())?;
        }
        let tasks: Vec<_> = paths
            .map(|path| {
                let (mut handle, task) = (connection.handle(), Arc::clone(&task));
                tokio::spawn(async move {
                    let mut stream = handle.open_bidirectional_stream().await?;
                    stream.send(Bytes::from(format!("GET {path}\r\n"))).await?;
                    stream.finish()?;
                    let mut body = Vec::new();
                    while let Some(bytes) = stream.receive().await? {
                        body.extend_from_slice(&bytes);
                    }
                    tokio::fs::write(task.target(&path), body).await?;
                    Ok::<(), Failure>(())
                })
            })
            .collect();
        for one in tasks {
            if let Err(e) = one.await? {
                say(&format!("failed {e}"));
                all = false;
            }
        }
        if number == 0 && task.case == "resumption" {
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        }
        connection.close(0_u32.into());
    }
    // Lets the close be sent.
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    if all { Ok(()) } else { Err("not all files have arrived".into()) }
}
