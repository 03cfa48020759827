//! The receiving part of a stream (RFC 9000 §3.2).

use std::ops::Range;

use crate::base::range_set::RangeSet;
use crate::mem::PinnedBuf;
use crate::quic::flow::is_update_due;
use crate::quic::memory::{Lender, NoMemory};
use crate::quic::stats::{PlacementStats, StreamStats};
use crate::quic::stream::chunk::Chunk;
use crate::quic::stream::gaps::Gaps;
use crate::quic::stream::placement::{AHEAD, Placement};
use crate::wire::quic::{TransportError, varint};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Data may arrive.
    Receiving,
    /// The peer reset it; the application was or will be informed.
    Reset,
    /// The application has received everything.
    Done,
}

/// Whether low provided space has to be reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Low {
    /// As soon as space is low.
    Armed,
    /// Even if space is not low, as the peer has used all of its credit.
    Blocked,
    /// It was reported; not again until more space is provided.
    Told,
    /// More space was provided since; not before the highest offset exceeds this.
    Topped(u64),
}

/// A reset that takes effect when the first `reliable` bytes were delivered
/// (draft-ietf-quic-reliable-stream-reset-11 §5.3).
#[derive(Clone, Copy, Debug)]
struct ResetAt {
    code: u64,
    reliable: u64,
}

/// The result of accepting a STREAM frame.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Accepted {
    /// Number of bytes by which the highest offset grew, which count against the connection's window.
    pub(crate) new_high: u64,
}

#[derive(Debug)]
pub(crate) struct RecvStream {
    pub(crate) placement: Placement,
    received: RangeSet,
    /// End of the data received without a gap from offset 0.
    contiguous: u64,
    /// Highest offset seen.
    high: u64,
    final_size: Option<u64>,
    /// Pooled: number of bytes that the application consumed.
    consumed: u64,
    /// The limit announced to the peer.
    announced: u64,
    /// The initial window.
    window: u64,
    /// The sliding window of a pooled stream, at least as large.
    sliding: u64,
    state: State,
    stop_code: Option<u64>,
    stop_due: bool,
    /// Whether MAX_STREAM_DATA has to be sent (again).
    credit_due: bool,
    low: Low,
    placed: PlacementStats,
    reset_at: Option<Box<ResetAt>>,
}

impl RecvStream {
    /// `window` is the one announced in the transport parameters for this kind of stream.
    pub(crate) fn new(window: u64) -> Self {
        Self {
            placement: Placement::default(),
            received: RangeSet::default(),
            contiguous: 0,
            high: 0,
            final_size: None,
            consumed: 0,
            announced: window,
            window,
            sliding: window,
            state: State::Receiving,
            stop_code: None,
            stop_due: false,
            credit_due: false,
            low: Low::Armed,
            placed: PlacementStats::default(),
            reset_at: None,
        }
    }

    /// Resets everything but its memory; it has no window then.
    pub(crate) fn clear(&mut self) {
        let Self {
            placement,
            received,
            contiguous,
            high,
            final_size,
            consumed,
            announced,
            window,
            sliding,
            state,
            stop_code,
            stop_due,
            credit_due,
            low,
            placed,
            reset_at,
        } = self;
        placement.renew();
        received.clear();
        (*contiguous, *high, *final_size, *consumed, *announced) = (0, 0, None, 0, 0);
        (*window, *sliding) = (0, 0);
        (*state, *stop_code, *stop_due, *credit_due) = (State::Receiving, None, false, false);
        (*low, *placed, *reset_at) = (Low::Armed, PlacementStats::default(), None);
    }

    /// Sets the window of a cleared stream.
    pub(crate) fn set_window(&mut self, window: u64) {
        (self.announced, self.window, self.sliding) = (window, window, window);
    }

    /// Changes the sliding window to `window`, or the initial one if that is more. One of which less than half was ever
    /// read stays as it is; in particular, a stream for which buffers are to be provided is promised nothing.
    #[inline]
    pub(crate) fn slide(&mut self, window: u64) {
        if self.consumed > self.window / 2 {
            self.sliding = self.window.max(window);
        }
    }

