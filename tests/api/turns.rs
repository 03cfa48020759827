//! Handles with cores that the test turns itself: refusals, back-pressure and shutdown, step by step.

use gannet::api::handle::{CommandErrorKind, ConnectRefusal, Opening, Operation};
use gannet::api::*;

use crate::api::{Setup, TURNS, World, client_config, connected, fill, is_right, remote};

fn addrs(bufs: &[PinnedBuf]) -> Vec<usize> {
    bufs.iter().map(PinnedBuf::addr).collect()
}

pub fn pinned(len: usize) -> (SendData, usize) {
    let buf = PinnedBuf::unpinned(len);
    let addr = buf.addr();
    (buf.into(), addr)
}

pub fn addr(data: &SendData) -> usize {
    data.as_slice().as_ptr().addr()
}

fn opened(event: HandleEvent) -> Option<StreamId> {
    match event {
        HandleEvent::Opened { id, .. } => Some(id),
        HandleEvent::OpenFailed { why, .. } => panic!("{why}"),
        _ => None,
    }
}

/// Opens a stream of the client's.
pub fn open(world: &mut World, conn: ConnId, dir: Dir) -> StreamId {
    world.client.open(conn, dir).unwrap();
    world.until(true, opened)
}

#[test]
fn refused_sends_come_back() {
    let mut world = World::new(Setup::default());
    let (conn, _) = world.connect(TransportConfig::default());
    let nowhere = StreamId::new(gannet::base::Side::Client, Dir::Bidi, 7);
    let (data, was) = pinned(10);
    world.client.send(conn, nowhere, data, true).unwrap();
    let back = world.until(true, |event| match event {
        HandleEvent::SendRefused { id, data, fin, why, .. } => Some((id, addr(&data), fin, why)),
        _ => None,
    });
    assert_eq!(back, (nowhere, was, true, SendErrorKind::NoStream));

    world.client.close(conn, 5, "enough").unwrap();
    let (data, was) = pinned(10);
    world.client.send(conn, nowhere, data, false).unwrap();
    let mut closed = false;
    let back = world.until(true, |event| match event {
        HandleEvent::SendRefused { data, fin, why, .. } => Some((addr(&data), fin, why)),
        HandleEvent::Engine { event: Event::Closed { .. }, .. } => {
            closed = true;
            None
        }
        _ => None,
    });
    assert_eq!(back, (was, false, SendErrorKind::Closed));
    let reason = world.until(false, |event| match event {
        HandleEvent::Engine { event: Event::Closed { reason }, .. } => Some(reason),
        _ => None,
    });
    assert_eq!(reason, CloseReason::Application { code: 5, reason: "enough".to_owned() });
}

#[test]
fn refused_buffers_come_back_in_order() {
    let mut world = World::new(Setup::default());
    let (conn, _) = world.connect(TransportConfig::default());
    let stream = open(&mut world, conn, Dir::Bidi);
    // Less than the window of 1 MiB announced to the peer.
    let bufs: Vec<_> = [100, 200, 300].map(PinnedBuf::unpinned).into();
    let was = addrs(&bufs);
    world.client.provide_receive_buffers(conn, stream, bufs).unwrap();
    let provide_refused = |event| match event {
        HandleEvent::ProvideRefused { bufs, why, .. } => Some((addrs(&bufs), why)),
        _ => None,
    };
    let back = world.until(true, provide_refused);
    assert_eq!(back, (was, ProvideErrorKind::TooSmall { announced: 1 << 20 }));

    world.client.close(conn, 0, "").unwrap();
    let bufs = vec![PinnedBuf::unpinned(2 << 20)];
    let was = addrs(&bufs);
    world.client.provide_receive_buffers(conn, stream, bufs).unwrap();
    assert_eq!(world.until(true, provide_refused), (was, ProvideErrorKind::Closed));

    let (data, was) = pinned(3);
    let receive = vec![PinnedBuf::unpinned(1 << 20)];
    let was = (was, addrs(&receive));
    let ticket = world
        .client
        .open_with(conn, Dir::Uni, Opening { receive, data: Some(data), fin: true, ..Opening::default() })
        .unwrap();
    let back = world.until(true, |event| match event {
        HandleEvent::OpenFailed { ticket, why, opening, .. } => Some((ticket, why, opening)),
        _ => None,
    });
    assert_eq!((back.0, back.1), (ticket, OpenError::Closed));
    assert_eq!((addr(&back.2.data.unwrap()), addrs(&back.2.receive)), was);
}

