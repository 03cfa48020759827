//! What the examples have in common: two cores in one thread, with a simulated link between them.
//!
//! On real ports each core has a thread of its own and calls [`Core::run`]; the applications are the same.

use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;

use gannet::api::*;
use gannet::datapath::sim::{SimConfig, SimLink, SimPort};

/// What can go wrong.
pub type Failure = Box<dyn Error>;

/// Where the server listens.
pub fn server_addr() -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1], 443))
}

fn tls_options() -> tls::TlsOptions {
    tls::TlsOptions { alpn: vec![b"example".to_vec()], ..tls::TlsOptions::default() }
}

/// Settings of a client that trusts everybody, which only an example should.
pub fn client_config(transport: TransportConfig) -> Result<ClientConfig, Failure> {
    Ok(ClientConfig { tls: tls::insecure_client_config(&tls_options())?, transport: Arc::new(transport) })
}

/// A core on the simulated link.
pub type SimCore<A> = Core<SimPort, A>;

/// A server's core and a client's, joined by a link of `mtu` bytes.
pub fn cores<S: App, C: App>(
    mtu: u16,
    server: S,
    client: C,
    pool: BufPool,
) -> Result<(SimCore<S>, SimCore<C>), Failure> {
    let identity = rcgen::generate_simple_self_signed(["server.example".to_owned()])?;
    let key = rustls::pki_types::PrivateKeyDer::try_from(identity.signing_key.serialize_der())?;
    let payload = TransportConfig { max_udp_payload: mtu - 28, ..TransportConfig::default() };
    let server_config = ServerConfig {
        tls: tls::server_config(vec![identity.cert.der().clone()], key, &tls_options())?,
        transport: Arc::new(payload),
    };
    let core_config = |addr: &str, server: Option<ServerConfig>, pool| -> Result<CoreConfig, Failure> {
        Ok(CoreConfig {
            net: NetConfig { addrs: vec![addr.parse()?], ..NetConfig::default() },
            endpoint: endpoint_config()?,
            listen: server.as_ref().map(|_| 443),
            server,
            client_port: 50_000,
            pool,
            idle: Idle::Yield,
        })
    };
    let (a, b) = SimLink::pair(SimConfig { mtu, ..SimConfig::default() });
    let server = Core::new(a, core_config("192.0.2.1/24", Some(server_config), BufPool::heap())?, server)?;
    let client = Core::new(b, core_config("192.0.2.2/24", None, pool)?, client)?;
    Ok((server, client))
}

/// Answers the first bytes on each stream with `len` bytes, a piece of 1 MiB at a time and without ever having them all.
pub struct Source {
    pub len: u64,
    piece: Bytes,
    queued: u64,
    conn: Option<(ConnId, StreamId)>,
}

impl Source {
    pub fn new(len: u64) -> Self {
        Self { len, piece: Bytes::from(vec![7; 1 << 20]), queued: 0, conn: None }
    }

    fn write(&mut self, cx: &mut Context<'_>) {
        let Some((conn, id)) = self.conn else { return };
        let Some(mut conn) = cx.conn(conn) else { return };
        while self.queued < self.len {
            let n = (self.len - self.queued).min(self.piece.len() as u64);
            let piece = self.piece.slice(..n as usize);
            if conn.send(id, piece.into(), self.queued + n == self.len).is_err() {
                return; // The send budget is used up: `Writable` comes.
            }
            self.queued += n;
        }
    }
}

impl App for Source {
    fn on_event(&mut self, cx: &mut Context<'_>, conn: ConnId, event: Event) {
        match event {
            Event::StreamOpened { id } => {
                self.conn = Some((conn, id));
                self.write(cx);
            }
            Event::Writable { .. } => self.write(cx),
            _ => {}
        }
    }
}
