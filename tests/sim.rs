//! The simulator with many seeds. `cargo xtask sim --seeds A..B` plays other seeds than the usual test run, and `cargo
//! xtask sim --seeds N` replays one.

use std::ops::Range;
use std::panic::catch_unwind;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use gannet::base::Side;
use gannet::base::time::Duration;
use gannet::qlog::{Qlog, QlogConfig};
use gannet::quic::DropReason;
use gannet::sim;

/// Seeds played in every test run.
const SEEDS: u64 = 20_000;

/// The number of seeds that are played datagram by datagram as well.
const RUN_SEEDS: u64 = 1_000;

/// Number of failures after which no further seeds are played, as they usually have the same cause.
const ENOUGH: usize = 10;

/// Number of seeds between two progress lines.
const REPORT: u64 = 10_000;

/// The range in the environment variable `name`, as `A..B`.
fn range(name: &str) -> Option<Range<u64>> {
    let text = std::env::var(name).ok()?;
    let range = text.split_once("..").and_then(|(a, b)| Some(a.parse().ok()?..b.parse().ok()?));
    Some(range.unwrap_or_else(|| panic!("{name} is {text:?} and should be A..B")))
}

/// Plays one seed; returns the failure, if any.
fn play_one(seed: u64) -> Option<String> {
    match catch_unwind(|| sim::run(seed)) {
        Ok(outcome) => outcome.err(),
        Err(_) => Some(format!("seed {seed}: panic (see above)")),
    }
}

/// Plays `seeds` on `jobs` threads, and prints progress and failures as they happen.
fn play(seeds: Range<u64>, jobs: usize) {
    let (next, played) = (AtomicU64::new(seeds.start), AtomicU64::new(0));
    let failed = Mutex::new(Vec::new());
    let total = seeds.end.saturating_sub(seeds.start);
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end || failed.lock().expect("no panic while it is held").len() >= ENOUGH {
                return;
            }
            if let Some(failure) = play_one(seed) {
                eprintln!("FAILED {failure}");
                failed.lock().expect("no panic while it is held").push(seed);
            }
            let done = played.fetch_add(1, Ordering::Relaxed) + 1;
            if done.is_multiple_of(REPORT) && done < total {
                eprintln!("{done} of {total} seeds played");
            }
        }
    };
    std::thread::scope(|scope| (0..jobs).for_each(|_| drop(scope.spawn(work))));
    let (failed, played) = (failed.into_inner().expect("no panic while it is held"), played.into_inner());
    eprintln!("{played} of {total} seeds played, {} failed", failed.len());
    assert!(failed.is_empty(), "these seeds failed, see above; `cargo xtask sim --seeds N` replays one: {failed:?}");
    assert!(played == total && total > 0, "{played} of {seeds:?} were played");
}

/// `GANNET_SEEDS=A..B` selects other seeds, `GANNET_JOBS` the number of threads.
#[test]
fn seeds() {
    let jobs = std::env::var("GANNET_JOBS").ok().map(|n| n.parse().expect("GANNET_JOBS is a number"));
    let jobs = jobs.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    play(range("GANNET_SEEDS").unwrap_or(0..SEEDS), jobs.max(1));
}

/// Seeds beyond [`SEEDS`] that once found faults, of the engine or of what is checked.
const FAILED_ONCE: [u64; 22] = [
    13_048, 27_473, 30_752, 33_645, 51_633, 64_213, 88_674, 90_578, 177_757, 256_695, 323_744, 326_864, 404_498,
    485_005, 519_712, 527_039, 534_892, 604_234, 625_148, 684_096, 905_808, 968_780,
];

#[test]
fn seeds_that_failed_once() {
    for seed in FAILED_ONCE {
        assert_eq!(play_one(seed), None);
    }
    // These had no changes of addresses, nor 0-RTT.
    for seed in [45_654, 52_164, 68_634, 73_332] {
        let plan = sim::Plan::from_seed(seed);
        let plan = sim::Plan { moves: Vec::new(), spoof: 0, preferred: false, early: None, ..plan };
        assert_eq!(sim::run_plan(plan).err(), None);
    }
}

/// Every datagram with an ID of ours arrives at a random core first: nothing is lost by that, and nobody answers for
/// another core's connection.
#[test]
fn datagrams_on_the_wrong_core_reach_their_connection() {
    for seed in 0..1000 {
        let plan = sim::Plan { cores: [3, 4], first: [1, 2], home: 0, scatter: 1000, ..sim::Plan::from_seed(seed) };
        let plan = sim::Plan { moves: Vec::new(), spoof: 0, preferred: false, ..plan };
        let outcome = sim::run_plan(sim::Plan { stop: None, ..plan }).unwrap();
        let handshakes: u64 = outcome.stats.iter().map(|stats| stats.handshakes).sum();
        // The first packet to the client's connection arrives at a random core already. Retry and Version Negotiation
        // take some.
        assert!(
            handshakes < 2 || outcome.network.delivered < 50 || outcome.handed.iter().all(|n| *n > 0),
            "{outcome:?}"
        );
    }
}

