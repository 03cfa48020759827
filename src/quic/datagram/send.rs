//! Datagrams to be sent.

use std::collections::VecDeque;
use std::ops::RangeInclusive;

use crate::base::time::Instant;
use crate::quic::config::{DatagramConfig, DatagramOrder, DropPolicy};
use crate::quic::datagram::DatagramOptions;
use crate::quic::event::{DatagramId, SendData};

/// Number of lost datagrams that are remembered, the latest: if they turn out to have arrived, that is reported.
const MAX_LOST: usize = 256;

/// One of this many packets begins with what otherwise comes second.
const TURN: u8 = 8;

/// A datagram in the queue.
#[derive(Debug)]
struct Queued {
    id: u64,
    data: SendData,
    urgency: u8,
    deadline: Option<Instant>,
}

/// A datagram was not queued, as the queue is full.
#[derive(Debug)]
pub(crate) struct Refusal(pub(crate) SendData);

/// Datagrams to be sent, and what has to be remembered of those that were.
#[derive(Debug, Default)]
pub(crate) struct Sender {
    /// In the order in which they are sent.
    queue: VecDeque<Queued>,
    next_id: u64,
    /// The earliest deadline, or an earlier time.
    deadline: Option<Instant>,
    /// Those in the packet being built.
    building: Vec<Queued>,
    /// Packets that were lost and the datagrams in them, by packet number.
    lost: VecDeque<(u64, u64)>,
    /// Whether a datagram was refused, and the application waits for room.
    wants_room: bool,
    /// Packets in a row that began with what comes first, while both waited.
    in_row: u8,
}

impl Sender {
    /// Queues a datagram. If another one has to give way, `dropped` gets it.
    ///
    /// # Errors
    /// If the queue is full.
    pub(crate) fn push(
        &mut self,
        data: SendData,
        options: DatagramOptions,
        config: &DatagramConfig,
        dropped: impl FnOnce(DatagramId, SendData),
    ) -> Result<DatagramId, Refusal> {
        let DatagramOptions { urgency, deadline } = options;
        if self.queue.len() >= config.send_queue {
            let least = self.queue.back().map_or(0, |last| last.urgency);
            if config.send_drop == DropPolicy::Newest || urgency > least {
                self.wants_room = true;
                return Err(Refusal(data));
            }
            let oldest = self.queue.partition_point(|queued| queued.urgency < least);
            if let Some(victim) = self.queue.remove(oldest) {
                dropped(DatagramId(victim.id), victim.data);
            }
        }
        let id = self.next_id;
        self.next_id += 1;
        if let Some(at) = deadline {
            self.deadline = Some(self.deadline.map_or(at, |earliest| earliest.min(at)));
        }
        let place = self.queue.partition_point(|queued| queued.urgency <= urgency);
        self.queue.insert(place, Queued { id, data, urgency, deadline });
        Ok(DatagramId(id))
    }

    /// Number of datagrams that wait.
    pub(crate) fn len(&self) -> usize {
        self.queue.len()
    }

    /// Whether any datagram waits.
    pub(crate) fn is_pending(&self) -> bool {
        !self.queue.is_empty()
    }

    /// When [`Sender::expire`] has to be called.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Removes datagrams whose deadline has passed at `now`.
    pub(crate) fn expire(&mut self, now: Instant, mut dropped: impl FnMut(DatagramId, SendData)) {
        if self.deadline.is_none_or(|at| at > now) {
            return;
        }
        let mut kept = VecDeque::with_capacity(self.queue.len());
        for queued in self.queue.drain(..) {
            match queued.deadline {
                Some(at) if at <= now => dropped(DatagramId(queued.id), queued.data),
                _ => kept.push_back(queued),
            }
        }
        self.queue = kept;
        self.deadline = self.queue.iter().filter_map(|queued| queued.deadline).min();
    }

