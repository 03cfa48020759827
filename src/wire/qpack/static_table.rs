//! The static table (RFC 9204 §3.1, Appendix A).

/// Names and values by index.
const ENTRIES: [(&str, &str); 99] = [
    (":authority", ""),
    (":path", "/"),
    ("age", "0"),
    ("content-disposition", ""),
    ("content-length", "0"),
    ("cookie", ""),
    ("date", ""),
    ("etag", ""),
    ("if-modified-since", ""),
    ("if-none-match", ""),
    ("last-modified", ""),
    ("link", ""),
    ("location", ""),
    ("referer", ""),
    ("set-cookie", ""),
    (":method", "CONNECT"),
    (":method", "DELETE"),
    (":method", "GET"),
    (":method", "HEAD"),
    (":method", "OPTIONS"),
    (":method", "POST"),
    (":method", "PUT"),
    (":scheme", "http"),
    (":scheme", "https"),
    (":status", "103"),
    (":status", "200"),
    (":status", "304"),
    (":status", "404"),
    (":status", "503"),
    ("accept", "*/*"),
    ("accept", "application/dns-message"),
    ("accept-encoding", "gzip, deflate, br"),
    ("accept-ranges", "bytes"),
    ("access-control-allow-headers", "cache-control"),
    ("access-control-allow-headers", "content-type"),
    ("access-control-allow-origin", "*"),
    ("cache-control", "max-age=0"),
    ("cache-control", "max-age=2592000"),
    ("cache-control", "max-age=604800"),
    ("cache-control", "no-cache"),
    ("cache-control", "no-store"),
    ("cache-control", "public, max-age=31536000"),
    ("content-encoding", "br"),
    ("content-encoding", "gzip"),
    ("content-type", "application/dns-message"),
    ("content-type", "application/javascript"),
    ("content-type", "application/json"),
    ("content-type", "application/x-www-form-urlencoded"),
    ("content-type", "image/gif"),
    ("content-type", "image/jpeg"),
    ("content-type", "image/png"),
    ("content-type", "text/css"),
    ("content-type", "text/html; charset=utf-8"),
    ("content-type", "text/plain"),
    ("content-type", "text/plain;charset=utf-8"),
    ("range", "bytes=0-"),
    ("strict-transport-security", "max-age=31536000"),
    ("strict-transport-security", "max-age=31536000; includesubdomains"),
    ("strict-transport-security", "max-age=31536000; includesubdomains; preload"),
    ("vary", "accept-encoding"),
    ("vary", "origin"),
    ("x-content-type-options", "nosniff"),
    ("x-xss-protection", "1; mode=block"),
    (":status", "100"),
    (":status", "204"),
    (":status", "206"),
    (":status", "302"),
    (":status", "400"),
    (":status", "403"),
    (":status", "421"),
    (":status", "425"),
    (":status", "500"),
    ("accept-language", ""),
    ("access-control-allow-credentials", "FALSE"),
    ("access-control-allow-credentials", "TRUE"),
    ("access-control-allow-headers", "*"),
    ("access-control-allow-methods", "get"),
    ("access-control-allow-methods", "get, post, options"),
    ("access-control-allow-methods", "options"),
    ("access-control-expose-headers", "content-length"),
    ("access-control-request-headers", "content-type"),
    ("access-control-request-method", "get"),
    ("access-control-request-method", "post"),
    ("alt-svc", "clear"),
    ("authorization", ""),
    ("content-security-policy", "script-src 'none'; object-src 'none'; base-uri 'none'"),
    ("early-data", "1"),
    ("expect-ct", ""),
    ("forwarded", ""),
    ("if-range", ""),
    ("origin", ""),
    ("purpose", "prefetch"),
    ("server", ""),
    ("timing-allow-origin", "*"),
    ("upgrade-insecure-requests", "1"),
    ("user-agent", ""),
    ("x-forwarded-for", ""),
    ("x-frame-options", "deny"),
    ("x-frame-options", "sameorigin"),
];

