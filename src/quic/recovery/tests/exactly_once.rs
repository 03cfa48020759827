//! For any sequence of operations, bytes in flight are those of the packets in flight, and the contents of each packet
//! are returned exactly once.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Op {
    Send {
        space: usize,
        kind: u8,
        len: u16,
        skip: u8,
    },
    /// Acknowledges those of the last 64 packet numbers whose bit is set.
    Ack {
        space: usize,
        bits: u64,
        ce: u8,
    },
    Wait {
        us: u32,
    },
    Timeout,
    Discard {
        space: usize,
    },
    Mtu {
        size: u16,
    },
    Limited(bool),
}

fn op() -> impl Strategy<Value = Op> {
    let space = || prop_oneof![Just(0usize), Just(1), Just(2), Just(2), Just(2)];
    prop_oneof![
        12 => (space(), 0u8..4, 40u16..1500, 0u8..12).prop_map(|(space, kind, len, skip)| {
            Op::Send { space, kind, len, skip: skip.saturating_sub(9) }
        }),
        5 => (space(), any::<u64>(), any::<u64>(), 0u8..9).prop_map(|(space, a, b, ce)| {
            Op::Ack { space, bits: a | b, ce }
        }),
        5 => (0u32..60_000).prop_map(|us| Op::Wait { us }),
        3 => Just(Op::Timeout),
        1 => space().prop_map(|space| Op::Discard { space }),
        1 => (1200u16..9000).prop_map(|size| Op::Mtu { size }),
        1 => any::<bool>().prop_map(Op::Limited),
    ]
}

#[derive(Default)]
struct Model {
    /// Per space: packets in flight, with their length and whether they are ack-eliciting.
    out: [BTreeMap<u64, (u64, bool)>; 3],
    /// Per space: all numbers sent.
    sent: [Vec<u64>; 3],
    /// Per space: packets that are not ack-eliciting.
    bare: [BTreeSet<u64>; 3],
    next: [u64; 3],
}

impl Model {
    fn take(&mut self, space: usize, pn: u64) {
        assert!(self.out[space].remove(&pn).is_some(), "packet {pn} of space {space} was handed out before");
    }

    fn in_flight(&self) -> u64 {
        self.out.iter().flat_map(|o| o.values()).map(|(len, _)| len).sum()
    }

    /// The sent numbers of `space` selected by `bits`, as ranges, largest first.
    fn ranges(&self, space: usize, bits: u64) -> Vec<RangeInclusive<u64>> {
        let mut ranges: Vec<RangeInclusive<u64>> = Vec::new();
        for (i, pn) in self.sent[space].iter().rev().take(64).enumerate() {
            if bits >> i & 1 == 0 {
                continue;
            }
            match ranges.last_mut() {
                Some(last) if *last.start() == pn + 1 => *last = *pn..=*last.end(),
                _ => ranges.push(*pn..=*pn),
            }
        }
        ranges
    }
}

