//! What must hold at the end of every play.

use crate::base::Side;
use crate::quic::{CloseReason, ConnId, DropReason, Endpoint, EndpointStats, RetryPolicy, TOKEN_LIFETIME};
use crate::sim::app::Failure;
use crate::sim::network::EcnFate;
use crate::sim::plan::Ending;
use crate::sim::{Host, MIN_CLOSES_LOST, START, World, addr};

impl World {
    /// Checks what must hold at the end of every run.
    pub(super) fn check_end(&self) -> Result<(), Failure> {
        for host in &self.hosts {
            let (buffers, sends) = host.app.held();
            if buffers > 0 || sends > 0 {
                return Err(format!("{:?}: {buffers} buffers and {sends} sends never came back", host.side));
            }
            let charged: usize = host.cores.all().map(Endpoint::memory_charged).sum();
            if charged > 0 && host.app.kept.is_empty() && host.app.datagrams.kept.is_empty() {
                return Err(format!("{:?}: {charged} bytes are charged to nobody", host.side));
            }
            let copied: u64 = host.cores.all().map(|endpoint| endpoint.stats().placement.copied).sum();
            if copied > 0 {
                return Err(format!("{:?}: {copied} bytes were copied", host.side));
            }
            // Late packets are not duplicates, whatever the order and losses.
            let of = |endpoint: &Endpoint| endpoint.stats().drops[DropReason::Duplicate as usize];
            let duplicates: u64 = host.cores.all().map(of).sum();
            if duplicates > 0 && self.plan.link.duplicate == 0 && self.plan.spoof == 0 {
                return Err(format!("{:?}: {duplicates} packets that came once were taken for duplicates", host.side));
            }
            self.check_reason(host)?;
            // A damaged ID may be that of any core, and so may the random bytes of a reset, which the other host sends after
            // a crash, or if its close is lost.
            let peer = &self.hosts[usize::from(host.side == Side::Client)];
            let hears_resets = peer.cores.all().any(|endpoint| endpoint.stats().resets_sent > 0);
            if self.plan.link.corrupt == 0 && !self.stopped && (!hears_resets || host.former.is_some()) {
                host.cores.check_resets(host.former.or(host.app.conn.map(ConnId::core)), addr(host.side.peer()))?;
            }
        }
        self.check_ecn()?;
        self.check_datagrams()?;
        self.check_retry()
    }

    /// Checks that ECN works where nothing disturbs it, and only there.
    fn check_ecn(&self) -> Result<(), Failure> {
        let link = &self.plan.link;
        // Without damage, every report of the peer is true.
        let undisturbed = link.ecn == EcnFate::Kept && link.marks == 0 && link.loss == 0 && link.corrupt == 0;
        let calm = undisturbed && !self.network.cut && link.outage.is_none() && !self.crashed;
        // A path on which everything is marked is not believed.
        let calm = calm && link.rate == 0 && link.congestion < 100;
        for (n, host) in self.hosts.iter().enumerate() {
            let sum =
                |of: fn(&EndpointStats) -> u64| host.cores.all().map(|endpoint| of(endpoint.stats())).sum::<u64>();
            let [validated, failed, congestion] =
                [sum(|stats| stats.ecn_validated), sum(|stats| stats.ecn_failed), sum(|stats| stats.ecn_congestion)];
            let broken = link.marks == 0 && matches!(link.ecn, EcnFate::Cleared | EcnFate::Changed | EcnFate::Dropped);
            let wrong = validated > 0 && (broken || !self.plan.ecn[n])
                || failed > 0
                    && (!self.plan.ecn[n]
                        || calm && self.moved == 0 && self.plan.spoof == 0 && link.later_mtu.is_none())
                || congestion > 0 && !self.plan.ecn[n];
            if wrong {
                let what = format!("{validated} paths validated, {failed} failed, {congestion} reductions");
                return Err(format!("{:?}: ECN: {what}", host.side));
            }
        }
        Ok(())
    }

    /// Checks that acknowledged datagrams have arrived, unless their receiver had no space for them.
    fn check_datagrams(&self) -> Result<(), Failure> {
        for (sender, receiver) in [(0, 1), (1, 0)] {
            let [(acked, _), (_, came)] = [sender, receiver].map(|n| self.hosts[n].app.datagrams.counts());
            let drops = &self.stats(receiver).drops;
            let dropped = drops[DropReason::DatagramNoBuffer as usize] + drops[DropReason::DatagramOverflow as usize];
            if acked as u64 > came as u64 + dropped && !self.crashed && !self.hosts[receiver].app.datagrams.astray {
                return Err(format!("{acked} datagrams were acknowledged, {came} came, {dropped} were dropped"));
            }
        }
        Ok(())
    }

