//! What the interop tests stand on: two network namespaces joined by a veth pair, certificates, child processes
//! that die with the test, and QUIC peers that were not written here (quinn and aioquic).
//!
//! Every peer is a process of its own inside a namespace. It gets a [`Role`] as JSON and reports in lines on stdout,
//! in the same words for both implementations:
//!
//! | line | who | meaning |
//! |---|---|---|
//! | `ready ADDR` | server | the socket is bound |
//! | `connection N` | server | the N-th handshake is complete |
//! | `retry` | server | a client has to come again with a token (quinn only) |
//! | `request PATH` | server | a request was parsed |
//! | `misbehaved PATH` | server | a [`Misbehave`] was carried out |
//! | `connected` | client | the handshake is complete |
//! | `receiving PATH` | client | its first bytes are there |
//! | `ok PATH BYTES SHA256` | client | a file arrived, with its FIN |
//! | `failed PATH REASON` | client | it did not |
//!
//! A client exits with 0 when all files arrived, with 1 when some did not, with 2 when there was no connection.

#![allow(dead_code, reason = "each test binary uses its own part of the harness")]

pub mod aioquic;
pub mod files;
pub mod netns;
pub mod pki;
pub mod process;
pub mod quic_lb;
pub mod quinn_peer;
pub mod router;
pub mod tshark;

#[cfg(feature = "cli")]
pub mod gannet;

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use netns::End;
use pki::Pki;
use process::Proc;

/// The application protocol of all tests.
pub const ALPN: &str = "hq-interop";

/// The UDP port of all servers; every test has its own namespaces.
pub const PORT: u16 = 4433;

/// Size of the file transferred in each direction, in bytes.
pub const BULK: u64 = 50_000_000;

/// Skips the test (returns) when it is not run by root; fails instead when `CI` is `true`, where nothing may be
/// skipped quietly.
#[macro_export]
macro_rules! require_root {
    () => {
        if !$crate::peers::netns::is_root() {
            let why = "needs root: it makes network namespaces and veth pairs";
            assert!(std::env::var("CI").as_deref() != Ok("true"), "{why}");
            eprintln!("skipped, {why}");
            return;
        }
    };
}

/// Defines the test that quinn peers enter the test executable by. Every test binary that uses them needs it.
#[macro_export]
macro_rules! quinn_peer_entry {
    () => {
        #[test]
        #[ignore = "not a test: the quinn peers' processes start here"]
        fn quinn_peer_entry() {
            $crate::peers::quinn_peer::entry();
        }
    };
}

/// What a peer process is to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "role", rename_all = "kebab-case")]
pub enum Role {
    /// Serve the files of a directory until killed.
    Server(ServerOptions),
    /// Download over one connection, then exit.
    Client(ClientOptions),
}

/// How a peer serves.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ServerOptions {
    /// Address to bind.
    pub listen: SocketAddr,
    /// Certificate chain, PEM.
    pub cert: PathBuf,
    /// Private key, PEM.
    pub key: PathBuf,
    /// Directory whose files are served.
    pub root: PathBuf,
    /// MTU of the link in bytes.
    pub mtu: u16,
    /// Application protocol to offer.
    pub alpn: String,
    /// Idle timeout in seconds.
    pub idle_secs: u32,
    /// Where to write TLS secrets.
    pub keylog: Option<PathBuf>,
    /// What to do wrong (quinn only).
    pub misbehave: Option<Misbehave>,
    /// Ask clients to come again with a token.
    pub retry: bool,
    /// Versions of QUIC in order of preference, if not the usual ones (aioquic only).
    pub versions: Vec<u32>,
    /// Clients need a certificate of this authority, PEM (quinn only).
    pub client_ca: Option<PathBuf>,
    /// Accept 0-RTT.
    pub early_data: bool,
}

/// Something a server does wrong while it answers a request.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Misbehave {
    /// Bytes of the file sent before.
    pub after: u64,
    /// What happens then.
    pub how: How,
}