/// Cores of either side that stop while the others go on.
#[test]
fn cores_that_stop_are_drained() {
    let mut stopped = 0;
    for seed in 0..2000 {
        let plan = sim::Plan::from_seed(seed);
        let Some((side, ..)) = plan.stop else { continue };
        stopped += usize::from(plan.cores[side as usize] > 1);
        assert_eq!(sim::run_plan(plan).err(), None);
    }
    assert!(stopped > 50, "{stopped} plays");
}

/// A server that crashes resets its connections, whichever of the client's cores hears of it, and even if it has fewer
/// cores than before. What routers report reaches any core, too.
#[test]
fn resets_and_reports_reach_the_connection_whichever_core_they_reach() {
    let (mut relayed, mut reset) = (0, 0);
    for seed in 0..1000 {
        let ending = sim::Ending::Crash(Side::Server, Duration::from_millis(20));
        let plan = sim::Plan { cores: [3, 4], cores_left: [3, 2], home: 0, ending, ..sim::Plan::from_seed(seed) };
        let first = [1 + seed as u8 % 2, 2 + seed as u8 % 2];
        let plan = sim::Plan { first, stop: None, scatter: 500 * (seed % 3), ..plan };
        let outcome = sim::run_plan(plan).unwrap();
        relayed += usize::from(outcome.relayed[0] > 0);
        reset += usize::from(outcome.reset[0]);
    }
    assert!(relayed > 200 && reset > 200, "{relayed} plays with messages at the wrong core, {reset} resets");
    let mut reports = 0;
    for seed in 0..300 {
        let link = sim::LinkConfig { mtu: 1300, routers_tell: true, ..sim::LinkConfig::default() };
        let plan = sim::Plan { link, cores: [2, 2], first: [1, 1], home: 0, stop: None, ..sim::Plan::from_seed(seed) };
        let ending = sim::Ending::AllDone;
        reports += usize::from(sim::run_plan(sim::Plan { ending, scatter: 0, ..plan }).unwrap().relayed[0] > 0);
    }
    assert!(reports > 50, "{reports} plays with reports at the wrong core");
}

/// A client whose address changes in the middle of transfers: its packets reach other cores of the server than that of
/// its connection, which stays where it is, and everything arrives.
#[test]
fn a_client_that_has_moved_stays_on_its_core() {
    let (mut handed, mut moved) = (0, 0);
    for seed in 0..500 {
        let link = sim::LinkConfig::default();
        let at = |n: u64| Duration::from_millis(5 + n * (1 + seed % 7));
        let moves = (0..8).map(|n| (at(n), if n % 2 == 0 { sim::Move::RebindPort } else { sim::Move::RebindHost }));
        let plan = sim::Plan { link, cores: [1, 4], first: [0; 2], home: 0, ..sim::Plan::from_seed(seed) };
        let ending = sim::Ending::AllDone;
        let plan = sim::Plan { scatter: 0, stop: None, ending, moves: moves.collect(), preferred: false, ..plan };
        let outcome = sim::run_plan(plan).unwrap();
        handed += outcome.handed[1];
        moved += outcome.stats[1].paths_validated;
        assert_eq!(outcome.stats[1].drops[DropReason::WrongPath as usize], 0);
    }
    assert!(handed > 1000 && moved > 500, "{handed} datagrams handed over, {moved} paths");
}

/// Every play with changes of addresses, and with attackers, ends as it should.
#[test]
fn addresses_change_at_random() {
    let mut counts = [0; 4];
    for seed in 0..4000 {
        let plan = sim::Plan::from_seed(seed);
        if plan.moves.is_empty() && plan.spoof == 0 && !plan.preferred {
            continue;
        }
        let outcome = sim::run_plan(plan).unwrap();
        let [client, server] = &outcome.stats;
        counts[0] += client.paths_validated;
        counts[1] += server.paths_validated;
        counts[2] += server.paths_failed;
        counts[3] += server.paths_seen;
    }
    assert!(counts.iter().all(|n| *n > 50), "{counts:?}");
}

#[test]
fn the_same_seed_plays_the_same_run() {
    for seed in [3, 14, 159] {
        let (a, b) = (sim::run(seed).unwrap(), sim::run(seed).unwrap());
        assert_eq!((a.trace, a.time, a.network), (b.trace, b.time, b.network));
        assert_ne!(a.trace, sim::run(seed + 1).unwrap().trace);
    }
}

