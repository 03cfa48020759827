//! Frames that wait for their neighbour's MAC address.

use std::collections::VecDeque;
use std::net::IpAddr;

use crate::datapath::TxFrame;
use crate::wire::eth::Mac;

/// Waiting frames of all neighbours, oldest first, and those that wait no longer.
#[derive(Debug)]
pub(super) struct Pending<T> {
    waiting: VecDeque<(IpAddr, T)>,
    ready: VecDeque<T>,
    max: usize,
    max_each: usize,
}

/// What became of a frame that has to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Queued {
    /// It waits.
    Waits,
    /// It waits; an older one for the same neighbour was dropped.
    PushedOut,
    /// It was dropped: too many wait in all.
    Full,
}

impl<T: TxFrame> Pending<T> {
    pub(super) fn new(max: usize, max_each: usize) -> Self {
        Self { waiting: VecDeque::with_capacity(max), ready: VecDeque::with_capacity(max), max, max_each }
    }

    /// Keeps `frame`, complete but for its destination MAC address. The newest frames matter most
    /// (RFC 4861 §7.2.2).
    pub(super) fn push(&mut self, hop: IpAddr, frame: T) -> Queued {
        let mut of_hop = self.waiting.iter().enumerate().filter(|(_, (ip, _))| *ip == hop).map(|(i, _)| i);
        let oldest = of_hop.next();
        let pushed_out = match oldest {
            Some(i) if 1 + of_hop.count() >= self.max_each => self.waiting.remove(i).is_some(),
            _ => false,
        };
        if self.waiting.len() + self.ready.len() >= self.max {
            return Queued::Full;
        }
        self.waiting.push_back((hop, frame));
        if pushed_out { Queued::PushedOut } else { Queued::Waits }
    }

    /// Makes the frames that wait for `hop` ready; returns how many.
    pub(super) fn release(&mut self, hop: IpAddr, mac: Mac) -> usize {
        let before = self.ready.len();
        for _ in 0..self.waiting.len() {
            let Some((ip, mut frame)) = self.waiting.pop_front() else { break };
            if ip != hop {
                self.waiting.push_back((ip, frame));
                continue;
            }
            if let Some(dst) = frame.data_mut().first_chunk_mut() {
                *dst = mac.0;
            }
            self.ready.push_back(frame);
        }
        self.ready.len() - before
    }

    /// Drops the frames that wait for `hop`; returns how many.
    pub(super) fn give_up(&mut self, hop: IpAddr) -> usize {
        let before = self.waiting.len();
        self.waiting.retain(|(ip, _)| *ip != hop);
        before - self.waiting.len()
    }

    /// The next ready frame.
    pub(super) fn pop(&mut self) -> Option<T> {
        self.ready.pop_front()
    }
}
