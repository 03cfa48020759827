//! Explicit congestion notification on a path: whether to mark packets, and whether reports of marks are credible (RFC
//! 9000 §13.4.2, Appendix A.4).

use crate::quic::trace::EcnState;
use crate::wire::quic::frame::EcnCounts;

/// Number of datagrams that are marked before the peer has confirmed any (RFC 9000 §13.4.2).
const TEST: u32 = 10;

/// Number of consecutive probe timeouts after which a path that was capable is tested again, as it may have changed.
const DOUBTFUL_PTOS: u32 = 3;

/// The index of the Data space; the others are the Initial and the Handshake space
/// ([`SpaceId::index`](crate::quic::recovery::SpaceId::index)).
const DATA: usize = 2;

/// The codepoints of the IP header (RFC 3168 §5).
const NOT_ECT: u8 = 0b00;
const ECT_0: u8 = 0b10;

/// The state of a path (RFC 9000 Appendix A.4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// Not used, as a setting.
    #[default]
    Off,
    /// The first datagrams are marked.
    Testing,
    /// The test is over, and the peer has confirmed no mark yet. Nothing is marked.
    Unknown,
    /// Everything is marked.
    Capable,
    /// Marks are lost, changed or not reported. Nothing is marked.
    Failed,
}

/// The marked packets of a packet number space, and what the peer last reported.
#[derive(Clone, Copy, Debug, Default)]
struct Marks {
    /// The packets of the current test or period: all with these numbers are marked.
    from: u64,
    until: u64,
    /// Number of packets marked before `from`.
    before: u64,
    counts: EcnCounts,
}

impl Marks {
    fn contains(&self, pn: u64) -> bool {
        (self.from..self.until).contains(&pn)
    }

    /// Maximum number of packets marked so far, if `next` is the next packet number.
    fn sent(&self, next: u64) -> u64 {
        self.before + self.until.min(next).saturating_sub(self.from)
    }

    /// Begins another period with packet `next`.
    fn begin(&mut self, next: u64) {
        *self = Self { from: next, until: u64::MAX, before: self.sent(next), ..*self };
    }
}

/// An ACK frame, as far as it concerns ECN.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Report {
    /// The index of its packet number space.
    pub(crate) space: usize,
    /// The counts in it, if there are any.
    pub(crate) counts: Option<EcnCounts>,
    /// Whether it increases the largest acknowledged packet number.
    pub(crate) advances: bool,
}

/// What an ACK frame shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Findings {
    /// The number of packets that the network has marked as having experienced congestion, if it has grown.
    pub(crate) congestion: bool,
    /// The path has proved to be capable.
    pub(crate) validated: bool,
    /// Validation has failed.
    pub(crate) failed: bool,
}

/// Explicit congestion notification on one path.
#[derive(Debug, Default)]
pub(crate) struct Ecn {
    state: State,
    /// Number of datagrams sent in the test.
    sent: u32,
    /// Number of packets sent elsewhere without a mark since then, which count as marked.
    strays: u64,
    /// Marked packets acknowledged and lost since the test began, and those of the former that came with CE.
    acked: u64,
    lost: u64,
    ce: u64,
    data: Marks,
    /// Those of the Initial and Handshake spaces, until the handshake is confirmed.
    early: Option<Box<[Marks; 2]>>,
}

impl Ecn {
    /// Of a new connection. Nothing is marked unless `enabled`.
    pub(crate) fn new(enabled: bool) -> Self {
        let mut this = Self { early: enabled.then(Box::default), ..Self::default() };
        if enabled {
            this.test([0; 3]);
        }
        this
    }

    /// Of another path of the same connection, whose next packets have the numbers `next`: it is tested (RFC 9000 §13.4.2).
    pub(crate) fn of_new_path(&self, next: [u64; 3]) -> Self {
        let mut this = Self { early: self.early.clone(), ..*self };
        if this.state != State::Off {
            this.test(next);
        }
        this
    }

    /// Of another path between the same hosts: if marks do not get through there, they are not tried again.
    pub(crate) fn of_other_port(&self, next: [u64; 3]) -> Self {
        let mut this = self.of_new_path(next);
        if self.state == State::Failed {
            this.stop(State::Failed, next);
        }
        this
    }

    /// Of a path that the connection returns to from this one; `former` is what was known of it. Otherwise, an attacker
    /// who makes a connection change its path often would cost it a test each time.
    pub(crate) fn of_former_path(&self, former: &Self, next: [u64; 3]) -> Self {
        let mut this = self.of_new_path(next);
        match former.state {
            State::Unknown | State::Failed => this.stop(former.state, next),
            State::Testing => this.sent = former.sent,
            State::Off | State::Capable => {}
        }
        this
    }