/// Datagrams that arrive or are sent together have the same results as one by one: in events, counters and everything
/// that is sent, whatever happens to some of them on the way.
#[test]
fn runs_come_to_what_their_datagrams_come_to_one_by_one() {
    let mut together = [0; 2];
    for seed in 0..RUN_SEEDS {
        let plan = sim::Plan::from_seed(seed);
        let plan = if seed.is_multiple_of(8) { calm(plan) } else { plan };
        let [singly, some, runs] =
            [1, 2 + seed as usize % 5, 32].map(|longest| sim::run_plan_in(plan.clone(), longest).unwrap());
        for other in [&some, &runs] {
            let [a, b] = [&singly, other].map(|run| (run.trace, run.time, run.turns, run.network));
            assert_eq!(a, b, "seed {seed}");
            assert_eq!(singly.stats, other.stats, "seed {seed}");
        }
        assert_eq!(singly.together, [0; 2]);
        together = [0, 1].map(|way| together[way] + runs.together[way]);
    }
    let [received, sent] = together;
    assert!(received > 100 * RUN_SEEDS && sent > 20 * RUN_SEEDS, "{together:?}: there was nothing to compare");
}

/// Traces only watch.
#[test]
fn traced_plays_come_to_the_same() {
    for seed in 0..500 {
        let plan = sim::Plan::from_seed(seed);
        let plan = if seed.is_multiple_of(4) { calm(plan) } else { plan };
        let [plain, traced] = [false, true].map(|traced| {
            let tracer = traced.then(|| Arc::new(sim::Checker) as _);
            sim::run_plan(sim::Plan { tracer, ..plan.clone() }).unwrap()
        });
        let [a, b] = [&plain, &traced].map(|run| (run.trace, run.time, run.turns, run.network));
        assert_eq!(a, b, "seed {seed}");
        assert_eq!(plain.stats, traced.stats, "seed {seed}");
    }
}

/// The same play in good weather and with enough room everywhere. In bad networks, windows rarely have room for a run.
fn calm(plan: sim::Plan) -> sim::Plan {
    let link = sim::LinkConfig { delay: plan.link.delay, every: plan.link.every, ..sim::LinkConfig::default() };
    // A closed window stays closed: its streams wait for buffers.
    let window = if plan.window == 0 { 0 } else { 1 << 20 };
    let mut plan = sim::Plan { link, window, max_data: 1 << 24, pool: usize::MAX, ..plan };
    for flow in plan.streams.iter_mut().flatten().flatten().flat_map(|s| [&mut s.forward, &mut s.back]) {
        flow.piece = flow.piece.max(30_000);
        if flow.len > 1000 && flow.space == sim::Space::Growing {
            flow.len += 200_000;
        }
    }
    plan
}

#[test]
fn replay() {
    if let Ok(seed) = std::env::var("GANNET_SEED") {
        let mut plan = sim::Plan::from_seed(seed.parse().expect("GANNET_SEED is a number"));
        // Qlog files of all connections, to look into a failure.
        if let Some(dir) = std::env::var_os("GANNET_QLOG") {
            let qlog = Qlog::direct(QlogConfig::new(dir)).expect("GANNET_QLOG is a directory");
            plan.tracer = Some(Arc::new(qlog));
        }
        let outcome = sim::run_plan(plan);
        println!("{outcome:#?}");
        assert!(outcome.is_ok());
    }
}

/// Clients that have been connected before: their 0-RTT data arrives once, whether the server accepts it or not. (Every
/// play checks that each byte arrives once.)
#[test]
fn early_data_arrives_once_whatever_the_server_does_with_it() {
    let (mut accepted, mut rejected, mut resumed) = (0, 0, 0);
    for seed in 0..600 {
        use sim::Return::{Accepts, Forgot, Patient, Reduced, Refuses};
        let early = [Accepts, Refuses, Forgot, Reduced, Patient][seed as usize % 5];
        let outcome = sim::run_plan(sim::Plan { early: Some(early), ..sim::Plan::from_seed(seed) }).unwrap();
        let [client, _] = &outcome.stats;
        accepted += client.early_data_accepted;
        rejected += client.early_data_rejected;
        resumed += client.handshakes_resumed;
        assert!(early == Accepts || client.early_data_accepted == 0, "seed {seed}: {early:?}");
    }
    assert!(
        accepted > 60 && rejected > 150 && resumed > 150,
        "{accepted} accepted, {rejected} rejected, {resumed} resumed"
    );
}
