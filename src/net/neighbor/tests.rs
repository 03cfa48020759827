//! Tests of the table without packets.

use super::*;

const A: Mac = Mac([2, 0, 0, 0, 0, 0xa]);
const B: Mac = Mac([2, 0, 0, 0, 0, 0xb]);
const TTL: Duration = Duration::from_secs(60);
const ANSWER: News = News::Answer { replace: true };
const HINT: News = News::Hint { replace: true };
const ROUTER: Role = Role::Router { substitute: false };

fn ip(n: u16) -> IpAddr {
    let [high, low] = n.to_be_bytes();
    IpAddr::from([10, 0, high, low])
}

fn secs(n: u64) -> Instant {
    Instant::ZERO + Duration::from_secs(n)
}

fn table(max: usize) -> Neighbors {
    Neighbors::new(max, TTL, 10_000, Instant::ZERO)
}

/// The result of a lookup: the MAC address if known, and the solicitation.
fn look(t: &mut Neighbors, now: Instant, n: u16) -> (Option<Mac>, Option<Option<Mac>>) {
    let found = t.lookup(now, ip(n), Role::Host, Account::Own, None);
    let mac = match found.lookup {
        Lookup::Known { mac, aim } => {
            assert!(t.is_current(aim, now), "what is found can be used");
            Some(mac)
        }
        Lookup::Wait { .. } | Lookup::Refused => None,
    };
    (mac, found.ask.map(|ask| ask.to))
}

/// Looks up a stranger.
fn newcomer(t: &mut Neighbors, now: Instant, n: u16) -> Found {
    t.lookup(now, ip(n), Role::Host, Account::Newcomer, None)
}

fn aim(t: &mut Neighbors, now: Instant, n: u16) -> Aim {
    match t.lookup(now, ip(n), Role::Host, Account::Own, None).lookup {
        Lookup::Known { aim, .. } => aim,
        other => panic!("{n} is not known: {other:?}"),
    }
}

fn known(t: &mut Neighbors, now: Instant, n: u16) {
    look(t, now, n);
    assert!(matches!(t.learn(now, ip(n), Some(A), ANSWER), Learned::Resolved(_)));
}

fn run(t: &mut Neighbors, now: Instant) -> Vec<Timeout> {
    std::iter::from_fn(|| t.expire(now)).collect()
}

fn ask(n: u16, to: Option<Mac>) -> Timeout {
    Timeout::Ask(Solicit { target: ip(n), to })
}

fn failed(timeouts: &[Timeout]) -> Vec<IpAddr> {
    timeouts.iter().filter_map(|t| if let Timeout::Failed { ip, .. } = t { Some(*ip) } else { None }).collect()
}

#[test]
fn asks_three_times_then_gives_up() {
    let mut t = table(8);
    assert_eq!(look(&mut t, secs(0), 1), (None, Some(None)));
    assert_eq!(look(&mut t, secs(0), 1), (None, None), "one question at a time");
    assert_eq!(t.deadline(), secs(1));
    assert_eq!(run(&mut t, secs(0)), []);
    assert_eq!(run(&mut t, secs(1)), [ask(1, None)]);
    assert_eq!(run(&mut t, secs(1)), []);
    assert_eq!(run(&mut t, secs(2)), [ask(1, None)]);
    assert_eq!(failed(&run(&mut t, secs(3))), [ip(1)]);
    assert_eq!((t.deadline(), t.len()), (Instant::MAX, 0));
    assert_eq!(look(&mut t, secs(3), 1), (None, Some(None)), "and starts anew when used again");
}

#[test]
fn an_answer_is_trusted_then_probed_then_forgotten() {
    let mut t = table(8);
    known(&mut t, secs(0), 1);
    assert_eq!(look(&mut t, secs(59), 1), (Some(A), None));
    assert_eq!(look(&mut t, secs(61), 1), (Some(A), Some(Some(A))), "used while asked again");
    assert_eq!(t.learn(secs(61), ip(1), None, ANSWER), Learned::Nothing);
    assert_eq!(look(&mut t, secs(62), 1), (Some(A), None));
    let last = aim(&mut t, secs(122), 1);
    let all: Vec<_> = (123..=125).flat_map(|s| run(&mut t, secs(s))).collect();
    // Probed by unicast first, then by broadcast: it may be at another MAC address now.
    assert_eq!(all[..2], [ask(1, None), ask(1, None)]);
    assert_eq!(failed(&all), [ip(1)]);
    assert!(!t.is_current(last, secs(122)));
}

