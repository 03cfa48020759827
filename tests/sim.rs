//! The simulator over many seeds. `GANNET_SEED=n cargo test --test sim replay -- --nocapture` replays one.

use gannet::sim;

/// Seeds that every run of the tests plays.
const SEEDS: u64 = 1000;

/// Plays `seeds` on all CPUs; every failure is reported with its seed.
fn play(seeds: std::ops::Range<u64>) {
    let workers = std::thread::available_parallelism().map_or(1, |n| n.get() as u64);
    let run = |worker| {
        let mine = seeds.clone().filter(move |seed| seed % workers == worker);
        mine.filter_map(|seed| {
            std::panic::catch_unwind(|| sim::run(seed))
                .map_or_else(|_| Some(format!("seed {seed}: panic (see above)")), |outcome| outcome.err())
        })
        .collect::<Vec<_>>()
    };
    let failures: Vec<String> = std::thread::scope(|s| {
        let handles: Vec<_> = (0..workers).map(|w| s.spawn(move || run(w))).collect();
        handles.into_iter().flat_map(|h| h.join().expect("panics are caught")).collect()
    });
    let first: Vec<_> = failures.iter().take(5).collect();
    assert!(
        failures.is_empty(),
        "{} of {seeds:?} failed, replay with GANNET_SEED=n; first: {first:#?}",
        failures.len()
    );
}

#[test]
fn a_thousand_seeds() {
    play(0..SEEDS);
}

#[test]
fn the_same_seed_plays_the_same_run() {
    for seed in [3, 14, 159] {
        let (a, b) = (sim::run(seed).unwrap(), sim::run(seed).unwrap());
        assert_eq!((a.trace, a.time, a.network), (b.trace, b.time, b.network));
        assert_ne!(a.trace, sim::run(seed + 1).unwrap().trace);
    }
}

#[test]
fn replay() {
    if let Ok(seed) = std::env::var("GANNET_SEED") {
        let outcome = sim::run(seed.parse().expect("GANNET_SEED is a number"));
        println!("{outcome:#?}");
        assert!(outcome.is_ok());
    }
}
