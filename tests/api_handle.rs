//! Tests of handles: here, whole transfers over two cores on threads of their own; in `turns`, step by step.
#![forbid(unsafe_code)]

mod api;
#[path = "api/cores.rs"]
mod cores;
#[path = "api/datagrams.rs"]
mod datagrams;
#[path = "api/turns.rs"]
mod turns;
#[path = "api/vectored.rs"]
mod vectored;

use std::collections::{HashSet, VecDeque};
use std::thread;

use api::{Setup, World, client_config, connected, fill, insist, is_right, next, remote, run_core};
use gannet::api::handle::Opening;
use gannet::api::*;

const TOTAL: usize = 10 << 20;
const BUF: usize = 512 << 10;
const PIECE: usize = 256 << 10;

/// Buffers owned by the engine, by address.
#[derive(Default)]
struct Ledger(HashSet<usize>);

impl Ledger {
    fn hand_over(&mut self, pool: &BufPool, len: usize) -> PinnedBuf {
        let mut buf = pool.alloc(len).unwrap();
        buf.fill(0xa5);
        assert!(self.0.insert(buf.addr()), "memory that is out was given again");
        buf
    }

    fn take_back(&mut self, buf: &PinnedBuf) {
        assert!(self.0.remove(&buf.addr()), "a buffer came back that was not out");
    }
}

/// A small budget, so that data has to wait in the core.
fn tight() -> TransportConfig {
    TransportConfig { send_budget: 1 << 20, stream_window_bidi_local: 0, ..TransportConfig::default() }
}

/// Answers each finished bidirectional stream with `TOTAL` bytes, and checks unidirectional ones. Returns when the
/// connection ends, with the number of bytes received on unidirectional streams.
fn serve_blobs(server: &Handle, pool: &BufPool) -> u64 {
    let mut ledger = Ledger::default();
    let mut received = 0;
    let mut waiting = VecDeque::new();
    loop {
        let event = waiting.pop_front().unwrap_or_else(|| next(server));
        match event {
            HandleEvent::Data { conn, id, chunk } if id.dir() == Dir::Bidi => {
                if !chunk.is_last() {
                    continue;
                }
                for at in (0..TOTAL).step_by(PIECE) {
                    let mut buf = ledger.hand_over(pool, PIECE);
                    fill(&mut buf, at as u64);
                    let data = SendData::from(buf);
                    let fin = at + PIECE == TOTAL;
                    insist(server, data, |data| server.send(conn, id, data, fin), |event| waiting.push_back(event));
                }
            }
            HandleEvent::Data { chunk, .. } => {
                assert_eq!(chunk.offset(), received);
                assert!(is_right(&chunk, received));
                received += chunk.len() as u64;
                assert_eq!(chunk.is_last(), received == TOTAL as u64);
            }
            HandleEvent::Engine { event: Event::SendDone { data, acked, .. }, .. } => {
                assert_eq!(acked, data.len());
                let SendData::Pinned(buf, _) = data else { panic!("{data:?}") };
                ledger.take_back(&buf);
            }
            HandleEvent::Engine { event: Event::Closed { .. }, .. } => break,
            HandleEvent::SendRefused { why, .. } => panic!("{why}"),
            _ => {}
        }
    }
    assert!(ledger.0.is_empty(), "sent memory that did not come back");
    received
}

