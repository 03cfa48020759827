//! Idle modes of a core.

use std::num::NonZeroU64;
use std::os::fd::BorrowedFd;

use arrayvec::ArrayVec;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::thread::{current_timer_slack, set_current_timer_slack};

use super::Waker;
use crate::base::time::{Duration, Instant};

/// What a core does when it has nothing to do.
///
/// A loop that never sleeps needs a CPU of its own. If other threads want to run on that CPU, the scheduler preempts
/// the loop for milliseconds at a time, whereas a thread that has slept runs again soon after it wakes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Idle {
    /// Keeps polling: lowest latency, but needs a CPU of its own.
    Spin,
    /// Keeps polling, but yields to other threads that want the CPU. While there are such threads, it sleeps as with
    /// [`Idle::Sleep`].
    #[default]
    Yield,
    /// Keeps polling for some tens of microseconds, then sleeps until a frame arrives, a timer is due or
    /// [`App::waker`](super::App::waker) is used, for at most 10 ms. Ports without wake-ups are polled every 50 µs.
    Sleep,
}

/// The number of empty turns before the core first yields.
const SPIN_TURNS: u32 = 200;

/// How long an idle core polls before it sleeps: lower and upper bound, and initial value.
const SPIN: [Duration; 2] = [Duration::from_micros(5), Duration::from_micros(80)];
const FIRST_SPIN: Duration = Duration::from_micros(40);

/// The longest sleep. It bounds the reaction to signals, link-ups, applications with their own clocks, and wake-ups
/// that a peer failed to send.
pub(super) const LONGEST: Duration = Duration::from_millis(10);

/// The longest sleep without wake-ups: on a port that has none, or while a full ring drains.
pub(super) const SHORT: Duration = Duration::from_micros(50);

/// How long the core keeps polling with wake-ups armed before it sleeps. A peer on another CPU that stores a frame and
/// then checks whether to wake us, without a barrier in between (memif has none), may read the old flag. Its store is
/// visible well within this time.
pub(super) const SETTLE: Duration = Duration::from_micros(10);

/// A yield that takes longer has let other threads run: without any it takes less than 1 µs.
const TAKEN: Duration = Duration::from_micros(100);

/// How long a core in yield mode sleeps instead of polling once it has shared its CPU.
const SHARED: Duration = Duration::from_secs(1);

/// What to do after an empty turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Poll again.
    Poll,
    /// Let other threads run, then poll again.
    Yield,
    /// Sleep.
    Sleep,
}

/// The state of idling.
#[derive(Debug)]
pub(super) struct Rest {
    idle: Idle,
    /// Empty turns since the last busy one.
    turns: u32,
    /// When a core that may sleep first read the clock since then.
    since: Instant,
    /// How long to poll before sleeping: adapts to the length of sleeps.
    spin: Duration,
    /// In yield mode, sleep rather than poll until then.
    shared: Instant,
}

impl Rest {
    pub(super) fn new(idle: Idle) -> Self {
        Self { idle, turns: 0, since: Instant::ZERO, spin: FIRST_SPIN, shared: Instant::ZERO }
    }

    /// Notes a turn with work.
    #[inline]
    pub(super) fn busy(&mut self) {
        self.turns = 0;
    }

    /// Notes a turn without work and returns what to do next. `now` is called only if the core may sleep.
    pub(super) fn step(&mut self, now: impl FnOnce() -> Instant) -> Step {
        self.turns = self.turns.saturating_add(1);
        match self.idle {
            Idle::Spin => Step::Poll,
            Idle::Yield if self.turns <= SPIN_TURNS => Step::Poll,
            Idle::Yield => {
                if now() < self.shared {
                    Step::Sleep
                } else {
                    Step::Yield
                }
            }
            Idle::Sleep => {
                let now = now();
                if self.turns == 1 {
                    self.since = now;
                }
                if now.saturating_since(self.since) < self.spin { Step::Poll } else { Step::Sleep }
            }
        }
    }

    /// Notes a yield from `start` to `end`.
    pub(super) fn yielded(&mut self, start: Instant, end: Instant) {
        if end.saturating_since(start) > TAKEN {
            self.shared = end + SHARED;
        }
    }

    /// Notes a sleep of length `time`. After a short sleep the core polls for longer next time, after a long one for a
    /// shorter time.
    pub(super) fn slept(&mut self, time: Duration) {
        self.turns = 0;
        if time < SPIN[1] {
            self.spin = (self.spin * 2).min(SPIN[1]);
        } else if time > 10 * SPIN[1] {
            self.spin = (self.spin / 2).max(SPIN[0]);
        }
    }

    /// Returns whether this core ever sleeps.
    pub(super) fn may_sleep(&self) -> bool {
        self.idle != Idle::Spin
    }
}

/// The reason why a sleep ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Woken {
    /// The port has a frame.
    Frame,
    /// Another thread used the waker.
    Waker,
    /// The time was up, or a signal arrived.
    Time,
}

