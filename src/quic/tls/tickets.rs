//! Session tickets of servers (RFC 8446 §4.6.1): sealed sessions, so that all cores and later processes with the same
//! secret can resume them, and nothing is stored.
//!
//! ```text
//! kind 1 | period 4 | nonce 12 | sealed: { time 8, limits, session of rustls } | tag 16
//! ```
//!
//! rustls itself accepts early data only for sessions in a store, as it could not limit replays otherwise; we limit
//! them ([`crate::quic::early`]). So its store is a [`Desk`]: sessions that it puts there are sealed and replace the
//! ticket in the message that TLS makes next, and sessions that it will look for are put there before it reads a
//! ClientHello. The contents of a ticket are in no way part of the handshake: TLS only compares it as a name.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustls::server::StoresServerSessions;
use zeroize::Zeroizing;

use crate::base::time::{Duration, Instant};
use crate::crypto::{STATE_NONCE_LEN, TAG_LEN, traceless};
use crate::quic::early::Limits;
use crate::quic::token::{AHEAD, PeriodKeys, shared_time};
use crate::wire::quic::Version;
use crate::wire::quic::varint::{Reader, Writer};

/// First byte of a ticket.
const KIND: u8 = 3;

/// Length of kind, period and nonce.
const HEAD_LEN: usize = 1 + 4 + STATE_NONCE_LEN;

/// Maximum length of a session. One with a long chain of client certificates gets no ticket, which the client would
/// have to send in its first packets.
const MAX_SESSION: usize = 4096;

/// Maximum number of sessions on the desk.
const MAX_ON_DESK: usize = 16;

/// Type of a NewSessionTicket message.
const NEW_SESSION_TICKET: u8 = 4;

/// A session under the name by which rustls knows it.
type Named = (Vec<u8>, Zeroizing<Vec<u8>>);

/// What rustls takes for a store of sessions.
#[derive(Default)]
struct Desk {
    /// Sessions that a ClientHello offers.
    offered: Mutex<Vec<Named>>,
    /// Sessions for which tickets are being made.
    issued: Mutex<Vec<Named>>,
}

impl std::fmt::Debug for Desk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Desk")
    }
}

fn lock(list: &Mutex<Vec<Named>>) -> MutexGuard<'_, Vec<Named>> {
    list.lock().unwrap_or_else(PoisonError::into_inner)
}

impl StoresServerSessions for Desk {
    fn put(&self, name: Vec<u8>, session: Vec<u8>) -> bool {
        let mut issued = lock(&self.issued);
        let fits = issued.len() < MAX_ON_DESK;
        if fits {
            issued.push((name, Zeroizing::new(session)));
        }
        fits
    }

    fn get(&self, _: &[u8]) -> Option<Vec<u8>> {
        None
    }

    fn take(&self, name: &[u8]) -> Option<Vec<u8>> {
        let mut offered = lock(&self.offered);
        let at = offered.iter().position(|(known, _)| known == name)?;
        Some(std::mem::take(&mut *offered.swap_remove(at).1))
    }

    fn can_cache(&self) -> bool {
        true
    }
}

/// Tickets that a server gives to its clients, with which they resume their sessions (RFC 8446 §2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionTickets {
    /// Number of tickets for each connection. Clients use each once, so those with several connections need several. 0:
    /// sessions are not resumed.
    pub count: usize,
    /// How long a ticket is valid, at most seven days (RFC 8446 §4.6.1).
    pub lifetime: Duration,
}

impl SessionTickets {
    /// Maximum lifetime.
    pub const MAX_LIFETIME: Duration = Duration::from_secs(7 * 24 * 3600);
}

impl Default for SessionTickets {
    /// Two tickets for each connection, valid for a day.
    fn default() -> Self {
        Self { count: 2, lifetime: Duration::from_secs(24 * 3600) }
    }
}

/// Whether a server asks clients for certificates. rustls has no function for that, but its configurations can be
/// printed, and the verifier of those that don't ask prints its name.
fn asks_clients(tls: &rustls::ServerConfig) -> bool {
    !format!("{tls:?}").contains("verifier: NoClientAuth")
}

