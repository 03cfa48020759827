//! Two ethdevs of one process, connected back to back.

use std::ffi::CString;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::device::{Device, find};
use crate::dpdk::error::{PortError, last};
use crate::dpdk::log::Capture;
use crate::dpdk::profile::PortProfile;

/// The rings between a pair of ports: two for each queue, one in each direction.
pub(super) struct Rings {
    there: Vec<NonNull<dpdk_sys::rte_ring>>,
    back: Vec<NonNull<dpdk_sys::rte_ring>>,
}

// SAFETY: the rings are only touched by the drivers (one producer and one consumer each, as the queues are unique)
// and by `Drop`, when both ports are closed.
unsafe impl Send for Rings {}
// SAFETY: as above.
unsafe impl Sync for Rings {}

impl Drop for Rings {
    fn drop(&mut self) {
        for ring in self.there.iter().chain(&self.back) {
            // SAFETY: both ports are closed; the buffers left in a ring have no other owner.
            unsafe {
                let mut frame = std::ptr::null_mut();
                while dpdk_sys::rte_ring_dequeue(ring.as_ptr(), &mut frame) == 0 {
                    dpdk_sys::rte_pktmbuf_free(frame.cast());
                }
                dpdk_sys::rte_ring_free(ring.as_ptr());
            }
        }
    }
}

/// Creates the pair, not yet configured.
pub(super) fn pair(profile: &PortProfile, capture: &Capture) -> Result<(Device, Device), PortError> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let mut rings = Rings { there: Vec::new(), back: Vec::new() };
    for queue in 0..profile.queues {
        rings.there.push(ring(&format!("gannet_{number}_{queue}_a"), profile, capture)?);
        rings.back.push(ring(&format!("gannet_{number}_{queue}_b"), profile, capture)?);
    }
    let rings = Arc::new(rings);
    let left = ethdev(&format!("gannet_{number}_a"), &rings.back, &rings.there, &rings, profile, capture)?;
    let right = ethdev(&format!("gannet_{number}_b"), &rings.there, &rings.back, &rings, profile, capture)?;
    Ok((left, right))
}

fn fail(profile: &PortProfile, reason: String, capture: &Capture) -> PortError {
    let devargs = format!("pair of {} queues", profile.queues);
    PortError::Create { driver: "net_ring", devargs, reason, detail: capture.summary() }
}

fn ring(name: &str, profile: &PortProfile, capture: &Capture) -> Result<NonNull<dpdk_sys::rte_ring>, PortError> {
    let size = u32::from(profile.tx_desc).next_power_of_two();
    let flags = dpdk_sys::RING_F_SP_ENQ | dpdk_sys::RING_F_SC_DEQ;
    let c_name = CString::new(name).map_err(|e| fail(profile, e.to_string(), capture))?;
    // SAFETY: EAL is up, and the name is NUL-terminated.
    let ring = unsafe { dpdk_sys::rte_ring_create(c_name.as_ptr(), size, -1, flags) };
    NonNull::new(ring).ok_or_else(|| fail(profile, last(), capture))
}

fn ethdev(
    name: &str,
    rx: &[NonNull<dpdk_sys::rte_ring>],
    tx: &[NonNull<dpdk_sys::rte_ring>],
    rings: &Arc<Rings>,
    profile: &PortProfile,
    capture: &Capture,
) -> Result<Device, PortError> {
    let c_name = CString::new(name).map_err(|e| fail(profile, e.to_string(), capture))?;
    // SAFETY: EAL is up; both arrays hold as many live rings as said, which outlive the device (it holds `rings`).
    let id = unsafe {
        dpdk_sys::rte_eth_from_rings(
            c_name.as_ptr(),
            rx.as_ptr().cast(),
            rx.len() as u32,
            tx.as_ptr().cast(),
            tx.len() as u32,
            0,
        )
    };
    // The driver adds a prefix.
    let full = format!("net_ring_{name}");
    match u16::try_from(id).ok().filter(|&id| find(&full) == Some(id)) {
        Some(id) => Ok(Device::adopt(id, full, profile, rings.clone())),
        None => Err(fail(profile, last(), capture)),
    }
}
