//! Values of command-line options: addresses, routes, sizes, times, rates. No I/O.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;
use std::time::Duration;

use gannet::net;
use gannet::quic::{Version, Versions};

/// An invalid value. The message says why and gives a valid example.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadValue(pub(super) String);

/// Shorthand for `Err(BadValue)`.
pub(super) fn bad<T>(why: impl Into<String>) -> Result<T, BadValue> {
    Err(BadValue(why.into()))
}

/// An IP address and the length of its network prefix in bits. Host bits are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    /// The address.
    pub addr: IpAddr,
    /// 0..=32 for IPv4, 0..=128 for IPv6.
    pub prefix: u8,
}

impl Cidr {
    /// The network, with all host bits zero.
    pub fn network(self) -> Self {
        let addr = match self.addr {
            IpAddr::V4(a) => {
                IpAddr::V4(Ipv4Addr::from_bits(a.to_bits() & !u32::MAX.checked_shr(self.prefix.into()).unwrap_or(0)))
            }
            IpAddr::V6(a) => {
                IpAddr::V6(Ipv6Addr::from_bits(a.to_bits() & !u128::MAX.checked_shr(self.prefix.into()).unwrap_or(0)))
            }
        };
        Self { addr, prefix: self.prefix }
    }

    /// Returns whether `ip` is in this network.
    pub fn contains(self, ip: IpAddr) -> bool {
        ip.is_ipv4() == self.addr.is_ipv4() && Self { addr: ip, ..self }.network() == self.network()
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.addr, self.prefix)
    }
}

impl FromStr for Cidr {
    type Err = BadValue;

    fn from_str(s: &str) -> Result<Self, BadValue> {
        let Some((addr, prefix)) = s.split_once('/') else {
            return match ip(s) {
                Ok(a) => bad(format!("the prefix length is missing: write {a}/{}", if a.is_ipv4() { 24 } else { 64 })),
                Err(e) => Err(e),
            };
        };
        let addr = ip(addr)?;
        let max = if addr.is_ipv4() { 32 } else { 128 };
        match prefix.parse() {
            Ok(prefix) if prefix <= max => Ok(Self { addr, prefix }),
            _ => bad(format!("prefix length '{prefix}' is not a number from 0 to {max}")),
        }
    }
}

/// An IP address of either family.
pub fn ip(s: &str) -> Result<IpAddr, BadValue> {
    s.parse().or_else(|_| bad(format!("'{s}' is not an IP address such as 10.77.0.1 or fd00::1")))
}

/// Returns whether `ip` can be the address of a single host.
pub fn is_unicast(ip: IpAddr) -> bool {
    !ip.is_unspecified() && !ip.is_multicast() && ip != IpAddr::V4(Ipv4Addr::BROADCAST)
}

/// A parser of whole numbers from `min` to `max`.
pub fn number<T: TryFrom<u64>>(min: u64, max: u64) -> impl Fn(&str) -> Result<T, BadValue> + Clone + Send + Sync {
    move |s| {
        let number = s.parse().ok().filter(|n| (min..=max).contains(n)).and_then(|n: u64| T::try_from(n).ok());
        number.ok_or_else(|| {
            let unbounded = max == u64::from(u32::MAX) || max == u64::MAX;
            let most = if unbounded { String::new() } else { format!(" to {max}") };
            BadValue(format!("expected a whole number from {min}{most}{}", if unbounded { " up" } else { "" }))
        })
    }
}

/// An address for the port itself: a [`Cidr`] that a host can have.
pub fn host_cidr(s: &str) -> Result<Cidr, BadValue> {
    let cidr: Cidr = s.parse()?;
    if cidr.addr.is_loopback() {
        return bad(format!("{} never leaves a machine: give the port an address in its network", cidr.addr));
    }
    if !is_unicast(cidr.addr) {
        return bad(format!("{} cannot be the address of a host", cidr.addr));
    }
    match net::Cidr::new(cidr.addr, cidr.prefix).ok().and_then(|cidr| cidr.edges()) {
        Some([network, _]) if network == cidr.addr => {
            bad(format!("{cidr} names the network itself: give the host's own address in it"))
        }
        Some([_, all]) if all == cidr.addr => {
            bad(format!("{cidr} is the broadcast address of its network: give the host's own address in it"))
        }
        _ => Ok(cidr),
    }
}

