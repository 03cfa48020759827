//! A memif peer by hand: the control socket, the rings, and whatever a peer should not do.
//!
//! The protocol is that of VPP's `memif.h`: messages of 128 bytes over a `SOCK_SEQPACKET` socket, regions and event
//! descriptors as ancillary data, rings of descriptors in the first region.

use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, Ordering};

pub const MESSAGE: usize = 128;
pub const ACK: u16 = 1;
pub const HELLO: u16 = 2;
pub const INIT: u16 = 3;
pub const ADD_REGION: u16 = 4;
pub const ADD_RING: u16 = 5;
pub const CONNECT: u16 = 6;
pub const CONNECTED: u16 = 7;
pub const DISCONNECT: u16 = 8;

const VERSION: u16 = 0x200;
const COOKIE: u32 = 0x03e3_1f20;
const RING_HEAD: usize = 128;
const DESCRIPTOR: usize = 16;

/// A message of kind `kind` that goes on with `parts`.
pub fn message(kind: u16, parts: &[&[u8]]) -> [u8; MESSAGE] {
    let mut message = [0; MESSAGE];
    message[..2].copy_from_slice(&kind.to_le_bytes());
    let rest = parts.concat();
    message[2..2 + rest.len()].copy_from_slice(&rest);
    message
}

pub fn init(id: u32) -> [u8; MESSAGE] {
    message(INIT, &[&VERSION.to_le_bytes(), &id.to_le_bytes()])
}

pub fn add_region(index: u16, size: u64) -> [u8; MESSAGE] {
    message(ADD_REGION, &[&index.to_le_bytes(), &size.to_le_bytes()])
}

pub fn add_ring(to_server: bool, index: u16, region: u16, offset: u32, log2: u8) -> [u8; MESSAGE] {
    let flags = u16::from(to_server);
    message(
        ADD_RING,
        &[&flags.to_le_bytes(), &index.to_le_bytes(), &region.to_le_bytes(), &offset.to_le_bytes(), &[log2]],
    )
}

/// One end of a control connection.
pub struct Control(OwnedFd);

fn socket(kind: i32) -> OwnedFd {
    // SAFETY: a new descriptor, which is ours.
    unsafe {
        let fd = libc::socket(libc::AF_UNIX, kind | libc::SOCK_CLOEXEC, 0);
        assert!(fd >= 0, "{}", io::Error::last_os_error());
        OwnedFd::from_raw_fd(fd)
    }
}

fn address(path: &Path) -> libc::sockaddr_un {
    // SAFETY: plain data, for which zero is valid.
    let mut address: libc::sockaddr_un = unsafe { std::mem::zeroed() };
    address.sun_family = libc::AF_UNIX as u16;
    for (to, from) in address.sun_path.iter_mut().zip(path.as_os_str().as_encoded_bytes()) {
        *to = *from as libc::c_char;
    }
    address
}

const ADDRESS: u32 = size_of::<libc::sockaddr_un>() as u32;

impl Control {
    pub fn connect(path: &Path) -> io::Result<Self> {
        Self::connect_as(path, libc::SOCK_SEQPACKET)
    }