    /// End of the data received without a gap, as far as the application has provided memory for it.
    pub(crate) fn contiguous(&self) -> u64 {
        match &self.placement {
            Placement::Provided(provided) => self.contiguous.min(provided.end()),
            _ => self.contiguous,
        }
    }

    /// Whether the byte after the last provided one was received.
    fn is_ahead(&self) -> bool {
        matches!(&self.placement, Placement::Provided(provided) if provided.is_ahead())
    }

    /// Offset of the byte that is accepted although no buffer was provided for it; the maximum number if there is none.
    pub(crate) fn ahead_at(&self) -> u64 {
        match &self.placement {
            Placement::Provided(provided) => provided.end(),
            _ => u64::MAX,
        }
    }

    pub(crate) fn high(&self) -> u64 {
        self.high
    }

    /// The limit announced to the peer.
    pub(crate) fn announced(&self) -> u64 {
        self.announced
    }

    pub(crate) fn final_size(&self) -> Option<u64> {
        self.final_size
    }

    pub(crate) fn is_provided(&self) -> bool {
        matches!(self.placement, Placement::Provided(_))
    }

    pub(crate) fn is_pooled(&self) -> bool {
        matches!(self.placement, Placement::Pooled(_))
    }

    pub(crate) fn is_receiving(&self) -> bool {
        self.state == State::Receiving
    }

    /// Whether nothing more will happen on this part: the application has all of the data, or knows of the reset.
    pub(crate) fn is_done(&self) -> bool {
        self.state != State::Receiving
    }

    /// Checks a STREAM frame against flow control and the final size (RFC 9000 §4.1, §4.5). Shortens `range` to what is
    /// still of interest.
    pub(crate) fn accept(&mut self, range: &mut Range<u64>, fin: bool) -> Result<Accepted, TransportError> {
        if range.end > varint::MAX {
            return Err(TransportError::FLOW_CONTROL_ERROR);
        }
        self.check_end(range, fin)?;
        if fin && range.end < self.high {
            return Err(TransportError::FINAL_SIZE_ERROR);
        }
        if range.end > self.announced {
            return Err(TransportError::FLOW_CONTROL_ERROR);
        }
        if fin {
            self.final_size = Some(range.end);
            // The peer needs no more credit (RFC 9000 §13.3).
            self.credit_due = false;
        }
        let new_high = range.end.saturating_sub(self.high);
        self.high = self.high.max(range.end);
        if self.final_size.is_some()
            && let Some(at) = &self.reset_at
        {
            range.end = range.end.min(at.reliable.max(range.start));
        }
        Ok(Accepted { new_high })
    }

    /// Checks a frame that ends at the end of `range`, and the stream with it if `fin`, against the final size, which
    /// never changes. This applies to parts that have ended as well (RFC 9000 §4.5).
    #[inline]
    pub(crate) fn check_end(&self, range: &Range<u64>, fin: bool) -> Result<(), TransportError> {
        match self.final_size {
            Some(size) if range.end > size || (fin && range.end != size) => Err(TransportError::FINAL_SIZE_ERROR),
            _ => Ok(()),
        }
    }

    /// Places the parts of `range` that were not received before: calls `fill(stream offset, memory)` for each piece.
    /// On an error, there was not enough memory: parts in order may have been placed, others were not. `gaps` is the
    /// connection's.
    pub(crate) fn place(
        &mut self,
        mut range: Range<u64>,
        lender: impl Lender,
        gaps: &mut Gaps,
        mut fill: impl FnMut(u64, &mut [u8]),
    ) -> Result<(), NoMemory> {
        if self.state != State::Receiving || range.is_empty() {
            return Ok(());
        }
        if gaps.is_full() && self.scatters(&range) {
            return Err(NoMemory);
        }
        let reserved = self.placement.reserve(&range, self.contiguous, &self.received, lender);
        if reserved.is_err() {
            // The peer may always retransmit the same range, so as many of the next bytes in order are accepted as fit.
            range.end = self.placement.end_in_order(&range, self.contiguous);
            if range.is_empty() {
                return reserved;
            }
        }
        // The common case, after all data received so far, needs no search for gaps.
        let last = self.received.last();
        if last.as_ref().is_none_or(|last| last.end <= range.start) {
            self.placement.place(range.clone(), fill);
        } else {
            for missing in self.received.missing_in(range.clone()) {
                self.placement.place(missing, &mut fill);
            }
        }
        if last.is_some_and(|last| last.end == range.start) {
            self.received.insert(range);
        } else {
            let before = self.received.heap_bytes();
            self.received.insert(range);
            gaps.changed(before, self.received.heap_bytes());
        }
        if let Some(first) = self.received.first().filter(|r| r.start == 0) {
            self.contiguous = first.end;
        }
        if self.is_ahead() {
            self.space_missing();
        }
        reserved
    }

