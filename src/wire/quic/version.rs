//! QUIC versions (RFC 9000 §15, RFC 9369).

use core::fmt;
use core::ops::Deref;
use core::str::FromStr;

use arrayvec::ArrayVec;
use thiserror::Error;

/// A version of QUIC that this stack speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Version {
    /// Version 1 (RFC 9000).
    #[default]
    V1,
    /// Version 2 (RFC 9369). It differs only in numbers that version 1 fixes for all time in the eyes of middleboxes.
    V2,
}

impl Version {
    /// All versions, oldest first.
    pub const ALL: [Self; 2] = [Self::V1, Self::V2];

    /// The number in the Version field (RFC 9000 §15, RFC 9369 §3.1).
    pub const fn number(self) -> u32 {
        match self {
            Self::V1 => 1,
            Self::V2 => 0x6b33_43cf,
        }
    }

    /// The version with this number; `None` if it is not spoken here.
    pub fn of(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|version| version.number() == number)
    }

    /// Whether a first flight of this version can be read as one of `other` (RFC 9368 §2.2). Versions 1 and 2 are
    /// compatible with each other (RFC 9369 §4).
    pub const fn is_compatible_with(self, other: Self) -> bool {
        match (self, other) {
            (Self::V1 | Self::V2, Self::V1 | Self::V2) => true,
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V1 => "v1",
            Self::V2 => "v2",
        })
    }
}

/// A name that is not that of a version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Error)]
#[error("it is not v1 or v2")]
pub struct UnknownVersion;

impl FromStr for Version {
    type Err = UnknownVersion;

    fn from_str(name: &str) -> Result<Self, UnknownVersion> {
        match name.strip_prefix('v').unwrap_or(name) {
            "1" => Ok(Self::V1),
            "2" => Ok(Self::V2),
            _ => Err(UnknownVersion),
        }
    }
}

/// A version number that is reserved to exercise negotiation, 0x?a?a?a?a (RFC 9000 §15), from random bits. No version
/// will ever have it.
pub const fn reserved(random: u32) -> u32 {
    random & 0xf0f0_f0f0 | 0x0a0a_0a0a
}

/// Adds a reserved version to a list, at a place that follows `random` bits as well.
pub fn grease(numbers: &mut Vec<u32>, random: u64) {
    let at = (random >> 32) as usize % (numbers.len() + 1);
    numbers.insert(at, reserved(random as u32));
}

/// Whether a version number is reserved.
pub const fn is_reserved(number: u32) -> bool {
    number & 0x0f0f_0f0f == 0x0a0a_0a0a
}

/// A list of versions in order of preference. It is never empty, and no version occurs twice.
#[derive(Clone, PartialEq, Eq)]
pub struct Versions(ArrayVec<Version, { Version::ALL.len() }>);

impl Versions {
    /// A list of these versions. `None` if there are none, or one occurs twice.
    pub fn new(versions: &[Version]) -> Option<Self> {
        let mut list = ArrayVec::new();
        for version in versions {
            if list.contains(version) {
                return None;
            }
            list.push(*version);
        }
        (!list.is_empty()).then_some(Self(list))
    }

    /// The most preferred one of those in `numbers`.
    pub fn select(&self, numbers: impl Iterator<Item = u32> + Clone) -> Option<Version> {
        self.iter().copied().find(|version| numbers.clone().any(|number| number == version.number()))
    }

    /// The oldest one, which most peers speak.
    pub fn oldest(&self) -> Version {
        Version::ALL.into_iter().find(|version| self.contains(version)).unwrap_or_default()
    }
}

impl Default for Versions {
    /// Version 1, then version 2.
    fn default() -> Self {
        Self(Version::ALL.into())
    }
}

impl From<Version> for Versions {
    fn from(version: Version) -> Self {
        Self([version].into_iter().collect())
    }
}

impl Deref for Versions {
    type Target = [Version];

    fn deref(&self) -> &[Version] {
        &self.0
    }
}

impl fmt::Debug for Versions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Versions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, version) in self.iter().enumerate() {
            write!(f, "{}{version}", if n > 0 { "," } else { "" })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_the_rfcs() {
        assert_eq!(Version::ALL.map(Version::number), [1, 0x6b33_43cf]);
        for version in Version::ALL {
            assert_eq!(Version::of(version.number()), Some(version));
            assert!(!is_reserved(version.number()));
        }
        assert_eq!(Version::of(0), None);
        assert!(is_reserved(reserved(0x1234_5678)) && is_reserved(reserved(u32::MAX)) && is_reserved(reserved(0)));
    }

    #[test]
    fn lists_have_an_order_and_no_duplicates() {
        let [v1, v2] = Version::ALL;
        assert_eq!((Versions::new(&[]), Versions::new(&[v1, v1])), (None, None));
        let list = Versions::new(&[v2, v1]).unwrap();
        assert_eq!((list.to_string(), list.oldest(), list[0]), ("v2,v1".to_owned(), v1, v2));
        assert_eq!(Versions::from(v2).oldest(), v2);
        let select = |numbers: &[u32]| list.select(numbers.iter().copied());
        assert_eq!(select(&[7, 1, v2.number()]), Some(v2));
        assert_eq!((select(&[1, 0x0a0a_0a0a]), select(&[7]), select(&[])), (Some(v1), None, None));
        assert_eq!(["v1", "2", "v3", "", "vv1"].map(|name| name.parse().ok()), [Some(v1), Some(v2), None, None, None]);
    }
}
