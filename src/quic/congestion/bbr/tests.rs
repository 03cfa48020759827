//! The tests that the draft proposes (Appendix A), over a bottleneck in virtual time.

use std::collections::VecDeque;

use super::*;

const MTU: u64 = 1500;
const START: Instant = Instant::from_nanos(1_000_000_000);
const MS: Duration = Duration::from_millis(1);

/// A sender, a bottleneck, and a receiver that acknowledges each packet.
struct Path {
    bbr: Bbr,
    now: Instant,
    /// Rate of the bottleneck in bytes per second.
    rate: u64,
    rtt: Duration,
    /// Size of its queue in bytes.
    queue: u64,
    /// One in so many packets is lost without a queue; 0 for none.
    loses: u64,
    /// The rate of the application in bytes per second, if it is the limit.
    application: Option<u64>,
    busy_until: Instant,
    next_send: Instant,
    in_flight: u64,
    pn: u64,
    /// Acknowledgements on their way: when they arrive, the packet, and when it was sent.
    acks: VecDeque<(Instant, u64, Instant)>,
    dropped: VecDeque<(u64, Instant)>,
    drops: u64,
    recovery_start: Option<Instant>,
    delivered: u64,
    /// States in order.
    states: Vec<State>,
}

fn time(bytes: u64, rate: f64) -> Duration {
    Duration::from_nanos((bytes as f64 * 1e9 / rate) as u64)
}

impl Path {
    /// A path of `mbit` Mbit/s with a queue of one bandwidth-delay product.
    fn new(mbit: u64, rtt: Duration) -> Self {
        let (now, rate) = (START, mbit * 125_000);
        Self {
            bbr: Bbr::new(MTU, 1, now),
            now,
            rate,
            rtt,
            queue: rate * rtt.as_micros() as u64 / 1_000_000,
            loses: 0,
            application: None,
            busy_until: now,
            next_send: now,
            in_flight: 0,
            pn: 0,
            acks: VecDeque::new(),
            dropped: VecDeque::new(),
            drops: 0,
            recovery_start: None,
            delivered: 0,
            states: vec![State::Startup],
        }
    }

    fn bdp(&self) -> u64 {
        self.rate * self.rtt.as_micros() as u64 / 1_000_000
    }

    fn send(&mut self) {
        let (before, pn) = (self.in_flight, self.pn);
        self.in_flight += MTU;
        self.pn += 1;
        self.bbr.on_sent(self.now, before, self.in_flight);
        let pace = self.application.map_or(self.bbr.pacing_rate(), |rate| self.bbr.pacing_rate().min(rate as f64));
        self.next_send = self.next_send.max(self.now) + time(MTU, pace);
        let begin = self.busy_until.max(self.now);
        let backlog = begin.saturating_since(self.now).as_nanos() as u64 as f64 * self.rate as f64 / 1e9;
        let random = self.loses > 0 && pn % self.loses == 0;
        if random || backlog as u64 > self.queue {
            self.drops += u64::from(!random);
            self.dropped.push_back((pn, self.now));
            return;
        }
        self.busy_until = begin + time(MTU, self.rate as f64);
        self.acks.push_back((self.busy_until + self.rtt, pn, self.now));
    }

    fn acknowledge(&mut self, acked: u64, sent: Instant) {
        self.in_flight -= MTU;
        self.delivered += MTU;
        self.bbr.on_delivered(self.now, MTU);
        while let Some((pn, at)) = self.dropped.pop_front_if(|(pn, _)| *pn + 3 <= acked) {
            self.in_flight -= MTU;
            self.bbr.on_lost(self.now, pn, at, MTU);
            if self.recovery_start.is_none_or(|start| at > start) {
                self.recovery_start = Some(self.now);
                self.bbr.on_enter_recovery();
            }
        }
        let sample = Some(self.now.saturating_since(sent));
        let ack = Acked { now: self.now, bytes: MTU, sent, prior_in_flight: 0, srtt: self.rtt, sample };
        self.bbr.on_ack(&ack, self.in_flight, self.recovery_start.is_none_or(|start| sent > start));
        self.bbr.forget_before(sent);
        self.check();
    }

    /// What holds after every acknowledgement.
    fn check(&mut self) {
        let (bbr, max) = (&self.bbr, self.bbr.max_bw.get());
        assert!(bbr.window() >= bbr.min_pipe && bbr.pacing_rate() > 0.0 && bbr.bw <= max);
        assert!(bbr.send_quantum() >= 2 * MTU);
        assert!(bbr.inflight_longterm > 0 && bbr.bw_shortterm > 0.0);
        if self.states.last() != Some(&bbr.state) {
            self.states.push(bbr.state);
        }
    }

