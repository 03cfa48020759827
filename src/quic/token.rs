//! Address tokens (RFC 9000 §8.1), by which a client proves its address without state on our side: those of Retry
//! packets, which this file makes and reads, and those of NEW_TOKEN frames ([`lasting`]).
//!
//! ```text
//! kind 1 | period 1 | nonce 12 | sealed: { time 8, length 1, original ID 20 } | tag 16
//! ```
//!
//! The tag also covers the client's address and port, the connection ID that it was told to use, and the version, which
//! the client must not change after a Retry (RFC 9369 §4.1). So a token is useless to others and on other connections. `time` is in milliseconds since an origin common to all endpoints that
//! share the key ([`EndpointConfig::time_base`](crate::quic::EndpointConfig::time_base)), such as that of wall-clock
//! time. If clocks disagree or are set, tokens fail as if they had expired, and clients have to connect again.
//!
//! Keys are derived from the shared secret and the number of the period, so that cores and restarted servers have the
//! same keys without communicating. The token names its period; the current period and its neighbours are accepted, so
//! that a change of keys invalidates no token and clocks may differ slightly. Opening a token costs one AEAD operation
//! whatever its contents; a key is derived once per period.

mod lasting;
mod period;
mod spent;
mod store;

use std::net::{IpAddr, SocketAddr};

use crate::base::time::{Duration, Instant};
use crate::crypto::{STATE_NONCE_LEN, TAG_LEN};
use crate::wire::quic::{ConnectionId, Version};

use lasting::Lasting;
pub use lasting::NewTokens;
pub(crate) use lasting::{Mark, NEW_TOKEN_LEN};
use period::PERIOD_MS;
pub(crate) use period::{PeriodKeys, shared_time};
use spent::Spent;
pub use store::{MemoryTokens, TokenScope, TokenStore};

/// When a server answers a client's first packet with a Retry (RFC 9000 §8.1.2), so that the client has to return with
/// a token that proves its address. This costs the client a round trip, and the server no memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryPolicy {
    /// While at least `threshold` handshakes, or half of
    /// [`EndpointConfig::max_handshakes`](crate::quic::EndpointConfig::max_handshakes) if that is less, are in flight
    /// with clients without a token. The remaining handshakes are reserved for clients with a token, so a flood from
    /// forged addresses cannot use them up.
    Auto {
        /// Number of handshakes in flight with clients without a token.
        threshold: usize,
    },
    /// Always.
    Always,
    /// Never. Enough first packets from forged addresses then lock other clients out.
    Never,
}

impl Default for RetryPolicy {
    /// `Auto` with a threshold of 1,000 handshakes.
    fn default() -> Self {
        Self::Auto { threshold: 1000 }
    }
}

impl RetryPolicy {
    /// Whether a client without a token is sent a Retry, with `unvalidated` handshakes of such clients in flight and a
    /// maximum of `places` handshakes.
    pub(crate) fn asks(self, unvalidated: usize, places: usize) -> bool {
        match self {
            Self::Auto { threshold } => unvalidated >= threshold.min(places / 2),
            Self::Always => true,
            Self::Never => false,
        }
    }
}

/// Lifetime of a Retry token. It is returned after a round trip, or with a probe if packets are lost: without a
/// round-trip time, probes follow after 1, 3, 7, 15 and 31 s (RFC 9002 §6.2.2, §6.2.4). As a client cannot accept
/// another Retry (RFC 9000 §17.2.5.2), its token is valid for longer than clients are likely to wait. This is still
/// short, as RFC 9000 §8.1.4 requires, and the token is only valid with one address, port and connection ID.
pub(crate) const LIFETIME: Duration = Duration::from_secs(60);

/// How far the clock of another core or server that shares the key may be ahead of ours.
pub(crate) const AHEAD: Duration = Duration::from_secs(15);

const _: () = assert!(LIFETIME.as_millis() < PERIOD_MS as u128, "a token is of this period or of its neighbour");

/// First byte of a token from a Retry packet. Tokens of NEW_TOKEN frames have another one (RFC 9000 §8.1.1 requires
/// that they can be distinguished).
const RETRY: u8 = 1;

/// Length of the plaintext: time, length of the original connection ID, that ID.
const TEXT_LEN: usize = 8 + 1 + ConnectionId::MAX;

/// Length of what precedes it: kind, period, nonce.
const HEAD_LEN: usize = 2 + STATE_NONCE_LEN;

/// Length of a Retry token in bytes.
pub(crate) const RETRY_TOKEN_LEN: usize = HEAD_LEN + TEXT_LEN + TAG_LEN;

