//! Vectored sends through handles: complete and in order, or not at all; every piece is returned by itself.

use gannet::api::handle::CommandErrorKind;
use gannet::api::*;

use crate::api::{Setup, World, fill, is_right};
use crate::turns::{addr, open, pinned};

/// Pieces of these lengths, and their addresses.
fn pieces(lens: &[usize]) -> (Vec<SendData>, Vec<usize>) {
    lens.iter().map(|len| pinned(*len)).unzip()
}

/// Waits until `count` pieces were returned: address, number of acknowledged bytes (none if refused), whether the
/// stream ends after it.
fn back(world: &mut World, count: usize) -> Vec<(usize, Option<usize>, bool)> {
    let mut back = Vec::new();
    world.until(true, |event| {
        match event {
            HandleEvent::Engine { event: Event::SendDone { data, acked, .. }, .. } => {
                back.push((addr(&data), Some(acked), false));
            }
            HandleEvent::SendRefused { data, fin, .. } => back.push((addr(&data), None, fin)),
            _ => {}
        }
        (back.len() >= count).then_some(())
    });
    back
}

#[test]
fn pieces_arrive_as_one_and_come_back_one_by_one() {
    let mut world = World::new(Setup::default());
    let (conn, _) = world.connect(TransportConfig::default());
    let stream = open(&mut world, conn, Dir::Uni);
    let lens = [3000, 1, 70_000, 12];
    let mut at = 0;
    let (data, was): (Vec<_>, Vec<_>) = lens
        .iter()
        .map(|len| {
            let mut buf = PinnedBuf::unpinned(*len);
            fill(&mut buf, at);
            at += *len as u64;
            let addr = buf.addr();
            (SendData::from(buf), addr)
        })
        .unzip();
    world.client.send_vectored(conn, stream, data, true).unwrap();
    let mut received = 0;
    world.until(false, |event| {
        let HandleEvent::Data { chunk, .. } = event else { return None };
        assert_eq!(chunk.offset(), received);
        assert!(is_right(&chunk, received));
        received += chunk.len() as u64;
        chunk.is_last().then_some(())
    });
    assert_eq!(received, at);
    let expected: Vec<_> = was.into_iter().zip(lens).map(|(addr, len)| (addr, Some(len), false)).collect();
    assert_eq!(back(&mut world, lens.len()), expected);
}

#[test]
fn refused_pieces_come_back_in_order() {
    let mut world = World::new(Setup::default());
    let (conn, _) = world.connect(TransportConfig::default());
    let nowhere = StreamId::new(gannet::base::Side::Client, Dir::Bidi, 7);
    let (data, was) = pieces(&[5, 6, 7]);
    world.client.send_vectored(conn, nowhere, data, true).unwrap();
    assert_eq!(back(&mut world, 3), [(was[0], None, false), (was[1], None, false), (was[2], None, true)]);
    // Nothing is sent, but its failure is reported nevertheless.
    world.client.send_vectored(conn, nowhere, [], true).unwrap();
    let told = back(&mut world, 1);
    assert_eq!((told.len(), told[0].1, told[0].2), (1, None, true));
}

/// The peer gives no credit: nothing is ever acknowledged, and the budget stays exhausted.
fn stuck() -> (World, ConnId, StreamId) {
    let server = TransportConfig { stream_window_uni: 0, ..TransportConfig::default() };
    let mut world = World::new(Setup { client_capacity: 2, server, ..Setup::default() });
    let (conn, _) =
        world.connect(TransportConfig { send_budget: 1000, max_send_budget: 0, ..TransportConfig::default() });
    let stream = open(&mut world, conn, Dir::Uni);
    let (filler, _) = pinned(1000);
    world.client.send(conn, stream, filler, false).unwrap();
    world.turn();
    (world, conn, stream)
}

#[test]
fn pieces_that_wait_for_the_budget_stay_together() {
    let (mut world, conn, stream) = stuck();
    let (data, was) = pieces(&[10, 20, 30]);
    let (later, later_was) = pinned(40);
    world.client.send_vectored(conn, stream, data, false).unwrap();
    world.client.send(conn, stream, later, true).unwrap();
    world.turn();
    let (more, more_was) = pieces(&[1, 2]);
    let full = world.client.send_vectored(conn, stream, more, false).unwrap_err();
    let given: Vec<_> = full.given.iter().map(addr).collect();
    assert_eq!((full.kind, given), (CommandErrorKind::Full, more_was), "two sends wait, whatever their pieces");
    world.client.reset(conn, stream, 1).unwrap();
    let all = back(&mut world, 5);
    let refused: Vec<_> = all.into_iter().filter(|(_, acked, _)| acked.is_none()).collect();
    let expected: Vec<_> = was.iter().map(|addr| (*addr, None, false)).chain([(later_was, None, true)]).collect();
    assert_eq!(refused, expected);
}

#[test]
fn pieces_that_waited_are_sent_when_the_budget_is_back() {
    let mut world = World::new(Setup::default());
    let (conn, _) =
        world.connect(TransportConfig { send_budget: 1000, max_send_budget: 0, ..TransportConfig::default() });
    let stream = open(&mut world, conn, Dir::Uni);
    let mut expected = Vec::new();
    for n in 0..20_u8 {
        let data = [vec![n; 700], vec![n | 0x80; 900]];
        expected.extend(data.concat());
        world.client.send_vectored(conn, stream, data.map(SendData::from), n == 19).unwrap();
    }
    let mut received = Vec::new();
    world.until(false, |event| {
        let HandleEvent::Data { chunk, .. } = event else { return None };
        received.extend_from_slice(&chunk);
        chunk.is_last().then_some(())
    });
    assert!(received == expected, "{} of {} bytes", received.len(), expected.len());
    assert!(back(&mut world, 40).iter().all(|(_, acked, _)| matches!(acked, Some(700 | 900))));
}

#[test]
fn a_core_that_is_gone_gives_every_piece_back() {
    let (mut world, conn, stream) = stuck();
    let (held, held_was) = pieces(&[10, 20]);
    world.client.send_vectored(conn, stream, held, false).unwrap();
    world.turn();
    let (data, was) = pieces(&[1, 2, 3]);
    world.client.send_vectored(conn, stream, data, true).unwrap();
    world.client_core = None;
    let refused = |event| match event {
        HandleEvent::SendRefused { data, why: SendErrorKind::Closed, .. } => Some(addr(&data)),
        _ => None,
    };
    let left: Vec<_> = world.client.events().filter_map(refused).collect();
    assert_eq!(left, [held_was, was].concat(), "what waited, then what the core had not taken");
    let (data, was) = pieces(&[4, 5]);
    let gone = world.client.send_vectored(conn, stream, data, false).unwrap_err();
    assert_eq!((gone.kind, gone.given.iter().map(addr).collect::<Vec<_>>()), (CommandErrorKind::Gone, was));
}
