//! How much memory downloads have for what they receive.

use crate::base::time::{Duration, Instant};

/// More is asked for when less than this is left, or what the path needs if that is more.
pub(super) const LOW_WATER: usize = Space::FIRST / 2;

/// The limits on the size of a buffer. As a buffer comes back when it is full, small ones keep what is held small.
const SIZES: (usize, usize) = (64 << 10, 2 << 20);

/// The number of buffers in which space is provided, within these limits.
const BUFS: usize = 16;

/// On short paths, which need next to no space, a download is given more at a time if it asks more often than this: so
/// much that neither its disk nor a busy CPU delays it.
const OFTEN: Duration = Duration::from_millis(4);

/// The most that is given for that reason, in bytes.
const MOST_AT_ONCE: usize = 32 << 20;

/// Buffers for a download.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Buffers {
    /// The size of each in bytes.
    pub size: usize,
    /// The number of them.
    pub count: usize,
}

/// The space of a download: it begins small, follows what the path needs
/// ([`ReceiveBufferLow`](crate::quic::Event::ReceiveBufferLow)), and is given back in small pieces.
#[derive(Clone, Debug)]
pub struct Space {
    /// Bytes of buffers that the engine has.
    provided: usize,
    /// The number of bytes given at least.
    batch: usize,
    /// When it last asked.
    asked: Option<Instant>,
}

impl Default for Space {
    fn default() -> Self {
        Self { provided: 0, batch: LOW_WATER, asked: None }
    }
}

impl Space {
    /// What a download begins with, in bytes.
    pub const FIRST: usize = 1 << 20;

    /// The download asks for more.
    pub fn asked(&mut self, now: Instant) {
        let Some(before) = self.asked.replace(now) else { return };
        let since = now.saturating_since(before);
        if since < OFTEN {
            self.batch = (2 * self.batch).min(MOST_AT_ONCE);
        } else if since >= 4 * OFTEN {
            self.batch = (self.batch / 2).max(LOW_WATER);
        }
    }

    /// The buffers for a download that wants `wanted` bytes and may have up to `most` in total. There are none if it has
    /// them already; it may have more when some of them have come back.
    pub fn more(&self, wanted: u64, most: usize) -> Buffers {
        let wanted = usize::try_from(wanted).unwrap_or(usize::MAX).max(self.batch);
        match most.max(Self::FIRST).saturating_sub(self.provided).min(wanted) {
            0 => Buffers::default(),
            bytes => buffers(bytes),
        }
    }

    /// Buffers of `bytes` bytes in total were provided.
    pub fn gave(&mut self, bytes: usize) {
        self.provided += bytes;
    }

    /// A buffer of `len` bytes came back.
    pub fn got_back(&mut self, len: usize) {
        self.provided = self.provided.saturating_sub(len);
    }
}

/// Buffers for at least `bytes` bytes.
fn buffers(bytes: usize) -> Buffers {
    let (least, most) = SIZES;
    let size = (bytes / BUFS).clamp(least, most).next_power_of_two();
    Buffers { size, count: bytes.div_ceil(size) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(of: Buffers) -> usize {
        of.size * of.count
    }

    fn at(micros: u64) -> Instant {
        Instant::ZERO + Duration::from_micros(micros)
    }

    #[test]
    fn buffers_are_small_unless_there_would_be_many() {
        assert_eq!(Space::default().more(1 << 20, usize::MAX), Buffers { size: 64 << 10, count: 16 });
        assert_eq!(buffers(1), Buffers { size: 64 << 10, count: 1 });
        assert_eq!(buffers(4 << 20), Buffers { size: 256 << 10, count: 16 });
        assert_eq!(buffers(50_000_000), Buffers { size: 2 << 20, count: 24 });
    }

    #[test]
    fn a_download_gets_what_it_wants_up_to_its_limit() {
        let mut space = Space::default();
        assert_eq!(bytes(space.more(1, usize::MAX)), LOW_WATER);
        assert_eq!(bytes(space.more(6 << 20, usize::MAX)), 6 << 20);
        space.gave(6 << 20);
        assert_eq!(bytes(space.more(6 << 20, 8 << 20)), 2 << 20);
        space.gave(2 << 20);
        assert_eq!(space.more(6 << 20, 8 << 20), Buffers::default());
        space.got_back(64 << 10);
        assert_eq!(bytes(space.more(6 << 20, 8 << 20)), 64 << 10);
        // However little there is, each has what it begins with.
        assert_eq!(bytes(Space::default().more(2 << 20, 0)), Space::FIRST);
    }

    #[test]
    fn one_that_asks_often_gets_more_at_a_time_while_it_does() {
        let mut space = Space::default();
        let mut ask = |micros| {
            space.asked(at(micros));
            bytes(space.more(1, usize::MAX)) >> 19
        };
        assert_eq!((0..9).map(|n| ask(n * 1000)).collect::<Vec<_>>(), [1, 2, 4, 8, 16, 32, 64, 64, 64]);
        assert_eq!((1..9).map(|n| ask(n * 20_000)).collect::<Vec<_>>(), [64, 32, 16, 8, 4, 2, 1, 1]);
    }
}