    /// Does the next thing. False if there is none.
    fn step(&mut self) -> bool {
        let open = self.in_flight + MTU <= self.bbr.window() && self.application != Some(0);
        let send = if open { self.next_send.max(self.now) } else { Instant::MAX };
        let ack = self.acks.front().map_or(Instant::MAX, |(at, ..)| *at);
        if send.min(ack) == Instant::MAX {
            return false;
        }
        self.now = send.min(ack);
        if self.application.is_some() && send > self.now && self.in_flight < self.bbr.window() {
            self.bbr.on_app_limited(self.in_flight);
        }
        match self.acks.pop_front_if(|(at, ..)| *at <= send) {
            Some((_, pn, sent)) => self.acknowledge(pn, sent),
            None => self.send(),
        }
        true
    }

    fn run(&mut self, length: Duration) {
        let end = self.now + length;
        while self.now < end && self.step() {}
    }

    /// Runs until it is in this state.
    fn until(&mut self, state: State) {
        let end = self.now + Duration::from_secs(30);
        while self.bbr.state != state {
            assert!(self.now < end && self.step(), "{state:?} is never reached: {:?}", self.states);
        }
    }

    /// Runs as long as it is in this state.
    fn leave(&mut self, state: State) {
        while self.bbr.state == state && self.step() {}
    }

    /// The share of the bottleneck that is used in the time to come.
    fn share(&mut self, length: Duration) -> f64 {
        let (before, begin) = (self.delivered, self.now);
        self.run(length);
        (self.delivered - before) as f64 / (self.rate as f64 * self.now.saturating_since(begin).as_secs_f64())
    }
}

/// A.1, A.3.
#[test]
fn startup_ends_on_a_plateau_and_drain_once_the_queue_is_gone() {
    let mut path = Path::new(50, 20 * MS);
    path.queue *= 2;
    path.until(State::Drain);
    assert!((path.bbr.max_bw.get() / path.rate as f64 - 1.0).abs() < 0.02, "{}", path.bbr.max_bw.get());
    assert!(path.bbr.full_bw_now && path.bbr.full_bw_count == 3);
    assert!((path.bbr.pacing_rate() / path.rate as f64 / 0.5 - 1.0).abs() < 0.02, "half");
    assert!(path.in_flight > path.bdp());
    path.leave(State::Drain);
    assert!(path.in_flight <= path.bbr.inflight(path.bbr.bw, 1.0));
    assert!(path.bbr.round_count - path.bbr.drain_start_round <= 2);
}

/// A.2: even if the application is the limit.
#[test]
fn startup_ends_on_many_losses() {
    let mut path = Path::new(50, 20 * MS);
    (path.application, path.loses) = (Some(5_500_000), 8);
    path.until(State::Drain);
    assert!(path.bbr.full_bw_reached && path.bbr.inflight_longterm < u64::MAX);
    assert_eq!(path.bbr.undo.state, Some(State::Startup));
    // A.18: unless they were reordering.
    path.bbr.undo();
    assert_eq!((path.bbr.state, path.bbr.inflight_longterm), (State::Startup, u64::MAX));
}

/// A.4.
#[test]
fn drain_ends_after_three_round_trips_in_any_case() {
    let mut path = Path::new(50, 20 * MS);
    path.until(State::Drain);
    // As if the bandwidth had been overestimated.
    path.bbr.min_rtt /= 8;
    path.leave(State::Drain);
    assert!(path.in_flight > path.bbr.inflight(path.bbr.bw, 1.0));
    assert_eq!(path.bbr.round_count, path.bbr.drain_start_round + 4);
}

/// A.5, A.8: the cycle, on a path that neither changes nor loses.
#[test]
fn it_cycles_and_uses_the_path() {
    let mut path = Path::new(100, 20 * MS);
    path.until(State::Cruise);
    let share = path.share(Duration::from_secs(20));
    assert!(share > 0.995, "{share}");
    assert!(path.drops * 1000 < path.pn, "{} of {} are dropped", path.drops, path.pn);
    let cycle = [State::Cruise, State::Refill, State::Up, State::Down, State::Cruise];
    assert!(path.states.windows(5).filter(|states| **states == cycle).count() >= 6, "{:?}", path.states);
    assert!(!path.states.contains(&State::ProbeRtt) && !path.states[1..].contains(&State::Startup));
}

