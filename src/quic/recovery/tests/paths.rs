//! Changes of the path.

use super::*;
use crate::quic::recovery::Onward;

const DATA: SpaceId = SpaceId::Data;

fn config() -> RecoveryConfig {
    RecoveryConfig {
        initial_rtt: 333 * MS,
        max_datagram: LEN,
        algorithm: CongestionAlgorithm::NewReno,
        pacing: false,
        seed: 1,
    }
}

/// A path with a round-trip time of 100 ms and a window above the initial one, on which 20 packets are in flight from
/// number 20 on.
fn busy() -> Recovery<u64> {
    let mut r = reno();
    (0..20).for_each(|pn| send(&mut r, at(0), DATA, pn));
    ack(&mut r, at(100), DATA, &[0..=19], &CX);
    (20..40).for_each(|pn| send(&mut r, at(100), DATA, pn));
    r
}

/// RFC 9000 §9.4: packets of the old path contribute neither to congestion control nor to RTT estimation of the new one.
#[test]
fn packets_of_the_old_path_say_nothing_about_the_new_one() {
    for onward in [Onward::Fresh(&config()), Onward::Same] {
        let mut r = busy();
        let window = r.cwnd();
        r.change_path(at(110), onward, true);
        assert_eq!(r.bytes_in_flight(), 0);
        let (fresh, srtt) = match onward {
            Onward::Same => (window, 100 * MS),
            _ => (reno().cwnd(), 333 * MS),
        };
        assert_eq!((r.cwnd(), r.rtt().smoothed()), (fresh, srtt));
        // Some arrive, some are lost.
        let (outcome, acked, lost) = ack(&mut r, at(400), DATA, &[30..=39, 20..=22], &CX);
        assert_eq!((acked.len(), lost.len(), outcome.rtt_sampled), (13, 7, false));
        assert_eq!((r.cwnd(), r.rtt().smoothed(), r.bytes_in_flight()), (fresh, srtt, 0));
        // Those of the new path count.
        let count = fresh / u64::from(LEN);
        (40..40 + count).for_each(|pn| send(&mut r, at(500), DATA, pn));
        assert_eq!(r.bytes_in_flight(), count * u64::from(LEN));
        assert!(ack(&mut r, at(530), DATA, &[40..=39 + count], &CX).0.rtt_sampled);
        assert!(r.cwnd() > fresh && r.rtt().latest() == 30 * MS);
    }
}

#[test]
fn an_acknowledgement_of_both_paths_gives_no_sample() {
    let mut r = busy();
    r.change_path(at(110), Onward::Fresh(&config()), true);
    send(&mut r, at(110), DATA, 40);
    assert!(!ack(&mut r, at(200), DATA, &[20..=40], &CX).0.rtt_sampled);
    send(&mut r, at(210), DATA, 41);
    r.on_packet_sent(DATA, 42, SentPacket::elsewhere(at(210), LEN, 42));
    assert!(!ack(&mut r, at(220), DATA, &[41..=42], &CX).0.rtt_sampled, "a probe on another path");
}

/// RFC 9000 §9.3: on a return, congestion state is restored. What is still in flight there counts, so that going back
/// and forth does not send more than the window.
#[test]
fn a_path_is_found_as_it_was_left() {
    let mut r = busy();
    let (window, in_flight) = (r.cwnd(), r.bytes_in_flight());
    r.change_path(at(110), Onward::Fresh(&config()), true);
    send(&mut r, at(110), DATA, 40);
    ack(&mut r, at(120), DATA, &[20..=24], &CX);
    // An unvalidated path was left: it is not what to go back to.
    r.change_path(at(130), Onward::Fresh(&config()), false);
    r.change_path(at(140), Onward::Back, false);
    assert_eq!((r.cwnd(), r.rtt().smoothed()), (window, 100 * MS));
    assert_eq!(r.bytes_in_flight(), in_flight - 5 * u64::from(LEN));
    ack(&mut r, at(150), DATA, &[25..=39], &CX);
    assert_eq!((r.bytes_in_flight(), r.cwnd()), (0, window), "they do not grow it");
    ack(&mut r, at(160), DATA, &[40..=40], &CX);
    assert_eq!(r.bytes_in_flight(), 0);
}

#[test]
fn going_back_and_forth_sends_no_more_than_the_window() {
    let mut r = reno();
    let mut pn = 0;
    let mut onward = Onward::Same;
    for _ in 0..50 {
        while r.permit(at(1), LEN) == Permit::Send {
            send(&mut r, at(1), DATA, pn);
            pn += 1;
        }
        r.change_path(at(1), onward, true);
        onward = Onward::Back;
    }
    assert!(pn * u64::from(LEN) <= 2 * r.cwnd(), "{pn} packets on two paths");
}

/// What was sent on the old path is not lost from sight: probes repeat it, and its loss is noticed.
#[test]
fn what_was_sent_on_the_old_path_is_sent_again() {
    let mut r = busy();
    r.change_path(at(110), Onward::Fresh(&config()), true);
    assert_eq!(r.oldest_unacked(DATA, |_| true).map(|(pn, _)| pn), Some(20));
    send(&mut r, at(120), DATA, 40);
    send(&mut r, at(120), DATA, 41);
    let (_, _, lost) = ack(&mut r, at(150), DATA, &[40..=41], &CX);
    assert_eq!(lost.len(), 20);
    assert_eq!(r.bytes_in_flight(), 0);
    r.drain(DATA, |_| {});
    assert_eq!(r.bytes_in_flight(), 0);
}