#[test]
fn refused_commands_without_memory_are_told() {
    let mut world = World::new(Setup::default());
    let (conn, _) = world.connect(TransportConfig::default());
    let stream = open(&mut world, conn, Dir::Uni);
    world.client.stop_sending(conn, stream, 1).unwrap();
    world.client.reset(conn, stream, 1).unwrap();
    world.client.reset(conn, stream, 1).unwrap();
    let refused = |event| match event {
        HandleEvent::Refused { id, what, why, .. } => Some((id, what, why)),
        _ => None,
    };
    assert_eq!(world.until(true, refused), (stream, Operation::StopSending, StreamError::NoStream));
    assert_eq!(world.until(true, refused), (stream, Operation::Reset, StreamError::NoStream));
    let v6 = "[2001:db8::1]:443".parse().unwrap();
    let ticket = world.client.connect(&client_config(TransportConfig::default()), "server.test", v6).unwrap();
    let failed = world.until(true, |event| match event {
        HandleEvent::ConnectFailed { ticket, why } => Some((ticket, why)),
        _ => None,
    });
    assert_eq!(failed.0, ticket);
    assert!(
        matches!(failed.1, ConnectRefusal::Failure(ConnectFailure::NoWay(RouteError::NoAddress(ip))) if ip == v6.ip())
    );
}

#[test]
fn full_rings_give_back_at_once() {
    let mut world = World::new(Setup { client_capacity: 2, ..Setup::default() });
    let (conn, _) = world.connect(TransportConfig::default());
    let stream = open(&mut world, conn, Dir::Bidi);
    world.client.send(conn, stream, "one", false).unwrap();
    world.client.send(conn, stream, "two", false).unwrap();
    let (data, was) = pinned(9);
    let full = world.client.send(conn, stream, data, false).unwrap_err();
    assert_eq!((full.kind, addr(&full.given)), (CommandErrorKind::Full, was));
    let bufs = vec![PinnedBuf::unpinned(7)];
    let was = addrs(&bufs);
    let full = world.client.provide_receive_buffers(conn, stream, bufs).unwrap_err();
    assert_eq!((full.kind, addrs(&full.given)), (CommandErrorKind::Full, was));
    world.turn();
    world.client.send(conn, stream, full.given.into_iter().next().unwrap(), true).unwrap();
    let mut back = 0;
    world.until(true, |event| match event {
        HandleEvent::Engine { event: Event::SendDone { data, acked, .. }, .. } => {
            assert_eq!(data.len(), acked);
            back += acked;
            (back == 13).then_some(())
        }
        _ => None,
    });
}

#[test]
fn data_waits_for_the_budget_in_order_and_comes_back_from_a_reset() {
    // The peer gives no credit: nothing is ever acknowledged, and the budget stays exhausted.
    let server = TransportConfig { stream_window_uni: 0, ..TransportConfig::default() };
    let mut world = World::new(Setup { client_capacity: 4, server, ..Setup::default() });
    let (conn, _) =
        world.connect(TransportConfig { send_budget: 1000, max_send_budget: 0, ..TransportConfig::default() });
    for close in [false, true] {
        let stream = open(&mut world, conn, Dir::Uni);
        let (mut sent, mut full) = (Vec::new(), 0);
        for _ in 0..20 {
            let (data, was) = pinned(2000);
            match world.client.send(conn, stream, data, false) {
                Ok(()) => sent.push(was),
                Err(error) => {
                    assert_eq!((error.kind, addr(&error.given)), (CommandErrorKind::Full, was));
                    full += 1;
                }
            }
            world.turn();
        }
        assert_eq!((sent.len(), full), (5, 15), "one is with the engine, four wait");
        match close {
            false => world.client.reset(conn, stream, 1).unwrap(),
            true => world.client.close(conn, 1, "").unwrap(),
        }
        let mut back = Vec::new();
        let mut why = None;
        world.until(true, |event| {
            match event {
                HandleEvent::Engine { event: Event::SendDone { data, acked, .. }, .. } => {
                    assert_eq!(acked, 0);
                    back.push(addr(&data));
                }
                HandleEvent::SendRefused { data, why: kind, .. } => {
                    why = Some(kind);
                    back.push(addr(&data));
                }
                HandleEvent::Engine { event: Event::Closed { .. }, .. } => assert_eq!(back.len(), 5, "before the end"),
                _ => {}
            }
            (back.len() == 5).then_some(())
        });
        assert_eq!(why, Some(if close { SendErrorKind::Closed } else { SendErrorKind::NoStream }));
        if !close {
            // A reset is carried out before the engine reports it: waiting data is refused at once.
            back.rotate_right(1);
        }
        assert_eq!(back, sent);
    }
}

