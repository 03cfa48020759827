//! The cases of MsQuic's tests of app-owned receive buffers, re-implemented: each in both roles, on streams opened by
//! either side, with and without a network that shuffles and repeats, and with every premature end at every step.

use std::ops::Range;

use gannet::base::Side;
use gannet::quic::{Notify, ProvideErrorKind};
use gannet::wire::quic::TransportError;

use super::rig::{End, Kind, Rig, Step};

const SIDES: [Side; 2] = [Side::Client, Side::Server];

fn provide(sizes: &[usize]) -> Step {
    Step::Provide(sizes.to_vec())
}

fn data(range: Range<u64>) -> Step {
    Step::Data(range, false)
}

fn last(range: Range<u64>) -> Step {
    Step::Data(range, true)
}

/// `total` bytes in frames of `size`, the last with the end.
fn all(total: u64, size: u64) -> Vec<Step> {
    let starts = (0..total).step_by(size as usize);
    starts.map(|at| Step::Data(at..(at + size).min(total), at + size >= total)).collect()
}

/// All scenarios with their names. All of them end with the stream's end.
fn scenarios() -> Vec<(&'static str, Vec<Step>)> {
    vec![
        ("provided before the first byte", vec![provide(&[20, 20]), data(0..10), data(10..30), last(30..40)]),
        (
            "provided before and later",
            vec![provide(&[8]), data(0..5), provide(&[8, 4]), data(5..8), data(8..17), provide(&[30]), last(17..50)],
        ),
        ("the stream is shorter than its buffers", vec![provide(&[10, 10, 10]), data(0..5), last(5..14)]),
        ("the end comes alone", vec![provide(&[10, 10]), data(0..10), last(10..10)]),
        ("nothing but the end", vec![provide(&[10]), last(0..0)]),
        ("the end comes first", vec![provide(&[6, 6]), last(12..12), data(6..12), data(0..6)]),
        (
            "a part of the second buffer, then the rest",
            vec![
                provide(&[10, 10, 10]),
                data(0..15),
                Step::Peek,
                data(15..16),
                Step::Peek,
                data(16..25),
                Step::Peek,
                last(25..30),
            ],
        ),
        (
            "a gap, filled over five buffers",
            vec![provide(&[10, 10, 10, 10, 10]), data(0..3), data(47..50), Step::Peek, data(3..47), last(50..50)],
        ),
        (
            "gaps in all of five buffers",
            vec![
                provide(&[10, 10, 10, 10, 10]),
                data(5..7),
                data(15..17),
                data(25..27),
                data(35..37),
                last(45..50),
                data(0..50),
            ],
        ),
        ("an overlap at the front", vec![provide(&[10, 10]), data(5..15), data(0..8), last(15..20)]),
        ("an overlap at the back", vec![provide(&[10, 10]), data(0..8), data(4..20), last(20..20)]),
        ("an overlap around", vec![provide(&[10, 10]), data(8..12), data(4..16), data(0..4), last(16..20)]),
        ("an overlap within", vec![provide(&[10, 10]), data(2..18), data(8..12), data(0..3), last(18..20)]),
        ("the same again", vec![provide(&[10, 10]), data(0..12), data(0..12), last(12..20), last(12..20)]),
        ("many tiny buffers", {
            let mut steps = vec![provide(&[80; 150])];
            steps.extend(all(12_000, 1100));
            steps
        }),
        ("tiny buffers one by one", {
            let mut steps = vec![];
            for at in (0..800).step_by(80) {
                steps.extend([provide(&[80]), data(at..at + 33), data(at + 33..at + 80)]);
            }
            steps.push(last(800..800));
            steps
        }),
        ("one large buffer", {
            let mut steps = vec![provide(&[100_000])];
            steps.extend(all(30_000, 1200));
            steps
        }),
        (
            "out of space, then more",
            vec![
                provide(&[20]),
                data(0..20),
                Step::Blocked,
                provide(&[7]),
                data(20..27),
                Step::Blocked,
                provide(&[100]),
                last(27..60),
            ],
        ),
    ]
}

/// Plays everything once with `play(rig, kind, name, steps)`, on one connection per side.
fn each(mut play: impl FnMut(&mut Rig, Kind, &str, &[Step])) {
    for side in SIDES {
        let mut rig = Rig::new(side);
        for kind in Kind::ALL {
            for (name, steps) in scenarios() {
                play(&mut rig, kind, name, &steps);
            }
        }
    }
}

#[test]
fn every_byte_goes_to_its_place() {
    each(|rig, kind, name, steps| {
        let mut play = rig.stream(kind, Notify::Progress);
        play.play(steps, None);
        assert!(play.finished, "{name}");
    });
}

#[test]
fn also_under_loss_reorder_and_duplication() {
    for seed in 0..10 {
        each(|rig, kind, name, steps| {
            let mut play = rig.stream(kind, Notify::Progress);
            play.play(steps, Some(seed));
            assert!(play.finished, "{name}, seed {seed}");
        });
    }
}

#[test]
fn one_event_when_all_has_arrived() {
    for net in [None, Some(1), Some(2)] {
        each(|rig, kind, name, steps| {
            let mut play = rig.stream(kind, Notify::WhenComplete);
            play.play(steps, net);
            assert!(play.finished, "{name}");
        });
    }
}

