//! Random steps compared with the model. `GANNET_CONTRACT_OPS` sets the total number of steps.

use gannet::base::Side;
use gannet::quic::Notify;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::rig::{End, Kind, Rig, Step};

/// Maximum number of steps on one stream.
const STEPS: usize = 120;

fn operations() -> usize {
    std::env::var("GANNET_CONTRACT_OPS").map_or(1_000_000, |n| n.parse().expect("GANNET_CONTRACT_OPS is a number"))
}

/// A step whose numbers are scaled to what was provided when it is played.
#[derive(Clone, Debug)]
enum Op {
    Provide(Vec<usize>),
    /// Start and length in thousandths of what was provided, and whether the stream ends there.
    Data(u64, u64, bool),
    /// The next bytes in order.
    Next(u64),
    Blocked,
    Peek,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        3 => proptest::collection::vec(1usize..200, 1..4).prop_map(Op::Provide),
        1 => proptest::collection::vec(1usize..3, 1..20).prop_map(Op::Provide),
        12 => (0u64..1000, 0u64..300, proptest::bool::weighted(0.02)).prop_map(|(s, l, f)| Op::Data(s, l, f)),
        6 => (1u64..300).prop_map(Op::Next),
        1 => Just(Op::Blocked),
        1 => Just(Op::Peek),
    ]
}

#[test]
fn random_steps_do_what_the_model_says() {
    let config = Config { cases: (operations() / (STEPS / 2)) as u32, failure_persistence: None, ..Config::default() };
    let strategy = (
        proptest::collection::vec(op(), 1..STEPS),
        proptest::sample::select(vec![Side::Client, Side::Server]),
        proptest::sample::select(Kind::ALL.to_vec()),
        any::<bool>(),
        proptest::sample::select(End::ALL.to_vec()),
        any::<u8>(),
    );
    // A connection is used for many streams; after a failure there is none, so that shrinking starts afresh.
    let rigs = std::cell::RefCell::new([None, None]);
    let outcome = TestRunner::new(config).run(&strategy, |(ops, side, kind, whole, end, copies)| {
        let mut rig = rigs.borrow_mut()[side as usize].take().unwrap_or_else(|| Rig::new(side));
        let notify = if whole { Notify::WhenComplete } else { Notify::Progress };
        let mut play = rig.stream(kind, notify);
        // Without a buffer, it would be a pooled stream.
        let first = Op::Provide(vec![usize::from(copies) + 1]);
        for (i, op) in [first].into_iter().chain(ops).enumerate() {
            if play.is_over() {
                break;
            }
            let (provided, copy) = (play.model.provided, copies.wrapping_mul(i as u8) % 3);
            let step = match op {
                Op::Provide(sizes) => Step::Provide(sizes),
                Op::Data(start, len, fin) => {
                    let limit = play.model.size.unwrap_or(play.model.limit());
                    let start = start * limit / 1000;
                    let end = (start + len * provided / 1000 + u64::from(len == 299)).min(limit);
                    // Only frames that a correct peer could send: the end is not below what was sent.
                    let fin = fin && end >= play.model.high || play.model.size == Some(end);
                    Step::Data(start..end, fin)
                }
                Op::Next(n) => {
                    let at = play.model.contiguous();
                    Step::Data(at..(at + n).min(play.model.size.unwrap_or(play.model.limit())), false)
                }
                Op::Blocked => Step::Blocked,
                Op::Peek => Step::Peek,
            };
            play.step(&step, copy);
        }
        let spared = play.is_over() || end.spares_connection();
        // Ends of connections cost a handshake each, so only some are played.
        let end = if spared || copies % 16 == 0 { end } else { End::Reset };
        play.end(end);
        if end.spares_connection() || spared {
            rigs.borrow_mut()[side as usize] = rig.host.is_some().then_some(rig);
        }
        Ok(())
    });
    outcome.unwrap_or_else(|e| panic!("{e}"));
}
