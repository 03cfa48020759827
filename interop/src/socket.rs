//! Packet sockets: every frame that an interface receives, and frames that it sends.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrLike, bind, recvfrom, send,
    setsockopt, socket, sockopt,
};

use crate::error::{About, Result};

/// `PACKET_OUTGOING` of packet(7): a frame that this host sends.
const OUTGOING: u8 = 4;

/// Bytes that may wait in the socket.
const BUFFER: usize = 16 << 20;

/// A packet socket.
#[derive(Debug)]
pub struct PacketSocket {
    fd: OwnedFd,
}

impl PacketSocket {
    /// A nonblocking socket on `iface` of this thread's namespace.
    ///
    /// # Errors
    /// If there is no such interface, or this process lacks the right.
    pub fn open(iface: &str) -> Result<Self> {
        let address = getifaddrs()?
            .filter(|one| one.interface_name == iface)
            .filter_map(|one| one.address)
            .find(|a| a.family() == Some(AddressFamily::Packet))
            .ok_or_else(|| format!("there is no interface {iface}"))?;
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let fd = socket(AddressFamily::Packet, SockType::Raw, flags, SockProtocol::EthAll)
            .about(|| "a packet socket (needs root)".into())?;
        setsockopt(&fd, sockopt::RcvBufForce, &BUFFER)?;
        setsockopt(&fd, sockopt::SndBufForce, &BUFFER)?;
        bind(fd.as_raw_fd(), &address).about(|| format!("cannot bind to {iface}"))?;
        Ok(Self { fd })
    }

    /// Receives a frame. `None` if none has arrived.
    ///
    /// # Errors
    /// Those of the system, for example when the interface is gone.
    pub fn receive<'b>(&self, buffer: &'b mut [u8]) -> io::Result<Option<&'b mut [u8]>> {
        loop {
            match recvfrom::<LinkAddr>(self.fd.as_raw_fd(), buffer) {
                Ok((_, Some(from))) if from.pkttype() == OUTGOING => {}
                Ok((len, _)) => return Ok(Some(&mut buffer[..len])),
                Err(nix::Error::EAGAIN) => return Ok(None),
                Err(nix::Error::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Sends a frame. Returns whether the interface took it.
    pub fn send(&self, frame: &[u8]) -> bool {
        send(self.fd.as_raw_fd(), frame, MsgFlags::empty()).is_ok()
    }
}

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
