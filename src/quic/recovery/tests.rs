//! Tests of recovery as a whole: acknowledgement, loss, timers, and returned contents.

use super::*;
use crate::quic::congestion::minimum_window;

mod exactly_once;
mod outages;
mod paths;

const MS: Duration = Duration::from_millis(1);
const LEN: u16 = 1200;
const CX: Context = Context {
    handshake_confirmed: true,
    peer_max_ack_delay: Duration::from_millis(25),
    has_handshake_keys: true,
    peer_completed_address_validation: true,
    at_amplification_limit: false,
};

fn at(ms: u64) -> Instant {
    Instant::ZERO + Duration::from_millis(ms)
}

fn recovery(algorithm: CongestionAlgorithm) -> Recovery<u64> {
    let config = RecoveryConfig { initial_rtt: 333 * MS, max_datagram: LEN, algorithm, pacing: false, seed: 1 };
    Recovery::new(&config, Instant::ZERO)
}

fn reno() -> Recovery<u64> {
    recovery(CongestionAlgorithm::NewReno)
}

fn send(r: &mut Recovery<u64>, now: Instant, space: SpaceId, pn: u64) {
    r.on_packet_sent(space, pn, SentPacket::new(now, LEN, true, true, pn));
}

/// Acknowledges `ranges` without delay; returns the outcome, and the packets acknowledged and lost.
fn ack(
    r: &mut Recovery<u64>,
    now: Instant,
    space: SpaceId,
    ranges: &[RangeInclusive<u64>],
    cx: &Context,
) -> (AckOutcome, Vec<u64>, Vec<u64>) {
    let (mut acked, mut lost) = (Vec::new(), Vec::new());
    let outcome = r
        .on_ack(
            now,
            space,
            ranges.iter().cloned(),
            Duration::ZERO,
            cx,
            |pn, packet| {
                assert_eq!(packet.frames, pn);
                acked.push(pn);
            },
            |pn, frames| {
                assert_eq!(frames, pn);
                lost.push(pn);
            },
        )
        .expect("only sent packets are acknowledged");
    (outcome, acked, lost)
}

fn timeout(r: &mut Recovery<u64>, now: Instant, cx: &Context) -> (TimeoutAction, Vec<u64>) {
    let mut lost = Vec::new();
    let action = r.on_timeout(now, cx, |_, pn, _| lost.push(pn));
    (action, lost)
}

#[test]
fn acknowledgement_of_what_was_not_sent_is_an_error() {
    let mut r = reno();
    let try_ack = |r: &mut Recovery<u64>, range| {
        r.on_ack(at(1), SpaceId::Data, [range], Duration::ZERO, &CX, |_, _| {}, |_, _| {})
    };
    assert_eq!(try_ack(&mut r, 0..=0), Err(InvalidAck { space: SpaceId::Data, pn: 0 }));
    send(&mut r, at(0), SpaceId::Data, 0);
    send(&mut r, at(0), SpaceId::Data, 2);
    assert_eq!(try_ack(&mut r, 0..=3).unwrap_err().pn, 3);
    assert_eq!(try_ack(&mut r, 0..=u64::MAX).unwrap_err().pn, u64::MAX);
    assert_eq!(try_ack(&mut r, 0..=1).unwrap_err().pn, 1, "the number was skipped");
    assert_eq!(try_ack(&mut r, 2..=2).unwrap().largest_newly_acked, Some(2));
    let text = try_ack(&mut r, 9..=9).unwrap_err().to_string();
    assert!(text.contains("packet 9") && text.contains("application data"), "{text}");
}

