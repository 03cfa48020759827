//! quinn on kernel sockets, with segmentation offload if the kernel supports it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use quinn::congestion::CubicConfig;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{
    ClientConfig, Connection, Endpoint, MtuDiscoveryConfig, SendStream, ServerConfig, TransportConfig, VarInt,
};

use super::load::{self, BLOCK};
use super::{HEADERS, WINDOW, tls};
use crate::Failure;
use crate::cli::PeerArgs;
use crate::lab::world::NAME;

/// Runs one end.
///
/// # Errors
/// If it fails.
pub fn run(args: &PeerArgs) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        match (args.listen, args.connect) {
            (Some(listen), _) => serve(args, listen).await,
            (None, Some(remote)) => connect(args, remote).await,
            (None, None) => Err("neither --listen nor --connect is given".into()),
        }
    })
}

fn transport(args: &PeerArgs) -> Arc<TransportConfig> {
    let mut mtu = MtuDiscoveryConfig::default();
    mtu.upper_bound(args.mtu - HEADERS);
    let mut transport = TransportConfig::default();
    transport
        .stream_receive_window(VarInt::from_u32(WINDOW))
        .receive_window(VarInt::from_u32(WINDOW))
        .send_window(u64::from(WINDOW))
        .max_concurrent_bidi_streams(VarInt::from_u32(2048))
        .max_idle_timeout(Some(Duration::from_secs(30).try_into().expect("30 s fit")))
        .congestion_controller_factory(Arc::new(CubicConfig::default()))
        .mtu_discovery_config(Some(mtu));
    Arc::new(transport)
}

async fn serve(args: &PeerArgs, listen: SocketAddr) -> Result<(), Failure> {
    let mut config = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls::server()?)?));
    config.transport_config(transport(args));
    let endpoint = Endpoint::server(config, listen)?;
    println!("ready: {}", endpoint.local_addr()?);
    while let Some(incoming) = endpoint.accept().await {
        tokio::spawn(async move {
            if let Ok(connection) = incoming.await {
                // It ends when the client disconnects.
                let _ = answer_all(connection).await;
            }
        });
    }
    Ok(())
}

async fn answer_all(connection: Connection) -> Result<(), Failure> {
    loop {
        let (send, mut receive) = connection.accept_bi().await?;
        tokio::spawn(async move {
            let mut head = [0; 8];
            receive.read_exact(&mut head).await?;
            while receive.read_chunk(usize::MAX, true).await?.is_some() {}
            answer(send, u64::from_be_bytes(head)).await
        });
    }
}

async fn answer(mut send: SendStream, size: u64) -> Result<(), Failure> {
    let mut left = size;
    while left > 0 {
        let n = left.min(BLOCK.len() as u64);
        // Without a copy, as the block is static.
        send.write_chunk(bytes(n as usize)).await?;
        left -= n;
    }
    send.finish()?;
    Ok(())
}

fn bytes(n: usize) -> bytes::Bytes {
    bytes::Bytes::from_static(&BLOCK[..n])
}

async fn connect(args: &PeerArgs, remote: SocketAddr) -> Result<(), Failure> {
    let mut config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls::client()?)?));
    config.transport_config(transport(args));
    let any = if remote.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let mut endpoint = Endpoint::client(any.parse()?)?;
    endpoint.set_default_client_config(config);
    let connection = endpoint.connect(remote, NAME)?.await?;
    let question: Vec<u8> = load::request(args);
    let ask = || async {
        let (mut send, mut receive) = connection.open_bi().await?;
        send.write_all(&question).await?;
        send.finish()?;
        let mut got = 0;
        while let Some(chunk) = receive.read_chunk(usize::MAX, true).await? {
            got += chunk.bytes.len() as u64;
        }
        Ok(got)
    };
    load::drive(args, ask).await?;
    connection.close(VarInt::from_u32(0), b"done");
    endpoint.wait_idle().await;
    Ok(())
}