/// Sleeps until the port's file or the waker's is readable, for at most `time`.
pub(super) fn sleep(port: Option<BorrowedFd<'_>>, waker: &Waker, time: Duration) -> Woken {
    let mut files = ArrayVec::<PollFd<'_>, 2>::new();
    files.extend(port.map(|file| PollFd::from_borrowed_fd(file, PollFlags::IN)));
    files.extend(waker.file().map(|file| PollFd::from_borrowed_fd(file, PollFlags::IN)));
    let timeout = |time: Duration| Timespec { tv_sec: time.as_secs() as i64, tv_nsec: i64::from(time.subsec_nanos()) };
    if !matches!(poll(&mut files, Some(&timeout(time))), Ok(1..)) {
        return Woken::Time;
    }
    let readable = |file: &PollFd<'_>| file.revents().contains(PollFlags::IN);
    if waker.file().is_some() && files.last().is_some_and(readable) {
        waker.drain();
        return Woken::Waker;
    }
    if port.is_some() && files.first().is_some_and(readable) {
        return Woken::Frame;
    }
    // The port's file reports an error (its interface is down) and would do so each time.
    let _ = poll(&mut [], Some(&timeout(time.min(LONGEST / 10))));
    Woken::Time
}

/// While alive, keeps the kernel from extending the calling thread's sleeps by its timer slack, 50 µs by default.
pub(super) struct Precise(Option<NonZeroU64>);

impl Precise {
    pub(super) fn new() -> Self {
        let before = current_timer_slack().ok().and_then(NonZeroU64::new);
        let _ = set_current_timer_slack(NonZeroU64::new(1));
        Self(before)
    }
}

impl Drop for Precise {
    fn drop(&mut self) {
        let _ = set_current_timer_slack(self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(us: u64) -> Instant {
        Instant::from_nanos(1_000_000_000 + us * 1000)
    }

    #[test]
    fn a_core_that_spins_asks_for_no_time_and_never_sleeps() {
        let mut rest = Rest::new(Idle::Spin);
        assert!((0..10_000).all(|_| rest.step(|| panic!("the clock")) == Step::Poll));
    }

    #[test]
    fn a_core_that_yields_sleeps_while_others_use_its_cpu() {
        let mut rest = Rest::new(Idle::Yield);
        assert!((0..SPIN_TURNS).all(|_| rest.step(|| at(0)) == Step::Poll));
        assert_eq!(rest.step(|| at(0)), Step::Yield);
        // No other thread wanted the CPU.
        rest.yielded(at(0), at(1));
        assert_eq!(rest.step(|| at(1)), Step::Yield);
        // Another thread had it for a time slice.
        rest.yielded(at(1), at(3001));
        assert_eq!(rest.step(|| at(3001)), Step::Sleep);
        assert_eq!(rest.step(|| at(1_003_000)), Step::Sleep);
        assert_eq!(rest.step(|| at(1_003_001)), Step::Yield);
        rest.busy();
        assert_eq!(rest.step(|| at(0)), Step::Poll);
    }

    #[test]
    fn a_core_that_sleeps_polls_on_for_as_long_as_it_pays() {
        let mut rest = Rest::new(Idle::Sleep);
        let spins = |rest: &mut Rest| {
            rest.busy();
            (0..).position(|us| rest.step(|| at(us)) == Step::Sleep).unwrap()
        };
        assert_eq!(spins(&mut rest), 40);
        rest.slept(Duration::from_micros(20));
        assert_eq!(spins(&mut rest), 80);
        rest.slept(Duration::from_micros(20));
        assert_eq!(spins(&mut rest), 80, "the upper bound");
        (0..10).for_each(|_| rest.slept(Duration::from_millis(5)));
        assert_eq!(spins(&mut rest), 5, "the lower bound");
        rest.slept(Duration::from_micros(300));
        assert_eq!(spins(&mut rest), 5);
    }

    /// A lost wake-up shows as a sleep that times out. Without the fences, this fails within some thousand rounds.
    #[test]
    fn no_wake_up_by_another_thread_is_lost() {
        use std::sync::atomic::{AtomicU64, Ordering};
        const ROUNDS: u64 = 100_000;
        let (waker, news, heard) = (Waker::new(), AtomicU64::new(0), AtomicU64::new(0));
        waker.prepare();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for n in 1..=ROUNDS {
                    news.store(n, Ordering::Relaxed);
                    waker.wake();
                    while heard.load(Ordering::Relaxed) < n {
                        std::thread::yield_now();
                    }
                }
            });
            for n in 1..=ROUNDS {
                while news.load(Ordering::Relaxed) < n {
                    waker.fall_asleep();
                    if news.load(Ordering::Relaxed) < n {
                        assert_eq!(sleep(None, &waker, Duration::from_secs(100)), Woken::Waker, "round {n}");
                    }
                    waker.awake();
                }
                heard.store(n, Ordering::Relaxed);
            }
        });
    }

    #[test]
    fn a_file_or_a_waker_ends_a_sleep() {
        let (read, write) = rustix::pipe::pipe().unwrap();
        let waker = Waker::new();
        waker.prepare();
        use std::os::fd::AsFd as _;
        assert_eq!(sleep(Some(read.as_fd()), &waker, Duration::from_millis(1)), Woken::Time);
        waker.fall_asleep();
        waker.wake();
        assert_eq!(sleep(Some(read.as_fd()), &waker, Duration::from_secs(100)), Woken::Waker);
        assert_eq!(sleep(None, &waker, Duration::from_micros(1)), Woken::Time);
        rustix::io::write(&write, b"x").unwrap();
        assert_eq!(sleep(Some(read.as_fd()), &waker, Duration::from_secs(100)), Woken::Frame);
        drop(read);
        // The other end is gone, so this file is always ready but never readable.
        assert_eq!(sleep(Some(write.as_fd()), &waker, Duration::from_micros(10)), Woken::Time);
    }
}
