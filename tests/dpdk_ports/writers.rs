//! Peers that share our memory and write where and when they should not.

use std::os::fd::AsRawFd as _;
use std::path::Path;
use std::sync::atomic::Ordering;

use gannet::crypto::{HEAD_AT, HEAD_LEN, HeadRoom, Suite, packet_key};
use gannet::datapath::{Burst, Datapath as _, RxFrame as _, TxFrame as _};
use gannet::dpdk::{Memory, Port, Queue, RxMbuf};

use crate::memif_peer::*;
use crate::support::*;

/// A zero-copy client of ours, whose server is made by hand.
fn with_server(sets: &[(&str, &str)], body: impl FnOnce(&Port, &mut Queue, &mut Client)) {
    let dir = scratch();
    let socket = path(dir.path(), "socket");
    let server = Server::bind(Path::new(&socket));
    let eal = eal_for_zero_copy();
    let common = [("devargs.socket", socket.as_str()), ("role", "client"), ("zero-copy", "true"), ("mbufs", "8192")];
    let greeting = std::thread::spawn(move || server.accept());
    let (port, mut queue) = open(&eal, &profile("memif", &[&common, sets].concat()));
    let mut client = greeting.join().unwrap();
    eventually("the link", || queue.link_up());
    assert_eq!(port.memory(), Memory::Shared);
    // Buffers for the server to write to.
    eventually("buffers", || {
        let mut none = Burst::new();
        queue.rx_burst(&mut none) == 0 && client.ready()
    });
    body(&port, &mut queue, &mut client);
}

fn receive(queue: &mut Queue, count: usize) -> Vec<RxMbuf> {
    let mut frames = Vec::new();
    eventually("frames", || {
        let mut burst = Burst::new();
        queue.rx_burst(&mut burst);
        frames.extend(burst.drain(..));
        frames.len() == count
    });
    frames
}

/// Before, the frame of 60,000 bytes was received, with 58,000 bytes of its neighbours.
fn lengths_beyond_the_buffer(sets: &[(&str, &str)]) {
    with_server(sets, |_, queue, client| {
        let room = 2048 - 128;
        for announced in [60_000, u32::from(u16::MAX), 2049] {
            client.send(&[(&pattern(1, 100), 100)]);
            client.send(&[(&pattern(2, 100), announced)]);
            client.send(&[(&pattern(3, 100), 100), (&pattern(3, 50), announced)]);
            client.send(&[(&pattern(4, 100), announced), (&pattern(4, 50), 50)]);
            client.send(&[(&pattern(5, room), room as u32)]);
            client.send(&[(&pattern(6, 100), 100), (&pattern(6, 50), 50)]);
            let mut frames = receive(queue, 3);
            assert!(frames[0].data_mut() == pattern(1, 100));
            assert!(frames[1].data_mut() == pattern(5, room));
            assert!(frames[2].data_mut() == [pattern(6, 100), pattern(6, 50)].concat());
        }
        assert_eq!(queue.stats().rx_out_of_bounds, 9);
    });
}

#[test]
fn lengths_beyond_the_buffer_are_dropped_where_the_peer_is_trusted() {
    const NAME: &str = "writers::lengths_beyond_the_buffer_are_dropped_where_the_peer_is_trusted";
    isolated(NAME, || lengths_beyond_the_buffer(&[("peer", "trusted")]));
}

#[test]
fn lengths_beyond_the_buffer_are_dropped_where_frames_are_copied() {
    isolated("writers::lengths_beyond_the_buffer_are_dropped_where_frames_are_copied", || {
        lengths_beyond_the_buffer(&[]);
    });
}

const HEADER: usize = 42 + 9;

/// A sealed packet behind its headers, and its plaintext.
fn sealed() -> (Vec<u8>, Vec<u8>, gannet::crypto::PacketKey) {
    let key = packet_key(Suite::Aes128Gcm, &[7; 16], &[9; 12]);
    let plain = pattern(8, 1200);
    let mut frame = vec![0; HEADER + plain.len() + 16];
    frame[..HEADER].copy_from_slice(&pattern(8, HEADER));
    let mut sealer = key.seal(5, &mut frame[42..], HEADER - 42);
    sealer.copy_from(&plain);
    sealer.finish();
    (frame, plain, key)
}

/// The plaintext of a packet whose bytes were changed between the verification of its tag and its decryption, at
/// several places.
fn opened_while_it_changes(sets: &[(&str, &str)], check: impl Fn(&[u8], &[u8], usize)) {
    with_server(sets, |_, queue, client| {
        let (frame, plain, key) = sealed();
        for at in [0, 1, 15, 16, 63, 64, 500, 1199] {
            let (region, place) = client.send(&[(&frame, frame.len() as u32)]);
            let mut frames = receive(queue, 1);
            let (header, body) = frames[0].data_mut()[42..].split_at_mut(HEADER - 42);
            let mut head: HeadRoom = [0; HEAD_AT + HEAD_LEN];
            let opened = key.open(5, header, body, &mut head).expect("an authentic packet");
            client.regions[region].byte(place + HEADER + at).fetch_xor(0x40, Ordering::SeqCst);
            let mut out = vec![0; plain.len()];
            opened.decrypt_at(0, &mut out);
            check(&out, &plain, at);
        }
    });
}