    /// The codepoint for datagrams to be sent now.
    #[inline]
    pub(crate) fn codepoint(&self) -> u8 {
        if matches!(self.state, State::Testing | State::Capable) { ECT_0 } else { NOT_ECT }
    }

    /// Whether the next datagrams are the ones that test the path, so that [`Ecn::on_datagram`] has to be called for each.
    #[inline]
    pub(crate) fn is_testing(&self) -> bool {
        self.state == State::Testing
    }

    /// The state for traces; `None` if ECN is not used.
    pub(crate) fn traced_state(&self) -> Option<EcnState> {
        match self.state {
            State::Off => None,
            State::Testing => Some(EcnState::Testing),
            State::Unknown => Some(EcnState::Unknown),
            State::Capable => Some(EcnState::Capable),
            State::Failed => Some(EcnState::Failed),
        }
    }

    /// Whether the path has proved to be capable.
    pub(crate) fn is_capable(&self) -> bool {
        self.state == State::Capable
    }

    /// Whether reports matter.
    #[inline]
    pub(crate) fn wants_reports(&self) -> bool {
        !matches!(self.state, State::Off | State::Failed)
    }

    fn marks(&mut self, space: usize) -> Option<&mut Marks> {
        match space {
            DATA => Some(&mut self.data),
            _ => self.early.as_mut().and_then(|early| early.get_mut(space)),
        }
    }

    fn each(&mut self, next: [u64; 3], change: impl Fn(&mut Marks, u64)) {
        for (space, next) in next.into_iter().enumerate() {
            if let Some(marks) = self.marks(space) {
                change(marks, next);
            }
        }
    }

    /// Marks from now on; `next` are the next packet numbers.
    fn test(&mut self, next: [u64; 3]) {
        (self.state, self.sent, self.strays, self.acked, self.lost, self.ce) = (State::Testing, 0, 0, 0, 0, 0);
        self.each(next, Marks::begin);
    }

    /// Marks nothing from now on.
    fn stop(&mut self, state: State, next: [u64; 3]) {
        self.state = state;
        self.each(next, |marks, next| marks.until = marks.until.min(next));
    }

    /// Handles the sending of a marked datagram in the test; `next` are the packet numbers that follow it.
    pub(crate) fn on_datagram(&mut self, next: [u64; 3]) {
        self.sent += 1;
        if self.sent >= TEST {
            self.stop(State::Unknown, next);
        }
    }

    /// A packet is sent on another path, without a mark.
    pub(crate) fn on_stray(&mut self) {
        self.strays += 1;
    }

    /// Handles a probe timeout, the `nth` in a row. If no mark has got through yet, the marks may be the reason, so that
    /// the probe has none. A path that was capable is tested again, as a router may drop marked packets that did not before.
    pub(crate) fn on_probe_timeout(&mut self, nth: u32, next: [u64; 3]) {
        match self.state {
            State::Testing if self.acked == 0 => self.stop(State::Unknown, next),
            State::Capable if nth >= DOUBTFUL_PTOS => self.test(next),
            _ => {}
        }
    }

    /// Handles the loss of packets of `space`. True if all marked ones are lost, so that there will be no more.
    pub(crate) fn on_lost(&mut self, space: usize, pns: impl Iterator<Item = u64>, next: [u64; 3]) -> bool {
        if self.state != State::Unknown {
            return false;
        }
        let Some(marks) = self.marks(space) else { return false };
        let lost = pns.filter(|pn| marks.contains(*pn)).count();
        self.lost += lost as u64;
        let early = self.early.iter().flat_map(|early| early.iter());
        let sent: u64 = early.chain([&self.data]).map(|marks| marks.until.saturating_sub(marks.from)).sum();
        let all = lost > 0 && self.acked == 0 && self.lost >= sent;
        if all {
            self.stop(State::Failed, next);
        }
        all
    }

    /// Handles the end of a space, whose packets are neither acknowledged nor lost any more.
    pub(crate) fn on_discarded(&mut self, space: usize) {
        if let Some(marks) = self.marks(space) {
            (marks.from, marks.until) = (u64::MAX, u64::MAX);
        }
    }

    /// Frees what is needed for the handshake only.
    pub(crate) fn on_confirmed(&mut self) {
        self.early = None;
    }

