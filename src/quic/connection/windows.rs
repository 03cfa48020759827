//! Windows and budgets that follow the path.

use crate::quic::config::TransportConfig;
use crate::quic::connection::{Connection, Cx};
use crate::quic::flow::RecvCredit;
use crate::quic::recovery::Recovery;
use crate::quic::window::{Counts, Intake, NOTABLE, Room};

impl Connection {
    /// Measures what the connection takes in. Called for each ACK frame sent, it usually costs two comparisons.
    #[inline]
    pub(super) fn measure_intake(&mut self, cx: &Cx<'_>) {
        let consumed = self.recv_credit.consumed();
        let due = match &self.intake {
            Some(intake) => intake.is_due(cx.now, consumed),
            None => consumed >= NOTABLE,
        };
        if due {
            self.update_intake(cx);
        }
    }

    #[inline(never)]
    fn update_intake(&mut self, cx: &Cx<'_>) {
        let rtt = self.recovery.rtt();
        // Without a sample, nothing is known of the path.
        if self.config.max_window == 0 || rtt.first_sample().is_none() {
            return;
        }
        let (rtt, counts) = (rtt.min(), self.recv_credit.counts());
        let room = match &mut self.intake {
            Some(intake) => {
                let before = intake.room();
                intake.update(cx.now, counts, rtt);
                if intake.room() == before {
                    return;
                }
                intake.room()
            }
            none => none.insert(Box::new(Intake::new(cx.now, counts, rtt))).room(),
        };
        self.resize_window(cx);
        // No stream is promised more than the connection may be.
        let window = room.stream().min(self.recv_credit.window() / 3 * 2);
        self.streams.set_sliding_window(window.min(self.config.max_window));
    }

    /// How much room the path needs, as far as that is known.
    pub(super) fn room(&self) -> Room {
        self.intake.as_ref().map_or(Room::default(), |intake| intake.room())
    }

    /// Adapts the connection's window to the path, and to the memory available at present.
    pub(super) fn resize_window(&mut self, cx: &Cx<'_>) {
        let most = self.config.max_data.max(self.room().connection().min(self.config.max_window));
        self.recv_credit.set_window(cx.memory.window(most, self.account.is_some()));
    }

    /// See [`send_budgets`].
    pub(super) fn send_budgets(&self) -> (u64, u64) {
        send_budgets(&self.config, &self.recovery)
    }
}

/// The number of bytes that may be queued on a stream in any case, and if the peer's window for it allows that many. A
/// sender needs what is in flight, and as much again that is written while the acknowledgements are on their way.
pub(super) fn send_budgets<F>(config: &TransportConfig, recovery: &Recovery<F>) -> (u64, u64) {
    (config.send_budget, recovery.cwnd().saturating_mul(2).min(config.max_send_budget))
}

impl RecvCredit {
    fn counts(&self) -> Counts {
        Counts { received: self.received(), consumed: self.consumed() }
    }
}