    /// The offset of the next bytes in order, and the memory available for them, as far as the peer may send. `None`
    /// unless everything that has arrived lies before them without a gap, and the end of the stream is unknown.
    pub(crate) fn next_in_order(&mut self) -> Option<(u64, &mut [u8])> {
        let at = self.contiguous;
        let plain = self.state == State::Receiving && self.final_size.is_none();
        if !plain || self.received.len() != 1 || self.received.last() != Some(0..at) {
            return None;
        }
        let most = usize::try_from(self.announced.saturating_sub(at)).unwrap_or(usize::MAX);
        let memory = self.placement.memory_at(at)?;
        let len = memory.len().min(most);
        Some((at, &mut memory[..len]))
    }

    /// Records that the bytes up to `to` have arrived in order, in the memory that [`RecvStream::next_in_order`]
    /// returned. Returns by how much the highest offset has grown.
    pub(crate) fn came_in_order(&mut self, to: u64) -> u64 {
        self.received.insert(self.contiguous..to);
        self.contiguous = to;
        let new_high = to.saturating_sub(self.high);
        self.high = self.high.max(to);
        new_high
    }

    /// Size of the list of received ranges, in bytes.
    pub(crate) fn gap_bytes(&self) -> usize {
        self.received.heap_bytes()
    }

    /// Whether `range` would add a range. The next bytes in order never do, so they are always accepted.
    fn scatters(&self, range: &Range<u64>) -> bool {
        range.start != self.contiguous && self.received.is_apart(range)
    }

    /// Counts placed bytes.
    pub(crate) fn add_placed(&mut self, placed: &PlacementStats) {
        self.placed.add(placed);
    }

    /// The stream's bytes by kind of placement.
    pub(crate) fn placed(&self) -> PlacementStats {
        self.placed
    }

    /// Fills in the counters of this part.
    pub(crate) fn add_stats(&self, stats: &mut StreamStats) {
        stats.placement = self.placed;
        stats.contiguous = self.contiguous();
        stats.consumed = self.consumed;
        stats.provided = self.provided_end();
        stats.announced = self.announced;
        stats.size = self.final_size;
    }

    /// Handles RESET_STREAM with the final size `size`. Returns the number of bytes by which the highest offset grows
    /// (RFC 9000 §4.5).
    pub(crate) fn reset(&mut self, size: u64) -> Result<u64, TransportError> {
        if self.final_size.is_some_and(|known| known != size) || size < self.high {
            return Err(TransportError::FINAL_SIZE_ERROR);
        }
        if size > self.announced {
            return Err(TransportError::FLOW_CONTROL_ERROR);
        }
        let new_high = size - self.high;
        self.high = size;
        self.final_size = Some(size);
        Ok(new_high)
    }

    /// Handles RESET_STREAM_AT with a checked code (draft-ietf-quic-reliable-stream-reset-11 §5.2): the smallest reliable
    /// size counts. Returns the number of bytes by which the highest offset grows.
    pub(crate) fn reset_at(&mut self, code: u64, size: u64, reliable: u64) -> Result<u64, TransportError> {
        let new_high = self.reset(size)?;
        let at = self.reset_at.get_or_insert_with(|| Box::new(ResetAt { code, reliable }));
        at.reliable = at.reliable.min(reliable);
        Ok(new_high)
    }

    /// Checks the code of a reset against that of an earlier one (draft-ietf-quic-reliable-stream-reset-11 §5.2).
    pub(crate) fn check_code(&self, code: u64) -> Result<(), TransportError> {
        let same = self.reset_at.as_ref().is_none_or(|at| at.code == code);
        if same { Ok(()) } else { Err(TransportError::STREAM_STATE_ERROR) }
    }