    /// Handles an ACK frame that newly acknowledges the packets `acked`, of which the first was at least `lowest` (RFC
    /// 9000 §13.4.2.1). `next` are the next packet numbers.
    pub(crate) fn on_ack(
        &mut self,
        report: &Report,
        acked: impl ExactSizeIterator<Item = u64>,
        lowest: u64,
        next: [u64; 3],
    ) -> Findings {
        // One that does not advance may have been overtaken by a later one.
        if !self.wants_reports() || !report.advances {
            return Findings::default();
        }
        let Some(marks) = self.marks(report.space) else { return Findings::default() };
        let marked = if marks.from <= lowest && marks.until == u64::MAX {
            acked.len()
        } else {
            acked.filter(|pn| marks.contains(*pn)).count()
        };
        let (mut marked, before, sent) = (marked as u64, marks.counts, marks.sent(next[report.space]));
        marks.counts = report.counts.unwrap_or(before);
        // A peer that has received no mark reports none.
        let increase = report.counts.map_or(Some([0; 3]), |now| increase(before, now));
        let reported = increase.map_or(0, |[ect0, _, ce]| ect0 + ce);
        let strays = marked.saturating_sub(reported).min(self.strays);
        (marked, self.strays) = (marked - strays, self.strays - strays);
        let sent_ect0 = report.counts.is_none_or(|now| now.ect0 <= sent);
        let increase = increase.filter(|[_, ect1, _]| *ect1 == 0 && reported >= marked && sent_ect0);
        let Some([ect0, _, ce]) = increase else {
            self.stop(State::Failed, next);
            return Findings { failed: true, ..Findings::default() };
        };
        self.acked += marked;
        self.ce += ce;
        let untested = self.state != State::Capable && marked > 0;
        // Some router marks everything, whatever the congestion (RFC 9000 Appendix A.4).
        if untested && self.ce >= self.acked && self.acked >= u64::from(TEST) {
            self.stop(State::Failed, next);
            return Findings { failed: true, ..Findings::default() };
        }
        let validated = untested && ect0 > 0;
        if validated {
            let was_unknown = self.state == State::Unknown;
            self.state = State::Capable;
            if was_unknown {
                self.each(next, Marks::begin);
            }
        }
        Findings { congestion: ce > 0, validated, failed: false }
    }
}

/// By how much each count has grown, in the order ECT(0), ECT(1), CE. `None` if one has shrunk.
fn increase(before: EcnCounts, now: EcnCounts) -> Option<[u64; 3]> {
    Some([now.ect0.checked_sub(before.ect0)?, now.ect1.checked_sub(before.ect1)?, now.ce.checked_sub(before.ce)?])
}

#[cfg(test)]
mod tests {
    use super::*;

    const INITIAL: usize = 0;
    const HANDSHAKE: usize = 1;

    /// A path and the packet numbers sent on it.
    struct Sender {
        ecn: Ecn,
        next: u64,
        counts: EcnCounts,
    }

    impl Sender {
        fn new() -> Self {
            Self { ecn: Ecn::new(true), next: 0, counts: EcnCounts::default() }
        }

        /// Sends `n` datagrams of a packet each; returns how many were marked.
        fn send(&mut self, n: u64) -> u64 {
            let mut marked = 0;
            for _ in 0..n {
                marked += u64::from(self.ecn.codepoint() == ECT_0);
                self.next += 1;
                if self.ecn.is_testing() {
                    self.ecn.on_datagram([0, 0, self.next]);
                }
            }
            marked
        }

        /// Acknowledges packets; `counts` changes what is reported.
        fn ack(&mut self, pns: std::ops::Range<u64>, counts: impl FnOnce(&mut EcnCounts)) -> Findings {
            counts(&mut self.counts);
            let counts = (self.counts != EcnCounts::default()).then_some(self.counts);
            self.report(pns, counts, true)
        }

        fn report(&mut self, pns: std::ops::Range<u64>, counts: Option<EcnCounts>, advances: bool) -> Findings {
            let pns: Vec<u64> = pns.collect();
            let lowest = pns.first().copied().unwrap_or(0);
            self.ecn.on_ack(&Report { space: DATA, counts, advances }, pns.into_iter(), lowest, [0, 0, self.next])
        }

        fn is_failed(&self) -> bool {
            self.ecn.state == State::Failed && self.ecn.codepoint() == NOT_ECT
        }
    }

