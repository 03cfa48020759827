//! What a core does when there is nothing to do.

use std::num::NonZeroU64;
use std::os::fd::BorrowedFd;

use arrayvec::ArrayVec;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::thread::{current_timer_slack, set_current_timer_slack};

use super::Waker;
use crate::base::time::{Duration, Instant};

/// What a core does when there is nothing to do.
///
/// A loop that never sleeps needs a CPU of its own. Where other threads want to run on the same CPU, the system takes it
/// away from such a loop for milliseconds at a time, while a thread that has slept gets it back as soon as it wakes up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Idle {
    /// Polls on: lowest latency, needs a CPU of its own.
    Spin,
    /// Polls on, and lets other threads that want the CPU run in between. While they do, it sleeps as [`Idle::Sleep`]
    /// does.
    #[default]
    Yield,
    /// Polls on for some tens of microseconds, and then sleeps until a frame comes, a timer is due or the application
    /// is wanted ([`App::waker`](super::App::waker)), or for 10 ms. Ports that cannot wake anybody up are looked at
    /// every 50 us.
    Sleep,
}

/// Empty turns before a core that yields gives the CPU to others for the first time.
const SPIN_TURNS: u32 = 200;

/// How long an idle core polls on before it sleeps: the bounds, and where it begins.
const SPIN: [Duration; 2] = [Duration::from_micros(5), Duration::from_micros(80)];
const FIRST_SPIN: Duration = Duration::from_micros(40);

/// The longest sleep. It bounds what depends on somebody looking: signals, links that come up, applications with clocks
/// of their own, and wake-ups that a peer forgets.
pub(super) const LONGEST: Duration = Duration::from_millis(10);

/// The sleep of a core that nothing wakes: on a port without wake-ups, or when a full ring has to drain.
pub(super) const SHORT: Duration = Duration::from_micros(50);

/// For how long the core looks on with wake-ups armed before it sleeps. A peer on another CPU that stores a frame and
/// then asks whether it has to wake us up may, without a barrier in between (memif has none), see the answer of before;
/// its store is visible well within this time.
pub(super) const SETTLE: Duration = Duration::from_micros(10);

/// A yield that takes longer has let others run: giving the CPU to nobody takes less than a microsecond.
const TAKEN: Duration = Duration::from_micros(100);

/// For how long a core that yields sleeps instead after others have run on its CPU.
const SHARED: Duration = Duration::from_secs(1);

/// What to do after an empty turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Poll again.
    Poll,
    /// Let others run, then poll again.
    Yield,
    /// Sleep.
    Sleep,
}

/// The state of a core that has nothing to do.
#[derive(Debug)]
pub(super) struct Rest {
    idle: Idle,
    /// Empty turns since the last one that was not.
    turns: u32,
    /// When the core that may sleep looked at the clock first since then.
    since: Instant,
    /// How long it polls on: longer when sleeps turn out to be short.
    spin: Duration,
    /// A core that yields sleeps until then.
    shared: Instant,
}

impl Rest {
    pub(super) fn new(idle: Idle) -> Self {
        Self { idle, turns: 0, since: Instant::ZERO, spin: FIRST_SPIN, shared: Instant::ZERO }
    }

    /// There was something to do.
    #[inline]
    pub(super) fn busy(&mut self) {
        self.turns = 0;
    }

    /// There was nothing to do. `now` is asked only by cores that may sleep.
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

    /// Others were let run from `start` to `end`.
    pub(super) fn yielded(&mut self, start: Instant, end: Instant) {
        if end.saturating_since(start) > TAKEN {
            self.shared = end + SHARED;
        }
    }

    /// The core has slept for so long. If it was hardly worth it, it polls on for longer the next time; if nothing came
    /// for long, for a shorter time.
    pub(super) fn slept(&mut self, time: Duration) {
        self.turns = 0;
        if time < SPIN[1] {
            self.spin = (self.spin * 2).min(SPIN[1]);
        } else if time > 10 * SPIN[1] {
            self.spin = (self.spin / 2).max(SPIN[0]);
        }
    }

    /// Whether this core ever sleeps.
    pub(super) fn may_sleep(&self) -> bool {
        self.idle != Idle::Spin
    }
}

/// Why a sleep ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Woken {
    /// By the port.
    Frame,
    /// By another thread.
    Waker,
    /// By the clock, or a signal.
    Time,
}

/// Sleeps until the port's file or the waker's is readable, for `time` at most.
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
    // The port's file says that something is wrong with it, and would say so each time: its interface is down.
    let _ = poll(&mut [], Some(&timeout(time.min(LONGEST / 10))));
    Woken::Time
}

/// The system may round up how long the calling thread sleeps, by 50 us as a rule; not while this lives.
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
        // Nobody wanted it.
        rest.yielded(at(0), at(1));
        assert_eq!(rest.step(|| at(1)), Step::Yield);
        // Somebody had it for a time slice.
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

    /// A wake-up that is lost would end with the time. Without the fences, this fails within some thousand rounds.
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
        // The other end is gone, so this one is always ready, and never readable.
        assert_eq!(sleep(Some(write.as_fd()), &waker, Duration::from_micros(10)), Woken::Time);
    }
}
