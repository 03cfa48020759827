//! Configures a device and starts it.

use std::mem::zeroed;
use std::path::Path;

use super::QueuePools;
use super::device::Device;
use super::filters;
use crate::datapath::{BURST, Caps, TX_HEADROOM};
use crate::dpdk::eal::Eal;
use crate::dpdk::error::PortError;
use crate::dpdk::log::Capture;
use crate::dpdk::numa::{self, Home};
use crate::dpdk::pool::Pool;
use crate::dpdk::profile::{Kind, Offloads, PortProfile};

/// Ethernet header and frame check sequence, in bytes.
const ETHERNET: u32 = 18;

/// Private buffers of a queue: bursts in both directions, thread caches, and queued frames.
const PRIVATE: u32 = 1024;

/// Creates the pools of every queue, and those of the cores without a queue, on NUMA node `socket`.
pub(super) fn pools(eal: &Eal, profile: &PortProfile, socket: i32) -> Result<Vec<QueuePools>, PortError> {
    // Both are below 64 kB: the MTU and the buffer size are bounded by the profile.
    let room = |data: u32| (TX_HEADROOM as u32 + data) as u16;
    let pool = |buffers, data| Pool::new(&eal.0, buffers, room(data), socket);
    let private = || {
        let size = room(profile.frame_size().max(profile.rx_buffer()));
        profile.copies_frames().then(|| Pool::private(&eal.0, PRIVATE + profile.elsewhere(), size, socket)).transpose()
    };
    let of_queue = |_| {
        let rx = pool(profile.pool_size(), profile.rx_buffer())?;
        let small = profile.rx_buffer() < profile.frame_size();
        let tx = if small { pool(profile.pool_size(), profile.frame_size())? } else { rx.clone() };
        Ok(QueuePools { rx, tx, private: private()? })
    };
    let of_guest = |_| {
        let tx = pool(profile.guest_pool_size(), profile.frame_size())?;
        Ok(QueuePools { rx: tx.clone(), tx, private: private()? })
    };
    (0..profile.queues).map(of_queue).chain((0..profile.guests()).map(of_guest)).collect()
}

/// The NUMA node for the pools of `device`: its own, or -1 for any if that has too few hugepages.
///
/// # Errors
/// [`PortError::NodeMemory`] if they have to be there.
pub(super) fn socket(eal: &Eal, profile: &PortProfile, device: &Device) -> Result<i32, PortError> {
    let Some(node) = device.node() else { return Ok(device.socket()) };
    if eal.hugepages() {
        match numa::home(Path::new("/sys"), node, profile.memory_bytes(), profile.hugepages)? {
            Home::Near => {}
            Home::Anywhere(warning) => {
                tracing::warn!("{warning}; until then, memory of other nodes is used, which is slower");
                return Ok(-1);
            }
        }
    }
    Ok(node.into())
}

/// The device's capabilities and the resulting settings.
pub(super) struct Settled {
    info: dpdk_sys::rte_eth_dev_info,
    plan: Plan,
}

/// Checks the profile against the device, before anything is allocated.
pub(super) fn settle(device: &Device, profile: &PortProfile, capture: &Capture) -> Result<Settled, PortError> {
    let (info, code) = device.info();
    device.step("reading its capabilities", code, capture)?;
    let plan = Plan::new(device.name(), profile, &info)?;
    Ok(Settled { info, plan })
}

/// Configures `device`, sets up its queues and starts it.
pub(super) fn bring_up(
    device: &mut Device,
    profile: &PortProfile,
    settled: &Settled,
    pools: &[QueuePools],
    capture: &Capture,
) -> Result<Caps, PortError> {
    let id = device.id();
    let plan = &settled.plan;
    let mut conf = plan.configuration();
    if profile.wants_interrupts() {
        conf.intr_conf.set_rxq(1);
    }
    // SAFETY: as filled in by the driver: null, or flags that live as long as the device.
    let flags = unsafe { settled.info.dev_flags.as_ref() }.copied().unwrap_or(0);
    if u64::from(flags) & u64::from(dpdk_sys::GANNET_DEV_INTR_RMV) != 0 {
        conf.intr_conf.set_rmv(1);
    }
    // SAFETY: the port exists and is not started; `conf` is read during the call.
    let code = unsafe { dpdk_sys::rte_eth_dev_configure(id, profile.queues, profile.queues, &conf) };
    device.step("configuration", code, capture)?;
    queues(device, profile, pools, settled, capture)?;
    mtu(device, profile, plan, capture)?;
    // SAFETY: configured, with all queues set up.
    device.step("start", unsafe { dpdk_sys::rte_eth_dev_start(id) }, capture)?;
    device.started = true;
    let filtered = plan.rx_offloads & dpdk_sys::GANNET_RX_OFFLOAD_VLAN_FILTER != 0;
    filters::open(device, profile, profile.vlan.filter(|_| filtered), capture)?;
    // The layers above skip checksums if the device is said to handle them.
    let nobody = profile.offloads == Offloads::None;
    Ok(Caps {
        mac: mac(device, profile, capture)?,
        mtu: profile.mtu,
        tx_ip_checksum: nobody || plan.tx_offloads & dpdk_sys::GANNET_TX_OFFLOAD_IPV4_CKSUM != 0,
        tx_udp_checksum: nobody || plan.tx_offloads & dpdk_sys::GANNET_TX_OFFLOAD_UDP_CKSUM != 0,
    })
}

