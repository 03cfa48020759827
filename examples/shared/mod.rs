//! Code shared by the examples: command line, certificates, the connection between the two ends, and a server.

#[cfg(feature = "dpdk")]
mod port;
mod source;
mod wire;

use std::error::Error;
use std::net::SocketAddr;

use clap::Parser;
use gannet::api::*;

use source::Source;
pub use wire::Wire;

/// Any error.
pub type Failure = Box<dyn Error>;

const PORT_HELP: &str = "\
Without --port both ends run in one thread, over a simulated link. Over a port, for example memif between two processes:
  EXAMPLE --port memif --set role=server --set socket=x.sock --addr 10.77.0.1/24 --listen 4433
  EXAMPLE 1024 --port memif --set role=client --set socket=x.sock --addr 10.77.0.2/24 --connect 10.77.0.1:4433";

/// The command line of an example.
#[derive(Debug, Parser)]
#[command(after_help = PORT_HELP)]
pub struct Options {
    /// How much to receive, MiB.
    #[arg(value_name = "MiB", value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    mib: Option<u64>,

    /// Port profile: a name (memif, af-packet, ...) or the path of a .toml file.
    #[arg(long, value_name = "PROFILE", requires = "addr", requires = "end")]
    port: Option<String>,

    /// Override a setting of the profile, for example mtu=9000. May be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = key_value, requires = "port")]
    sets: Vec<(String, String)>,

    /// Address of the port, for example 10.77.0.1/24.
    #[arg(long, value_name = "IP/LEN", requires = "port")]
    addr: Option<Cidr>,

    /// Be the server, on this UDP port, until SIGINT or SIGTERM.
    #[arg(long, value_name = "UDPPORT", requires = "port", group = "end")]
    listen: Option<u16>,

    /// Be the client of the server at this address.
    #[arg(long, value_name = "IP:UDPPORT", requires = "port", group = "end")]
    connect: Option<SocketAddr>,
}

impl Options {
    /// Parses the command line of this process. On a mistake, exits with code 2 and a message.
    pub fn load() -> Self {
        Self::parse()
    }

    /// Number of bytes to receive; the default is `default` MiB.
    pub fn bytes(&self, default: u64) -> u64 {
        self.mib.unwrap_or(default) << 20
    }
}

fn key_value(s: &str) -> Result<(String, String), String> {
    let (key, value) = s.split_once('=').ok_or_else(|| format!("'{s}' is not KEY=VALUE, for example mtu=9000"))?;
    Ok((key.to_owned(), value.to_owned()))
}

fn tls_options() -> tls::TlsOptions {
    tls::TlsOptions { alpn: vec![b"example".to_vec()], ..tls::TlsOptions::default() }
}

/// Configuration of a client that trusts any server, which only an example should do.
pub fn client_config(transport: TransportConfig) -> Result<ClientConfig, Failure> {
    Ok(ClientConfig::new(tls::insecure_client_config(&tls_options())?, transport)?)
}

/// Configuration of a server with a new self-signed certificate.
fn server_config(max_udp_payload: u16) -> Result<ServerConfig, Failure> {
    let identity = rcgen::generate_simple_self_signed(["server.example".to_owned()])?;
    let key = rustls::pki_types::PrivateKeyDer::try_from(identity.signing_key.serialize_der())?;
    let tls = tls::server_config(vec![identity.cert.der().clone()], key, &tls_options())?;
    Ok(ServerConfig::new(tls, TransportConfig { max_udp_payload, ..TransportConfig::default() })?)
}

/// Configuration of a core at `addr`; a server's if it listens.
fn core_config(addr: Cidr, server: Option<(u16, ServerConfig)>, pool: BufPool) -> Result<CoreConfig, Failure> {
    let (listen, server) = server.unzip();
    let mut config = CoreConfig::new(addr, endpoint_config()?);
    config.net.ports = listen.map(|port| vec![port]);
    Ok(CoreConfig { listen, server, pool, ..config })
}
