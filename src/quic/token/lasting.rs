//! Tokens of NEW_TOKEN frames (RFC 9000 §8.1.3), by which a client proves its address when it comes back.
//!
//! ```text
//! kind 1 | period 4 | nonce 12 | sealed: time 8 | tag 16
//! ```
//!
//! The tag also covers the QUIC version and the client's address, but not its port, which another connection of the
//! client does not share.
//! All tokens of a period look alike, and the rest is random or encrypted, so nobody but the server can link the two
//! connections.

use std::net::IpAddr;

use super::{AHEAD, PeriodKeys, address_octets};
use crate::base::time::Duration;
use crate::crypto::{STATE_NONCE_LEN, TAG_LEN};
use crate::wire::quic::Version;

/// First byte of these tokens.
pub(super) const KIND: u8 = 2;

/// Length of kind, period and nonce.
const HEAD_LEN: usize = 1 + 4 + STATE_NONCE_LEN;

/// Length of the plaintext.
const TEXT_LEN: usize = 8;

/// Length of these tokens in bytes.
pub(crate) const NEW_TOKEN_LEN: usize = HEAD_LEN + TEXT_LEN + TAG_LEN;

const _: () = assert!(NEW_TOKEN_LEN != super::RETRY_TOKEN_LEN);

/// Tokens that a server gives to its clients in NEW_TOKEN frames (RFC 9000 §8.1.3). A client that returns from the
/// same address with such a token is treated as one whose address is validated: it gets no Retry, and as many bytes as
/// it needs before its handshake is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewTokens {
    /// How long a token is valid. Zero: none are accepted.
    pub lifetime: Duration,
    /// Number of tokens that a client gets when the handshake is confirmed. Each is accepted once, so clients with
    /// several connections need several. 0: none are issued.
    pub count: u8,
}

impl Default for NewTokens {
    /// One token for each connection, valid for a day.
    fn default() -> Self {
        Self { lifetime: Duration::from_secs(24 * 3600), count: 1 }
    }
}

/// The identity of a token: its random nonce.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark([u8; STATE_NONCE_LEN]);

impl Mark {
    /// Bits that are random, as the nonce is ours.
    pub(super) fn bits(self) -> [u32; 3] {
        let word = |at: usize| u32::from_le_bytes([self.0[at], self.0[at + 1], self.0[at + 2], self.0[at + 3]]);
        [word(0), word(4), word(8)]
    }

    #[cfg(test)]
    pub(super) const fn new(nonce: [u8; STATE_NONCE_LEN]) -> Self {
        Self(nonce)
    }
}

/// Makes and reads these tokens. Times are in milliseconds since the shared origin.
pub(super) struct Lasting {
    lifetime_ms: u64,
    keys: PeriodKeys,
}

impl Lasting {
    pub(super) fn new(secret: &[u8; 32], lifetime: Duration) -> Self {
        let lifetime_ms = u64::try_from(lifetime.as_millis()).unwrap_or(u64::MAX);
        Self { lifetime_ms, keys: PeriodKeys::new(secret, b"gannet new token") }
    }

    pub(super) fn seal(
        &mut self,
        time: u64,
        version: Version,
        remote: IpAddr,
        nonce: [u8; STATE_NONCE_LEN],
    ) -> [u8; NEW_TOKEN_LEN] {
        let (period, key) = self.keys.current(time);
        let mut token = [0; NEW_TOKEN_LEN];
        token[0] = KIND;
        token[1..5].copy_from_slice(&period.to_be_bytes());
        token[5..HEAD_LEN].copy_from_slice(&nonce);
        let (head, rest) = token.split_at_mut(HEAD_LEN);
        let (text, tag) = rest.split_at_mut(TEXT_LEN);
        text.copy_from_slice(&time.to_be_bytes());
        tag.copy_from_slice(&key.seal(nonce, &bound(head, version, remote), text));
        token
    }

    /// The identity of `token`, if it is valid for a client at `remote`. The keys of periods in which no valid token
    /// can have been made are not derived.
    pub(super) fn open(&mut self, time: u64, version: Version, remote: IpAddr, token: &[u8]) -> Option<Mark> {
        let mut token = <[u8; NEW_TOKEN_LEN]>::try_from(token).ok()?;
        let (head, sealed) = token.split_at_mut(HEAD_LEN);
        let key = self.keys.named(time, self.lifetime_ms, *head[1..].first_chunk()?)?;
        let nonce = *head[5..].first_chunk()?;
        let aad = bound(head, version, remote);
        let text = key.open(nonce, &aad, sealed).ok()?;
        let issued = u64::from_be_bytes(*text.first_chunk()?);
        let fresh =
            time.saturating_sub(issued) <= self.lifetime_ms && issued.saturating_sub(time) <= AHEAD.as_millis() as u64;
        fresh.then_some(Mark(nonce))
    }
}

