//! The contents of sent packets, for their acknowledgement or loss (RFC 9000 §13.3).

use crate::quic::event::Dir;
use crate::wire::quic::StreamId;

/// Maximum number of lists kept for later packets. If more packets with several frames are in flight, each costs an
/// allocation.
const MAX_SPARE: usize = 4096;

/// One frame of a sent packet, as far as it matters later.
///
/// All fields are naturally aligned without odd padding, so that a frame is moved in whole words, which can be read
/// back immediately after they were written.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SentFrame {
    Stream {
        len: u32,
        id: StreamId,
        start: u64,
    },
    /// `Stream` with FIN.
    StreamFin {
        len: u32,
        id: StreamId,
        start: u64,
    },
    Crypto {
        len: u32,
        start: u64,
    },
    Ack {
        largest: u64,
    },
    Datagram {
        len: u32,
        id: u64,
    },
    MaxData,
    MaxStreamData(StreamId),
    MaxStreams(Dir),
    DataBlocked,
    StreamDataBlocked(StreamId),
    StreamsBlocked(Dir),
    ResetStream(StreamId),
    ResetStreamAt {
        id: StreamId,
        reliable: u64,
    },
    StopSending(StreamId),
    NewConnectionId(u64),
    RetireConnectionId(u64),
    HandshakeDone,
    NewToken,
    MtuProbe,
    AckFrequency(u64),
}

impl SentFrame {
    /// A STREAM frame.
    pub(crate) fn stream(id: StreamId, start: u64, len: u32, fin: bool) -> Self {
        if fin { Self::StreamFin { len, id, start } } else { Self::Stream { len, id, start } }
    }

    /// Whether its acknowledgement is recorded, so that the loss of another copy has no effect.
    fn is_settled_by_ack(self) -> bool {
        matches!(
            self,
            Self::Stream { .. }
                | Self::StreamFin { .. }
                | Self::Crypto { .. }
                | Self::Ack { .. }
                | Self::Datagram { .. }
                | Self::ResetStream(_)
                | Self::ResetStreamAt { .. }
                | Self::RetireConnectionId(_)
                | Self::MtuProbe
        )
    }
}

const _: () = assert!(size_of::<SentFrame>() == 24);

/// A list on the heap, so that packets stay small; boxed as a whole, so that it can be reused.
type List = Box<Vec<SentFrame>>;

/// No ACK frame.
const NO_ACK: u64 = u64::MAX;

/// The frames of one packet. One ACK frame and one other frame need no list, which suffices for bulk data.
#[derive(Clone, Debug)]
pub(crate) struct SentFrames {
    /// The largest packet acknowledged by the ACK frame, or [`NO_ACK`].
    ack: u64,
    first: Option<SentFrame>,
    rest: Option<List>,
}

const _: () = assert!(size_of::<SentFrames>() <= 40, "one is kept for every packet in flight");

impl SentFrames {
    /// A single frame, which is not an ACK.
    pub(crate) fn one(frame: SentFrame) -> Self {
        Self { ack: NO_ACK, first: Some(frame), rest: None }
    }

    /// ID, offset and length of the STREAM frame, if the packet contained nothing else and the frame was not the
    /// stream's last.
    pub(crate) fn only_stream(&self) -> Option<(StreamId, u64, u32)> {
        match self.first {
            Some(SentFrame::Stream { len, id, start }) if self.ack == NO_ACK && self.rest.is_none() => {
                Some((id, start, len))
            }
            _ => None,
        }
    }

    /// Whether there is a frame that a probe can repeat.
    pub(crate) fn is_worth_repeating(&self) -> bool {
        // Datagrams are never sent again (RFC 9221 §5.2).
        let repeats = |frame: &SentFrame| !matches!(frame, SentFrame::Datagram { .. });
        self.first.as_ref().is_some_and(repeats) || self.rest.as_ref().is_some_and(|rest| rest.iter().any(repeats))
    }

    /// Copies all frames to `to`, for a probe that repeats them. Those whose acknowledgement is not recorded move, so
    /// that they do not come a third time when this packet is lost after all (RFC 9000 §13.3).
    pub(crate) fn repeat(&mut self, to: &mut Vec<SentFrame>) {
        to.extend(self.iter());
        self.first = self.first.filter(|frame| frame.is_settled_by_ack());
        if let Some(rest) = &mut self.rest {
            rest.retain(|frame| frame.is_settled_by_ack());
        }
    }

    /// All frames in the packet's order, the ACK frame first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = SentFrame> + '_ {
        let ack = (self.ack != NO_ACK).then_some(SentFrame::Ack { largest: self.ack });
        ack.into_iter().chain(self.first).chain(self.rest.iter().flat_map(|list| list.iter().copied()))
    }
}

/// Makes [`SentFrames`] and reuses their memory. One per connection.
#[derive(Debug, Default)]
pub(crate) struct FrameLists {
    spare: Vec<List>,
}

impl FrameLists {
    /// Stores `frames`, which is empty afterwards.
    pub(crate) fn store(&mut self, frames: &mut Vec<SentFrame>) -> SentFrames {
        let mut stored = SentFrames { ack: NO_ACK, first: None, rest: None };
        for frame in frames.drain(..) {
            match frame {
                SentFrame::Ack { largest } if stored.ack == NO_ACK => stored.ack = largest,
                _ if stored.first.is_none() => stored.first = Some(frame),
                _ => stored.rest.get_or_insert_with(|| self.spare.pop().unwrap_or_default()).push(frame),
            }
        }
        stored
    }

    /// Takes back the memory of a packet that is acknowledged or lost.
    pub(crate) fn recycle(&mut self, frames: SentFrames) {
        if let Some(mut list) = frames.rest
            && self.spare.len() < MAX_SPARE
        {
            list.clear();
            self.spare.push(list);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_back_and_their_lists_are_used_again() {
        let mut lists = FrameLists::default();
        let stream = |start| SentFrame::stream(StreamId(4), start, 7, start == 2);
        let ack = SentFrame::Ack { largest: 3 };
        let cases =
            [vec![], vec![ack], vec![stream(1)], vec![ack, stream(1)], vec![ack, stream(1), stream(2), stream(3)]];
        for frames in &cases {
            let stored = lists.store(&mut frames.clone());
            assert_eq!(stored.iter().collect::<Vec<_>>(), *frames);
            assert_eq!(stored.rest.is_some(), frames.len() > 2, "{frames:?}");
            lists.recycle(stored);
        }
        assert_eq!(lists.spare.len(), 1);
        let again = lists.store(&mut cases[4].clone());
        assert!(lists.spare.is_empty());
        assert_eq!(again.iter().count(), 4);
    }
}
