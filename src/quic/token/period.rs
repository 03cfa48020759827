//! Keys that change with time and follow from a secret, so that cores and restarted servers have the same ones without
//! communicating.

use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::Zeroizing;

use super::AHEAD;
use crate::base::time::{Duration, Instant};
use crate::crypto::{StateKey, traceless};

/// How long a key is used, in milliseconds. A million uses per second on each of 64 cores make fewer than 2^32 in that
/// time, the limit for random nonces.
pub(super) const PERIOD_MS: u64 = 64_000;

/// Number of keys kept; others are derived again.
const KEYS: usize = 64;

/// The time in milliseconds since the origin that all cores share; `base` is that of [`Instant::ZERO`].
pub(crate) fn shared_time(base: Duration, now: Instant) -> u64 {
    let base = u64::try_from(base.as_millis()).unwrap_or(u64::MAX);
    base.saturating_add(now.as_nanos() / 1_000_000)
}

/// Keys for one purpose. Times are in milliseconds since the shared origin.
pub(crate) struct PeriodKeys {
    secret: Zeroizing<[u8; 32]>,
    label: &'static [u8],
    /// Keys with the number of their period, which determines their place.
    keys: Vec<Option<(u64, StateKey)>>,
}

impl PeriodKeys {
    pub(crate) fn new(secret: &[u8; 32], label: &'static [u8]) -> Self {
        Self { secret: Zeroizing::new(*secret), label, keys: Vec::new() }
    }

    /// The key to seal with, and the name of its period.
    pub(crate) fn current(&mut self, time: u64) -> (u32, &StateKey) {
        let period = time / PERIOD_MS;
        (period as u32, self.key(period))
    }

    /// The key of the period with this name, if something that was sealed in it can be valid for `lifetime`. Other keys
    /// are not derived.
    pub(crate) fn named(&mut self, time: u64, lifetime: u64, name: [u8; 4]) -> Option<&StateKey> {
        let oldest = time.saturating_sub(lifetime) / PERIOD_MS;
        let newest = time.saturating_add(AHEAD.as_millis() as u64) / PERIOD_MS;
        // The name is the lower half of the number; the upper one is that of the time.
        let period = newest & !u64::from(u32::MAX) | u64::from(u32::from_be_bytes(name));
        let period = if period > newest { period.checked_sub(1 << 32)? } else { period };
        (period >= oldest && lifetime > 0).then(|| self.key(period))
    }

    /// The key of a period.
    pub(super) fn key(&mut self, period: u64) -> &StateKey {
        if self.keys.is_empty() {
            self.keys.resize_with(KEYS, || None);
        }
        let place = &mut self.keys[(period % KEYS as u64) as usize];
        if place.as_ref().is_none_or(|(known, _)| *known != period) {
            *place = Some((period, traceless(|| derive(&self.secret, self.label, period))));
        }
        &place.as_ref().expect("just made").1
    }

    #[cfg(test)]
    pub(super) fn kept(&self) -> usize {
        self.keys.len()
    }
}

fn derive(secret: &[u8; 32], label: &[u8], period: u64) -> StateKey {
    let mut key = Zeroizing::new([0; 32]);
    let hkdf = Hkdf::<Sha256>::from_prk(secret).expect("as long as the hash");
    hkdf.expand_multi_info(&[label, &period.to_be_bytes()], &mut *key).expect("shorter than 255 hashes");
    StateKey::new(&key)
}