/// A.6, A.21: a queue that overflows ends the probe, and bounds what is in flight.
#[test]
fn a_probe_ends_on_losses() {
    let mut path = Path::new(50, 20 * MS);
    path.queue *= 2;
    path.until(State::Up);
    path.loses = 8;
    path.until(State::Down);
    assert!(path.bbr.prev_probe_too_high);
    let bound = path.bbr.inflight_longterm;
    assert!(bound as f64 >= 0.69 * path.bdp() as f64 && bound < 2 * path.bdp(), "{bound} of {}", path.bdp());
    assert_eq!(path.bbr.undo.state, Some(State::Up));
    // A.18: the probe is repeated if they were reordering.
    path.bbr.undo();
    assert_eq!((path.bbr.state, path.bbr.inflight_longterm), (State::Refill, u64::MAX));
    // The next probe after real ones is cautious: it stops where the losses began.
    path.until(State::Up);
    path.until(State::Down);
    path.loses = 0;
    path.until(State::Up);
    assert!(path.bbr.prev_probe_too_high);
    path.until(State::Down);
    assert!(path.bbr.prev_probe_precautionary && !path.bbr.prev_probe_too_high);
    path.until(State::Refill);
    assert!(path.states.ends_with(&[State::Up, State::Down, State::Refill]) || path.states.contains(&State::Cruise));
}

/// A departure from §5.5.10.2: flows whose probes fail together approach equal shares.
#[test]
fn a_probe_that_fails_gives_up_what_is_more_than_fills_the_path() {
    let mut path = Path::new(50, 20 * MS);
    path.until(State::Up);
    let fail = |bbr: &mut Bbr, in_flight| {
        (bbr.state, bbr.rs.in_flight, bbr.rs.app_limited) = (State::Up, in_flight, false);
        bbr.on_inflight_too_high(START);
        assert_eq!(bbr.state, State::Down);
        bbr.inflight_longterm
    };
    let bdp = path.bbr.bdp_multiple(path.bbr.max_bw.get(), 1.0);
    assert_eq!(fail(&mut path.bbr, 3 * bdp), (BETA * (3 * bdp) as f64) as u64, "as much as CUBIC would");
    // With a queue of a quarter of it: what it needs alone, after the headroom.
    fail(&mut path.bbr, bdp * 5 / 4);
    assert!((bdp - 2..=bdp).contains(&path.bbr.inflight_with_headroom()));
    assert_eq!(fail(&mut path.bbr, bdp), bdp, "nothing is won by losing");
    assert_eq!(fail(&mut path.bbr, 0), (BETA * path.bbr.target_inflight() as f64) as u64);
}

/// A.7.
#[test]
fn an_application_that_is_the_limit_ends_neither_startup_nor_a_probe() {
    let mut path = Path::new(100, 20 * MS);
    path.application = Some(1_000_000);
    path.run(Duration::from_secs(4));
    assert_eq!(path.states, [State::Startup]);
    path.application = None;
    path.until(State::Up);
    path.application = Some(1_000_000);
    path.bbr.probe_rtt_min_stamp = path.now;
    path.run(Duration::from_secs(4));
    assert_eq!(path.bbr.state, State::Up);
    assert!((path.bbr.max_bw.get() / path.rate as f64 - 1.0).abs() < 0.02, "low rates say nothing");
}

/// Adds a queue of others, or a longer way, once it cruises and the minimum has been seen.
fn lengthen(path: &mut Path, by: Duration) {
    path.until(State::Cruise);
    path.run(2 * path.rtt);
    path.rtt += by;
}

/// A departure from §2.5: the pacing margin is for others.
#[test]
fn who_is_alone_paces_at_the_bandwidth() {
    let mut path = Path::new(50, 20 * MS);
    path.until(State::Cruise);
    assert!((path.bbr.pacing_rate() / path.bbr.bw - 1.0).abs() < 1e-9);
    lengthen(&mut path, 5 * MS);
    path.run(80 * MS);
    assert!(path.bbr.others.present() && path.bbr.state == State::Cruise);
    assert!((path.bbr.pacing_rate() / path.bbr.bw - 0.99).abs() < 1e-9);
}

/// A departure from §5.6.2: what the path loses is sent on top of what arrives.
#[test]
fn what_the_path_loses_anyway_is_made_up_for() {
    let mut path = Path::new(50, 20 * MS);
    path.loses = 50;
    path.run(Duration::from_secs(2));
    path.until(State::Cruise);
    let part = path.bbr.pacing_rate() / path.bbr.bw;
    assert!((1.01..=1.0 / 0.97).contains(&part), "{part}");
}

