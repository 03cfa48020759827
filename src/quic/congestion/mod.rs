//! Congestion control: how many bytes may be in flight, and when the next packet may be sent (RFC 9002 §7).
//!
//! [`Congestion`] is common to all algorithms: bytes in flight, the recovery period, pacing. A [`Controller`] is an
//! algorithm, which only determines the size of the window. Windows are in bytes.
#![forbid(unsafe_code)]

mod bbr;
mod cubic;
mod hystart;
mod newreno;
mod pacer;
mod usage;
mod with_bbr;

pub use bbr::Bbr;
pub use cubic::Cubic;
pub use newreno::NewReno;
pub use pacer::Pacer;

use crate::base::time::{Duration, Instant};
use crate::quic::config::CongestionAlgorithm;
use usage::Usage;

/// Whether a packet may be sent now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permit {
    /// It may be sent.
    Send,
    /// The congestion window is full: wait for an acknowledgement, a loss or a probe timeout.
    Congested,
    /// The window has room, but pacing delays the packet until this time.
    PacedUntil(Instant),
}

/// An acknowledgement, as seen by a congestion controller.
#[derive(Clone, Copy, Debug)]
pub struct Acked {
    /// The current time.
    pub now: Instant,
    /// Newly acknowledged bytes of packets sent after the last recovery period began.
    pub bytes: u64,
    /// When the latest of the newly acknowledged packets was sent.
    pub sent: Instant,
    /// Bytes in flight before this acknowledgement.
    pub prior_in_flight: u64,
    /// Smoothed round-trip time.
    pub srtt: Duration,
    /// The round-trip time sample of this acknowledgement, if any.
    pub sample: Option<Duration>,
}

/// A congestion control algorithm: determines the size of the window.
#[derive(Clone, Debug)]
pub enum Controller {
    /// RFC 9002 §7 with HyStart++.
    NewReno(NewReno),
    /// CUBIC with HyStart++.
    Cubic(Cubic),
    /// BBRv3.
    Bbr(Box<Bbr>),
}

impl Controller {
    fn new(algorithm: CongestionAlgorithm, mtu: u64, seed: u64, now: Instant) -> Self {
        match algorithm {
            CongestionAlgorithm::NewReno => Self::NewReno(NewReno::new(mtu)),
            CongestionAlgorithm::Cubic => Self::Cubic(Cubic::new(mtu)),
            CongestionAlgorithm::Bbr => Self::Bbr(Box::new(Bbr::new(mtu, seed, now))),
        }
    }

    /// The congestion window in bytes.
    pub fn window(&self) -> u64 {
        match self {
            Self::NewReno(c) => c.window(),
            Self::Cubic(c) => c.window(),
            Self::Bbr(c) => c.window(),
        }
    }

    /// Whether the window is below the slow start threshold.
    pub fn in_slow_start(&self) -> bool {
        match self {
            Self::NewReno(c) => c.in_slow_start(),
            Self::Cubic(c) => c.in_slow_start(),
            Self::Bbr(c) => c.in_slow_start(),
        }
    }

    /// Handles an acknowledgement while the window was in use.
    fn on_ack(&mut self, ack: &Acked) {
        match self {
            Self::NewReno(c) => c.on_ack(ack),
            Self::Cubic(c) => c.on_ack(ack),
            Self::Bbr(_) => {}
        }
    }

    /// Handles an acknowledgement while the window was not the limit, so that it must not grow (RFC 9002 §7.8).
    fn on_ack_limited(&mut self, now: Instant) {
        match self {
            Self::NewReno(_) => {}
            Self::Cubic(c) => c.on_ack_limited(now),
            Self::Bbr(_) => {}
        }
    }

    fn on_congestion_event(&mut self) {
        match self {
            Self::NewReno(c) => c.on_congestion_event(),
            Self::Cubic(c) => c.on_congestion_event(),
            Self::Bbr(c) => c.on_enter_recovery(),
        }
    }

    fn on_persistent_congestion(&mut self, in_flight: u64) {
        match self {
            Self::NewReno(c) => c.on_persistent_congestion(),
            Self::Cubic(c) => c.on_persistent_congestion(),
            Self::Bbr(c) => c.on_persistent_congestion(in_flight),
        }
    }

    /// Whether slow start has never ended.
    fn is_fresh(&self) -> bool {
        match self {
            Self::NewReno(c) => c.is_fresh(),
            Self::Cubic(c) => c.is_fresh(),
            Self::Bbr(c) => c.is_fresh(),
        }
    }

    fn set_mtu(&mut self, mtu: u64) {
        match self {
            Self::NewReno(c) => c.set_mtu(mtu),
            Self::Cubic(c) => c.set_mtu(mtu),
            Self::Bbr(c) => c.set_mtu(mtu),
        }
    }
}

