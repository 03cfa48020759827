//! A machine with one end of a connection, and a CPU that may be slow.

use std::collections::VecDeque;
use std::time::Duration;

use gannet::base::time::Instant;

use super::end::{End, Packet, Spares};

/// What a machine can do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Speed {
    /// Time that each packet takes, received or sent; zero for none.
    pub cost: Duration,
    /// The size of the socket's receive buffer in bytes of UDP payload; 0 for no limit. Further packets are dropped.
    pub socket: usize,
}

impl Speed {
    /// A machine that handles at most `packets` a millisecond.
    pub fn per_ms(packets: u32) -> Self {
        Self { cost: Duration::from_millis(1) / packets, ..Self::default() }
    }
}

/// A machine.
pub struct Host {
    /// The end that it runs.
    pub end: Box<dyn End>,
    speed: Speed,
    /// The socket's receive buffer.
    inbox: VecDeque<Packet>,
    inbox_bytes: usize,
    /// When the CPU has handled the last packet.
    free_at: Instant,
    /// Whether there may be more to send.
    more: bool,
    /// Whether a received packet is next, if there is one.
    receives: bool,
    /// The number of packets that did not fit into the receive buffer.
    pub overflowed: u64,
    batch: Vec<Packet>,
}

impl Host {
    /// A machine of this speed.
    pub fn new(end: Box<dyn End>, speed: Speed) -> Self {
        Self {
            end,
            speed,
            inbox: VecDeque::new(),
            inbox_bytes: 0,
            free_at: Instant::ZERO,
            more: false,
            receives: true,
            overflowed: 0,
            batch: Vec::new(),
        }
    }

    /// A packet has arrived at the socket.
    pub fn arrive(&mut self, packet: Packet, spares: &mut Spares) {
        if self.speed.socket > 0 && self.inbox_bytes + packet.len > self.speed.socket {
            self.overflowed += 1;
            spares.give(packet);
            return;
        }
        self.inbox_bytes += packet.len;
        self.inbox.push_back(packet);
    }

    /// Lets the machine do what it can do at `now`. Packets that it sends are appended to `out`.
    pub fn work(&mut self, now: Instant, out: &mut Vec<Packet>, spares: &mut Spares) {
        if now < self.free_at {
            return;
        }
        let slow = !self.speed.cost.is_zero();
        let most = if slow { 1 } else { usize::MAX };
        // A slow machine alternates between receiving and sending.
        let takes = !slow || std::mem::replace(&mut self.receives, false) || !self.more;
        if takes && !self.inbox.is_empty() {
            let n = most.min(self.inbox.len());
            self.batch.extend(self.inbox.drain(..n));
            self.inbox_bytes -= self.batch.iter().map(|packet| packet.len).sum::<usize>();
            self.end.receive(now, &mut self.batch, spares);
            self.more = true;
            if slow {
                self.free_at = now + self.speed.cost;
                return;
            }
        }
        self.receives = true;
        if self.end.next_timeout().is_some_and(|at| at <= now) {
            self.end.handle_timeout(now);
        }
        let before = out.len();
        self.end.transmit(now, most, out, spares);
        self.more = slow && out.len() > before;
        if self.more {
            self.free_at = now + self.speed.cost;
        }
    }

    /// When the machine has something to do, unless a packet arrives.
    pub fn due(&mut self) -> Option<Instant> {
        if self.more || !self.inbox.is_empty() {
            return Some(self.free_at);
        }
        self.end.next_timeout().map(|at| at.max(self.free_at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Failure;
    use crate::wan::end::View;
    use std::cell::RefCell;
    use std::rc::Rc;

    /// Logs what it receives, and answers each packet with two.
    struct Echo {
        log: Rc<RefCell<Vec<u64>>>,
        now: u64,
        answers: usize,
    }

    impl End for Echo {
        fn begin(&mut self, _: Instant) -> Result<(), Failure> {
            Ok(())
        }
        fn receive(&mut self, now: Instant, packets: &mut Vec<Packet>, spares: &mut Spares) {
            self.now = now.as_nanos() / 1_000_000;
            for packet in packets.drain(..) {
                self.log.borrow_mut().push(self.now);
                self.answers += 2;
                spares.give(packet);
            }
        }
        fn next_timeout(&mut self) -> Option<Instant> {
            None
        }
        fn handle_timeout(&mut self, _: Instant) {}
        fn transmit(&mut self, _: Instant, most: usize, out: &mut Vec<Packet>, spares: &mut Spares) {
            let n = most.min(self.answers);
            self.answers -= n;
            out.extend((0..n).map(|_| Packet { ecn: 0, len: 1, memory: spares.take() }));
        }
        fn received(&self) -> u64 {
            0
        }
        fn is_finished(&self) -> bool {
            false
        }
        fn resent(&mut self) -> u64 {
            0
        }
        fn view(&mut self) -> View {
            View::default()
        }
        fn ended(&self) -> Option<String> {
            None
        }
    }

    /// When each of five packets that arrive at once is received and answered, in ms, and how many do not fit.
    fn play(speed: Speed) -> (Vec<u64>, Vec<u64>, u64) {
        let log = Rc::default();
        let mut host = Host::new(Box::new(Echo { log: Rc::clone(&log), now: 0, answers: 0 }), speed);
        let (mut spares, mut sent) = (Spares::default(), Vec::new());
        for _ in 0..5 {
            let packet = Packet { ecn: 0, len: 100, memory: spares.take() };
            host.arrive(packet, &mut spares);
        }
        for ms in 0..40 {
            let now = Instant::ZERO + Duration::from_millis(ms);
            let mut out = Vec::new();
            host.work(now, &mut out, &mut spares);
            sent.extend(out.iter().map(|_| ms));
            assert!(host.due().is_none_or(|at| at >= now));
        }
        (log.take(), sent, host.overflowed)
    }

    #[test]
    fn a_fast_machine_handles_everything_at_once() {
        assert_eq!(play(Speed::default()), (vec![0; 5], vec![0; 10], 0));
    }

    #[test]
    fn a_slow_machine_handles_one_packet_at_a_time_and_starves_neither_direction() {
        let speed = Speed { cost: Duration::from_millis(2), socket: 0 };
        let (received, sent, _) = play(speed);
        assert_eq!(received, [0, 4, 8, 12, 16]);
        assert_eq!(sent, [2, 6, 10, 14, 18, 20, 22, 24, 26, 28]);
    }

    #[test]
    fn a_receive_buffer_overflows() {
        let (received, _, overflowed) = play(Speed { cost: Duration::ZERO, socket: 350 });
        assert_eq!((received.len(), overflowed), (3, 2));
    }
}