fn run(algorithm: CongestionAlgorithm, ops: &[Op]) {
    let config = RecoveryConfig { initial_rtt: 333 * MS, max_datagram: LEN, algorithm, pacing: true, seed: 1 };
    let mut now = at(1);
    let mut r = Recovery::<(usize, u64)>::new(&config, now);
    let mut model = Model::default();
    for op in ops {
        now += Duration::from_nanos(100);
        match *op {
            Op::Send { space, kind, len, skip } => {
                let pn = model.next[space] + u64::from(skip);
                model.next[space] = pn + 1;
                // Acknowledgements only, padding, the usual packet, a probe of the datagram size.
                let (eliciting, in_flight) =
                    [(false, false), (false, true), (true, true), (true, false)][kind as usize];
                r.on_packet_sent(SpaceId::ALL[space], pn, SentPacket::new(now, len, eliciting, in_flight, (space, pn)));
                if eliciting || in_flight {
                    model.out[space].insert(pn, (u64::from(len) * u64::from(in_flight), eliciting));
                } else {
                    model.bare[space].insert(pn);
                }
                model.sent[space].push(pn);
            }
            Op::Ack { space, bits, ce } => {
                let ranges = model.ranges(space, bits);
                let (mut acked, mut lost) = (Vec::new(), Vec::new());
                let outcome = r.on_ack(
                    now,
                    SpaceId::ALL[space],
                    ranges.iter().cloned(),
                    3 * MS,
                    &CX,
                    |pn, packet| acked.push((pn, packet.frames)),
                    |pn, frames| lost.push((pn, frames)),
                );
                let outcome = outcome.expect("only sent packets are acknowledged");
                if ce > 4 && outcome.largest_newly_acked.is_some() {
                    r.on_congestion_marks(now, outcome.sent);
                }
                for (pn, frames) in acked {
                    assert!(ranges.iter().any(|range| range.contains(&pn)));
                    assert_eq!(frames, (space, pn));
                    // Packets that are not ack-eliciting are returned at most once.
                    if !model.bare[space].remove(&pn) {
                        model.take(space, pn);
                    }
                }
                for (pn, frames) in lost {
                    assert!(pn < r.largest_acked(SpaceId::ALL[space]).unwrap());
                    assert_eq!(frames, (space, pn));
                    model.take(space, pn);
                }
                for pn in ranges.into_iter().flatten() {
                    assert!(!model.out[space].contains_key(&pn), "packet {pn} is acknowledged");
                }
            }
            Op::Wait { us } => now += Duration::from_micros(u64::from(us)),
            Op::Timeout => {
                let due = r.next_timeout(&CX);
                now = now.max(due.unwrap_or(now));
                let mut any = false;
                let action = r.on_timeout(now, &CX, |space, pn, frames| {
                    any = true;
                    assert_eq!(frames, (space.index(), pn));
                    model.take(space.index(), pn);
                });
                let eliciting = model.out.iter().flat_map(|o| o.values()).any(|(_, eliciting)| *eliciting);
                if let Some(due) = due.filter(|_| !any && action == TimeoutAction::None) {
                    // The round-trip time grew in another space, so the packet gets more time. The next deadline may be
                    // due as well if it is of another space.
                    assert!(r.next_timeout(&CX).is_some_and(|at| at > due));
                }
                assert!(due.is_some() || (!any && action == TimeoutAction::None));
                assert!(!eliciting || due.is_some(), "packets in flight have a timer");
                if let TimeoutAction::Probe { space, .. } = action {
                    assert!(model.out[space.index()].values().any(|(_, eliciting)| *eliciting));
                }
            }
            Op::Discard { space } => r.discard_space(SpaceId::ALL[space], |(s, pn)| {
                assert_eq!(s, space);
                if !model.bare[s].remove(&pn) {
                    model.take(space, pn);
                }
            }),
            Op::Mtu { size } => r.set_max_datagram(size),
            Op::Limited(limited) => r.set_app_limited(limited),
        }
        assert_eq!(r.bytes_in_flight(), model.in_flight());
        assert!(r.cwnd() >= minimum_window(u64::from(LEN)));
        for space in SpaceId::ALL {
            let state = &r.spaces[space.index()];
            assert_eq!(state.eliciting, model.out[space.index()].values().filter(|(_, e)| *e).count());
            assert!(state.ring.iter().map(|(pn, _)| pn).eq(model.out[space.index()].keys().copied()));
            // At most what two unproven losses and skipped numbers leave behind.
            assert!(state.ring.base() >= *model.out[space.index()].keys().next().unwrap_or(&0));
        }
        if let Permit::PacedUntil(until) = r.permit(now, LEN) {
            assert!(until > now);
            assert_eq!(r.permit(until, LEN), Permit::Send, "a packet may be sent when announced");
        }
    }
    for space in SpaceId::ALL {
        r.drain(space, |(s, pn)| {
            if !model.bare[s].remove(&pn) {
                model.take(s, pn);
            }
        });
        assert!(model.out[space.index()].is_empty(), "nothing is forgotten");
    }
    assert_eq!(r.bytes_in_flight(), 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn newreno(ops in proptest::collection::vec(op(), 1..200)) {
        run(CongestionAlgorithm::NewReno, &ops);
    }

    #[test]
    fn cubic(ops in proptest::collection::vec(op(), 1..200)) {
        run(CongestionAlgorithm::Cubic, &ops);
    }

    #[test]
    fn bbr(ops in proptest::collection::vec(op(), 1..200)) {
        run(CongestionAlgorithm::Bbr, &ops);
    }
}
