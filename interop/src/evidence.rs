//! What was seen of a case, for its checks.

use std::fs;
use std::path::{Path, PathBuf};

use crate::decode::Decoded;
use crate::error::Result;
use crate::lab::PORT;
use crate::middle::View;
use crate::peer::Peer;
use crate::process::tool;
use crate::sight::Sight;

/// What was seen of a case that went as it should.
pub struct Evidence<'a> {
    /// The client.
    pub client: Peer,
    /// The server.
    pub server: Peer,
    /// What the forwarder saw.
    pub view: View,
    /// The directory of captures and secrets.
    pub dir: &'a Path,
}

impl Evidence<'_> {
    /// What was on the wire.
    pub fn sight(&self) -> &Sight {
        &self.view.sight
    }

    /// The frames that were on the client's link, decrypted.
    ///
    /// # Errors
    /// If tshark fails.
    pub fn decoded(&self) -> Result<Decoded> {
        Decoded::read(&self.dir.join("client.pcap"), &self.keys()?)
    }

    /// What tshark prints for a field of packets that pass a filter.
    ///
    /// # Errors
    /// If tshark fails.
    pub fn tls_column(&self, filter: &str, field: &str) -> Result<String> {
        let (pcap, keys) = (self.dir.join("client.pcap"), format!("tls.keylog_file:{}", self.keys()?.display()));
        let port = format!("udp.port=={PORT},quic");
        let pcap = pcap.display().to_string();
        let args = ["-n", "-r", &pcap, "-o", &keys, "-d", &port, "-Y", filter, "-T", "fields", "-e", field];
        Ok(tool("tshark", args)?.trim().to_owned())
    }

    /// The file with the secrets: Gannet's if it is there.
    fn keys(&self) -> Result<PathBuf> {
        let order =
            if self.server == Peer::Gannet { ["server.keys", "client.keys"] } else { ["client.keys", "server.keys"] };
        let there = |name: &str| fs::metadata(self.dir.join(name)).is_ok_and(|meta| meta.len() > 0);
        let name = order.into_iter().find(|name| there(name)).ok_or("no side has written its secrets")?;
        Ok(self.dir.join(name))
    }
}