/// The settings that follow from profile and capabilities.
#[derive(Debug, PartialEq, Eq)]
struct Plan {
    /// The MTU set on the device, which may be less than it carries.
    mtu: u16,
    rx_offloads: u64,
    tx_offloads: u64,
    /// The fields that RSS hashes; 0 for no RSS.
    rss: u64,
}

impl Plan {
    fn new(port: &str, profile: &PortProfile, info: &dpdk_sys::rte_eth_dev_info) -> Result<Self, PortError> {
        let max = info.max_rx_queues.min(info.max_tx_queues);
        if profile.queues > max {
            return Err(PortError::Queues { port: port.to_owned(), max, want: profile.queues });
        }
        let limit = mtu_limit(info);
        if u32::from(profile.mtu) > limit && !profile.driver.any_mtu {
            return Err(PortError::Mtu { port: port.to_owned(), max: limit, want: profile.mtu });
        }
        let sums = profile.offloads == Offloads::Auto;
        let wanted = |on: bool, flags: u64| if on { flags } else { 0 };
        let small = profile.rx_buffer() < u32::from(profile.mtu) + ETHERNET;
        let spread = profile.queues > 1;
        Ok(Self {
            mtu: u32::from(profile.mtu).min(limit) as u16,
            rx_offloads: info.rx_offload_capa
                & (wanted(sums, dpdk_sys::GANNET_RX_OFFLOAD_IPV4_CKSUM | dpdk_sys::GANNET_RX_OFFLOAD_UDP_CKSUM)
                    | wanted(small, dpdk_sys::GANNET_RX_OFFLOAD_SCATTER)
                    // virtio drops every tagged frame until its filter contains the VLAN, and so do virtual functions.
                    | wanted(profile.vlan.is_some(), dpdk_sys::GANNET_RX_OFFLOAD_VLAN_FILTER)
                    | wanted(spread, dpdk_sys::GANNET_RX_OFFLOAD_RSS_HASH)),
            tx_offloads: info.tx_offload_capa
                & wanted(sums, dpdk_sys::GANNET_TX_OFFLOAD_IPV4_CKSUM | dpdk_sys::GANNET_TX_OFFLOAD_UDP_CKSUM),
            rss: info.flow_type_rss_offloads & wanted(spread, dpdk_sys::GANNET_RSS_IP | dpdk_sys::GANNET_RSS_UDP),
        })
    }

    fn configuration(&self) -> dpdk_sys::rte_eth_conf {
        // SAFETY: plain data, for which zero is valid and means the default.
        let mut conf: dpdk_sys::rte_eth_conf = unsafe { zeroed() };
        conf.rxmode.mtu = u32::from(self.mtu);
        conf.rxmode.offloads = self.rx_offloads;
        conf.txmode.offloads = self.tx_offloads;
        if self.rss != 0 {
            conf.rxmode.mq_mode = dpdk_sys::rte_eth_rx_mq_mode_RTE_ETH_MQ_RX_RSS;
            conf.rx_adv_conf.rss_conf.rss_hf = self.rss;
        }
        conf
    }
}

/// The largest MTU that a device reports to support.
fn mtu_limit(info: &dpdk_sys::rte_eth_dev_info) -> u32 {
    let by_frame = match info.max_mtu {
        // Not reported: derive it from the largest frame.
        u16::MAX => info.max_rx_pktlen.saturating_sub(ETHERNET),
        mtu => info.max_rx_pktlen.saturating_sub(ETHERNET).max(u32::from(mtu)),
    };
    by_frame.min(u32::from(info.max_mtu))
}