    pub fn connect_as(path: &Path, kind: i32) -> io::Result<Self> {
        let (socket, address) = (socket(kind), address(path));
        // SAFETY: an address of the length that is told.
        match unsafe { libc::connect(socket.as_raw_fd(), (&raw const address).cast(), ADDRESS) } {
            0 => Ok(Self(socket)),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Another kind of socket, for its messages with descriptors.
    pub fn from_stream(stream: &UnixStream) -> Self {
        Self(stream.as_fd().try_clone_to_owned().unwrap())
    }

    pub fn fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    /// Sends any bytes with any descriptors.
    pub fn send_raw(&self, bytes: &[u8], files: &[RawFd]) -> io::Result<()> {
        let mut part = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
        let mut control = [0u64; 32];
        // SAFETY: a header over buffers of our own, with room for the descriptors; the macros of cmsg(3).
        unsafe {
            let mut header: libc::msghdr = std::mem::zeroed();
            (header.msg_iov, header.msg_iovlen) = (&raw mut part, 1);
            if !files.is_empty() {
                let len = size_of_val(files) as u32;
                header.msg_control = control.as_mut_ptr().cast();
                header.msg_controllen = libc::CMSG_SPACE(len) as usize;
                let cmsg = libc::CMSG_FIRSTHDR(&header);
                (*cmsg).cmsg_len = libc::CMSG_LEN(len) as usize;
                (*cmsg).cmsg_level = libc::SOL_SOCKET;
                (*cmsg).cmsg_type = libc::SCM_RIGHTS;
                std::ptr::copy_nonoverlapping(files.as_ptr().cast(), libc::CMSG_DATA(cmsg), len as usize);
            }
            match libc::sendmsg(self.fd(), &header, libc::MSG_NOSIGNAL) {
                n if n < 0 => Err(io::Error::last_os_error()),
                _ => Ok(()),
            }
        }
    }

    pub fn send(&self, message: &[u8; MESSAGE], file: Option<RawFd>) -> io::Result<()> {
        self.send_raw(message, file.as_slice())
    }

    /// The next message and the descriptor that came with it; `None` at the end.
    pub fn receive(&self) -> Option<([u8; MESSAGE], Option<OwnedFd>)> {
        let mut message = [0u8; MESSAGE];
        let mut part = libc::iovec { iov_base: message.as_mut_ptr().cast(), iov_len: MESSAGE };
        let mut control = [0u64; 32];
        // SAFETY: as in `send_raw`; a descriptor that came is ours.
        unsafe {
            let mut header: libc::msghdr = std::mem::zeroed();
            (header.msg_iov, header.msg_iovlen) = (&raw mut part, 1);
            (header.msg_control, header.msg_controllen) = (control.as_mut_ptr().cast(), size_of_val(&control));
            if libc::recvmsg(self.fd(), &mut header, libc::MSG_CMSG_CLOEXEC) <= 0 {
                return None;
            }
            let mut file = None;
            let mut at = libc::CMSG_FIRSTHDR(&header);
            while !at.is_null() {
                if (*at).cmsg_level == libc::SOL_SOCKET && (*at).cmsg_type == libc::SCM_RIGHTS {
                    file = Some(OwnedFd::from_raw_fd(libc::CMSG_DATA(at).cast::<RawFd>().read_unaligned()));
                }
                at = libc::CMSG_NXTHDR(&header, at);
            }
            Some((message, file))
        }
    }

    /// Receives until a message of kind `kind` comes. Panics when the other end hangs up before.
    pub fn expect(&self, kind: u16) {
        loop {
            let (message, _) = self.receive().unwrap_or_else(|| panic!("hung up before message {kind}"));
            if message[..2] == kind.to_le_bytes() {
                return;
            }
        }
    }

    /// Whether the other end has hung up, after everything that it said.
    pub fn is_over(&self) -> bool {
        while self.receive().is_some() {}
        true
    }
}

/// Anonymous shared memory, sealed against becoming shorter as every memif implementation does.
pub fn memory(size: u64, sealed: bool) -> OwnedFd {
    // SAFETY: a new descriptor, which is ours.
    unsafe {
        let fd = libc::memfd_create(c"memif".as_ptr(), libc::MFD_ALLOW_SEALING | libc::MFD_CLOEXEC);
        assert!(fd >= 0, "{}", io::Error::last_os_error());
        assert_eq!(libc::ftruncate(fd, size as i64), 0);
        if sealed {
            assert_eq!(libc::fcntl(fd, libc::F_ADD_SEALS, libc::F_SEAL_SHRINK), 0);
        }
        OwnedFd::from_raw_fd(fd)
    }
}

pub fn event() -> OwnedFd {
    // SAFETY: a new descriptor, which is ours.
    unsafe {
        let fd = libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC);
        assert!(fd >= 0);
        OwnedFd::from_raw_fd(fd)
    }
}

/// A mapped region.
pub struct Region {
    at: NonNull<u8>,
    len: usize,
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: mapped by `map`, and nothing borrows from it any more.
        unsafe { libc::munmap(self.at.as_ptr().cast(), self.len) };
    }
}

// SAFETY: memory that is only touched by atomic operations.
unsafe impl Send for Region {}
// SAFETY: as above.
unsafe impl Sync for Region {}

