//! An application that sends bytes and has them sent back.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, LazyLock};

use gannet::quic::{
    ClientConfig, CloseReason, Conn, ConnId, Dir, Event, SendData, ServerConfig, StreamId, TransportConfig, tls,
};
use gannet::runtime::{App, Context};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

static TLS: LazyLock<Arc<rustls::ServerConfig>> = LazyLock::new(|| {
    let cert = CertificateDer::from_pem_slice(include_bytes!("../../src/sim/cert.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_slice(include_bytes!("../../src/sim/key.pem")).unwrap();
    tls::server_config(vec![cert], key, &options()).unwrap()
});

fn options() -> tls::TlsOptions {
    tls::TlsOptions { alpn: vec![b"cores".to_vec()], ..tls::TlsOptions::default() }
}

/// The server's settings.
pub fn server_config() -> ServerConfig {
    ServerConfig::new(TLS.clone(), TransportConfig::default()).unwrap()
}

/// The byte that belongs at `at` of a stream of the connection `n`.
fn value(n: usize, at: usize) -> u8 {
    (at ^ at >> 8 ^ at >> 16 ^ n.wrapping_mul(77)) as u8
}

/// Either end.
pub struct Peer {
    /// Connections that a client has yet to open.
    to_open: usize,
    connections: usize,
    bytes: usize,
    /// A client's connections: their numbers, and how many bytes have been sent back.
    mine: HashMap<ConnId, (usize, usize)>,
    /// The number of connections whose bytes have all been sent back.
    pub done: usize,
    /// The number of connections that have ended.
    pub closed: Vec<CloseReason>,
}

impl Peer {
    /// Opens `connections` and sends `bytes` on each.
    pub fn client(connections: usize, bytes: usize) -> Self {
        Self { to_open: connections, connections, bytes, mine: HashMap::new(), done: 0, closed: Vec::new() }
    }

    /// Sends back what it receives.
    pub fn server() -> Self {
        Self::client(0, 0)
    }

    /// Whether everything has been sent back.
    pub fn is_complete(&self) -> bool {
        self.done == self.connections
    }

    fn read(&mut self, conn: &mut Conn<'_>, id: ConnId, stream: StreamId) {
        while let Some(chunk) = conn.take(stream) {
            let Some((n, got)) = self.mine.get_mut(&id) else {
                conn.send(stream, SendData::Bytes(chunk.to_vec().into()), chunk.is_last()).unwrap();
                continue;
            };
            for byte in chunk.iter() {
                assert_eq!(*byte, value(*n, *got), "at {got} of connection {n}");
                *got += 1;
            }
            if chunk.is_last() {
                assert_eq!(*got, self.bytes);
                self.done += 1;
            }
        }
    }
}

impl App for Peer {
    fn on_event(&mut self, cx: &mut Context<'_>, id: ConnId, event: Event) {
        if let Event::Closed { reason } = event {
            self.closed.push(reason);
            return;
        }
        let Some(mut conn) = cx.conn(id) else { return };
        match event {
            Event::Connected { .. } if let Some((n, _)) = self.mine.get(&id) => {
                let stream = conn.open(Dir::Bidi).unwrap();
                let bytes: Vec<u8> = (0..self.bytes).map(|at| value(*n, at)).collect();
                conn.send(stream, SendData::Bytes(bytes.into()), true).unwrap();
            }
            Event::Readable { id: stream, .. } => self.read(&mut conn, id, stream),
            _ => {}
        }
    }

    fn on_turn(&mut self, cx: &mut Context<'_>) {
        while self.to_open > 0 {
            self.to_open -= 1;
            let config =
                ClientConfig::new(tls::insecure_client_config(&options()).unwrap(), TransportConfig::default());
            let id = cx.connect(&config.unwrap(), "sim", SocketAddr::from(([192, 0, 2, 2], 443))).unwrap();
            self.mine.insert(id, (self.to_open, 0));
        }
    }
}