#[test]
fn ten_megabytes_each_way() {
    let setup = Setup { server_capacity: 8, client_capacity: 8, server: tight(), ..Setup::default() };
    let mut world = World::new(setup);
    let (server_pool, client_pool) = (world.server_pool.clone(), world.client_pool.clone());
    world.run(|server, client| {
        let serving = thread::scope(|scope| {
            let serving = scope.spawn(|| serve_blobs(server, &server_pool));
            let mut ledger = Ledger::default();
            let (mut provided, mut received, mut uploaded) = (0, 0, false);
            let mut upload = vec![0; TOTAL];
            fill(&mut upload, 0);
            client.connect(&client_config(tight()), "server.test", remote()).unwrap();
            let conn = loop {
                if let Some(conn) = connected(next(client)) {
                    break conn;
                }
            };
            let opening = Opening { data: Some(upload.into()), fin: true, ..Opening::default() };
            client.open_with(conn, Dir::Uni, opening).unwrap();
            let receive = (0..4).map(|_| ledger.hand_over(&client_pool, BUF)).collect();
            provided += 4 * BUF;
            client
                .open_with(
                    conn,
                    Dir::Bidi,
                    Opening { receive, data: Some("get".into()), fin: true, ..Opening::default() },
                )
                .unwrap();
            let mut over = false;
            while !(over && uploaded) {
                match next(client) {
                    HandleEvent::Engine { conn, event: Event::Buffer { id, buf, offset, valid, .. } } => {
                        ledger.take_back(&buf);
                        assert_eq!((offset, valid), (received, buf.len()), "in order, and full");
                        assert!(is_right(&buf, offset));
                        received += valid as u64;
                        if provided < TOTAL {
                            let bufs = vec![ledger.hand_over(&client_pool, BUF)];
                            provided += BUF;
                            client.provide_receive_buffers(conn, id, bufs).unwrap();
                        }
                    }
                    HandleEvent::Engine { event: Event::Finished { size, .. }, .. } => {
                        assert_eq!((size, received), (TOTAL as u64, TOTAL as u64));
                        over = true;
                    }
                    HandleEvent::Engine { event: Event::SendDone { data, acked, .. }, .. } => {
                        assert_eq!(acked, data.len());
                        uploaded |= data.len() == TOTAL;
                    }
                    HandleEvent::Engine { event: Event::Closed { reason }, .. } => panic!("{reason}"),
                    HandleEvent::ProvideRefused { why, .. } => panic!("{why}"),
                    _ => {}
                }
            }
            assert!(ledger.0.is_empty());
            client.close(conn, 0, "done").unwrap();
            serving.join().unwrap()
        });
        assert_eq!(serving, TOTAL as u64);
    });
    assert_eq!((client_pool.stats().in_use, server_pool.stats().in_use), (0, 0));
}

/// Echoes everything until the handle ends.
fn echo(server: &Handle) {
    let mut waiting = VecDeque::new();
    while let Some(event) = waiting.pop_front().or_else(|| server.events().next()) {
        if let HandleEvent::Data { conn, id, chunk } = event {
            let (mut data, fin) = (SendData::from(chunk.to_vec()), chunk.is_last());
            while let Err(refused) = server.send(conn, id, data, fin) {
                if refused.kind == handle::CommandErrorKind::Gone {
                    // The core ended before the command was queued; what it has left is still read.
                    break;
                }
                data = refused.given;
                match server.try_next() {
                    Some(event) => waiting.push_back(event),
                    None => thread::yield_now(),
                }
            }
        }
    }
}

#[test]
fn many_small_requests() {
    const REQUESTS: u32 = 1000;
    let mut world = World::new(Setup { server_capacity: 16, client_capacity: 16, ..Setup::default() });
    let echoing = world.server.clone();
    let echoing = thread::spawn(move || echo(&echoing));
    world.run(|_, client| {
        client.connect(&client_config(TransportConfig::default()), "server.test", remote()).unwrap();
        let conn = loop {
            if let Some(conn) = connected(next(client)) {
                break conn;
            }
        };
        let request = |n: u32| Opening { data: Some(n.to_be_bytes().to_vec().into()), fin: true, ..Opening::default() };
        let mut todo: VecDeque<Opening> = (0..REQUESTS).map(request).collect();
        let (mut out, mut answered, mut exhausted) = (0, HashSet::new(), false);
        let mut partly = std::collections::HashMap::<StreamId, Vec<u8>>::new();
        while answered.len() < REQUESTS as usize {
            while out < 32
                && !exhausted
                && let Some(opening) = todo.pop_front()
            {
                match client.open_with(conn, Dir::Bidi, opening) {
                    Ok(_) => out += 1,
                    Err(full) => {
                        todo.push_front(full.given);
                        break;
                    }
                }
            }
            match next(client) {
                HandleEvent::Data { id, chunk, .. } => {
                    let answer = partly.entry(id).or_default();
                    answer.extend_from_slice(&chunk);
                    if chunk.is_last() {
                        let n = u32::from_be_bytes(partly.remove(&id).unwrap().try_into().unwrap());
                        assert!(answered.insert(n), "request {n} was answered twice");
                        out -= 1;
                    }
                }
                HandleEvent::OpenFailed { why: OpenError::StreamsExhausted, opening, .. } => {
                    todo.push_front(opening);
                    out -= 1;
                    exhausted = true;
                }
                HandleEvent::Engine { event: Event::StreamsAvailable { .. }, .. } => exhausted = false,
                HandleEvent::Engine { event: Event::Closed { reason }, .. } => panic!("{reason}"),
                _ => {}
            }
            // With nothing in flight, only new streams can come.
            exhausted &= out > 0 || todo.is_empty();
        }
        assert_eq!((out, partly.len()), (0, 0));
    });
    echoing.join().unwrap();
}