/// Number of slots of the hash table of names.
const SLOTS: usize = 128;
/// Marks an empty slot, and the last entry with a name.
const NONE: u8 = u8::MAX;

/// An index of the names in the table.
struct Names {
    /// The first entry with the name of this hash.
    slots: [u8; SLOTS],
    /// The next entry with the same name.
    next: [u8; ENTRIES.len()],
}

/// A hash of a name. No two names of the table have the same one: the factors were found by trying.
const fn hash(name: &[u8]) -> usize {
    let len = name.len();
    if len == 0 {
        return 0;
    }
    let (first, last, inner) = (name[0] as usize, name[len - 1] as usize, name[len.saturating_sub(5)] as usize);
    (len * 61 + first * 18 + last * 44 + inner) % SLOTS
}

const fn equal(a: &[u8], b: &[u8]) -> bool {
    let mut at = 0;
    while at < a.len() && at < b.len() && a[at] == b[at] {
        at += 1;
    }
    at == a.len() && at == b.len()
}

impl Names {
    const fn new() -> Self {
        let mut this = Self { slots: [NONE; SLOTS], next: [NONE; ENTRIES.len()] };
        let mut index = ENTRIES.len();
        while index > 0 {
            index -= 1;
            let name = ENTRIES[index].0.as_bytes();
            let slot = hash(name);
            let later = this.slots[slot];
            assert!(later == NONE || equal(ENTRIES[later as usize].0.as_bytes(), name), "two names with one hash");
            this.next[index] = later;
            this.slots[slot] = index as u8;
        }
        this
    }
}

static NAMES: Names = Names::new();

/// An entry that can represent a field line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Match {
    /// The entry with this index has the name and the value.
    Line(u8),
    /// The entry with this index has the name; none has the value too.
    Name(u8),
}

/// Name and value of an entry.
pub fn get(index: u64) -> Option<(&'static [u8], &'static [u8])> {
    let (name, value) = ENTRIES.get(usize::try_from(index).ok()?)?;
    Some((name.as_bytes(), value.as_bytes()))
}

/// The entry to represent a field line with.
pub fn find(name: &[u8], value: &[u8]) -> Option<Match> {
    let first = NAMES.slots[hash(name)];
    if ENTRIES.get(usize::from(first))?.0.as_bytes() != name {
        return None;
    }
    let mut index = first;
    while let Some((_, known)) = ENTRIES.get(usize::from(index)) {
        if known.as_bytes() == value {
            return Some(Match::Line(index));
        }
        index = NAMES.next[usize::from(index)];
    }
    Some(Match::Name(first))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_is_found() {
        for (index, (name, value)) in ENTRIES.iter().enumerate() {
            let (name, value) = (name.as_bytes(), value.as_bytes());
            assert_eq!(get(index as u64), Some((name, value)));
            assert_eq!(find(name, value), Some(Match::Line(index as u8)));
            let first = ENTRIES.iter().position(|(other, _)| other.as_bytes() == name).unwrap();
            assert_eq!(find(name, b"another value"), Some(Match::Name(first as u8)));
            assert_eq!(find(&name[1..], value), None);
            assert_eq!(find(&[name, b"x"].concat(), value), None);
        }
        assert_eq!((find(b"", b""), find(b"x", b"/")), (None, None));
    }

    /// Spot checks against the RFC's table: its ends, and where a name returns.
    #[test]
    fn indices_are_those_of_the_rfc() {
        let line = |name: &str, value: &str| find(name.as_bytes(), value.as_bytes());
        assert_eq!(line(":authority", ""), Some(Match::Line(0)));
        assert_eq!(line(":method", "GET"), Some(Match::Line(17)));
        assert_eq!(line(":status", "503"), Some(Match::Line(28)));
        assert_eq!(line(":status", "100"), Some(Match::Line(63)));
        assert_eq!(line(":status", "201"), Some(Match::Name(24)));
        assert_eq!(line("x-frame-options", "sameorigin"), Some(Match::Line(98)));
        assert_eq!((get(99), get(u64::MAX)), (None, None));
    }
}