    #[test]
    fn ten_datagrams_are_marked_until_the_peer_confirms_it() {
        let mut path = Sender::new();
        assert_eq!((path.send(15), path.ecn.is_capable()), (10, false));
        let findings = path.ack(0..3, |counts| counts.ect0 += 3);
        assert_eq!(findings, Findings { validated: true, ..Findings::default() });
        assert!(path.ecn.is_capable());
        assert_eq!(path.send(20), 20);
        // Of these, 0..10 and 15..35 were marked.
        assert_eq!(path.ack(3..35, |counts| counts.ect0 += 27), Findings::default());
        assert!(path.ecn.is_capable());
        assert!(path.ack(35..35, |counts| counts.ect0 += 1).failed, "more than were sent");
    }

    #[test]
    fn nothing_is_marked_if_that_is_off() {
        let mut path = Sender { ecn: Ecn::new(false), ..Sender::new() };
        assert_eq!(path.send(20), 0);
        assert_eq!(path.ack(0..20, |counts| counts.ce += 20), Findings::default());
        assert_eq!(path.ecn.of_new_path([0; 3]).codepoint(), NOT_ECT);
    }

    #[test]
    fn congestion_is_found_and_does_not_fail_the_path() {
        let mut path = Sender::new();
        path.send(10);
        let findings = path.ack(0..4, |counts| (counts.ect0, counts.ce) = (3, 1));
        assert_eq!(findings, Findings { congestion: true, validated: true, failed: false });
        path.send(10);
        assert_eq!(path.ack(10..15, |counts| counts.ce += 5), Findings { congestion: true, ..Findings::default() });
        assert_eq!(path.ack(15..16, |counts| counts.ect0 += 1), Findings::default());
        // An acknowledgement was lost: the counts grow by more than what is newly acknowledged.
        assert_eq!(path.ack(16..17, |counts| counts.ect0 += 3), Findings::default());
    }

    /// The checks of RFC 9000 §13.4.2.1, each on its own, in the test and on a path that was capable.
    #[test]
    fn wrong_counts_fail_the_path() {
        type Change = fn(&mut EcnCounts);
        let wrong: [(Change, &str); 5] = [
            (|counts| *counts = EcnCounts::default(), "no counts"),
            (|counts| counts.ect0 += 2, "less than what was acknowledged"),
            (|counts| (counts.ect0, counts.ce) = (counts.ect0 + 1, counts.ce + 1), "the same with CE"),
            (|counts| (counts.ect0, counts.ect1) = (counts.ect0 + 3, counts.ect1 + 1), "ECT(1), which is never sent"),
            (|counts| counts.ect0 += 1000, "more than were sent"),
        ];
        for (change, what) in wrong {
            let mut path = Sender::new();
            path.send(5);
            assert!(path.ack(0..3, change).failed && path.is_failed(), "{what}");
            // It stays so (RFC 9000 §13.4.2.2).
            assert_eq!((path.send(5), path.ack(3..5, |counts| counts.ect0 += 2)), (0, Findings::default()));
            let mut path = Sender::new();
            path.send(5);
            assert!(path.ack(0..2, |counts| counts.ect0 += 2).validated);
            path.send(5);
            assert!(path.ack(5..8, change).failed && path.is_failed(), "{what}, later");
        }
        let mut path = Sender::new();
        path.send(5);
        path.ack(0..2, |counts| counts.ect0 += 2);
        assert!(path.ack(2..2, |counts| counts.ect0 -= 1).failed, "a count that shrinks");
    }

    /// RFC 9000 §13.4.2.1: an ACK frame that was overtaken has old counts.
    #[test]
    fn frames_that_do_not_advance_fail_nothing() {
        let mut path = Sender::new();
        path.send(9);
        assert!(path.report(5..9, Some(EcnCounts { ect0: 9, ..EcnCounts::default() }), true).validated);
        for counts in [None, Some(EcnCounts { ect0: 5, ..EcnCounts::default() })] {
            assert_eq!(path.report(0..5, counts, false), Findings::default());
        }
        assert!(path.ecn.is_capable());
    }

    #[test]
    fn a_router_that_marks_everything_is_not_believed() {
        let mut path = Sender::new();
        path.send(10);
        assert_eq!(path.ack(0..9, |counts| counts.ce += 9), Findings { congestion: true, ..Findings::default() });
        assert!(!path.ecn.is_capable());
        assert!(path.ack(9..10, |counts| counts.ce += 1).failed && path.is_failed());
    }