fn queues(
    device: &Device,
    profile: &PortProfile,
    pools: &[QueuePools],
    settled: &Settled,
    capture: &Capture,
) -> Result<(), PortError> {
    let Settled { info, plan } = settled;
    let id = device.id();
    let (mut rx_desc, mut tx_desc) = (profile.rx_desc, profile.tx_desc);
    // SAFETY: the port is configured; both numbers are adjusted in place.
    let code = unsafe { dpdk_sys::rte_eth_dev_adjust_nb_rx_tx_desc(id, &mut rx_desc, &mut tx_desc) };
    device.step("adjusting the number of descriptors", code, capture)?;
    descriptors(device.name(), profile, rx_desc, tx_desc)?;
    let socket = device.socket().max(0) as u32;
    let mut rx_conf = info.default_rxconf;
    rx_conf.offloads = plan.rx_offloads;
    let mut tx_conf = info.default_txconf;
    tx_conf.offloads = plan.tx_offloads;
    for (queue, pool) in (0..profile.queues).zip(pools) {
        // SAFETY: configured and not started; the pool outlives the device, its owner drops it later.
        let code = unsafe { dpdk_sys::rte_eth_rx_queue_setup(id, queue, rx_desc, socket, &rx_conf, pool.rx.as_ptr()) };
        device.step("setting up a receive queue", code, capture)?;
        // SAFETY: configured and not started.
        let code = unsafe { dpdk_sys::rte_eth_tx_queue_setup(id, queue, tx_desc, socket, &tx_conf) };
        device.step("setting up a transmit queue", code, capture)?;
    }
    Ok(())
}

/// Checks what a device made of the numbers of descriptors.
fn descriptors(port: &str, profile: &PortProfile, rx: u16, tx: u16) -> Result<(), PortError> {
    let counts = |key: &str| !profile.driver.ignores.iter().any(|(ignored, _)| *ignored == key);
    for (key, want, max) in [("rx_desc", profile.rx_desc, rx), ("tx_desc", profile.tx_desc, tx)] {
        if !counts(key) {
            continue;
        }
        if usize::from(max) < BURST {
            return Err(PortError::FewDescriptors { port: port.to_owned(), max, need: BURST as u16 });
        }
        // The device may round up to a multiple.
        if max < want {
            return Err(PortError::Descriptors { port: port.to_owned(), key, max, want });
        }
    }
    Ok(())
}

/// Sets the MTU of devices that have a limit of their own. Shared kernel interfaces keep the MTU that their operator
/// set.
fn mtu(device: &Device, profile: &PortProfile, plan: &Plan, capture: &Capture) -> Result<(), PortError> {
    let shared = profile.driver.keys.iter().any(|k| k.kind == Kind::Iface && profile.devarg(k.name).is_some());
    if shared || profile.driver.any_mtu {
        return Ok(());
    }
    // SAFETY: configured and not started.
    match unsafe { dpdk_sys::rte_eth_dev_set_mtu(device.id(), plan.mtu) } {
        code if code == -libc::ENOTSUP => Ok(()),
        code => device.step("setting the MTU", code, capture),
    }
}

fn mac(device: &Device, profile: &PortProfile, capture: &Capture) -> Result<[u8; 6], PortError> {
    // SAFETY: plain data, for which zero is valid.
    let mut address: dpdk_sys::rte_ether_addr = unsafe { zeroed() };
    let soft = profile.driver.soft_mac && profile.devarg("phy_mac") != Some("1");
    match profile.mac {
        Some(mac) if soft || profile.driver.mac_key => return Ok(mac),
        // A MAC address set on the interface would outlive the process. So the interface keeps its own, and receives
        // frames for this one too.
        Some(mac) if let Some(host) = device.host() => {
            let own = host.mac().map_err(|e| device.refused("reading the MAC address", &e))?;
            if own != mac {
                host.add_mac(mac).map_err(|e| device.refused("adding the MAC address", &e))?;
            }
            return Ok(mac);
        }
        Some(mac) => {
            address.addr_bytes = mac;
            // SAFETY: the port exists, and the address is read during the call.
            let code = unsafe { dpdk_sys::rte_eth_dev_default_mac_addr_set(device.id(), &mut address) };
            device.step("setting the MAC address", code, capture)?;
            return Ok(mac);
        }
        None if soft => return Ok(random_mac()),
        None => {}
    }
    // SAFETY: the port exists, and the address is written during the call.
    let code = unsafe { dpdk_sys::rte_eth_macaddr_get(device.id(), &mut address) };
    device.step("reading the MAC address", code, capture)?;
    if address.addr_bytes == [0; 6] { Ok(random_mac()) } else { Ok(address.addr_bytes) }
}

