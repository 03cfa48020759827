//! The address that a server prefers.

use std::net::{IpAddr, SocketAddrV4, SocketAddrV6};

use gannet::quic::PreferredAddress;

use super::{Failure, Usage};
use crate::args::engine::EngineArgs;

/// The preferred addresses among those of the port, with the server's UDP port.
pub fn preferred_address(wish: &[IpAddr], args: &EngineArgs, port: u16) -> Result<PreferredAddress, Failure> {
    let mut preferred = PreferredAddress::default();
    for addr in wish {
        if !args.addrs.iter().any(|own| own.addr == *addr) {
            return Err(Usage(format!("--preferred-address {addr} is not an --addr of this port")).into());
        }
        let twice = match addr {
            IpAddr::V4(v4) => preferred.v4.replace(SocketAddrV4::new(*v4, port)).is_some(),
            IpAddr::V6(v6) => preferred.v6.replace(SocketAddrV6::new(*v6, port, 0, 0)).is_some(),
        };
        if twice {
            return Err(Usage(format!("--preferred-address {addr}: there is one of that IP version already")).into());
        }
    }
    Ok(preferred)
}