    /// RFC 9000 §13.4.2: "whether all packets sent with an ECT codepoint are eventually deemed lost".
    #[test]
    fn a_router_that_drops_marked_packets_gets_no_more() {
        let mut path = Sender::new();
        assert_eq!(path.send(2), 2);
        path.ecn.on_probe_timeout(1, [0, 0, path.next]);
        assert_eq!(path.send(3), 0, "the probe is not marked");
        assert_eq!(path.ack(2..5, |_| ()), Findings::default());
        assert!(!path.ecn.on_lost(DATA, [0].into_iter(), [0, 0, path.next]));
        assert!(path.ecn.on_lost(DATA, [1].into_iter(), [0, 0, path.next]) && path.is_failed());
        // If it was only a loss, marking goes on.
        let mut path = Sender::new();
        path.send(2);
        path.ecn.on_probe_timeout(1, [0, 0, path.next]);
        path.send(1);
        assert!(!path.ecn.on_lost(DATA, [0].into_iter(), [0, 0, path.next]));
        assert!(path.ack(1..3, |counts| counts.ect0 += 1).validated);
        assert_eq!(path.send(4), 4);
    }

    #[test]
    fn a_capable_path_that_drops_everything_is_tested_again() {
        let mut path = Sender::new();
        path.send(2);
        path.ack(0..2, |counts| counts.ect0 += 2);
        for nth in 1..=4 {
            assert_eq!(path.send(1), 1, "{nth}");
            path.ecn.on_probe_timeout(nth, [0, 0, path.next]);
        }
        assert_eq!(path.send(2), 0);
        assert_eq!(path.ack(6..8, |_| ()), Findings::default());
        assert!(path.ecn.on_lost(DATA, 2..6, [0, 0, path.next]) && path.is_failed());
    }

    #[test]
    fn another_path_is_tested_whatever_was_found_on_the_first() {
        let mut path = Sender::new();
        path.send(5);
        path.ack(0..2, |_| ());
        assert!(path.is_failed());
        path.send(5);
        path.ecn = path.ecn.of_new_path([0, 0, path.next]);
        assert_eq!(path.send(4), 4);
        // What was sent before does not count, whatever becomes of it.
        assert!(path.ack(2..12, |counts| counts.ect0 += 2 + 3).validated);
    }

    #[test]
    fn what_is_known_of_a_path_is_not_tested_again() {
        let mut first = Sender::new();
        first.send(5);
        let next = [0, 0, first.next];
        let mut second = first.ecn.of_new_path(next);
        // The test goes on where it was left.
        let mut back = second.of_former_path(&first.ecn, next);
        (5..TEST).for_each(|_| back.on_datagram(next));
        assert_eq!((back.is_testing(), back.codepoint()), (false, NOT_ECT));
        assert_eq!(second.of_former_path(&back, next).codepoint(), NOT_ECT, "it was tested, and no mark confirmed");
        second.stop(State::Failed, next);
        assert_eq!(first.ecn.of_former_path(&second, next).codepoint(), NOT_ECT, "marks do not get through");
        assert_eq!(second.of_other_port(next).codepoint(), NOT_ECT);
        assert_eq!([first.ecn.of_other_port(next), second.of_new_path(next)].map(|ecn| ecn.codepoint()), [ECT_0; 2]);
    }

    /// Packets that probe other paths have no marks, and numbers between those of marked ones.
    #[test]
    fn packets_on_other_paths_do_not_fail_this_one() {
        let mut path = Sender::new();
        path.send(5);
        path.ecn.on_stray();
        path.next += 1;
        path.send(2);
        assert!(path.ack(0..8, |counts| counts.ect0 += 7).validated);
        path.send(2);
        assert!(path.ack(8..10, |counts| counts.ect0 += 1).failed, "there was only one");
    }

    #[test]
    fn each_space_has_its_own_counts() {
        let mut ecn = Ecn::new(true);
        let next = [2, 2, 2];
        let counts = |ect0| Some(EcnCounts { ect0, ..EcnCounts::default() });
        let report = |space, counts| Report { space, counts, advances: true };
        assert!(ecn.on_ack(&report(INITIAL, counts(1)), [0].into_iter(), 0, next).validated);
        assert!(!ecn.on_ack(&report(HANDSHAKE, counts(2)), [0, 1].into_iter(), 0, next).failed);
        ecn.on_discarded(INITIAL);
        ecn.on_confirmed();
        assert!(!ecn.on_ack(&report(INITIAL, None), [1].into_iter(), 0, next).failed, "it is over");
        assert!(!ecn.on_ack(&report(DATA, counts(1)), [0].into_iter(), 0, next).failed);
        assert!(ecn.on_ack(&report(DATA, counts(1)), [1].into_iter(), 0, next).failed);
    }

    /// A connection that is idle pays for this on each path.
    #[test]
    fn the_state_is_small() {
        assert!(size_of::<Ecn>() <= 96, "{}", size_of::<Ecn>());
    }
}
