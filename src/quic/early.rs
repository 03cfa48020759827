//! Early data, 0-RTT (RFC 9001 §4.6): what is remembered for it, what it is allowed for, and protection from replays.
//!
//! A copy of a client's first flight is as good as the original, so a server could be made to process the same 0-RTT
//! data again and again. Three things limit that (RFC 8446 §8): a ticket is good for 0-RTT once ([`Strikes`]), for as
//! long as a copy would be fresh; TLS takes a ClientHello only for fresh that arrives when it says, within a minute;
//! and an application decides for which clients, if any, 0-RTT is accepted ([`EarlyDataPolicy`]).

use std::collections::HashSet;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Mutex, OnceLock, PoisonError};

use crate::crypto::STATE_NONCE_LEN;
use crate::wire::quic::StreamId;
use crate::wire::quic::params::TransportParameters;
use crate::wire::quic::varint::{Reader, Writer};

/// A client that wants to send 0-RTT data.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct EarlyDataRequest<'a> {
    /// The client's address, which it has not proved unless it has a token.
    pub remote: SocketAddr,
    /// The server's name, if the client sent one.
    pub server_name: Option<&'a str>,
    /// The application protocol that the client prefers.
    pub alpn: &'a [u8],
    /// Number of bytes that the client may send as 0-RTT data.
    pub max_data: u64,
}

/// Decides whether the 0-RTT data of a client is accepted (RFC 9001 §5.6). Whoever sees the client's packets can send
/// them to this server once more if it has several processes with the same secret, and always to other servers that
/// share it; only requests that may be repeated are safe. All cores share a policy.
///
/// ```
/// use std::sync::Arc;
/// use gannet::quic::{EarlyDataPolicy, EarlyDataRequest};
///
/// let policy: Arc<dyn EarlyDataPolicy> = Arc::new(|request: &EarlyDataRequest<'_>| request.alpn == b"hq-interop");
/// ```
pub trait EarlyDataPolicy: Send + Sync {
    /// Whether the 0-RTT data of this client is accepted. If not, the handshake goes on without it, and the client sends
    /// the data again.
    fn accepts(&self, request: &EarlyDataRequest<'_>) -> bool;
}

impl<F: Fn(&EarlyDataRequest<'_>) -> bool + Send + Sync> EarlyDataPolicy for F {
    fn accepts(&self, request: &EarlyDataRequest<'_>) -> bool {
        self(request)
    }
}

impl fmt::Debug for dyn EarlyDataPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EarlyDataPolicy")
    }
}

/// What has become of 0-RTT on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EarlyData {
    /// On a client: streams may be opened and data may be sent before the handshake is complete. Whoever repeats the
    /// packets can make the server process this data twice.
    Possible,
    /// The server accepts 0-RTT. On the server: streams of the client may follow, and may be answered, before the
    /// handshake is complete.
    Accepted,
    /// On a client: the server has not processed any of the 0-RTT data. All of it is sent again, on the same streams. An
    /// application that wants otherwise has to reset them when it gets this event.
    Rejected,
}

/// Limits that a server sets in its transport parameters and that hold for 0-RTT data on later connections: those that
/// it must not reduce if it accepts 0-RTT (RFC 9000 §7.4.1, RFC 9221 §3, draft-ietf-quic-reliable-stream-reset-11 §3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Limits([u64; NAMES.len()]);

const NAMES: [&str; 9] = [
    "active_connection_id_limit",
    "initial_max_data",
    "initial_max_stream_data_bidi_local",
    "initial_max_stream_data_bidi_remote",
    "initial_max_stream_data_uni",
    "initial_max_streams_bidi",
    "initial_max_streams_uni",
    "max_datagram_frame_size",
    "reset_stream_at",
];

impl Limits {
    /// Maximum length when encoded, in bytes.
    pub(crate) const MAX_LEN: usize = NAMES.len() * 8;

    /// Every limit with the name of its transport parameter.
    pub(crate) fn named(&self) -> impl Iterator<Item = (&'static str, u64)> {
        NAMES.into_iter().zip(self.0)
    }