/// A destination network and its next hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// The destination. Host bits are zero.
    pub to: Cidr,
    /// The next hop, of the same family; `None` if the network is on the link.
    pub via: Option<IpAddr>,
}

impl FromStr for Route {
    type Err = BadValue;

    fn from_str(s: &str) -> Result<Self, BadValue> {
        let Some((to, via)) = s.split_once('=') else {
            return bad("expected NETWORK/LEN=NEXTHOP, for example 10.0.0.0/8=10.77.0.254, or NETWORK/LEN=link");
        };
        let to: Cidr = to.parse()?;
        let via = if via == "link" { None } else { Some(ip(via)?) };
        if to.network() != to {
            return bad(format!("{to} has host bits set: did you mean {}?", to.network()));
        }
        if let Some(via) = via.filter(|via| via.is_ipv4() != to.addr.is_ipv4()) {
            return bad(format!("{to} and its next hop {via} are of different IP versions"));
        }
        Ok(Self { to, via })
    }
}

/// `KEY=VALUE`, for `--set`.
pub fn key_value(s: &str) -> Result<(String, String), BadValue> {
    let Some((key, value)) = s.split_once('=') else {
        return bad("expected KEY=VALUE, for example mtu=9000");
    };
    let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    if key.is_empty() || !key.chars().all(fine) {
        return bad(format!("'{key}' is not a key: letters, digits, '_', '-' and '.' only"));
    }
    Ok((key.into(), value.into()))
}

/// A number of bytes: `1200`, `64K`, `1M`, `2GiB`. The suffixes are powers of 1024.
pub fn bytes(s: &str) -> Result<u64, BadValue> {
    let digits = s.len() - s.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = s.split_at(digits);
    let shift = match unit.to_ascii_uppercase().as_str() {
        "" | "B" => 0,
        "K" | "KB" | "KIB" => 10,
        "M" | "MB" | "MIB" => 20,
        "G" | "GB" | "GIB" => 30,
        "T" | "TB" | "TIB" => 40,
        _ => return bad("expected a whole number of bytes, with K, M, G or T for powers of 1024, for example 64K"),
    };
    match number.parse::<u64>() {
        Ok(n) => n.checked_mul(1 << shift).ok_or_else(|| BadValue(format!("{s} bytes are more than 2^64"))),
        Err(_) if number.is_empty() => bad("the number is missing: write for example 64K"),
        Err(_) => bad(format!("{s} bytes are more than 2^64")),
    }
}

/// The least memory that a core works with, in bytes.
pub const LEAST_MEMORY: u64 = 32 << 20;

/// An amount of memory in bytes, at least [`LEAST_MEMORY`].
pub fn memory(s: &str) -> Result<u64, BadValue> {
    match bytes(s)? {
        few @ ..LEAST_MEMORY => bad(format!("{few} bytes are too few: give at least {}M", LEAST_MEMORY >> 20)),
        bytes => Ok(bytes),
    }
}

/// A span of time in seconds (`10`, `0.5`, `10s`), milliseconds (`250ms`) or minutes (`2m`), not zero.
pub fn duration(s: &str) -> Result<Duration, BadValue> {
    let digits = s.len() - s.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.').len();
    let (number, unit) = s.split_at(digits);
    let scale = match unit {
        "" | "s" => 1.0,
        "ms" => 1e-3,
        "m" => 60.0,
        _ if number.is_empty() => f64::NAN,
        _ => return bad(format!("'{unit}' is not a unit of time: use s, ms or m, for example 10s")),
    };
    match number.parse::<f64>().map(|n| Duration::try_from_secs_f64(n * scale)) {
        Ok(Ok(d)) if d > Duration::ZERO => Ok(d),
        _ => bad("expected a time above zero, for example 10s, 0.5 or 250ms"),
    }
}

/// A version of QUIC: `v1` or `v2`.
pub fn version(s: &str) -> Result<Version, BadValue> {
    s.parse().or_else(|_| bad(format!("'{s}' is not a version of QUIC that is spoken here: write v1 or v2")))
}

