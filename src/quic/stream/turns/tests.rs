use bytes::Bytes;

use super::*;
use crate::base::Side;
use crate::quic::event::{Dir, SendData};
use crate::quic::stream::Windows;
use crate::quic::stream::priority::Priority;

/// Length of every frame of these tests.
const FRAME: u64 = 100;

/// Streams 0 to `n` of urgency 0 to `n`, with 20 frames each.
fn sender(n: u8) -> Streams {
    let mut s = Streams::new(Side::Server, Windows::default(), 0, 0);
    s.set_peer(Windows { uni: 1 << 30, ..Windows::default() }, 0, 1000);
    for urgency in 0..n {
        let id = s.open(Dir::Uni).unwrap();
        s.set_priority(id, Priority { urgency, incremental: false });
        let data = SendData::Bytes(Bytes::from(vec![0; 20 * FRAME as usize]));
        s.get(id).unwrap().send.as_mut().unwrap().write(data, false);
        s.queue_send(id);
    }
    s
}

fn uni(index: u64) -> StreamId {
    StreamId::new(Side::Server, Dir::Uni, index)
}

/// Sends a frame of `id`; returns its offset.
fn send_of(s: &mut Streams, id: StreamId) -> u64 {
    let send = s.get(id).unwrap().send.as_mut().unwrap();
    let pick = send.pick(FRAME, u64::MAX).unwrap();
    send.sent(&pick);
    pick.range.start
}

/// Sends the next frame; returns its stream and offset.
fn send(s: &mut Streams) -> (u64, u64) {
    let first = s.next_send(u64::MAX).unwrap();
    let turn = if s.held_up() && s.is_refused(first) { s.take_turn(first) } else { None };
    let id = turn.unwrap_or(first);
    (id.index(), send_of(s, id))
}

fn lose(s: &mut Streams, index: u64, at: u64) {
    let range = at..at + FRAME;
    s.get(uni(index)).unwrap().send.as_mut().unwrap().on_lost(range.clone(), false);
    s.queue_send(uni(index));
    s.packet_lost(uni(index), &range, false);
}

fn ack(s: &mut Streams, index: u64, at: u64) {
    s.get(uni(index)).unwrap().send.as_mut().unwrap().on_acked(at..at + FRAME, false, |_, _| {});
}

/// Streams 1 to `n` have lost 10 frames each; the first frame of stream 0 is sent.
fn with_gaps(n: u8) -> Streams {
    let mut s = sender(n + 1);
    for index in 1..=u64::from(n) {
        (0..20).for_each(|frame| assert_eq!(send_of(&mut s, uni(index)), frame * FRAME));
        (0..10).for_each(|frame| lose(&mut s, index, 2 * frame * FRAME));
    }
    assert_eq!(send(&mut s), (0, 0));
    s
}

/// Loses the first byte of stream 0 as often as it takes for others to get turns.
fn refuse(s: &mut Streams) {
    for _ in 1..REFUSALS {
        lose(s, 0, 0);
        assert!(!s.has_turns());
        assert_eq!(send(s), (0, 0), "priorities are strict");
    }
    lose(s, 0, 0);
}

#[test]
fn others_repeat_twice_as_much_before_each_attempt() {
    let mut s = with_gaps(3);
    refuse(&mut s);
    let mut turns = Vec::new();
    for n in [1, 2, 4, 8] {
        let before: Vec<_> = (0..n).map(|_| send(&mut s)).collect();
        turns.extend(before.iter().map(|(index, _)| *index));
        assert_eq!(send(&mut s), (0, 0), "after {n} of them it goes on");
        assert_eq!(send(&mut s).0, 0);
        lose(&mut s, 0, 0);
    }
    assert_eq!(turns, [1, 2, 3].repeat(5));
    // After retransmitting everything, they have no more turns: new data waits for its priority.
    let rest: Vec<_> = std::iter::from_fn(|| Some(send(&mut s)).filter(|(index, _)| *index != 0)).collect();
    assert_eq!(turns.len() + rest.len(), 30);
    assert!(rest.iter().all(|(_, at)| at % (2 * FRAME) == 0), "only what was lost");
}