/// What a token is bound to without containing all of it: kind, period, version and the client's address.
fn bound(head: &[u8], version: Version, remote: IpAddr) -> [u8; 5 + 4 + 16] {
    let mut bytes = [0; _];
    bytes[..5].copy_from_slice(&head[..5]);
    bytes[5..9].copy_from_slice(&version.number().to_be_bytes());
    bytes[9..].copy_from_slice(&address_octets(remote));
    bytes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DAY_MS: u64 = 24 * 3600 * 1000;
    const SECRET: [u8; 32] = [1; 32];

    fn from(n: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, n])
    }

    fn lasting() -> Lasting {
        Lasting::new(&SECRET, NewTokens::default().lifetime)
    }

    #[test]
    fn a_token_is_valid_for_its_lifetime_and_address() {
        let mut tokens = lasting();
        for issued in [0, 63_999, 5 * DAY_MS + 7, (1 << 32) * crate::quic::token::period::PERIOD_MS - 1] {
            let token = tokens.seal(issued, Version::V1, from(1), [3; 12]);
            let open = |tokens: &mut Lasting, time, ip| tokens.open(time, Version::V1, ip, &token);
            for age in [0, 1, 64_000, DAY_MS / 2, DAY_MS] {
                assert_eq!(open(&mut tokens, issued + age, from(1)), Some(Mark([3; 12])), "{issued} + {age}");
            }
            assert_eq!(open(&mut tokens, issued + DAY_MS + 1, from(1)), None, "expired");
            assert_eq!(open(&mut tokens, issued, from(2)), None, "another address");
            let (ahead, far) = (AHEAD.as_millis() as u64, issued > 100_000);
            if far {
                assert!(open(&mut tokens, issued - ahead, from(1)).is_some(), "our clock is slightly behind");
                assert_eq!(open(&mut tokens, issued - ahead - 1, from(1)), None, "our clock is far behind");
            }
        }
        let v6 = IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1]);
        let token = tokens.seal(9, Version::V1, v6, [3; 12]);
        assert!(tokens.open(9, Version::V1, v6, &token).is_some());
        assert!(Lasting::new(&SECRET, Duration::ZERO).open(9, Version::V1, v6, &token).is_none(), "none are accepted");
    }

    #[test]
    fn every_change_of_a_token_shows() {
        let mut tokens = lasting();
        let token = tokens.seal(7 * DAY_MS, Version::V1, from(1), [3; 12]);
        // The kind is checked by the caller, and bound here.
        for at in 0..token.len() {
            for bit in 0..8 {
                let mut changed = token;
                changed[at] ^= 1 << bit;
                assert_eq!(tokens.open(7 * DAY_MS, Version::V1, from(1), &changed), None, "byte {at}");
            }
        }
        let mut other = Lasting::new(&[2; 32], NewTokens::default().lifetime);
        assert_eq!(other.open(7 * DAY_MS, Version::V1, from(1), &token), None, "another secret");
        assert_eq!(tokens.open(7 * DAY_MS, Version::V1, from(1), &token[..40]), None);
        assert_eq!(tokens.open(7 * DAY_MS, Version::V2, from(1), &token), None, "another version");
    }

    /// An observer who knows one token learns nothing about others of the same client (RFC 9000 §8.1.4).
    #[test]
    fn tokens_of_one_client_have_nothing_in_common_but_kind_and_period() {
        let mut tokens = lasting();
        let [a, b] = [[3; 12], [4; 12]].map(|nonce| tokens.seal(DAY_MS, Version::V1, from(1), nonce));
        assert_eq!(a[..5], b[..5]);
        let same = a[HEAD_LEN..].iter().zip(&b[HEAD_LEN..]).filter(|(a, b)| a == b).count();
        assert!(same <= 2, "{same} bytes");
    }

    /// Forged tokens make no more than the keys of their lifetime, and no more than so many are kept.
    #[test]
    fn keys_are_bounded() {
        let mut tokens = lasting();
        for n in 11_000..12_150u32 {
            let mut token = [7; NEW_TOKEN_LEN];
            token[1..5].copy_from_slice(&n.to_be_bytes());
            assert_eq!(tokens.open(9 * DAY_MS, Version::V1, from(1), &token), None);
        }
        assert_eq!(tokens.keys.kept(), 64);
    }

    proptest! {
        #[test]
        fn any_bytes_are_judged(token in proptest::collection::vec(any::<u8>(), 0..80), time: u64) {
            prop_assert_eq!(lasting().open(time, Version::V1, from(1), &token), None);
        }
    }
}
