//! memif, and vhost with virtio-user: shared memory between processes.

use std::sync::atomic::{AtomicBool, Ordering};

use gannet::datapath::{Burst, Datapath as _};
use gannet::dpdk::{Port, Queue};

use crate::support::*;

/// One side of a pair: what it opens, and what it does then.
pub struct Side {
    profile: &'static str,
    sets: Vec<(&'static str, String)>,
}

impl Side {
    fn run(&self, work: impl FnOnce(&mut Queue)) {
        let zero_copy = self.sets.iter().any(|(key, _)| *key == "devargs.zero-copy");
        let eal = if zero_copy { eal_for_zero_copy() } else { eal() };
        let sets: Vec<(&str, &str)> = self.sets.iter().map(|(k, v)| (*k, v.as_str())).collect();
        let (port, mut queue) = open(&eal, &profile(self.profile, &sets));
        say("open");
        eventually("the link", || queue.link_up());
        say("up");
        work(&mut queue);
        say("done");
        until_told();
        // Nobody polls any more: what is still in use is in the device's rings.
        drop((queue, port, eal));
        say("closed");
    }
}

/// Polls with `turn` until the parent says so, on more threads than there are CPUs: the one that polls is
/// interrupted anywhere.
pub fn serve(queue: &mut Queue, mut turn: impl FnMut(&mut Queue)) {
    let told = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, |n| n.get()) {
            scope.spawn(|| {
                while !told.load(Ordering::Relaxed) {
                    std::hint::spin_loop()
                }
            });
        }
        scope.spawn(|| {
            until_told();
            told.store(true, Ordering::Relaxed);
        });
        while !told.load(Ordering::Relaxed) {
            turn(queue);
        }
    });
}

/// Runs an echoing server and an asking client in a process each. `sides` makes them for a socket.
fn pair(test: &str, sides: impl FnOnce(&str) -> (Side, Side), traffic: &Traffic) {
    pair_of(test, sides, |q| echo(q, traffic.count), |q| round_trips(q, traffic));
}

/// Runs `serve` and `ask` in a process each.
pub fn pair_of(
    test: &str,
    sides: impl FnOnce(&str) -> (Side, Side),
    serve: impl FnOnce(&mut Queue),
    ask: impl FnOnce(&mut Queue),
) {
    let (server_case, client_case) = (format!("{test}/server"), format!("{test}/client"));
    if let Some((case, dir)) = assignment() {
        let (server, client) = sides(&path(&dir, "socket"));
        match case {
            case if case == server_case => server.run(serve),
            case if case == client_case => client.run(ask),
            _ => {}
        }
        return;
    }
    let dir = scratch();
    let mut one = Peer::start(test, &server_case, dir.path());
    one.expect("open");
    let mut two = Peer::start(test, &client_case, dir.path());
    two.expect("done");
    one.expect("done");
    // The client first, so that the server sees it go.
    two.close_input();
    two.expect("closed");
    two.finish();
    one.close_input();
    one.expect("closed");
    one.finish();
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "the server removes its socket");
}

pub fn side(profile: &'static str, mtu: u16, sets: &[(&'static str, &str)]) -> Side {
    let sets = sets.iter().map(|(k, v)| (*k, (*v).to_owned()));
    Side { profile, sets: sets.chain([("mtu", mtu.to_string())]).collect() }
}

