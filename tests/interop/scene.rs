//! The environment of every test here.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::peers::files::Sample;
use crate::peers::gannet::{Gannet, Trust};
use crate::peers::netns::{End, Stack, Wire};
use crate::peers::pki::Pki;
use crate::peers::process::Proc;
use crate::peers::{ClientOptions, ServerOptions};

/// A server at the left end of a wire, a client at its right end, and their directories. The processes of a test are
/// declared after it, so that they are gone when it is dropped.
pub struct Scene {
    /// Holds `root` (served) and `out` (downloaded to).
    pub dir: TempDir,
    /// The certificates of the server, which the client trusts.
    pub pki: Pki,
    wire: Wire,
}

impl Scene {
    fn new(left: Stack, right: Stack, mtu: u16) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        for name in ["root", "out"] {
            fs::create_dir(dir.path().join(name)).expect("a directory");
        }
        let pki = Pki::new(dir.path(), "test");
        Self { dir, pki, wire: Wire::new(left, right, mtu) }
    }

    /// Gannet is the client.
    pub fn gannet_gets(mtu: u16) -> Self {
        Self::new(Stack::Kernel, Stack::Bypass, mtu)
    }

    /// Gannet is the server.
    pub fn gannet_serves(mtu: u16) -> Self {
        Self::new(Stack::Bypass, Stack::Kernel, mtu)
    }

    /// Gannet is both.
    pub fn gannet_alone() -> Self {
        Self::new(Stack::Bypass, Stack::Bypass, 1500)
    }

    /// The served directory.
    pub fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    /// The directory for downloads.
    pub fn out(&self) -> PathBuf {
        self.dir.path().join("out")
    }

    /// The server's end of the wire.
    pub fn server(&self) -> &End {
        &self.wire.left
    }

    /// The client's end of the wire.
    pub fn client(&self) -> &End {
        &self.wire.right
    }

    /// A file of `len` bytes to serve.
    pub fn sample(&self, name: &str, len: u64) -> Sample {
        Sample::new(&self.root(), name, len, len)
    }

    /// Options of a peer's server.
    pub fn serving(&self, ip: impl Into<IpAddr>) -> ServerOptions {
        ServerOptions { mtu: self.wire.left.mtu, ..ServerOptions::new(ip, &self.pki, &self.root()) }
    }

    /// Options of a peer's client.
    pub fn getting(&self, ip: impl Into<IpAddr>, paths: &[&str]) -> ClientOptions {
        ClientOptions { mtu: self.wire.left.mtu, ..ClientOptions::new(ip, &self.pki, &self.out(), paths) }
    }

    /// Starts Gannet as a server, and waits until its port is up.
    pub fn gannet_serve(&self) -> Proc {
        Gannet::serve(self.server(), &self.pki.cert, &self.pki.key, &self.root()).ready()
    }

    /// Prepares Gannet to download `urls`.
    pub fn gannet_get<'a>(&'a self, out: &Path, urls: &[String]) -> Gannet<'a> {
        Gannet::get(self.client(), Trust::Ca(&self.pki.ca), out, urls)
    }
}