/// The peer can write to the process's memory, and the setting declares that. (This shows what the setting is for.)
#[test]
fn a_trusted_peer_can_change_what_was_verified() {
    isolated("writers::a_trusted_peer_can_change_what_was_verified", || {
        opened_while_it_changes(&[("peer", "trusted")], |out, plain, at| {
            let mut changed = plain.to_vec();
            changed[at] ^= 0x40;
            assert!(out == changed, "byte {at} is not the changer's choice");
        });
    });
}

#[test]
fn no_byte_that_changed_after_its_verification_comes_out() {
    isolated("writers::no_byte_that_changed_after_its_verification_comes_out", || {
        opened_while_it_changes(&[], |out, plain, at| assert!(out == plain, "byte {at} came out changed"));
    });
}

/// A frame that the peer keeps writing to has the same contents at every access.
#[test]
fn a_received_frame_stands_still() {
    isolated("writers::a_received_frame_stands_still", || {
        with_server(&[], |port, queue, client| {
            assert!(port.copies_frames());
            let frame = pattern(3, 1000);
            for _ in 0..200 {
                let (region, place) = client.send(&[(&frame, 1000)]);
                let target = &client.regions[region];
                let told = std::sync::atomic::AtomicBool::new(false);
                std::thread::scope(|scope| {
                    let writer = scope.spawn(|| {
                        let mut rounds = 0u8;
                        while !told.load(Ordering::Relaxed) {
                            rounds = rounds.wrapping_add(1);
                            for i in 18..1000 {
                                target.byte(place + i).store(rounds, Ordering::Relaxed);
                            }
                        }
                    });
                    let mut frames = receive(queue, 1);
                    let first = frames[0].data_mut().to_vec();
                    let same = (0..20).all(|_| {
                        std::thread::yield_now();
                        frames[0].data_mut() == first
                    });
                    told.store(true, Ordering::Relaxed);
                    writer.join().unwrap();
                    assert!(same, "it changed");
                });
            }
        });
    });
}

/// Whether others could map the memory at `at`.
fn is_shared(at: *const u8) -> bool {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let line = maps.lines().find(|line| {
        let (from, rest) = line.split_once('-').unwrap();
        let (to, _) = rest.split_once(' ').unwrap();
        let of = |hex| usize::from_str_radix(hex, 16).unwrap();
        (of(from)..of(to)).contains(&(at as usize))
    });
    line.expect("mapped memory").split(' ').nth(1).unwrap().ends_with('s')
}

/// Frames to send are built, and sealed, where the peer does not see it; the device gets copies.
#[test]
fn frames_are_built_outside_of_the_shared_memory() {
    isolated("writers::frames_are_built_outside_of_the_shared_memory", || {
        with_server(&[], |port, queue, client| {
            let mut burst = Burst::new();
            for n in 0..32 {
                assert!(make(queue, &mut burst, n, 60 + 40 * n as usize));
                assert!(!is_shared(burst[n as usize].data().as_ptr()));
            }
            assert_eq!(queue.tx_burst(&mut burst), 32);
            for n in 0..32 {
                assert!(client.receive() == pattern(n, 60 + 40 * n as usize), "frame {n}");
            }
            // When the ring is full, frames stay with their owner and are sent later.
            let mut sent = 0;
            while sent < 5000 {
                while !burst.is_full() && make(queue, &mut burst, sent, 100) {
                    sent += 1;
                }
                if queue.tx_burst(&mut burst) == 0 {
                    break;
                }
            }
            let left = burst.len();
            assert!(left > 0 && sent < 5000);
            for n in 32..sent - left as u32 {
                let _ = n;
                client.receive();
            }
            eventually("room", || {
                queue.tx_burst(&mut burst);
                burst.is_empty()
            });
            let _ = port;
        });
    });
}

/// Each kind of port knows who can write to its memory.
#[test]
fn private_ports_do_not_copy() {
    isolated("writers::private_ports_do_not_copy", || {
        let dir = scratch();
        let socket = path(dir.path(), "socket");
        let eal = eal();
        for (name, sets) in [
            ("ring", vec![]),
            ("memif", vec![("devargs.socket", socket.as_str())]),
            ("vhost", vec![("devargs.iface", socket.as_str())]),
        ] {
            let (port, mut queue) = open(&eal, &profile(name, &sets));
            assert_eq!((port.memory(), port.copies_frames()), (Memory::Private, false), "{name}");
            if name == "ring" {
                let frame = queue.tx_alloc().unwrap();
                assert!(is_shared(frame.data().as_ptr()), "DPDK's own memory, which a zero-copy peer would map");
            }
        }
    });
}

