//! The sending part of a stream (RFC 9000 §3.1): queued memory, what is in flight, lost and acknowledged.

use std::cell::Cell;
use std::collections::VecDeque;
use std::ops::Range;

use crate::base::range_set::RangeSet;
use crate::quic::event::SendData;
use crate::quic::flow::SendCredit;
use crate::quic::stats::StreamStats;

impl SendData {
    /// The bytes to send.
    pub fn as_slice(&self) -> &[u8] {
        match self {
            Self::Pinned(buf, len) => &buf[..*len],
            Self::Bytes(bytes) => bytes,
            Self::Static(bytes) => bytes,
        }
    }

    /// Number of bytes to send.
    pub fn len(&self) -> usize {
        match self {
            Self::Pinned(_, len) => *len,
            Self::Bytes(bytes) => bytes.len(),
            Self::Static(bytes) => bytes.len(),
        }
    }

    /// Whether there is nothing to send.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Maximum number of acknowledged pieces after a gap that are recorded: 3 MiB. Further pieces are retransmitted as if
/// lost. Otherwise a peer that acknowledges every other byte could make the list grow without limit.
const MAX_ACKED: usize = 1 << 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fin {
    /// The application has not finished the stream.
    Open,
    /// It has to be sent (again).
    Queued,
    InFlight,
    Acked,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Sending,
    /// RESET_STREAM has to be sent (again).
    ResetQueued(u64),
    ResetSent(u64),
    /// Everything is acknowledged, data or reset.
    Done,
}

/// A reset that leaves the first bytes of the stream reliable (draft-ietf-quic-reliable-stream-reset-11 §5). It is the
/// end of the stream, like the FIN: as soon as it is requested, nothing behind the reliable bytes is sent any more.
#[derive(Debug)]
struct ResetAt {
    code: u64,
    /// Number of bytes that are delivered.
    reliable: u64,
    frame: ResetFrame,
}

/// The state of the RESET_STREAM_AT frame with the current reliable size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ResetFrame {
    /// It has to be sent (again).
    Due,
    InFlight,
    Acked,
}

/// Why a stream cannot be reset at some size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ResetAtError {
    /// It has ended.
    Ended,
    /// Fewer bytes are queued.
    TooFar,
}

#[derive(Debug)]
struct Segment {
    start: u64,
    data: SendData,
}

impl Segment {
    fn end(&self) -> u64 {
        self.start + self.data.len() as u64
    }
}

/// The contents of the next STREAM frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pick {
    pub(crate) range: Range<u64>,
    pub(crate) fin: bool,
    /// Number of these bytes that were never sent before, which use flow-control credit.
    pub(crate) new: u64,
}

#[derive(Debug)]
pub(crate) struct SendStream {
    /// Memory that is not completely acknowledged, in stream order.
    segments: VecDeque<Segment>,
    /// Index of the segment last sent from. A wrong index only costs a search.
    latest: Cell<usize>,
    /// End of the queued data.
    end: u64,
    /// First offset never sent.
    next: u64,
    acked: RangeSet,
    lost: RangeSet,
    fin: Fin,
    state: State,
    pub(crate) credit: SendCredit,
    /// Whether `send` returned `Blocked` and the application waits for `Writable`.
    pub(crate) wants_writable: bool,
    /// Whether the application waits for a window.
    pub(crate) wants_window: Wants,
    /// How often the byte at `refused_at` was lost while it was the first one that the peer lacked.
    refused: u8,
    refused_at: u64,
    reset_at: Option<Box<ResetAt>>,
}

/// Whether the application waits for a window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Wants {
    /// No.
    #[default]
    Nothing,
    /// Yes, for that of the stream.
    Stream,
    /// Yes, for that of the connection; the stream is in the list of streams that wait for it.
    Connection,
}

impl SendStream {
    pub(crate) fn new(limit: u64) -> Self {
        Self {
            segments: VecDeque::new(),
            latest: Cell::new(0),
            end: 0,
            next: 0,
            acked: RangeSet::default(),
            lost: RangeSet::default(),
            fin: Fin::Open,
            state: State::Sending,
            credit: SendCredit::new(limit),
            wants_writable: false,
            wants_window: Wants::Nothing,
            refused: 0,
            refused_at: 0,
            reset_at: None,
        }
    }