#[test]
fn unused_for_twice_its_time_is_absent() {
    let mut t = table(8);
    known(&mut t, secs(0), 1);
    let old = aim(&mut t, secs(0), 1);
    assert_eq!(look(&mut t, secs(120), 1), (None, Some(None)));
    assert!(!t.is_current(old, secs(0)));
}

/// Sends from a template did not count as use, so a neighbour was evicted in the middle of a transfer.
#[test]
fn what_is_handed_out_is_looked_up_again_each_second() {
    let mut t = table(8);
    known(&mut t, secs(0), 1);
    let first = aim(&mut t, secs(0), 1);
    let now = Duration::from_millis(999);
    assert!(t.is_current(first, secs(0) + now) && !t.is_current(first, secs(1)));
    // Once for all who use it.
    look(&mut t, secs(1), 1);
    assert!(t.is_current(first, secs(1)));
    assert!(!t.is_current(Aim::NONE, secs(1)));
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
    assert_eq!(t.len(), 2, "the last two who asked");
    assert!(t.lookup(secs(1), ip(7), ROUTER, Account::Own, None).evicted.is_some());
    look(&mut t, secs(2), 8);
    let found = t.lookup(secs(3), ip(9), Role::Host, Account::Own, None);
    assert_eq!((found.evicted.is_some(), t.len()), (true, 2), "the router stays though it is older");
    let mut known: Vec<_> = t.index.keys().copied().collect();
    known.sort();
    assert_eq!(known, [ip(7), ip(9)]);
    // Neighbours in use are not evicted for those who solicit.
    let mut t = table(2);
    known_pair(&mut t);
    t.learn(secs(1), ip(5), Some(A), News::Question);
    assert!(!t.has(ip(5)));
    t.learn(secs(61), ip(5), Some(A), News::Question);
    assert!(t.has(ip(5)) && !t.has(ip(1)), "unless that is a minute ago");
}

fn known_pair(t: &mut Neighbors) {
    known(t, secs(0), 1);
    known(t, secs(1), 2);
}

#[test]
fn another_address_has_to_prove_itself() {
    let mut t = table(8);
    known(&mut t, secs(0), 1);
    let first = aim(&mut t, secs(0), 1);
    assert_eq!(t.learn(secs(0), ip(1), Some(A), HINT), Learned::Nothing);
    assert!(t.is_current(first, secs(0)), "the same address is no news");
    assert_eq!(t.learn(secs(1), ip(1), Some(B), News::Hint { replace: false }), Learned::Nothing);
    assert_eq!(look(&mut t, secs(1), 1), (Some(A), Some(Some(A))), "kept, but asked");
    assert_eq!(t.learn(secs(1), ip(1), Some(B), ANSWER), Learned::Changed);
    assert_eq!(look(&mut t, secs(1), 1), (Some(B), None), "asked a moment ago");
    assert_eq!(run(&mut t, secs(2)), [ask(1, Some(B))]);
    assert_eq!(t.learn(secs(2), ip(1), Some(B), ANSWER), Learned::Nothing);
    assert_eq!(look(&mut t, secs(61), 1), (Some(B), None));
}

/// However often a neighbour is announced at another address, it is probed once per second (RFC 1122 §2.3.2.1), and
/// other neighbours are not affected.
#[test]
fn a_neighbour_that_flutters_costs_nobody_else() {
    let mut t = table(8);
    known(&mut t, secs(0), 1);
    known(&mut t, secs(0), 2);
    let other = aim(&mut t, secs(1), 2);
    let mut asked = 0;
    for n in 0..1000 {
        t.learn(secs(1), ip(1), Some(if n % 2 == 0 { B } else { A }), HINT);
        asked += usize::from(look(&mut t, secs(1), 1).1.is_some());
        assert!(t.is_current(other, secs(1)));
    }
    assert_eq!(asked, 1);
}

