//! Processes that can reach a socket may connect, disconnect at any point, and send anything: the process survives,
//! serves its peer, and frees every descriptor and buffer.
//!
//! Before 2026-11-26, 48 strangers sufficed to kill the memif server ("Error adding fd … epoll_ctl, Bad file
//! descriptor").

use std::io::{Read as _, Write as _};
use std::os::fd::{AsRawFd as _, RawFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use gannet::base::rng::Rng;
use gannet::datapath::{Burst, Datapath as _, RxFrame as _, TxFrame as _};
use gannet::dpdk::Queue;

use crate::memif_peer::*;
use crate::support::*;

/// Number of strangers without a client, and again while one is served.
const STRANGERS: usize = 5000;

/// Open descriptors of this process.
fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Echoes frames until the parent stops it; reports what is left at the end.
fn server(profile: &str, key: &str, socket: &str) {
    let eal = eal();
    let (port, mut queue) = open(&eal, &crate::support::profile(profile, &[(key, socket)]));
    let before = descriptors();
    say("open");
    crate::shared_memory::serve(&mut queue, |queue| {
        let (mut rx, mut tx) = (Burst::new(), Burst::new());
        queue.rx_burst(&mut rx);
        for frame in &mut rx {
            let data = frame.data_mut();
            let Some(mut copy) = queue.tx_alloc() else { continue };
            let room = copy.payload_mut().len();
            let len = data.len().min(room);
            copy.payload_mut()[..len].copy_from_slice(&data[..len]);
            copy.set_payload_len(len);
            tx.push(copy);
        }
        queue.release(&mut rx);
        queue.tx_burst(&mut tx);
        if !queue.link_up() {
            std::thread::yield_now();
        }
    });
    eventually("the return of every descriptor", || descriptors() <= before);
    drop(queue);
    assert_no_leak(&port);
}

/// Sends requests until the parent stops it, and checks every answer.
fn client(profile: &str, sets: &[(&str, &str)]) {
    let eal = eal();
    let (_port, mut queue) = open(&eal, &crate::support::profile(profile, sets));
    eventually("the link", || queue.link_up());
    say("up");
    let told = std::sync::atomic::AtomicBool::new(false);
    let rounds = std::thread::scope(|scope| {
        scope.spawn(|| {
            until_told();
            told.store(true, std::sync::atomic::Ordering::Relaxed);
        });
        let mut rounds = 0u32;
        while !told.load(std::sync::atomic::Ordering::Relaxed) || rounds == 0 {
            round(&mut queue, rounds);
            rounds += 1;
        }
        rounds
    });
    println!("{rounds} rounds");
    say("done");
}

fn round(queue: &mut Queue, n: u32) {
    let (mut burst, len) = (Burst::new(), length(n, 1500));
    eventually("a buffer", || make(queue, &mut burst, n, len));
    let (mut answered, mut asked) = (false, Instant::now());
    eventually("an answer", || {
        // As any protocol, since a server that has not noticed yet that somebody is there again drops what it sends.
        if burst.is_empty() && asked.elapsed() > Duration::from_millis(100) {
            make(queue, &mut burst, n, len);
            asked = Instant::now();
        }
        queue.tx_burst(&mut burst);
        let mut rx = Burst::new();
        queue.rx_burst(&mut rx);
        for frame in &mut rx {
            if number(frame.data_mut()) == Some(n) {
                assert!(frame.data_mut() == pattern(n, len), "answer {n} is damaged");
                answered = true;
            }
        }
        queue.release(&mut rx);
        assert!(queue.link_up(), "the link went down");
        answered
    });
}

/// A server, strangers, a client, and strangers again.
fn storm(
    test: &str,
    serve: impl FnOnce(&str),
    ask: impl FnOnce(&str),
    mut stranger: impl FnMut(&Path, &mut Rng, &mut Vec<Box<dyn Send>>),
) {
    if let Some((case, dir)) = assignment() {
        let socket = path(&dir, "socket");
        if case == format!("{test}/server") {
            serve(&socket);
        } else if case == format!("{test}/client") {
            ask(&socket);
        }
        return;
    }
    let dir = scratch();
    let socket = dir.path().join("socket");
    let mut server = Peer::start(test, &format!("{test}/server"), dir.path());
    server.expect("open");
    let mut rng = Rng::from_u64(0x6d_656d);
    let mut half_open = Vec::new();
    for _ in 0..STRANGERS {
        stranger(&socket, &mut rng, &mut half_open);
        assert!(server.is_running(), "the server is gone");
    }
    half_open.clear();
    let mut client = Peer::start(test, &format!("{test}/client"), dir.path());
    client.expect("up");
    for _ in 0..STRANGERS {
        stranger(&socket, &mut rng, &mut half_open);
        assert!(server.is_running() && client.is_running(), "one of them is gone");
    }
    client.close_input();
    client.expect("done");
    client.finish();
    half_open.clear();
    server.finish();
}

/// Sends part of an introduction or garbage, and hangs up or stays for a while.
fn memif_stranger(socket: &Path, rng: &mut Rng, half_open: &mut Vec<Box<dyn Send>>) {
    let control = Control::connect(socket).unwrap();
    let offer = Offer::new([0, 4, 10][rng.below(3) as usize]);
    let mut garbage = vec![0; 1 + rng.below(300) as usize];
    rng.fill(&mut garbage);
    // Sending may fail because the other end hangs up.
    let say = |message: &[u8; MESSAGE], file: Option<RawFd>| control.send(message, file).is_ok();
    match rng.below(10) {
        0 => {}
        1 => drop(control.receive()),
        2 => drop(control.send_raw(&garbage, &[])),
        // Some of the introduction: as fast as it goes, or step by step.
        3 | 4 => {
            let patient = rng.below(2) == 0;
            for (message, file) in offer.messages(0).iter().take(rng.below(6) as usize) {
                if patient && control.receive().is_none() || !say(message, *file) {
                    break;
                }
            }
        }
        // All of it, frames, and gone.
        5 => {
            for (message, file) in &offer.messages(0) {
                say(message, *file);
            }
            let rings = Region::map(&offer.memory, offer.size as usize);
            let ring = Ring { offset: 0, log2: offer.log2 };
            while let Some((message, _)) = control.receive() {
                if message[..2] == CONNECTED.to_le_bytes() {
                    ring.length(&rings, 0).store(64, std::sync::atomic::Ordering::Relaxed);
                    ring.head(&rings).store(1, std::sync::atomic::Ordering::Release);
                    break;
                }
            }
            if rng.below(2) == 0 {
                say(&message(DISCONNECT, &[&[1; 100]]), None);
            }
        }
        // Descriptors that nobody asked for.
        6 => {
            let files = [offer.event.as_raw_fd(); 3];
            let kind = [INIT, ACK, CONNECT, DISCONNECT, ADD_REGION, ADD_RING, 99][rng.below(7) as usize];
            let _ = control.send(&init(0), None);
            let _ = control.send_raw(&message(kind, &[&garbage[..garbage.len().min(120)]]), &files);
        }
        // Memory and rings that are not there.
        7 => {
            let short = memory(4096, rng.below(2) == 0);
            let wild = [
                (init(0), None),
                (add_region(0, 1 << rng.below(40)), Some(short.as_raw_fd())),
                (add_ring(true, rng.below(3) as u16, rng.below(2) as u16 * 999, rng.next_u64() as u32, 14), Some(2)),
                (add_ring(false, 0, 0, 0, 2), Some(offer.event.as_raw_fd())),
                (message(CONNECT, &[]), None),
            ];
            for (message, file) in wild.iter().filter(|_| rng.below(8) > 0) {
                say(message, *file);
            }
        }
        // Talks and does not listen.
        8 => {
            let _ = control.send(&init(0), None);
            for _ in 0..400 {
                // SAFETY: a message of ours.
                let sent = unsafe {
                    let ack = message(ACK, &[]);
                    libc::send(control.fd(), ack.as_ptr().cast(), MESSAGE, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL)
                };
                if sent < 0 {
                    break;
                }
            }
        }
        // Says who it is, and nothing more.
        _ => {
            if rng.below(2) == 0 {
                say(&init(0), None);
            }
            if half_open.len() >= 12 {
                half_open.swap_remove(rng.below(12) as usize);
            }
            half_open.push(Box::new(control));
        }
    }
}

#[test]
fn memif_server_outlives_ten_thousand_strangers() {
    storm(
        "strangers::memif_server_outlives_ten_thousand_strangers",
        |socket| server("memif", "devargs.socket", socket),
        |socket| client("memif", &[("devargs.socket", socket), ("devargs.role", "client")]),
        memif_stranger,
    );
}

/// A vhost-user message: request, flags, size, payload.
fn request(number: u32, payload: &[u8]) -> Vec<u8> {
    [&number.to_le_bytes()[..], &1u32.to_le_bytes(), &(payload.len() as u32).to_le_bytes(), payload].concat()
}

fn vhost_stranger(socket: &Path, rng: &mut Rng, half_open: &mut Vec<Box<dyn Send>>) {
    let Ok(mut stream) = UnixStream::connect(socket) else { return };
    let mut garbage = vec![0; 1 + rng.below(300) as usize];
    rng.fill(&mut garbage);
    let shared = memory(1 << 16, true);
    match rng.below(8) {
        0 => {}
        1 => drop(stream.write(&garbage)),
        // A header without its end, and one without what it announces.
        2 => drop(stream.write(&request(1, &[])[..rng.below(12) as usize])),
        3 => drop(stream.write(&request(5, &[0; 72])[..12 + rng.below(72) as usize])),
        // Questions, and not all the answers.
        4 => {
            for number in [15, 1, 3, 17, 24, 36] {
                let _ = stream.write(&request(number, &[]));
            }
            let _ = stream.read(&mut garbage);
        }
        // Memory that is smaller than it is said to be, and rings in it.
        5 | 6 => {
            let u64s = |words: &[u64]| words.iter().flat_map(|w| w.to_le_bytes()).collect::<Vec<u8>>();
            let size = 1 << rng.below(30);
            let table = [&[1, 0, 0, 0, 0, 0, 0, 0][..], &u64s(&[0, size, 0, 0])].concat();
            // Or what cannot be mapped at all, whose file the library forgets in every release.
            let (pipe, _end) = std::io::pipe().unwrap();
            let files = [if rng.below(2) == 0 { shared.as_raw_fd() } else { pipe.as_raw_fd() }];
            let _ = stream.write(&request(3, &[]));
            let _ = stream.write(&request(2, &u64s(&[1 << 32 | 1 << 30])));
            let _ = send_with(&stream, &request(5, &table), &files);
            for ring in 0..rng.below(3) {
                let _ = stream.write(&request(8, &u64s(&[ring | 256 << 32])));
                let _ = stream.write(&request(10, &u64s(&[ring])));
                let _ = stream.write(&request(9, &u64s(&[ring, 0, 8192, 4096, 0])));
                let _ = send_with(&stream, &request(12, &u64s(&[ring])), &files);
                let _ = send_with(&stream, &request(13, &u64s(&[ring])), &files);
            }
            if rng.below(2) == 0 {
                let _ = stream.write(&request(rng.below(45) as u32, &garbage));
            }
        }
        _ => {
            // It stays, with or without half a message.
            if rng.below(64) == 0 {
                let _ = stream.write(&request(5, &[0; 72])[..20]);
            }
            if half_open.len() >= 4 {
                half_open.clear();
            }
            half_open.push(Box::new(stream));
        }
    }
}

fn send_with(stream: &UnixStream, bytes: &[u8], files: &[RawFd]) -> std::io::Result<()> {
    Control::from_stream(stream).send_raw(bytes, files)
}

#[test]
fn vhost_server_outlives_ten_thousand_strangers() {
    storm(
        "strangers::vhost_server_outlives_ten_thousand_strangers",
        |socket| server("vhost", "devargs.iface", socket),
        |socket| client("virtio-user", &[("devargs.path", socket)]),
        vhost_stranger,
    );
}

/// A peer that wants an answer is not disconnected for impossible requests, and could go on forever: the library
/// forgets a file each time. The number of such files is limited, and they are closed with the peer and with the port.
///
/// Before 2026-11-29, all of them remained open.
#[test]
fn files_that_the_vhost_library_forgets_are_few_and_go_with_their_peer() {
    isolated("strangers::files_that_the_vhost_library_forgets_are_few_and_go_with_their_peer", || {
        let dir = scratch();
        let socket = path(dir.path(), "socket");
        let eal = eal();
        let open = || open(&eal, &profile("vhost", &[("devargs.iface", &socket)]));
        drop(open());
        let nothing = descriptors();
        let (pipe, _end) = std::io::pipe().unwrap();
        let words = |words: &[u64]| words.iter().flat_map(|w| w.to_le_bytes()).collect::<Vec<u8>>();
        let table = words(&[1, 0, 4096, 0, 0]);
        // With the flag "need reply", which is bit 3.
        let message = [&words(&[9 << 32 | 5])[..], &(table.len() as u32).to_le_bytes(), &table].concat();
        let ask = |mut stream: &UnixStream| {
            send_with(stream, &message, &[pipe.as_raw_fd()]).and_then(|()| stream.read_exact(&mut [0; 20]))
        };
        let asked = |stream: &UnixStream, patience| (0..patience).take_while(|_| ask(stream).is_ok()).count();
        for hang_up in [true, false] {
            let (port, queue) = open();
            let before = descriptors();
            let stream = UnixStream::connect(&socket).unwrap();
            let n = asked(&stream, 1000);
            assert!((500..600).contains(&n), "{n} files were taken");
            eventually("the return of the files of one that was cut off", || descriptors() == before + 1);
            for _ in 0..3 {
                let stream = UnixStream::connect(&socket).unwrap();
                assert_eq!(asked(&stream, 200), 200);
                assert!(descriptors() > before + 200, "the library forgets no files any more");
                drop(stream);
                eventually("the return of the files of one that hung up", || descriptors() == before + 1);
            }
            drop(stream);
            // A peer that is there while the port closes, or has just hung up, possibly unnoticed.
            let stream = UnixStream::connect(&socket).unwrap();
            assert_eq!(asked(&stream, 200), 200);
            let stream = Some(stream).filter(|_| !hang_up);
            drop((queue, port));
            drop(stream);
            eventually("the return of the files of the last one", || descriptors() == nothing + 2);
        }
    });
}

/// Each device of a server used to leave a descriptor, and a handler with freed memory.
#[test]
fn a_closed_listener_leaves_nothing() {
    isolated("strangers::a_closed_listener_leaves_nothing", || {
        let dir = scratch();
        let socket = path(dir.path(), "socket");
        let eal = eal();
        let once = || {
            drop(open(&eal, &profile("memif", &[("devargs.socket", &socket)])));
            descriptors()
        };
        let first = once();
        for _ in 0..20 {
            assert_eq!(once(), first);
        }
        // A peer that waits to be accepted while the port closes.
        for _ in 0..50 {
            let (port, queue) = open(&eal, &profile("memif", &[("devargs.socket", &socket)]));
            let waiting: Vec<Control> = (0..2).map(|_| Control::connect(Path::new(&socket)).unwrap()).collect();
            drop((queue, port));
            assert!(waiting.iter().all(Control::is_over));
        }
        eventually("the end of every connection", || once() == first);
    });
}

/// A process that runs out of descriptors survives; EAL used to panic when it had none for its own use.
#[test]
fn without_a_free_descriptor_the_interrupt_thread_waits() {
    isolated("strangers::without_a_free_descriptor_the_interrupt_thread_waits", || {
        let dir = scratch();
        let socket = dir.path().join("socket");
        let eal = eal();
        let (port, _queue) = open(&eal, &profile("memif", &[("devargs.socket", socket.to_str().unwrap())]));
        let offer = Offer::new(4);
        let mine: Vec<Control> = (0..4).map(|_| Control::connect(&socket).unwrap()).collect();
        let mut rest = Vec::new();
        // SAFETY: changes this process's limit only.
        unsafe {
            let few = libc::rlimit { rlim_cur: 200, rlim_max: 200 };
            assert_eq!(libc::setrlimit(libc::RLIMIT_NOFILE, &few), 0);
        }
        while let Ok(file) = std::fs::File::open("/dev/null") {
            rest.push(file);
        }
        // Hang up, so that the list changes, and reconnect. Freed descriptors are taken again immediately.
        drop(mine);
        for _ in 0..100 {
            while let Ok(file) = std::fs::File::open("/dev/null") {
                rest.push(file);
            }
            rest.pop();
            if let Ok(file) = Control::connect(&socket) {
                std::thread::sleep(std::time::Duration::from_millis(1));
                drop(file);
            }
        }
        drop(rest);
        // Everything works again.
        let control = Control::connect(&socket).unwrap();
        control.expect(HELLO);
        for (message, file) in &offer.messages(0) {
            control.send(message, *file).unwrap();
        }
        control.expect(CONNECTED);
        assert!(port.link_up());
    });
}
