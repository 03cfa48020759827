//! What the Rust peers share: the environment that describes their task (see `../README.md`).

#[cfg(feature = "rustls")]
pub mod tls;

use std::env;
use std::net::SocketAddr;
use std::path::{Component, Path, PathBuf};

/// Errors of peers.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The exit code for a case that a peer cannot do.
pub const UNSUPPORTED: i32 = 127;

/// Error code of refused requests.
pub const REFUSED: u32 = 0x104;

/// Flow-control window in bytes, far above what is in flight.
pub const WINDOW: u32 = 16 << 20;

/// Bytes after which `stopsending` stops a stream.
pub const ENOUGH: u64 = 50_000;

/// Number of datagrams that `datagrams` sends.
pub const DATAGRAMS: u16 = 200;

/// The `n`th of them.
pub fn datagram(n: u16) -> Vec<u8> {
    let mut data = vec![n as u8; 16 + usize::from(n) * 37 % 1000];
    data[..2].copy_from_slice(&n.to_be_bytes());
    data
}

/// Says how many of them have come back; an error if too few.
pub fn came_back(count: usize) -> Result<(), Failure> {
    say(&format!("returned {count}"));
    if count > usize::from(DATAGRAMS) / 2 { Ok(()) } else { Err("too few datagrams have come back".into()) }
}

/// A task.
pub struct Task {
    pub case: String,
    pub is_server: bool,
    pub listen: SocketAddr,
    pub cert: PathBuf,
    pub key: PathBuf,
    pub www: PathBuf,
    pub ca: PathBuf,
    pub server: SocketAddr,
    /// Paths to ask for.
    pub paths: Vec<String>,
    pub downloads: PathBuf,
    pub alpn: String,
    pub mtu: u16,
}

fn var(name: &str) -> String {
    env::var(name).unwrap_or_default()
}

impl Task {
    /// The task in the environment. Exits if its case is not in `clients` or `servers`.
    pub fn load(clients: &[&str], servers: &[&str]) -> Result<Self, Failure> {
        let any: SocketAddr = "0.0.0.0:0".parse()?;
        let (case, is_server) = (var("TESTCASE"), var("ROLE") == "server");
        if !(if is_server { servers } else { clients }).contains(&case.as_str()) {
            std::process::exit(UNSUPPORTED);
        }
        let mut server = any;
        let mut paths = Vec::new();
        for url in var("REQUESTS").split_whitespace() {
            let rest = url.strip_prefix("https://").ok_or("not https")?;
            let (host, path) = rest.split_once('/').ok_or("no path")?;
            server = host.parse()?;
            paths.push(format!("/{path}"));
        }
        Ok(Self {
            is_server,
            listen: if is_server { var("LISTEN").parse()? } else { any },
            cert: var("CERT").into(),
            key: var("KEY").into(),
            www: var("WWW").into(),
            ca: var("CA").into(),
            server,
            paths,
            downloads: var("DOWNLOADS").into(),
            alpn: Some(var("ALPN")).filter(|a| !a.is_empty()).unwrap_or("hq-interop".into()),
            mtu: var("MTU").parse().unwrap_or(1500),
            case,
        })
    }

    /// An address to bind for the client.
    pub fn any(&self) -> SocketAddr {
        let any = if self.server.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        any.parse().expect("an address")
    }

    /// Largest UDP payload.
    pub fn payload(&self) -> u16 {
        self.mtu - 48
    }

    /// Paths by connection.
    pub fn connections(&self) -> Vec<Vec<String>> {
        match self.case.as_str() {
            "multiconnect" => self.paths.iter().map(|p| vec![p.clone()]).collect(),
            "resumption" | "zerortt" => vec![self.paths[..1].to_vec(), self.paths[1..].to_vec()],
            _ => vec![self.paths.clone()],
        }
    }

    /// Where the file of `path` is downloaded to.
    pub fn target(&self, path: &str) -> PathBuf {
        self.downloads.join(path.rsplit('/').next().unwrap_or("index"))
    }

    /// The bytes that a request asks for.
    pub fn answer(&self, request: &[u8]) -> Option<Vec<u8>> {
        let line = std::str::from_utf8(request).ok()?.strip_prefix("GET /")?.trim_end();
        let path = Path::new(line);
        let good = path.components().all(|c| matches!(c, Component::Normal(_)));
        good.then(|| std::fs::read(self.www.join(path)).ok()).flatten()
    }
}

/// Ends the program with an error if its task has failed.
pub fn end(done: Result<(), Failure>) {
    if let Err(error) = done {
        eprintln!("error: {error}");
        std::process::exit(1);
    }
}

/// Prints a line at once.
pub fn say(line: &str) {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}