    pub(crate) fn of(params: &TransportParameters) -> Self {
        Self([
            params.active_connection_id_limit,
            params.initial_max_data,
            params.initial_max_stream_data_bidi_local,
            params.initial_max_stream_data_bidi_remote,
            params.initial_max_stream_data_uni,
            params.initial_max_streams_bidi,
            params.initial_max_streams_uni,
            params.max_datagram_frame_size,
            params.reset_stream_at.into(),
        ])
    }

    /// The first limit that is smaller in `new`.
    pub(crate) fn reduced_in(&self, new: &Self) -> Option<&'static str> {
        let mut pairs = self.0.iter().zip(&new.0).zip(NAMES);
        pairs.find(|((old, new), _)| new < old).map(|(_, name)| name)
    }

    /// Number of bytes that may be sent on all streams together.
    pub(crate) fn max_data(&self) -> u64 {
        self.0[1]
    }

    pub(crate) fn encode(&self, w: &mut Writer<'_>) {
        self.0.iter().for_each(|limit| w.varint(*limit));
    }

    pub(crate) fn decode(r: &mut Reader<'_>) -> Option<Self> {
        let mut limits = [0; NAMES.len()];
        for limit in &mut limits {
            *limit = r.varint()?;
        }
        Some(Self(limits))
    }
}

/// How long a used ticket is remembered at least, in milliseconds. A ClientHello is fresh if it arrives up to 60 s
/// before or after the time that it claims (as rustls judges it), so a copy of one that was accepted is stale after
/// 120 s.
const WINDOW_MS: u64 = 128_000;

/// Maximum number of tickets per window. When there are more, 0-RTT is refused, and handshakes go on without.
const MAX_STRIKES: usize = 1 << 16;

type Ticket = [u8; STATE_NONCE_LEN];

#[derive(Debug, Default)]
struct Used {
    young: HashSet<Ticket>,
    old: HashSet<Ticket>,
    /// When the younger set was begun.
    since: u64,
}

/// The tickets used for 0-RTT on all cores of a process (RFC 8446 §8.1, §8.2). Their number is bounded, and takes less
/// than 6 MiB.
#[derive(Debug, Default)]
pub(crate) struct Strikes {
    used: Mutex<Used>,
    /// When this process issued its first ticket.
    born: OnceLock<u64>,
}

impl Strikes {
    /// Records that tickets are issued at `time`: older ones are of a predecessor of this process.
    pub(crate) fn begin(&self, time: u64) -> u64 {
        *self.born.get_or_init(|| time)
    }

    /// Records that a ticket issued at `issued` is used at `time`. False if it may have been used before: here, or with
    /// a predecessor of this process.
    pub(crate) fn strike(&self, time: u64, issued: u64, ticket: Ticket) -> bool {
        // What a predecessor has accepted is not known, but stale after a while (RFC 8446 §8.2).
        let born = self.begin(time);
        if issued < born && time < born.saturating_add(WINDOW_MS) {
            return false;
        }
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        if time.saturating_sub(used.since) >= WINDOW_MS {
            let both = time.saturating_sub(used.since) >= 2 * WINDOW_MS;
            used.old = std::mem::take(&mut used.young);
            if both {
                used.old.clear();
            }
            used.since = time;
        }
        if used.young.len() >= MAX_STRIKES || used.old.contains(&ticket) {
            return false;
        }
        used.young.insert(ticket)
    }
}

/// Maximum number of streams whose early bytes are remembered.
const MAX_MARKED: usize = 256;

/// How much of each stream arrived as 0-RTT data.
#[derive(Debug, Default)]
pub(crate) struct Marks(Vec<(StreamId, u64)>);

impl Marks {
    /// Records that the bytes of `id` before `until` arrived. False if that is known.
    pub(crate) fn raise(&mut self, id: StreamId, until: u64) -> bool {
        match self.0.iter_mut().find(|(known, _)| *known == id) {
            Some((_, known)) => std::mem::replace(known, until.max(*known)) < until,
            None => {
                if self.0.len() < MAX_MARKED {
                    self.0.push((id, until));
                }
                until > 0
            }
        }
    }