    /// Resets everything but its memory; it has no credit then.
    pub(crate) fn clear(&mut self) {
        let Self {
            segments,
            latest,
            end,
            next,
            acked,
            lost,
            fin,
            state,
            credit,
            wants_writable,
            wants_window,
            refused,
            refused_at,
            reset_at,
        } = self;
        segments.clear();
        acked.clear();
        lost.clear();
        latest.set(0);
        (*end, *next, *fin, *state) = (0, 0, Fin::Open, State::Sending);
        (*credit, *wants_writable, *wants_window) = (SendCredit::new(0), false, Wants::Nothing);
        (*refused, *refused_at, *reset_at) = (0, 0, None);
    }

    /// Whether the application may still queue data.
    pub(crate) fn is_writable(&self) -> bool {
        self.state == State::Sending && self.fin == Fin::Open && self.reset_at.is_none()
    }

    /// Number of bytes queued and not yet acknowledged in order.
    pub(crate) fn queued(&self) -> u64 {
        self.end - self.segments.front().map_or(self.end, |s| s.start)
    }

    /// Number of bytes that may be queued: `base`, or `most` if the peer would accept that many.
    pub(crate) fn budget(&self, (base, most): (u64, u64)) -> u64 {
        base.max(most.min(self.credit.limit().saturating_sub(self.end - self.queued())))
    }

    pub(crate) fn end(&self) -> u64 {
        self.end
    }

    /// The first offset never sent, unless the stream has ended in this direction.
    pub(crate) fn next(&self) -> Option<u64> {
        (self.state == State::Sending).then_some(self.next)
    }

    /// Number of bytes, beyond those queued, that the windows allow, given `connection` bytes of connection credit.
    pub(crate) fn window(&self, connection: u64) -> u64 {
        self.credit.available().min(connection).saturating_sub(self.end - self.next)
    }

    /// Fills in the counters of this part.
    pub(crate) fn add_stats(&self, stats: &mut StreamStats) {
        stats.queued = self.end;
        stats.sent = self.next;
        stats.acked = self.acked.iter().map(|r| r.end - r.start).sum();
    }

    /// Appends memory to the queue. Empty memory only carries the FIN.
    pub(crate) fn write(&mut self, data: SendData, fin: bool) {
        debug_assert!(self.is_writable());
        let start = self.end;
        self.end += data.len() as u64;
        if !data.is_empty() {
            self.segments.push_back(Segment { start, data });
        }
        if fin {
            self.fin = Fin::Queued;
        }
    }

    /// Whether anything can be sent now, given `connection` bytes of connection credit.
    pub(crate) fn can_send(&self, connection: u64) -> bool {
        self.state == State::Sending
            && (!self.lost.is_empty()
                || (self.next < self.end && self.credit.available().min(connection) > 0)
                || (self.fin == Fin::Queued && self.next == self.end))
    }

    /// Whether data could be sent if the connection had credit.
    pub(crate) fn is_starved(&self) -> bool {
        self.state == State::Sending && self.next < self.end && self.credit.available() > 0
    }

    /// Whether data waits for stream credit.
    pub(crate) fn is_blocked(&self) -> bool {
        self.state == State::Sending && self.next < self.end && self.credit.available() == 0
    }

    /// The next bytes to send, lost ones first; at most `max` bytes and `connection` bytes of new data.
    pub(crate) fn pick(&self, max: u64, connection: u64) -> Option<Pick> {
        if self.state != State::Sending {
            return None;
        }
        if let Some(first) = self.lost.first() {
            let range = first.start..first.end.min(first.start + max);
            if range.is_empty() {
                return None;
            }
            let fin = self.fin == Fin::Queued && range.end == self.end && self.next == self.end;
            return Some(Pick { range, fin, new: 0 });
        }
        let new = (self.end - self.next).min(max).min(self.credit.available()).min(connection);
        let range = self.next..self.next + new;
        let fin = self.fin == Fin::Queued && range.end == self.end;
        (new > 0 || fin).then_some(Pick { range, fin, new })
    }

