//! Ports without a peer, and ports whose peer already has one.

use gannet::datapath::{BURST, Burst, Datapath as _};
use gannet::dpdk::PortError;

use crate::support::*;

/// A frame without a receiver used to be counted each time it was offered: 1.9 million times in 7 s.
#[test]
fn frames_that_nobody_takes_count_once() {
    isolated("attendance::frames_that_nobody_takes_count_once", || {
        let dir = scratch();
        let socket = path(dir.path(), "s");
        let eal = eal();
        let (port, mut queue) = open(&eal, &profile("memif", &[("devargs.socket", &socket)]));
        let mut burst = Burst::new();
        for n in 0..3 {
            assert!(make(&mut queue, &mut burst, n, 64));
        }
        for _ in 0..10_000 {
            assert_eq!(queue.tx_burst(&mut burst), 0);
        }
        assert_eq!((queue.stats().tx_full, queue.stats().tx_frames), (3, 0));
        // Another frame counts once.
        assert!(make(&mut queue, &mut burst, 3, 64));
        for _ in 0..10_000 {
            queue.tx_burst(&mut burst);
        }
        assert_eq!((queue.stats().tx_full, burst.len()), (4, 4));
        // When a peer connects, they are sent.
        let client = [("devargs.socket", socket.as_str()), ("devargs.role", "client")];
        let (other, mut theirs) = open(&eal, &profile("memif", &client));
        let mut seen = Seen::default();
        eventually("the arrival of all frames", || {
            queue.tx_burst(&mut burst);
            let mut got: Burst<_> = Burst::new();
            theirs.rx_burst(&mut got);
            seen.frames += got.len() as u32;
            seen.frames == 4
        });
        assert_eq!((queue.stats().tx_full, queue.stats().tx_frames), (4, 4));
        drop((burst, queue, theirs));
        assert_no_leak(&port);
        assert_no_leak(&other);
    });
}

/// With a full ring, each frame is counted once as well.
#[test]
fn frames_that_wait_for_room_count_once() {
    isolated("attendance::frames_that_wait_for_room_count_once", || {
        let eal = eal();
        let (_port, mut queue) = open(&eal, &profile("ring", &[]));
        let (mut burst, mut next) = (Burst::new(), 0);
        while queue.stats().tx_full == 0 {
            while burst.len() < BURST {
                assert!(make(&mut queue, &mut burst, next, 64));
                next += 1;
            }
            queue.tx_burst(&mut burst);
        }
        let left = burst.len() as u64;
        for _ in 0..1000 {
            queue.tx_burst(&mut burst);
        }
        assert_eq!((queue.stats().tx_full, queue.stats().tx_frames), (left, u64::from(next) - left));
    });
}

/// Three processes in a directory of their own: one that is there first, one that comes second and stays, one that is
/// refused.
fn three(test: &str, work: impl FnOnce(&str, &str)) {
    if let Some((case, dir)) = assignment() {
        if let Some(role) = case.strip_prefix(test).and_then(|rest| rest.strip_prefix('/')) {
            work(role, &path(&dir, "s"));
        }
        return;
    }
    let dir = scratch();
    let start = |role: &str| Peer::start(test, &format!("{test}/{role}"), dir.path());
    let mut host = start("host");
    host.expect("open");
    let mut first = start("first");
    first.expect("open");
    start("second").finish();
    first.finish();
    host.finish();
}

/// It used to be told "the link has not come up: is the other end there?", although it was.
#[test]
fn a_second_memif_client_hears_that_there_is_a_first() {
    three("attendance::a_second_memif_client_hears_that_there_is_a_first", |role, socket| {
        let side = if role == "host" { "server" } else { "client" };
        let eal = eal();
        let (_port, mut queue) = open(&eal, &profile("memif", &[("devargs.socket", socket), ("role", side)]));
        match role {
            "second" => {
                eventually("the reason", || queue.link_problem().is_some());
                let why = queue.link_problem().unwrap();
                assert!(why.contains("another client") && why.contains("--set id=N"), "{why}");
                return;
            }
            "first" => {
                eventually("the link", || queue.link_up());
                assert_eq!(queue.link_problem(), None);
            }
            _ => {}
        }
        say("open");
        until_told();
        assert!(role == "host" || queue.link_up(), "the first one goes on");
    });
}

#[test]
fn a_memif_client_with_an_unknown_id_hears_it() {
    isolated("attendance::a_memif_client_with_an_unknown_id_hears_it", || {
        let dir = scratch();
        let socket = path(dir.path(), "s");
        let eal = eal();
        let (_server, _ours) = open(&eal, &profile("memif", &[("devargs.socket", &socket)]));
        let sets = [("devargs.socket", socket.as_str()), ("role", "client"), ("id", "7")];
        let (_client, queue) = open(&eal, &profile("memif", &sets));
        eventually("the reason", || queue.link_problem().is_some());
        let why = queue.link_problem().unwrap();
        assert!(why.contains("--set id=N"), "{why}");
    });
}

/// The driver used to report that a message could not be received.
#[test]
fn a_second_guest_hears_that_there_is_a_first() {
    three("attendance::a_second_guest_hears_that_there_is_a_first", |role, socket| {
        let eal = eal();
        let guest = profile("virtio-user", &[("devargs.path", socket)]);
        if role == "second" {
            let error = refused(&eal, &guest);
            assert!(matches!(error, PortError::SocketTaken { .. }), "{error}");
            assert!(error.to_string().contains("already has another peer"), "{error}");
            return;
        }
        let host = profile("vhost", &[("devargs.iface", socket)]);
        let (_port, mut queue) = open(&eal, if role == "host" { &host } else { &guest });
        eventually("the link", || role == "host" || queue.link_up());
        say("open");
        until_told();
    });
}
