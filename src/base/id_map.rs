//! Maps keyed by small numbers, such as connections or streams.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// A map whose keys are small consecutive numbers, within limits that this side sets.
pub type IdMap<K, V> = HashMap<K, V, BuildHasherDefault<IdHasher>>;

/// Mixes one number. No secret is needed, because peers cannot choose the keys freely; without one, simulated runs are
/// reproducible.
#[derive(Default)]
pub struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for b in bytes {
            self.write_u64(u64::from(*b));
        }
    }

    fn write_u64(&mut self, n: u64) {
        let mixed = (self.0 ^ n).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        // The map uses the top and the bottom bits.
        self.0 = mixed ^ (mixed >> 32);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;
    use std::hash::BuildHasher;

    #[test]
    fn consecutive_streams_spread() {
        let hash = BuildHasherDefault::<IdHasher>::default();
        let hashes: Vec<u64> = (0..1024).map(|n| hash.hash_one(n * 4u64)).collect();
        let low: HashSet<u64> = hashes.iter().map(|h| h & 0x3ff).collect();
        let top: HashSet<u64> = hashes.iter().map(|h| h >> 57).collect();
        assert!(low.len() > 512 && top.len() > 100, "{} of 1024, {} of 128", low.len(), top.len());
    }
}