/// The initial window for datagrams of `mtu` bytes (RFC 9002 §7.2).
pub const fn initial_window(mtu: u64) -> u64 {
    let limit = if 2 * mtu > 14_720 { 2 * mtu } else { 14_720 };
    if 10 * mtu < limit { 10 * mtu } else { limit }
}

/// The minimum window (RFC 9002 §7.2).
pub const fn minimum_window(mtu: u64) -> u64 {
    2 * mtu
}

/// The smallest window for datagrams of `mtu` bytes after a change of their size: the initial one if slow start has
/// never ended, otherwise the minimum.
const fn least_window(mtu: u64, fresh: bool) -> u64 {
    if fresh { initial_window(mtu) } else { minimum_window(mtu) }
}

/// Congestion control of one path.
#[derive(Clone, Debug)]
pub struct Congestion {
    controller: Controller,
    pacer: Pacer,
    mtu: u64,
    in_flight: u64,
    /// When the last recovery period began. Packets sent before that neither grow nor shrink the window.
    recovery_start: Option<Instant>,
    /// The controller before the last reduction.
    prior: Option<Box<Controller>>,
    /// Whether that reduction can still be undone.
    undoable: bool,
    app_limited: bool,
    usage: Usage,
}

impl Congestion {
    /// Congestion control with `algorithm` for datagrams of `max_datagram` bytes. `srtt` is the assumed round-trip time
    /// until there is a sample. `seed` determines when the algorithm probes, if it does so at random times.
    pub fn new(
        algorithm: CongestionAlgorithm,
        max_datagram: u16,
        pacing: bool,
        srtt: Duration,
        seed: u64,
        now: Instant,
    ) -> Self {
        let mtu = u64::from(max_datagram);
        let controller = Controller::new(algorithm, mtu, seed, now);
        let mut new = Self {
            controller,
            pacer: Pacer::new(pacing, now),
            mtu,
            in_flight: 0,
            recovery_start: None,
            prior: None,
            undoable: false,
            app_limited: false,
            usage: Usage::new(),
        };
        new.update_pace(now, srtt);
        new
    }

    /// The same, for another path of which the same is expected, where nothing is in flight yet.
    pub(crate) fn with_nothing_in_flight(&self, now: Instant) -> Self {
        let mut new = Self { in_flight: 0, undoable: false, usage: Usage::new(), ..self.clone() };
        if let Controller::Bbr(bbr) = &mut new.controller {
            bbr.clear_flight(now);
        }
        new
    }

    /// The slow start threshold in bytes; `None` before the first reduction.
    pub fn slow_start_threshold(&self) -> Option<u64> {
        let threshold = match &self.controller {
            Controller::NewReno(c) => c.threshold(),
            Controller::Cubic(c) => c.threshold(),
            Controller::Bbr(_) => u64::MAX,
        };
        (threshold != u64::MAX).then_some(threshold)
    }

    /// Whether the window grows as in slow start (RFC 9002 §7.3.1).
    pub fn in_slow_start(&self) -> bool {
        self.controller.in_slow_start()
    }

    /// The congestion window in bytes.
    pub fn window(&self) -> u64 {
        self.controller.window()
    }

    /// Bytes sent that are neither acknowledged nor lost.
    pub fn in_flight(&self) -> u64 {
        self.in_flight
    }

    /// The algorithm's state.
    pub fn controller(&self) -> &Controller {
        &self.controller
    }

    /// Whether a packet of `len` bytes may be sent at `now`.
    pub fn permit(&self, now: Instant, len: u16) -> Permit {
        if self.in_flight + u64::from(len) > self.window() {
            return Permit::Congested;
        }
        match self.pacer.next(now, u64::from(len)) {
            Some(at) => Permit::PacedUntil(at),
            None => Permit::Send,
        }
    }

    /// Records that a packet of `len` bytes that counts as in flight was sent.
    pub fn on_sent(&mut self, now: Instant, len: u16) {
        self.in_flight += u64::from(len);
        self.usage.on_sent(self.in_flight);
        self.tell_sent(now, u64::from(len));
        self.pacer.on_sent(now, u64::from(len));
    }

    /// The number of packets of `len` bytes that [`Congestion::permit`] allows in a row, if it is asked before each for
    /// one of `asked` bytes.
    pub(crate) fn permits(&self, now: Instant, asked: u16, len: u16) -> usize {
        let (asked, len) = (u64::from(asked), u64::from(len).max(1));
        let Some(spare) = self.window().checked_sub(self.in_flight + asked) else { return 0 };
        let by_window = usize::try_from(spare / len + 1).unwrap_or(usize::MAX);
        by_window.min(self.pacer.allows(now, asked, len))
    }

    /// Records that `count` packets of `len` bytes were sent, all of which count as in flight.
    pub(crate) fn on_run_sent(&mut self, now: Instant, len: u16, count: usize) {
        let bytes = u64::from(len) * count as u64;
        self.in_flight += bytes;
        self.usage.on_sent(self.in_flight);
        self.tell_sent(now, bytes);
        self.pacer.on_sent(now, bytes);
    }