/// A random locally administered unicast address.
fn random_mac() -> [u8; 6] {
    let mut mac = [0u8; 6];
    // SAFETY: writes at most six bytes. If the kernel returns none, the address is still valid.
    unsafe { libc::getrandom(mac.as_mut_ptr().cast(), mac.len(), 0) };
    mac[0] = mac[0] & 0xfc | 0x02;
    mac
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info() -> dpdk_sys::rte_eth_dev_info {
        // SAFETY: plain data, for which zero is valid.
        let mut info: dpdk_sys::rte_eth_dev_info = unsafe { zeroed() };
        info.max_rx_queues = 4;
        info.max_tx_queues = 2;
        info.max_rx_pktlen = 1518;
        info.max_mtu = u16::MAX;
        info
    }

    fn profile(name: &str, sets: &[(&str, &str)]) -> PortProfile {
        let sets: Vec<_> = sets.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        PortProfile::load(name, &sets).unwrap()
    }

    #[test]
    fn limits() {
        let mut i = info();
        assert_eq!(mtu_limit(&i), 1500);
        i.max_mtu = 1450;
        assert_eq!(mtu_limit(&i), 1450);
        (i.max_rx_pktlen, i.max_mtu) = (9728, 9702);
        assert_eq!(mtu_limit(&i), 9702);
        (i.max_rx_pktlen, i.max_mtu) = (u32::MAX, u16::MAX);
        assert_eq!(mtu_limit(&i), 65535);
    }

    #[test]
    fn a_plan_stays_within_the_capabilities() {
        let mut i = info();
        i.tx_offload_capa = dpdk_sys::GANNET_TX_OFFLOAD_UDP_CKSUM | 1 << 40;
        i.rx_offload_capa = dpdk_sys::GANNET_RX_OFFLOAD_UDP_CKSUM | dpdk_sys::GANNET_RX_OFFLOAD_SCATTER;
        let plan = Plan::new("p", &profile("memif", &[]), &i).unwrap();
        assert_eq!(plan.tx_offloads, dpdk_sys::GANNET_TX_OFFLOAD_UDP_CKSUM);
        assert_eq!((plan.rx_offloads, plan.rss), (dpdk_sys::GANNET_RX_OFFLOAD_UDP_CKSUM, 0));
        let off = Plan::new("p", &profile("memif", &[("offloads", "off"), ("mbuf_size", "512")]), &i).unwrap();
        assert_eq!((off.tx_offloads, off.rx_offloads), (0, dpdk_sys::GANNET_RX_OFFLOAD_SCATTER));
        i.flow_type_rss_offloads = u64::MAX;
        let two = Plan::new("p", &profile("memif", &[("queues", "2")]), &i).unwrap();
        assert_eq!(two.rss, dpdk_sys::GANNET_RSS_IP | dpdk_sys::GANNET_RSS_UDP);
        // virtio drops tagged frames until its filter contains the VLAN, which needs this.
        i.rx_offload_capa |= dpdk_sys::GANNET_RX_OFFLOAD_VLAN_FILTER;
        let tagged = PortProfile { vlan: Some(7), ..profile("memif", &[]) };
        let filter =
            |p: &PortProfile| Plan::new("p", p, &i).unwrap().rx_offloads & dpdk_sys::GANNET_RX_OFFLOAD_VLAN_FILTER;
        assert_eq!((filter(&tagged), filter(&profile("memif", &[]))), (dpdk_sys::GANNET_RX_OFFLOAD_VLAN_FILTER, 0));
    }

    #[test]
    fn what_a_device_cannot_have_is_refused() {
        let i = info();
        let three = Plan::new("p", &profile("memif", &[("queues", "3")]), &i);
        assert!(matches!(three, Err(PortError::Queues { max: 2, want: 3, .. })));
        let jumbo = [("mtu", "9000")];
        assert_eq!(Plan::new("p", &profile("memif", &jumbo), &i).unwrap().mtu, 1500, "memif carries it anyway");
        let virtio = Plan::new("p", &profile("virtio-user", &jumbo), &i);
        assert!(matches!(virtio, Err(PortError::Mtu { max: 1500, want: 9000, .. })));
    }

    #[test]
    fn rings_that_are_too_small_are_refused() {
        let nic = profile("e1000e", &[("device", "0000:01:00.0")]);
        assert!(descriptors("p", &nic, 256, 256).is_ok() && descriptors("p", &nic, 512, 256).is_ok());
        let error = descriptors("p", &nic, 256, 128).unwrap_err();
        assert!(matches!(error, PortError::Descriptors { key: "tx_desc", max: 128, want: 256, .. }), "{error}");
        // No setting helps.
        let error = descriptors("p", &nic, 16, 256).unwrap_err();
        assert!(matches!(error, PortError::FewDescriptors { max: 16, need: 32, .. }), "{error}");
        assert!(descriptors("p", &profile("memif", &[]), 1, 1).is_ok(), "it has other settings for that");
    }

    #[test]
    fn random_addresses_are_local_and_unicast() {
        let mac = random_mac();
        assert_eq!(mac[0] & 3, 2);
    }
}