/// The result of checking the token of a client's Initial packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// A valid Retry token of ours, with the connection ID that the client chose first.
    Validated(ConnectionId),
    /// A Retry token that is forged, expired, or of another client. Its sender will not accept another Retry (RFC 9000
    /// §8.1.2).
    Bad,
    /// A valid token of a NEW_TOKEN frame that was not used before. [`AddressTokens::spend`] marks it as used.
    Known(Mark),
    /// Something else, such as an old token or one that was used before: it proves nothing and is ignored (RFC 9000
    /// §8.1.3).
    Foreign,
}

/// Makes and reads address tokens.
pub(crate) struct AddressTokens {
    /// For Retry tokens.
    keys: PeriodKeys,
    base: Duration,
    lasting: Lasting,
    spent: Spent,
    count: u8,
}

impl core::fmt::Debug for AddressTokens {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("AddressTokens")
    }
}

impl AddressTokens {
    /// `base` is the shared time at [`Instant::ZERO`].
    pub(crate) fn new(secret: &[u8; 32], base: Duration, new_tokens: NewTokens) -> Self {
        Self {
            keys: PeriodKeys::new(secret, b"gannet retry token"),
            base,
            lasting: Lasting::new(secret, new_tokens.lifetime),
            spent: Spent::default(),
            count: if new_tokens.lifetime.is_zero() { 0 } else { new_tokens.count },
        }
    }

    /// Number of NEW_TOKEN frames for a client whose handshake is confirmed.
    pub(crate) fn count(&self) -> u8 {
        self.count
    }

    /// A token for a NEW_TOKEN frame to the client at `remote`. `nonce` must be random.
    pub(crate) fn seal_new(
        &mut self,
        now: Instant,
        version: Version,
        remote: SocketAddr,
        nonce: [u8; STATE_NONCE_LEN],
    ) -> [u8; NEW_TOKEN_LEN] {
        let time = shared_time(self.base, now);
        self.lasting.seal(time, version, remote.ip(), nonce)
    }

    /// Marks a token as used. Of the last 32,768 tokens that this core has seen, none is accepted twice; a core does not
    /// know of tokens that others have seen.
    pub(crate) fn spend(&mut self, mark: Mark) {
        self.spent.insert(mark);
    }

    /// A token for the client at `remote` whose first packet, of `version`, went to `original`, and which will send the
    /// next to `scid`. `nonce` must be random.
    pub(crate) fn seal_retry(
        &mut self,
        now: Instant,
        version: Version,
        remote: SocketAddr,
        scid: &ConnectionId,
        original: &ConnectionId,
        nonce: [u8; STATE_NONCE_LEN],
    ) -> [u8; RETRY_TOKEN_LEN] {
        let time = shared_time(self.base, now);
        let period = time / PERIOD_MS;
        let mut token = [0; RETRY_TOKEN_LEN];
        token[0] = RETRY;
        token[1] = period as u8;
        token[2..HEAD_LEN].copy_from_slice(&nonce);
        let (head, rest) = token.split_at_mut(HEAD_LEN);
        let (text, tag) = rest.split_at_mut(TEXT_LEN);
        text[..8].copy_from_slice(&time.to_be_bytes());
        text[8] = original.len() as u8;
        text[9..9 + original.len()].copy_from_slice(original);
        let aad = Bound::new([head[0], head[1]], version, remote, scid);
        tag.copy_from_slice(&self.keys.key(period).seal(nonce, aad.bytes(), text));
        token
    }

    /// Checks `token` for the client at `remote`, in a packet of `version` to `dcid`.
    pub(crate) fn judge(
        &mut self,
        now: Instant,
        version: Version,
        remote: SocketAddr,
        dcid: &ConnectionId,
        token: &[u8],
    ) -> Verdict {
        if token.first() == Some(&lasting::KIND) {
            let time = shared_time(self.base, now);
            let mark = self.lasting.open(time, version, remote.ip(), token);
            return mark.filter(|mark| !self.spent.contains(*mark)).map_or(Verdict::Foreign, Verdict::Known);
        }
        let Ok(mut token) = <[u8; RETRY_TOKEN_LEN]>::try_from(token) else { return Verdict::Foreign };
        if token[0] != RETRY {
            return Verdict::Foreign;
        }
        let time = shared_time(self.base, now);
        let current = time / PERIOD_MS;
        let known = [Some(current), current.checked_sub(1), current.checked_add(1)];
        let named = known.into_iter().flatten().find(|period| *period as u8 == token[1]);
        let Some(period) = named else { return Verdict::Bad };
        let (head, sealed) = token.split_at_mut(HEAD_LEN);
        let nonce = *head[2..].first_chunk().expect("12 bytes");
        let aad = Bound::new([head[0], head[1]], version, remote, dcid);
        let Ok(text) = self.keys.key(period).open(nonce, aad.bytes(), sealed) else { return Verdict::Bad };
        let issued = u64::from_be_bytes(*text.first_chunk().expect("8 bytes"));
        let (age, ahead) = (u128::from(time.saturating_sub(issued)), u128::from(issued.saturating_sub(time)));
        if age > LIFETIME.as_millis() || ahead > AHEAD.as_millis() {
            return Verdict::Bad;
        }
        let original = text[9..].get(..usize::from(text[8])).and_then(ConnectionId::new);
        original.map_or(Verdict::Bad, Verdict::Validated)
    }
}

