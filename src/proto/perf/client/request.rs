//! A request in flight.

use bytes::Bytes;

use crate::base::time::Instant;
use crate::proto::perf::{PIECE, SIZE_LEN, UNLIMITED, first_difference, payload};
use crate::quic::{Conn, SendData, SendErrorKind, StreamId};

/// The data that all requests of a load share.
#[derive(Debug)]
pub(super) struct Template {
    /// The size of the answer and the first piece of payload: the whole of a typical request.
    head: Bytes,
    /// The length of a request in bytes, including the size field.
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
    /// When it was due to start.
    pub(super) due: Instant,
    /// Bytes queued for sending.
    queued: u64,
    /// Bytes acknowledged.
    acked: u64,
    /// Contiguous bytes of the answer received.
    received: u64,
    /// The size of buffers provided for the answer, in bytes.
    provided: u64,
    /// The offset of the first wrong byte of the answer.
    pub(super) wrong: Option<u64>,
}

impl Request {
    pub(super) fn new(due: Instant, provided: u64) -> Self {
        Self { due, queued: 0, acked: 0, received: 0, provided, wrong: None }
    }

    /// Queues as much as the stream accepts; `Writable` is delivered when it accepts more.
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
                // An event reports the reason.
                Err(_) => self.queued = template.len,
            }
        }
    }

    /// Notes `bytes` more acknowledged bytes; returns how many of them are new.
    pub(super) fn acknowledge(&mut self, bytes: u64, template: &Template) -> u64 {
        let new = bytes.min(template.len - self.acked);
        self.acked += new;
        new
    }

    /// Notes that the answer has arrived up to `contiguous`; returns how many bytes are new.
    pub(super) fn receive(&mut self, contiguous: u64) -> u64 {
        let new = contiguous.saturating_sub(self.received);
        self.received += new;
        new
    }

    /// Checks received bytes against the pattern that our server sends.
    pub(super) fn verify(&mut self, offset: u64, bytes: &[u8]) {
        if self.wrong.is_none() {
            self.wrong = first_difference(offset, bytes);
        }
    }

    /// Returns whether the answer is longer than the buffers provided.
    pub(super) fn wants_more(&self, template: &Template) -> bool {
        template.download == UNLIMITED || self.provided < template.download
    }

    /// Notes another provided buffer of `len` bytes.
    pub(super) fn add(&mut self, len: usize) {
        self.provided += len as u64;
    }
}