    /// Whether clients need a token.
    fn asks(&self) -> bool {
        matches!(self.plan.retry, RetryPolicy::Always | RetryPolicy::Auto { threshold: 0 })
    }

    /// Checks that the server has seen a token of each connected client if they need one, and none otherwise.
    fn check_retry(&self) -> Result<(), Failure> {
        let [client, server] = [0, 1].map(|n| self.stats(n));
        let wrong = if self.asks() { server.handshakes > server.tokens_accepted } else { server.retries_sent > 0 };
        if wrong && !self.crashed {
            let (sent, taken) = (server.retries_sent, server.tokens_accepted);
            return Err(format!("{} handshakes, {sent} Retries, {taken} tokens", client.handshakes));
        }
        Ok(())
    }

    fn check_reason(&self, host: &Host) -> Result<(), Failure> {
        let Some(reason) = &host.app.closed else { return Ok(()) };
        let expected = match reason {
            CloseReason::Local { code } | CloseReason::Application { code, .. } => {
                *code == 3 && (self.stopping || !matches!(self.plan.ending, Ending::Cut(_) | Ending::Crash(..)))
            }
            // A damaged Version Negotiation packet made the client begin with what it would not have chosen.
            CloseReason::Transport { code: 0x11, .. } | CloseReason::PeerTransport { code: 0x11, .. } => {
                self.plan.link.corrupt > 0
            }
            // A close before the handshake is complete contains no application code.
            CloseReason::PeerTransport { code, .. } => {
                *code == 0x0c && (self.stopping || matches!(self.plan.ending, Ending::Early(..) | Ending::AtTurn(..)))
                // Its packets with the token were lost until the token had expired.
                    || *code == 0x0b && self.asks() && self.may_time_out() && self.now > START + TOKEN_LIFETIME
            }
            CloseReason::IdleTimeout | CloseReason::HandshakeTimeout => self.may_time_out(),
            // One may also list nothing that the client speaks.
            CloseReason::VersionMismatch => self.plan.version().is_none() || self.plan.link.corrupt > 0,
            // A core that stops closes without a word what no peer has been heard from.
            CloseReason::Shutdown => self.crashed || self.stopping,
            // An outage may last longer than the other side answers with its close.
            CloseReason::StatelessReset if self.ended && self.plan.link.outage.is_some() => true,
            // A side that hears nothing any more, as its peer's address has changed, gives up first.
            CloseReason::StatelessReset if self.addresses.rebindings > 0 => true,
            // The server closed just when an attacker had made it believe that its client was elsewhere.
            CloseReason::StatelessReset if self.ended && self.plan.spoof > 0 => true,
            // A key update at rest comes when only this side has not timed out yet.
            CloseReason::StatelessReset if self.ended && self.plan.key_whims != [0; 2] => {
                let peer = &self.app(host.side.peer()).closed;
                *peer == Some(CloseReason::IdleTimeout) || self.crashed || self.may_be_unheard(host.side.peer())
            }
            CloseReason::StatelessReset => self.crashed || self.may_be_unheard(host.side.peer()),
            _ => false,
        };
        if expected { Ok(()) } else { Err(format!("{:?} ended by {reason:?}", host.side)) }
    }

    /// Whether everything that `side` sent about its close may have been lost. After its closing period, it answers
    /// with a stateless reset (RFC 9000 §10.2).
    fn may_be_unheard(&self, side: Side) -> bool {
        let closed = matches!(self.app(side).closed, Some(CloseReason::Local { .. } | CloseReason::Shutdown));
        let n = usize::from(side == Side::Server);
        let (lost, arrived) = (self.closes_lost[n], self.closes_arrived[n]);
        // What asks for more of them may have been lost, too, or come after the closing period: its sender may not have
        // measured the path yet.
        closed && (lost >= MIN_CLOSES_LOST || lost > 0 && arrived == 0)
    }

    /// The other side's close may be lost for good, too.
    fn may_time_out(&self) -> bool {
        let link = &self.plan.link;
        // Until marks are given up, everything is lost that has one.
        let lossy = link.loss > 0 || link.corrupt > 0 || link.ecn == EcnFate::Dropped;
        let rebound = self.addresses.rebindings > 0;
        rebound || self.network.cut || self.crashed || lossy || self.ended
    }
}
