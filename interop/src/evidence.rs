//! What was seen of a case, for its checks.

use std::fs;
use std::path::{Path, PathBuf};

use crate::decode::{self, Decoded};
use crate::error::Result;
use crate::middle::View;
use crate::peer::Peer;
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
        Decoded::read(&self.capture(), &self.keys()?)
    }

    /// What tshark prints for a field of packets that pass a filter.
    ///
    /// # Errors
    /// If tshark fails.
    pub fn tls_column(&self, filter: &str, field: &str) -> Result<String> {
        Ok(decode::columns(&self.capture(), &self.keys()?, filter, &[field])?.trim().to_owned())
    }

    /// What crossed the client's link.
    fn capture(&self) -> PathBuf {
        self.dir.join("client.pcap")
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
