//! How a device spreads what it receives over its queues.

use std::mem::zeroed;

use super::Port;
use crate::datapath::steering::{Fields, Steering};

/// The longest key of any device, in bytes.
const MAX_KEY: usize = 256;

/// The key's length if the device does not say, in bytes.
const USUAL_KEY: u8 = 40;

/// Table entries that DPDK reads with one structure.
const GROUP: u16 = 64;

impl Port {
    /// How received packets are steered to the port's queues, according to the device's actual key and table, or to the
    /// cores that share its queue pair ([`Port::take_spread`]). `None` if there is only one queue, or if it cannot be
    /// computed: memif, vhost and rings deliver to the queue that the other end sent on; the kernel uses its own hash
    /// for af-packet and, for a tap, remembers the queue that a flow was last sent by.
    pub fn steering(&self) -> Option<Steering> {
        if let Some((hash, cores)) = self.spread {
            return Some(Steering::of_spread(hash, cores));
        }
        if self.inner.queues < 2 {
            return None;
        }
        let (info, code) = self.inner.device.info();
        if code != 0 {
            return None;
        }
        let mut key = [0; MAX_KEY];
        let len = if info.hash_key_size == 0 { USUAL_KEY } else { info.hash_key_size };
        // SAFETY: plain data, for which zero is valid.
        let mut conf: dpdk_sys::rte_eth_rss_conf = unsafe { zeroed() };
        (conf.rss_key, conf.rss_key_len) = (key.as_mut_ptr(), len);
        // SAFETY: the port exists; the key has room for more than is said.
        if unsafe { dpdk_sys::rte_eth_dev_rss_hash_conf_get(self.inner.id, &mut conf) } != 0 {
            return None;
        }
        let table = self.table(info.reta_size)?;
        let fields = |ports: u64, addresses: u64| match (conf.rss_hf & ports, conf.rss_hf & addresses) {
            (0, 0) => Fields::None,
            (0, _) => Fields::Addresses,
            _ => Fields::Ports,
        };
        Steering::of_device(
            &key[..usize::from(len)],
            table,
            fields(dpdk_sys::GANNET_RSS_IPV4_UDP, dpdk_sys::GANNET_RSS_IPV4),
            fields(dpdk_sys::GANNET_RSS_IPV6_UDP, dpdk_sys::GANNET_RSS_IPV6),
        )
    }

    /// The device's redirection table, if it can be read.
    fn table(&self, size: u16) -> Option<Vec<u16>> {
        // SAFETY: plain data, for which zero is valid.
        let mut groups: Vec<dpdk_sys::rte_eth_rss_reta_entry64> =
            (0..size.div_ceil(GROUP)).map(|_| unsafe { zeroed() }).collect();
        for group in &mut groups {
            group.mask = u64::MAX;
        }
        // SAFETY: the port exists, and there is a structure for each group of entries.
        let code = unsafe { dpdk_sys::rte_eth_dev_rss_reta_query(self.inner.id, groups.as_mut_ptr(), size) };
        let all = groups.iter().flat_map(|group| group.reta);
        (code == 0 && size > 0).then(|| all.take(size.into()).collect())
    }
}
