//! The simulator plays whole transfers between two engines, in both directions at once, on a bad network, and ends them
//! at every single step.

use gannet::base::Side;
use gannet::base::time::Duration;
use gannet::quic::{CongestionAlgorithm, Priority, RetryPolicy, Version, Versions};
use gannet::sim::{self, Ending, Flow, LinkConfig, Plan, Receive, Space, StreamPlan};

/// Receives `len` bytes as given by `receive`.
fn flow(len: u64, receive: Receive) -> Flow {
    let priority = Priority { urgency: (len % 8) as u8, incremental: len.is_multiple_of(2) };
    Flow {
        len,
        piece: 900,
        receive,
        priority,
        whole: len.is_multiple_of(3),
        reset_at: None,
        reliable: None,
        stop_at: None,
        space: Space::Growing,
        pause: None,
    }
}

/// Streams of both sides and directions: many tiny buffers, one large one, a few that are provided again.
fn plan(seed: u64, bad: bool) -> Plan {
    let tiny = Receive::Provided { size: 80, count: 150 };
    let large = Receive::Provided { size: 20_000, count: 1 };
    let ring = Receive::Provided { size: 300, count: 3 };
    let both = |a, b| StreamPlan { forward: a, back: b };
    let link = LinkConfig { delay: Duration::from_millis(2), ..LinkConfig::default() };
    let link = if bad { LinkConfig { loss: 60, duplicate: 60, reorder: 150, ..link } } else { link };
    let bidi = vec![both(flow(7000, tiny), flow(5001, large))];
    let uni = vec![both(flow(4000, ring), flow(0, ring))];
    Plan {
        cores: [1; 2],
        first: [0; 2],
        home: 0,
        scatter: 0,
        stop: None,
        cores_left: [1; 2],
        acks: [(gannet::quic::AckRequests::Never, None); 2],
        datagrams: None,
        early: None,
        moves: Vec::new(),
        spoof: 0,
        preferred: false,
        tracer: None,
        seed,
        link,
        streams: [[bidi.clone(), uni.clone()], [bidi, uni]],
        provider: false,
        max_streams: 10,
        max_data: 1 << 20,
        follows: false,
        window: 0,
        congestion: CongestionAlgorithm::Cubic,
        keep_alive: [None; 2],
        key_updates: false,
        key_whims: [0; 2],
        hybrid: false,
        packets_per_key: u64::MAX,
        cid_lens: [10, 17],
        versions: [Versions::default(), Version::ALL[seed as usize % 2].into()],
        first_version: None,
        grease: [true; 2],
        ecn: [true; 2],
        spin: [true; 2],
        ending: Ending::AllDone,
        retry: if seed.is_multiple_of(3) { RetryPolicy::Always } else { RetryPolicy::Never },
        pool: usize::MAX,
    }
}

#[test]
fn a_close_at_every_step() {
    for (seed, bad) in [(1, false), (2, true), (3, true)] {
        let whole = sim::run_plan(plan(seed, bad)).unwrap();
        assert!(whole.turns > 20, "{whole:?}");
        for side in [Side::Client, Side::Server] {
            for turn in 0..whole.turns {
                let ending = Ending::AtTurn(side, turn);
                sim::run_plan(Plan { ending, ..plan(seed, bad) }).unwrap_or_else(|e| panic!("turn {turn}: {e}"));
            }
        }
    }
}

#[test]
fn a_reset_or_a_stop_at_every_step() {
    for at in (0..=7000).step_by(250) {
        for stop in [false, true] {
            let mut plan = plan(4 + at, true);
            for flow in plan.streams.iter_mut().flatten().flatten().flat_map(|s| [&mut s.forward, &mut s.back]) {
                let at = (at <= flow.len).then_some(at);
                if stop {
                    (flow.stop_at, flow.whole) = (at, false);
                } else {
                    flow.reset_at = at;
                }
            }
            sim::run_plan(plan).unwrap_or_else(|e| panic!("at {at}: {e}"));
        }
    }
}
