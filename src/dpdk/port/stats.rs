//! Counters of the device.

use std::ffi::CStr;
use std::mem::zeroed;

use super::Port;

/// Counters of a port's device since it started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortStats {
    /// Frames received.
    pub rx_frames: u64,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Frames sent.
    pub tx_frames: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Frames dropped because no receive descriptor was free: the core is too slow. On kernel interfaces, frames for
    /// which the ring of the port's socket had no room.
    pub rx_missed: u64,
    /// Frames received with errors.
    pub rx_errors: u64,
    /// Frames that could not be sent. Frames that a full ring did not accept are not included, as they are sent later.
    pub tx_errors: u64,
    /// Failures to allocate a receive buffer.
    pub rx_no_buffer: u64,
}

impl PortStats {
    /// Every counter with its name.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
        [
            ("device_rx_frames", self.rx_frames),
            ("device_rx_bytes", self.rx_bytes),
            ("device_tx_frames", self.tx_frames),
            ("device_tx_bytes", self.tx_bytes),
            ("device_rx_missed", self.rx_missed),
            ("device_rx_errors", self.rx_errors),
            ("device_tx_errors", self.tx_errors),
            ("device_rx_no_buffer", self.rx_no_buffer),
        ]
        .into_iter()
    }
}

impl Port {
    /// The device's counters; zero if it has none.
    pub fn stats(&self) -> PortStats {
        // SAFETY: plain data, for which zero is valid; the port exists and fills it in.
        let raw = unsafe {
            let mut raw: dpdk_sys::rte_eth_stats = zeroed();
            if dpdk_sys::rte_eth_stats_get(self.inner.id, &mut raw) != 0 {
                return PortStats::default();
            }
            raw
        };
        PortStats {
            rx_frames: raw.ipackets,
            rx_bytes: raw.ibytes,
            tx_frames: raw.opackets,
            tx_bytes: raw.obytes,
            rx_missed: raw.imissed + self.inner.device.kernel_drops(),
            rx_errors: raw.ierrors,
            tx_errors: if self.inner.device.counts_refusals() { 0 } else { raw.oerrors },
            rx_no_buffer: raw.rx_nombuf,
        }
    }

    /// All counters of the driver, including per-queue ones, by DPDK's names.
    pub fn xstats(&self) -> Vec<(String, u64)> {
        let id = self.inner.id;
        // SAFETY: the port exists; asking with no room tells the number.
        let Ok(count) = u32::try_from(unsafe { dpdk_sys::rte_eth_xstats_get_names(id, std::ptr::null_mut(), 0) })
        else {
            return Vec::new();
        };
        // SAFETY: plain data, for which zero is valid.
        let (mut names, mut values) = unsafe {
            let names: Vec<dpdk_sys::rte_eth_xstat_name> = vec![zeroed(); count as usize];
            let values: Vec<dpdk_sys::rte_eth_xstat> = vec![zeroed(); count as usize];
            (names, values)
        };
        // SAFETY: both have room for `count` entries; a larger result means that nothing was written.
        let written = unsafe {
            let names = dpdk_sys::rte_eth_xstats_get_names(id, names.as_mut_ptr(), count);
            names.min(dpdk_sys::rte_eth_xstats_get(id, values.as_mut_ptr(), count))
        };
        let written = usize::try_from(written).unwrap_or(0).min(count as usize);
        let entry = |value: &dpdk_sys::rte_eth_xstat| {
            let name = names.get(value.id as usize)?;
            // SAFETY: DPDK terminates the names within their 64 bytes, and `zeroed` does so where it wrote none.
            let name = unsafe { CStr::from_ptr(name.name.as_ptr()) };
            Some((name.to_string_lossy().into_owned(), value.value))
        };
        values[..written].iter().filter_map(entry).collect()
    }
}