/// Versions of QUIC, in order of preference: `v2,v1`.
pub fn versions(s: &str) -> Result<Versions, BadValue> {
    let list: Vec<_> = s.split(',').map(version).collect::<Result<_, _>>()?;
    Versions::new(&list).map_or_else(|| bad("each version may be named once"), Ok)
}

/// Requests per second: a number above zero, with `k` for thousands and `M` for millions.
pub fn rate(s: &str) -> Result<f64, BadValue> {
    let (number, scale) = match s.strip_suffix(['k', 'K']) {
        Some(n) => (n, 1e3),
        None => s.strip_suffix('M').map_or((s, 1.0), |n| (n, 1e6)),
    };
    match number.parse::<f64>().map(|n| n * scale) {
        // Times have nanosecond resolution.
        Ok(r) if r > 0.0 && r <= 1e9 => Ok(r),
        _ => bad("expected requests per second above zero and up to 1000M, for example 5000 or 20k"),
    }
}

/// A rate and a size of datagrams, as in `10k/100`: 10,000 datagrams of 100 bytes per second.
pub fn datagrams(s: &str) -> Result<(f64, usize), BadValue> {
    let parsed = s.split_once('/').and_then(|(n, len)| Some((rate(n).ok()?, len.parse::<usize>().ok()?)));
    match parsed {
        Some((rate, len)) if (16..=65_527).contains(&len) => Ok((rate, len)),
        _ => bad("expected datagrams per second and their size in bytes, from 16 on, for example 10k/100"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn why<T: fmt::Debug>(r: Result<T, BadValue>) -> String {
        r.expect_err("must be refused").to_string()
    }

    #[test]
    fn datagrams_have_a_rate_and_a_size() {
        assert_eq!(datagrams("10k/100").unwrap(), (10_000.0, 100));
        assert_eq!(datagrams("0.5/16").unwrap(), (0.5, 16));
        for wrong in ["10k", "/100", "10k/", "0/100", "10k/15", "10k/70000", "10k/1K"] {
            assert!(why(datagrams(wrong)).starts_with("expected datagrams per second"), "{wrong}");
        }
    }

    #[test]
    fn networks_hold_their_addresses() {
        let net: Cidr = "10.77.3.1/22".parse().unwrap();
        assert_eq!(net.to_string(), "10.77.3.1/22");
        assert_eq!(net.network().to_string(), "10.77.0.0/22");
        assert!(net.contains("10.77.0.255".parse().unwrap()) && !net.contains("10.77.4.0".parse().unwrap()));
        assert!(!net.contains("fd00::1".parse().unwrap()));
        let all: Cidr = "1.2.3.4/0".parse().unwrap();
        assert_eq!(all.network().to_string(), "0.0.0.0/0");
        assert!(all.contains("255.1.1.1".parse().unwrap()));
        let one: Cidr = "fd00::1/128".parse().unwrap();
        assert_eq!(one.network(), one);
        assert!("fd00::1/0".parse::<Cidr>().unwrap().contains("::1".parse().unwrap()));
    }

    #[test]
    fn bad_networks_say_what_to_write() {
        assert!(why("10.0.0.1".parse::<Cidr>()).contains("write 10.0.0.1/24"));
        assert!(why("fd00::1".parse::<Cidr>()).contains("write fd00::1/64"));
        assert!(why("10.0.0.1/33".parse::<Cidr>()).contains("0 to 32"));
        assert!(why("fd00::1/129".parse::<Cidr>()).contains("0 to 128"));
        assert!(why("10.0.0/8".parse::<Cidr>()).contains("'10.0.0'"));
        assert!(why(host_cidr("10.77.0.0/24")).contains("names the network"));
        assert!(why(host_cidr("224.0.0.1/4")).contains("224.0.0.1"));
        // Such addresses used to be accepted, and nobody ever answered them.
        for own in ["10.77.0.255/24", "10.77.3.255/22", "10.77.0.3/30"] {
            assert!(why(host_cidr(own)).contains("broadcast address of its network"), "{own}");
        }
        assert!(host_cidr("10.77.0.255/22").is_ok() && host_cidr("10.77.0.1/31").is_ok());
        assert!(host_cidr("10.77.0.255/32").is_ok() && host_cidr("fd00::ffff:ffff:ffff:ffff/64").is_ok());
        assert!(why(host_cidr("127.0.0.1/8")).contains("never leaves") && host_cidr("::1/128").is_err());
        assert!(host_cidr("10.77.0.0/31").is_ok() && host_cidr("fd00::/64").is_ok());
    }

    #[test]
    fn routes_have_a_network_and_a_next_hop() {
        let r: Route = "0.0.0.0/0=10.77.0.254".parse().unwrap();
        assert_eq!((r.to.prefix, r.via), (0, Some("10.77.0.254".parse().unwrap())));
        assert_eq!("172.31.1.1/32=link".parse::<Route>().unwrap().via, None);
        assert!(why("10.0.0.1/8=10.77.0.254".parse::<Route>()).contains("did you mean 10.0.0.0/8"));
        assert!(why("fd00::/8=10.77.0.254".parse::<Route>()).contains("IP versions"));
        assert!(why("10.0.0.0/8".parse::<Route>()).contains("NEXTHOP"));
    }

    #[test]
    fn sizes_times_and_rates() {
        for (s, n) in [("0", 0), ("1200", 1200), ("64K", 64 << 10), ("1m", 1 << 20), ("2GiB", 2 << 30), ("7B", 7)] {
            assert_eq!(bytes(s), Ok(n), "{s}");
        }
        for s in ["", "K", "-1", "1.5G", "1X", "18446744073709551616", "17179869184G"] {
            assert!(bytes(s).is_err(), "{s}");
        }
        assert_eq!(duration("10"), Ok(Duration::from_secs(10)));
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        assert!(why(duration("-1s")).contains("expected a time above zero"));
        for s in ["", "0", "-1", "1h", ".", "1..2", "99999999999999999999999"] {
            assert!(duration(s).is_err(), "{s}");
        }
        assert_eq!(rate("20k"), Ok(20_000.0));
        assert_eq!(rate("0.5"), Ok(0.5));
        assert_eq!(rate("2M"), Ok(2e6));
        assert_eq!(rate("1000M"), Ok(1e9));
        for s in ["", "0", "-5", "inf", "nan", "k", "1001M", "1e300"] {
            assert!(rate(s).is_err(), "{s}");
        }
    }

    #[test]
    fn versions_are_listed_once_each() {
        let text = |s: &str| versions(s).map(|list| list.to_string());
        assert_eq!(["v1", "2", "v2,v1", "1,v2"].map(text), ["v1", "v2", "v2,v1", "v1,v2"].map(|s| Ok(s.to_owned())));
        assert!(why(versions("v2,v2")).contains("once") && why(versions("v3")).contains("'v3'"));
        assert!(why(versions("")).contains("v1 or v2") && why(versions("v1,")).contains("v1 or v2"));
    }

    #[test]
    fn numbers_have_their_range_in_the_message() {
        let vlan = number::<u16>(1, 4094);
        assert_eq!((vlan("1"), vlan("4094")), (Ok(1), Ok(4094)));
        for s in ["0", "4095", "-1", "x", "", "1.5", "99999999999999999999999"] {
            assert_eq!(why(vlan(s)), "expected a whole number from 1 to 4094", "{s}");
        }
        assert_eq!(why(number::<u32>(1, u32::MAX.into())("0")), "expected a whole number from 1 up");
        assert_eq!(number::<u8>(0, 1000)("256"), Err(BadValue("expected a whole number from 0 to 1000".into())));
    }

    #[test]
    fn settings_are_key_and_value() {
        assert_eq!(key_value("socket=/tmp/a=b"), Ok(("socket".into(), "/tmp/a=b".into())));
        assert_eq!(key_value("devargs.x="), Ok(("devargs.x".into(), String::new())));
        assert!(why(key_value("mtu")).contains("KEY=VALUE"));
        assert!(why(key_value("a b=1")).contains("'a b'"));
        assert!(key_value("=1").is_err());
    }
}