    /// Whether the stream ends with a reset after some bytes.
    pub(crate) fn is_resetting(&self) -> bool {
        self.reset_at.is_some()
    }

    /// The code of the reset, once everything that is reliable was delivered, and everything in order was read.
    pub(crate) fn reset_ready(&self) -> Option<u64> {
        let at = self.reset_at.as_ref().filter(|at| self.contiguous() >= at.reliable)?;
        let read = !self.is_pooled() || self.consumed == self.contiguous;
        (read && self.state == State::Receiving).then_some(at.code)
    }

    /// Where the data ends that is to be delivered, if known.
    fn needed(&self) -> Option<u64> {
        self.reset_at.as_ref().map(|at| at.reliable).or(self.final_size)
    }

    /// Ends the stream by a reset; data not yet delivered is discarded (RFC 9000 §3.2).
    pub(crate) fn mark_reset(&mut self) {
        self.state = State::Reset;
        self.stop_due = false;
        self.credit_due = false;
        if let Placement::Pooled(pooled) = &mut self.placement {
            pooled.clear();
        }
    }

    /// Whether all data up to the final size was received and placed.
    pub(crate) fn is_complete(&self) -> bool {
        self.final_size == Some(self.contiguous) && !self.is_ahead() && self.reset_at.is_none()
    }

    pub(crate) fn mark_done(&mut self) {
        self.state = State::Done;
        self.credit_due = false;
        self.stop_due = false;
    }

    // Provided buffers.

    /// Makes this a stream with provided buffers; false if pooled data has already arrived.
    pub(crate) fn make_provided(&mut self) -> bool {
        match &self.placement {
            Placement::Provided(_) => true,
            Placement::Pooled(_) if self.high == 0 && self.state == State::Receiving => {
                self.placement.make_provided();
                true
            }
            _ => false,
        }
    }

    /// Adds provided space; a raised limit is announced to the peer.
    pub(crate) fn provide(&mut self, buf: PinnedBuf) {
        if let Placement::Provided(provided) = &mut self.placement {
            provided.push(buf);
            match self.low {
                Low::Told => self.low = Low::Topped(self.high),
                // The limit at which the peer was blocked is outdated.
                Low::Blocked if provided.end() + AHEAD > self.announced => self.low = Low::Armed,
                _ => {}
            }
            // If only the byte ahead would exceed what was already promised, it is announced when the peer gets there,
            // if it does.
            let more = provided.end() > self.announced || self.announced > self.window;
            if more && self.final_size.is_none() {
                self.credit_due = true;
            }
        }
    }

    /// End of provided space.
    pub(crate) fn provided_end(&self) -> u64 {
        match &self.placement {
            Placement::Provided(provided) => provided.end(),
            _ => 0,
        }
    }

    /// Takes the next full buffer, with its stream offset.
    pub(crate) fn pop_filled(&mut self) -> Option<(u64, PinnedBuf)> {
        match &mut self.placement {
            Placement::Provided(provided) => provided.pop_filled(self.contiguous),
            _ => None,
        }
    }

    /// Takes the next buffer in any case: stream offset, memory, number of contiguous valid bytes.
    pub(crate) fn pop_any(&mut self) -> Option<(u64, PinnedBuf, usize)> {
        let Placement::Provided(provided) = &mut self.placement else { return None };
        let (start, buf) = provided.pop()?;
        let valid = self.contiguous.saturating_sub(start).min(buf.len() as u64) as usize;
        Some((start, buf, valid))
    }

