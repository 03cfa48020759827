//! Tokens that a client keeps for later connections (RFC 9000 §8.1.3).

use std::collections::VecDeque;
use std::fmt;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use crate::wire::quic::Version;

/// What a token is valid for. A token must only be used with all of it unchanged: servers recognise their client by it,
/// and others who see it in two places could, too (RFC 9000 §9.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenScope<'a> {
    /// The server's name, as in its certificate.
    pub server_name: &'a str,
    /// The client's address.
    pub local: IpAddr,
    /// The QUIC version (RFC 9369 §5).
    pub version: Version,
}

/// Where a client keeps the tokens that servers give it in NEW_TOKEN frames. A store is shared by all connections with
/// the same [`ClientConfig`](crate::quic::ClientConfig), on all cores, so its methods should not wait for anything.
pub trait TokenStore: Send + Sync {
    /// Keeps `token`, or not. A server may repeat a token, and may send as many as it likes.
    fn insert(&self, scope: TokenScope<'_>, token: &[u8]);

    /// Removes and returns a token, the latest first. A token must not be returned twice (RFC 9000 §8.1.3).
    fn take(&self, scope: TokenScope<'_>) -> Option<Vec<u8>>;
}

impl fmt::Debug for dyn TokenStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenStore")
    }
}

/// Maximum length of a token that is kept, in bytes. The servers known to us send less than 200.
const MAX_LEN: usize = 512;

/// Tokens kept for one server.
const MAX_EACH: usize = 4;

#[derive(Debug)]
struct Entry {
    server_name: Box<str>,
    local: IpAddr,
    version: Version,
    /// The latest last.
    tokens: Vec<Box<[u8]>>,
}

impl Entry {
    fn is_of(&self, scope: &TokenScope<'_>) -> bool {
        *self.server_name == *scope.server_name && self.local == scope.local && self.version == scope.version
    }
}

/// A [`TokenStore`] in memory: the latest four tokens, of up to 512 bytes, for each of the servers used last.
#[derive(Debug)]
pub struct MemoryTokens {
    /// The server used last comes last.
    entries: Mutex<VecDeque<Entry>>,
    max_servers: usize,
}

impl MemoryTokens {
    /// A store for up to `max_servers` servers.
    pub fn new(max_servers: usize) -> Self {
        Self { entries: Mutex::default(), max_servers: max_servers.max(1) }
    }

    /// Number of tokens.
    pub fn len(&self) -> usize {
        self.entries().iter().map(|entry| entry.tokens.len()).sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All tokens with their scope, to be kept elsewhere. They remain in the store.
    pub fn for_each(&self, mut each: impl FnMut(TokenScope<'_>, &[u8])) {
        for entry in self.entries().iter() {
            let scope = TokenScope { server_name: &entry.server_name, local: entry.local, version: entry.version };
            entry.tokens.iter().for_each(|token| each(scope, token));
        }
    }

    fn entries(&self) -> std::sync::MutexGuard<'_, VecDeque<Entry>> {
        // Every change is complete before the lock is released.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for MemoryTokens {
    /// A store for 256 servers.
    fn default() -> Self {
        Self::new(256)
    }
}

impl TokenStore for MemoryTokens {
    fn insert(&self, scope: TokenScope<'_>, token: &[u8]) {
        if token.is_empty() || token.len() > MAX_LEN {
            return;
        }
        let mut entries = self.entries();
        let at = entries.iter().position(|entry| entry.is_of(&scope));
        let mut entry = at.and_then(|at| entries.remove(at)).unwrap_or_else(|| Entry {
            server_name: scope.server_name.into(),
            local: scope.local,
            version: scope.version,
            tokens: Vec::new(),
        });
        if entry.tokens.iter().all(|known| **known != *token) {
            if entry.tokens.len() == MAX_EACH {
                entry.tokens.remove(0);
            }
            entry.tokens.push(token.into());
        }
        if entries.len() == self.max_servers {
            entries.pop_front();
        }
        entries.push_back(entry);
    }

    fn take(&self, scope: TokenScope<'_>) -> Option<Vec<u8>> {
        let mut entries = self.entries();
        let at = entries.iter().position(|entry| entry.is_of(&scope))?;
        let token = entries[at].tokens.pop();
        if entries[at].tokens.is_empty() {
            entries.remove(at);
        }
        token.map(Into::into)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope(server_name: &str) -> TokenScope<'_> {
        TokenScope { server_name, local: IpAddr::from([192, 0, 2, 1]), version: Version::V1 }
    }

    #[test]
    fn each_token_is_given_once_and_only_for_what_it_is_valid_for() {
        let store = MemoryTokens::default();
        for token in [b"one", b"two", b"two"] {
            store.insert(scope("a"), token);
        }
        let elsewhere = TokenScope { local: IpAddr::from([192, 0, 2, 2]), ..scope("a") };
        for other in [scope("b"), elsewhere, TokenScope { version: Version::V2, ..scope("a") }] {
            assert_eq!(store.take(other), None);
        }
        assert_eq!([(); 3].map(|()| store.take(scope("a"))), [Some(b"two".into()), Some(b"one".into()), None]);
        assert!(store.is_empty());
    }

    #[test]
    fn servers_cannot_fill_memory() {
        let store = MemoryTokens::new(3);
        for n in 0..100u8 {
            for server in ["a", "b", "c", "d"] {
                store.insert(scope(server), &[n; MAX_LEN]);
                store.insert(scope(server), &[n; MAX_LEN + 1]);
                store.insert(scope(server), &[]);
            }
        }
        let mut kept = Vec::new();
        store.for_each(|scope, token| kept.push((scope.server_name.to_owned(), token[0])));
        let latest = |server: &str| (96..100).map(|n| (server.to_owned(), n)).collect::<Vec<_>>();
        assert_eq!(kept.len(), store.len());
        // "a" has made room for "d" each time, and "b" for "a".
        assert_eq!(kept[kept.len() - 1].1, 99);
        assert!(store.len() <= 12 && kept.ends_with(&latest("d")[3..]), "{kept:?}");
    }
}
