//! The same guarantees through a core and its handles: a dead port, a core that is taken apart, a peer that closes.

use gannet::api::handle::{CommandErrorKind, Opening, Operation};
use gannet::api::*;

use super::api::{Setup, World, fill, is_right, value};

/// A client with a stream that has three buffers of 1000 bytes, of which the server has filled one and a half, and 3000
/// bytes in flight to a server that is gone.
fn in_the_middle() -> (World, ConnId) {
    let mut world = World::new(Setup::default());
    let (client, server) = world.connect(TransportConfig { stream_window_bidi_local: 0, ..TransportConfig::default() });
    let receive: Vec<_> = (0..3).map(|_| world.client_pool.alloc(1000).unwrap()).collect();
    let opening = Opening { receive, data: Some("hello".into()), ..Opening::default() };
    world.client.open_with(client, Dir::Bidi, opening).unwrap();
    let id = world.until(false, |event| match event {
        HandleEvent::Data { id, .. } => Some(id),
        _ => None,
    });
    let mut answer = vec![0; 1500];
    fill(&mut answer, 0);
    world.server.send(server, id, answer, false).unwrap();
    world.until(true, |event| match event {
        HandleEvent::Engine { event: Event::Progress { contiguous: 1500, .. }, .. } => Some(()),
        _ => None,
    });
    // The other end of the link is dropped with it.
    world.server_core = None;
    let mut buf = world.client_pool.alloc(3000).unwrap();
    fill(&mut buf, 0);
    world.client.send(client, id, buf, true).unwrap();
    (0..10).for_each(|_| world.turn());
    (world, client)
}

/// Checks what was returned to the client in the end.
fn check_back(world: &World, conn: ConnId) {
    let (mut filled, mut sent, mut closed) = (Vec::new(), Vec::new(), 0);
    for event in world.client.events() {
        match event {
            HandleEvent::Engine { event: Event::Buffer { buf, offset, valid, .. }, .. } => {
                assert!(is_right(&buf[..valid], offset));
                filled.push((offset, valid));
            }
            HandleEvent::Engine { event: Event::SendDone { data, acked, .. }, .. } => sent.push((data.len(), acked)),
            HandleEvent::Engine { conn: of, event: Event::Closed { reason } } => {
                assert_eq!((of, reason), (conn, CloseReason::Shutdown));
                closed += 1;
            }
            _ => assert_eq!(closed, 0),
        }
    }
    // The first buffer was returned when it was full, perhaps before.
    assert!(filled.ends_with(&[(1000, 500), (2000, 0)]), "{filled:?}");
    assert!(sent.contains(&(3000, 0)) && closed == 1, "{sent:?}");
    assert_eq!(world.client_pool.stats().in_use, 0);
    assert!(matches!(world.client.close(conn, 0, ""), Err(e) if e.kind == CommandErrorKind::Gone));
}

#[test]
fn a_port_that_dies_is_an_error_and_an_orderly_end() {
    let (mut world, conn) = in_the_middle();
    let mut core = world.client_core.take().unwrap();
    let stop = core.app.stop();
    let error = core.run(&stop).unwrap_err();
    assert!(matches!(error, RunError::NoLink(..) | RunError::LinkDown(..)), "{error}");
    // The events end although the core still exists.
    check_back(&world, conn);
    drop(core);
}

#[test]
fn a_core_that_is_taken_apart_gives_everything_back() {
    let (mut world, conn) = in_the_middle();
    drop(world.client_core.take().unwrap().into_app());
    check_back(&world, conn);
}

#[test]
fn bytes_that_came_before_a_close_come_before_it_here_too() {
    // A ring of two: most of the bytes have to wait for room when the close arrives.
    let mut world = World::new(Setup { client_capacity: 2, ..Setup::default() });
    let (client, server) = world.connect(TransportConfig::default());
    let mut data = vec![0; 300_000];
    fill(&mut data, 0);
    let opening = Opening { data: Some(data.into()), fin: true, ..Opening::default() };
    world.server.open_with(server, Dir::Uni, opening).unwrap();
    world.until(false, |event| match event {
        HandleEvent::Engine { event: Event::SendFinished { .. }, .. } => Some(()),
        _ => None,
    });
    world.server.close(server, 6, "all said").unwrap();
    let (mut at, mut last) = (0, false);
    // Slowly, an event at a time.
    let reason = world.until(true, |event| match event {
        HandleEvent::Data { chunk, .. } => {
            assert!(chunk.offset() == at && is_right(&chunk, at));
            at += chunk.len() as u64;
            last |= chunk.is_last();
            None
        }
        HandleEvent::Engine { conn, event: Event::Closed { reason } } => {
            assert_eq!(conn, client);
            Some(reason)
        }
        _ => None,
    });
    assert_eq!((at, last), (300_000, true));
    assert_eq!(reason, CloseReason::Application { code: 6, reason: "all said".into() });
}

#[test]
fn priorities_and_silence_by_handle() {
    let mut world = World::new(Setup::default());
    let (client, server) = world.connect(TransportConfig { stream_window_bidi_local: 0, ..TransportConfig::default() });
    let receive: Vec<_> = (0..4).map(|_| world.client_pool.alloc(4000).unwrap()).collect();
    let priority = Priority { urgency: 1, incremental: true };
    let opening = Opening { receive, data: Some("?".into()), fin: true, priority, notify: Notify::WhenComplete };
    world.client.open_with(client, Dir::Bidi, opening).unwrap();
    let id = world.until(false, |event| match event {
        HandleEvent::Data { id, .. } => Some(id),
        _ => None,
    });
    world.server.set_priority(server, id, Priority::default()).unwrap();
    for at in (0..10_000).step_by(1000) {
        let piece: Vec<u8> = (at..at + 1000).map(value).collect();
        world.server.send(server, id, piece, at == 9000).unwrap();
        (0..200).for_each(|_| world.turn());
    }
    let mut back = 0;
    let placement = world.until(true, |event| match event {
        HandleEvent::Engine { event, .. } => match event {
            Event::Progress { .. } => panic!("it was to be silent"),
            Event::Buffer { buf, offset, valid, .. } => {
                assert!(is_right(&buf[..valid], offset));
                back += valid;
                None
            }
            Event::Finished { placement, .. } => Some(placement),
            _ => None,
        },
        _ => None,
    });
    assert_eq!((back, placement.direct + placement.staged, placement.copied), (10_000, 10_000, 0));
    world.client.set_notify(client, id, Notify::Progress).unwrap();
    let refused = world.until(true, |event| match event {
        HandleEvent::Refused { what, why, .. } => Some((what, why)),
        _ => None,
    });
    assert_eq!(refused, (Operation::SetNotify, StreamError::NoStream));
}
