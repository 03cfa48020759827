//! Transport settings for the protocol.

use std::sync::Arc;

use crate::mem::{BufPool, PinnedBuf};
use crate::proto::perf::datagrams;
use crate::proto::perf::plan::ReceiveShape;
use crate::quic::{BufferProvider, StreamId, TransportConfig};

/// The initial window of each new stream at a server, in bytes: enough for a typical request without a window update.
pub const INITIAL_WINDOW: u64 = 64 << 10;

/// The maximum number of open streams of a client, of each type.
const MAX_STREAMS: u64 = 2048;

/// The connection window of a server, in bytes. Data goes directly to buffers, so this need not limit anything.
const MIN_MAX_DATA: u64 = 64 << 20;

/// The maximum number of bytes queued on one stream. They are sent from one shared block, so a long queue costs
/// nothing.
const SEND_BUDGET: u64 = 16 << 20;

/// Provides buffers for new streams, from a part of a pool only: clients that open streams and send nothing leave the
/// rest to others.
struct FirstBuffer(BufPool);

impl BufferProvider for FirstBuffer {
    fn initial_window(&self) -> u64 {
        INITIAL_WINDOW
    }

    fn provide(&self, _: StreamId, give: &mut dyn FnMut(PinnedBuf)) {
        // Without memory the stream is pooled, which the server handles too.
        self.0.alloc(INITIAL_WINDOW as usize).into_iter().for_each(give);
    }
}

/// A server's transport settings: `base` with windows, limits and a buffer provider for the protocol.
pub fn server_transport(base: TransportConfig, pool: &BufPool) -> TransportConfig {
    TransportConfig {
        max_data: base.max_data.max(MIN_MAX_DATA),
        stream_window_bidi_remote: INITIAL_WINDOW,
        stream_window_uni: INITIAL_WINDOW,
        max_streams_bidi: base.max_streams_bidi.max(MAX_STREAMS),
        max_streams_uni: base.max_streams_uni.max(MAX_STREAMS),
        // The server mainly uses progress events; this is for when gaps hide progress.
        receive_low_water: INITIAL_WINDOW / 2,
        send_budget: base.send_budget.max(SEND_BUDGET),
        provider: Some(Arc::new(FirstBuffer(pool.part(pool.limit() / 4 * 3)))),
        datagrams: Some(datagrams::config()),
        ..base
    }
}

/// The transport settings of a client that sends datagrams: `base` with queues for them.
pub fn datagram_transport(base: TransportConfig) -> TransportConfig {
    TransportConfig { datagrams: Some(datagrams::config()), ..base }
}

/// A client's transport settings: `base`, adapted so that `streams` answers of `shape` at a time need no window
/// updates.
pub fn client_transport(base: TransportConfig, shape: &ReceiveShape, streams: u32) -> TransportConfig {
    let window = shape.window();
    TransportConfig {
        max_data: base.max_data.max(window.saturating_mul(2 * u64::from(streams)).min(1 << 40)),
        stream_window_bidi_local: window,
        // Answers arrive on the client's own streams.
        max_streams_bidi: 0,
        max_streams_uni: 0,
        // Buffers are provided again when they come back, so this event is not needed.
        receive_low_water: 0,
        send_budget: base.send_budget.max(SEND_BUDGET),
        ..base
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_provider_keeps_what_it_promises() {
        let pool = BufPool::heap();
        let config = server_transport(TransportConfig::default(), &pool);
        let provider = config.provider.expect("set");
        let mut bufs = Vec::new();
        provider.provide(StreamId(0), &mut |buf| bufs.push(buf));
        let total: u64 = bufs.iter().map(|b| b.len() as u64).sum();
        assert!(total >= provider.initial_window() && total > 0);
        assert!(config.max_streams_bidi >= 1000 && config.max_streams_uni >= 1000);
        drop(bufs);
        assert_eq!(pool.stats().in_use, 0);
    }

    #[test]
    fn a_base_with_more_is_left_alone() {
        let base = TransportConfig { max_data: 1 << 50, send_budget: 1 << 40, ..TransportConfig::default() };
        let shape = ReceiveShape::new(1000, 1, 1 << 20);
        let config = client_transport(base, &shape, 10);
        assert_eq!((config.max_data, config.send_budget), (1 << 50, 1 << 40));
        assert_eq!(config.stream_window_bidi_local, shape.window());
    }
}