/// The octets of an address, of an IPv4 address those of the mapped one.
fn address_octets(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    }
}

/// What a token is bound to without containing it.
struct Bound {
    bytes: [u8; 2 + 16 + 2 + 4 + 1 + ConnectionId::MAX],
    len: usize,
}

impl Bound {
    fn new(head: [u8; 2], version: Version, remote: SocketAddr, cid: &ConnectionId) -> Self {
        let ip = address_octets(remote.ip());
        let mut bytes = [0; _];
        bytes[..2].copy_from_slice(&head);
        bytes[2..18].copy_from_slice(&ip);
        bytes[18..20].copy_from_slice(&remote.port().to_be_bytes());
        bytes[20..24].copy_from_slice(&version.number().to_be_bytes());
        bytes[24] = cid.len() as u8;
        bytes[25..25 + cid.len()].copy_from_slice(cid);
        Self { bytes, len: 25 + cid.len() }
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn at(ms: u64) -> Instant {
        Instant::from_nanos(ms * 1_000_000)
    }

    fn from(n: u8, port: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, n], port))
    }

    fn cid(n: u8, len: usize) -> ConnectionId {
        ConnectionId::new(&[n; 20][..len]).unwrap()
    }

    fn seal(tokens: &mut AddressTokens, ms: u64, original: ConnectionId) -> [u8; RETRY_TOKEN_LEN] {
        tokens.seal_retry(at(ms), Version::V1, from(1, 5), &cid(9, 8), &original, [ms as u8; 12])
    }

    fn judge(tokens: &mut AddressTokens, ms: u64, token: &[u8]) -> Verdict {
        tokens.judge(at(ms), Version::V1, from(1, 5), &cid(9, 8), token)
    }

    #[test]
    fn a_token_proves_the_address_of_its_client_for_a_while() {
        let mut tokens = AddressTokens::new(&[1; 32], HOUR, NewTokens::default());
        for len in 0..=ConnectionId::MAX {
            let token = seal(&mut tokens, 100, cid(3, len));
            assert_eq!(judge(&mut tokens, 100 + 60_000, &token), Verdict::Validated(cid(3, len)));
        }
        let token = seal(&mut tokens, 100, cid(3, 8));
        assert_eq!(judge(&mut tokens, 60_101, &token), Verdict::Bad, "expired");
        assert_eq!(tokens.judge(at(100), Version::V1, from(2, 5), &cid(9, 8), &token), Verdict::Bad, "another address");
        assert_eq!(tokens.judge(at(100), Version::V1, from(1, 6), &cid(9, 8), &token), Verdict::Bad, "another port");
        assert_eq!(tokens.judge(at(100), Version::V2, from(1, 5), &cid(9, 8), &token), Verdict::Bad, "another version");
        assert_eq!(tokens.judge(at(100), Version::V1, from(1, 5), &cid(8, 8), &token), Verdict::Bad, "another ID");
        assert_eq!(tokens.judge(at(100), Version::V1, from(1, 5), &cid(9, 9), &token), Verdict::Bad, "a longer one");
        let v6 = SocketAddr::from(([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1], 5));
        let token = tokens.seal_retry(at(100), Version::V1, v6, &cid(9, 8), &cid(3, 8), [0; 12]);
        assert_eq!(tokens.judge(at(100), Version::V1, v6, &cid(9, 8), &token), Verdict::Validated(cid(3, 8)));
        assert_eq!(judge(&mut tokens, 100, &token), Verdict::Bad);
    }

    #[test]
    fn every_change_of_a_token_shows() {
        let mut tokens = AddressTokens::new(&[1; 32], HOUR, NewTokens::default());
        let token = seal(&mut tokens, 0, cid(3, 8));
        for at in 1..token.len() {
            for bit in 0..8 {
                let mut changed = token;
                changed[at] ^= 1 << bit;
                assert_eq!(judge(&mut tokens, 0, &changed), Verdict::Bad, "byte {at}");
            }
        }
        // Anything that is not a Retry token of ours is no reason to refuse a client.
        let other_kind = [&[2][..], &token[1..]].concat();
        for foreign in [&[][..], &[1], &token[1..], &[&token[..], &[0]].concat(), &other_kind] {
            assert_eq!(judge(&mut tokens, 0, foreign), Verdict::Foreign);
        }
    }

    /// Two cores, or a server and its predecessor, read each other's tokens without communicating.
    #[test]
    fn who_shares_secret_and_time_shares_tokens() {
        let mut one = AddressTokens::new(&[1; 32], HOUR, NewTokens::default());
        let mut two = AddressTokens::new(&[1; 32], HOUR + Duration::from_secs(100), NewTokens::default());
        let token = seal(&mut one, 100_500, cid(3, 8));
        assert_eq!(judge(&mut two, 700, &token), Verdict::Validated(cid(3, 8)));
        // A clock that is slightly behind.
        let token = seal(&mut two, 9000, cid(3, 8));
        assert_eq!(judge(&mut one, 100_000, &token), Verdict::Validated(cid(3, 8)));
        assert_eq!(judge(&mut one, 94_000, &token), Verdict::Validated(cid(3, 8)));
        // A clock that is too far behind.
        assert_eq!(judge(&mut one, 93_999, &token), Verdict::Bad);
        let mut other = AddressTokens::new(&[2; 32], HOUR, NewTokens::default());
        let token = seal(&mut one, 0, cid(3, 8));
        assert_eq!(judge(&mut other, 0, &token), Verdict::Bad);
    }

    /// A change of keys invalidates no token before its time.
    #[test]
    fn keys_change_with_time() {
        let mut tokens = AddressTokens::new(&[1; 32], Duration::ZERO, NewTokens::default());
        let mut before: Option<[u8; RETRY_TOKEN_LEN]> = None;
        for ms in (0..10 * PERIOD_MS).step_by(7000) {
            let token = tokens.seal_retry(at(ms), Version::V1, from(1, 5), &cid(9, 8), &cid(3, 8), [0; 12]);
            assert_eq!(judge(&mut tokens, ms, &token), Verdict::Validated(cid(3, 8)), "at {ms}");
            assert_eq!(judge(&mut tokens, ms + 60_000, &token), Verdict::Validated(cid(3, 8)), "from {ms}");
            if let Some(before) = before.filter(|before| before[1] != token[1]) {
                // The same nonce and nearly the same text, but another key.
                assert_ne!(before[HEAD_LEN + 8..][..21], token[HEAD_LEN + 8..][..21]);
            }
            // Much later, when the byte that names the period has the same value again.
            assert_eq!(judge(&mut tokens, ms + 256 * PERIOD_MS, &token), Verdict::Bad);
            before = Some(token);
        }
    }

    /// The server of tests/hostile/retry_server.rs does the same with whole packets.
    #[test]
    fn both_kinds_are_told_apart_and_one_is_used_once() {
        let mut tokens = AddressTokens::new(&[1; 32], HOUR, NewTokens::default());
        let token = tokens.seal_new(at(100), Version::V1, from(1, 5), [3; 12]);
        let verdict = tokens.judge(at(200), Version::V1, from(1, 6), &cid(4, 8), &token);
        let Verdict::Known(mark) = verdict else { panic!("{verdict:?}") };
        assert_eq!(
            tokens.judge(at(200), Version::V1, from(2, 5), &cid(4, 8), &token),
            Verdict::Foreign,
            "another address"
        );
        tokens.spend(mark);
        assert_eq!(tokens.judge(at(200), Version::V1, from(1, 6), &cid(4, 8), &token), Verdict::Foreign, "used before");
        // One kind does not pass for the other.
        let mut retry = seal(&mut tokens, 100, cid(3, 8));
        retry[0] = lasting::KIND;
        assert_eq!(judge(&mut tokens, 100, &retry), Verdict::Foreign);
    }

    #[test]
    fn extreme_times_are_taken() {
        let mut tokens = AddressTokens::new(&[1; 32], Duration::MAX, NewTokens::default());
        let token = tokens.seal_retry(Instant::MAX, Version::V1, from(1, 5), &cid(9, 8), &cid(3, 8), [0; 12]);
        assert_eq!(
            tokens.judge(Instant::MAX, Version::V1, from(1, 5), &cid(9, 8), &token),
            Verdict::Validated(cid(3, 8))
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_judged(mut token in proptest::collection::vec(any::<u8>(), 0..80), ms in 0u64..1 << 40, ours: bool) {
            if ours {
                token.resize(RETRY_TOKEN_LEN, 7);
                token[0] = RETRY;
            }
            let verdict = judge(&mut AddressTokens::new(&[1; 32], HOUR, NewTokens::default()), ms, &token);
            prop_assert!(!matches!(verdict, Verdict::Validated(_)));
        }
    }
}
