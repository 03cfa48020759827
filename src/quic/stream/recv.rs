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
    /// The peer reset it; the application has been or will be told.
    Reset,
    /// The application has everything.
    Done,
}

/// Whether the application has to be told that provided space is low.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Low {
    /// As soon as it is.
    Armed,
    /// Also when it is not: the peer has sent all it may.
    Blocked,
    /// It was told. Nothing new until it provides more.
    Told,
    /// It has provided more since: not before the highest offset is beyond this.
    Topped(u64),
}

/// What accepting a STREAM frame's range came to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Accepted {
    /// Bytes by which the highest offset grew: they count against the connection's window.
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
    /// Pooled: bytes that the application consumed.
    consumed: u64,
    /// The limit that the peer was told.
    announced: u64,
    /// Sliding window of a pooled stream.
    window: u64,
    state: State,
    stop_code: Option<u64>,
    stop_due: bool,
    /// MAX_STREAM_DATA is to be sent (again).
    credit_due: bool,
    low: Low,
    placed: PlacementStats,
}

impl RecvStream {
    /// `window` is what the transport parameters announced for this kind of stream.
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
            state: State::Receiving,
            stop_code: None,
            stop_due: false,
            credit_due: false,
            low: Low::Armed,
            placed: PlacementStats::default(),
        }
    }

    /// Becomes as new but for its memory, and without a window.
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
            state,
            stop_code,
            stop_due,
            credit_due,
            low,
            placed,
        } = self;
        placement.renew();
        received.clear();
        (*contiguous, *high, *final_size, *consumed, *announced, *window) = (0, 0, None, 0, 0, 0);
        (*state, *stop_code, *stop_due, *credit_due) = (State::Receiving, None, false, false);
        (*low, *placed) = (Low::Armed, PlacementStats::default());
    }

    /// The window of a stream that is as new.
    pub(crate) fn set_window(&mut self, window: u64) {
        (self.announced, self.window) = (window, window);
    }

    /// End of the data received without a gap, as far as there is memory of the application's for it.
    pub(crate) fn contiguous(&self) -> u64 {
        match &self.placement {
            Placement::Provided(provided) => self.contiguous.min(provided.end()),
            _ => self.contiguous,
        }
    }

    /// Whether the byte behind the last provided one has come.
    fn is_ahead(&self) -> bool {
        matches!(&self.placement, Placement::Provided(provided) if provided.is_ahead())
    }

    /// Offset of the byte that has room although no buffer was provided for it; none has the largest number.
    pub(crate) fn ahead_at(&self) -> u64 {
        match &self.placement {
            Placement::Provided(provided) => provided.end(),
            _ => u64::MAX,
        }
    }

    pub(crate) fn high(&self) -> u64 {
        self.high
    }

    /// The limit that the peer was told.
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

    /// Nothing more will come of this part: the application has it all, or knows of the reset.
    pub(crate) fn is_done(&self) -> bool {
        self.state != State::Receiving
    }

    /// Checks a STREAM frame against flow control and the final size (RFC 9000 §4.1, §4.5).
    pub(crate) fn accept(&mut self, range: &Range<u64>, fin: bool) -> Result<Accepted, TransportError> {
        if range.end > varint::MAX {
            return Err(TransportError::FLOW_CONTROL_ERROR);
        }
        if let Some(size) = self.final_size {
            if range.end > size || (fin && range.end != size) {
                return Err(TransportError::FINAL_SIZE_ERROR);
            }
        } else if fin && range.end < self.high {
            return Err(TransportError::FINAL_SIZE_ERROR);
        }
        if range.end > self.announced {
            return Err(TransportError::FLOW_CONTROL_ERROR);
        }
        if fin {
            self.final_size = Some(range.end);
        }
        let new_high = range.end.saturating_sub(self.high);
        self.high = self.high.max(range.end);
        Ok(Accepted { new_high })
    }

    /// Places the parts of `range` that are not there yet: `fill(stream offset, memory)` for each piece. An error says that
    /// there was no memory for all of them: then those in order may have been placed, and the others were not. `gaps` is the
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
            // The peer may not cut them otherwise when it sends them again: of the next bytes in order goes in what can.
            range.end = self.placement.end_in_order(&range, self.contiguous);
            if range.is_empty() {
                return reserved;
            }
        }
        // Behind everything that is here is the common case and needs no look at the gaps.
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

    /// Memory of the list of what was received, in bytes.
    pub(crate) fn gap_bytes(&self) -> usize {
        self.received.heap_bytes()
    }

    /// Whether `range` would be one more range. The next bytes in order never are: they always get in.
    fn scatters(&self, range: &Range<u64>) -> bool {
        range.start != self.contiguous && self.received.is_apart(range)
    }

    /// Counts bytes that were placed.
    pub(crate) fn add_placed(&mut self, placed: &PlacementStats) {
        self.placed.add(placed);
    }

    /// The stream's bytes by the way they took.
    pub(crate) fn placed(&self) -> PlacementStats {
        self.placed
    }

    /// Fills in this part's counters.
    pub(crate) fn add_stats(&self, stats: &mut StreamStats) {
        stats.placement = self.placed;
        stats.contiguous = self.contiguous();
        stats.consumed = self.consumed;
        stats.provided = self.provided_end();
        stats.announced = self.announced;
        stats.size = self.final_size;
    }

    /// A RESET_STREAM with `size`: how many bytes it adds to the highest offset (RFC 9000 §4.5).
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

    /// The stream ends by a reset; data that has not been handed over is void (RFC 9000 §3.2).
    pub(crate) fn mark_reset(&mut self) {
        self.state = State::Reset;
        self.stop_due = false;
        self.credit_due = false;
        if let Placement::Pooled(pooled) = &mut self.placement {
            pooled.clear();
        }
    }

    /// All data up to the final size is there, and in its place.
    pub(crate) fn is_complete(&self) -> bool {
        self.final_size == Some(self.contiguous) && !self.is_ahead()
    }

    pub(crate) fn mark_done(&mut self) {
        self.state = State::Done;
        self.credit_due = false;
        self.stop_due = false;
    }

    // Provided buffers.

    /// Turns the stream into one with provided buffers; false when pooled data has arrived already.
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

    /// Adds provided space; the peer is told if that raises its limit.
    pub(crate) fn provide(&mut self, buf: PinnedBuf) {
        if let Placement::Provided(provided) = &mut self.placement {
            provided.push(buf);
            match self.low {
                Low::Told => self.low = Low::Topped(self.high),
                // What it was blocked at is no limit any more.
                Low::Blocked if provided.end() + AHEAD > self.announced => self.low = Low::Armed,
                _ => {}
            }
            // What only the byte ahead would add to a promise that was kept is told when the peer gets there, if it does.
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

    /// The next buffer that is full, with its stream offset.
    pub(crate) fn pop_filled(&mut self) -> Option<(u64, PinnedBuf)> {
        match &mut self.placement {
            Placement::Provided(provided) => provided.pop_filled(self.contiguous),
            _ => None,
        }
    }

    /// The next buffer whatever is in it: stream offset, memory, contiguous valid bytes.
    pub(crate) fn pop_any(&mut self) -> Option<(u64, PinnedBuf, usize)> {
        let Placement::Provided(provided) = &mut self.placement else { return None };
        let (start, buf) = provided.pop()?;
        let valid = self.contiguous.saturating_sub(start).min(buf.len() as u64) as usize;
        Some((start, buf, valid))
    }

    /// (space left, bytes wanted) when provided space is below `mark` and the application has to be told.
    ///
    /// It is not told before half of what was provided is filled, whatever the mark: most small messages fit into the one
    /// buffer that was provided for them, and who provided it knows its size.
    pub(crate) fn take_low(&mut self, mark: u64) -> Option<(u64, u64)> {
        let missing = self.final_size.map(|size| size.saturating_sub(self.provided_end()));
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
        let wanted = missing.unwrap_or(mark.saturating_sub(left).max(promised).max(1));
        tell.then_some((left, wanted))
    }

    /// STREAM_DATA_BLOCKED at `limit`: the application is told if the peer has heard of all that it has provided.
    pub(crate) fn peer_blocked(&mut self, limit: u64) {
        if self.is_provided() && limit >= self.announced && self.announced > self.provided_end() {
            self.low = Low::Blocked;
        }
        // It has not heard of ours (RFC 9000 §4.1).
        if limit < self.limit().max(self.announced) && self.final_size.is_none() {
            self.credit_due = true;
        }
    }

    /// The peer has more than was provided: it has sent it, has been kept from that, or has named an end beyond.
    pub(crate) fn is_out_of_space(&self) -> bool {
        let beyond = self.final_size.is_some_and(|size| size > self.provided_end());
        self.is_provided() && (self.low == Low::Blocked || self.is_ahead() || beyond)
    }

    /// Data arrived that finds no provided space, although the peer was promised some.
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

    /// The application is done with `n` bytes of a pooled stream. Returns how many that really were.
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

    /// Moves the next contiguous bytes of a pooled stream out, as far as they lie in one chunk; they count as
    /// consumed. The end of the stream is told with the last bytes, or without any when they are gone already.
    pub(crate) fn take(&mut self) -> Option<Chunk> {
        let Placement::Pooled(pooled) = &mut self.placement else { return None };
        if self.state != State::Receiving {
            return None;
        }
        let offset = self.consumed;
        // The rest of a chunk that holds nothing else is not kept: it may be long before more comes.
        let last = self.received.last().is_none_or(|last| last.end == self.contiguous);
        let (buf, skip) = match pooled.take(offset, self.contiguous, last) {
            Some(taken) => taken,
            None if self.final_size == Some(offset) => (PinnedBuf::unpinned(0), 0),
            None => return None,
        };
        let n = (buf.len() - skip) as u64;
        self.consumed += n;
        if n > 0 && last && self.consumed == self.contiguous {
            pooled.rest(self.consumed);
        }
        self.after_consumption(n);
        Some(Chunk::new(buf, skip, offset, self.final_size == Some(self.consumed)))
    }

    /// `n` more bytes of a pooled stream were consumed: it may be done, or credit due.
    fn after_consumption(&mut self, n: u64) {
        let Placement::Pooled(pooled) = &mut self.placement else { return };
        if self.final_size == Some(self.consumed) {
            pooled.clear();
            self.state = State::Done;
        } else if n > 0 {
            self.note_credit();
        }
    }

    /// The peer may have used up, or may be given, so much that it has to be told of more. True if so.
    pub(crate) fn note_credit(&mut self) -> bool {
        let due = match &self.placement {
            // A peer that was promised exactly this much learns of the byte ahead before it may have to wait for that, but
            // not if what it sends is short.
            Placement::Provided(provided) => self.announced <= provided.end() && self.high >= self.announced / 2,
            _ => is_update_due(self.high, self.announced, self.limit()),
        };
        self.credit_due |= due && self.final_size.is_none();
        self.credit_due
    }

    /// Bytes of the pool's memory that it holds, those on loan not counted.
    pub(crate) fn held(&self) -> usize {
        if let Placement::Pooled(pooled) = &self.placement { pooled.held() } else { 0 }
    }

    pub(crate) fn consumed(&self) -> u64 {
        self.consumed
    }

    /// Whether a pooled stream holds something that the application did not get yet: bytes in order, or the end.
    pub(crate) fn is_readable(&self) -> bool {
        self.is_pooled() && self.state == State::Receiving && (self.contiguous > self.consumed || self.is_complete())
    }

    // Credit and STOP_SENDING.

    /// The limit that could be announced now.
    fn limit(&self) -> u64 {
        match &self.placement {
            Placement::Provided(provided) if provided.end() > 0 => (provided.end() + AHEAD).min(varint::MAX),
            Placement::Provided(_) => 0,
            Placement::Pooled(_) => (self.consumed + self.window).min(varint::MAX),
            Placement::Discard => self.announced,
        }
    }

    /// The limit of a MAX_STREAM_DATA frame that has to go out.
    pub(crate) fn credit_due(&self) -> Option<u64> {
        (self.credit_due && self.state == State::Receiving).then(|| self.limit().max(self.announced))
    }

    /// The peer has used all that it was given, and may be waiting for more.
    pub(crate) fn owes_credit(&self) -> bool {
        let open = self.state == State::Receiving && self.stop_code.is_none() && self.final_size.is_none();
        open && self.high > 0 && self.high >= self.announced
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

    /// What the peer was told of this part was told too early: it may not have listened.
    pub(crate) fn tell_again(&mut self) {
        if self.announced > self.window {
            self.credit_lost();
        }
        self.stop_lost();
    }

    /// Whether the peer has to be told something of this part.
    pub(crate) fn has_due(&self) -> bool {
        self.credit_due || self.stop_due
    }

    /// The application wants no more. False if the stream has ended already.
    pub(crate) fn stop(&mut self, code: u64) -> bool {
        if self.state != State::Receiving || self.stop_code.is_some() {
            return false;
        }
        self.stop_code = Some(code);
        // With all data here, there is nothing to be stopped (RFC 9000 §3.5).
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
