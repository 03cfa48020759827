//! The table without packets.

use super::*;

const A: Mac = Mac([2, 0, 0, 0, 0, 0xa]);
const B: Mac = Mac([2, 0, 0, 0, 0, 0xb]);
const TTL: Duration = Duration::from_secs(60);
const ANSWER: News = News::Answer { replace: true };
const HINT: News = News::Hint { replace: true };

fn ip(n: u8) -> IpAddr {
    IpAddr::from([10, 0, 0, n])
}

fn secs(n: u64) -> Instant {
    Instant::ZERO + Duration::from_secs(n)
}

fn table(max: usize) -> Neighbors {
    Neighbors::new(max, TTL)
}

fn look(t: &mut Neighbors, now: Instant, n: u8) -> (Lookup, Option<Option<Mac>>) {
    let (found, ask) = t.lookup(now, ip(n), false, &mut None);
    (found, ask.map(|ask| ask.to))
}

fn run(t: &mut Neighbors, now: Instant) -> Vec<Timeout> {
    let mut scan = Scan::new();
    std::iter::from_fn(|| t.expire(now, &mut scan)).collect()
}

fn ask(n: u8, to: Option<Mac>) -> Timeout {
    Timeout::Ask(Solicit { target: ip(n), to })
}

#[test]
fn asks_three_times_then_gives_up() {
    let mut t = table(8);
    assert_eq!(look(&mut t, secs(0), 1), (Lookup::Wait, Some(None)));
    assert_eq!(look(&mut t, secs(0), 1), (Lookup::Wait, None), "one question at a time");
    assert_eq!(t.deadline(), secs(1));
    assert_eq!(run(&mut t, secs(0)), []);
    assert_eq!(run(&mut t, secs(1)), [ask(1, None)]);
    assert_eq!(run(&mut t, secs(1)), []);
    assert_eq!(run(&mut t, secs(2)), [ask(1, None)]);
    assert_eq!(run(&mut t, secs(3)), [Timeout::Failed(ip(1))]);
    assert_eq!((t.deadline(), t.len()), (Instant::MAX, 0));
    assert_eq!(look(&mut t, secs(3), 1), (Lookup::Wait, Some(None)), "and starts anew when used again");
}

#[test]
fn an_answer_is_trusted_then_probed_then_forgotten() {
    let mut t = table(8);
    look(&mut t, secs(0), 1);
    assert_eq!(t.learn(secs(0), ip(1), Some(A), ANSWER), Learned::Resolved);
    assert_eq!(look(&mut t, secs(59), 1), (Lookup::Known { mac: A, until: secs(60) }, None));
    let probing = Lookup::Known { mac: A, until: secs(62) };
    assert_eq!(look(&mut t, secs(61), 1), (probing, Some(Some(A))), "used while asked again");
    assert_eq!(t.learn(secs(61), ip(1), None, ANSWER), Learned::Nothing);
    assert_eq!(look(&mut t, secs(62), 1), (Lookup::Known { mac: A, until: secs(121) }, None));
    let epoch = t.epoch();
    look(&mut t, secs(122), 1);
    let all: Vec<_> = (123..=125).flat_map(|s| run(&mut t, secs(s))).collect();
    assert_eq!(all, [ask(1, Some(A)), ask(1, Some(A)), Timeout::Failed(ip(1))]);
    assert_ne!(t.epoch(), epoch);
}

#[test]
fn unused_for_twice_its_time_is_absent() {
    let mut t = table(8);
    look(&mut t, secs(0), 1);
    t.learn(secs(0), ip(1), Some(A), ANSWER);
    let epoch = t.epoch();
    assert_eq!(look(&mut t, secs(120), 1), (Lookup::Wait, Some(None)));
    assert_ne!(t.epoch(), epoch);
}

#[test]
fn news_of_strangers_fills_only_free_places() {
    let mut t = table(2);
    for news in [ANSWER, HINT, News::Answer { replace: false }] {
        assert_eq!(t.learn(secs(0), ip(9), Some(A), news), Learned::Nothing);
    }
    assert_eq!(t.len(), 0);
    for n in 1..5 {
        t.learn(secs(0), ip(n), Some(A), News::Question);
    }
    assert_eq!(t.len(), 2);
    let mut evicted = None;
    t.lookup(secs(1), ip(7), true, &mut evicted);
    assert!(evicted.is_some());
    look(&mut t, secs(2), 8);
    t.lookup(secs(3), ip(9), false, &mut evicted);
    assert_eq!((evicted, t.len()), (Some(ip(8)), 2), "the pinned one stays though it is older");
    let mut known: Vec<_> = t.index.keys().copied().collect();
    known.sort();
    assert_eq!(known, [ip(7), ip(9)]);
}

#[test]
fn another_address_has_to_prove_itself() {
    let mut t = table(8);
    look(&mut t, secs(0), 1);
    t.learn(secs(0), ip(1), Some(A), ANSWER);
    let epoch = t.epoch();
    assert_eq!(t.learn(secs(1), ip(1), Some(A), HINT), Learned::Nothing);
    assert_eq!(t.epoch(), epoch, "the same address is no news");
    assert_eq!(t.learn(secs(1), ip(1), Some(B), News::Hint { replace: false }), Learned::Nothing);
    assert_eq!(look(&mut t, secs(1), 1).1, Some(Some(A)), "kept, but asked");
    assert_eq!(t.learn(secs(1), ip(1), Some(B), ANSWER), Learned::Changed);
    assert_eq!(look(&mut t, secs(1), 1), (Lookup::Known { mac: B, until: secs(2) }, Some(Some(B))));
    assert_eq!(t.learn(secs(1), ip(1), Some(B), ANSWER), Learned::Nothing);
    assert_eq!(look(&mut t, secs(2), 1), (Lookup::Known { mac: B, until: secs(61) }, None));
}

#[test]
fn a_hint_resolves_but_is_asked_again() {
    let mut t = table(8);
    look(&mut t, secs(0), 1);
    assert_eq!(t.learn(secs(0), ip(1), None, ANSWER), Learned::Nothing, "an answer without an address");
    assert_eq!(t.learn(secs(0), ip(1), Some(A), HINT), Learned::Resolved);
    assert_eq!(look(&mut t, secs(0), 1).1, Some(Some(A)));
}

#[test]
fn shared_news_is_trusted() {
    let mut t = table(1);
    look(&mut t, secs(0), 1);
    assert_eq!(t.share(secs(0), ip(1), A), Learned::Resolved);
    assert_eq!(t.share(secs(0), ip(1), A), Learned::Nothing);
    assert_eq!(t.share(secs(0), ip(1), B), Learned::Changed);
    assert_eq!(t.share(secs(0), ip(2), B), Learned::Nothing);
    assert_eq!((look(&mut t, secs(0), 1).0, t.len()), (Lookup::Known { mac: B, until: secs(60) }, 1));
}

#[test]
fn one_run_serves_all() {
    let mut t = table(300);
    for n in 0..200 {
        look(&mut t, secs(u64::from(n % 2)), n);
    }
    assert_eq!(run(&mut t, secs(1)).len(), 100);
    assert_eq!(run(&mut t, secs(2)).len(), 200);
    assert_eq!(run(&mut t, secs(3)).iter().filter(|t| matches!(t, Timeout::Failed(_))).count(), 100);
    assert_eq!((t.len(), t.deadline()), (100, secs(4)));
    assert_eq!(run(&mut t, secs(9)).len(), 100);
    assert_eq!((t.len(), t.index.len()), (0, 0));
}
