//! Targets: `HOST:PORT` and `https://` URLs. No I/O and no name lookup.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use super::values::{BadValue, bad};

/// The UDP port of URLs that name none.
const HTTPS_PORT: u16 = 443;

/// A host, by name or address, and a UDP port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    /// The name or address; IPv6 without brackets.
    pub host: String,
    /// UDP port, not zero.
    pub port: u16,
}

impl HostPort {
    /// The host's address, if it is not a name.
    pub fn ip(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }

    /// Parses `HOST[:PORT]` and `[IPV6][:PORT]`.
    fn parse(s: &str, default_port: Option<u16>) -> Result<Self, BadValue> {
        let (host, rest) = match s.strip_prefix('[') {
            Some(inner) => match inner.split_once(']') {
                Some((v6, rest)) if v6.parse::<Ipv6Addr>().is_ok() => (v6, rest),
                _ => return bad(format!("'{s}' is not an IPv6 address in brackets, as in [fd00::1]:4433")),
            },
            None if s.parse::<Ipv6Addr>().is_ok() => {
                return bad(format!("write an IPv6 address in brackets: [{s}]"));
            }
            None => s.split_at(s.find(':').unwrap_or(s.len())),
        };
        if host.parse::<IpAddr>().is_err() {
            check_name(host)?;
        }
        let port = match (rest.strip_prefix(':'), default_port) {
            (Some(port), _) => udp_port(port)?,
            (None, _) if !rest.is_empty() => return bad(format!("'{rest}' after the address is not a port")),
            (None, Some(port)) => port,
            (None, None) => return bad(format!("the port is missing: write {s}:4433")),
        };
        Ok(Self { host: host.into(), port })
    }
}

impl FromStr for HostPort {
    type Err = BadValue;

    fn from_str(s: &str) -> Result<Self, BadValue> {
        Self::parse(s, None)
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// A UDP port from 1 to 65535.
fn udp_port(s: &str) -> Result<u16, BadValue> {
    match s.parse() {
        Ok(port) if port > 0 => Ok(port),
        _ => bad(format!("'{s}' is not a UDP port from 1 to 65535")),
    }
}

/// Rejects hosts that cannot be DNS names.
fn check_name(host: &str) -> Result<(), BadValue> {
    let label = |l: &str| {
        (1..=63).contains(&l.len()) && l.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
    };
    // A last label of digits only is a mistyped IPv4 address.
    let last = host.rsplit('.').next().unwrap_or_default();
    if host.len() > 253 || !host.split('.').all(label) || last.bytes().all(|b| b.is_ascii_digit()) {
        return bad(format!("'{host}' is neither a host name nor an IP address"));
    }
    Ok(())
}

/// A host name, for `--server-name`.
pub fn host_name(s: &str) -> Result<String, BadValue> {
    if s.parse::<IpAddr>().is_err() {
        check_name(s)?;
    }
    Ok(s.into())
}

/// An `https://HOST[:PORT]/PATH` URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    /// The server. The port defaults to 443.
    pub authority: HostPort,
    /// The resource: starts with '/', includes the query if there is one, stays percent-encoded.
    pub path: String,
}

impl Url {
    /// A name for the fetched file: the last segment of the path, never one that leaves its directory.
    pub fn file_name(&self) -> &str {
        let path = self.path.split('?').next().unwrap_or_default();
        match path.rsplit('/').next() {
            None | Some("" | "." | "..") => "index.html",
            Some(name) => name,
        }
    }
}

impl FromStr for Url {
    type Err = BadValue;

    fn from_str(s: &str) -> Result<Self, BadValue> {
        // Schemes are case-insensitive (RFC 3986 §3.1).
        const SCHEME: &str = "https://";
        let (Some(scheme), Some(rest)) = (s.get(..SCHEME.len()), s.get(SCHEME.len()..)) else {
            return bad("expected an https:// URL, for example https://10.77.0.1:4433/file");
        };
        if !scheme.eq_ignore_ascii_case(SCHEME) {
            return bad("expected an https:// URL, for example https://10.77.0.1:4433/file");
        }
        // Fragments are never sent (RFC 3986 §3.5).
        let rest = rest.split('#').next().unwrap_or_default();
        let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        if authority.contains('@') {
            return bad("a user name in a URL is not supported");
        }
        if let Some(c) = path.chars().find(|c| !c.is_ascii_graphic()) {
            return bad(format!("the path contains the character {c:?}: percent-encode it"));
        }
        let path = if path.starts_with('/') { path.into() } else { format!("/{path}") };
        Ok(Self { authority: HostPort::parse(authority, Some(HTTPS_PORT))?, path })
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "https://{}{}", self.authority, self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_ports() {
        let t: HostPort = "10.77.0.1:4433".parse().unwrap();
        assert_eq!((t.ip(), t.port), (Some("10.77.0.1".parse().unwrap()), 4433));
        let t: HostPort = "[fd00::1]:4433".parse().unwrap();
        assert_eq!((t.host.as_str(), t.to_string().as_str()), ("fd00::1", "[fd00::1]:4433"));
        let t: HostPort = "gannet.example:1".parse().unwrap();
        assert_eq!((t.ip(), t.host.as_str()), (None, "gannet.example"));
        for (s, say) in [
            ("10.77.0.1", "write 10.77.0.1:4433"),
            ("fd00::1", "[fd00::1]"),
            ("[fd00::1:4433", "in brackets"),
            ("[fd00::1]4433", "not a port"),
            ("10.77.0.1:0", "'0'"),
            ("10.77.0.1:65536", "65535"),
            ("10.77.0.256:1", "neither"),
            (":4433", "neither"),
            ("a..b:1", "neither"),
        ] {
            let e = s.parse::<HostPort>().expect_err(s).to_string();
            assert!(e.contains(say), "{s}: {e}");
        }
    }

    #[test]
    fn urls() {
        let u: Url = "https://10.77.0.1:4433/dir/a%20b?x=1#top".parse().unwrap();
        assert_eq!((u.authority.port, u.path.as_str(), u.file_name()), (4433, "/dir/a%20b?x=1", "a%20b"));
        assert_eq!(u.to_string(), "https://10.77.0.1:4433/dir/a%20b?x=1");
        let u: Url = "https://[::1]".parse().unwrap();
        assert_eq!((u.authority.port, u.path.as_str(), u.file_name()), (443, "/", "index.html"));
        assert_eq!("https://h?q".parse::<Url>().unwrap().path, "/?q");
        assert_eq!("HTTPS://h/A".parse::<Url>().unwrap().to_string(), "https://h:443/A");
        assert_eq!("https://h/a/..".parse::<Url>().unwrap().file_name(), "index.html");
        for s in ["http://h/", "h/file", "https://", "https://u@h/", "https://h/a b", "https://h/\r\n", "https://h/é"]
        {
            assert!(s.parse::<Url>().is_err(), "{s:?}");
        }
    }

    #[test]
    fn server_names() {
        assert!(host_name("localhost").is_ok() && host_name("10.0.0.1").is_ok());
        assert!(host_name("").is_err() && host_name("a b").is_err());
    }
}