    /// Whether the next packet begins with datagrams rather than with stream data. `both` means that both wait.
    pub(crate) fn leads(&mut self, order: DatagramOrder, both: bool) -> bool {
        let first = order == DatagramOrder::BeforeStreams;
        if !both {
            self.in_row = 0;
            return true;
        }
        self.in_row = (self.in_row + 1) % TURN;
        (self.in_row != 0) == first
    }

    /// Number and length of the next datagram.
    pub(crate) fn front(&self) -> Option<(u64, usize)> {
        self.queue.front().map(|queued| (queued.id, queued.data.len()))
    }

    /// Moves the next datagram to the packet being built.
    pub(crate) fn pick(&mut self) {
        self.building.extend(self.queue.pop_front());
    }

    /// Removes the next datagram.
    pub(crate) fn pop(&mut self) -> Option<(DatagramId, SendData)> {
        self.queue.pop_front().map(|queued| (DatagramId(queued.id), queued.data))
    }

    /// The data of a datagram in the packet being built.
    pub(crate) fn memory(&self, id: u64) -> &[u8] {
        self.building.iter().find(|queued| queued.id == id).map_or(&[], |queued| queued.data.as_slice())
    }

    /// Takes the datagrams of the packet that was built, once it is sealed.
    pub(crate) fn sealed(&mut self) -> impl Iterator<Item = (DatagramId, SendData)> + '_ {
        self.building.drain(..).map(|queued| (DatagramId(queued.id), queued.data))
    }

    /// Whether the application waits for room and there is some. True once.
    pub(crate) fn take_room(&mut self, config: &DatagramConfig) -> bool {
        self.wants_room && self.queue.len() < config.send_queue && std::mem::take(&mut self.wants_room)
    }

    /// Records the loss of packet `pn` with datagram `id`.
    pub(crate) fn on_lost(&mut self, pn: u64, id: u64) {
        if self.lost.len() >= MAX_LOST {
            self.lost.pop_front();
        }
        let place = self.lost.partition_point(|lost| lost.0 <= pn);
        self.lost.insert(place, (pn, id));
    }

    /// Whether there are lost packets for which [`Sender::on_late_ack`] would look.
    pub(crate) fn has_lost(&self) -> bool {
        !self.lost.is_empty()
    }

    /// Handles the acknowledgement of a range of packets: those that were considered lost have arrived (RFC 9221 §5.2).
    pub(crate) fn on_late_ack(&mut self, range: &RangeInclusive<u64>, mut found: impl FnMut(DatagramId)) {
        let from = self.lost.partition_point(|lost| lost.0 < *range.start());
        let to = self.lost.partition_point(|lost| lost.0 <= *range.end());
        for (_, id) in self.lost.drain(from..to.max(from)) {
            found(DatagramId(id));
        }
    }

    /// Takes everything that was not sent, when the connection is over.
    pub(crate) fn release(&mut self) -> impl Iterator<Item = (DatagramId, SendData)> + '_ {
        self.deadline = None;
        self.wants_room = false;
        self.queue.drain(..).map(|queued| (DatagramId(queued.id), queued.data))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(send_drop: DropPolicy) -> DatagramConfig {
        DatagramConfig { send_queue: 4, send_drop, ..DatagramConfig::default() }
    }

    fn data(n: u8) -> SendData {
        SendData::Bytes(vec![n; usize::from(n)].into())
    }

    /// Queues datagrams with these urgencies, and returns the numbers of those dropped for them.
    fn push(s: &mut Sender, config: &DatagramConfig, urgencies: &[u8]) -> Vec<u64> {
        let mut dropped = Vec::new();
        for (n, urgency) in urgencies.iter().enumerate() {
            let options = DatagramOptions { urgency: *urgency, deadline: None };
            let _ = s.push(data(n as u8), options, config, |id, _| dropped.push(id.0));
        }
        dropped
    }

    fn order(s: &mut Sender) -> Vec<u64> {
        std::iter::from_fn(|| s.pop()).map(|(id, _)| id.0).collect()
    }

    #[test]
    fn the_most_urgent_go_first_and_equal_ones_in_order() {
        let mut s = Sender::default();
        assert_eq!(push(&mut s, &config(DropPolicy::Newest), &[3, 1, 3, 1]), []);
        assert_eq!((s.front(), s.len()), (Some((1, 1)), 4));
        assert_eq!(order(&mut s), [1, 3, 0, 2]);
        assert!(!s.is_pending());
    }

    #[test]
    fn a_full_queue_refuses_the_newest_or_drops_the_oldest() {
        let (newest, oldest) = (config(DropPolicy::Newest), config(DropPolicy::Oldest));
        let mut s = Sender::default();
        push(&mut s, &newest, &[0; 4]);
        assert!(!s.take_room(&newest), "nobody waits for room");
        let refused = s.push(data(9), DatagramOptions::default(), &newest, |_, _| panic!("dropped")).unwrap_err();
        assert_eq!(refused.0.len(), 9);
        assert!(!s.take_room(&newest));
        s.pop();
        assert!(s.take_room(&newest) && !s.take_room(&newest), "told once");
        assert_eq!(order(&mut s), [1, 2, 3]);

        let mut s = Sender::default();
        assert_eq!(push(&mut s, &oldest, &[0, 5, 5, 0, 0, 1]), [1, 2], "the oldest of the least urgent");
        assert_eq!(push(&mut s, &oldest, &[9]), [], "a less urgent one is refused");
        assert_eq!(order(&mut s), [0, 3, 4, 5]);
    }

    #[test]
    fn those_that_are_late_are_dropped() {
        let (config, mut s) = (config(DropPolicy::Newest), Sender::default());
        let at = Instant::from_nanos;
        for deadline in [Some(at(30)), None, Some(at(10)), Some(at(20))] {
            s.push(data(1), DatagramOptions { urgency: 0, deadline }, &config, |_, _| {}).unwrap();
        }
        let late = |s: &mut Sender, now| {
            let mut ids = Vec::new();
            s.expire(at(now), |id, _| ids.push(id.0));
            (ids, s.deadline())
        };
        assert_eq!(late(&mut s, 9), (vec![], Some(at(10))));
        assert_eq!(late(&mut s, 10), (vec![2], Some(at(20))));
        assert_eq!(late(&mut s, 30), (vec![0, 3], None));
        assert_eq!(order(&mut s), [1]);
    }

    #[test]
    fn neither_streams_nor_datagrams_starve() {
        for (order, expected) in [(DatagramOrder::BeforeStreams, 70), (DatagramOrder::AfterStreams, 10)] {
            let mut s = Sender::default();
            let first = (0..80).filter(|_| s.leads(order, true)).count();
            assert_eq!(first, expected);
            assert!(s.leads(order, false), "alone");
        }
    }

    #[test]
    fn a_loss_is_corrected_once() {
        let mut s = Sender::default();
        for (pn, id) in [(7, 1), (3, 2), (7, 3), (9, 4)] {
            s.on_lost(pn, id);
        }
        let late = |s: &mut Sender, range| {
            let mut ids = Vec::new();
            s.on_late_ack(&range, |id| ids.push(id.0));
            ids
        };
        assert_eq!(late(&mut s, 4..=6), []);
        assert_eq!(late(&mut s, 4..=8), [1, 3]);
        assert_eq!(late(&mut s, 0..=20), [2, 4]);
        assert!(!s.has_lost());
        (0..1000).for_each(|n| s.on_lost(n, n));
        assert_eq!(late(&mut s, 0..=2000).len(), MAX_LOST);
    }

    #[test]
    fn the_memory_of_a_packet_is_there_until_it_is_sealed() {
        let (config, mut s) = (config(DropPolicy::Newest), Sender::default());
        push(&mut s, &config, &[0, 0, 0]);
        s.pick();
        s.pick();
        assert_eq!((s.memory(0), s.memory(1), s.memory(2)), (&[][..], &[1][..], &[][..]));
        assert_eq!(s.sealed().map(|(id, _)| id.0).collect::<Vec<_>>(), [0, 1]);
        assert_eq!(s.release().map(|(id, _)| id.0).collect::<Vec<_>>(), [2]);
    }
}
