//! Negotiation of the version (RFC 9368). [`Negotiation`] knows what both ends have said about versions, and judges it;
//! it knows nothing of packets and keys.

use crate::base::Side;
use crate::wire::quic::params::VersionInformation;
use crate::wire::quic::version::{Version, Versions, grease};

/// A client's reaction to a Version Negotiation packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reaction {
    /// None.
    Ignore,
    /// There is no version in common: the attempt ends (RFC 9368 §2.1).
    GiveUp,
    /// It begins again with this version.
    StartOver(Version),
}

/// The version of a connection whose handshake is not complete.
#[derive(Clone, Debug)]
pub(crate) struct Negotiation {
    side: Side,
    /// The version of the client's first flight, its Chosen Version (RFC 9368 §1.2).
    chosen: Version,
    /// The Negotiated Version, as far as this end knows.
    negotiated: Version,
    /// Whether the negotiated version cannot change any more.
    settled: bool,
    /// Whether a Version Negotiation packet led to the chosen version.
    reacted: bool,
}

impl Negotiation {
    /// Of a connection whose first flight has version `chosen`.
    pub(crate) fn new(side: Side, chosen: Version) -> Self {
        Self { side, chosen, negotiated: chosen, settled: false, reacted: false }
    }

    /// The version of the client's first flight.
    pub(crate) fn chosen(&self) -> Version {
        self.chosen
    }

    /// The Version Information to send, for an end that speaks `versions` (RFC 9368 §3). A version that will never exist
    /// is added if there are `random` bits for it.
    pub(crate) fn information(&self, versions: &Versions, random: Option<u64>) -> VersionInformation {
        let available = versions.iter().filter(|version| match self.side {
            Side::Client => self.chosen.is_compatible_with(**version),
            // All servers of a deployment are expected to have the same settings (RFC 9368 §5).
            Side::Server => true,
        });
        let mut available: Vec<u32> = available.map(|version| version.number()).collect();
        if let Some(random) = random {
            grease(&mut available, random);
        }
        VersionInformation { chosen: self.negotiated.number(), available }
    }

    /// On a client that speaks `versions`: judges a Version Negotiation packet that lists `listed` and answers a packet of
    /// ours, before anything else was received (RFC 9000 §6.2, RFC 9368 §2.1). A client reacts to one such packet only,
    /// and not to one that lists the version of its packets (RFC 9368 §4).
    pub(crate) fn on_list(&mut self, versions: &Versions, listed: impl Iterator<Item = u32> + Clone) -> Reaction {
        if self.reacted || self.settled || listed.clone().any(|number| number == self.chosen.number()) {
            return Reaction::Ignore;
        }
        match versions.select(listed) {
            None => Reaction::GiveUp,
            Some(version) => {
                *self = Self { reacted: true, ..Self::new(self.side, version) };
                Reaction::StartOver(version)
            }
        }
    }

    /// On a client that speaks `versions`: whether a long header of `version` would tell that it is the negotiated one. The
    /// first version that differs from the chosen one does, unless the server has sent CRYPTO frames in that (RFC 9369
    /// §4.1).
    pub(crate) fn may_become(&self, version: Version, versions: &Versions) -> bool {
        self.side == Side::Client
            && !self.settled
            && version != self.chosen
            && self.chosen.is_compatible_with(version)
            && versions.contains(&version)
    }

    /// On a client: an authentic packet of `version` has arrived, which [`Negotiation::may_become`] the negotiated one.
    pub(crate) fn learn(&mut self, version: Version) {
        self.negotiated = version;
        self.settled = true;
    }

    /// The negotiated version cannot change any more, as CRYPTO frames have been exchanged in it.
    pub(crate) fn settle(&mut self) {
        self.settled = true;
    }

    /// On a server that speaks `versions`: chooses the negotiated version (RFC 9368 §2.3). It is the server's most preferred
    /// one of those that the client's first flight is compatible with. A client without valid Version Information gets the
    /// version that it began with; [`Negotiation::check`] then tells whether it gets anything.
    pub(crate) fn choose(&mut self, versions: &Versions, client: Option<&VersionInformation>) -> Version {
        if let Some(info) = client.filter(|info| info.chosen == self.chosen.number()) {
            let possible = versions.iter().copied().filter(|version| self.chosen.is_compatible_with(*version));
            self.negotiated =
                possible.into_iter().find(|version| info.available.contains(&version.number())).unwrap_or(self.chosen);
        }
        self.settled = true;
        self.negotiated
    }