#[test]
fn a_handle_that_does_not_read_stalls_its_peer_only() {
    const TOTAL: usize = 8 << 20;
    let mut world = World::new(Setup { client_capacity: 2, ..Setup::default() });
    let (conn, _) = world.connect(TransportConfig::default());
    let opening = Opening { data: Some("go".into()), ..Opening::default() };
    world.client.open_with(conn, Dir::Bidi, opening).unwrap();
    let (server_conn, stream) = world.until(false, |event| match event {
        HandleEvent::Data { conn, id, .. } => Some((conn, id)),
        _ => None,
    });
    let mut blob = vec![0; TOTAL];
    fill(&mut blob, 0);
    world.server.send(server_conn, stream, blob, true).unwrap();
    let pool = world.client_pool.clone();
    let turn = |world: &mut World| {
        world.turn();
        let stats = pool.stats();
        // The window of 1 MiB, what was taken before the ring was full, and the chunk being filled.
        assert!(stats.in_use <= (1 << 20) + (4 << 16), "{stats:?}");
        stats.in_use
    };
    // The peer fills its window, in a number of turns that depends on how fast the machine is.
    while turn(&mut world) < 1 << 20 {}
    for _ in 0..5000 {
        turn(&mut world);
    }
    let mut received = 0;
    world.until(true, |event| match event {
        HandleEvent::Data { chunk, .. } => {
            assert_eq!(chunk.offset(), received);
            assert!(is_right(&chunk, received));
            received += chunk.len() as u64;
            chunk.is_last().then_some(())
        }
        HandleEvent::Engine { event: Event::Closed { reason }, .. } => panic!("{reason}"),
        _ => None,
    });
    assert_eq!(received, TOTAL as u64);
}

#[test]
fn peers_cannot_make_events_without_end() {
    let setup = Setup { server_capacity: 2, backlog: Some((8, 77)), ..Setup::default() };
    let mut world = World::new(setup);
    let config = client_config(TransportConfig::default());
    world.client.connect(&config, "server.test", remote()).unwrap();
    let conn = world.until(true, connected);
    for _ in 0..20 {
        let opening = Opening { data: Some("x".into()), fin: true, ..Opening::default() };
        world.client.open_with(conn, Dir::Uni, opening).unwrap();
    }
    let closed = |event| match event {
        HandleEvent::Engine { conn, event: Event::Closed { reason } } => Some((conn, reason)),
        _ => None,
    };
    let (closed_conn, reason) = world.until(true, closed);
    assert_eq!(closed_conn, conn);
    assert!(matches!(reason, CloseReason::Application { code: 77, .. }), "{reason:?}");
    for _ in 0..3 {
        world.client.connect(&config, "server.test", remote()).unwrap();
        let (_, reason) = world.until(true, closed);
        assert!(matches!(reason, CloseReason::Application { code: 77, .. }), "{reason:?}");
    }
    // Accepted, Connected, at most 20 streams, Closed; other streams are not reported.
    let waiting = world.server_core.as_ref().unwrap().app.waiting_events();
    assert!((8..=21).contains(&waiting), "{waiting}");
    let mut accepted = 0;
    world.until(false, |event| match event {
        HandleEvent::Accepted { .. } => {
            accepted += 1;
            None
        }
        event => closed(event),
    });
    assert_eq!(accepted, 1);
}

#[test]
fn what_a_dropped_core_leaves_behind() {
    let mut world = World::new(Setup { client_capacity: 4, ..Setup::default() });
    let (conn, _) = world.connect(TransportConfig::default());
    let stream = open(&mut world, conn, Dir::Bidi);
    let (data, sent) = pinned(5);
    let bufs = vec![PinnedBuf::unpinned(6)];
    let provided = addrs(&bufs);
    let config = client_config(TransportConfig::default());
    world.client.send(conn, stream, data, false).unwrap();
    world.client.provide_receive_buffers(conn, stream, bufs).unwrap();
    world.client.close(conn, 0, "never").unwrap();
    let ticket = world.client.connect(&config, "server.test", remote()).unwrap();
    world.client_core = None;
    let left: Vec<_> = world.client.events().collect();
    assert_eq!(left.len(), 3, "{left:?}");
    assert!(
        matches!(&left[0], HandleEvent::SendRefused { data, why: SendErrorKind::Closed, .. } if addr(data) == sent)
    );
    assert!(matches!(&left[1], HandleEvent::ProvideRefused { bufs, .. } if addrs(bufs) == provided));
    assert!(
        matches!(&left[2], HandleEvent::ConnectFailed { ticket: t, why: ConnectRefusal::ShuttingDown } if *t == ticket)
    );
    let gone = world.client.connect(&config, "server.test", remote()).unwrap_err();
    assert_eq!(gone.kind, CommandErrorKind::Gone);
}