#[test]
fn priorities_are_strict_as_soon_as_the_byte_is_there() {
    let mut s = with_gaps(2);
    refuse(&mut s);
    lose(&mut s, 0, 0);
    assert_eq!((send(&mut s).0, send(&mut s).0, send(&mut s)), (1, 2, (0, 0)));
    ack(&mut s, 0, 0);
    assert!(s.has_turns() && !s.held_up() && !s.has_turns());
    assert_eq!(send(&mut s), (0, FRAME));
    // It then takes as many losses as the first time.
    for _ in 1..REFUSALS {
        lose(&mut s, 0, FRAME);
        assert_eq!(send(&mut s), (0, FRAME));
    }
    lose(&mut s, 0, FRAME);
    assert_eq!(send(&mut s).0, 1);
}

/// It may have been acknowledged just before others get their turns.
#[test]
fn turns_that_are_left_are_lost_when_the_stream_gets_on_or_ends() {
    for reset in [false, true] {
        let mut s = with_gaps(1);
        refuse(&mut s);
        (0..4).for_each(|_| lose(&mut s, 0, 0));
        assert_eq!(send(&mut s).0, 1);
        if reset {
            s.get(uni(0)).unwrap().send.as_mut().unwrap().reset(0, |_, _| {});
            assert!(!s.held_up());
            assert_eq!(s.next_send(u64::MAX), Some(uni(1)));
        } else {
            ack(&mut s, 0, 0);
            assert_eq!(send(&mut s).0, 0);
        }
    }
}

#[test]
fn other_losses_do_not_count() {
    let mut s = with_gaps(1);
    (1..20).for_each(|_| assert_eq!(send(&mut s).0, 0));
    // However many frames are lost, and however often: the first byte that the peer lacks is in flight.
    for _ in 0..5 {
        for frame in 1..20 {
            lose(&mut s, 0, frame * FRAME);
        }
        (1..20).for_each(|_| assert_eq!(send(&mut s).0, 0));
    }
    // Each time, it is another one.
    for frame in 0..19 {
        lose(&mut s, 0, frame * FRAME);
        lose(&mut s, 0, frame * FRAME);
        assert_eq!(send(&mut s), (0, frame * FRAME));
        ack(&mut s, 0, frame * FRAME);
        assert!(!s.has_turns());
    }
}

#[test]
fn who_has_nothing_to_repeat_has_no_turn_and_a_fin_is_something() {
    let mut s = sender(3);
    send_of(&mut s, uni(0));
    refuse(&mut s);
    assert_eq!(send(&mut s), (0, 0), "the others have only new data");
    (0..20).for_each(|frame| assert_eq!(send_of(&mut s, uni(2)), frame * FRAME));
    s.get(uni(2)).unwrap().send.as_mut().unwrap().write(SendData::Static(b""), true);
    lose(&mut s, 0, 0);
    assert_eq!((send(&mut s), send(&mut s)), ((2, 20 * FRAME), (0, 0)));
}

/// A less urgent stream whose retransmission is refused as well does not keep others from theirs.
#[test]
fn everybody_gets_turns_whoever_else_is_refused() {
    let mut s = with_gaps(3);
    refuse(&mut s);
    let mut packets = 0;
    loop {
        packets += 1;
        assert!(packets < 1000);
        match send(&mut s) {
            (3, _) => break,
            (index, at) => lose(&mut s, index, at),
        }
    }
    assert!(packets < 20, "{packets} packets");
}

#[test]
fn nothing_is_left_to_the_next_stream_with_this_memory() {
    let mut s = with_gaps(0);
    (0..REFUSALS).for_each(|_| lose(&mut s, 0, 0));
    assert!(s.is_refused(uni(0)));
    let stream = s.get(uni(0)).unwrap();
    stream.clear();
    assert!(!s.is_refused(uni(0)));
}
