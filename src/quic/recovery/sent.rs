//! Sent packets of one space that are neither acknowledged nor lost.
//!
//! A ring with one slot per packet. Acknowledged packets leave a tombstone, and tombstones at the front are soon
//! removed, so that the ring is as long as the packets in flight, and finding a packet usually takes one index
//! operation.

use std::collections::VecDeque;

use crate::base::time::Instant;
use crate::mem::prefetch_line;

/// Number of packets that are not ack-eliciting (ACK-only) of which the latest are remembered.
const MAX_UNANSWERED: usize = 1024;

/// The path that a packet was sent on, as far as it is not the one in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Whereabouts(pub(super) u32);

impl Whereabouts {
    /// The path in use.
    pub(super) const HERE: Self = Self(0);
    /// A path about which nothing is known.
    pub(super) const ELSEWHERE: Self = Self(u32::MAX);
}

/// A sent packet. `F` is its contents.
#[derive(Clone, Debug)]
pub struct SentPacket<F> {
    /// When it was sent.
    pub(super) time: Instant,
    /// Its length in bytes.
    pub(super) len: u16,
    /// Whether it is ack-eliciting.
    pub(super) eliciting: bool,
    /// Whether it counts for congestion control.
    pub(super) in_flight: bool,
    /// The path that it was sent on, if that is not the one in use.
    pub(super) on: Whereabouts,
    /// Its contents.
    pub frames: F,
}

impl<F> SentPacket<F> {
    /// A packet of `len` bytes sent at `now`. `eliciting` says whether it is ack-eliciting, `in_flight` whether it
    /// counts for congestion control.
    pub fn new(now: Instant, len: u16, eliciting: bool, in_flight: bool, frames: F) -> Self {
        Self { time: now, len, eliciting, in_flight, on: Whereabouts::HERE, frames }
    }

    /// A probing packet that was sent on another path than the one in use. Nothing in it is retransmitted, and it says
    /// nothing about the path in use.
    pub(crate) fn elsewhere(now: Instant, len: u16, frames: F) -> Self {
        Self { on: Whereabouts::ELSEWHERE, ..Self::new(now, len, false, false, frames) }
    }

    /// When it was sent.
    pub fn time(&self) -> Instant {
        self.time
    }

    /// Its length in bytes.
    pub fn len(&self) -> u16 {
        self.len
    }

    /// Whether its length is zero.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

#[derive(Clone, Debug)]
enum Slot<F> {
    Sent(SentPacket<F>),
    Acked,
    /// The packet number was skipped.
    Skipped,
}

/// Slots by ascending packet number.
type Slots<F> = VecDeque<(u64, Slot<F>)>;

/// The slot at the front of the ring.
#[derive(Debug)]
pub(super) enum Front<'a, F> {
    Sent(u64, &'a SentPacket<F>),
    Acked,
}

#[derive(Clone, Debug)]
pub(super) struct SentRing<F> {
    /// The packet number after the last one sent.
    next: u64,
    /// Ack-eliciting packets.
    slots: Slots<F>,
    /// The latest packets that are not ack-eliciting. They are kept apart so that those that are never acknowledged do
    /// not accumulate behind an ack-eliciting one, however long the peer is silent.
    bare: Slots<F>,
}

/// Index of the first slot whose number is `pn` or above.
fn index_of<F>(slots: &Slots<F>, pn: u64) -> usize {
    let Some((first, _)) = slots.front() else { return 0 };
    // Without gaps, the usual case, the distance is the index.
    let guess = pn.saturating_sub(*first);
    match slots.get(guess as usize) {
        Some((at, _)) if *at == pn || (guess == 0 && *at > pn) => guess as usize,
        _ => slots.partition_point(|(at, _)| *at < pn),
    }
}

/// Removes the packets `low..=high` in ascending order. The error is a number that was skipped.
fn take<F>(slots: &mut Slots<F>, low: u64, high: u64, each: &mut impl FnMut(u64, SentPacket<F>)) -> Result<(), u64> {
    let from = index_of(slots, low);
    for (pn, slot) in slots.range_mut(from..).take_while(|(pn, _)| *pn <= high) {
        match std::mem::replace(slot, Slot::Acked) {
            Slot::Sent(packet) => each(*pn, packet),
            Slot::Acked => {}
            Slot::Skipped => return Err(*pn),
        }
    }
    Ok(())
}

impl<F> SentRing<F> {
    /// Prefetches the oldest packets.
    pub(super) fn prefetch(&self) {
        for slots in [&self.slots, &self.bare] {
            prefetch_line(slots.as_slices().0.as_ptr());
        }
    }

