//! An engine under attack, driven manually.

use std::net::SocketAddr;
use std::sync::{Arc, LazyLock};

use gannet::base::Side;
use gannet::base::time::{Duration, Instant};
use gannet::mem::BufPool;
use gannet::quic::{
    CidInfo, ClientConfig, CloseReason, ConnId, DropReason, Endpoint, EndpointConfig, Event, RxMeta, ServerConfig,
    Transmit, TransportConfig, tls,
};
use gannet::wire::quic::{ConnectionId, TransportError};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::peer::Peer;

/// The simulator's certificate, for "sim".
const CERT: &str = include_str!("../../src/sim/cert.pem");
const KEY: &str = include_str!("../../src/sim/key.pem");

fn options() -> tls::TlsOptions {
    let groups = vec![tls::Group::X25519];
    tls::TlsOptions { alpn: vec![b"hostile".to_vec()], groups, ..tls::TlsOptions::default() }
}

/// The simulator's certificate chain and key.
pub fn certificate() -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    let cert = CertificateDer::from_pem_slice(CERT.as_bytes()).unwrap();
    (vec![cert], PrivateKeyDer::from_pem_slice(KEY.as_bytes()).unwrap())
}

pub static SERVER_TLS: LazyLock<Arc<rustls::ServerConfig>> = LazyLock::new(|| {
    let (chain, key) = certificate();
    tls::server_config(chain, key, &options()).unwrap()
});

pub static CLIENT_TLS: LazyLock<Arc<rustls::ClientConfig>> = LazyLock::new(|| {
    let mut config = (*tls::insecure_client_config(&options()).unwrap()).clone();
    config.resumption = rustls::client::Resumption::disabled();
    Arc::new(config)
});

/// The clients' address.
pub fn client_addr() -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1], 50_000))
}

/// The servers' address.
pub fn server_addr() -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 2], 443))
}

/// An address of `side`.
pub fn addr(side: Side) -> SocketAddr {
    if side == Side::Client { client_addr() } else { server_addr() }
}

/// Settings with low limits.
pub fn small() -> TransportConfig {
    TransportConfig {
        max_data: 6000,
        stream_window_bidi_local: 4000,
        stream_window_bidi_remote: 4000,
        stream_window_uni: 4000,
        max_streams_bidi: 3,
        max_streams_uni: 3,
        ..TransportConfig::default()
    }
}

/// An endpoint's settings.
pub fn endpoint_config(side: Side) -> EndpointConfig {
    let n = if side == Side::Client { 3 } else { 7 };
    EndpointConfig {
        core: n,
        max_connections: 100,
        max_handshakes: 50,
        reset_rate: 100,
        ..EndpointConfig::from_seed([n; 32])
    }
}

/// The connection ID that an endpoint with this configuration makes for the connection at `index` with `generation`.
pub fn own_id(config: &EndpointConfig, index: u32, generation: u32, sequence: u16) -> ConnectionId {
    config.cid_codec().encode(CidInfo { core: config.core, index, generation, sequence })
}

/// One engine and its output.
pub struct Host {
    pub side: Side,
    pub endpoint: Endpoint,
    pub now: Instant,
    pub events: Vec<(ConnId, Event)>,
    pub conn: Option<ConnId>,
    /// ECN codepoint that datagrams arrive with.
    pub ecn: u8,
    slot: Vec<u8>,
}

impl Host {
    /// A server.
    pub fn server(transport: TransportConfig) -> Self {
        Self::server_on(transport, BufPool::heap())
    }

    /// A server whose pooled streams have the memory of `pool`.
    pub fn server_on(transport: TransportConfig, pool: BufPool) -> Self {
        let config = ServerConfig::new(SERVER_TLS.clone(), transport).unwrap();
        Self::new(Side::Server, Endpoint::new(endpoint_config(Side::Server), Some(config), pool))
    }

    /// A server with the given settings of its endpoint.
    pub fn server_with(endpoint: EndpointConfig, transport: TransportConfig) -> Self {
        let config = ServerConfig::new(SERVER_TLS.clone(), transport).unwrap();
        Self::new(Side::Server, Endpoint::new(endpoint, Some(config), BufPool::heap()))
    }

    /// A client that has started to connect.
    pub fn client(transport: TransportConfig) -> Self {
        let mut this = Self::idle_client();
        this.connect(transport);
        this
    }

    /// A client without a connection.
    pub fn idle_client() -> Self {
        Self::new(Side::Client, Endpoint::new(endpoint_config(Side::Client), None, BufPool::heap()))
    }

    /// Starts a connection to the server.
    pub fn connect(&mut self, transport: TransportConfig) {
        self.connect_with(ClientConfig::new(CLIENT_TLS.clone(), transport).unwrap());
    }

    /// The same with these settings.
    pub fn connect_with(&mut self, config: ClientConfig) {
        let conn = self.endpoint.connect(self.now, &config, "sim", client_addr(), server_addr());
        self.conn = Some(conn.unwrap());
    }

