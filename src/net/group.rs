//! Several cores on one port.
//!
//! An ARP or NDP message reaches one core, which is often not the one that it matters to. So a core passes on what it
//! learned, and takes what others pass on as if the message had arrived there. Core 0 alone announces, checks and defends
//! our addresses and reports multicast groups; every core answers requests for our addresses.

use std::net::IpAddr;

use crate::base::time::Instant;
use crate::datapath::TxFrame;
use crate::net::claim::Other;
use crate::net::neighbor::News;
use crate::net::news::{GroupNews, Overheard};
use crate::net::stack::{Net, NetEvent};
use crate::wire::eth::Mac;

impl<T: TxFrame> Net<T> {
    /// Takes over what another core of the group has learned.
    pub fn take_news(&mut self, now: Instant, news: &GroupNews) {
        match *news {
            GroupNews::Neighbor { ip, mac } => self.share_neighbor(now, ip, mac),
            GroupNews::Overheard(Overheard { ip, mac, news }) => {
                self.learn_quietly(now, ip, mac, news);
            }
            GroupNews::Claimed { ip, mac, uses } if self.core == 0 => {
                self.judge_claim(now, ip, mac, if uses { Other::Uses } else { Other::Probes });
            }
            GroupNews::AddressHeld { ip } if self.core != 0 => {
                if self.claims.hold(ip) {
                    self.addressing.set_used(ip, true);
                }
            }
            GroupNews::AddressLost { ip, mac } if self.core != 0 && self.claims.has(ip) => {
                self.remove_address(ip);
                self.event(NetEvent::AddressLost { ip, mac });
            }
            GroupNews::ListenerQuery { max_delay } if self.core == 0 => self.reports.asked(now, max_delay),
            GroupNews::Asked { .. }
            | GroupNews::Claimed { .. }
            | GroupNews::AddressHeld { .. }
            | GroupNews::AddressLost { .. }
            | GroupNews::ListenerQuery { .. } => {}
        }
    }

    /// Whether there are other cores on the port.
    pub(super) fn in_group(&self) -> bool {
        self.cores > 1
    }

    /// Tells the other cores, if there are any.
    pub(super) fn tell(&mut self, news: GroupNews) {
        if self.in_group() {
            self.event(NetEvent::Group(news));
        }
    }

    /// Tells the other cores of a message that this one did not ask for.
    pub(super) fn overhear(&mut self, ip: IpAddr, mac: Option<Mac>, news: News) {
        if mac.is_some() || matches!(news, News::Answer { .. }) {
            self.tell(GroupNews::Overheard(Overheard { ip, mac, news }));
        }
    }
}