/// The ways to misbehave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum How {
    /// Keep the stream open and send nothing more, so that the test can kill the process mid-transfer.
    Stall,
    /// Close the whole connection.
    Close,
    /// Reset the stream.
    Reset,
}

/// How a peer downloads.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ClientOptions {
    /// The server's address; also the name its certificate must carry.
    pub remote: SocketAddr,
    /// Certificate authority to trust, PEM.
    pub ca: PathBuf,
    /// Paths to ask for, each on a stream of its own, all at once, exactly as they are.
    pub paths: Vec<String>,
    /// Directory for the files; each gets the last component of its path as its name.
    pub out: PathBuf,
    /// MTU of the link in bytes.
    pub mtu: u16,
    /// Application protocol to ask for.
    pub alpn: String,
    /// Idle timeout in seconds.
    pub idle_secs: u32,
    /// Where to write TLS secrets.
    pub keylog: Option<PathBuf>,
    /// The number of connections, one after another and each from a port of its own, that ask for the paths (quinn only).
    pub flows: u32,
    /// Versions of QUIC in order of preference, if not the usual ones (aioquic only).
    pub versions: Vec<u32>,
    /// The version to begin with, if `versions` are given.
    pub first_version: u32,
    /// The name to ask for, instead of the address (quinn only).
    pub name: Option<String>,
    /// The client's certificate chain and its key, PEM (quinn only).
    pub identity: Option<[PathBuf; 2]>,
    /// The number of datagrams that are sent instead, and have to come back (quinn only).
    pub datagrams: u32,
    /// Ask for the first path on a connection of its own, and for the others as 0-RTT data on a second one that resumes
    /// its session, once this file exists.
    pub returns: Option<PathBuf>,
}

impl ServerOptions {
    /// A well-behaved server of `root` at `ip`.
    pub fn new(ip: impl Into<IpAddr>, pki: &Pki, root: &Path) -> Self {
        Self {
            listen: SocketAddr::new(ip.into(), PORT),
            cert: pki.cert.clone(),
            key: pki.key.clone(),
            root: root.to_owned(),
            mtu: 1500,
            alpn: ALPN.into(),
            idle_secs: 30,
            keylog: None,
            misbehave: None,
            retry: false,
            versions: Vec::new(),
            client_ca: None,
            early_data: false,
        }
    }
}

impl ClientOptions {
    /// A client of the server at `ip` that puts the files of `paths` into `out`.
    pub fn new(ip: impl Into<IpAddr>, pki: &Pki, out: &Path, paths: &[&str]) -> Self {
        Self {
            remote: SocketAddr::new(ip.into(), PORT),
            ca: pki.ca.clone(),
            paths: paths.iter().map(|&p| p.to_owned()).collect(),
            out: out.to_owned(),
            mtu: 1500,
            alpn: ALPN.into(),
            idle_secs: 30,
            keylog: None,
            flows: 1,
            versions: Vec::new(),
            first_version: 1,
            name: None,
            identity: None,
            datagrams: 0,
            returns: None,
        }
    }
}

/// The implementations that Gannet is tried against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// quinn, in Rust.
    Quinn,
    /// aioquic, in Python.
    Aioquic,
}

impl Peer {
    /// Starts a server at `end` and returns once its socket is bound.
    pub fn serve(self, end: &End, options: ServerOptions) -> Proc {
        let server = self.spawn(end, &Role::Server(options));
        server.wait_line("ready");
        server
    }

    /// Starts a client at `end`.
    pub fn get(self, end: &End, options: ClientOptions) -> Proc {
        self.spawn(end, &Role::Client(options))
    }

    fn spawn(self, end: &End, role: &Role) -> Proc {
        let kind = match role {
            Role::Server(_) => "server",
            Role::Client(_) => "client",
        };
        match self {
            Self::Quinn => Proc::spawn(&format!("quinn {kind}"), quinn_peer::command(end, role)),
            Self::Aioquic => Proc::spawn(&format!("aioquic {kind}"), aioquic::command(end, role)),
        }
    }
}
