//! The link and the addresses of a core: waiting for them, and losing them.

use std::sync::atomic::{AtomicBool, Ordering};

use super::{Core, RunError};
use crate::base::time::{Duration, Instant};
use crate::datapath::Datapath;
use crate::datapath::exchange::Exchange;
use crate::net::NetEvent;
use crate::runtime::observe::Blind;
use crate::runtime::{App, Unreachable};

/// How long a client waits at start for its link to come up, by default.
const LINK_START: Duration = Duration::from_secs(5);

impl<D: Datapath, A: App, X: Exchange<D::Rx>> Core<D, A, X> {
    /// Waits for the link: a client that starts before its link is up would lose its first packets. A server does not
    /// wait, as on some ports its link comes and goes with its clients.
    pub(super) fn await_link(&mut self, stop: &AtomicBool) -> Result<(), RunError> {
        let start = self.clock.now();
        while self.listen.is_none() && !self.datapath.link_up() && !stop.load(Ordering::Relaxed) {
            self.check_port()?;
            let patience = self.link_patience.unwrap_or(LINK_START);
            if self.clock.now().saturating_since(start) > patience {
                let why = self.datapath.link_problem();
                let usual = || "is the cable plugged in, or the peer process running?".to_owned();
                return Err(RunError::NoLink(patience, why.unwrap_or_else(usual)));
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        Ok(())
    }

    /// Waits until duplicate address detection has finished: an application that connects needs an address.
    pub(super) fn await_addresses(&mut self, stop: &AtomicBool) -> Result<(), RunError> {
        while !self.net.is_ready() && !stop.load(Ordering::Relaxed) {
            let now = self.clock.now();
            self.watch_link(now);
            self.receive(now, &mut Blind);
            self.take_notes(now);
            self.poll_net(now);
            self.send(now, &mut Blind);
            self.check_link()?;
            std::thread::yield_now();
        }
        self.check_addresses()
    }

    /// Fails if no address is left.
    pub(super) fn check_addresses(&self) -> Result<(), RunError> {
        match self.taken {
            Some((ip, mac)) if !self.net.has_addresses() => Err(RunError::AddressTaken { ip, mac }),
            _ => Ok(()),
        }
    }

    /// Reports link changes to the network layer, which checks and announces addresses at each link-up.
    pub(super) fn watch_link(&mut self, now: Instant) {
        let up = self.datapath.link_up();
        if up != self.link_up {
            self.link_up = up;
            if up {
                self.net.link_up(now);
            } else {
                self.net.link_down(now);
            }
        }
    }

    pub(super) fn check_link(&mut self) -> Result<(), RunError> {
        if self.link_up {
            self.link_lost = None;
            return Ok(());
        }
        self.check_port()?;
        let Some(patience) = self.link_patience.filter(|_| self.listen.is_none()) else { return Ok(()) };
        let now = self.clock.now();
        let down = now.saturating_since(*self.link_lost.get_or_insert(now));
        if down < patience {
            return Ok(());
        }
        let why = self.datapath.link_problem();
        Err(RunError::LinkDown(
            down,
            why.unwrap_or_else(|| "the cable is unplugged, or the peer process has ended".to_owned()),
        ))
    }

    /// Watches the link of a core that is always busy, which would otherwise not notice that its device is gone.
    #[cold]
    pub(super) fn look_at_link(&mut self) -> Result<(), RunError> {
        self.watch_link(self.clock.now());
        if self.link_up { Ok(()) } else { self.check_port() }
    }

    /// Fails if the device is gone for good.
    fn check_port(&self) -> Result<(), RunError> {
        self.datapath.removed().map_or(Ok(()), |why| Err(RunError::PortGone(why)))
    }

    pub(super) fn poll_net(&mut self, now: Instant) {
        while let Some(event) = self.net.poll_event() {
            match event {
                NetEvent::Unreachable { ip } => self.unreachable(now, ip, Unreachable::NoAnswer),
                NetEvent::Duplicate { ip, mac } => {
                    if let Some(left_out) = self.duplicates.take(now) {
                        let left_out = left_out.count();
                        tracing::warn!(%ip, %mac, left_out, "another host also uses our address; packets may go to it");
                    }
                }
                NetEvent::AddressLost { ip, mac } => {
                    // Core 0 speaks for all.
                    if self.seat.core == 0 {
                        tracing::error!(%ip, %mac, "another host has our address; no longer using it");
                    }
                    self.taken = Some((ip, mac));
                }
                NetEvent::RouterSilent { ip } => {
                    tracing::warn!(%ip, "a router does not answer; using another one meanwhile");
                }
                NetEvent::Group(news) => self.tell_news(now, news),
            }
        }
    }
}
