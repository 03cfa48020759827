//! The queue of our own frames, complete, in preallocated buffers.

use std::collections::VecDeque;

use arrayvec::ArrayVec;

use crate::datapath::TxFrame;
use crate::wire::eth::{ETH_LEN, MIN_FRAME, VLAN_LEN};

/// Room for ARP, neighbour discovery and listener reports.
const SMALL: usize = 128;
const MAX_SMALL: usize = 256;
/// Echo replies and errors.
const MAX_LARGE: usize = 8;

#[derive(Debug)]
pub(super) struct Outbox {
    small: VecDeque<ArrayVec<u8, SMALL>>,
    large: VecDeque<Vec<u8>>,
    spare: Vec<Vec<u8>>,
}

impl Outbox {
    pub(super) fn new(mtu: u16) -> Self {
        let buffer = || Vec::with_capacity(usize::from(mtu) + ETH_LEN + VLAN_LEN);
        Self {
            small: VecDeque::with_capacity(MAX_SMALL),
            large: VecDeque::with_capacity(MAX_LARGE),
            spare: (0..MAX_LARGE).map(|_| buffer()).collect(),
        }
    }

    /// Queues the frame consisting of `parts`; returns `false` if there is no room.
    #[must_use]
    pub(super) fn push(&mut self, parts: &[&[u8]]) -> bool {
        let len: usize = parts.iter().map(|part| part.len()).sum();
        if len <= SMALL { self.push_small(parts) } else { self.push_large(parts, len) }
    }

    fn push_small(&mut self, parts: &[&[u8]]) -> bool {
        if self.small.len() >= MAX_SMALL {
            return false;
        }
        let mut frame: ArrayVec<u8, SMALL> = parts.iter().copied().flatten().copied().collect();
        while frame.len() < MIN_FRAME {
            frame.push(0);
        }
        self.small.push_back(frame);
        true
    }

    fn push_large(&mut self, parts: &[&[u8]], len: usize) -> bool {
        let Some(mut frame) = self.spare.pop_if(|frame| len <= frame.capacity()) else {
            return false;
        };
        for part in parts {
            frame.extend_from_slice(part);
        }
        self.large.push_back(frame);
        true
    }

    /// Returns whether there is room for another small frame.
    pub(super) fn has_room(&self) -> bool {
        self.small.len() < MAX_SMALL
    }

    pub(super) fn is_empty(&self) -> bool {
        self.small.is_empty() && self.large.is_empty()
    }

    /// Moves the next frame into `frame`; returns `false`, and drops it, if it does not fit.
    pub(super) fn pop_into<T: TxFrame>(&mut self, frame: &mut T) -> bool {
        if let Some(bytes) = self.small.pop_front() {
            return fill(frame, &bytes);
        }
        let Some(mut bytes) = self.large.pop_front() else {
            return false;
        };
        let fits = fill(frame, &bytes);
        bytes.clear();
        self.spare.push(bytes);
        fits
    }
}

/// The Ethernet header goes into the headroom: the payload area need not be longer than the MTU.
fn fill<T: TxFrame>(frame: &mut T, bytes: &[u8]) -> bool {
    let Some((header, packet)) = bytes.split_first_chunk::<ETH_LEN>() else {
        return false;
    };
    let Some(area) = frame.payload_mut().get_mut(..packet.len()) else {
        return false;
    };
    area.copy_from_slice(packet);
    frame.set_payload_len(packet.len());
    frame.prepend(ETH_LEN).copy_from_slice(header);
    true
}
