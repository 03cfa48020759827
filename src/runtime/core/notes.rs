//! Notes from the other cores of the group, and to them.

use super::Core;
use crate::base::time::Instant;
use crate::datapath::Datapath;
use crate::datapath::exchange::Exchange;
use crate::net::GroupNews;
use crate::quic::{TooBig, Undelivered};
use crate::runtime::notes::Note;
use crate::runtime::{App, Unreachable};

/// The maximum number of notes per turn.
const BUDGET: usize = 64;

impl<D: Datapath, A: App, X: Exchange<D::Rx>> Core<D, A, X> {
    /// Handles notes from other cores. Returns whether there were any.
    pub(super) fn take_notes(&mut self, now: Instant) -> bool {
        let Some(notes) = &mut self.seat.notes else { return false };
        notes.beat(self.stats.turns);
        let mut any = false;
        for _ in 0..BUDGET {
            let Some(note) = self.seat.notes.as_mut().and_then(|notes| notes.next()) else { break };
            self.take_note(now, note);
            any = true;
        }
        if any {
            self.count_notes();
        }
        any
    }

    #[cold]
    fn take_note(&mut self, now: Instant, note: Note) {
        match note {
            Note::Net(news) => self.net.take_news(now, &news),
            Note::TooBig { local, remote, max, len, quoted } => {
                let news = TooBig { local, remote, max, len, quoted: &quoted };
                self.stats.notes_heeded += u64::from(self.endpoint.relayed_too_big(now, &news));
            }
            Note::Undelivered { local, remote, why, len, quoted } => {
                let port_closed = why == Unreachable::PortClosed;
                let news = Undelivered { local, remote, port_closed, len, quoted: &quoted };
                if self.endpoint.relayed_undelivered(&news) {
                    self.stats.notes_heeded += 1;
                    self.unreachable(now, remote.ip(), why);
                }
            }
            Note::Reset { remote, token } => {
                self.stats.notes_heeded += u64::from(self.endpoint.relayed_reset(now, remote, &token));
            }
            Note::AddAddress(addr) => {
                // It was accepted by a core with the same settings.
                let _ = self.use_address(now, addr);
            }
            Note::RemoveAddress(addr) => self.leave_address(addr),
            Note::Drain => {
                self.draining = true;
                self.endpoint.stop_accepting();
            }
            Note::Tls(tls) => self.endpoint.set_tls(tls),
        }
    }

    /// Whether new connections are accepted with `tls`.
    #[cfg(test)]
    pub(crate) fn serves_with(&self, tls: &std::sync::Arc<rustls::ServerConfig>) -> bool {
        self.endpoint.serves_with(tls)
    }

    /// Passes on news of the network layer.
    pub(super) fn tell_news(&mut self, now: Instant, news: GroupNews) {
        if let Some(notes) = &mut self.seat.notes {
            notes.tell_news(now, news);
            self.count_notes();
        }
    }

    /// Passes on what reached this core and concerns none of its connections. Strangers can cause it.
    #[cold]
    pub(super) fn pass_on(&mut self, now: Instant, note: &Note) {
        if let Some(notes) = &mut self.seat.notes {
            notes.pass_on(now, note);
            self.count_notes();
        }
    }

    /// Tells all other cores about a decision of this process.
    pub(super) fn tell(&mut self, note: &Note) {
        if let Some(notes) = &mut self.seat.notes {
            notes.tell(note);
            self.count_notes();
        }
    }

    fn count_notes(&mut self) {
        let Some(notes) = &self.seat.notes else { return };
        let stats = notes.stats();
        self.stats.notes_told = stats.told;
        self.stats.notes_heard = stats.heard;
        self.stats.notes_lost = stats.lost;
        self.stats.notes_withheld = stats.withheld;
    }

    /// Datagrams that may be stateless resets of connections on other cores (RFC 9000 §10.3.1).
    pub(super) fn pass_on_resets(&mut self, now: Instant) {
        while let Some((remote, token)) = self.endpoint.poll_foreign_reset() {
            self.pass_on(now, &Note::Reset { remote, token });
        }
    }
}
