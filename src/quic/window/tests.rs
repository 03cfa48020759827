use super::*;

const MS: Duration = Duration::from_millis(1);

/// An intake that is asked like a connection that sends an ACK every millisecond.
struct Rig {
    now: Instant,
    counts: Counts,
    intake: Intake,
    rtt: Duration,
    updates: u32,
}

impl Rig {
    fn new(rtt: Duration) -> Self {
        let counts = Counts { received: NOTABLE, consumed: NOTABLE };
        Self { now: Instant::ZERO, counts, intake: Intake::new(Instant::ZERO, counts, rtt), rtt, updates: 0 }
    }

    /// A millisecond passes, in which so many bytes are received and consumed.
    fn step(&mut self, received: u64, consumed: u64) {
        self.now += MS;
        self.counts.received += received;
        self.counts.consumed += consumed;
        if self.intake.is_due(self.now, self.counts.consumed) {
            self.updates += 1;
            self.intake.update(self.now, self.counts, self.rtt);
        }
    }

    fn run(&mut self, time: u32, rate: u64) {
        (0..time).for_each(|_| self.step(rate, rate));
    }

    fn bytes(&self) -> u64 {
        self.intake.bytes()
    }
}

#[test]
fn a_steady_rate_gives_rate_times_time() {
    let mut rig = Rig::new(100 * MS);
    rig.run(1000, 62_500);
    let bdp = 100 * 62_500;
    assert!((bdp..=bdp * 102 / 100).contains(&rig.bytes()), "{}", rig.bytes());
    let room = rig.intake.room();
    assert_eq!((room.connection(), room.stream()), (9 * rig.bytes(), 6 * rig.bytes()));
    assert_eq!(room.provided(1 << 20), (3 * rig.bytes(), 4 * rig.bytes()));
    assert_eq!((room.provided(1 << 40), room.provided(0)), ((1 << 40, 1 << 40), (0, 0)));
    assert!(rig.updates <= 10 + 30, "about one a round trip, and few while it grows: {}", rig.updates);
}

/// A sender in slow start doubles its rate in each round trip. A window must never be used up before the receiver knows
/// of the rate: what arrives in the round trip after an announcement fits into half of the window.
#[test]
fn windows_are_ahead_of_slow_start() {
    let mut rig = Rig::new(50 * MS);
    let mut rate = 2_000;
    for _ in 0..12 {
        let before = rig.intake.room().stream();
        rig.run(50, rate);
        let next = 2 * rate * 50;
        assert!(before.max(1 << 20) >= 2 * rate * 50, "{before} bytes for {rate} bytes/ms");
        assert!(rig.intake.room().stream() / 2 >= next, "{} bytes for the next {next}", rig.intake.room().stream());
        rate *= 2;
    }
}

#[test]
fn who_does_not_read_gets_no_more() {
    let mut rig = Rig::new(20 * MS);
    (0..1000).for_each(|_| rig.step(50_000, 0));
    assert_eq!(rig.bytes(), NOTABLE);
    // Whoever reads all of it at once has not taken it in within a round trip.
    rig.step(50_000, 50_000_000);
    assert!(rig.bytes() <= 2_000_000, "{}", rig.bytes());
    (0..100).for_each(|_| rig.step(0, 0));
    assert!(rig.bytes() <= 2_000_000, "{}", rig.bytes());
}

#[test]
fn a_gap_that_is_filled_late_counts_once() {
    let mut rig = Rig::new(20 * MS);
    rig.run(200, 10_000);
    let before = rig.bytes();
    (0..60).for_each(|_| rig.step(10_000, 0));
    rig.step(10_000, 61 * 10_000);
    rig.run(60, 10_000);
    assert!(rig.bytes() <= before * 11 / 10, "{before} became {}", rig.bytes());
}

#[test]
fn windows_become_small_again() {
    let mut rig = Rig::new(20 * MS);
    rig.run(1000, 100_000);
    let high = rig.bytes();
    rig.run(1500, 1000);
    assert_eq!(rig.bytes(), high, "a pause is no reason");
    rig.run(4000, 1000);
    assert!(rig.bytes() <= 21_000, "{}", rig.bytes());
    rig.run(1000, 100_000);
    // Nothing was sent at all, so nobody asked.
    rig.now += 1000 * 20 * MS;
    rig.step(10_000, 10_000);
    assert!(rig.bytes() <= 10_000, "{}", rig.bytes());
}

#[test]
fn rounds_are_no_shorter_than_bursts() {
    let us = Duration::from_micros(1);
    let mut intake = Intake::new(Instant::ZERO, Counts::default(), us);
    let (mut now, mut updates) = (Instant::ZERO, 0);
    for n in 1..=10_000 {
        now += us;
        if intake.is_due(now, n * 1000) {
            updates += 1;
            intake.update(now, Counts { received: n * 1000, consumed: n * 1000 }, us);
        }
    }
    assert!((100_000..=102_000).contains(&intake.bytes()), "{}", intake.bytes());
    assert!(updates <= 150, "{updates}");
}

proptest::proptest! {
    /// Whatever happens, the estimate is at most what came in within the time that it looks back to, and nothing
    /// overflows.
    #[test]
    fn it_is_never_more_than_what_came(
        steps in proptest::collection::vec((0u64..5_000_000_000, 0u64..1 << 56, 0u64..1 << 56), 1..60),
        rtt in 0u64..1_000_000_000,
    ) {
        let rtt = Duration::from_nanos(rtt);
        let (mut now, mut counts) = (Instant::ZERO, Counts::default());
        let mut intake = Intake::new(now, counts, rtt);
        for (time, received, consumed) in steps {
            now += Duration::from_nanos(time);
            counts.received += received;
            counts.consumed = (counts.consumed + consumed).min(counts.received);
            if intake.is_due(now, counts.consumed) {
                intake.update(now, counts, rtt);
            }
            proptest::prop_assert!(intake.bytes() <= counts.consumed);
            proptest::prop_assert!(intake.room().connection() >= intake.bytes());
        }
    }
}