    /// The first offset that was never sent, and the number of bytes from there on that may be sent without the FIN,
    /// given `connection` bytes of connection credit. `None` if something has to be sent again.
    pub(crate) fn fresh(&self, connection: u64) -> Option<(u64, u64)> {
        if self.state != State::Sending || !self.lost.is_empty() || self.reset_at.is_some() {
            return None;
        }
        let queued = (self.end - self.next).saturating_sub(u64::from(self.fin == Fin::Queued));
        Some((self.next, queued.min(self.credit.available()).min(connection)))
    }

    /// Records that `n` of these bytes are sent.
    pub(crate) fn sent_fresh(&mut self, n: u64) {
        self.next += n;
        self.credit.consume(n);
    }

    /// The number of bytes from `offset` on that are contiguous in memory.
    pub(crate) fn at_hand(&self, offset: u64) -> usize {
        self.memory_at(offset).len()
    }

    /// These bytes.
    pub(crate) fn memory_at(&self, offset: u64) -> &[u8] {
        let Some(segment) = self.segments.get(self.segment_of(offset)) else { return &[] };
        let from = usize::try_from(offset.saturating_sub(segment.start)).unwrap_or(usize::MAX);
        segment.data.as_slice().get(from..).unwrap_or_default()
    }

    /// Records that the picked bytes are sent.
    pub(crate) fn sent(&mut self, pick: &Pick) {
        if pick.new > 0 {
            self.next = pick.range.end;
            self.credit.consume(pick.new);
        } else {
            self.lost.remove(pick.range.clone());
        }
        if pick.fin {
            self.fin = Fin::InFlight;
        }
    }

    /// Index of the segment that contains the byte at `offset`. Except for lost data, it is the one last looked up or
    /// the next.
    fn segment_of(&self, offset: u64) -> usize {
        let holds = |i: usize| self.segments.get(i).is_some_and(|s| s.start <= offset && offset < s.end());
        let hint = self.latest.get();
        let found = [hint, hint + 1].into_iter().find(|i| holds(*i));
        let index = found.unwrap_or_else(|| self.segments.partition_point(|s| s.end() <= offset));
        self.latest.set(index);
        index
    }

    /// The memory of `range` in order. The range must be queued and not acknowledged.
    pub(crate) fn slices(&self, range: Range<u64>) -> impl Iterator<Item = &[u8]> {
        let first = self.segment_of(range.start);
        let Range { start, end } = range;
        self.segments.range(first..).take_while(move |s| s.start < end).map(move |s| {
            let (from, to) = (start.max(s.start), end.min(s.end()));
            &s.data.as_slice()[(from - s.start) as usize..(to - s.start) as usize]
        })
    }

    /// Handles the acknowledgement of a STREAM frame. `done` gets memory that is no longer needed.
    pub(crate) fn on_acked(&mut self, range: Range<u64>, fin: bool, mut done: impl FnMut(SendData, usize)) {
        if !matches!(self.state, State::Sending) {
            return;
        }
        if self.acked.len() >= MAX_ACKED && !range.is_empty() && range.start != 0 && self.acked.is_apart(&range) {
            self.on_lost(range, fin);
            return;
        }
        self.acked.insert(range.clone());
        self.lost.remove(range);
        if fin {
            self.fin = Fin::Acked;
        }
        let contiguous = self.contiguous();
        while let Some(segment) = self.segments.pop_front_if(|s| s.end() <= contiguous) {
            let len = segment.data.len();
            self.latest.set(self.latest.get().saturating_sub(1));
            done(segment.data, len);
        }
        if self.reset_at.is_some() {
            self.end_at_reset(&mut done);
        }
        if self.fin == Fin::Acked && contiguous == self.end {
            self.state = State::Done;
        }
    }

    /// Handles the loss of a STREAM frame: the part that is not acknowledged otherwise is sent again.
    pub(crate) fn on_lost(&mut self, range: Range<u64>, fin: bool) {
        if self.state != State::Sending {
            return;
        }
        let reliable = self.reset_at.as_ref().map_or(u64::MAX, |at| at.reliable);
        let range = range.start..range.end.min(reliable).max(range.start);
        for missing in self.acked.missing_in(range) {
            self.lost.insert(missing);
        }
        if fin && self.fin == Fin::InFlight {
            self.fin = Fin::Queued;
        }
    }

    /// The first byte that the peer lacks.
    fn contiguous(&self) -> u64 {
        match self.acked.first() {
            Some(first) if first.start == 0 => first.end,
            _ => 0,
        }
    }