    /// Removes a packet of `len` bytes from those in flight.
    pub fn remove(&mut self, len: u16) {
        debug_assert!(self.in_flight >= u64::from(len));
        self.in_flight = self.in_flight.saturating_sub(u64::from(len));
    }

    /// Whether a packet sent at `sent` was sent during the recovery period or earlier (RFC 9002 §7.3.2).
    pub fn in_recovery(&self, sent: Instant) -> bool {
        self.recovery_start.is_some_and(|start| sent <= start)
    }

    /// Sets whether the application, not the window, limits what is sent (RFC 9002 §7.8).
    pub fn set_app_limited(&mut self, limited: bool) {
        self.app_limited = limited;
        if let (true, Controller::Bbr(bbr)) = (limited && self.in_flight < self.window(), &mut self.controller) {
            bbr.on_app_limited(self.in_flight);
        }
    }

    /// Handles an acknowledgement. The packets were removed before.
    pub fn on_ack(&mut self, ack: &Acked) {
        let in_recovery = self.in_recovery(ack.sent);
        if let Controller::Bbr(bbr) = &mut self.controller {
            bbr.on_ack(ack, self.in_flight, !in_recovery);
            return self.update_pace(ack.now, ack.srtt);
        }
        let used = self.usage.on_ack(ack.now, ack.srtt, self.window(), self.in_flight);
        if !in_recovery {
            // A flight that leaves less than one packet of the window unused counts as using it.
            let limited = self.app_limited && ack.prior_in_flight + self.mtu <= self.window();
            if limited || !used {
                self.controller.on_ack_limited(ack.now);
            } else if ack.bytes > 0 {
                self.controller.on_ack(ack);
            }
        }
        self.update_pace(ack.now, ack.srtt);
    }

    /// Handles the loss, or an ECN mark, of a packet sent at `sent`: enters recovery unless the packet belongs to the
    /// current recovery period.
    pub fn on_congestion_event(&mut self, now: Instant, sent: Instant, srtt: Duration) {
        if self.in_recovery(sent) {
            return;
        }
        self.recovery_start = Some(now);
        if !matches!(self.controller, Controller::Bbr(_)) {
            // Not a new box for each reduction.
            match &mut self.prior {
                Some(prior) => self.controller.clone_into(prior),
                None => self.prior = Some(Box::new(self.controller.clone())),
            }
            self.undoable = true;
        }
        self.controller.on_congestion_event();
        self.update_pace(now, srtt);
    }

    /// Undoes the last reduction, which was spurious, unless the window has grown beyond it (RFC 9438 §4.9). True if
    /// it was undone.
    pub fn undo(&mut self, now: Instant, srtt: Duration) -> bool {
        if let Controller::Bbr(bbr) = &mut self.controller {
            bbr.undo();
            self.recovery_start = None;
            self.update_pace(now, srtt);
            return true;
        }
        let undoable = std::mem::take(&mut self.undoable);
        let window = self.window();
        let Some(prior) = self.prior.as_mut().filter(|prior| undoable && prior.window() > window) else { return false };
        std::mem::swap(&mut self.controller, prior);
        self.recovery_start = None;
        self.update_pace(now, srtt);
        true
    }

    /// Handles persistent congestion: everything sent over a long period, up to `sent`, was lost (RFC 9002 §7.6).
    /// Acknowledgements of packets sent by then no longer grow the window, as they say nothing about the current state
    /// of the path.
    pub fn on_persistent_congestion(&mut self, now: Instant, sent: Instant, srtt: Duration) {
        self.recovery_start = Some(sent);
        self.undoable = false;
        self.controller.on_persistent_congestion(self.in_flight);
        self.update_pace(now, srtt);
    }

    /// Whether datagrams of `size` bytes can be used with the window as it is, or with the initial window for that size
    /// until slow start first ends (RFC 9002 §7.2).
    pub fn takes_datagrams_of(&self, size: u16) -> bool {
        let size = u64::from(size);
        self.controller.is_fresh() || self.window() >= minimum_window(size)
    }

    /// Changes the maximum datagram size to `max_datagram` bytes.
    pub fn set_max_datagram(&mut self, now: Instant, max_datagram: u16, srtt: Duration) {
        let mtu = u64::from(max_datagram);
        if mtu != self.mtu {
            self.mtu = mtu;
            self.controller.set_mtu(mtu);
            if let Some(prior) = &mut self.prior {
                prior.set_mtu(mtu);
            }
            self.update_pace(now, srtt);
        }
    }

    fn update_pace(&mut self, now: Instant, srtt: Duration) {
        if let Controller::Bbr(bbr) = &self.controller {
            return self.pacer.set_exactly(now, bbr.pacing_rate(), bbr.send_quantum());
        }
        self.pacer.set_rate(now, self.controller.window(), srtt, self.mtu);
    }
}
