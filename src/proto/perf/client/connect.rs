//! Opening and closing connections.

use crate::base::time::Instant;
use crate::proto::perf::ALPN;
use crate::proto::perf::client::PerfClient;
use crate::proto::perf::client::link::{Link, Stage};
use crate::proto::perf::failure::PerfFailure;
use crate::quic::{ConnId, ConnectError};
use crate::runtime::{ConnectFailure, Context};

impl PerfClient {
    /// Opens connections, a bounded number at a time; starts the load when there are enough.
    pub(super) fn connect_all(&mut self, cx: &mut Context<'_>) {
        while self.to_connect > 0 && self.handshaking < self.plan.max_handshakes && self.connect(cx, cx.now()) {
            self.to_connect = self.to_connect.saturating_sub(1);
        }
        if self.to_connect == 0 && self.handshaking == 0 {
            self.connected_all(cx.now());
        }
    }

    /// Keeps the configured number of handshakes in flight.
    pub(super) fn connect_again(&mut self, cx: &mut Context<'_>) {
        let now = cx.now();
        while self.handshaking < self.plan.connections
            && self.in_flight < u64::from(self.plan.connections)
            && let Some(due) = self.schedule.as_ref().and_then(|schedule| schedule.next(now))
            && self.connect(cx, due)
        {
            if let Some(schedule) = &mut self.schedule {
                schedule.issue(due);
            }
        }
    }

    /// Closes connections whose handshake is, as far as we can ensure, complete at the server too.
    pub(super) fn close_leaving(&mut self, cx: &mut Context<'_>) {
        while let Some(&(id, sent)) = self.leaving.front() {
            let link = self.links.get_mut(&id).filter(|link| link.stage == Stage::Ready);
            if link.is_some() && cx.conn(id).is_some_and(|conn| conn.stats().tx_packets == sent) {
                return;
            }
            self.leaving.pop_front();
            if let Some(link) = link {
                link.stage = Stage::Closing;
                cx.close(id, 0, "done");
            }
        }
    }

    /// Starts a connection; returns `false` if that is not possible now.
    fn connect(&mut self, cx: &mut Context<'_>, due: Instant) -> bool {
        match cx.connect(&self.plan.client_config, &self.plan.server_name, self.plan.remote) {
            Ok(id) => {
                self.links.insert(id, Link::new(due));
                self.handshaking += 1;
                self.results.connections += 1;
                if self.plan.early_data {
                    self.start_early(cx, id, due);
                }
                return true;
            }
            // Connections being closed make room soon.
            Err(ConnectFailure::Engine(ConnectError::TooMany(_)))
                if self.handshaking > 0 || cx.connection_count() > self.links.len() => {}
            Err(error) => {
                self.counts.errors += 1;
                self.results.connections_lost += u64::from(self.to_connect.max(1));
                self.results.fail(PerfFailure::Connect { remote: self.plan.remote, reason: error.to_string() });
                self.to_connect = 0;
                if self.plan.handshakes {
                    self.end(cx, cx.now());
                }
            }
        }
        false
    }

    /// Closes a connection.
    pub(super) fn close(&mut self, cx: &mut Context<'_>, id: ConnId, link: &mut Link) {
        if link.stage == Stage::Handshake {
            self.handshaking -= 1;
        }
        link.stage = Stage::Closing;
        cx.close(id, 0, "done");
    }

    pub(super) fn on_connected(&mut self, cx: &mut Context<'_>, id: ConnId, alpn: &[u8]) {
        let now = cx.now();
        let Some(mut link) = self.links.remove(&id) else { return };
        if link.stage == Stage::Handshake {
            if alpn != ALPN {
                link.failure = Some(PerfFailure::Protocol(String::from_utf8_lossy(alpn).into_owned()));
                self.close(cx, id, &mut link);
            } else {
                self.counts.handshakes += 1;
                self.last_done = now;
                let counts = self.schedule.is_none_or(|s| s.counts(link.due) && s.is_open(now));
                if counts {
                    self.results.handshakes += 1;
                    self.results.handshake.record(now.saturating_since(link.due).as_nanos() as u64);
                }
                self.handshaking -= 1;
                link.stage = Stage::Ready;
                link.sent = cx.conn(id).map_or(0, |conn| conn.stats().tx_packets);
                if self.plan.handshakes && link.is_idle() {
                    self.leaving.push_back((id, link.sent));
                }
            }
        }
        self.links.insert(id, link);
        // Without 0-RTT, a request has waited for the server's stream limit.
        self.start_queued(cx, id);
    }
}