/// A departure from §5.5.10.3: a loss in Down does not make Cruise as slow as Down.
#[test]
fn the_rate_of_down_is_not_that_of_the_path() {
    let mut path = Path::new(50, 100 * MS);
    path.until(State::Up);
    path.until(State::Down);
    path.run(400 * MS);
    assert_eq!(path.bbr.state, State::Down);
    // A loss with a queue on a path without other losses.
    path.loses = path.pn + 1;
    path.run(10 * MS);
    path.loses = 0;
    path.until(State::Cruise);
    path.run(300 * MS);
    assert!(path.bbr.bw_shortterm < f64::INFINITY);
    assert!(path.bbr.bw > 0.99 * path.bbr.max_bw.get(), "{} of {}", path.bbr.bw, path.bbr.max_bw.get());
    // Others get what it gave up.
    let bw_latest = path.bbr.bw_latest;
    path.bbr.state = State::Down;
    assert!(path.bbr.bw_at_loss() > 1.1 * bw_latest);
    path.rtt += 20 * MS;
    path.bbr.state = State::Cruise;
    path.run(500 * MS);
    path.bbr.state = State::Down;
    assert_eq!(path.bbr.bw_at_loss(), path.bbr.bw_latest);
}

/// A departure from §5.3.4.3: if the queue is empty anyway, it need not be drained. What is close to the minimum does not
/// become the minimum.
#[test]
fn a_minimum_that_is_seen_again_is_not_measured_again() {
    let mut path = Path::new(50, 20 * MS);
    path.until(State::Cruise);
    let min = path.bbr.min_rtt;
    path.rtt += MS;
    path.run(Duration::from_secs(30));
    assert!(!path.states.contains(&State::ProbeRtt) && !path.bbr.others.present());
    assert_eq!(path.bbr.min_rtt, min);
    let share = path.share(Duration::from_secs(10));
    assert!(share > 0.99, "{share}");
}

/// The same: a longer path is learnt within the time of the filter, and a queue of others is drained at once.
#[test]
fn a_longer_path_is_learnt() {
    for by in [3 * MS, 5 * MS, 40 * MS] {
        let mut path = Path::new(50, 20 * MS);
        path.run(Duration::from_secs(7));
        lengthen(&mut path, by);
        let begin = path.now;
        assert!(path.bbr.min_rtt < 21 * MS);
        path.until(State::ProbeRtt);
        let wait = path.now.saturating_since(begin);
        let most = if by > 3 * MS { Duration::from_secs(1) } else { Duration::from_millis(5100) };
        assert!(wait <= most, "{wait:?}");
        path.run(Duration::from_secs(10));
        assert!((path.rtt..path.rtt + 2 * MS).contains(&path.bbr.min_rtt), "{by:?}: {:?}", path.bbr.min_rtt);
        path.run(Duration::from_secs(5));
        assert!(!path.bbr.others.present());
        let share = path.share(Duration::from_secs(10));
        assert!(share > 0.985, "{by:?}: {share}");
    }
}

/// A.10, A.20.
#[test]
fn the_queue_is_drained_every_five_seconds() {
    let mut path = Path::new(50, 20 * MS);
    lengthen(&mut path, 10 * MS);
    path.until(State::ProbeRtt);
    assert!(path.now.saturating_since(START) <= Duration::from_millis(5300));
    let (begin, before) = (path.now, path.bbr.window());
    path.until(State::Cruise);
    let length = path.now.saturating_since(begin);
    assert!((200 * MS..260 * MS).contains(&length), "{length:?}");
    path.run(20 * MS);
    assert!(path.bbr.window() as f64 >= 0.9 * before as f64);
    let mut path = Path::new(100, 20 * MS);
    path.application = Some(1_000_000);
    path.run(20 * MS);
    path.rtt *= 2;
    path.until(State::ProbeRtt);
    path.until(State::Startup);
}

/// A.11.
#[test]
fn being_idle_drains_the_queue_as_well() {
    let mut path = Path::new(50, 20 * MS);
    path.until(State::Cruise);
    path.application = Some(0);
    while path.step() {}
    path.bbr.on_app_limited(0);
    path.now += Duration::from_secs(6);
    path.application = None;
    path.send();
    assert!(path.bbr.idle_restart);
    assert!((path.bbr.pacing_rate() / path.bbr.bw - 1.0).abs() < 1e-9, "exactly the bandwidth");
    path.states.clear();
    path.run(Duration::from_millis(100));
    assert!(!path.states.contains(&State::ProbeRtt) && !path.bbr.idle_restart);
    assert!(path.share(Duration::from_millis(500)) > 0.85);
}

/// A.14.
#[test]
fn less_than_a_packet_in_a_round_trip() {
    let mut path = Path::new(1, MS);
    path.queue = 20 * MTU;
    path.until(State::Cruise);
    assert_eq!(path.bbr.window(), 4 * MTU);
    let share = path.share(Duration::from_secs(10));
    assert!(share > 0.9, "{share}");
}