/// Reset and stop at every step: the connection survives.
#[test]
fn a_stream_that_ends_at_any_step_gives_everything_back() {
    for notify in [Notify::Progress, Notify::WhenComplete] {
        for net in [None, Some(3)] {
            each(|rig, kind, _, steps| {
                for n in 0..=steps.len() {
                    for end in End::ALL.into_iter().filter(|end| end.spares_connection()) {
                        let mut play = rig.stream(kind, notify);
                        play.play(&steps[..n], net);
                        play.end(end);
                    }
                }
            });
        }
    }
}

/// Every end of a connection at every step, with two more streams in progress.
#[test]
fn a_connection_that_ends_at_any_step_gives_everything_back() {
    for side in SIDES {
        for (i, (_, steps)) in scenarios().iter().enumerate() {
            for n in 0..=steps.len() {
                for (j, end) in End::ALL.into_iter().filter(|end| !end.spares_connection()).enumerate() {
                    let choice = i + n + j;
                    let mut rig = Rig::new(side);
                    let notify = if choice % 2 == 0 { Notify::Progress } else { Notify::WhenComplete };
                    let mut play = rig.stream(Kind::ALL[choice % 3], notify);
                    play.play(&steps[..n], (choice % 4 == 3).then_some(n as u64));
                    play.end(end);
                }
            }
        }
    }
}

#[test]
fn two_bytes_over_are_too_many() {
    for side in SIDES {
        for kind in Kind::ALL {
            for (steps, over) in [
                (vec![provide(&[10, 10])], data(0..22)),
                (vec![provide(&[10, 10])], last(21..22)),
                (vec![provide(&[10, 10]), data(0..21)], data(20..22)),
                (vec![provide(&[10]), data(5..7), provide(&[10])], data(7..22)),
            ] {
                let mut rig = Rig::new(side);
                let mut play = rig.stream(kind, Notify::Progress);
                play.play(&steps, None);
                // The model expects FLOW_CONTROL_ERROR and the return of all buffers.
                play.step(&over, 0);
                assert!(play.is_over() && !play.finished);
                assert_eq!(rig.peer.close.as_ref().map(|c| c.code), Some(TransportError::FLOW_CONTROL_ERROR));
            }
        }
    }
}

/// One byte more than provided may arrive: it is held for the next buffer, and the end with it.
#[test]
fn one_byte_over_waits_for_the_next_buffer() {
    for (side, kind) in SIDES.into_iter().flat_map(|side| Kind::ALL.map(|kind| (side, kind))) {
        for steps in [
            vec![provide(&[20]), last(0..21), provide(&[1])],
            vec![provide(&[20]), last(20..21), data(0..20), provide(&[5, 5])],
            vec![provide(&[20]), last(20..21), provide(&[1]), data(0..21)],
            vec![provide(&[10, 10]), data(0..21), data(18..21), provide(&[3]), last(21..23)],
            vec![provide(&[1]), data(0..2), provide(&[1]), data(1..3), provide(&[1]), last(3..3)],
        ] {
            let mut rig = Rig::new(side);
            let mut play = rig.stream(kind, Notify::Progress);
            play.play(&steps, None);
            assert!(play.finished && play.lows > 0, "{steps:?}");
        }
    }
}

#[test]
fn an_empty_list_is_refused_and_changes_nothing() {
    let mut rig = Rig::new(Side::Server);
    let id = rig.stream(Kind::Peers, Notify::Progress).id;
    let host = rig.host();
    let conn = host.conn.unwrap();
    let refused = host.endpoint.conn(conn).unwrap().provide_receive_buffers(id, Vec::new()).unwrap_err();
    assert_eq!(refused.kind, ProvideErrorKind::Empty);
    let mut play = rig.stream(Kind::Peers, Notify::Progress);
    play.play(&[provide(&[5]), last(0..5)], None);
    assert!(play.finished);
}

#[test]
fn out_of_space_then_abort() {
    for end in End::ALL {
        let mut rig = Rig::new(Side::Client);
        let mut play = rig.stream(Kind::Own, Notify::Progress);
        play.play(&[provide(&[9, 3]), data(0..12), Step::Blocked], None);
        assert_eq!(play.low, Some((0, 10)));
        play.end(end);
    }
}

#[test]
fn low_space_is_told_when_there_is_something_new_about_it() {
    let mut rig = Rig::new(Side::Server);
    let mut play = rig.stream(Kind::Peers, Notify::WhenComplete);
    play.play(&[provide(&[20]), data(0..8)], None);
    assert_eq!(play.lows, 0, "there is enough");
    play.play(&[data(8..11)], None);
    assert_eq!((play.lows, play.low), (1, Some((9, 1))));
    play.play(&[data(11..12), provide(&[1]), provide(&[1])], None);
    assert_eq!(play.lows, 1, "not for each of many small pieces");
    play.play(&[data(12..13)], None);
    assert_eq!((play.lows, play.low), (2, Some((9, 1))), "the peer has used some of it");
    play.play(&[data(13..14), data(14..15)], None);
    assert_eq!(play.lows, 2, "nothing was provided since");
    play.play(&[Step::Blocked], None);
    assert_eq!((play.lows, play.low), (3, Some((7, 3))));
    play.play(&[provide(&[100]), data(15..110)], None);
    assert_eq!(play.lows, 3);
    play.play(&[data(110..113)], None);
    assert_eq!(play.lows, 4);
}
