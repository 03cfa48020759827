//! The packets of one space that were sent and are neither acknowledged nor lost.
//!
//! A ring with a slot per packet number. Acknowledged packets leave a tombstone; the front of the ring
//! is never one for long, so the ring is as long as what is in flight and finding a packet is an index.

use std::collections::VecDeque;

use crate::base::time::Instant;

/// Packets that nobody has to acknowledge (ACK-only ones) are forgotten when the ring is longer than this.
const MAX_UNANSWERED: usize = 1024;

/// A packet that was sent. `F` is what it carried.
#[derive(Clone, Debug)]
pub struct SentPacket<F> {
    /// When it was sent.
    pub(super) time: Instant,
    /// Its length in bytes.
    pub(super) len: u16,
    /// The peer has to acknowledge it.
    pub(super) eliciting: bool,
    /// It counts for congestion control.
    pub(super) in_flight: bool,
    /// What it carried.
    pub frames: F,
}

impl<F> SentPacket<F> {
    /// A packet of `len` bytes, sent at `now`. `eliciting`: the peer has to acknowledge it.
    /// `in_flight`: it counts for congestion control.
    pub fn new(now: Instant, len: u16, eliciting: bool, in_flight: bool, frames: F) -> Self {
        Self { time: now, len, eliciting, in_flight, frames }
    }

    /// When it was sent.
    pub fn time(&self) -> Instant {
        self.time
    }

    /// Its length in bytes.
    pub fn len(&self) -> u16 {
        self.len
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

#[derive(Clone, Debug)]
enum Slot<F> {
    Sent(SentPacket<F>),
    Acked,
    /// The number was not used, or not for a packet that is tracked.
    Skipped,
}

/// What [`SentRing::take`] finds.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Taken<P> {
    Packet(P),
    /// Acknowledged before.
    Gone,
    /// Never sent.
    Never,
}

/// What is at the front of the ring.
#[derive(Debug)]
pub(super) enum Front<'a, F> {
    Sent(u64, &'a SentPacket<F>),
    Acked,
}

#[derive(Clone, Debug)]
pub(super) struct SentRing<F> {
    /// Packet number of the front slot.
    base: u64,
    slots: VecDeque<Slot<F>>,
}

impl<F> SentRing<F> {
    pub(super) fn new() -> Self {
        Self { base: 0, slots: VecDeque::new() }
    }

    /// The packet number behind the last one sent.
    pub(super) fn next(&self) -> u64 {
        self.base + self.slots.len() as u64
    }

    /// The lowest packet number that may still be tracked.
    pub(super) fn base(&self) -> u64 {
        self.base
    }

    /// Adds a packet. Numbers only go up; one that does not is a bug of the caller and is not tracked.
    pub(super) fn push(&mut self, pn: u64, packet: SentPacket<F>) {
        debug_assert!(pn >= self.next(), "packet number {pn} is used already, the next is {}", self.next());
        if pn < self.next() {
            return;
        }
        if self.slots.is_empty() {
            self.base = pn;
        }
        while self.next() < pn {
            self.slots.push_back(Slot::Skipped);
        }
        self.slots.push_back(Slot::Sent(packet));
        self.forget_unanswered();
    }

    /// A side that only receives sends nothing but ACKs, which the peer need not acknowledge.
    fn forget_unanswered(&mut self) {
        while self.slots.len() > MAX_UNANSWERED {
            match self.slots.front() {
                Some(Slot::Sent(packet)) if packet.eliciting || packet.in_flight => return,
                _ => self.pop(),
            }
        }
    }

    /// Takes the acknowledged packet `pn` out.
    pub(super) fn take(&mut self, pn: u64) -> Taken<SentPacket<F>> {
        let Some(index) = pn.checked_sub(self.base) else { return Taken::Gone };
        match self.slots.get_mut(index as usize) {
            None | Some(Slot::Skipped) => Taken::Never,
            Some(slot) => match std::mem::replace(slot, Slot::Acked) {
                Slot::Sent(packet) => Taken::Packet(packet),
                _ => Taken::Gone,
            },
        }
    }

    /// The front slot, numbers that were skipped aside.
    pub(super) fn front(&mut self) -> Option<Front<'_, F>> {
        while let Some(Slot::Skipped) = self.slots.front() {
            self.pop();
        }
        self.slots.front().map(|slot| match slot {
            Slot::Sent(packet) => Front::Sent(self.base, packet),
            _ => Front::Acked,
        })
    }

    /// Drops the front slot.
    pub(super) fn pop(&mut self) {
        self.base += u64::from(self.slots.pop_front().is_some());
    }

    /// Takes the front slot's packet, if it holds one.
    pub(super) fn pop_packet(&mut self) -> Option<SentPacket<F>> {
        let slot = self.slots.pop_front()?;
        self.base += 1;
        match slot {
            Slot::Sent(packet) => Some(packet),
            _ => None,
        }
    }

    /// The packets that are tracked, ascending.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, &SentPacket<F>)> {
        self.slots.iter().enumerate().filter_map(|(i, slot)| match slot {
            Slot::Sent(packet) => Some((self.base + i as u64, packet)),
            _ => None,
        })
    }

    /// Takes everything out; numbers go on where they were.
    pub(super) fn drain(&mut self, mut each: impl FnMut(SentPacket<F>)) {
        self.base = self.next();
        for slot in self.slots.drain(..) {
            if let Slot::Sent(packet) = slot {
                each(packet);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(eliciting: bool, frames: u64) -> SentPacket<u64> {
        SentPacket::new(Instant::ZERO, 100, eliciting, eliciting, frames)
    }

    fn taken(ring: &mut SentRing<u64>, pn: u64) -> Taken<u64> {
        match ring.take(pn) {
            Taken::Packet(p) => Taken::Packet(p.frames),
            Taken::Gone => Taken::Gone,
            Taken::Never => Taken::Never,
        }
    }

    #[test]
    fn each_packet_is_taken_once() {
        let mut ring = SentRing::new();
        for pn in [3, 4, 7] {
            ring.push(pn, packet(true, pn * 10));
        }
        assert_eq!(taken(&mut ring, 2), Taken::Gone);
        assert_eq!(taken(&mut ring, 4), Taken::Packet(40));
        assert_eq!(taken(&mut ring, 4), Taken::Gone);
        assert_eq!(taken(&mut ring, 5), Taken::Never, "skipped");
        assert_eq!(taken(&mut ring, 8), Taken::Never, "not sent yet");
        assert!(matches!(ring.front(), Some(Front::Sent(3, p)) if p.frames == 30));
        ring.pop();
        assert!(matches!(ring.front(), Some(Front::Acked)));
        ring.pop();
        assert!(matches!(ring.front(), Some(Front::Sent(7, _))));
        assert_eq!(ring.pop_packet().map(|p| p.frames), Some(70));
        assert!(ring.front().is_none());
        assert_eq!(ring.next(), 8);
    }

    #[test]
    fn unanswered_acks_do_not_pile_up() {
        let mut ring = SentRing::new();
        for pn in 0..10_000 {
            ring.push(pn, packet(false, pn));
        }
        assert_eq!(ring.iter().count(), MAX_UNANSWERED);
        assert_eq!(taken(&mut ring, 0), Taken::Gone);
        ring.drain(|_| {});
        assert_eq!((ring.next(), ring.iter().count()), (10_000, 0));
        for pn in 10_000..20_000 {
            ring.push(pn, packet(true, pn));
        }
        assert_eq!(ring.iter().count(), 10_000, "what has to be acknowledged stays");
    }
}
