//! Builds a checked profile from TOML and `--set`.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::text::{self, Problem};
use super::{Bus, DRIVERS, Driver, Hugepages, Memory, Offloads, PortProfile, schema};
use crate::dpdk::error::ProfileError;
use crate::dpdk::sockets;

macro_rules! profiles {
    ($($name:literal),* $(,)?) => {
        [$(($name, include_str!(concat!("../../../dpdk-config/", $name, ".toml")))),*]
    };
}

/// The profiles embedded in the executable.
static EMBEDDED: [(&str, &str); 17] = profiles![
    "af-packet",
    "af-xdp",
    "e1000e",
    "i40e",
    "ice",
    "igb",
    "ixgbe",
    "memif",
    "mlx5",
    "null",
    "pcap",
    "ring",
    "tap",
    "vhost",
    "virtio-pci",
    "virtio-user",
    "vmxnet3",
];

/// The keys outside `[devargs]`.
const KEYS: [&str; 17] = [
    "driver",
    "device",
    "mtu",
    "mac",
    "rx_desc",
    "tx_desc",
    "queues",
    "mbufs",
    "mbuf_size",
    "hugepages",
    "offloads",
    "promiscuous",
    "peer",
    "peer_uid",
    "kernel_address",
    "description",
    "devargs",
];

/// The largest MTU of any driver, in bytes.
const MAX_MTU: u64 = 9702;

impl PortProfile {
    /// Loads the profile `name_or_path` and applies `sets`: `("mtu", "9000")`, `("devargs.socket", "/tmp/x")`. The
    /// prefix of device arguments may be omitted: `("socket", "/tmp/x")`. A socket without a directory is in the
    /// [runtime directory](crate::dpdk::runtime_dir).
    ///
    /// # Errors
    /// If a profile, key or driver is unknown, a value is out of range, or a required key is missing.
    pub fn load(name_or_path: &str, sets: &[(String, String)]) -> Result<Self, ProfileError> {
        if name_or_path.contains('/') || name_or_path.ends_with(".toml") {
            let path = Path::new(name_or_path);
            let text = fs::read_to_string(path)
                .map_err(|e| ProfileError::Read { path: path.to_owned(), reason: e.to_string() })?;
            return Self::parse(name_or_path, &text, sets);
        }
        let found = EMBEDDED.iter().find(|(name, _)| *name == name_or_path);
        let (name, text) = found.ok_or_else(|| ProfileError::Unknown {
            name: name_or_path.to_owned(),
            known: Self::names().collect::<Vec<_>>().join(", "),
        })?;
        Self::parse(name, text, sets)
    }

    /// The names of the profiles embedded in the executable.
    pub fn names() -> impl Iterator<Item = &'static str> {
        EMBEDDED.iter().map(|(name, _)| *name)
    }

    /// The embedded profiles whose packet buffers the peer process can write to ([`PortProfile::memory`]), with the
    /// settings on which this depends.
    pub fn shared() -> Vec<String> {
        let sets = |sets: &[(&str, &str)]| -> Vec<(String, String)> {
            sets.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
        };
        let mut found = Vec::new();
        for name in Self::names() {
            for settings in [&[][..], &[("role", "client"), ("zero-copy", "true")]] {
                // Profiles that need a device or do not have these settings share nothing with a process.
                if Self::load(name, &sets(settings)).is_ok_and(|p| p.memory() == Memory::Shared) {
                    let with: String = settings.iter().map(|(key, value)| format!(" {key}={value}")).collect();
                    found.push(format!("{name}{with}"));
                }
            }
        }
        found
    }

    /// The text of an embedded profile, as a template.
    pub fn source(name: &str) -> Option<&'static str> {
        EMBEDDED.iter().find(|(n, _)| *n == name).map(|(_, text)| *text)
    }

    /// Parses a profile from its text.
    ///
    /// # Errors
    /// As for [`PortProfile::load`].
    pub fn parse(name: &str, text: &str, sets: &[(String, String)]) -> Result<Self, ProfileError> {
        let mut raw = Raw { profile: name, values: BTreeMap::new() };
        raw.values = text::parse(text).map_err(|problem| match problem {
            Problem::Syntax { line, why } => ProfileError::Syntax { profile: name.to_owned(), line, reason: why },
            Problem::Value { key, value } => raw.bad(&key, &value, "a string, a number, true or false"),
        })?;
        for (key, value) in sets {
            let key = raw.full_key(key.trim());
            raw.values.insert(key, value.trim().to_owned());
        }
        raw.check()
    }
}

/// All keys, with those of `[devargs]` as `devargs.x`, and their values as text.
struct Raw<'a> {
    profile: &'a str,
    values: BTreeMap<String, String>,
}

impl<'a> Raw<'a> {
    fn bad(&self, key: &str, value: &str, expected: impl Into<String>) -> ProfileError {
        ProfileError::BadValue {
            profile: self.profile.to_owned(),
            key: key.to_owned(),
            value: value.to_owned(),
            expected: expected.into(),
        }
    }