    /// Handles the loss of a packet with `range`: returns how often the first byte that the peer lacks, or the FIN if
    /// it lacks nothing else, was lost by now; 0 if that was not in this packet.
    pub(crate) fn first_lost(&mut self, range: &Range<u64>, fin: bool) -> u8 {
        let first = self.contiguous();
        if self.state != State::Sending || range.start > first || (range.end <= first && !fin) {
            return 0;
        }
        if self.refused_at != first {
            (self.refused, self.refused_at) = (0, first);
        }
        self.refused = self.refused.saturating_add(1);
        self.refused
    }

    /// How often in a row the first byte that the peer lacks was lost.
    pub(crate) fn refusals(&self) -> u8 {
        if self.state == State::Sending && self.refused_at == self.contiguous() { self.refused } else { 0 }
    }

    /// Whether something sent before has to be sent again, or the FIN after data that was all sent before.
    pub(crate) fn repeats(&self) -> bool {
        self.state == State::Sending && (!self.lost.is_empty() || (self.fin == Fin::Queued && self.next == self.end))
    }

    /// Counts nothing as sent, as the peer has received none of it, under another limit.
    pub(crate) fn restart(&mut self, limit: u64) {
        (self.next, self.credit) = (0, SendCredit::new(limit));
        self.latest.set(0);
        self.acked.clear();
        self.lost.clear();
        (self.refused, self.refused_at) = (0, 0);
        if self.fin == Fin::InFlight {
            self.fin = Fin::Queued;
        }
        self.reset_lost();
    }

    /// Abandons sending. Returns all memory, each piece with its number of acknowledged bytes. False if it is too late.
    pub(crate) fn reset(&mut self, code: u64, done: impl FnMut(SendData, usize)) -> bool {
        if self.state != State::Sending {
            return false;
        }
        // The code of a stream never changes (draft-ietf-quic-reliable-stream-reset-11 §5.2).
        let code = self.reset_at.take().map_or(code, |at| at.code);
        self.state = State::ResetQueued(code);
        self.release(done);
        true
    }

    /// Abandons sending behind the first `reliable` bytes, which are still delivered
    /// (draft-ietf-quic-reliable-stream-reset-11 §5). Returns memory that is not needed for them, each piece with its
    /// number of acknowledged bytes. If the stream was reset like this before, only the number of reliable bytes
    /// changes, and only if it is reduced.
    pub(crate) fn reset_at(
        &mut self,
        code: u64,
        reliable: u64,
        mut done: impl FnMut(SendData, usize),
    ) -> Result<(), ResetAtError> {
        if self.state != State::Sending {
            return Err(ResetAtError::Ended);
        }
        match &mut self.reset_at {
            Some(at) if reliable >= at.reliable => return Ok(()),
            Some(at) => (at.reliable, at.frame) = (reliable, ResetFrame::Due),
            None if reliable > self.end => return Err(ResetAtError::TooFar),
            none => *none = Some(Box::new(ResetAt { code, reliable, frame: ResetFrame::Due })),
        }
        // The frame takes the place of the FIN. A FIN that was sent has announced the same final size.
        self.fin = Fin::Open;
        self.end = self.next.max(reliable);
        self.lost.remove(reliable..u64::MAX);
        let kept = self.segments.partition_point(|s| s.start < reliable);
        self.return_from(kept, &mut done);
        self.end_at_reset(&mut done);
        Ok(())
    }

    /// Returns the memory of the last reliable bytes once they are acknowledged. When the reset is, too, that is the end
    /// (draft-ietf-quic-reliable-stream-reset-11 §5.3).
    #[cold]
    fn end_at_reset(&mut self, done: &mut impl FnMut(SendData, usize)) {
        let contiguous = self.contiguous();
        let Some(at) = self.reset_at.as_ref().filter(|at| contiguous >= at.reliable) else { return };
        if at.frame == ResetFrame::Acked {
            self.state = State::Done;
        }
        self.return_from(0, done);
    }

    /// The code, final size and reliable size of a RESET_STREAM_AT frame to send. The final size counts for flow
    /// control, so the frame waits until all reliable bytes were sent (draft-ietf-quic-reliable-stream-reset-11 §4).
    pub(crate) fn reset_at_due(&self) -> Option<(u64, u64, u64)> {
        let at = self.reset_at.as_ref().filter(|at| at.frame == ResetFrame::Due && self.next >= at.reliable)?;
        (self.state == State::Sending).then_some((at.code, self.next, at.reliable))
    }