    /// The space left and the number of bytes wanted, if provided space is below `mark` and that has to be reported. It
    /// is to be filled up to `aim`, which is not less.
    ///
    /// It is not reported before half of the provided space is filled, whatever the mark: most small messages fit into
    /// the one buffer provided for them, and whoever provided it knows its size.
    pub(crate) fn take_low(&mut self, mark: u64, aim: u64) -> Option<(u64, u64)> {
        let missing = self.needed().map(|size| size.saturating_sub(self.provided_end()));
        if !self.is_provided() || self.state != State::Receiving || missing == Some(0) {
            return None;
        }
        let left = self.provided_end().saturating_sub(self.high);
        let tell = match self.low {
            Low::Armed => left < mark && left < (self.provided_end() / 2).max(1),
            Low::Blocked => true,
            Low::Told => false,
            Low::Topped(high) => left < mark && self.high > high,
        };
        if tell {
            self.low = Low::Told;
        } else if left >= mark {
            self.low = Low::Armed;
        }
        // The peer may have been promised more than was provided.
        let promised = self.announced.saturating_sub(self.provided_end());
        let wanted = missing.unwrap_or(aim.saturating_sub(left).max(promised).max(1));
        tell.then_some((left, wanted))
    }

    /// Handles STREAM_DATA_BLOCKED at `limit`: reports to the application if the peer knows the current limit.
    pub(crate) fn peer_blocked(&mut self, limit: u64) {
        if self.is_provided() && limit >= self.announced && self.announced > self.provided_end() {
            self.low = Low::Blocked;
        }
        // The peer does not know the current limit (RFC 9000 §4.1).
        if limit < self.limit().max(self.announced) && self.final_size.is_none() {
            self.credit_due = true;
        }
    }

    /// Whether the peer has more data than space was provided: it has sent it, is blocked, or has announced an end
    /// beyond.
    pub(crate) fn is_out_of_space(&self) -> bool {
        let beyond = self.needed().is_some_and(|size| size > self.provided_end());
        self.is_provided() && (self.low == Low::Blocked || self.is_ahead() || beyond)
    }

    /// Records that data arrived for which no space is provided, although the peer was promised some.
    pub(crate) fn space_missing(&mut self) {
        if self.is_provided() && self.low != Low::Told {
            self.low = Low::Blocked;
        }
    }

    // Pooled chunks.

    /// The next contiguous bytes of a pooled stream, or those in the first provided buffer, in place.
    pub(crate) fn peek(&self) -> &[u8] {
        match &self.placement {
            Placement::Provided(provided) => provided.peek(self.contiguous),
            Placement::Pooled(pooled) if self.state == State::Receiving => pooled.peek(self.consumed, self.contiguous),
            _ => &[],
        }
    }

    /// Consumes `n` bytes of a pooled stream. Returns the number of bytes actually consumed.
    pub(crate) fn consume(&mut self, n: u64) -> u64 {
        let n = n.min(self.contiguous - self.consumed);
        let Placement::Pooled(pooled) = &mut self.placement else { return 0 };
        if self.state != State::Receiving {
            return 0;
        }
        self.consumed += n;
        pooled.release_below(self.consumed);
        if n > 0 && self.received.last().is_some_and(|last| last.end == self.consumed) {
            pooled.rest(self.consumed);
        }
        self.after_consumption(n);
        n
    }

    /// Takes the next contiguous bytes of a pooled stream, as far as they lie in one chunk; they count as consumed. The
    /// end of the stream is reported with the last bytes, or with an empty chunk if they were already taken.
    pub(crate) fn take(&mut self) -> Option<Chunk> {
        let read = self.is_read();
        let Placement::Pooled(pooled) = &mut self.placement else { return None };
        if self.state != State::Receiving {
            return None;
        }
        let offset = self.consumed;
        // The rest of a chunk that holds nothing else is not kept, as it may be long before more data arrives.
        let last = self.received.last().is_none_or(|last| last.end == self.contiguous);
        let (buf, skip) = match pooled.take(offset, self.contiguous, last) {
            Some(taken) => taken,
            None if read => (PinnedBuf::unpinned(0), 0),
            None => return None,
        };
        let n = (buf.len() - skip) as u64;
        self.consumed += n;
        if n > 0 && last && self.consumed == self.contiguous {
            pooled.rest(self.consumed);
        }
        self.after_consumption(n);
        Some(Chunk::new(buf, skip, offset, self.is_read()))
    }

    /// Handles the consumption of `n` more bytes of a pooled stream: it may be done, or credit may be due.
    fn after_consumption(&mut self, n: u64) {
        let read = self.is_read();
        let Placement::Pooled(pooled) = &mut self.placement else { return };
        if read {
            pooled.clear();
            self.state = State::Done;
        } else if n > 0 {
            self.note_credit();
        }
    }

