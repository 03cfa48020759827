//! The systems that Gannet should build and run on.

use std::fmt;

use clap::ValueEnum;

/// A release of a distribution, or another architecture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum System {
    /// Debian 12: DPDK 22.11, intel-ipsec-mb 1.3
    Debian12,
    /// Debian 13: DPDK 24.11, intel-ipsec-mb 2.0
    Debian13,
    /// Debian's unstable suite: whatever is newest
    Sid,
    /// Ubuntu 24.04: DPDK 23.11, intel-ipsec-mb 1.5
    #[value(name = "ubuntu24.04")]
    Ubuntu2404,
    /// Debian 13 for AArch64, cross-built and run by QEMU
    Aarch64,
}

impl System {
    /// Its code name in the archive.
    pub const fn codename(self) -> &'static str {
        match self {
            Self::Debian12 => "bookworm",
            Self::Debian13 | Self::Aarch64 => "trixie",
            Self::Sid => "sid",
            Self::Ubuntu2404 => "noble",
        }
    }

    /// Returns the Debian release with this codename.
    pub fn of(codename: &str) -> Option<Self> {
        [Self::Debian12, Self::Debian13, Self::Sid].into_iter().find(|system| system.codename() == codename)
    }

    /// The label of its archive.
    pub const fn distribution(self) -> &'static str {
        match self {
            Self::Ubuntu2404 => "Ubuntu",
            _ => "Debian",
        }
    }

    /// The components of the archive that contain the packages.
    pub const fn components(self) -> &'static str {
        match self {
            Self::Ubuntu2404 => "main,universe",
            _ => "main",
        }
    }
}

impl fmt::Display for System {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.to_possible_value();
        f.write_str(value.as_ref().map_or("", |value| value.get_name()))
    }
}