/// The contents of a ticket.
pub(crate) struct Opened {
    /// Its identity.
    pub(crate) nonce: [u8; STATE_NONCE_LEN],
    /// When it was issued, in milliseconds since the shared origin.
    pub(crate) issued: u64,
    /// What the client may send as 0-RTT.
    pub(crate) limits: Limits,
}

/// Makes and reads the tickets of one core.
pub(crate) struct Tickets {
    keys: PeriodKeys,
    lifetime_ms: u64,
    base: Duration,
    desk: Arc<Desk>,
    tls: Arc<rustls::ServerConfig>,
    count: usize,
    early: bool,
    /// Whether tickets are issued and accepted.
    open: bool,
}

impl std::fmt::Debug for Tickets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tickets")
    }
}

impl Tickets {
    /// `base` is the shared time at [`Instant::ZERO`]. `early` allows early data.
    pub(crate) fn new(
        key: &[u8; 32],
        base: Duration,
        settings: SessionTickets,
        early: bool,
        tls: &Arc<rustls::ServerConfig>,
    ) -> Self {
        let mut this = Self {
            keys: PeriodKeys::new(key, b"gannet session ticket"),
            lifetime_ms: settings.lifetime.as_millis() as u64,
            base,
            desk: Arc::default(),
            tls: tls.clone(),
            count: settings.count,
            early,
            open: true,
        };
        this.set_tls(tls);
        this
    }

    /// The TLS settings with which sessions can be resumed. A configuration with tickets of its own is used as it is.
    ///
    /// Clients that have to prove who they are do so on each connection: in a resumed session, TLS would take the word of
    /// the ticket, whatever has been revoked since, or was not even asked when the ticket was made.
    pub(crate) fn set_tls(&mut self, tls: &Arc<rustls::ServerConfig>) {
        self.tls = tls.clone();
        if !tls.ticketer.enabled() {
            let mut config = (**tls).clone();
            self.open = !asks_clients(tls);
            let count = if self.open { self.count } else { 0 };
            config.session_storage = self.desk.clone();
            config.send_tls13_tickets = config.send_tls13_tickets.min(count);
            config.max_early_data_size = if self.early { u32::MAX } else { 0 };
            self.tls = Arc::new(config);
        }
    }

    /// These settings.
    pub(crate) fn tls(&self) -> &Arc<rustls::ServerConfig> {
        &self.tls
    }

    /// The shared time in milliseconds.
    pub(crate) fn time(&self, now: Instant) -> u64 {
        shared_time(self.base, now)
    }

    /// Opens a ticket that a ClientHello of `version` offers, and has its session ready for TLS.
    pub(crate) fn offer(&mut self, now: Instant, version: Version, ticket: &[u8]) -> Option<Opened> {
        if !self.open {
            return None;
        }
        let time = self.time(now);
        if ticket.first() != Some(&KIND) || ticket.len() < HEAD_LEN + TAG_LEN {
            return None;
        }
        let mut copy = Zeroizing::new(ticket.to_vec());
        let (head, sealed) = copy.split_at_mut(HEAD_LEN);
        let key = self.keys.named(time, self.lifetime_ms, *head[1..].first_chunk()?)?;
        let nonce = *head[5..].first_chunk()?;
        let text = key.open(nonce, &bound(head, version), sealed).ok()?;
        let mut r = Reader::new(text);
        let issued = u64::from_be_bytes(*r.bytes(8)?.first_chunk()?);
        if time.saturating_sub(issued) > self.lifetime_ms || issued.saturating_sub(time) > AHEAD.as_millis() as u64 {
            return None;
        }
        let limits = Limits::decode(&mut r)?;
        let session = Zeroizing::new(r.rest().to_vec());
        lock(&self.desk.offered).push((ticket.to_vec(), session));
        Some(Opened { nonce, issued, limits })
    }

    /// Clears the desk, after TLS has read a message.
    pub(crate) fn clear(&self) {
        lock(&self.desk.offered).clear();
    }

    /// Whether TLS has sessions for tickets, which are in its output.
    pub(crate) fn has_issued(&self) -> bool {
        !lock(&self.desk.issued).is_empty()
    }

