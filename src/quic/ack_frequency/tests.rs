use super::*;

const MS: fn(u64) -> Duration = Duration::from_millis;

#[test]
fn requests_are_obeyed_in_order_and_refused_if_invalid() {
    let (mut obeyed, min) = (Obeyed::default(), MS(1));
    let rule = |delay, every, reordering| Ok(Some(AckRule { delay, every, reordering }));
    assert_eq!(obeyed.on_frame(5, 9, 2000, 3, min), rule(MS(2), 10, 3));
    assert_eq!(obeyed.on_frame(5, 1, 2000, 3, min), Ok(None), "obsolete");
    assert_eq!(obeyed.on_frame(4, 1, 2000, 3, min), Ok(None), "obsolete");
    assert_eq!(obeyed.on_frame(6, 0, 1000, 0, min), rule(MS(1), 1, 0));
    let most = (1 << 62) - 1;
    assert_eq!(
        obeyed.on_frame(most - 1, most, 16_383_999, most, min),
        rule(Duration::from_micros(16_383_999), MAX_EVERY, u32::MAX)
    );
    for (seq, delay) in [(most, 16_384_000), (most, 999), (most, most), (0, 0)] {
        assert_eq!(obeyed.on_frame(seq, 1, delay, 1, min), Err(TransportError::PROTOCOL_VIOLATION), "{delay} us");
    }
}

#[test]
fn only_the_first_mark_is_news_to_a_patient_peer() {
    let (patient, usual) = (AckRule { every: 10, ..AckRule::AT_ONCE }, AckRule { every: 2, ..AckRule::AT_ONCE });
    let mut obeyed = Obeyed::default();
    let news = [3, 4, 5, 7, 8].map(|pn| obeyed.is_news(pn, &patient));
    assert_eq!(news, [true, false, false, true, false]);
    assert!(obeyed.is_news(9, &usual));
}

fn facts(window: u64, srtt: Duration) -> Facts {
    Facts { window, srtt, slow_start: false, busy: true }
}

/// Sends what is due.
fn send(asked: &mut Asked) -> Option<(u64, Request)> {
    let due = asked.due();
    asked.sent();
    due
}

#[test]
fn large_windows_ask_for_fewer_acknowledgements() {
    let mut asked = Asked::new(AckRequests::Adaptive, MS(1), MS(25));
    asked.consider(&Facts { slow_start: true, ..facts(800, MS(40)) });
    assert_eq!(asked.due(), None, "slow start needs them");
    asked.consider(&Facts { busy: false, ..facts(80, MS(40)) });
    assert_eq!(asked.due(), None, "nothing more is sent");
    asked.consider(&facts(80, MS(40)));
    let first = Request { threshold: 10, max_delay: MS(10), reordering: 3 };
    assert_eq!(send(&mut asked), Some((0, first)));
    assert!(asked.is_patient());
    asked.consider(&facts(800, MS(40)));
    assert_eq!(asked.due(), None, "one at a time");
    asked.on_acked(0);
    asked.consider(&facts(150, MS(41)));
    assert_eq!(asked.due(), None, "hardly different");
    asked.consider(&facts(1 << 20, MS(1000)));
    assert_eq!(send(&mut asked), Some((1, Request { threshold: 63, max_delay: MS(25), reordering: 3 })));
    asked.on_acked(1);
    asked.consider(&facts(2, Duration::from_micros(100)));
    assert_eq!(send(&mut asked), Some((2, Request { threshold: 1, max_delay: MS(1), reordering: 3 })));
    assert!(!asked.is_patient());
}

/// draft-ietf-quic-ack-frequency-14 §7.
#[test]
fn the_longest_delay_that_may_be_in_use_is_expected() {
    let mut asked = Asked::new(AckRequests::Adaptive, MS(1), MS(25));
    assert_eq!(asked.delay(), MS(25));
    asked.consider(&facts(80, MS(40)));
    send(&mut asked);
    assert_eq!(asked.delay(), MS(25), "not acknowledged yet");
    asked.on_lost(0);
    assert_eq!(send(&mut asked).map(|(seq, _)| seq), Some(1), "sent again with another number");
    asked.on_acked(0);
    assert_eq!(asked.delay(), MS(25), "the other one may still arrive");
    asked.on_acked(1);
    assert_eq!(asked.delay(), MS(10));
    asked.on_lost(1);
    assert_eq!(asked.due(), None);
    asked.consider(&facts(80, MS(80)));
    send(&mut asked);
    assert_eq!(asked.delay(), MS(20), "longer ones at once");
}

#[test]
fn fixed_requests_are_made_once() {
    let requests = AckRequests::Fixed { threshold: 4, max_delay: Duration::ZERO, reordering: 0 };
    let mut asked = Asked::new(requests, MS(5), MS(25));
    asked.consider(&Facts { slow_start: true, ..facts(10, MS(40)) });
    assert_eq!(send(&mut asked), Some((0, Request { threshold: 4, max_delay: MS(5), reordering: 0 })));
    asked.on_acked(0);
    asked.consider(&facts(1000, MS(400)));
    assert_eq!(asked.due(), None);
    // Zeros differ by no factor.
    let requests = AckRequests::Fixed { threshold: 0, max_delay: Duration::ZERO, reordering: 0 };
    let mut asked = Asked::new(requests, Duration::ZERO, MS(25));
    for expected in [true, false] {
        asked.consider(&facts(10, MS(40)));
        assert_eq!(send(&mut asked).is_some(), expected);
        asked.on_acked(0);
    }
    let mut never = Asked::new(AckRequests::Never, MS(5), MS(25));
    never.consider(&facts(1000, MS(400)));
    assert_eq!(never.due(), None);
}