#[test]
fn packets_that_waited_here_say_nothing_about_the_round_trip_time() {
    let mut r = reno();
    send(&mut r, at(0), SpaceId::Initial, 0);
    r.on_held(at(0));
    send(&mut r, at(1000), SpaceId::Initial, 1);
    r.on_held(at(1000));
    let (outcome, acked, _) = ack(&mut r, at(2010), SpaceId::Initial, &[0..=1], &CX);
    assert_eq!((outcome.rtt_sampled, acked.len()), (false, 2));
    assert_eq!((r.rtt().smoothed(), r.rtt().first_sample()), (333 * MS, None));
    // It cannot have waited for long if it is back sooner than assumed.
    send(&mut r, at(2010), SpaceId::Handshake, 0);
    r.on_held(at(2010));
    let (outcome, ..) = ack(&mut r, at(2030), SpaceId::Handshake, &[0..=0], &CX);
    assert!(outcome.rtt_sampled);
    send(&mut r, at(2040), SpaceId::Handshake, 1);
    let (outcome, ..) = ack(&mut r, at(2050), SpaceId::Handshake, &[1..=1], &CX);
    assert!(outcome.rtt_sampled);
    assert_eq!((r.rtt().latest(), r.rtt().min()), (10 * MS, 10 * MS));
}

#[test]
fn a_repeated_acknowledgement_changes_nothing() {
    let mut r = reno();
    for pn in 0..3 {
        send(&mut r, at(0), SpaceId::Data, pn);
    }
    let (outcome, acked, lost) = ack(&mut r, at(10), SpaceId::Data, &[0..=2], &CX);
    assert_eq!((outcome.largest_newly_acked, acked, lost), (Some(2), vec![0, 1, 2], vec![]));
    assert!(outcome.rtt_sampled);
    let cwnd = r.cwnd();
    let (outcome, acked, _) = ack(&mut r, at(99), SpaceId::Data, &[0..=2], &CX);
    assert_eq!((outcome, acked), (AckOutcome::default(), vec![]));
    assert_eq!((r.cwnd(), r.rtt().latest(), r.largest_acked(SpaceId::Data)), (cwnd, 10 * MS, Some(2)));
}

#[test]
fn three_later_packets_prove_loss() {
    let mut r = reno();
    for pn in 0..4 {
        send(&mut r, at(0), SpaceId::Data, pn);
    }
    assert_eq!(ack(&mut r, at(10), SpaceId::Data, &[2..=2], &CX).2, Vec::<u64>::new());
    assert_eq!(ack(&mut r, at(10), SpaceId::Data, &[2..=3], &CX).2, vec![0], "packet 1 is only two behind");
    assert_eq!(r.oldest_unacked(SpaceId::Data, |_| true).map(|(pn, _)| pn), Some(1));
    assert_eq!(r.bytes_in_flight(), u64::from(LEN));
}

#[test]
fn time_proves_loss_to_the_nanosecond() {
    let mut r = reno();
    send(&mut r, at(0), SpaceId::Data, 0);
    send(&mut r, at(4), SpaceId::Data, 1);
    assert_eq!(ack(&mut r, at(84), SpaceId::Data, &[1..=1], &CX).2, Vec::<u64>::new());
    // 9/8 of 80 ms after packet 0 was sent.
    let due = at(90);
    assert_eq!(r.next_timeout(&CX), Some(due));
    let amplification = Context { at_amplification_limit: true, ..CX };
    assert_eq!(r.next_timeout(&amplification), Some(due), "losses do not depend on sending");
    assert_eq!(timeout(&mut r, due - Duration::from_nanos(1), &CX), (TimeoutAction::None, vec![]));
    assert_eq!(timeout(&mut r, due, &CX), (TimeoutAction::None, vec![0]));
    assert_eq!((r.next_timeout(&CX), r.bytes_in_flight(), r.pto_count()), (None, 0, 0));
}

#[test]
fn loss_by_time_waits_a_millisecond_on_the_shortest_paths() {
    let mut r = reno();
    let us = |n| Instant::ZERO + Duration::from_micros(n);
    send(&mut r, us(0), SpaceId::Data, 0);
    send(&mut r, us(1), SpaceId::Data, 1);
    ack(&mut r, us(11), SpaceId::Data, &[1..=1], &CX);
    assert_eq!(r.rtt().smoothed(), Duration::from_micros(10));
    assert_eq!(r.next_timeout(&CX), Some(us(1000)));
}

