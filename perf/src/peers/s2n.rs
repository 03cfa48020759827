//! s2n-quic on kernel sockets, with rustls like Gannet.

use std::net::SocketAddr;
use std::sync::Arc;

use s2n_quic::client::Connect;
use s2n_quic::connection::Connection;
use s2n_quic::provider::{io, limits::Limits, tls::rustls as provider};
use s2n_quic::stream::BidirectionalStream;
use s2n_quic::{Client, Server};

use super::load::{self, BLOCK};
use super::{WINDOW, tls};
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

fn limits() -> Result<Limits, Failure> {
    let window = u64::from(WINDOW);
    Ok(Limits::new()
        .with_data_window(window)?
        .with_bidirectional_local_data_window(window)?
        .with_bidirectional_remote_data_window(window)?
        .with_max_send_buffer_size(WINDOW)?
        .with_max_open_remote_bidirectional_streams(2048)?)
}

fn sockets(args: &PeerArgs, address: SocketAddr) -> Result<io::Default, Failure> {
    Ok(io::Default::builder().with_receive_address(address)?.with_max_mtu(args.mtu)?.build()?)
}

async fn serve(args: &PeerArgs, listen: SocketAddr) -> Result<(), Failure> {
    let mut server = Server::builder()
        .with_io(sockets(args, listen)?)?
        .with_limits(limits()?)?
        .with_tls(provider::Server::from(Arc::new(tls::server()?)))?
        .start()?;
    println!("ready: {}", server.local_addr()?);
    while let Some(connection) = server.accept().await {
        tokio::spawn(answer_all(connection));
    }
    Ok(())
}

async fn answer_all(mut connection: Connection) {
    // It ends when the client disconnects.
    while let Ok(Some(stream)) = connection.accept_bidirectional_stream().await {
        tokio::spawn(answer(stream));
    }
}

async fn answer(mut stream: BidirectionalStream) -> Result<(), Failure> {
    let (mut head, mut got) = ([0; 8], 0);
    while let Some(bytes) = stream.receive().await? {
        for byte in bytes.iter().take(8 - got.min(8)) {
            head[got] = *byte;
            got += 1;
        }
    }
    let mut left = u64::from_be_bytes(head);
    while left > 0 {
        let n = left.min(BLOCK.len() as u64);
        stream.send(bytes::Bytes::from_static(&BLOCK[..n as usize])).await?;
        left -= n;
    }
    stream.finish()?;
    Ok(())
}

async fn connect(args: &PeerArgs, remote: SocketAddr) -> Result<(), Failure> {
    let any = if remote.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let client = Client::builder()
        .with_io(sockets(args, any.parse()?)?)?
        .with_limits(limits()?)?
        .with_tls(provider::Client::from(Arc::new(tls::client()?)))?
        .start()?;
    let connection = client.connect(Connect::new(remote).with_server_name(NAME)).await?;
    let question = bytes::Bytes::from(load::request(args));
    let handle = connection.handle();
    let ask = || {
        let (mut handle, question) = (handle.clone(), question.clone());
        async move {
            let mut stream = handle.open_bidirectional_stream().await?;
            stream.send(question).await?;
            stream.finish()?;
            let mut got = 0;
            while let Some(bytes) = stream.receive().await? {
                got += bytes.len() as u64;
            }
            Ok(got)
        }
    };
    load::drive(args, ask).await?;
    connection.close(0u32.into());
    Ok(())
}