#[test]
fn a_hint_resolves_but_is_asked_again() {
    let mut t = table(8);
    look(&mut t, secs(0), 1);
    assert_eq!(t.learn(secs(0), ip(1), None, ANSWER), Learned::Nothing, "an answer without an address");
    assert!(matches!(t.learn(secs(0), ip(1), Some(A), HINT), Learned::Resolved(_)));
    assert_eq!(look(&mut t, secs(1), 1), (Some(A), Some(Some(A))));
}

#[test]
fn shared_news_is_trusted() {
    let mut t = table(1);
    look(&mut t, secs(0), 1);
    assert!(matches!(t.share(secs(0), ip(1), A), Learned::Resolved(_)));
    assert_eq!(t.share(secs(0), ip(1), A), Learned::Nothing);
    assert_eq!(t.share(secs(0), ip(1), B), Learned::Changed);
    assert_eq!(t.share(secs(0), ip(2), B), Learned::Nothing);
    assert_eq!((look(&mut t, secs(0), 1).0, t.len()), (Some(B), 1));
}

#[test]
fn one_run_serves_all() {
    let mut t = table(300);
    for n in (0..200).step_by(2) {
        look(&mut t, secs(0), n);
    }
    for n in (1..200).step_by(2) {
        look(&mut t, secs(1), n);
    }
    assert_eq!(run(&mut t, secs(1)).len(), 100);
    assert_eq!(run(&mut t, secs(2)).len(), 200);
    assert_eq!(failed(&run(&mut t, secs(3))).len(), 100);
    assert_eq!((t.len(), t.deadline()), (100, secs(4)));
    assert_eq!(run(&mut t, secs(9)).len(), 100);
    assert_eq!((t.len(), t.index.len()), (0, 0));
}

/// 5,000 forged addresses per second used to evict neighbours in use.
#[test]
fn strangers_push_out_each_other_and_nobody_in_use() {
    let mut t = table(64);
    for n in 1..=48 {
        known(&mut t, secs(0), n);
    }
    look(&mut t, secs(0), 50);
    for n in 1000..6000 {
        newcomer(&mut t, secs(0), n);
    }
    assert!((1..=48).all(|n| look(&mut t, secs(0), n).0 == Some(A)), "all that were known still are");
    assert!(t.has(ip(50)), "nor did they push out whom we ask for");
    assert_eq!(t.lists.len(List::Newcomers), 15, "the places left, of the sixteen that they may have");
    // Our own lookups find a slot, and strangers are evicted first.
    for n in 100..115 {
        assert_eq!(look(&mut t, secs(0), n), (None, Some(None)));
    }
    assert_eq!(t.lists.len(List::Newcomers), 0);
    assert_eq!(newcomer(&mut t, secs(0), 7000).lookup, Lookup::Refused);
    // Among our own, the least recently used are evicted first.
    look(&mut t, secs(1), 116);
    assert!(!t.has(ip(1)) || !t.has(ip(50)), "somebody has to go");
}

/// The cost of a stranger does not depend on how full the table is. It used to be a scan of all entries, 18.5 µs.
#[test]
fn a_full_table_costs_no_more_looks() {
    let cost = |fill: u16| {
        let mut t = table(1024);
        for n in 0..fill {
            newcomer(&mut t, secs(0), n);
        }
        for n in 0..fill / 2 {
            known(&mut t, secs(0), 2000 + n);
        }
        let before = t.looks;
        for n in 0..5000 {
            newcomer(&mut t, secs(0) + Duration::from_micros(200 * u64::from(n)), 10_000 + n);
            run(&mut t, secs(0) + Duration::from_micros(200 * u64::from(n)));
        }
        (t.looks - before) as f64 / 5000.0
    };
    let (empty, full) = (cost(0), cost(1024));
    assert!(empty < 12.0 && full < 12.0, "{empty} and {full} looks for each");
}