/// A.15.
#[test]
fn ten_times_the_bandwidth_is_found_in_a_few_probes() {
    let mut path = Path::new(10, 20 * MS);
    path.until(State::Cruise);
    path.rate *= 10;
    path.queue *= 10;
    path.run(Duration::from_secs(8));
    assert!(path.share(Duration::from_secs(2)) > 0.9);
}

/// A.16.
#[test]
fn a_tenth_of_the_bandwidth_is_found_soon() {
    let mut path = Path::new(100, 20 * MS);
    path.until(State::Cruise);
    (path.rate, path.queue) = (path.rate / 10, path.queue / 10);
    path.run(Duration::from_secs(10));
    let drops = path.drops;
    assert!(path.share(Duration::from_secs(5)) > 0.9);
    assert!((path.bbr.max_bw.get() / path.rate as f64) < 1.1, "{}", path.bbr.max_bw.get());
    assert!(path.drops - drops < 60, "{} dropped", path.drops - drops);
}

/// A.17: losses without a queue that are more than chance.
#[test]
fn a_policer_is_obeyed() {
    let mut path = Path::new(20, 20 * MS);
    path.queue = 2 * MTU;
    path.run(Duration::from_secs(5));
    let (drops, sent) = (path.drops, path.pn);
    let share = path.share(Duration::from_secs(10));
    let lost = (path.drops - drops) as f64 / (path.pn - sent) as f64;
    assert!(share > 0.8 && lost < 0.03, "{share} is used, {lost} is lost");
}

#[test]
fn random_loss_does_not_slow_it_down() {
    for (loses, least) in [(10_000, 0.99), (1000, 0.99), (100, 0.99), (50, 0.99)] {
        let mut path = Path::new(100, 20 * MS);
        path.loses = loses;
        path.run(Duration::from_secs(2));
        let share = path.share(Duration::from_secs(15));
        assert!(share > least, "one in {loses}: {share}");
    }
}

/// RFC 8899 §3: a larger datagram size does not raise the window, until it is that large by itself.
#[test]
fn the_least_window_follows_the_datagram_size_only_downwards() {
    let mut bbr = Bbr::new(1200, 1, Instant::ZERO);
    bbr.full_bw_reached = true;
    (bbr.cwnd, bbr.min_rtt) = (4800, MS);
    bbr.set_mtu(1472);
    bbr.set_cwnd();
    assert_eq!((bbr.window(), bbr.min_pipe), (4800, 4800));
    bbr.rs.acked = 1_000_000;
    bbr.bw = 1e7;
    bbr.set_cwnd();
    assert_eq!(bbr.min_pipe, 4 * 1472);
    bbr.set_mtu(1200);
    assert_eq!(bbr.min_pipe, 4800);
    let mut fresh = Bbr::new(1200, 1, Instant::ZERO);
    fresh.set_mtu(8972);
    assert_eq!(fresh.window(), 17_944, "the initial window is that of the size (RFC 9002 §7.2)");
}

/// §3.7: marks are congestion.
#[test]
fn marks_end_a_probe_and_slow_it_down() {
    let mut path = Path::new(50, 20 * MS);
    path.until(State::Up);
    path.run(30 * MS);
    assert_eq!(path.bbr.state, State::Up);
    path.bbr.on_marks(path.now, path.acks.front().unwrap().2);
    assert_eq!(path.bbr.state, State::Down);
    path.until(State::Cruise);
    for _ in 0..20 {
        path.bbr.on_marks(path.now, path.acks.front().unwrap().2);
        path.run(5 * MS);
    }
    assert!(path.bbr.bw_shortterm < path.bbr.max_bw.get());
}

/// RFC 9002 §7.6.2.
#[test]
fn persistent_congestion_leaves_the_least_window_until_a_packet_arrives() {
    let mut path = Path::new(50, 20 * MS);
    path.until(State::Cruise);
    let before = path.bbr.window();
    path.bbr.on_persistent_congestion(0);
    assert_eq!(path.bbr.window(), 2 * MTU);
    path.run(25 * MS);
    assert_eq!(path.bbr.window(), before, "§5.6.4.4: what was good before");
}

#[test]
fn the_seed_decides_when_it_probes() {
    let play = |seed| {
        let mut path = Path::new(50, 100 * MS);
        path.bbr.random = seed;
        path.run(Duration::from_secs(12));
        (path.states.clone(), path.pn, path.bbr.cycle_stamp)
    };
    assert_eq!(play(1), play(1));
    assert_ne!(play(1).2, play(2).2);
}