#[test]
fn probe_timeouts_double_until_an_acknowledgement() {
    let mut r = reno();
    send(&mut r, at(0), SpaceId::Data, 0);
    ack(&mut r, at(100), SpaceId::Data, &[0..=0], &CX);
    assert_eq!(r.next_timeout(&CX), None, "nothing is in flight");
    send(&mut r, at(200), SpaceId::Data, 1);
    send(&mut r, at(210), SpaceId::Data, 2);
    // 100 + 4 × 50 + 25 after the last packet.
    let pto = 325 * MS;
    assert_eq!(r.pto_interval(&CX, SpaceId::Data), pto);
    assert_eq!(r.pto_interval(&CX, SpaceId::Handshake), 300 * MS);
    assert_eq!(r.next_timeout(&CX), Some(at(210) + pto));
    let (action, lost) = timeout(&mut r, at(535), &CX);
    assert_eq!((action, lost), (TimeoutAction::Probe { space: SpaceId::Data, count: 2 }, vec![]));
    assert_eq!((r.pto_count(), r.pto_interval(&CX, SpaceId::Data)), (1, pto));
    send(&mut r, at(535), SpaceId::Data, 3);
    assert_eq!(r.next_timeout(&CX), Some(at(535) + 2 * pto));
    timeout(&mut r, at(535) + 2 * pto, &CX);
    assert_eq!(r.pto_count(), 2);
    ack(&mut r, at(1300), SpaceId::Data, &[3..=3], &CX);
    assert_eq!(r.pto_count(), 0);
    let limited = Context { at_amplification_limit: true, ..CX };
    send(&mut r, at(5000), SpaceId::Data, 4);
    timeout(&mut r, at(5000), &CX);
    assert!(r.next_timeout(&CX).is_some());
    assert_eq!(r.next_timeout(&limited), None, "a server that may not send does not probe");
}

#[test]
fn data_is_not_probed_before_the_handshake_is_confirmed() {
    let mut r = reno();
    let cx = Context { handshake_confirmed: false, ..CX };
    send(&mut r, at(0), SpaceId::Data, 0);
    assert_eq!(r.next_timeout(&cx), None);
    send(&mut r, at(10), SpaceId::Handshake, 0);
    send(&mut r, at(20), SpaceId::Initial, 0);
    assert_eq!(r.next_timeout(&cx), Some(at(10) + 999 * MS), "the earliest space");
    assert_eq!(timeout(&mut r, at(2000), &cx).0, TimeoutAction::Probe { space: SpaceId::Handshake, count: 2 });
    r.discard_space(SpaceId::Handshake, |_| {});
    assert_eq!((r.pto_count(), r.bytes_in_flight()), (0, 2 * u64::from(LEN)));
    assert_eq!(r.next_timeout(&cx), Some(at(20) + 999 * MS));
    assert_eq!(r.next_timeout(&CX), Some(at(20) + 999 * MS), "max_ack_delay makes Data later");
}

#[test]
fn a_client_probes_with_nothing_in_flight_until_the_server_can_send() {
    let mut r = reno();
    let client = Context {
        handshake_confirmed: false,
        has_handshake_keys: false,
        peer_completed_address_validation: false,
        ..CX
    };
    send(&mut r, at(0), SpaceId::Initial, 0);
    ack(&mut r, at(100), SpaceId::Initial, &[0..=0], &client);
    assert_eq!(r.bytes_in_flight(), 0);
    assert_eq!(r.next_timeout(&client), Some(at(100) + 300 * MS));
    assert_eq!(timeout(&mut r, at(400), &client).0, TimeoutAction::Probe { space: SpaceId::Initial, count: 1 });
    assert_eq!(r.next_timeout(&client), Some(at(400) + 600 * MS), "from now, doubled");
    send(&mut r, at(500), SpaceId::Initial, 1);
    ack(&mut r, at(600), SpaceId::Initial, &[0..=1], &client);
    assert_eq!(r.pto_count(), 1, "not reset before the server is known to have validated the address");
    let with_keys = Context { has_handshake_keys: true, ..client };
    let due = r.next_timeout(&with_keys).unwrap();
    assert_eq!(timeout(&mut r, due, &with_keys).0, TimeoutAction::Probe { space: SpaceId::Handshake, count: 1 });
    // 0-RTT or 1-RTT packets in flight must not disable it.
    send(&mut r, due, SpaceId::Data, 0);
    assert!(r.next_timeout(&with_keys).is_some());
    assert_eq!(r.next_timeout(&Context { peer_completed_address_validation: true, ..with_keys }), None);
}