    pub(crate) fn reset_at_sent(&mut self) {
        if let Some(at) = &mut self.reset_at {
            at.frame = ResetFrame::InFlight;
        }
    }

    /// Handles the acknowledgement of a RESET_STREAM_AT frame with this reliable size. Frames with an earlier, larger
    /// size no longer matter.
    pub(crate) fn reset_at_acked(&mut self, reliable: u64, mut done: impl FnMut(SendData, usize)) {
        if let Some(at) = self.reset_at.as_mut().filter(|at| at.reliable == reliable) {
            at.frame = ResetFrame::Acked;
            self.end_at_reset(&mut done);
        }
    }

    /// Handles the loss of a RESET_STREAM_AT frame.
    pub(crate) fn reset_at_lost(&mut self, reliable: u64) {
        let at = self.reset_at.as_mut().filter(|at| at.reliable == reliable && at.frame == ResetFrame::InFlight);
        if let Some(at) = at {
            at.frame = ResetFrame::Due;
        }
    }

    /// Returns all memory, when the stream or its connection is over.
    pub(crate) fn release(&mut self, mut done: impl FnMut(SendData, usize)) {
        self.return_from(0, &mut done);
        self.lost.clear();
    }

    /// Returns the memory of the segments from number `first` on, each with its number of acknowledged bytes.
    fn return_from(&mut self, first: usize, done: &mut impl FnMut(SendData, usize)) {
        for segment in self.segments.drain(first..) {
            let missing: u64 = self.acked.missing_in(segment.start..segment.end()).map(|r| r.end - r.start).sum();
            let acked = segment.data.len() - missing as usize;
            done(segment.data, acked);
        }
    }

    /// The code and final size of a RESET_STREAM frame to send.
    pub(crate) fn reset_due(&self) -> Option<(u64, u64)> {
        match self.state {
            State::ResetQueued(code) => Some((code, self.next)),
            _ => None,
        }
    }

    pub(crate) fn reset_sent(&mut self) {
        if let State::ResetQueued(code) = self.state {
            self.state = State::ResetSent(code);
        }
    }

    pub(crate) fn reset_acked(&mut self) {
        if matches!(self.state, State::ResetSent(_) | State::ResetQueued(_)) {
            self.state = State::Done;
        }
    }

    pub(crate) fn reset_lost(&mut self) {
        if let State::ResetSent(code) = self.state {
            self.state = State::ResetQueued(code);
        }
    }

    /// Whether everything is acknowledged: data and FIN, or the reset.
    pub(crate) fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Whether the stream ended with all of its data delivered.
    pub(crate) fn is_delivered(&self) -> bool {
        self.state == State::Done && self.fin == Fin::Acked
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn data(n: usize) -> SendData {
        SendData::Bytes(Bytes::from((0..n).map(|i| i as u8).collect::<Vec<_>>()))
    }

    fn send(s: &mut SendStream, max: u64) -> Option<Pick> {
        let pick = s.pick(max, u64::MAX)?;
        s.sent(&pick);
        Some(pick)
    }

    #[test]
    fn sends_across_segments_and_returns_each_once() {
        let mut s = SendStream::new(1000);
        s.write(data(10), false);
        s.write(data(10), true);
        let pick = send(&mut s, 15).unwrap();
        assert_eq!((pick.range.clone(), pick.fin), (0..15, false));
        let joined: Vec<u8> = s.slices(pick.range).flatten().copied().collect();
        assert_eq!(joined, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1, 2, 3, 4]);
        let last = send(&mut s, 15).unwrap();
        assert_eq!((last.range.clone(), last.fin), (15..20, true));
        assert!(send(&mut s, 15).is_none());
        // The same bytes, wherever a repetition begins (RFC 9000 §2.2).
        let part: Vec<u8> = s.slices(7..12).flatten().copied().collect();
        assert_eq!(part, [7, 8, 9, 0, 1]);
        let mut back = Vec::new();
        s.on_acked(15..20, true, |d, n| back.push((d.len(), n)));
        assert!(back.is_empty());
        s.on_acked(0..15, false, |d, n| back.push((d.len(), n)));
        assert_eq!(back, [(10, 10), (10, 10)]);
        assert!(s.is_done() && s.is_delivered());
    }

