//! What a device lets in.

use super::device::Device;
use crate::dpdk::error::PortError;
use crate::dpdk::log::{self, Capture};
use crate::dpdk::profile::{Bus, PortProfile};

/// A started device lets in its own MAC address and broadcast; and now its VLAN, and with `promiscuous` everything.
/// Groups follow with [`groups`].
pub(super) fn open(
    device: &Device,
    profile: &PortProfile,
    vlan: Option<u16>,
    capture: &Capture,
) -> Result<(), PortError> {
    if let Some(vlan) = vlan {
        // SAFETY: the port is started, with the offload that this needs.
        let code = unsafe { dpdk_sys::rte_eth_dev_vlan_filter(device.id(), vlan, 1) };
        device.step("letting in the VLAN", code, capture)?;
    }
    if !profile.promiscuous {
        return Ok(());
    }
    if let Some(host) = device.host() {
        return host.promiscuous().map_err(|e| device.refused("promiscuous mode", &e));
    }
    // SAFETY: the port is started.
    let code = unsafe { dpdk_sys::rte_eth_promiscuous_enable(device.id()) };
    // A device without filters has nothing to switch off.
    if profile.bus() == Bus::Pci { device.step("promiscuous mode", code, capture) } else { Ok(()) }
}

/// How a device was brought to let in groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// These groups and no others.
    List,
    /// All groups.
    AllMulticast,
    /// Everything.
    Promiscuous,
    /// It has no such setting. Devices without filters let in everything.
    None,
}

/// Lets in frames for these groups, and no longer, if that can be avoided, for those of before.
///
/// The list comes first: a physical function grants it to its virtual functions where it ignores their wish for all
/// groups, and says nothing of either. What cannot be looked up afterwards is not believed.
pub(super) fn groups(device: &Device, groups: &[[u8; 6]]) {
    if let Some(host) = device.host() {
        if let Err(e) = host.set_groups(groups) {
            log::tell(&format!("{}: no multicast ({e}); IPv6 neighbours do not find this port", host.name()));
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
    // What is told while DPDK is kept quiet, nobody hears.
    drop(quiet);
    if way == Way::None && device.bus() == Bus::Pci && !groups.is_empty() {
        log::tell(&format!("{}: takes no wishes for multicast; IPv6 works if it filters none", device.name()));
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
        // All groups were believed without a look at whether the device had taken them.
        assert_eq!(settle(|| false, || true, || panic!()), Way::AllMulticast);
        assert_eq!(settle(|| false, || false, || true), Way::Promiscuous);
        assert_eq!(settle(|| false, || false, || false), Way::None);
    }
}