/// A server of a wrong user is not connected to.
#[test]
fn whose_socket_it_is_matters() {
    isolated("writers::whose_socket_it_is_matters", || {
        // SAFETY: takes nothing.
        if unsafe { libc::geteuid() } != 0 {
            println!("skipped: giving a socket away needs root");
            return;
        }
        let dir = scratch();
        let socket = path(dir.path(), "socket");
        let server = Server::bind(Path::new(&socket));
        std::os::unix::fs::chown(&socket, Some(4321), None).unwrap();
        let eal = eal();
        let client = |extra: &[(&str, &str)]| {
            profile("memif", &[&[("devargs.socket", socket.as_str()), ("role", "client")], extra].concat())
        };
        let error = refused(&eal, &client(&[])).to_string();
        assert!(error.contains("belongs to user 4321") && error.contains("peer_uid=4321"), "{error}");
        drop(open(&eal, &client(&[("peer_uid", "4321")])));
        // A directory in which anyone can create a socket is not accepted, neither for listening nor for connecting.
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
        for role in ["client", "server"] {
            let error = refused(&eal, &client(&[("role", role), ("peer_uid", "4321")])).to_string();
            assert!(error.contains("chmod go-w"), "{error}");
        }
        drop(server);
    });
}

/// A process of another user is refused, although the socket's own permissions would allow it.
#[test]
fn another_users_process_is_sent_away() {
    const NAME: &str = "writers::another_users_process_is_sent_away";
    isolated(NAME, || {
        // SAFETY: takes nothing.
        if unsafe { libc::geteuid() } != 0 {
            println!("skipped: becoming another user needs root");
            return;
        }
        use std::os::unix::fs::PermissionsExt as _;
        let dir = scratch();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let eal = eal();
        for (n, (name, key)) in [("memif", "devargs.socket"), ("vhost", "devargs.iface")].into_iter().enumerate() {
            let socket = path(dir.path(), name);
            for (uid, let_in) in [("", false), ("4321", true)] {
                let (_port, _queue) = open(&eal, &profile(name, &[(key, &socket), ("peer_uid", uid)]));
                std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(0o777)).unwrap();
                // SAFETY: the child only makes system calls, and ends.
                let status = unsafe {
                    let child = libc::fork();
                    if child == 0 {
                        libc::setresuid(4321, 4321, 4321);
                        let kind = [libc::SOCK_SEQPACKET, libc::SOCK_STREAM][n];
                        libc::_exit(if stays(&socket, kind) { 0 } else { 1 });
                    }
                    let mut status = 0;
                    libc::waitpid(child, &mut status, 0);
                    libc::WEXITSTATUS(status)
                };
                assert_eq!(status == 0, let_in, "{name} {uid:?}");
            }
        }
    });
}

/// Connects; whether the other end keeps the connection for a moment.
fn stays(socket: &str, kind: i32) -> bool {
    let Ok(control) = Control::connect_as(Path::new(socket), kind) else { return false };
    // memif sends a hello; vhost sends nothing, and checks new sockets once a second. A refused peer reads the end.
    let mut poll = libc::pollfd { fd: control.fd(), events: libc::POLLIN | libc::POLLRDHUP, revents: 0 };
    // SAFETY: one entry, which is ours.
    let ready = unsafe { libc::poll(&mut poll, 1, 2500) };
    ready == 0 || poll.revents & (libc::POLLRDHUP | libc::POLLHUP) == 0
}

/// A file shared with a client of ours must have the size that is claimed.
#[test]
fn the_peers_memory_has_to_be_there() {
    isolated("writers::the_peers_memory_has_to_be_there", || {
        let dir = scratch();
        let socket = path(dir.path(), "socket");
        let eal = eal();
        let (port, mut queue) = open(&eal, &profile("memif", &[("devargs.socket", &socket)]));
        let short = memory(100, true);
        let loose = memory(1 << 20, false);
        let event = event();
        for file in [&short, &loose] {
            let control = Control::connect(Path::new(&socket)).unwrap();
            control.expect(HELLO);
            control.send(&init(0), None).unwrap();
            control.expect(ACK);
            // Before, both were mapped, and the first access to their rings was a SIGBUS, immediately or after
            // `ftruncate`.
            let _ = control.send(&add_region(0, 1 << 20), Some(file.as_raw_fd()));
            let _ = control.send(&add_ring(true, 0, 0, 0, 4), Some(event.as_raw_fd()));
            let _ = control.send(&add_ring(false, 0, 0, 4096, 4), Some(event.as_raw_fd()));
            let _ = control.send(&message(CONNECT, &[]), None);
            assert!(control.is_over());
            assert!(!port.link_up());
            queue.rx_burst(&mut Burst::new());
        }
    });
}
