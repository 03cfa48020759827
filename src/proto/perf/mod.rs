//! The QUIC performance protocol (draft-banks-quic-performance-00).
//!
//! A client opens a stream and sends 8 bytes, the size of the answer it wants as a big-endian number, then any payload,
//! then the end of the stream. The server reads all of it and answers with that many bytes. Both sides receive into
//! pinned buffers and send from one static block.
//!
//! Our server also sends datagrams (RFC 9221) back to where they came from.
#![forbid(unsafe_code)]

mod client;
mod datagrams;
mod failure;
mod live;
mod plan;
mod results;
mod schedule;
mod server;
mod transport;

use std::sync::LazyLock;

pub use client::PerfClient;
pub use datagrams::{DatagramClient, DatagramPlan, DatagramResults, MIN_DATAGRAM};
pub use failure::PerfFailure;
pub use live::{LiveCounts, PerfLive};
pub use plan::{PerfPlan, PlanError, ReceiveShape};
pub use results::PerfResults;
pub use server::{PerfServer, PerfServerStats};
pub use transport::{INITIAL_WINDOW, client_transport, datagram_transport, server_transport};

/// The ALPN protocol ID (draft-banks-quic-performance-00 §2.1).
pub const ALPN: &[u8] = b"perf";

/// The answer size that means "until stopped" (draft-banks-quic-performance-00 §2.3.1).
pub const UNLIMITED: u64 = u64::MAX;

/// The length of the size field at the start of each request, in bytes.
const SIZE_LEN: usize = 8;

/// The length of the block that all payload is sent from, in bytes.
const BLOCK_LEN: usize = 1 << 20;

/// The number of bytes queued per `send`: small enough to show progress, large enough for few calls.
const PIECE: usize = 256 << 10;

/// The block that all payload is sent from: a pattern that reveals bytes from the wrong offset.
static BLOCK: LazyLock<&'static [u8]> = LazyLock::new(|| {
    let bytes: Vec<u8> = (0..BLOCK_LEN).map(|i| (i ^ (i >> 8) ^ (i >> 13)) as u8).collect();
    Vec::leak(bytes)
});

/// The payload from offset `at`: `len` bytes, or fewer at the end of the block, and at most a piece.
fn payload(at: u64, len: u64) -> &'static [u8] {
    let from = (at % BLOCK_LEN as u64) as usize;
    let len = len.min((BLOCK_LEN - from).min(PIECE) as u64) as usize;
    &BLOCK[from..from + len]
}

/// The offset of the first byte that differs from what our server sends, if `bytes` are at offset `at` of a payload.
fn first_difference(at: u64, bytes: &[u8]) -> Option<u64> {
    let mut done = 0;
    while done < bytes.len() {
        let want = payload(at + done as u64, (bytes.len() - done) as u64);
        let got = &bytes[done..done + want.len()];
        if got != want {
            let i = got.iter().zip(want).position(|(a, b)| a != b)?;
            return Some(at + (done + i) as u64);
        }
        done += want.len();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payload_repeats_and_is_compared_where_it_stands() {
        let end = BLOCK_LEN as u64 - 5;
        assert_eq!(payload(end, 100).len(), 5, "up to the block's end");
        assert_eq!(payload(0, u64::MAX).len(), PIECE);
        let mut bytes = [payload(end, 5), payload(end + 5, 200)].concat();
        assert_eq!(first_difference(end, &bytes), None);
        assert_eq!(first_difference(3 * BLOCK_LEN as u64 + end, &bytes), None);
        assert!(first_difference(end + 1, &bytes).is_some());
        bytes[7] ^= 1;
        assert_eq!(first_difference(end, &bytes), Some(end + 7));
    }
}