    /// The end of the last byte of `id` that arrived as 0-RTT data, 0 if there is none.
    pub(crate) fn until(&self, id: StreamId) -> u64 {
        self.0.iter().find(|(known, _)| *known == id).map_or(0, |(_, until)| *until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng::Rng;

    #[test]
    fn limits_are_remembered_and_compared() {
        let params = TransportParameters {
            initial_max_data: 1 << 40,
            initial_max_streams_uni: 7,
            ..TransportParameters::default()
        };
        let old = Limits::of(&params);
        let mut bytes = [0; Limits::MAX_LEN];
        let mut w = Writer::new(&mut bytes);
        old.encode(&mut w);
        let len = w.finish().unwrap();
        assert_eq!(Limits::decode(&mut Reader::new(&bytes[..len])), Some(old));
        assert_eq!(Limits::decode(&mut Reader::new(&bytes[..len - 1])), None);
        assert_eq!((old.reduced_in(&old), old.max_data()), (None, 1 << 40));
        for (n, name) in NAMES.into_iter().enumerate() {
            let (mut more, mut less) = (old, old);
            more.0[n] += 1;
            assert_eq!(old.reduced_in(&more), None);
            assert_eq!(more.reduced_in(&old), Some(name));
            less.0[n] = 0;
            assert_eq!(old.reduced_in(&less).is_some(), old.0[n] > 0);
        }
    }

    #[test]
    fn a_ticket_is_good_for_one_use() {
        let strikes = Strikes::default();
        let ticket = |n: u8| [n; STATE_NONCE_LEN];
        strikes.begin(5);
        assert!(strikes.strike(1000, 5, ticket(1)) && strikes.strike(1000, 5, ticket(2)));
        // For as long as a copy could be fresh.
        for time in [1000, 1000 + WINDOW_MS / 2, 999 + WINDOW_MS] {
            assert!(!strikes.strike(time, 5, ticket(1)), "at {time}");
        }
        // Whatever a predecessor has accepted is stale by then.
        let strikes = Strikes::default();
        let born = 1 << 30;
        assert!(!strikes.strike(born, born - 1, ticket(1)), "the first that it hears of");
        assert!(!strikes.strike(born + WINDOW_MS - 1, born - 1, ticket(1)));
        assert!(strikes.strike(born + 1, born, ticket(2)), "of this process");
        assert!(strikes.strike(born + WINDOW_MS, born - 1, ticket(3)));
    }

    #[test]
    fn used_tickets_take_bounded_memory() {
        let strikes = Strikes::default();
        let mut rng = Rng::from_u64(3);
        let mut random = || {
            let mut ticket = [0; STATE_NONCE_LEN];
            rng.fill(&mut ticket);
            ticket
        };
        let first = random();
        assert!(strikes.strike(0, 0, first));
        let accepted = (0..2 * MAX_STRIKES).filter(|_| strikes.strike(1, 0, random())).count();
        assert_eq!(accepted, MAX_STRIKES - 1, "the rest is refused");
        assert!(!strikes.strike(WINDOW_MS, 0, first), "it is not forgotten for that");
        assert!(strikes.strike(WINDOW_MS, 0, random()));
        let used = strikes.used.lock().unwrap();
        assert!(used.old.len() + used.young.len() <= 2 * MAX_STRIKES);
    }

    #[test]
    fn early_bytes_are_marked_once() {
        let mut marks = Marks::default();
        let id = |n: u64| StreamId(4 * n);
        assert_eq!([0, 10, 10, 9, 30].map(|until| marks.raise(id(0), until)), [false, true, false, false, true]);
        assert_eq!((marks.until(id(0)), marks.until(id(1))), (30, 0));
        // More streams than are remembered are reported all the same.
        assert!((1..1000).all(|n| marks.raise(id(n), n)));
        assert_eq!((marks.0.len(), marks.until(id(255)), marks.until(id(256))), (MAX_MARKED, 255, 0));
    }
}
