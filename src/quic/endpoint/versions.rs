//! Versions on a server: which ones it accepts, and Version Negotiation packets for clients that begin with others (RFC
//! 9000 §6.1, RFC 9368 §2.1).

use crate::base::time::Instant;
use crate::quic::connection::RxMeta;
use crate::quic::endpoint::{Answer, Endpoint};
use crate::quic::path::MIN_MTU;
use crate::quic::stats::DropReason;
use crate::wire::quic::header;
use crate::wire::quic::version::{Version, grease};

impl Endpoint {
    /// Whether connections of this version are accepted. If none are accepted at all, clients are not told so.
    pub(super) fn accepts(&self, version: Version) -> bool {
        self.server.as_ref().is_none_or(|server| server.transport.versions.contains(&version))
    }

    /// Whether `data`, whose header is invalid in its version, is of a version that is not accepted. What is invalid in it
    /// does not matter then (RFC 9000 §17.2.1).
    pub(super) fn is_foreign(&self, data: &[u8]) -> bool {
        header::raw_version(data).and_then(Version::of).is_some_and(|version| !self.accepts(version))
    }

    /// Answers a packet of a version that is not accepted with Version Negotiation, which lists all that are (RFC 9000
    /// §6.1, RFC 9368 §2.1), and one that will never exist, so that clients learn to ignore those (RFC 9000 §6.3).
    ///
    /// Small datagrams are not answered, and the rate is limited: forged addresses get fewer bytes than their owners'
    /// enemies send. The answer has no version itself, so it is never answered in turn.
    pub(super) fn negotiate_version(&mut self, now: Instant, meta: &RxMeta, data: &[u8]) {
        self.stats.drop(DropReason::Version);
        let Some(server) = self.server.as_ref().filter(|_| data.len() >= usize::from(MIN_MTU)) else { return };
        let accepted = server.transport.versions.clone();
        if !self.negotiations.take(now) || !self.may_answer() {
            return;
        }
        let mut versions: Vec<u32> = accepted.iter().map(|version| version.number()).collect();
        let random = self.rng.next_u64();
        if self.config.grease {
            grease(&mut versions, random);
        }
        let (dcid, scid) = header::raw_cids(data).unwrap_or_default();
        let mut out = vec![0; 7 + dcid.len() + scid.len() + 4 * versions.len()];
        let len = header::encode_version_negotiation(&mut out, (random >> 56) as u8, scid, dcid, &versions);
        out.truncate(len.unwrap_or(0));
        self.stats.negotiations_sent += 1;
        self.answers.push_back(Answer { local: meta.local, remote: meta.remote, data: out });
    }
}