    /// Replaces the names of sessions by tickets, in the messages `out[from..]` of TLS. A message that cannot have a
    /// ticket is left out. `nonce` makes random nonces.
    pub(crate) fn issue(
        &mut self,
        now: Instant,
        version: Version,
        limits: &Limits,
        out: &mut Vec<u8>,
        from: usize,
        mut nonce: impl FnMut() -> [u8; STATE_NONCE_LEN],
    ) -> usize {
        let issued = std::mem::take(&mut *lock(&self.desk.issued));
        let messages = out.split_off(from);
        let (mut rest, mut count) = (&messages[..], 0);
        while let Some(len) = super::hello::message_len(rest).filter(|len| *len <= rest.len()) {
            let (message, behind) = rest.split_at(len);
            rest = behind;
            if message[0] != NEW_SESSION_TICKET {
                out.extend_from_slice(message);
                continue;
            }
            let sealed = Parts::read(message).and_then(|parts| {
                let (_, session) = issued.iter().find(|(name, _)| *name == parts.ticket)?;
                let ticket = self.seal(now, version, limits, session, nonce())?;
                Some(parts.with(&ticket, (self.lifetime_ms / 1000).min(u64::from(u32::MAX)) as u32))
            });
            if let Some(message) = sealed {
                out.extend_from_slice(&message);
                count += 1;
            }
        }
        out.extend_from_slice(rest);
        count
    }

    fn seal(
        &mut self,
        now: Instant,
        version: Version,
        limits: &Limits,
        session: &[u8],
        nonce: [u8; STATE_NONCE_LEN],
    ) -> Option<Vec<u8>> {
        if session.len() > MAX_SESSION {
            return None;
        }
        let time = self.time(now);
        let (period, key) = self.keys.current(time);
        let mut ticket = vec![0; HEAD_LEN + 8 + Limits::MAX_LEN];
        ticket[0] = KIND;
        ticket[1..5].copy_from_slice(&period.to_be_bytes());
        ticket[5..HEAD_LEN].copy_from_slice(&nonce);
        let mut w = Writer::new(&mut ticket[HEAD_LEN..]);
        w.bytes(&time.to_be_bytes());
        limits.encode(&mut w);
        let len = w.finish()?;
        ticket.truncate(HEAD_LEN + len);
        ticket.reserve_exact(session.len() + TAG_LEN);
        ticket.extend_from_slice(session);
        let (head, text) = ticket.split_at_mut(HEAD_LEN);
        let tag = traceless(|| key.seal(nonce, &bound(head, version), text));
        ticket.extend_from_slice(&tag);
        Some(ticket)
    }
}

/// What a ticket is bound to: kind, period and version (RFC 9369 §5).
fn bound(head: &[u8], version: Version) -> [u8; 9] {
    let mut bytes = [0; 9];
    bytes[..5].copy_from_slice(&head[..5]);
    bytes[5..].copy_from_slice(&version.number().to_be_bytes());
    bytes
}

/// The parts of a NewSessionTicket message.
struct Parts<'a> {
    age_add: &'a [u8],
    nonce: &'a [u8],
    ticket: &'a [u8],
    extensions: &'a [u8],
}

impl<'a> Parts<'a> {
    fn read(message: &'a [u8]) -> Option<Self> {
        let mut r = Reader::new(message);
        r.bytes(4 + 4)?;
        let age_add = r.bytes(4)?;
        let len = usize::from(r.u8()?);
        let nonce = r.bytes(len)?;
        let [a, b] = *r.bytes(2)?.first_chunk()?;
        let ticket = r.bytes(usize::from(a) << 8 | usize::from(b))?;
        Some(Self { age_add, nonce, ticket, extensions: r.rest() })
    }

    /// The message with another ticket, which is valid for `lifetime` seconds.
    fn with(&self, ticket: &[u8], lifetime: u32) -> Vec<u8> {
        let len = 4 + 4 + 1 + self.nonce.len() + 2 + ticket.len() + self.extensions.len();
        let mut message = vec![NEW_SESSION_TICKET];
        message.extend_from_slice(&(len as u32).to_be_bytes()[1..]);
        message.extend_from_slice(&lifetime.to_be_bytes());
        message.extend_from_slice(self.age_add);
        message.push(self.nonce.len() as u8);
        message.extend_from_slice(self.nonce);
        message.extend_from_slice(&(ticket.len() as u16).to_be_bytes());
        message.extend_from_slice(ticket);
        message.extend_from_slice(self.extensions);
        message
    }
}