    pub fn new(side: Side, endpoint: Endpoint) -> Self {
        let now = Instant::from_nanos(1_000_000_000);
        Self { side, endpoint, now, events: Vec::new(), conn: None, ecn: 0, slot: vec![0; 2048] }
    }

    /// Receives a datagram from the usual address.
    pub fn receive(&mut self, mut data: Vec<u8>) {
        self.receive_from(addr(self.side.peer()), &mut data);
    }

    /// A datagram arrives.
    pub fn receive_from(&mut self, remote: SocketAddr, data: &mut [u8]) {
        let meta = RxMeta { local: addr(self.side), remote, ecn: self.ecn };
        self.endpoint.handle_datagram(self.now, &meta, data);
    }

    /// Takes the events.
    pub fn poll(&mut self) {
        while let Some((id, event)) = self.endpoint.poll_event() {
            if self.side == Side::Server {
                self.conn = Some(id);
            }
            self.events.push((id, event));
        }
    }

    /// Does everything possible now; returns the datagrams sent.
    pub fn run(&mut self) -> Vec<(Transmit, Vec<u8>)> {
        let mut out = Vec::new();
        loop {
            if self.endpoint.next_timeout().is_some_and(|at| at <= self.now) {
                self.endpoint.handle_timeout(self.now);
            }
            let before = (self.events.len(), out.len());
            self.poll();
            while let Some(transmit) = self.endpoint.poll_transmit(self.now, &mut self.slot) {
                out.push((transmit, self.slot[..transmit.len].to_vec()));
            }
            if before == (self.events.len(), out.len()) {
                return out;
            }
        }
    }

    /// Lets `time` pass, timer by timer; returns the datagrams sent.
    pub fn wait(&mut self, time: Duration) -> Vec<(Transmit, Vec<u8>)> {
        let until = self.now + time;
        let mut out = self.run();
        while let Some(at) = self.endpoint.next_timeout().filter(|at| *at <= until) {
            self.now = self.now.max(at);
            out.append(&mut self.run());
        }
        self.now = until;
        out.append(&mut self.run());
        out
    }

    /// Number of packets dropped for this reason.
    pub fn drops(&self, why: DropReason) -> u64 {
        self.endpoint.stats().drops[why as usize]
    }

    /// Why the connection ended, if it did.
    pub fn closed(&self) -> Option<&CloseReason> {
        self.events.iter().find_map(|(_, event)| match event {
            Event::Closed { reason } => Some(reason),
            _ => None,
        })
    }

    /// The transport error that this end closed the connection with.
    pub fn error(&self) -> Option<TransportError> {
        match self.closed() {
            Some(CloseReason::Transport { code, .. }) => Some(TransportError(*code)),
            _ => None,
        }
    }
}

/// Carries datagrams between both until neither has anything to send.
pub fn exchange(host: &mut Host, peer: &mut Peer) {
    for _ in 0..50 {
        let said: Vec<_> = peer.out.drain(..).collect();
        let quiet = said.is_empty();
        said.into_iter().for_each(|datagram| host.receive(datagram));
        let heard = host.run();
        if quiet && heard.is_empty() {
            return;
        }
        heard.iter().for_each(|(_, datagram)| peer.receive(datagram));
    }
    panic!("they never stop talking");
}

/// A server that has answered the first packet of an untrusted client, which has read the answer.
pub fn greeted(transport: TransportConfig) -> (Host, Peer) {
    let mut host = Host::server(transport);
    let mut peer = Peer::client(client_addr(), 1, |params| params.to_bytes());
    peer.out.drain(..).for_each(|datagram| host.receive(datagram));
    host.run().iter().for_each(|(_, datagram)| peer.receive(datagram));
    (host, peer)
}

/// A connected server and untrusted client.
pub fn against_server(transport: TransportConfig) -> (Host, Peer) {
    let mut host = Host::server(transport);
    let mut peer = Peer::client(client_addr(), 1, |params| params.to_bytes());
    exchange(&mut host, &mut peer);
    assert!(peer.is_connected() && peer.handshake_done && host.closed().is_none());
    (host, peer)
}

/// A client that waits for the answer of an untrusted server, which has read what the client sent.
pub fn waiting_client(transport: TransportConfig) -> (Host, Peer) {
    let mut host = Host::client(transport);
    let first = host.run();
    let mut peer = Peer::server(server_addr(), &first[0].1, |params| params.to_bytes());
    first.iter().for_each(|(_, datagram)| peer.receive(datagram));
    (host, peer)
}

/// A connected client and untrusted server.
pub fn against_client(transport: TransportConfig) -> (Host, Peer) {
    let (mut host, mut peer) = waiting_client(transport);
    exchange(&mut host, &mut peer);
    assert!(peer.is_connected() && host.closed().is_none());
    (host, peer)
}