/// The example of RFC 9002 §7.6.3, with a probe timeout of 2 s: 0.5 + 4 × 0.25 + 0.5.
fn persistent_example(ranges: &[RangeInclusive<u64>]) -> (Recovery<u64>, AckOutcome, Vec<u64>) {
    let cx = Context { peer_max_ack_delay: 500 * MS, ..CX };
    let mut r = reno();
    send(&mut r, at(0), SpaceId::Data, 1);
    ack(&mut r, at(500), SpaceId::Data, &[1..=1], &cx);
    for (pn, s) in [(2, 1), (3, 2), (4, 3), (5, 4), (6, 5), (7, 6), (8, 8), (9, 12)] {
        send(&mut r, at(s * 1000), SpaceId::Data, pn);
    }
    let (outcome, _, lost) = ack(&mut r, at(12_200), SpaceId::Data, ranges, &cx);
    (r, outcome, lost)
}

#[test]
fn persistent_congestion_shrinks_the_window_to_its_minimum() {
    let (r, outcome, lost) = persistent_example(&[9..=9]);
    assert_eq!(lost, (2..=8).collect::<Vec<_>>());
    assert!(outcome.persistent_congestion);
    // The acknowledged packet belongs to the new slow start.
    assert_eq!(r.cwnd(), minimum_window(u64::from(LEN)) + u64::from(LEN));
}

#[test]
fn an_acknowledgement_in_between_is_no_persistent_congestion() {
    let (r, outcome, lost) = persistent_example(&[9..=9, 5..=5]);
    assert_eq!(lost, vec![2, 3, 4, 6, 7, 8]);
    assert!(!outcome.persistent_congestion);
    assert!(r.cwnd() > 2 * minimum_window(u64::from(LEN)));
}

#[test]
fn losses_before_the_first_sample_are_no_persistent_congestion() {
    let mut r = reno();
    for pn in 0..10 {
        send(&mut r, at(pn * 10_000), SpaceId::Data, pn);
    }
    let (outcome, _, lost) = ack(&mut r, at(90_100), SpaceId::Data, &[9..=9], &CX);
    assert_eq!((lost.len(), outcome.persistent_congestion), (9, false));
}

#[test]
fn the_window_is_reduced_once_per_round_trip() {
    for algorithm in [CongestionAlgorithm::NewReno, CongestionAlgorithm::Cubic] {
        let mut r = recovery(algorithm);
        for pn in 0..10 {
            send(&mut r, at(pn), SpaceId::Data, pn);
        }
        assert_eq!(r.permit(at(9), LEN), Permit::Congested);
        assert_eq!(ack(&mut r, at(100), SpaceId::Data, &[3..=3], &CX).2, vec![0]);
        let reduced = r.cwnd();
        assert!(reduced < 12_000);
        assert_eq!(ack(&mut r, at(101), SpaceId::Data, &[9..=9], &CX).2, vec![1, 2, 4, 5, 6]);
        assert_eq!(r.cwnd(), reduced, "sent before the recovery period began: neither less nor more");
        send(&mut r, at(102), SpaceId::Data, 10);
        for pn in 11..15 {
            send(&mut r, at(103), SpaceId::Data, pn);
        }
        ack(&mut r, at(200), SpaceId::Data, &[10..=13], &CX);
        assert!(r.cwnd() >= reduced, "recovery has ended");
        send(&mut r, at(201), SpaceId::Data, 15);
        for pn in 16..20 {
            send(&mut r, at(202), SpaceId::Data, pn);
        }
        ack(&mut r, at(300), SpaceId::Data, &[18..=18], &CX);
        assert!(r.cwnd() < reduced, "a new loss");
    }
}