#[test]
fn events_that_wait_survive_their_core() {
    let mut world = World::new(Setup { client_capacity: 1, ..Setup::default() });
    let (conn, _) = world.connect(TransportConfig { stream_window_bidi_local: 0, ..TransportConfig::default() });
    let bufs: Vec<_> = (1..=20).map(PinnedBuf::unpinned).collect();
    let provided = addrs(&bufs);
    let opening = Opening { receive: bufs, ..Opening::default() };
    world.client.open_with(conn, Dir::Bidi, opening).unwrap();
    world.until(true, opened);
    world.client.shutdown();
    world.turn();
    world.turn();
    world.client_core = None;
    let mut back = Vec::new();
    let mut last = None;
    for event in world.client.events() {
        match event {
            HandleEvent::Engine { event: Event::Buffer { buf, valid, .. }, .. } => {
                assert_eq!(valid, 0);
                back.push(buf.addr());
            }
            event => last = Some(event),
        }
    }
    assert_eq!(back, provided);
    assert!(matches!(last, Some(HandleEvent::Engine { event: Event::Closed { .. }, .. })), "{last:?}");
}

#[test]
fn chunks_outlive_connections_and_cores() {
    let mut world = World::new(Setup::default());
    let (conn, _) = world.connect(TransportConfig::default());
    let mut blob = vec![0; 200_000];
    fill(&mut blob, 0);
    world
        .client
        .open_with(conn, Dir::Uni, Opening { data: Some(blob.into()), fin: true, ..Opening::default() })
        .unwrap();
    let mut kept = Vec::new();
    world.until(false, |event| match event {
        HandleEvent::Data { chunk, .. } => {
            let last = chunk.is_last();
            kept.push(chunk);
            last.then_some(())
        }
        _ => None,
    });
    let pool = world.server_pool.clone();
    drop(world);
    let (mut at, full) = (0, kept.iter().filter(|chunk| chunk.len() == 64 << 10).count());
    for chunk in &kept {
        assert_eq!(chunk.offset(), at);
        assert!(is_right(chunk, at));
        at += chunk.len() as u64;
    }
    assert_eq!(at, 200_000);
    assert!(pool.stats().in_use >= 4 << 16 && full <= 3);
    std::thread::spawn(move || drop(kept)).join().unwrap();
    assert_eq!(pool.stats().in_use, 0);
}

#[test]
fn a_server_learns_who_connects() {
    let mut world = World::new(Setup::default());
    world.client.connect(&client_config(TransportConfig::default()), "server.test", remote()).unwrap();
    let told = world.until(false, |event| match event {
        HandleEvent::Accepted { remote, local, .. } => Some((remote, local)),
        other => panic!("{other:?}"),
    });
    assert_eq!(told, ("192.0.2.2:50000".parse().unwrap(), remote()));
    world.until(false, connected);
}

#[test]
fn the_end_does_not_overtake_data_that_waits() {
    let mut world = World::new(Setup::default());
    let (conn, _) =
        world.connect(TransportConfig { send_budget: 1000, max_send_budget: 0, ..TransportConfig::default() });
    let stream = open(&mut world, conn, Dir::Uni);
    for at in (0..10_000).step_by(2000) {
        let mut bytes = vec![0; 2000];
        fill(&mut bytes, at);
        world.client.send(conn, stream, bytes, false).unwrap();
    }
    world.client.finish(conn, stream).unwrap();
    let mut received = 0;
    world.until(false, |event| match event {
        HandleEvent::Data { chunk, .. } => {
            assert!(is_right(&chunk, received));
            received += chunk.len() as u64;
            chunk.is_last().then_some(())
        }
        _ => None,
    });
    assert_eq!(received, 10_000);
}

