//! Receive filters of a device.

use super::device::Device;
use crate::dpdk::error::PortError;
use crate::dpdk::log::{self, Capture};
use crate::dpdk::profile::{Bus, PortProfile};

/// Opens the filters of a started device, which accepts its own MAC address and broadcast, for its VLAN and, with
/// `promiscuous`, for everything. Multicast groups are set by [`groups`].
pub(super) fn open(
    device: &Device,
    profile: &PortProfile,
    vlan: Option<u16>,
    capture: &Capture,
) -> Result<(), PortError> {
    if let Some(vlan) = vlan {
        // SAFETY: the port is started, with the offload that this needs.
        let code = unsafe { dpdk_sys::rte_eth_dev_vlan_filter(device.id(), vlan, 1) };
        device.step("adding the VLAN filter", code, capture)?;
    }
    if !profile.promiscuous {
        return Ok(());
    }
    if let Some(host) = device.host() {
        return host.promiscuous().map_err(|e| device.refused("promiscuous mode", &e));
    }
    // SAFETY: the port is started.
    let code = unsafe { dpdk_sys::rte_eth_promiscuous_enable(device.id()) };
    // A device without filters has nothing to disable.
    if profile.bus() == Bus::Pci { device.step("promiscuous mode", code, capture) } else { Ok(()) }
}

/// How a device was made to accept groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// By a list of groups.
    List,
    /// By accepting all groups.
    AllMulticast,
    /// By accepting everything.
    Promiscuous,
    /// Not at all: it has no such setting. Devices without filters accept everything.
    None,
}

/// Accepts frames for these groups, and, if possible, no longer for the previous ones.
///
/// The list is tried first: a physical function grants it to its virtual functions even if it ignores their request for
/// all groups, and reports neither. A mode that cannot be read back is not relied on.
pub(super) fn groups(device: &Device, groups: &[[u8; 6]]) {
    if let Some(host) = device.host() {
        if let Err(e) = host.set_groups(groups) {
            log::tell(&format!("{}: no multicast ({e}); IPv6 neighbours cannot find this port", host.name()));
        }
        return;
    }
    let quiet = Capture::start();
    let way = settle(
        || {
            let mut list: Vec<dpdk_sys::rte_ether_addr> =
                groups.iter().map(|&addr_bytes| dpdk_sys::rte_ether_addr { addr_bytes }).collect();
            // SAFETY: the port is started; `list` has as many entries as said, which the driver copies.
            unsafe { dpdk_sys::rte_eth_dev_set_mc_addr_list(device.id(), list.as_mut_ptr(), list.len() as u32) == 0 }
        },
        // SAFETY: the port is started.
        || unsafe {
            dpdk_sys::rte_eth_allmulticast_enable(device.id()) == 0
                && dpdk_sys::rte_eth_allmulticast_get(device.id()) == 1
        },
        // SAFETY: the port is started.
        || unsafe { dpdk_sys::rte_eth_promiscuous_enable(device.id()) == 0 },
    );
    // Lines are dropped while DPDK's log is captured.
    drop(quiet);
    if way == Way::None && device.bus() == Bus::Pci && !groups.is_empty() {
        log::tell(&format!("{}: has no multicast settings; IPv6 works if it does not filter multicast", device.name()));
    }
}

fn settle(list: impl FnOnce() -> bool, all: impl FnOnce() -> bool, everything: impl FnOnce() -> bool) -> Way {
    if list() {
        Way::List
    } else if all() {
        Way::AllMulticast
    } else if everything() {
        Way::Promiscuous
    } else {
        Way::None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_narrowest_way_that_works_is_taken() {
        assert_eq!(settle(|| true, || panic!(), || panic!()), Way::List);
        // The device used to be relied on to accept all groups, without reading the setting back.
        assert_eq!(settle(|| false, || true, || panic!()), Way::AllMulticast);
        assert_eq!(settle(|| false, || false, || true), Way::Promiscuous);
        assert_eq!(settle(|| false, || false, || false), Way::None);
    }
}
