//! Settings of several cores of a process.

use crate::base::share;
use crate::quic::cid::CidInfo;
use crate::quic::config::EndpointConfig;
use crate::quic::secret::Secret;
use crate::quic::token::RetryPolicy;

impl EndpointConfig {
    /// The settings of core `core` of `of` cores that serve together. All get the same secrets, epoch and form of
    /// connection IDs, so that each core can determine which one a packet belongs to. Each gets a seed of its own and
    /// its share of the limits that protect the host. The limits in `self` are totals: all cores together have no more
    /// connections, handshakes and stateless resets, except that each core gets at least one.
    ///
    /// # Panics
    /// If `core` is not below `of`.
    #[must_use]
    pub fn for_core(&self, core: u8, of: u8) -> Self {
        assert!(core < of, "core {core} of {of}");
        let part = |total: usize| share(total, core, of);
        let retry = match self.retry {
            RetryPolicy::Auto { threshold } => RetryPolicy::Auto { threshold: part(threshold) },
            other => other,
        };
        Self {
            seed: *Secret::from(self.seed).key(&format!("core {core}")),
            core,
            cores: of,
            max_connections: part(self.max_connections),
            max_handshakes: part(self.max_handshakes),
            reset_rate: part(self.reset_rate as usize) as u32,
            retry,
            ..self.clone()
        }
    }

    /// Whether it has the secrets of `other` and makes connection IDs of the same form, as cores of a group must.
    pub(crate) fn has_secrets_of(&self, other: &Self) -> bool {
        let keys = |config: &Self| (config.cid_key.clone(), config.reset_key.clone(), config.address_key.clone());
        let some = CidInfo { core: 0, index: 0, generation: 0, sequence: 0 };
        let codec = |config: &Self| config.cid_codec().encode(some);
        keys(self) == keys(other) && self.epoch == other.epoch && codec(self) == codec(other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(base: &EndpointConfig, of: u8) -> Vec<EndpointConfig> {
        (0..of).map(|core| base.for_core(core, of)).collect()
    }

    #[test]
    fn cores_share_secrets_and_nothing_that_packets_show() {
        let base = EndpointConfig::from_seed([7; 32]);
        let cores = all(&base, 255);
        for (n, core) in cores.iter().enumerate() {
            assert_eq!(usize::from(core.core), n);
            assert_eq!(
                (&core.reset_key, &core.cid_key, &core.address_key),
                (&base.reset_key, &base.cid_key, &base.address_key)
            );
            assert_eq!((core.epoch, core.time_base), (base.epoch, base.time_base));
        }
        let mut seeds: Vec<_> = cores.iter().map(|core| core.seed).chain([base.seed]).collect();
        seeds.sort_unstable();
        seeds.dedup();
        assert_eq!(seeds.len(), 256);
    }

    #[test]
    fn limits_are_totals() {
        let base = EndpointConfig {
            max_connections: 1003,
            max_handshakes: 10,
            reset_rate: 7,
            ..EndpointConfig::from_seed([7; 32])
        };
        for of in [1, 2, 3, 4, 7] {
            let cores = all(&base, of);
            let sum = |part: fn(&EndpointConfig) -> usize| cores.iter().map(part).sum::<usize>();
            assert_eq!(sum(|core| core.max_connections), 1003);
            assert_eq!(sum(|core| core.max_handshakes), 10);
            assert_eq!(sum(|core| core.reset_rate as usize), 7);
            let threshold = |core: &EndpointConfig| match core.retry {
                RetryPolicy::Auto { threshold } => threshold,
                _ => 0,
            };
            assert_eq!(sum(threshold), 1000);
            // The shares are nearly equal.
            let most = cores.iter().map(|core| core.max_connections).max();
            assert!(cores.iter().all(|core| Some(core.max_connections + 1) >= most));
        }
        // Each core can do its work.
        let cores = all(&base, 200);
        assert!(cores.iter().all(|core| core.max_handshakes == 1 && core.reset_rate == 1 && core.max_connections >= 5));
        // What is disabled stays disabled.
        let quiet = EndpointConfig { reset_rate: 0, retry: RetryPolicy::Never, ..base };
        assert!(all(&quiet, 3).iter().all(|core| core.reset_rate == 0 && core.retry == RetryPolicy::Never));
    }
}