    #[test]
    fn lost_bytes_go_first_and_take_no_credit() {
        let mut s = SendStream::new(20);
        s.write(data(30), true);
        send(&mut s, 10).unwrap();
        send(&mut s, 10).unwrap();
        assert!(send(&mut s, 10).is_none(), "flow control");
        s.on_lost(0..10, false);
        let again = send(&mut s, 4).unwrap();
        assert_eq!((again.range, again.new), (0..4, 0));
        s.on_acked(6..8, false, |_, _| {});
        assert_eq!(send(&mut s, 100).unwrap().range, 4..6);
        assert_eq!(send(&mut s, 100).unwrap().range, 8..10);
        s.credit.raise(30);
        let last = send(&mut s, 100).unwrap();
        assert_eq!((last.range, last.fin), (20..30, true));
    }

    #[test]
    fn acknowledged_pieces_are_bounded_and_nothing_is_lost_by_it() {
        const PIECES: u64 = MAX_ACKED as u64 + 10;
        let mut s = SendStream::new(1 << 20);
        s.write(data(2 * PIECES as usize), true);
        while send(&mut s, 1).is_some() {}
        for n in 0..PIECES {
            s.on_acked(2 * n + 1..2 * n + 2, 2 * n + 2 == s.end, |_, _| panic!("the first byte is missing"));
        }
        assert_eq!((s.acked.len(), s.lost.len()), (MAX_ACKED, 10));
        assert!(s.acked.heap_bytes() <= 3 << 20);
        // They are sent again, the FIN with the last of them, and accepted when there is room.
        let again: Vec<_> = std::iter::from_fn(|| send(&mut s, 1)).collect();
        assert_eq!((again.len(), again.last().map(|pick| pick.fin)), (10, Some(true)));
        let mut back = 0;
        for n in 0..PIECES {
            s.on_acked(2 * n..2 * n + 1, false, |_, _| back += 1);
        }
        assert!(!s.is_done());
        again.iter().for_each(|pick| s.on_acked(pick.range.clone(), pick.fin, |_, _| back += 1));
        assert!(s.is_delivered() && back == 1);
    }

    #[test]
    fn lone_fin_is_sent_and_resent() {
        let mut s = SendStream::new(0);
        s.write(data(0), true);
        let pick = send(&mut s, 10).unwrap();
        assert!(pick.fin && pick.range.is_empty());
        assert!(send(&mut s, 10).is_none());
        s.on_lost(0..0, true);
        assert!(s.can_send(0));
        assert!(send(&mut s, 10).unwrap().fin);
        s.on_acked(0..0, true, |_, _| {});
        assert!(s.is_delivered());
    }

    /// RFC 9000 §13.3: "The content of a RESET_STREAM frame MUST NOT change when it is sent again."
    #[test]
    fn the_contents_of_a_reset_never_change() {
        let mut s = SendStream::new(100);
        s.write(data(30), false);
        let pick = s.pick(10, 100).unwrap();
        s.sent(&pick);
        assert!(s.reset(7, |_, _| {}));
        for _ in 0..3 {
            assert!(!s.reset(8, |_, _| {}) && !s.is_writable());
            assert_eq!(s.pick(10, 100), None, "no byte is sent after the final size");
            assert_eq!(s.reset_due(), Some((7, 10)));
            s.reset_sent();
            s.on_lost(0..10, false);
            s.on_acked(0..10, false, |_, _| {});
            s.reset_lost();
        }
    }

