//! XDP programs on kernel interfaces. The library of AF_XDP ports attaches one, which stays if the process is killed:
//! it passes frames that no port takes to the kernel, but prevents others from attaching a program.

use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

/// A program that is attached to an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct XdpProgram {
    /// The interface.
    pub interface: String,
    /// The attachment mode in the notation of `ip link`: `xdpdrv`, `xdpgeneric`, `xdpoffload`, or `xdp` for several.
    pub mode: &'static str,
}

// From rtnetlink(7) and <linux/if_link.h>.
const HEADER: usize = 16;
const IFINFO: usize = 16;
const IFLA_IFNAME: u16 = 3;
const IFLA_XDP: u16 = 43;
const IFLA_XDP_ATTACHED: u16 = 2;

/// All programs in this thread's network namespace; empty if the kernel does not report them.
pub fn xdp_programs() -> Vec<XdpProgram> {
    let mut found = Vec::new();
    // Entries parsed before an error are still valid.
    let _ = dump(&mut found);
    found
}

fn dump(found: &mut Vec<XdpProgram>) -> io::Result<()> {
    // SAFETY: no pointers; what it returns is ours.
    let socket = unsafe {
        let fd = libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, libc::NETLINK_ROUTE);
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        OwnedFd::from_raw_fd(fd)
    };
    let mut request = [0u8; HEADER + IFINFO];
    request[..4].copy_from_slice(&((HEADER + IFINFO) as u32).to_ne_bytes());
    request[4..6].copy_from_slice(&libc::RTM_GETLINK.to_ne_bytes());
    request[6..8].copy_from_slice(&((libc::NLM_F_REQUEST | libc::NLM_F_DUMP) as u16).to_ne_bytes());
    // SAFETY: an open socket and `request.len()` readable bytes.
    if unsafe { libc::send(socket.as_raw_fd(), request.as_ptr().cast(), request.len(), 0) } < 0 {
        return Err(io::Error::last_os_error());
    }
    let mut buffer = vec![0u8; 64 << 10];
    loop {
        // SAFETY: an open socket and `buffer.len()` writable bytes.
        let got = unsafe { libc::recv(socket.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), 0) };
        let Some(got) = usize::try_from(got).ok().filter(|&got| got > 0) else {
            return Err(io::Error::last_os_error());
        };
        if read(&buffer[..got.min(buffer.len())], found) {
            return Ok(());
        }
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

/// Parses messages. Returns whether the last one was among them.
fn read(mut bytes: &[u8], found: &mut Vec<XdpProgram>) -> bool {
    while let (Some(len), Some(kind)) = (bytes.get(..4), u16_at(bytes, 4)) {
        let len = u32::from_ne_bytes(len.try_into().unwrap_or_default()) as usize;
        let Some(message) = bytes.get(..len).filter(|_| len >= HEADER) else { return true };
        if i32::from(kind) == libc::NLMSG_DONE || i32::from(kind) == libc::NLMSG_ERROR {
            return true;
        }
        found.extend(message.get(HEADER + IFINFO..).and_then(program));
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    false
}

/// The value of the attribute `kind` among `bytes`.
fn attribute(mut bytes: &[u8], kind: u16) -> Option<&[u8]> {
    loop {
        let (len, this) = (usize::from(u16_at(bytes, 0)?), u16_at(bytes, 2)?);
        let value = bytes.get(4..len)?;
        // The two highest bits are flags about the value's encoding.
        if this & 0x3fff == kind {
            return Some(value);
        }
        bytes = bytes.get(len.next_multiple_of(4)..)?;
    }
}

fn program(link: &[u8]) -> Option<XdpProgram> {
    let mode = match attribute(attribute(link, IFLA_XDP)?, IFLA_XDP_ATTACHED)?.first()? {
        0 => return None,
        1 => "xdpdrv",
        2 => "xdpgeneric",
        3 => "xdpoffload",
        _ => "xdp",
    };
    let name = attribute(link, IFLA_IFNAME)?.split(|&byte| byte == 0).next()?;
    Some(XdpProgram { interface: String::from_utf8_lossy(name).into_owned(), mode })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attr(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = [&(4 + value.len() as u16).to_ne_bytes()[..], &kind.to_ne_bytes(), value].concat();
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn message(kind: u16, body: &[u8]) -> Vec<u8> {
        let len = (HEADER + body.len()) as u32;
        [&len.to_ne_bytes()[..], &kind.to_ne_bytes(), &[0; 10], body].concat()
    }

    #[test]
    fn programs_are_found_in_messages() {
        let link = |name: &str, attached: u8| {
            let xdp = attr(IFLA_XDP | 0x8000, &attr(IFLA_XDP_ATTACHED, &[attached]));
            let name = attr(IFLA_IFNAME, format!("{name}\0").as_bytes());
            message(16, &[&[0; IFINFO][..], &attr(1, &[2; 6]), &name, &xdp].concat())
        };
        let mut found = Vec::new();
        assert!(!read(&[link("lo", 0), link("eth1", 2)].concat(), &mut found));
        assert_eq!(found, [XdpProgram { interface: "eth1".into(), mode: "xdpgeneric" }]);
        assert!(read(&message(libc::NLMSG_DONE as u16, &[0; 4]), &mut found));
        // Truncated anywhere: nothing is read beyond the end.
        let whole = link("eth2", 1);
        for len in 0..whole.len() {
            read(&whole[..len], &mut found);
        }
        assert_eq!(found.len(), 1);
        let _ = xdp_programs();
    }
}