impl Region {
    pub fn map(file: &OwnedFd, len: usize) -> Self {
        // SAFETY: a new mapping, at a place that the kernel chooses.
        let at = unsafe {
            let access = libc::PROT_READ | libc::PROT_WRITE;
            libc::mmap(std::ptr::null_mut(), len, access, libc::MAP_SHARED, file.as_raw_fd(), 0)
        };
        assert!(at != libc::MAP_FAILED, "{}", io::Error::last_os_error());
        Self { at: NonNull::new(at.cast()).unwrap(), len }
    }

    fn cell<T>(&self, at: usize) -> &T {
        assert!(at + size_of::<T>() <= self.len && at.is_multiple_of(align_of::<T>()));
        // SAFETY: within the mapping and aligned; used with atomic types only, for which any bytes are valid.
        unsafe { &*self.at.as_ptr().add(at).cast() }
    }

    pub fn byte(&self, at: usize) -> &AtomicU8 {
        self.cell(at)
    }
}

/// One ring in a region.
#[derive(Clone, Copy)]
pub struct Ring {
    pub offset: usize,
    pub log2: u8,
}

impl Ring {
    pub fn size(log2: u8) -> usize {
        RING_HEAD + (DESCRIPTOR << log2)
    }

    pub fn make(self, region: &Region) {
        region.cell::<AtomicU32>(self.offset).store(COOKIE, Ordering::SeqCst);
    }

    pub fn head(self, region: &Region) -> &AtomicU16 {
        region.cell(self.offset + 6)
    }

    pub fn tail(self, region: &Region) -> &AtomicU16 {
        region.cell(self.offset + 64)
    }

    fn descriptor(self, slot: u16) -> usize {
        self.offset + RING_HEAD + DESCRIPTOR * usize::from(slot & ((1 << self.log2) - 1))
    }

    pub fn flags(self, region: &Region, slot: u16) -> &AtomicU16 {
        region.cell(self.descriptor(slot))
    }

    pub fn region(self, region: &Region, slot: u16) -> &AtomicU16 {
        region.cell(self.descriptor(slot) + 2)
    }

    pub fn length(self, region: &Region, slot: u16) -> &AtomicU32 {
        region.cell(self.descriptor(slot) + 4)
    }

    pub fn place(self, region: &Region, slot: u16) -> &AtomicU32 {
        region.cell(self.descriptor(slot) + 8)
    }
}

/// A listener in the place of a memif server.
pub struct Server(OwnedFd);

impl Server {
    pub fn bind(path: &Path) -> Self {
        let (socket, address) = (socket(libc::SOCK_SEQPACKET), address(path));
        // SAFETY: an address of the length that is told.
        unsafe {
            assert_eq!(libc::bind(socket.as_raw_fd(), (&raw const address).cast(), ADDRESS), 0);
            assert_eq!(libc::listen(socket.as_raw_fd(), 8), 0);
        }
        Self(socket)
    }

    /// Greets a client and takes in its memory.
    pub fn accept(&self) -> Client {
        // SAFETY: a new descriptor, which is ours.
        let control = unsafe {
            let fd = libc::accept4(self.0.as_raw_fd(), std::ptr::null_mut(), std::ptr::null_mut(), libc::SOCK_CLOEXEC);
            assert!(fd >= 0, "{}", io::Error::last_os_error());
            Control(OwnedFd::from_raw_fd(fd))
        };
        let limits = [VERSION, VERSION, 255, 255, 255].map(u16::to_le_bytes).concat();
        control.send(&message(HELLO, &[&[0; 32], &limits, &[14]]), None).unwrap();
        let (mut regions, mut rings) = (Vec::new(), [None; 2]);
        loop {
            let (text, file) = control.receive().expect("the client's introduction");
            let u16_at = |at: usize| u16::from_le_bytes([text[at], text[at + 1]]);
            match u16_at(0) {
                ADD_REGION => {
                    let size = u64::from_le_bytes(std::array::from_fn(|i| text[4 + i]));
                    regions.push(Region::map(&file.expect("a region's file"), size as usize));
                }
                ADD_RING => {
                    let offset = u32::from_le_bytes(std::array::from_fn(|i| text[8 + i])) as usize;
                    assert_eq!((u16_at(4), u16_at(6)), (0, 0), "one queue, whose rings are in the first region");
                    rings[usize::from(u16_at(2) & 1)] = Some(Ring { offset, log2: text[12] });
                }
                CONNECT => break,
                _ => {}
            }
            control.send(&message(ACK, &[]), None).unwrap();
        }
        control.send(&message(CONNECTED, &[]), None).unwrap();
        let [to_client, to_server] = rings.map(|r| r.expect("a ring of each direction"));
        Client { _control: control, regions, to_client, to_server, next: 0, seen: 0 }
    }
}

