//! Losses that mean more, or less, than congestion.

use super::*;

/// A flight of ten packets in an outage of both directions: the first three arrive, but their acknowledgement does not.
/// The peer repeats it when the path works again, which makes a sample as long as the outage.
fn outage(tail: &[RangeInclusive<u64>]) -> (Recovery<u64>, AckOutcome) {
    let mut r = reno();
    for pn in 0..4 {
        send(&mut r, at(10 * pn), SpaceId::Data, pn);
        ack(&mut r, at(10 * pn + 10), SpaceId::Data, &[pn..=pn], &CX);
    }
    let mut pn = 4;
    for _ in 0..10 {
        send(&mut r, at(200), SpaceId::Data, pn);
        pn += 1;
    }
    while let Some(due) = r.next_timeout(&CX).filter(|due| *due < at(3200)) {
        assert!(matches!(timeout(&mut r, due, &CX).0, TimeoutAction::Probe { .. }));
        for _ in 0..2 {
            send(&mut r, due, SpaceId::Data, pn);
            pn += 1;
        }
    }
    let (outcome, _, lost) = ack(&mut r, at(3200), SpaceId::Data, &[4..=6], &CX);
    assert_eq!((lost, outcome.persistent_congestion), (vec![], false));
    assert_eq!(r.rtt().latest(), 3000 * MS);
    for _ in 0..2 {
        send(&mut r, at(3201), SpaceId::Data, pn);
        pn += 1;
    }
    let all = [pn - 2..=pn - 1].into_iter().chain(tail.iter().cloned()).chain([4..=6]);
    let (outcome, ..) = ack(&mut r, at(3211), SpaceId::Data, &all.collect::<Vec<_>>(), &CX);
    (r, outcome)
}

/// RFC 9002 §7.6. Until 2026-11, the sample lengthened the probe timeout so much that nothing was persistent: the
/// window was reduced to 0.7 of its size.
#[test]
fn an_outage_of_both_directions_is_persistent_congestion() {
    let (r, outcome) = outage(&[]);
    assert!(outcome.persistent_congestion);
    assert!(r.cwnd() <= minimum_window(u64::from(LEN)) + 2 * u64::from(LEN), "{}", r.cwnd());
    assert_eq!(r.rtt().min(), 10 * MS, "a new minimum (RFC 9002 §5.2)");
    let (_, outcome) = outage(&[15..=15]);
    assert!(outcome.persistent_congestion, "a probe that got through in between leaves long runs on either side");
}

/// RFC 9002 §5.2.
#[test]
fn the_smallest_round_trip_time_starts_again_after_persistent_congestion() {
    let (r, outcome, _) = persistent_example(&[9..=9]);
    assert!(outcome.persistent_congestion);
    // 500 ms before, 200 ms now: any other choice than the smaller one would show.
    assert_eq!(r.rtt().min(), 200 * MS);
    let mut r = reno();
    send(&mut r, at(0), SpaceId::Data, 0);
    ack(&mut r, at(10), SpaceId::Data, &[0..=0], &CX);
    for pn in 1..10 {
        send(&mut r, at(pn * 1000), SpaceId::Data, pn);
    }
    let (outcome, ..) = ack(&mut r, at(9400), SpaceId::Data, &[9..=9], &CX);
    assert!(outcome.persistent_congestion);
    assert_eq!(r.rtt().min(), 400 * MS, "10 ms was another path");
}

/// RFC 9002 §7.4. Until 2026-11, a Handshake packet that arrived before its keys cost the whole slow start.
#[test]
fn losses_before_the_first_acknowledged_packet_of_the_handshake_are_no_congestion() {
    let early = Context { handshake_confirmed: false, ..CX };
    for space in [SpaceId::Initial, SpaceId::Handshake, SpaceId::Data] {
        for algorithm in [CongestionAlgorithm::NewReno, CongestionAlgorithm::Cubic] {
            let mut r = recovery(algorithm);
            for pn in 0..8 {
                send(&mut r, at(pn), space, pn);
            }
            let cwnd = r.cwnd();
            assert_eq!(ack(&mut r, at(100), space, &[5..=5], &early).2, vec![0, 1, 2], "{space}");
            assert!(
                r.cwnd() >= cwnd && r.congestion().controller().in_slow_start(),
                "{space}: the window is as it was"
            );
            assert_eq!(r.bytes_in_flight(), 4 * u64::from(LEN));
            // Sent after one that arrived, so the peer had keys (a MUST NOT of §7.4).
            send(&mut r, at(110), space, 8);
            send(&mut r, at(110), space, 9);
            assert_eq!(ack(&mut r, at(210), space, &[9..=9], &early).2, vec![3, 4, 6, 7], "{space}");
            assert!(r.cwnd() < cwnd, "{space}: 6 and 7 count");
        }
    }
}

#[test]
fn data_that_is_sent_when_the_handshake_is_confirmed_is_never_early() {
    let mut r = reno();
    r.on_confirmed(at(5));
    for pn in 0..5 {
        send(&mut r, at(3 * pn), SpaceId::Data, pn);
    }
    let cwnd = r.cwnd();
    assert_eq!(ack(&mut r, at(100), SpaceId::Data, &[4..=4], &CX).2, vec![0, 1]);
    assert!(r.cwnd() >= cwnd, "both were sent before");
    let due = r.next_timeout(&CX).unwrap();
    assert_eq!(timeout(&mut r, due, &CX).1, vec![2]);
    assert!(r.cwnd() < cwnd);
}

/// RFC 9000 §21.4.
#[test]
fn a_number_that_was_left_out_is_never_acknowledged() {
    let mut r = reno();
    for pn in [0, 1, 3, 4, 5, 9, 10, 12, 14, 15] {
        send(&mut r, at(pn), SpaceId::Data, pn);
    }
    let honest = [14..=15, 12..=12, 9..=10, 3..=5, 0..=1];
    let (_, acked, lost) = ack(&mut r, at(100), SpaceId::Data, &honest, &CX);
    assert_eq!((acked.len(), lost.len()), (10, 0), "they are not lost either");
    let try_ack = |r: &mut Recovery<u64>, range| {
        r.on_ack(at(101), SpaceId::Data, [range], Duration::ZERO, &CX, |_, _| {}, |_, _| {}).map_err(|e| e.pn)
    };
    for (range, left_out) in [(13..=13, 13), (13..=15, 13), (11..=12, 11), (1..=3, 2), (8..=9, 8)] {
        assert_eq!(
            try_ack(&mut r, range.clone()),
            Err(left_out),
            "{range:?}, although all packets around it are settled"
        );
    }
    assert!(try_ack(&mut r, 14..=15).is_ok() && try_ack(&mut r, 3..=4).is_ok());
}