#[test]
fn shutdown_returns_every_buffer_once() {
    let mut world = World::new(Setup::default());
    let pool = world.client_pool.clone();
    let echoing = world.server.clone();
    let echoing = thread::spawn(move || echo(&echoing));
    world.run(|_, client| {
        let mut ledger = Ledger::default();
        client.connect(&client_config(tight()), "server.test", remote()).unwrap();
        let conn = loop {
            if let Some(conn) = connected(next(client)) {
                break conn;
            }
        };
        // More than the server's window, so that some of it stays in flight as long as nothing is read.
        let receive: Vec<_> = (0..4).map(|_| ledger.hand_over(&pool, 64 << 10)).collect();
        let data = SendData::from(ledger.hand_over(&pool, 2 << 20));
        let opening = Opening { receive, data: Some(data), ..Opening::default() };
        client.open_with(conn, Dir::Bidi, opening).unwrap();
        let id = loop {
            match next(client) {
                HandleEvent::Opened { id, .. } => break id,
                other => assert!(matches!(other, HandleEvent::Engine { .. }), "{other:?}"),
            }
        };
        let mut back = |event| match event {
            HandleEvent::Engine { event: Event::Buffer { buf, .. }, .. } => ledger.take_back(&buf),
            HandleEvent::Engine { event: Event::SendDone { data, .. }, .. } | HandleEvent::SendRefused { data, .. } => {
                match data {
                    SendData::Pinned(buf, _) => ledger.take_back(&buf),
                    other => assert!(other.is_empty()),
                }
            }
            HandleEvent::ProvideRefused { bufs, .. } => bufs.iter().for_each(|buf| ledger.take_back(buf)),
            HandleEvent::OpenFailed { opening, .. } => assert!(opening.receive.is_empty()),
            _ => {}
        };
        back(next(client));
        client.shutdown();
        // The core may or may not be alive.
        for _ in 0..8 {
            if let Err(refused) = client.send(conn, id, "late", false) {
                assert_eq!(refused.given.len(), 4);
            }
            let _ = client.open(conn, Dir::Uni);
        }
        let mut late = |event| match event {
            HandleEvent::SendRefused { data: SendData::Static(_), .. }
            | HandleEvent::Engine { event: Event::SendDone { data: SendData::Static(_), .. }, .. } => {}
            event => back(event),
        };
        client.events().for_each(&mut late);
        assert!(ledger.0.is_empty(), "memory that did not come back");
        assert!(client.is_gone() && client.try_next().is_none());
        let gone = client.send(conn, id, "too late", false).unwrap_err();
        assert_eq!((gone.kind, gone.given.len()), (handle::CommandErrorKind::Gone, 8));
    });
    echoing.join().unwrap();
    drop(world);
    assert_eq!(pool.stats().in_use, 0);
}

#[test]
fn without_its_handle_a_core_closes_and_ends() {
    let World { server, client, server_core, client_core, server_pool, client_pool } = World::new(Setup::default());
    thread::scope(|scope| {
        scope.spawn(|| run_core(server_core.unwrap()));
        let ending = scope.spawn(|| run_core(client_core.unwrap()));
        client.connect(&client_config(tight()), "server.test", remote()).unwrap();
        let conn = loop {
            if let Some(conn) = connected(next(&client)) {
                break conn;
            }
        };
        let receive = (0..4).map(|_| client_pool.alloc(BUF).unwrap()).collect();
        let data = SendData::from(client_pool.alloc(8 << 20).unwrap());
        client
            .open_with(conn, Dir::Bidi, Opening { receive, data: Some(data), fin: true, ..Opening::default() })
            .unwrap();
        // In the middle of the transfer.
        loop {
            if let HandleEvent::Data { .. } = next(&server) {
                break;
            }
        }
        let clone = client.clone();
        drop(client);
        assert!(!matches!(next(&clone), HandleEvent::Engine { event: Event::Closed { .. }, .. }), "one is left");
        drop(clone);
        ending.join().unwrap();
        let reason = loop {
            if let HandleEvent::Engine { event: Event::Closed { reason }, .. } = next(&server) {
                break reason;
            }
        };
        assert!(matches!(reason, CloseReason::Application { code: 0, .. }), "{reason:?}");
        drop(server);
    });
    assert_eq!((client_pool.stats().in_use, server_pool.stats().in_use), (0, 0));
}