    pub(super) fn new() -> Self {
        Self { next: 0, slots: VecDeque::new(), bare: VecDeque::new() }
    }

    /// The packet number after the last one sent.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// The number below which no packet awaits an acknowledgement.
    pub(super) fn base(&self) -> u64 {
        self.slots.front().map_or(self.next, |(pn, _)| *pn)
    }

    /// The lowest packet number that may still be tracked.
    pub(super) fn lowest(&self) -> u64 {
        self.bare.front().map_or(u64::MAX, |(pn, _)| *pn).min(self.base())
    }

    /// Adds a packet. Packet numbers must increase; one that does not is a bug of the caller and is not tracked.
    pub(super) fn push(&mut self, pn: u64, packet: SentPacket<F>) {
        debug_assert!(pn >= self.next, "packet number {pn} was already used; the next is {}", self.next);
        if pn < self.next {
            return;
        }
        self.skip_to(pn);
        self.next = pn + 1;
        if packet.eliciting || packet.in_flight {
            self.slots.push_back((pn, Slot::Sent(packet)));
            return;
        }
        if self.bare.len() >= MAX_UNANSWERED {
            self.bare.pop_front();
        }
        self.bare.push_back((pn, Slot::Sent(packet)));
    }

    /// Adds ack-eliciting packets with consecutive numbers from `pn` on.
    pub(super) fn push_run(&mut self, pn: u64, packets: impl ExactSizeIterator<Item = SentPacket<F>>) {
        debug_assert!(pn >= self.next, "packet number {pn} is used already, the next is {}", self.next);
        self.skip_to(pn);
        self.next = pn + packets.len() as u64;
        self.slots.extend(packets.zip(pn..).map(|(packet, pn)| (pn, Slot::Sent(packet))));
    }

    /// Records that the numbers from the next one up to `pn` are skipped.
    #[inline]
    fn skip_to(&mut self, pn: u64) {
        if !self.slots.is_empty() {
            self.slots.extend((self.next..pn).map(|skipped| (skipped, Slot::Skipped)));
        }
    }

    /// Removes the acknowledged packets `low..=high`; `each` gets those that were not acknowledged before.
    ///
    /// # Errors
    /// A number among them that was skipped.
    ///
    /// Returns whether the oldest packets are among them: these leave no trace, while others leave [`Front::Acked`].
    pub(super) fn take(&mut self, low: u64, high: u64, mut each: impl FnMut(u64, SentPacket<F>)) -> Result<bool, u64> {
        let oldest = self.slots.front().is_some_and(|(pn, _)| (low..=high).contains(pn));
        if oldest {
            while let Some((pn, slot)) = self.slots.pop_front_if(|(pn, _)| *pn <= high) {
                match slot {
                    Slot::Sent(packet) => each(pn, packet),
                    Slot::Acked => {}
                    Slot::Skipped => return Err(pn),
                }
            }
        } else {
            take(&mut self.slots, low, high, &mut each)?;
        }
        if !self.bare.is_empty() {
            take(&mut self.bare, low, high, &mut each)?;
        }
        Ok(oldest)
    }

    /// Removes the packets below `pn` that are not ack-eliciting.
    pub(super) fn forget_bare(&mut self, pn: u64) {
        while self.bare.front().is_some_and(|(at, slot)| *at < pn || matches!(slot, Slot::Acked)) {
            self.bare.pop_front();
        }
    }

    /// The front slot, after skipped numbers.
    pub(super) fn front(&mut self) -> Option<Front<'_, F>> {
        while let Some((_, Slot::Skipped)) = self.slots.front() {
            self.slots.pop_front();
        }
        self.slots.front().map(|(pn, slot)| match slot {
            Slot::Sent(packet) => Front::Sent(*pn, packet),
            _ => Front::Acked,
        })
    }

    /// The packets from number `pn` on were sent on the path `on`, which is no longer in use.
    pub(super) fn leave(&mut self, pn: u64, on: Whereabouts) {
        for slots in [&mut self.slots, &mut self.bare] {
            let from = index_of(slots, pn);
            for (_, slot) in slots.range_mut(from..) {
                if let Slot::Sent(packet) = slot
                    && packet.on == Whereabouts::HERE
                {
                    packet.on = if packet.in_flight { on } else { Whereabouts::ELSEWHERE };
                    packet.in_flight = false;
                }
            }
        }
    }

    /// Removes the front slot.
    pub(super) fn pop(&mut self) {
        self.slots.pop_front();
    }