    /// Checks whether new credit has to be announced to the peer; returns whether that is so.
    pub(crate) fn note_credit(&mut self) -> bool {
        let due = match &self.placement {
            // A peer that was promised exactly this much learns of the byte ahead before it may have to wait for it,
            // but not if its data is short.
            Placement::Provided(provided) => self.announced <= provided.end() && self.high >= self.announced / 2,
            _ => is_update_due(self.high, self.announced, self.limit()),
        };
        self.credit_due |= due && self.final_size.is_none();
        self.credit_due
    }

    /// Number of bytes of pool memory held, without lent chunks.
    pub(crate) fn held(&self) -> usize {
        if let Placement::Pooled(pooled) = &self.placement { pooled.held() } else { 0 }
    }

    /// Whether all bytes of a pooled stream were consumed and its end was seen.
    pub(crate) fn is_read(&self) -> bool {
        self.final_size == Some(self.consumed) && self.reset_at.is_none()
    }

    pub(crate) fn consumed(&self) -> u64 {
        self.consumed
    }

    /// Whether a pooled stream has bytes in order, or the end, that the application did not get yet.
    pub(crate) fn is_readable(&self) -> bool {
        self.is_pooled() && self.state == State::Receiving && (self.contiguous > self.consumed || self.is_complete())
    }

    // Credit and STOP_SENDING.

    /// The limit that could be announced now.
    fn limit(&self) -> u64 {
        match &self.placement {
            Placement::Provided(provided) if provided.end() > 0 => (provided.end() + AHEAD).min(varint::MAX),
            Placement::Provided(_) => 0,
            Placement::Pooled(_) => self.consumed.saturating_add(self.sliding).min(varint::MAX),
            Placement::Discard => self.announced,
        }
    }

    /// The limit for a MAX_STREAM_DATA frame to send.
    pub(crate) fn credit_due(&self) -> Option<u64> {
        (self.credit_due && self.state == State::Receiving).then(|| self.limit().max(self.announced))
    }

    /// Whether the peer has used all of its credit, so that it may be waiting for more.
    pub(crate) fn owes_credit(&self) -> bool {
        let open = self.state == State::Receiving && self.stop_code.is_none() && self.final_size.is_none();
        open && self.high > 0 && self.high >= self.announced
    }

    /// Whether data that the peer may send has not come yet.
    pub(crate) fn expects_data(&self) -> bool {
        let open = self.state == State::Receiving && self.stop_code.is_none();
        open && self.contiguous() < self.needed().unwrap_or(self.announced)
    }

    pub(crate) fn credit_sent(&mut self, limit: u64) {
        self.announced = self.announced.max(limit);
        self.credit_due = false;
    }

    pub(crate) fn credit_lost(&mut self) {
        if self.state == State::Receiving && self.final_size.is_none() {
            self.credit_due = true;
        }
    }

    /// Repeats what the peer was told of this part, as that may have come too early.
    pub(crate) fn tell_again(&mut self) {
        if self.announced > self.window {
            self.credit_lost();
        }
        self.stop_lost();
    }

    /// Whether a frame about this part has to be sent.
    pub(crate) fn has_due(&self) -> bool {
        self.credit_due || self.stop_due
    }

    /// Stops the stream for the application. False if it has already ended.
    pub(crate) fn stop(&mut self, code: u64) -> bool {
        if self.state != State::Receiving || self.stop_code.is_some() {
            return false;
        }
        self.stop_code = Some(code);
        // If all data is here, there is nothing to stop (RFC 9000 §3.5).
        self.stop_due = !self.is_complete();
        true
    }

    pub(crate) fn stop_due(&self) -> Option<u64> {
        if self.stop_due { self.stop_code } else { None }
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.stop_code.is_some()
    }

    pub(crate) fn stop_sent(&mut self) {
        self.stop_due = false;
    }

    pub(crate) fn stop_lost(&mut self) {
        self.stop_due = self.stop_code.is_some() && self.state == State::Receiving && !self.is_complete();
    }
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
