//! A request while it is in flight.

use bytes::Bytes;

use crate::base::time::Instant;
use crate::proto::perf::{PIECE, SIZE_LEN, UNLIMITED, first_difference, payload};
use crate::quic::{Conn, SendData, SendErrorKind, StreamId};

/// What all requests of a load have in common.
#[derive(Debug)]
pub(super) struct Template {
    /// The size of the answer and the first piece of payload: all of a usual request.
    head: Bytes,
    /// Bytes of a request, size included.
    len: u64,
    download: u64,
}

impl Template {
    pub(super) fn new(upload: u64, download: u64) -> Self {
        let mut head = download.to_be_bytes().to_vec();
        let first = upload.min(PIECE as u64);
        head.extend_from_slice(payload(0, first));
        Self { head: Bytes::from(head), len: SIZE_LEN as u64 + upload, download }
    }
}

/// One request.
#[derive(Debug)]
pub(super) struct Request {
    /// When it was to start.
    pub(super) due: Instant,
    /// Bytes of it that were queued for sending.
    queued: u64,
    /// Bytes of it that are known to have arrived.
    acked: u64,
    /// Contiguous bytes of the answer that have come.
    received: u64,
    /// Bytes of buffers provided for the answer.
    provided: u64,
    /// The first byte of the answer that is not what it should be.
    pub(super) wrong: Option<u64>,
}

impl Request {
    pub(super) fn new(due: Instant, provided: u64) -> Self {
        Self { due, queued: 0, acked: 0, received: 0, provided, wrong: None }
    }

    /// Queues as much as the stream takes; `Writable` tells when it takes more.
    pub(super) fn pump(&mut self, template: &Template, conn: &mut Conn<'_>, id: StreamId) {
        while self.queued < template.len {
            let data = match self.queued {
                0 => SendData::Bytes(template.head.clone()),
                at => SendData::Static(payload(at - SIZE_LEN as u64, template.len - at)),
            };
            let end = self.queued + data.len() as u64;
            match conn.send(id, data, end == template.len) {
                Ok(()) => self.queued = end,
                Err(error) if error.kind == SendErrorKind::Blocked => return,
                // An event tells why, or has told already.
                Err(_) => self.queued = template.len,
            }
        }
    }

    /// `bytes` more of it have arrived: how many of them are news.
    pub(super) fn acknowledge(&mut self, bytes: u64, template: &Template) -> u64 {
        let new = bytes.min(template.len - self.acked);
        self.acked += new;
        new
    }

    /// The answer is there up to `contiguous`: how many bytes of it are news.
    pub(super) fn receive(&mut self, contiguous: u64) -> u64 {
        let new = contiguous.saturating_sub(self.received);
        self.received += new;
        new
    }

    /// Looks for bytes that are not as our server sends them.
    pub(super) fn verify(&mut self, offset: u64, bytes: &[u8]) {
        if self.wrong.is_none() {
            self.wrong = first_difference(offset, bytes);
        }
    }

    /// Whether the answer is longer than what was provided for it.
    pub(super) fn wants_more(&self, template: &Template) -> bool {
        template.download == UNLIMITED || self.provided < template.download
    }

    /// Another buffer of `len` bytes was provided.
    pub(super) fn add(&mut self, len: usize) {
        self.provided += len as u64;
    }
}