fn memif(test: &str, extra: &[(&'static str, &str)], mtu: u16, count: u32) {
    let sides = |socket: &str| {
        let server = [("devargs.socket", socket), ("devargs.role", "server")];
        let client = [&[("devargs.socket", socket), ("devargs.role", "client")], extra].concat();
        (side("memif", mtu, &server), side("memif", mtu, &client))
    };
    pair(test, sides, &Traffic { count, mtu, window: 512 });
}

fn vhost(test: &str, extra: &[(&'static str, &str)], mtu: u16) {
    let sides = |socket: &str| {
        let host = [&[("devargs.iface", socket)], extra].concat();
        let guest = [&[("devargs.path", socket)], extra].concat();
        (side("vhost", mtu, &host), side("virtio-user", mtu, &guest))
    };
    pair(test, sides, &Traffic { count: 10_000, mtu, window: 128 });
}

#[test]
fn memif_pair() {
    memif("shared_memory::memif_pair", &[], 1500, 10_000);
}

#[test]
fn memif_jumbo() {
    memif("shared_memory::memif_jumbo", &[], 9000, 10_000);
}

#[test]
fn memif_zero_copy() {
    let zero_copy = [("devargs.zero-copy", "true"), ("mbufs", "8192")];
    memif("shared_memory::memif_zero_copy", &zero_copy, 1500, 10_000);
}

#[test]
fn memif_small_receive_buffers_are_joined() {
    memif("shared_memory::memif_small_receive_buffers_are_joined", &[("mbuf_size", "256")], 1500, 2000);
}

#[test]
fn memif_two_queues_in_one_process() {
    isolated("shared_memory::memif_two_queues_in_one_process", || {
        let dir = scratch();
        let socket = path(dir.path(), "socket");
        let eal = eal();
        let port = |role| {
            let sets = [("devargs.socket", socket.as_str()), ("devargs.role", role), ("queues", "2")];
            Port::open(&eal, &profile("memif", &sets)).unwrap_or_else(|e| panic!("{e}"))
        };
        let (mut server, mut client) = (port("server"), port("client"));
        eventually("the link", || server.link_up() && client.link_up());
        let (mut ours, mut theirs) = (server.take_queues(), client.take_queues());
        for (s, c) in ours.iter_mut().zip(&mut theirs) {
            let traffic = Traffic { count: 2000, mtu: 1500, window: 256 };
            traffic.run(s, c);
            traffic.run(c, s);
        }
        // The link goes down with the other side, and sending then leaves everything with its owner.
        drop((theirs, client));
        eventually("the end of the link", || !server.link_up());
        let mut burst = Burst::new();
        assert!(make(&mut ours[0], &mut burst, 0, 64));
        assert_eq!((ours[0].tx_burst(&mut burst), burst.len()), (0, 1));
        drop((burst, ours));
        assert_no_leak(&server);
    });
}

#[test]
fn vhost_and_virtio_user() {
    vhost("shared_memory::vhost_and_virtio_user", &[], 1500);
}

#[test]
fn vhost_and_virtio_user_jumbo() {
    vhost("shared_memory::vhost_and_virtio_user_jumbo", &[], 9000);
}

#[test]
fn vhost_and_virtio_user_small_receive_buffers_are_joined() {
    let small = [("mbuf_size", "512"), ("mbufs", "8192")];
    vhost("shared_memory::vhost_and_virtio_user_small_receive_buffers_are_joined", &small, 1500);
}

/// DPDK 24.11 and later refuse more than 127 bytes of device arguments, unless the bus is asked directly.
fn with_the_longest_path(socket: &str) -> String {
    format!("{socket:s<107}")
}

#[test]
fn memif_socket_with_the_longest_path() {
    let sides = |socket: &str| {
        let socket = with_the_longest_path(socket);
        let role = |role| [("devargs.socket", socket.as_str()), ("devargs.role", role)];
        (side("memif", 1500, &role("server")), side("memif", 1500, &role("client")))
    };
    let traffic = Traffic { count: 100, mtu: 1500, window: 32 };
    pair("shared_memory::memif_socket_with_the_longest_path", sides, &traffic);
}

#[test]
fn vhost_socket_with_the_longest_path() {
    let sides = |socket: &str| {
        let socket = with_the_longest_path(socket);
        let key = |key| [(key, socket.as_str())];
        (side("vhost", 1500, &key("devargs.iface")), side("virtio-user", 1500, &key("devargs.path")))
    };
    let traffic = Traffic { count: 100, mtu: 1500, window: 32 };
    pair("shared_memory::vhost_socket_with_the_longest_path", sides, &traffic);
}

/// Both ends of a memif pair close at the same time, again and again.
#[test]
fn memif_both_sides_leave_at_once() {
    isolated("shared_memory::memif_both_sides_leave_at_once", || {
        let dir = scratch();
        let socket = path(dir.path(), "socket");
        let eal = eal();
        for _ in 0..200 {
            let port = |role| open(&eal, &profile("memif", &[("devargs.socket", &socket), ("devargs.role", role)]));
            let (server, client) = (port("server"), port("client"));
            eventually("the link", || server.0.link_up() && client.0.link_up());
            let other = std::thread::spawn(move || drop(client));
            drop(server);
            other.join().unwrap();
        }
    });
}

/// A memif server outlives its clients, however they go and whatever it is doing then.
#[test]
fn memif_server_outlives_its_clients() {
    const TEST: &str = "shared_memory::memif_server_outlives_its_clients";
    const CLIENTS: u32 = 500;
    if let Some((case, dir)) = assignment() {
        let socket = path(&dir, "socket");
        if case.ends_with("/server") {
            let eal = eal();
            let (_port, mut queue) = open(&eal, &profile("memif", &[("devargs.socket", &socket)]));
            say("open");
            serve(&mut queue, |queue| {
                let mut burst = Burst::new();
                queue.rx_burst(&mut burst);
                queue.release(&mut burst);
                let mut burst = Burst::new();
                for n in 0..4 {
                    make(queue, &mut burst, n, 64);
                }
                queue.tx_burst(&mut burst);
            });
        } else if case.ends_with("/client") {
            let eal = eal();
            let sets = [("devargs.socket", socket.as_str()), ("devargs.role", "client")];
            for _ in 0..CLIENTS {
                let (port, mut queue) = open(&eal, &profile("memif", &sets));
                eventually("the link", || port.link_up());
                let mut burst = Burst::new();
                for n in 0..32 {
                    make(&mut queue, &mut burst, n, 1000);
                }
                queue.tx_burst(&mut burst);
            }
            say("done");
        }
        return;
    }
    let dir = scratch();
    let mut server = Peer::start(TEST, &format!("{TEST}/server"), dir.path());
    server.expect("open");
    let mut client = Peer::start(TEST, &format!("{TEST}/client"), dir.path());
    client.expect("done");
    client.finish();
    server.finish();
}
