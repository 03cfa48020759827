//! Packets that arrive before their keys, because the network has reordered them or the packet that brings the keys was
//! lost. They are kept until the keys are available; otherwise their sender would detect the loss by a timeout and take
//! it for congestion (RFC 9000 §12.2, RFC 9001 §5.7).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::base::Side;
use crate::base::time::Instant;
use crate::quic::connection::{Connection, Cx, RxMeta};
use crate::quic::recovery::SpaceId;
use crate::quic::stats::DropReason;

/// Maximum number of packets that a connection keeps: a flight at the start of a connection.
const MAX_PACKETS: usize = 10;

/// Maximum number of bytes that the connections of a core keep together.
const MAX_BYTES: usize = 2 << 20;

/// Number of bytes that the connections of one core keep, shared with the packets that it counts.
#[derive(Clone, Debug, Default)]
pub(crate) struct Kept(Arc<AtomicUsize>);

impl Kept {
    fn bytes(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// A copy of `packet`, if there is room.
    fn keep(&self, packet: &[u8]) -> Option<KeptBytes> {
        if self.bytes() + packet.len() > MAX_BYTES {
            return None;
        }
        self.0.fetch_add(packet.len(), Ordering::Relaxed);
        Some(KeptBytes { bytes: packet.into(), kept: self.clone() })
    }
}

/// The bytes of a kept packet, counted until dropped.
#[derive(Debug)]
struct KeptBytes {
    bytes: Box<[u8]>,
    kept: Kept,
}

impl Drop for KeptBytes {
    fn drop(&mut self) {
        self.kept.0.fetch_sub(self.bytes.len(), Ordering::Relaxed);
    }
}

/// A packet that arrived before its keys.
#[derive(Debug)]
struct Early {
    space: SpaceId,
    arrived: Instant,
    meta: RxMeta,
    packet: KeptBytes,
}

/// The packets of one connection that arrived before their keys, in the order of arrival.
#[derive(Debug, Default)]
pub(crate) struct Waiting(Vec<Early>);

impl Connection {
    /// Keeps a packet of `space` for which there are no keys, if they may still come.
    #[cold]
    pub(super) fn on_no_keys(&mut self, cx: &mut Cx<'_>, meta: &RxMeta, space: SpaceId, packet: &[u8]) {
        let waiting = self.waiting.as_ref().map_or(0, |waiting| waiting.0.len());
        let may_come = !self.complete && !self.spaces[space.index()].discarded && space != SpaceId::Initial;
        let copy = (may_come && waiting < MAX_PACKETS).then(|| cx.scratch.kept.keep(packet)).flatten();
        let Some(packet) = copy else {
            cx.stats.drop(DropReason::NoKeys);
            return;
        };
        cx.stats.packets_kept += 1;
        self.trace_kept(cx, space, &packet.bytes);
        let early = Early { space, arrived: cx.now, meta: *meta, packet };
        self.waiting.get_or_insert_default().0.push(early);
    }

    /// Whether packets of `space` can be opened. A server reads no 1-RTT packets before the handshake is complete (RFC
    /// 9001 §5.7).
    pub(super) fn can_open(&self, space: SpaceId) -> bool {
        match space {
            SpaceId::Data => self.one_rtt.is_some() && (self.complete || self.side == Side::Client),
            _ => self.spaces[space.index()].keys.is_some(),
        }
    }

    fn can_open_kept(&self, kept: &Early) -> bool {
        let long = kept.packet.bytes.first().is_some_and(|first| first & 0x80 != 0);
        if kept.space == SpaceId::Data && long {
            return self.early.as_ref().is_some_and(|early| early.has_keys());
        }
        self.can_open(kept.space)
    }

    /// Reads kept packets for which there are keys now, as of the time when they arrived: round-trip time samples do
    /// not include the wait (RFC 9002 §5.3), and the acknowledgement reports it as delay (RFC 9000 §13.2.5).
    #[cold]
    pub(super) fn read_waiting(&mut self, cx: &mut Cx<'_>, scratch: &mut [u8]) {
        self.trace_replay(cx, true);
        while self.is_active()
            && let Some(list) = &self.waiting
            && let Some(next) = list.0.iter().position(|early| self.can_open_kept(early))
            && let Some(list) = &mut self.waiting
        {
            let Early { arrived, meta, mut packet, .. } = list.0.remove(next);
            let Ok(parsed) = cx.ids.parse(&packet.bytes) else { continue };
            let mut then = Cx {
                now: arrived,
                memory: &mut *cx.memory,
                ids: cx.ids,
                stats: &mut *cx.stats,
                scratch: &mut *cx.scratch,
                rng: &mut *cx.rng,
            };
            self.handle_packet(&mut then, &meta, &parsed, false, &mut packet.bytes, scratch);
            self.reset_idle(cx.now);
        }
        self.trace_replay(cx, false);
        // No further keys will come.
        if self.complete || !self.is_active() {
            self.forget_waiting(cx);
        }
    }

    fn forget_waiting(&mut self, cx: &mut Cx<'_>) {
        for _ in self.waiting.take().iter().flat_map(|waiting| &waiting.0) {
            cx.stats.drop(DropReason::NoKeys);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_connections_together_keep_no_more_than_so_much() {
        let kept = Kept::default();
        let packet = vec![7; 1200];
        let copies: Vec<_> = std::iter::from_fn(|| kept.keep(&packet)).collect();
        assert_eq!((copies.len(), kept.bytes()), (MAX_BYTES / 1200, copies.len() * 1200));
        drop(copies);
        assert_eq!(kept.bytes(), 0);
        assert!(kept.keep(&packet).is_some_and(|copy| *copy.bytes == *packet));
    }
}