    fn get(&self, key: &str) -> Option<&str> {
        self.values.get(key).map(String::as_str)
    }

    fn number(&self, key: &str, default: u64, min: u64, max: u64) -> Result<u64, ProfileError> {
        let Some(text) = self.get(key) else { return Ok(default) };
        let number = text.parse().ok().filter(|n| (min..=max).contains(n));
        number.ok_or_else(|| self.bad(key, text, format!("a number from {min} to {max}")))
    }

    fn flag(&self, key: &str) -> Result<bool, ProfileError> {
        match self.get(key) {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(other) => Err(self.bad(key, other, "true or false")),
        }
    }

    fn driver(&self) -> Result<&'static Driver, ProfileError> {
        let name = self.get("driver").ok_or_else(|| self.missing("driver", "DPDK's name of the driver"))?;
        let known = || DRIVERS.iter().map(|d| d.name).collect::<Vec<_>>().join(", ");
        Driver::find(name).ok_or_else(|| self.bad("driver", name, format!("one of {}", known())))
    }

    fn missing(&self, key: &str, doc: &'static str) -> ProfileError {
        ProfileError::Missing { profile: self.profile.to_owned(), key: key.to_owned(), doc }
    }

    /// Resolves a device argument given without its prefix: `socket` for `devargs.socket`.
    fn full_key(&self, key: &str) -> String {
        let of_device = !KEYS.contains(&key) && self.driver().is_ok_and(|driver| driver.key(key).is_some());
        if of_device { format!("devargs.{key}") } else { key.to_owned() }
    }

    fn known_keys(&self, driver: &Driver) -> Result<(), ProfileError> {
        let known = |key: &str| match key.strip_prefix("devargs.") {
            Some(sub) => driver.key(sub).is_some(),
            None => key != "devargs" && KEYS.contains(&key),
        };
        let Some(key) = self.values.keys().find(|k| !known(k)) else { return Ok(()) };
        let mut names: Vec<String> = KEYS[..KEYS.len() - 1].iter().map(|k| (*k).to_owned()).collect();
        names.extend(driver.keys.iter().map(|k| format!("devargs.{}", k.name)));
        Err(ProfileError::UnknownKey { profile: self.profile.to_owned(), key: key.clone(), known: names.join(", ") })
    }

    /// Rejects settings that the driver would ignore.
    fn honoured(&self, driver: &'static Driver) -> Result<(), ProfileError> {
        let refuse = |key: &str, instead| ProfileError::Ignored {
            profile: self.profile.to_owned(),
            key: key.to_owned(),
            driver: driver.name,
            instead,
        };
        let given = |key: &str| self.get(key).is_some_and(|value| !value.is_empty());
        if let Some((key, instead)) = driver.ignores.iter().find(|(key, _)| given(key)) {
            return Err(refuse(key, instead));
        }
        let server = driver.name == "net_memif" && self.get("devargs.role") == Some("server");
        let client_only = |key: &str| match key {
            "devargs.rsize" => given(key),
            _ => self.flag_of(key),
        };
        match ["devargs.zero-copy", "devargs.rsize"].into_iter().find(|key| server && client_only(key)) {
            Some(key) => Err(refuse(key, "it is set by the client")),
            None => Ok(()),
        }
    }

    /// Returns whether a driver flag is given and set. Invalid values are reported elsewhere.
    fn flag_of(&self, key: &str) -> bool {
        self.get(key).is_some_and(|text| schema::flag(text) == Ok(true))
    }

    /// Checks that rings are no larger than the virtqueue.
    fn virtqueue(&self, devargs: &BTreeMap<String, String>) -> Result<(), ProfileError> {
        let Some(size) = devargs.get("queue_size").and_then(|size| size.parse::<u64>().ok()) else { return Ok(()) };
        for key in ["rx_desc", "tx_desc"] {
            if let Some(text) = self.get(key).filter(|text| text.parse::<u64>().is_ok_and(|n| n > size)) {
                return Err(self.bad(key, text, format!("at most devargs.queue_size, {size}")));
            }
        }
        Ok(())
    }

    fn devargs(&self, driver: &Driver) -> Result<BTreeMap<String, String>, ProfileError> {
        let mut devargs = BTreeMap::new();
        let abstract_name = self.flag_of("devargs.socket-abstract");
        for key in driver.keys {
            let full = format!("devargs.{}", key.name);
            match self.get(&full) {
                Some("") | None if key.required => return Err(self.missing(&full, key.doc)),
                Some("") | None => {}
                Some(text) => {
                    let path = (key.socket && !abstract_name).then(|| sockets::path_of(text).display().to_string());
                    let text = path.as_deref().unwrap_or(text);
                    let value =
                        key.kind.check(text).map_err(|e| self.bad(&full, text, format!("{e} ({})", key.doc)))?;
                    if value != schema::ABSENT {
                        devargs.insert(key.name.to_owned(), value);
                    }
                }
            }
        }
        Ok(devargs)
    }

    fn device(&self, driver: &Driver) -> Result<String, ProfileError> {
        match (driver.bus, self.get("device").unwrap_or("")) {
            (Bus::Vdev, "") => Ok(String::new()),
            (Bus::Vdev, text) => Err(self.bad("device", text, "no value: this driver creates its own devices")),
            (Bus::Pci, "") => {
                Err(self.missing("device", "the PCI address, such as 0000:01:00.0; `dpdk-devbind.py -s`"))
            }
            (Bus::Pci, text) => pci_address(text)
                .ok_or_else(|| self.bad("device", text, "a PCI address such as 0000:01:00.0 or 01:00.0")),
        }
    }

    fn check(self) -> Result<PortProfile, ProfileError> {
        let driver = self.driver()?;
        self.known_keys(driver)?;
        self.honoured(driver)?;
        let devargs = self.devargs(driver)?;
        self.virtqueue(&devargs)?;
        let mac = match self.get("mac").filter(|m| !m.is_empty()) {
            Some(text) => Some(
                parse_mac(text).ok_or_else(|| self.bad("mac", text, "a unicast address such as 02:00:00:00:00:01"))?,
            ),
            None => None,
        };
        let hugepages = self.get("hugepages").unwrap_or("auto");
        let offloads = match self.get("offloads").unwrap_or("auto") {
            "auto" => Offloads::Auto,
            "off" => Offloads::Off,
            "none" if driver.agrees => Offloads::None,
            "none" => {
                let why = "auto or off (none requires Gannet at both ends: memif, vhost, virtio-user, ring)";
                return Err(self.bad("offloads", "none", why));
            }
            other => return Err(self.bad("offloads", other, "auto, off or none")),
        };
        Ok(PortProfile {
            name: self.profile.to_owned(),
            driver,
            device: self.device(driver)?,
            mtu: self.number("mtu", 1500, 1280, MAX_MTU)? as u16,
            mac,
            rx_desc: self.number("rx_desc", 1024, 32, 32768)? as u16,
            tx_desc: self.number("tx_desc", 1024, 32, 32768)? as u16,
            queues: self.number("queues", 1, 1, 128)? as u16,
            mbufs: match self.number("mbufs", 0, 0, 1 << 24)? {
                n @ 1..256 => return Err(self.bad("mbufs", &n.to_string(), "0 (automatic) or at least 256")),
                n => n as u32,
            },
            mbuf_size: match self.number("mbuf_size", 0, 0, 16384)? {
                n @ 1..256 => return Err(self.bad("mbuf_size", &n.to_string(), "0 (automatic) or at least 256")),
                n => n as u16,
            },
            hugepages: Hugepages::from_name(hugepages)
                .ok_or_else(|| self.bad("hugepages", hugepages, Hugepages::NAMES.join(" or ")))?,
            offloads,
            promiscuous: self.flag("promiscuous")?,
            interrupts: false,
            peer_trusted: match self.get("peer").unwrap_or("untrusted") {
                "untrusted" => false,
                "trusted" => true,
                other => return Err(self.bad("peer", other, "trusted or untrusted")),
            },
            peer_uid: match self.get("peer_uid") {
                None | Some("") => None,
                Some(_) => Some(self.number("peer_uid", 0, 0, u64::from(u32::MAX - 1))? as u32),
            },
            kernel_address: match self.get("kernel_address").unwrap_or("refused") {
                "refused" => false,
                "shared" => true,
                other => return Err(self.bad("kernel_address", other, "refused or shared")),
            },
            vlan: None,
            cores: 1,
            devargs,
        })
    }
}

fn parse_mac(text: &str) -> Option<[u8; 6]> {
    let mut mac = [0; 6];
    let mut parts = text.split(':');
    for byte in &mut mac {
        let part = parts.next().filter(|p| p.len() == 2 && p.bytes().all(|b| b.is_ascii_hexdigit()))?;
        *byte = u8::from_str_radix(part, 16).ok()?;
    }
    (parts.next().is_none() && mac[0] & 1 == 0 && mac != [0; 6]).then_some(mac)
}

/// The address with its domain.
fn pci_address(text: &str) -> Option<String> {
    let full = if text.matches(':').count() == 1 { format!("0000:{text}") } else { text.to_owned() };
    let (domain, rest) = full.split_once(':')?;
    let (bus, rest) = rest.split_once(':')?;
    let (slot, function) = rest.split_once('.')?;
    let hex = |s: &str, len: usize| s.len() == len && s.bytes().all(|b| b.is_ascii_hexdigit());
    let ok = hex(domain, 4) && hex(bus, 2) && hex(slot, 2) && function.len() == 1 && function.as_bytes()[0] < b'8';
    (ok && hex(function, 1)).then(|| full.to_ascii_lowercase())
}

#[cfg(test)]
mod tests;
