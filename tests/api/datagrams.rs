//! Datagrams through handles.

use gannet::api::*;

use crate::api::{Setup, World};
use crate::turns::{addr, pinned};

fn transport(receive_queue: usize) -> TransportConfig {
    let datagrams = DatagramConfig { receive_queue, ..DatagramConfig::default() };
    TransportConfig { datagrams: Some(datagrams), ..TransportConfig::default() }
}

#[test]
fn datagrams_go_from_memory_to_memory() {
    let mut world = World::new(Setup { server: transport(10), ..Setup::default() });
    let (client, server) = world.connect(transport(10));
    // To the pool first, then to a buffer.
    world.client.send_datagram(client, b"first", 0, None).unwrap();
    let first = world.until(false, |event| match event {
        HandleEvent::Datagram { conn, datagram } => Some((conn, datagram)),
        HandleEvent::Engine { event: Event::DatagramsReadable, .. } => panic!("the core takes them itself"),
        _ => None,
    });
    assert_eq!((first.0, &first.1[..]), (server, &b"first"[..]));
    drop(first);
    assert_eq!(world.server_pool.stats().in_use, 0);
    let buf = PinnedBuf::unpinned(1500);
    let to = buf.addr();
    world.server.provide_datagram_buffers(server, vec![buf]).unwrap();
    (0..10).for_each(|_| world.turn());
    let (data, from) = pinned(1000);
    world.client.send_datagram(client, data, 0, Some(Duration::from_secs(1))).unwrap();
    let came = world.until(false, |event| match event {
        HandleEvent::Engine { event: Event::DatagramBuffer { buf, received, .. }, .. } => Some((buf.addr(), received)),
        _ => None,
    });
    assert_eq!(came, (to, Some(1000)));
    let mut told = Vec::new();
    world.until(true, |event| {
        let HandleEvent::Engine { event, .. } = event else { return None };
        match event {
            Event::DatagramDone { id, data, outcome: DatagramOutcome::Sent } => {
                told.push((id, addr(&data) == from, false));
            }
            Event::DatagramAcked { id } => told.push((id, false, true)),
            other => panic!("{other:?}"),
        }
        (told.len() == 4).then_some(())
    });
    let [a, b] = [0, 1].map(DatagramId);
    told.sort_unstable();
    assert_eq!(told, [(a, false, false), (a, false, true), (b, false, true), (b, true, false)]);
}

#[test]
fn refused_datagrams_and_buffers_come_back() {
    let mut world = World::new(Setup::default());
    let (client, _) = world.connect(transport(10));
    let (data, from) = pinned(100);
    world.client.send_datagram(client, data, 0, None).unwrap();
    let (at, why) = world.until(true, |event| match event {
        HandleEvent::DatagramRefused { data, why, .. } => Some((addr(&data), why)),
        _ => None,
    });
    assert_eq!((at, why), (from, DatagramErrorKind::Unsupported), "the server accepts none");
    world.client.close(client, 0, "").unwrap();
    world.until(true, |event| matches!(event, HandleEvent::Engine { event: Event::Closed { .. }, .. }).then_some(()));
    world.client.send_datagram(client, b"late", 0, None).unwrap();
    world.client.provide_datagram_buffers(client, vec![PinnedBuf::unpinned(10)]).unwrap();
    world.until(true, |event| match event {
        HandleEvent::DatagramRefused { data, why: DatagramErrorKind::Closed, .. } => (data.len() == 4).then_some(()),
        other => panic!("{other:?}"),
    });
    world.until(true, |event| match event {
        HandleEvent::DatagramBuffersRefused { bufs, why: ProvideErrorKind::Closed, .. } => {
            (bufs.len() == 1).then_some(())
        }
        other => panic!("{other:?}"),
    });
}

/// A handle that does not read holds no more than the ring and the queue; the oldest datagrams are dropped.
#[test]
fn a_handle_that_does_not_read_holds_a_bounded_number() {
    let mut world = World::new(Setup { server: transport(5), server_capacity: 4, ..Setup::default() });
    let (client, server) = world.connect(transport(5));
    for n in 0..60u8 {
        world.client.send_datagram(client, vec![n; 10], 0, None).unwrap();
        (0..20).for_each(|_| world.turn());
        while world.client.try_next().is_some() {}
    }
    assert!(world.server_pool.stats().in_use <= 9 << 10, "{:?}", world.server_pool.stats());
    let mut came = Vec::new();
    for _ in 0..100 {
        world.turn();
        came.extend(std::iter::from_fn(|| world.server.try_next()).filter_map(|event| match event {
            HandleEvent::Datagram { conn, datagram } => {
                assert_eq!(conn, server);
                Some(datagram[0])
            }
            _ => None,
        }));
    }
    assert!((5..=9).contains(&came.len()) && came.ends_with(&[55, 56, 57, 58, 59]), "{came:?}");
}

/// A stream that is reset at some size: the handle gets what comes before, then the reset.
#[test]
fn reliable_bytes_come_before_the_reset() {
    let mut world = World::new(Setup::default());
    let (client, _) = world.connect(TransportConfig::default());
    let stream = crate::turns::open(&mut world, client, Dir::Uni);
    world.client.send(client, stream, vec![7; 5000], false).unwrap();
    world.client.reset_at(client, stream, 3, 4000).unwrap();
    let mut received = 0;
    let (code, size) = world.until(false, |event| match event {
        HandleEvent::Data { chunk, .. } => {
            assert!(!chunk.is_last());
            received += chunk.len();
            None
        }
        HandleEvent::Engine { event: Event::Reset { code, size, .. }, .. } => Some((code, size)),
        _ => None,
    });
    assert!(code == 3 && size >= 4000 && received >= 4000, "{received} bytes, reset with {code} at {size}");
    world.client.reset_at(client, stream, 3, 5000).unwrap();
    // It has ended, or it is reset already, which changes nothing.
    (0..10).for_each(|_| world.turn());
}