    /// draft-ietf-quic-reliable-stream-reset-11 §4, §5.2, §5.3.
    #[test]
    fn a_reset_at_some_size_delivers_what_comes_before() {
        let mut s = SendStream::new(1000);
        [10, 10, 10].into_iter().for_each(|n| s.write(data(n), false));
        assert_eq!(send(&mut s, 12).unwrap().range, 0..12);
        let mut back = Vec::new();
        assert_eq!(s.reset_at(7, 31, |_, _| {}), Err(ResetAtError::TooFar));
        assert_eq!(s.reset_at(7, 18, |d, n| back.push((d.len(), n))), Ok(()));
        assert_eq!((std::mem::take(&mut back), s.is_writable()), (vec![(10, 0)], false));
        assert_eq!(s.reset_at_due(), None, "the final size is not within flow control before these bytes are sent");
        assert_eq!(send(&mut s, 100).map(|pick| (pick.range, pick.fin)), Some((12..18, false)));
        assert_eq!(s.reset_at_due(), Some((7, 18, 18)));
        s.reset_at_sent();
        assert_eq!((s.reset_at_due(), s.can_send(1000)), (None, false));
        // It is reduced; frames with the former size no longer matter.
        assert_eq!(s.reset_at(8, 9, |d, n| back.push((d.len(), n))), Ok(()));
        assert_eq!(s.reset_at(8, 15, |_, _| panic!("never raised")), Ok(()));
        assert_eq!(s.reset_at_due(), Some((7, 18, 9)), "code and final size stay");
        s.reset_at_sent();
        s.reset_at_lost(18);
        assert_eq!((std::mem::take(&mut back), s.reset_at_due()), (vec![(10, 0)], None));
        s.reset_at_lost(9);
        assert_eq!(s.reset_at_due(), Some((7, 18, 9)));
        s.reset_at_sent();
        // Lost bytes are sent again as far as they are reliable.
        s.on_lost(0..18, false);
        assert_eq!(send(&mut s, 100).map(|pick| pick.range), Some(0..9));
        assert!(!s.can_send(1000));
        s.reset_at_acked(18, |_, _| panic!("not delivered"));
        s.reset_at_acked(9, |_, _| panic!("not delivered"));
        s.on_acked(0..8, false, |_, _| panic!("one byte is missing"));
        assert!(!s.is_done());
        s.on_acked(8..9, false, |d, n| back.push((d.len(), n)));
        assert_eq!((back, s.is_done(), s.is_delivered()), (vec![(10, 9)], true, false));
    }

    #[test]
    fn a_reset_at_some_size_may_follow_the_fin_and_become_a_full_reset() {
        let mut s = SendStream::new(1000);
        s.write(data(10), true);
        assert!(send(&mut s, 100).unwrap().fin);
        assert_eq!(s.reset_at(7, 4, |_, _| panic!("still needed")), Ok(()));
        assert_eq!(s.reset_at_due(), Some((7, 10, 4)));
        s.reset_at_sent();
        s.on_lost(0..10, true);
        assert_eq!(send(&mut s, 100).map(|pick| (pick.range, pick.fin)), Some((0..4, false)));
        let mut back = 0;
        assert!(s.reset(9, |_, _| back += 1));
        assert_eq!((s.reset_due(), s.reset_at_due(), back), (Some((7, 10)), None, 1), "the code stays");
        // If all data was acknowledged, only the frame is missing, or the FIN.
        for fin in [false, true] {
            let mut s = SendStream::new(1000);
            s.write(data(10), true);
            send(&mut s, 100).unwrap();
            s.on_acked(0..10, false, |_, _| {});
            assert_eq!(s.reset_at(7, 4, |_, _| panic!("it came back")), Ok(()));
            s.reset_at_sent();
            if fin {
                s.on_acked(0..10, true, |_, _| {})
            } else {
                s.reset_at_acked(4, |_, _| {})
            }
            assert_eq!((s.is_done(), s.is_delivered()), (true, fin));
            assert_eq!(s.reset_at(7, 4, |_, _| {}), Err(ResetAtError::Ended));
        }
    }

    #[test]
    fn reset_returns_memory_with_acked_count() {
        let mut s = SendStream::new(100);
        s.write(data(10), false);
        send(&mut s, 10).unwrap();
        s.on_acked(4..7, false, |_, _| panic!("not complete"));
        let mut back = Vec::new();
        assert!(s.reset(7, |d, n| back.push((d.len(), n))));
        assert_eq!(back, [(10, 3)]);
        assert_eq!(s.reset_due(), Some((7, 10)));
        s.reset_sent();
        assert_eq!(s.reset_due(), None);
        s.reset_lost();
        assert_eq!(s.reset_due(), Some((7, 10)));
        s.reset_sent();
        s.reset_acked();
        assert!(s.is_done() && !s.is_delivered());
    }
}