/// Before, everything that arrived was with the handle and held all of the pool.
#[test]
fn what_nobody_reads_holds_a_bounded_piece_of_memory_and_nothing_else_up() {
    const TOTAL: usize = 3 << 20;
    let mut world = World::new(Setup::default());
    let (conn, _) = world.connect(TransportConfig::default());
    let [slow, fast] = [0, 1].map(|_| {
        let stream = open(&mut world, conn, Dir::Uni);
        let mut blob = vec![0; TOTAL];
        fill(&mut blob, 0);
        world.client.send(conn, stream, blob, true).unwrap();
        stream
    });
    let (mut kept, mut received) = (Vec::new(), 0);
    world.until(false, |event| match event {
        HandleEvent::Data { id, chunk, .. } if id == slow => {
            kept.push(chunk);
            None
        }
        HandleEvent::Data { id, chunk, .. } => {
            assert_eq!((id, chunk.offset()), (fast, received));
            received += chunk.len() as u64;
            chunk.is_last().then_some(())
        }
        _ => None,
    });
    assert_eq!(received, TOTAL as u64, "it did not wait for the other one");
    let ahead = |kept: &[handle::LentChunk]| kept.iter().map(|chunk| chunk.len()).sum::<usize>();
    let mut read_ahead = |world: &mut World| {
        world.turn();
        let more = std::iter::from_fn(|| world.server.try_next());
        kept.extend(more.filter_map(|event| match event {
            HandleEvent::Data { chunk, .. } => Some(chunk),
            _ => None,
        }));
        ahead(&kept)
    };
    // How many turns the rest takes depends on the machine's speed, as packets are paced.
    let full = (0..TURNS).any(|_| read_ahead(&mut world) >= 256 << 10);
    assert!(full, "less than the read-ahead came");
    for _ in 0..1000 {
        read_ahead(&mut world);
    }
    // The read-ahead, and the chunk that exceeds it.
    assert!((256 << 10..320 << 10).contains(&ahead(&kept)), "{}", ahead(&kept));
    assert!(world.server_pool.stats().in_use <= (256 << 10) + (1 << 20) + (4 << 16), "{:?}", world.server_pool.stats());
    // Reading again yields the rest.
    let mut received = 0;
    for chunk in kept.drain(..) {
        assert!(is_right(&chunk, received));
        received += chunk.len() as u64;
    }
    world.until(false, |event| match event {
        HandleEvent::Data { chunk, .. } => {
            assert!(chunk.offset() == received && is_right(&chunk, received));
            received += chunk.len() as u64;
            chunk.is_last().then_some(())
        }
        _ => None,
    });
    assert_eq!((received, world.server_pool.stats().in_use), (TOTAL as u64, 0));
}

/// A peer that closes does not discard data left in a stream that was not read.
#[test]
fn what_was_not_read_comes_before_the_close() {
    let mut world = World::new(Setup::default());
    let (conn, server) = world.connect(TransportConfig::default());
    let stream = open(&mut world, conn, Dir::Uni);
    let mut blob = vec![0; 900_000];
    fill(&mut blob, 0);
    world.client.send(conn, stream, blob, true).unwrap();
    let mut kept = Vec::new();
    // All of it has arrived, as it is acknowledged.
    let mut done = false;
    for _ in 0..100_000 {
        world.turn();
        while let Some(event) = world.client.try_next() {
            done |= matches!(event, HandleEvent::Engine { event: Event::SendFinished { .. }, .. });
        }
        while let Some(event) = world.server.try_next() {
            kept.extend(Some(event).filter(|event| matches!(event, HandleEvent::Data { .. })));
        }
        if done {
            break;
        }
    }
    let bytes = |kept: &[HandleEvent]| {
        let lens = kept.iter().map(|event| if let HandleEvent::Data { chunk, .. } = event { chunk.len() } else { 0 });
        lens.sum::<usize>()
    };
    assert!(done && bytes(&kept) < 320 << 10, "{} bytes", bytes(&kept));
    world.client.close(conn, 3, "").unwrap();
    world.until(false, |event| match event {
        HandleEvent::Data { .. } => {
            kept.push(event);
            None
        }
        HandleEvent::Engine { conn, event: Event::Closed { .. } } => {
            assert_eq!(conn, server);
            Some(())
        }
        _ => None,
    });
    assert_eq!(bytes(&kept), 900_000);
}

#[test]
fn events_end_when_run_returns() {
    let mut world = World::new(Setup::default());
    world.connect(TransportConfig::default());
    let mut core = world.client_core.take().unwrap();
    let stop = core.app.stop();
    world.client.shutdown();
    core.run(&stop).unwrap();
    // Before, this waited for the core to be dropped.
    let closed = world.client.events().filter(|event| {
        matches!(event, HandleEvent::Engine { event: Event::Closed { reason: CloseReason::Shutdown }, .. })
            || matches!(event, HandleEvent::Engine { event: Event::Closed { reason: CloseReason::Local { .. } }, .. })
    });
    assert_eq!(closed.count(), 1);
    assert!(world.client.is_gone());
    let refused = world.client.connect(&client_config(TransportConfig::default()), "server.test", remote());
    assert_eq!(refused.unwrap_err().kind, CommandErrorKind::Gone);
    drop(core);
}