/// A client that connected to us.
pub struct Client {
    _control: Control,
    pub regions: Vec<Region>,
    pub to_client: Ring,
    to_server: Ring,
    next: u16,
    seen: u16,
}

impl Client {
    /// Whether the client has given buffers for frames.
    pub fn ready(&self) -> bool {
        self.to_client.head(&self.regions[0]).load(Ordering::Acquire) != self.next
    }

    /// Sends a frame in as many buffers as there are parts: the bytes of each, and how many it is said to have. Returns
    /// region and place of the first buffer.
    pub fn send(&mut self, parts: &[(&[u8], u32)]) -> (usize, usize) {
        let (rings, ring) = (&self.regions[0], self.to_client);
        let mut first = None;
        for (n, (bytes, announced)) in parts.iter().enumerate() {
            assert!(self.ready(), "no buffer of the client's is free");
            let region = usize::from(ring.region(rings, self.next).load(Ordering::Relaxed));
            let place = ring.place(rings, self.next).load(Ordering::Relaxed) as usize;
            for (i, byte) in bytes.iter().enumerate() {
                self.regions[region].byte(place + i).store(*byte, Ordering::Relaxed);
            }
            ring.length(rings, self.next).store(*announced, Ordering::Relaxed);
            ring.flags(rings, self.next).store(u16::from(n + 1 < parts.len()), Ordering::Relaxed);
            self.next = self.next.wrapping_add(1);
            first = first.or(Some((region, place)));
        }
        ring.tail(rings).store(self.next, Ordering::Release);
        first.expect("a part")
    }

    /// The next frame that the client has sent.
    pub fn receive(&mut self) -> Vec<u8> {
        let (rings, ring) = (&self.regions[0], self.to_server);
        assert_ne!(ring.head(rings).load(Ordering::Acquire), self.seen, "no frame");
        let region = usize::from(ring.region(rings, self.seen).load(Ordering::Relaxed));
        let place = ring.place(rings, self.seen).load(Ordering::Relaxed) as usize;
        let len = ring.length(rings, self.seen).load(Ordering::Relaxed) as usize;
        let frame = (place..place + len).map(|i| self.regions[region].byte(i).load(Ordering::Relaxed)).collect();
        self.seen = self.seen.wrapping_add(1);
        ring.tail(rings).store(self.seen, Ordering::Release);
        frame
    }
}

/// What is needed to become the client of a server: a region with two rings, and its descriptors.
pub struct Offer {
    pub memory: OwnedFd,
    pub size: u64,
    pub event: OwnedFd,
    pub log2: u8,
}

impl Offer {
    pub fn new(log2: u8) -> Self {
        let size = 2 * Ring::size(log2);
        let memory = memory(size as u64, true);
        let region = Region::map(&memory, size);
        for n in 0..2 {
            Ring { offset: n * Ring::size(log2), log2 }.make(&region);
        }
        Self { memory, size: size as u64, event: event(), log2 }
    }

    /// Every message of an introduction, with its descriptor.
    pub fn messages(&self, id: u32) -> [([u8; MESSAGE], Option<RawFd>); 5] {
        let event = Some(self.event.as_raw_fd());
        [
            (init(id), None),
            (add_region(0, self.size), Some(self.memory.as_raw_fd())),
            (add_ring(true, 0, 0, 0, self.log2), event),
            (add_ring(false, 0, 0, Ring::size(self.log2) as u32, self.log2), event),
            (message(CONNECT, &[b"by hand"]), None),
        ]
    }
}