#[test]
fn more_marked_packets_are_congestion() {
    let mut r = reno();
    // As many as use the window.
    for pn in 0..6 {
        send(&mut r, at(pn), SpaceId::Data, pn);
    }
    let acked = |r: &mut Recovery<u64>, ms, pn, marked| {
        let outcome = ack(r, at(ms), SpaceId::Data, &[pn..=pn], &CX).0;
        if marked {
            r.on_congestion_marks(at(ms), outcome.sent);
        }
        r.cwnd()
    };
    assert_eq!(acked(&mut r, 100, 0, false), 13_200);
    assert_eq!(acked(&mut r, 101, 1, true), 7200);
    assert_eq!(acked(&mut r, 102, 2, true), 7200, "the same recovery period");
    assert_eq!(acked(&mut r, 103, 3, false), 7200);
}

#[test]
fn probes_of_the_datagram_size_do_not_count() {
    let mut r = reno();
    send(&mut r, at(0), SpaceId::Data, 0);
    ack(&mut r, at(100), SpaceId::Data, &[0..=0], &CX);
    let cwnd = r.cwnd();
    r.on_packet_sent(SpaceId::Data, 1, SentPacket::new(at(200), 9000, true, false, 1));
    assert_eq!((r.bytes_in_flight(), r.oldest_unacked(SpaceId::Data, |_| true).is_none()), (0, true));
    let due = r.next_timeout(&CX).expect("an unanswered probe is found out");
    assert!(matches!(timeout(&mut r, due, &CX).0, TimeoutAction::Probe { .. }));
    for pn in 2..5 {
        send(&mut r, due, SpaceId::Data, pn);
    }
    assert_eq!(r.oldest_unacked(SpaceId::Data, |_| true).map(|(pn, _)| pn), Some(2));
    let (_, _, lost) = ack(&mut r, due + 100 * MS, SpaceId::Data, &[2..=4], &CX);
    assert_eq!(lost, vec![1]);
    assert!(r.cwnd() >= cwnd);
}

#[test]
fn the_window_grows_only_while_it_is_used() {
    for algorithm in [CongestionAlgorithm::NewReno, CongestionAlgorithm::Cubic] {
        let mut r = recovery(algorithm);
        send(&mut r, at(0), SpaceId::Data, 0);
        r.set_app_limited(true);
        ack(&mut r, at(100), SpaceId::Data, &[0..=0], &CX);
        assert_eq!(r.cwnd(), 12_000);
        for pn in 1..11 {
            send(&mut r, at(200), SpaceId::Data, pn);
        }
        ack(&mut r, at(300), SpaceId::Data, &[1..=1], &CX);
        assert_eq!(r.cwnd(), 13_200, "the flight filled the window");
        r.set_app_limited(false);
        ack(&mut r, at(300), SpaceId::Data, &[1..=10], &CX);
        assert_eq!(r.cwnd(), 24_000);
    }
}

/// RFC 9002 §7.8: a sender that is held up by something else than the window, such as its CPU, has not filled it.
#[test]
fn a_window_of_which_less_than_half_is_used_does_not_grow() {
    for algorithm in [CongestionAlgorithm::NewReno, CongestionAlgorithm::Cubic] {
        let mut r = recovery(algorithm);
        for round in 0..100 {
            for pn in 4 * round..4 * round + 4 {
                send(&mut r, at(100 * round), SpaceId::Data, pn);
            }
            ack(&mut r, at(100 * round + 99), SpaceId::Data, &[4 * round..=4 * round + 3], &CX);
        }
        assert_eq!(r.cwnd(), 12_000, "{algorithm:?}");
    }
}

