//! An answer being sent.

use crate::proto::perf::{UNLIMITED, payload};
use crate::quic::{Conn, SendData, SendErrorKind, StreamId};

/// The part of an answer still to be queued.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answer {
    queued: u64,
    len: u64,
}

/// The outcome of queueing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pumped {
    /// All of it is queued.
    Done,
    /// `Writable` is delivered when there is room for more.
    Blocked,
    /// The client no longer wants it.
    Gone,
}

impl Answer {
    /// Creates an answer of `len` bytes, or an unlimited one.
    pub(super) fn new(len: u64) -> Self {
        Self { queued: 0, len }
    }

    /// Queues as much as the stream accepts.
    pub(super) fn pump(&mut self, conn: &mut Conn<'_>, id: StreamId) -> Pumped {
        loop {
            let data = payload(self.queued, self.len - self.queued);
            let end = self.queued + data.len() as u64;
            let fin = end == self.len && self.len != UNLIMITED;
            match conn.send(id, SendData::Static(data), fin) {
                Ok(()) if fin => return Pumped::Done,
                Ok(()) => self.queued = end,
                Err(error) if error.kind == SendErrorKind::Blocked => return Pumped::Blocked,
                Err(error) => {
                    // Only an unlimited answer can become too long.
                    if error.kind == SendErrorKind::TooLong {
                        let _ = conn.reset(id, 0);
                    }
                    return Pumped::Gone;
                }
            }
        }
    }
}
