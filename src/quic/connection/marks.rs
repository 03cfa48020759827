//! Explicit congestion notification (RFC 9000 §13.4): what is sent with marks, and what the peer reports about them.

use crate::base::time::Instant;
use crate::quic::connection::{Connection, Cx};
use crate::quic::path::Report;
use crate::quic::recovery::SpaceId;

impl Connection {
    /// The next packet numbers of all spaces.
    pub(super) fn next_numbers(&self) -> [u64; 3] {
        self.spaces.each_ref().map(|space| space.next_pn)
    }

    /// Handles an ACK frame that newly acknowledges the packets in `acked` of the scratch, none of them below `lowest`.
    /// The largest was sent at `sent`.
    pub(super) fn on_ecn(&mut self, cx: &mut Cx<'_>, report: &Report, lowest: u64, sent: Instant) {
        let acked = cx.scratch.acked.iter().map(|(pn, _)| *pn);
        let next = self.next_numbers();
        let findings = self.path.ecn.on_ack(report, acked, lowest, next);
        cx.stats.ecn_validated += u64::from(findings.validated);
        cx.stats.ecn_failed += u64::from(findings.failed);
        if findings.congestion {
            cx.stats.ecn_congestion += u64::from(!self.recovery.in_recovery(sent));
            self.recovery.on_congestion_marks(cx.now, sent);
        }
        if findings.failed {
            tracing::debug!(conn = %self.id, peer = %self.path.remote, "ECN does not work on this path");
        }
    }

    /// Counts a datagram that tests the path.
    pub(super) fn count_marked(&mut self) {
        let next = self.next_numbers();
        self.path.ecn.on_datagram(next);
    }

    /// Handles the loss of the packets in `lost` of the scratch, as far as marks may be the reason.
    pub(super) fn judge_losses(&mut self, cx: &mut Cx<'_>) {
        let next = self.next_numbers();
        for space in SpaceId::ALL {
            let lost = cx.scratch.lost.iter().filter(|(of, ..)| *of == space).map(|(_, pn, _)| *pn);
            cx.stats.ecn_failed += u64::from(self.path.ecn.on_lost(space.index(), lost, next));
        }
    }

    /// Handles a probe timeout.
    pub(super) fn judge_silence(&mut self) {
        let next = self.next_numbers();
        self.path.ecn.on_probe_timeout(self.recovery.pto_count(), next);
    }
}