#[test]
fn delay_is_only_believed_as_far_as_announced() {
    let delayed = |space, cx: &Context| {
        let mut r = reno();
        for (pn, sent, got) in [(0, 0, 100), (1, 200, 380)] {
            send(&mut r, at(sent), space, pn);
            r.on_ack(at(got), space, [pn..=pn], 60 * MS, cx, |_, _| {}, |_, _| {}).unwrap();
        }
        r.rtt().smoothed()
    };
    let early = Context { handshake_confirmed: false, ..CX };
    assert_eq!(delayed(SpaceId::Initial, &early), 110 * MS);
    assert_eq!(delayed(SpaceId::Handshake, &early), Duration::from_micros(102_500));
    assert_eq!(delayed(SpaceId::Data, &CX), Duration::from_micros(106_875));
}

#[test]
fn a_retry_takes_the_first_flight_back() {
    let mut r = reno();
    send(&mut r, at(0), SpaceId::Initial, 0);
    let mut back = Vec::new();
    r.drain(SpaceId::Initial, |frames| back.push(frames));
    assert_eq!((back, r.bytes_in_flight()), (vec![0], 0));
    send(&mut r, at(50), SpaceId::Initial, 1);
    assert_eq!(ack(&mut r, at(90), SpaceId::Initial, &[0..=1], &CX).1, vec![1]);
}

#[test]
fn reordering_that_looked_like_loss_costs_nothing() {
    for algorithm in [CongestionAlgorithm::NewReno, CongestionAlgorithm::Cubic] {
        let mut r = recovery(algorithm);
        for pn in 0..10 {
            send(&mut r, at(pn), SpaceId::Data, pn);
        }
        assert_eq!(ack(&mut r, at(100), SpaceId::Data, &[4..=5], &CX).2, vec![0, 1, 2]);
        let reduced = r.cwnd();
        assert!(reduced < 12_000);
        let (outcome, ..) = ack(&mut r, at(101), SpaceId::Data, &[4..=5, 1..=2], &CX);
        assert_eq!((outcome, r.cwnd()), (AckOutcome::default(), reduced), "one is still missing");
        let (outcome, ..) = ack(&mut r, at(102), SpaceId::Data, &[4..=5, 0..=2], &CX);
        assert!(outcome.undone && outcome.largest_newly_acked.is_none());
        assert_eq!(r.cwnd(), 12_000);
        // Packets 3 and 6 to 9 are still missing. Three later packets prove nothing any more, but time does, and that
        // reduces the window again.
        assert_eq!(ack(&mut r, at(103), SpaceId::Data, &[6..=6], &CX).2, Vec::<u64>::new());
        let due = r.next_timeout(&CX).expect("packet 3 is lost by time");
        assert_eq!(timeout(&mut r, due, &CX), (TimeoutAction::None, vec![3]));
        // Packet 6 had made it larger by a tenth.
        assert_eq!(r.cwnd(), reduced * 11 / 10);
    }
}

/// The search for the MTU usually goes on while the first packets are acknowledged. Until 2026-11, a larger datagram
/// size made a reduction final.
#[test]
fn a_reduction_is_undone_although_datagrams_have_become_larger() {
    for algorithm in [CongestionAlgorithm::NewReno, CongestionAlgorithm::Cubic] {
        let mut r = recovery(algorithm);
        for pn in 0..10 {
            send(&mut r, at(pn), SpaceId::Data, pn);
        }
        assert_eq!(ack(&mut r, at(100), SpaceId::Data, &[4..=4], &CX).2, vec![0, 1]);
        r.set_max_datagram(1400);
        assert!(r.cwnd() < 12_000 && !r.congestion().in_slow_start());
        let (outcome, ..) = ack(&mut r, at(101), SpaceId::Data, &[4..=4, 0..=1], &CX);
        assert!(outcome.undone && r.congestion().in_slow_start());
        // The initial window for datagrams of that size.
        assert_eq!(r.cwnd(), 14_000);
    }
}

