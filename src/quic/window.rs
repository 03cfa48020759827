//! How large receive windows have to be (RFC 9000 §4.1): they follow what a connection takes in within a round trip.
//!
//! A window that is smaller than the rate of the path times its round-trip time makes the peer wait, and one that is much
//! larger promises memory for nothing. The receiver can measure both, as in TCP's dynamic right-sizing (Fisk and Feng,
//! 2001): what has arrived within a round trip and was consumed is rate times time, as far as the sender's congestion
//! window allows that already. While that window grows, it doubles once a round trip at most (RFC 9002 §7.3.1), so
//! windows of several times what was measured are never the limit, and what is measured next is more.
//!
//! Only what the application has consumed counts, so the windows of an application that does not read stay as they are.
//! Nor does it count that much is consumed at once when a gap is filled: in each round, the smaller one of what was
//! received and what was consumed counts.
//!
//! Windows are promises that cannot be revoked: a smaller window means that the limit is not raised while bytes are
//! consumed. They become smaller when a connection has taken in less for one to two [`EPOCH`]s, or when the pool has less
//! memory ([`quic::memory`](crate::quic::memory)).
#![forbid(unsafe_code)]

use crate::base::time::{Duration, Instant};

/// The connection's window, in round trips. MAX_DATA is sent when half of a window is used, so the peer always has as
/// much credit as is needed for four and a half times the smallest round-trip time: two of these if the path has a queue
/// of as much as is in flight, and twice as many while the rate doubles.
const CONNECTION: u64 = 9;

/// The same for a stream: two thirds, so that a stream that is not read leaves enough for the others.
const STREAM: u64 = 6;

/// Provided buffers are memory and not a promise, so there are fewer of them. More are asked for when this many round
/// trips are left,
const LOW: u64 = 3;

/// so many that there is space for these.
const AIM: u64 = 4;

/// What windows are at least derived from, in time: the granularity of bursts and of applications.
const LEAST_ROUND: Duration = Duration::from_micros(100);

/// The estimate is the maximum of the current epoch and the one before; an epoch has at least this length,
const EPOCH: Duration = Duration::from_secs(2);

/// and this many rounds.
const EPOCH_ROUNDS: u32 = 16;

/// Connections that have taken in less have no estimate.
pub(crate) const NOTABLE: u64 = 64 << 10;

/// Bytes of a connection, counted from its beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Received for the first time.
    pub(crate) received: u64,
    /// Consumed by the application, or received into its memory.
    pub(crate) consumed: u64,
}

/// What a connection takes in within a round trip.
#[derive(Clone, Debug)]
pub(crate) struct Intake {
    /// The beginning of this round.
    began: Instant,
    /// Its end, if anything is received or consumed then.
    ends: Instant,
    /// The counts at its beginning.
    from: Counts,
    /// From this number of bytes consumed on, the estimate is too small.
    grows_at: u64,
    /// The most bytes taken in within a round: in this epoch, and in the one before.
    most: [u64; 2],
    epoch_ends: Instant,
}

impl Intake {
    /// Begins to measure; what has been taken in until now was taken in within a round trip of `rtt`, for all that is
    /// known.
    pub(crate) fn new(now: Instant, counts: Counts, rtt: Duration) -> Self {
        let mut new = Self {
            began: now,
            ends: now,
            from: counts,
            grows_at: 0,
            most: [counts.consumed.min(NOTABLE), 0],
            epoch_ends: now + epoch(rtt),
        };
        new.begin_round(now, counts, rtt.max(LEAST_ROUND));
        new
    }

    /// Whether [`Intake::update`] has something to do. This is asked for each ACK frame sent.
    #[inline(always)]
    pub(crate) fn is_due(&self, now: Instant, consumed: u64) -> bool {
        now >= self.ends || consumed >= self.grows_at
    }

    /// Updates the estimate. `rtt` is the smallest round-trip time.
    pub(crate) fn update(&mut self, now: Instant, counts: Counts, rtt: Duration) {
        let rtt = rtt.max(LEAST_ROUND);
        let received = counts.received - self.from.received;
        let bytes = received.min(counts.consumed - self.from.consumed);
        if now < self.ends {
            // The round is not over and has more than any before. Small steps are not worth an update.
            self.most[0] = self.most[0].max(bytes);
            self.grows_at = counts.consumed + self.bytes() / 4 + 1;
            return;
        }
        let time = now.saturating_since(self.began);
        self.most[0] = self.most[0].max(scaled(bytes, rtt, time));
        if now >= self.epoch_ends {
            let idle = now >= self.epoch_ends + epoch(rtt);
            self.most = [0, if idle { scaled(bytes, rtt, time) } else { self.most[0] }];
            self.epoch_ends = now + epoch(rtt);
        }
        self.begin_round(now, counts, rtt);
    }

    fn begin_round(&mut self, now: Instant, counts: Counts, rtt: Duration) {
        (self.began, self.ends, self.from) = (now, now + rtt, counts);
        self.grows_at = counts.consumed.saturating_add(self.bytes() / 4 * 5).saturating_add(1);
    }

    /// The number of bytes taken in within a round trip.
    fn bytes(&self) -> u64 {
        self.most[0].max(self.most[1])
    }

    /// The windows that follow from that.
    pub(crate) fn room(&self) -> Room {
        Room(self.bytes())
    }
}

/// The length of an epoch.
fn epoch(rtt: Duration) -> Duration {
    EPOCH.max(EPOCH_ROUNDS * rtt)
}

/// `bytes` in `time`, as a number of bytes in `part` of it.
fn scaled(bytes: u64, part: Duration, time: Duration) -> u64 {
    if part >= time {
        return bytes;
    }
    (u128::from(bytes) * part.as_nanos() / time.as_nanos()) as u64
}

/// How much room a path needs, in bytes: windows in proportion to a round trip.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Room(u64);

impl Room {
    /// The window of a connection.
    pub(crate) fn connection(self) -> u64 {
        self.0.saturating_mul(CONNECTION)
    }

    /// The window of a stream.
    pub(crate) fn stream(self) -> u64 {
        self.0.saturating_mul(STREAM)
    }

    /// The provided space below which more is asked for, and the space that it is to be filled up to. `mark` is what the
    /// application has set for both; 0 means that it does not want to be asked.
    pub(crate) fn provided(self, mark: u64) -> (u64, u64) {
        match mark {
            0 => (0, 0),
            _ => (mark.max(self.0.saturating_mul(LOW)), mark.max(self.0.saturating_mul(AIM))),
        }
    }
}

#[cfg(test)]
mod tests;
