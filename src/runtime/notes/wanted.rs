//! Which neighbours the cores of a group have asked for.

use std::hash::Hasher;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use siphasher::sip::SipHasher13;

/// The maximum number of questions remembered.
const PLACES: usize = 1024;

/// The neighbours that a core has asked for and that have not answered yet. Each question lets one answer pass from the
/// core that receives it to the others, so no flood of unsolicited answers can keep a real one from arriving.
///
/// A question may displace another one in the same place. The answer to that one is passed on within the limit for
/// hints.
#[derive(Debug)]
pub(super) struct Wanted {
    places: Box<[AtomicU64]>,
    seed: u64,
}

impl Wanted {
    pub(super) fn new(seed: u64) -> Self {
        Self { places: (0..PLACES).map(|_| AtomicU64::new(0)).collect(), seed }
    }

    /// A core asks for `ip`.
    pub(super) fn ask(&self, ip: IpAddr) {
        let (place, key) = self.place(ip);
        place.store(key, Ordering::Relaxed);
    }

    /// Records that `ip` has answered. Returns whether a core has asked for it since its last answer.
    pub(super) fn is_answer(&self, ip: IpAddr) -> bool {
        let (place, key) = self.place(ip);
        place.compare_exchange(key, 0, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    fn place(&self, ip: IpAddr) -> (&AtomicU64, u64) {
        let mut hasher = SipHasher13::new_with_keys(self.seed, 0);
        match ip {
            IpAddr::V4(ip) => hasher.write(&ip.octets()),
            IpAddr::V6(ip) => hasher.write(&ip.octets()),
        }
        // Never 0, which marks an empty place.
        let key = hasher.finish() | 1;
        (&self.places[(key >> 32) as usize % PLACES], key)
    }
}