/// RFC 9002 §6.1: a sender may raise its thresholds where it sees reordering, here before anything looks like a loss.
#[test]
fn packets_that_are_overtaken_raise_the_thresholds() {
    let mut r = reno();
    for pn in 0..10 {
        send(&mut r, at(pn), SpaceId::Data, pn);
    }
    assert_eq!(ack(&mut r, at(100), SpaceId::Data, &[2..=2], &CX).2, Vec::<u64>::new());
    assert_eq!(ack(&mut r, at(101), SpaceId::Data, &[0..=2], &CX).2, Vec::<u64>::new());
    assert_eq!(r.packet_threshold(SpaceId::Data), 3);
    assert_eq!(ack(&mut r, at(102), SpaceId::Data, &[8..=8], &CX).2, vec![3, 4, 5]);
    ack(&mut r, at(103), SpaceId::Data, &[5..=8], &CX);
    assert_eq!((r.packet_threshold(SpaceId::Data), r.packet_threshold(SpaceId::Handshake)), (4, 3));
    // A later path is another one.
    r.change_path(at(104), Onward::Back, false);
    assert_eq!(r.packet_threshold(SpaceId::Data), 3);
}

/// RFC 9002 §5.1.
#[test]
fn samples_come_from_the_largest_packet_and_from_what_is_ack_eliciting() {
    let mut r = reno();
    for pn in 0..4 {
        send(&mut r, at(0), SpaceId::Data, pn);
    }
    r.on_packet_sent(SpaceId::Data, 4, SentPacket::new(at(0), LEN, false, false, 4));
    assert!(ack(&mut r, at(50), SpaceId::Data, &[2..=2], &CX).0.rtt_sampled);
    let (outcome, acked, _) = ack(&mut r, at(90), SpaceId::Data, &[1..=2], &CX);
    assert_eq!((outcome.rtt_sampled, acked), (false, vec![1]), "the largest is not new");
    let (outcome, acked, _) = ack(&mut r, at(90), SpaceId::Data, &[4..=4, 1..=2], &CX);
    assert_eq!((outcome.rtt_sampled, acked), (false, vec![4]), "nothing new is ack-eliciting");
    assert_eq!((r.rtt().latest(), r.rtt().smoothed()), (50 * MS, 50 * MS));
    send(&mut r, at(100), SpaceId::Data, 5);
    r.on_packet_sent(SpaceId::Data, 6, SentPacket::new(at(110), LEN, false, false, 6));
    let (outcome, ..) = ack(&mut r, at(150), SpaceId::Data, &[5..=6], &CX);
    assert!(outcome.rtt_sampled && r.rtt().latest() == 40 * MS, "the largest, as another one is ack-eliciting");
}

/// RFC 9002 §7.6.2: "persistent congestion SHOULD consider packets sent across packet number spaces": a packet of
/// another space that arrived shows that the path worked meanwhile.
#[test]
fn an_acknowledgement_in_another_space_is_no_persistent_congestion() {
    for between in [None, Some(4500), Some(600), Some(12_100)] {
        let cx = Context { handshake_confirmed: false, peer_max_ack_delay: 500 * MS, ..CX };
        let mut r = reno();
        send(&mut r, at(0), SpaceId::Handshake, 1);
        ack(&mut r, at(500), SpaceId::Handshake, &[1..=1], &cx);
        let seconds = [(2, 1), (3, 2), (4, 3), (5, 4), (6, 5), (7, 6), (8, 8), (9, 12)];
        let mut steps: Vec<_> = seconds.map(|(pn, s)| (s * 1000, Some(pn))).to_vec();
        steps.extend(between.map(|ms| (ms, None)));
        steps.sort_unstable();
        for (ms, pn) in steps {
            match pn {
                Some(pn) => send(&mut r, at(ms), SpaceId::Handshake, pn),
                None => {
                    send(&mut r, at(ms), SpaceId::Initial, 0);
                    ack(&mut r, at(ms + 50), SpaceId::Initial, &[0..=0], &cx);
                }
            }
        }
        let (outcome, _, lost) = ack(&mut r, at(12_200), SpaceId::Handshake, &[9..=9], &cx);
        assert_eq!(lost, (2..=8).collect::<Vec<_>>());
        assert_eq!(outcome.persistent_congestion, between != Some(4500), "{between:?}");
    }
}