    /// Takes the packet of the front slot, if there is one.
    pub(super) fn pop_packet(&mut self) -> Option<SentPacket<F>> {
        match self.slots.pop_front()? {
            (_, Slot::Sent(packet)) => Some(packet),
            _ => None,
        }
    }

    /// The packets that await an acknowledgement, in ascending order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, &SentPacket<F>)> {
        self.slots.iter().filter_map(|(pn, slot)| match slot {
            Slot::Sent(packet) => Some((*pn, packet)),
            _ => None,
        })
    }

    /// The packets that await an acknowledgement, in ascending order, to change their contents.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (u64, &mut SentPacket<F>)> {
        self.slots.iter_mut().filter_map(|(pn, slot)| match slot {
            Slot::Sent(packet) => Some((*pn, packet)),
            _ => None,
        })
    }

    /// Frees unused memory.
    pub(super) fn trim(&mut self) {
        for slots in [&mut self.slots, &mut self.bare] {
            if slots.is_empty() {
                *slots = VecDeque::new();
            }
        }
    }

    /// Removes all packets and frees their memory; packet numbers continue.
    pub(super) fn drain(&mut self, mut each: impl FnMut(SentPacket<F>)) {
        for (_, slot) in std::mem::take(&mut self.slots).into_iter().chain(std::mem::take(&mut self.bare)) {
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

    /// The contents returned by the acknowledgement of one packet.
    fn taken(ring: &mut SentRing<u64>, pn: u64) -> Result<Option<u64>, u64> {
        let mut got = None;
        ring.take(pn, pn, |at, packet| {
            assert_eq!(at, pn);
            got = Some(packet.frames);
        })?;
        Ok(got)
    }

    #[test]
    fn each_packet_is_taken_once() {
        let mut ring = SentRing::new();
        for pn in [0, 1, 3] {
            ring.push(pn, packet(true, pn * 10));
        }
        assert_eq!(taken(&mut ring, 1), Ok(Some(10)));
        assert_eq!(taken(&mut ring, 1), Ok(None));
        assert_eq!(taken(&mut ring, 2), Err(2), "skipped");
        assert!(matches!(ring.front(), Some(Front::Sent(0, p)) if p.frames == 0));
        ring.pop();
        assert!(matches!(ring.front(), Some(Front::Acked)));
        ring.pop();
        assert!(matches!(ring.front(), Some(Front::Acked)), "the skipped number that was acknowledged");
        ring.pop();
        assert!(matches!(ring.front(), Some(Front::Sent(3, _))));
        assert_eq!(ring.pop_packet().map(|p| p.frames), Some(30));
        assert!(ring.front().is_none());
        assert_eq!((ring.next(), ring.base(), taken(&mut ring, 3)), (4, 4, Ok(None)));
    }

    #[test]
    fn ranges_are_found_whatever_lies_between() {
        let mut ring = SentRing::new();
        // Every third is ack-eliciting.
        for pn in 0..300 {
            ring.push(pn, packet(pn % 3 == 0, pn));
        }
        for (low, high) in [(10, 20), (0, 0), (299, 299), (5, 250), (0, 299)] {
            let mut got = Vec::new();
            ring.take(low, high, |pn, p| {
                assert_eq!(pn, p.frames);
                got.push(pn);
            })
            .unwrap();
            assert!(got.iter().all(|pn| (low..=high).contains(pn)));
            let mut again = 0;
            ring.take(low, high, |_, _| again += 1).unwrap();
            assert_eq!(again, 0);
            if (low, high) == (10, 20) {
                got.sort();
                assert_eq!(got, (10..=20).collect::<Vec<_>>());
            }
        }
        assert_eq!(ring.iter().count(), 0);
    }

    #[test]
    fn unanswered_acks_do_not_pile_up() {
        let mut ring = SentRing::new();
        ring.push(0, packet(true, 0));
        for pn in 1..10_000 {
            ring.push(pn, packet(false, pn));
        }
        assert_eq!((ring.iter().count(), ring.bare.len()), (1, MAX_UNANSWERED), "although one waits in front");
        assert_eq!((taken(&mut ring, 1), taken(&mut ring, 9_999)), (Ok(None), Ok(Some(9_999))));
        ring.forget_bare(9_990);
        assert_eq!(ring.bare.len(), 10);
        ring.drain(|_| {});
        assert_eq!((ring.next(), ring.iter().count(), ring.bare.len()), (10_000, 0, 0));
        for pn in 10_000..20_000 {
            ring.push(pn, packet(true, pn));
        }
        assert_eq!(ring.iter().count(), 10_000, "ack-eliciting ones stay");
    }
}