    /// Checks the peer's Version Information, if there was any, at an end that speaks `versions` (RFC 9368 §4, §8).
    ///
    /// # Errors
    /// Why the connection has to be closed with VERSION_NEGOTIATION_ERROR.
    pub(crate) fn check(&self, peer: Option<&VersionInformation>, versions: &Versions) -> Result<(), &'static str> {
        let only_v1 = VersionInformation { chosen: Version::V1.number(), available: vec![Version::V1.number()] };
        let info = match (self.side, peer) {
            (_, Some(info)) => info,
            (Side::Server, None) => return Ok(()),
            // Servers that speak nothing else need not know about negotiation (RFC 9368 §8).
            (Side::Client, None) if self.reacted && self.negotiated == Version::V1 => &only_v1,
            (Side::Client, None) if self.reacted || self.negotiated != self.chosen => {
                return Err("the version was negotiated, and version_information is missing");
            }
            (Side::Client, None) => return Ok(()),
        };
        if self.side == Side::Server {
            let same = info.chosen == self.chosen.number();
            return if same { Ok(()) } else { Err("the client's packets have another version than it says") };
        }
        let ours = versions.iter().any(|v| v.number() == info.chosen && self.chosen.is_compatible_with(*v));
        if !ours {
            return Err("the server chose a version that was not offered");
        }
        if info.chosen != self.negotiated.number() {
            return Err("the server's packets have another version than it says");
        }
        let known = info.available.iter().copied().chain([self.negotiated.number()]);
        if self.reacted && (info.available.is_empty() || versions.select(known) != Some(self.chosen)) {
            return Err("the server speaks a version that its Version Negotiation packet did not list");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::quic::version::is_reserved;

    const V1: Version = Version::V1;
    const V2: Version = Version::V2;
    const GREASE: u32 = 0x1a2a_3a4a;

    fn both(first: Version) -> Versions {
        let second = if first == V1 { V2 } else { V1 };
        Versions::new(&[first, second]).unwrap()
    }

    fn numbers(versions: &[Version]) -> Vec<u32> {
        versions.iter().map(|version| version.number()).collect()
    }

    fn info(chosen: u32, available: &[u32]) -> VersionInformation {
        VersionInformation { chosen, available: available.to_vec() }
    }

    fn listed(client: &mut Negotiation, versions: &Versions, list: &[u32]) -> Reaction {
        client.on_list(versions, list.iter().copied())
    }

    #[test]
    fn both_ends_say_what_they_speak() {
        let client = Negotiation::new(Side::Client, V1);
        assert_eq!(client.information(&both(V2), None), info(1, &numbers(&[V2, V1])));
        let mut server = Negotiation::new(Side::Server, V1);
        server.choose(&both(V2), Some(&client.information(&both(V2), None)));
        assert_eq!(server.information(&V2.into(), None), info(V2.number(), &[V2.number()]));
        let mut places = [false; 3];
        for random in 0..20 {
            let greased = client.information(&both(V1), Some(random << 32 | 0x1234_5678)).available;
            let at = greased.iter().position(|number| is_reserved(*number)).unwrap();
            places[at] = true;
            assert_eq!(greased.len(), 3);
        }
        assert_eq!(places, [true; 3]);
    }

    #[test]
    fn a_client_reacts_to_one_list_without_its_version() {
        let versions = both(V1);
        let mut client = Negotiation::new(Side::Client, V1);
        // RFC 9368 §4: lists that contain the original version are ignored.
        assert_eq!(listed(&mut client, &versions, &[V2.number(), 1]), Reaction::Ignore);
        assert_eq!(listed(&mut client, &versions, &[GREASE, V2.number()]), Reaction::StartOver(V2));
        assert_eq!(client.chosen(), V2);
        // And any that answer the second attempt.
        assert_eq!(listed(&mut client, &versions, &[1]), Reaction::Ignore);
        assert_eq!(listed(&mut client, &versions, &[7]), Reaction::Ignore);
        let mut client = Negotiation::new(Side::Client, V1);
        assert_eq!(listed(&mut client, &versions, &[7, GREASE]), Reaction::GiveUp);
        let mut client = Negotiation::new(Side::Client, V1);
        assert_eq!(listed(&mut client, &V1.into(), &[V2.number()]), Reaction::GiveUp);
    }

    #[test]
    fn a_server_chooses_what_it_prefers_of_what_the_client_offers() {
        let choose = |chosen, versions: Versions, client: Option<VersionInformation>| {
            Negotiation::new(Side::Server, chosen).choose(&versions, client.as_ref())
        };
        let all = [V1.number(), GREASE, V2.number()];
        assert_eq!(choose(V1, both(V2), Some(info(1, &all))), V2);
        assert_eq!(choose(V2, both(V2), Some(info(V2.number(), &all))), V2);
        assert_eq!(choose(V2, both(V1), Some(info(V2.number(), &all))), V1);
        assert_eq!(choose(V1, V1.into(), Some(info(1, &all))), V1);
        // A client that does not want to change (RFC 9368 §2.3).
        assert_eq!(choose(V1, both(V2), Some(info(1, &[1]))), V1);
        assert_eq!(choose(V1, both(V2), None), V1);
        // A client whose connection will be closed.
        assert_eq!(choose(V1, both(V2), Some(info(V2.number(), &all))), V1);
    }

    #[test]
    fn a_server_believes_a_client_that_says_what_it_does() {
        let mut server = Negotiation::new(Side::Server, V1);
        for changed in [false, true] {
            if changed {
                server.choose(&both(V2), Some(&info(1, &numbers(&[V1, V2]))));
            }
            assert!(server.check(Some(&info(1, &[1])), &both(V2)).is_ok());
            assert!(server.check(Some(&info(V2.number(), &[V2.number()])), &both(V2)).is_err());
            assert!(server.check(None, &both(V2)).is_ok());
        }
    }

    #[test]
    fn a_client_learns_the_version_from_the_first_packet_that_has_another() {
        let mut client = Negotiation::new(Side::Client, V1);
        assert!(client.may_become(V2, &both(V1)) && !client.may_become(V1, &both(V1)));
        assert!(!client.may_become(V2, &V1.into()), "not offered");
        let mut late = client.clone();
        late.settle();
        assert!(!late.may_become(V2, &both(V1)), "the server has answered in version 1");
        client.learn(V2);
        assert!(!client.may_become(V1, &both(V1)) && !client.may_become(V2, &both(V1)));
        assert_eq!(listed(&mut client, &both(V1), &[7]), Reaction::Ignore);
        // The server confirms it.
        assert!(client.check(Some(&info(V2.number(), &numbers(&[V1, V2]))), &both(V1)).is_ok());
        assert!(client.check(Some(&info(V2.number(), &[])), &both(V1)).is_ok(), "it is removing all versions");
        assert!(client.check(Some(&info(1, &numbers(&[V1, V2]))), &both(V1)).is_err(), "a forged header");
        assert!(client.check(None, &both(V1)).is_err());
    }

    #[test]
    fn a_client_that_was_not_negotiated_with_needs_no_information() {
        let client = Negotiation::new(Side::Client, V1);
        assert!(client.check(None, &both(V1)).is_ok());
        assert!(client.check(Some(&info(1, &[])), &both(V1)).is_ok());
        for chosen in [V2.number(), 7, GREASE] {
            assert!(client.check(Some(&info(chosen, &numbers(&[V1, V2]))), &both(V1)).is_err(), "{chosen}");
        }
    }

    /// RFC 9368 §4: the server's list must explain the Version Negotiation packet. Otherwise, someone made it up to change
    /// the version.
    #[test]
    fn a_client_that_started_over_would_do_it_again() {
        let after = |versions: &Versions, first, list: &[u32]| {
            let mut client = Negotiation::new(Side::Client, first);
            assert!(matches!(listed(&mut client, versions, list), Reaction::StartOver(_)));
            client
        };
        // It prefers version 1, which the server speaks: the list with version 2 alone was forged.
        let client = after(&both(V1), V1, &[V2.number()]);
        let server = |available: &[u32]| client.check(Some(&info(V2.number(), available)), &both(V1));
        assert!(server(&[V2.number(), GREASE]).is_ok());
        assert!(server(&numbers(&[V2, V1])).is_err());
        assert!(server(&[]).is_err(), "no list");
        assert!(server(&[GREASE]).is_ok(), "and the negotiated version");
        assert!(client.check(None, &both(V1)).is_err());
        // It prefers version 2 anyway.
        let client = after(&both(V2), V1, &[V2.number()]);
        assert!(client.check(Some(&info(V2.number(), &numbers(&[V1, V2]))), &both(V2)).is_ok());
        // RFC 9368 §8: servers that speak only version 1.
        let client = after(&both(V2), V2, &[1]);
        assert!(client.check(None, &both(V2)).is_ok());
        assert!(client.check(Some(&info(1, &[1])), &both(V2)).is_ok());
        assert!(client.check(Some(&info(1, &numbers(&[V1, V2]))), &both(V2)).is_err());
    }
}