/// RFC 8899 §3: "An update to the PLPMTU (or MPS) MUST NOT increase the congestion window measured in bytes". The
/// initial window depends on the size (RFC 9002 §7.2); after that, larger datagrams wait for the window.
#[test]
fn larger_datagrams_wait_for_a_window_that_holds_two() {
    for algorithm in [CongestionAlgorithm::NewReno, CongestionAlgorithm::Cubic] {
        let mut r = recovery(algorithm);
        assert!(r.takes_datagrams_of(8972) && r.takes_datagrams_of(u16::MAX));
        r.set_max_datagram(1472);
        assert_eq!(r.cwnd(), 14_720, "the initial window for this size");
        r.set_max_datagram(1472);
        for pn in 0..10 {
            send(&mut r, at(pn), SpaceId::Data, pn);
        }
        ack(&mut r, at(100), SpaceId::Data, &[9..=9], &CX);
        let reduced = r.cwnd();
        assert!(reduced < 14_720 && r.takes_datagrams_of(1472) && !r.takes_datagrams_of(8972));
        assert!(r.takes_datagrams_of((reduced / 2) as u16) && !r.takes_datagrams_of((reduced / 2 + 1) as u16));
        r.set_max_datagram((reduced / 2) as u16);
        assert_eq!(r.cwnd(), reduced);
        r.set_max_datagram(1200);
        assert_eq!(r.cwnd(), reduced, "nor does a smaller size change it");
    }
}

/// RFC 9002 §6.2.1, §6.2.2: every ack-eliciting packet that is sent restarts the timer, as does the end of a space.
#[test]
fn the_probe_timer_starts_again_with_each_packet_and_with_each_space() {
    let mut r = reno();
    send(&mut r, at(0), SpaceId::Data, 0);
    ack(&mut r, at(100), SpaceId::Data, &[0..=0], &CX);
    for ms in [200, 250, 400] {
        send(&mut r, at(ms), SpaceId::Data, ms);
        assert_eq!(r.next_timeout(&CX), Some(at(ms) + 325 * MS));
        r.on_packet_sent(SpaceId::Data, ms + 1, SentPacket::new(at(ms + 1), LEN, false, false, ms + 1));
        assert_eq!(r.next_timeout(&CX), Some(at(ms) + 325 * MS), "not with others");
    }
    ack(&mut r, at(410), SpaceId::Data, &[250..=250], &CX);
    assert_eq!(r.next_timeout(&CX), Some(at(400) + r.pto_interval(&CX, SpaceId::Data)));
    assert_ne!(r.pto_interval(&CX, SpaceId::Data), 325 * MS, "there is a new sample");
    let cx = Context { handshake_confirmed: false, peer_completed_address_validation: false, ..CX };
    let mut r = reno();
    send(&mut r, at(0), SpaceId::Initial, 0);
    send(&mut r, at(0), SpaceId::Handshake, 0);
    timeout(&mut r, at(999), &cx);
    assert_eq!(r.pto_count(), 1);
    r.discard_space(SpaceId::Initial, |_| {});
    assert_eq!((r.pto_count(), r.next_timeout(&cx)), (0, Some(at(999))), "not backed off");
}

/// RFC 9002 §7.6.2: the two packets "MUST be ack-eliciting, since a receiver is required to acknowledge only ack-eliciting
/// packets".
#[test]
fn only_ack_eliciting_packets_are_persistent_congestion() {
    for eliciting in [true, false] {
        let mut r = reno();
        send(&mut r, at(0), SpaceId::Data, 0);
        ack(&mut r, at(100), SpaceId::Data, &[0..=0], &CX);
        for pn in 1..20 {
            // Padded acknowledgements are in flight.
            let packet = SentPacket::new(at(pn * 1000), 100, eliciting || pn == 10, true, pn);
            r.on_packet_sent(SpaceId::Data, pn, packet);
        }
        send(&mut r, at(20_000), SpaceId::Data, 20);
        let (outcome, _, lost) = ack(&mut r, at(20_100), SpaceId::Data, &[20..=20], &CX);
        assert_eq!((lost.len(), outcome.persistent_congestion), (19, eliciting));
    }
}
