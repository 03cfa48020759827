//! The wire between the two processes.

use std::fmt;

use clap::ValueEnum;

use super::guards::SocketDir;
use super::netns::{self, Pair};
use crate::error::{Error, Result};
use crate::setup;

/// The server's address.
pub const SERVER_IP: &str = "10.77.0.1";
/// The same with a prefix length, for its port.
pub const SERVER_ADDR: &str = "10.77.0.1/24";
/// The client's address with a prefix length, for its port.
pub const CLIENT_ADDR: &str = "10.77.0.2/24";
/// The UDP port that the server listens on.
pub const LISTEN: &str = "4433";
/// The address that clients connect to.
pub const SERVER: &str = "10.77.0.1:4433";

/// The default MTU of ports.
pub const DEFAULT_MTU: u16 = 1500;

/// Kinds of wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Wire {
    /// Shared memory between two processes; works without root
    Memif,
    /// A vhost-user socket: virtio on the client, vhost on the server; works without root
    VirtioUser,
    /// Raw sockets on a veth pair between two network namespaces; needs root
    AfPacket,
    /// XDP sockets on a veth pair between two network namespaces; needs root
    AfXdp,
    /// Both ends in one process; works without root
    Ring,
}

impl fmt::Display for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.to_possible_value();
        f.write_str(value.as_ref().map_or("", clap::builder::PossibleValue::get_name))
    }
}

impl Wire {
    const fn needs_namespaces(self) -> bool {
        matches!(self, Self::AfPacket | Self::AfXdp)
    }

    /// Checks permissions.
    ///
    /// # Errors
    /// If the wire needs root, and we are not root.
    pub fn check(self) -> Result<()> {
        if self.needs_namespaces() && !setup::is_root() {
            return Err(Error::Unmet(format!(
                "--wire {self} needs root, to create network namespaces, a veth pair and raw sockets. \
                 Run it with sudo, or take --wire memif, which works without"
            )));
        }
        Ok(())
    }
}

/// One side's port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// The network namespace for its process.
    pub namespace: Option<String>,
    /// The arguments that select the port.
    pub args: Vec<String>,
}

/// The resources of a wire, until dropped.
#[derive(Debug)]
pub struct Link {
    wire: Wire,
    mtu: u16,
    place: Place,
}

#[derive(Debug)]
enum Place {
    Sockets(SocketDir),
    Namespaces(Pair),
}

impl Link {
    /// Creates the resources.
    ///
    /// # Errors
    /// If we are not root, or the system reports an error.
    pub fn prepare(wire: Wire, mtu: u16) -> Result<Self> {
        wire.check()?;
        let place = if wire.needs_namespaces() {
            Place::Namespaces(Pair::new(mtu)?)
        } else {
            Place::Sockets(SocketDir::new()?)
        };
        Ok(Self { wire, mtu, place })
    }

    /// The server's and the client's port for the run `run`.
    pub fn ends(&self, run: &str) -> (End, End) {
        match &self.place {
            Place::Sockets(dir) => {
                // A name for each run, as an ended process may leave its socket.
                let socket = dir.path().join(format!("{run}.sock"));
                self.socket_ends(&socket.display().to_string())
            }
            Place::Namespaces(pair) => {
                let end =
                    |namespace: &str| self.end(&self.wire.to_string(), Some(namespace), &[("iface", netns::INTERFACE)]);
                (end(pair.server()), end(pair.client()))
            }
        }
    }

    fn socket_ends(&self, socket: &str) -> (End, End) {
        if self.wire == Wire::VirtioUser {
            (self.end("vhost", None, &[("iface", socket)]), self.end("virtio-user", None, &[("path", socket)]))
        } else {
            let end = |role| self.end("memif", None, &[("role", role), ("socket", socket)]);
            (end("server"), end("client"))
        }
    }

    fn end(&self, port: &str, namespace: Option<&str>, sets: &[(&str, &str)]) -> End {
        let mtu = self.mtu.to_string();
        let mtu = (self.mtu != DEFAULT_MTU).then_some(("mtu", mtu.as_str()));
        let sets = sets.iter().copied().chain(mtu).flat_map(|(key, value)| ["--set".into(), format!("{key}={value}")]);
        let args = ["--port".to_owned(), port.to_owned()].into_iter().chain(sets).collect();
        End { namespace: namespace.map(str::to_owned), args }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(wire: Wire, mtu: u16) -> Link {
        Link { wire, mtu, place: Place::Sockets(SocketDir::new().unwrap()) }
    }

    #[test]
    fn ends_of_socket_wires() {
        let link = link(Wire::Memif, 9000);
        let (server, client) = link.ends("get");
        let socket = server.args[5].clone();
        assert!(socket.ends_with("/get.sock"), "{socket}");
        assert_eq!(server.args, ["--port", "memif", "--set", "role=server", "--set", &socket, "--set", "mtu=9000"]);
        assert_eq!(client.args, ["--port", "memif", "--set", "role=client", "--set", &socket, "--set", "mtu=9000"]);
        let Link { place, .. } = link;
        let (server, client) = Link { wire: Wire::VirtioUser, mtu: 1500, place }.socket_ends("/s");
        assert_eq!(server.args, ["--port", "vhost", "--set", "iface=/s"]);
        assert_eq!(client.args, ["--port", "virtio-user", "--set", "path=/s"]);
    }

    #[test]
    fn names_are_those_of_the_command_line() {
        assert_eq!(Wire::AfXdp.to_string(), "af-xdp");
        assert!(Wire::from_str("virtio-user", false).is_ok());
    }
}