/// Each forged address used to cause a broadcast.
#[test]
fn questions_to_everyone_have_a_budget() {
    let mut t = Neighbors::new(1024, TTL, 200, Instant::ZERO);
    let asked = |found: Found| usize::from(found.ask.is_some());
    let strangers: usize = (1000..6000).map(|n| asked(newcomer(&mut t, secs(0), n))).sum();
    assert_eq!(strangers, 50, "a quarter is for strangers");
    assert!((1..=150).all(|n| look(&mut t, secs(0), n).1.is_some()), "the rest is ours");
    assert!(look(&mut t, secs(0), 151).1.is_none());
    let router = t.lookup(secs(0), ip(999), ROUTER, Account::Own, None);
    assert!(router.ask.is_some(), "routers are asked for all the same");
    // Solicitations over the limit are sent when the limit allows, with three tries.
    let later = run(&mut t, secs(1));
    assert!(later.contains(&ask(151, None)));
    // A stranger is solicited where its packet came from, which is not limited.
    let found = t.lookup(secs(1), ip(9000), Role::Host, Account::Newcomer, Some(B));
    assert_eq!(found.ask, Some(Solicit { target: ip(9000), to: Some(B) }));
}

/// RFC 4861 §7.3.1: progress of a connection keeps its neighbour known, silence is a reason to ask.
#[test]
fn connections_know_whether_neighbours_are_there() {
    let mut t = table(8);
    known(&mut t, secs(0), 1);
    for s in 1..500 {
        t.confirm(ip(1), secs(s));
        assert_eq!(look(&mut t, secs(s), 1), (Some(A), None), "no question as long as there is progress");
    }
    assert_eq!(t.suspect(secs(499), ip(1)), None, "heard just now");
    assert_eq!(t.suspect(secs(501), ip(1)), Some(Solicit { target: ip(1), to: Some(A) }));
    assert_eq!(t.suspect(secs(501), ip(1)), None, "once");
    assert_eq!(look(&mut t, secs(501), 1), (Some(A), None), "used meanwhile");
    t.confirm(ip(1), secs(500));
    assert_eq!(run(&mut t, secs(502)), [ask(1, None)], "progress from before the doubt dispels none");
    t.confirm(ip(1), secs(503));
    assert_eq!(run(&mut t, secs(504)), []);
    assert_eq!(look(&mut t, secs(560), 1), (Some(A), None));
    // Progress does not confirm a MAC address that has not answered: it may be due to the previous one.
    t.learn(secs(561), ip(1), Some(B), HINT);
    t.confirm(ip(1), secs(562));
    assert_eq!(look(&mut t, secs(562), 1), (Some(B), Some(Some(B))));
    assert_eq!(t.suspect(secs(562), ip(9)), None);
}

#[test]
fn routers_with_a_substitute_are_remembered_as_dead() {
    let mut t = table(8);
    let spare = Role::Router { substitute: true };
    let lookup = |t: &mut Neighbors, s| t.lookup(secs(s), ip(1), spare, Account::Own, None);
    assert!(lookup(&mut t, 0).ask.is_some());
    let all: Vec<_> = (1..=3).flat_map(|s| run(&mut t, secs(s))).collect();
    assert_eq!((failed(&all), t.is_dead(ip(1))), (vec![ip(1)], true));
    // It is probed every ten seconds.
    assert_eq!((t.deadline(), run(&mut t, secs(13))), (secs(13), vec![ask(1, None)]));
    assert_eq!(run(&mut t, secs(23)), [ask(1, None)]);
    assert!(matches!(t.learn(secs(23), ip(1), Some(A), ANSWER), Learned::Resolved(_)));
    assert!(!t.is_dead(ip(1)));
    assert!(matches!(lookup(&mut t, 24).lookup, Lookup::Known { mac: A, .. }));
    // If all routers are dead, packets wait for it as for any neighbour.
    let all: Vec<_> = (90..=96)
        .flat_map(|s| {
            lookup(&mut t, s);
            run(&mut t, secs(s))
        })
        .collect();
    assert!(failed(&all).contains(&ip(1)));
    assert!(matches!(lookup(&mut t, 100).lookup, Lookup::Wait { .. }));
    assert!(!t.is_dead(ip(1)));
}

#[test]
fn after_a_link_was_down_all_have_to_prove_themselves() {
    let mut t = table(8);
    known(&mut t, secs(0), 1);
    let old = aim(&mut t, secs(0), 1);
    t.doubt_all(secs(5));
    assert!(!t.is_current(old, secs(0)));
    assert_eq!(look(&mut t, secs(5), 1), (Some(A), Some(Some(A))));
}
