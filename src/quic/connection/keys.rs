//! 1-RTT keys and their updates (RFC 9001 §6).

use crate::base::time::Instant;
use crate::crypto::{DirectionKeys, HeaderKey, Keys, PacketKey};
use crate::quic::tls::KeyUpdates;

/// Keys of the Data space: current, next, and for a while the previous ones.
pub(crate) struct OneRtt {
    pub(crate) local_header: HeaderKey,
    pub(crate) remote_header: HeaderKey,
    pub(crate) local: PacketKey,
    remote: PacketKey,
    /// Packets from before the last update, until the given time.
    previous: Option<(PacketKey, Instant)>,
    /// The next phase's keys, local and remote. Until the first update they are made when they are wanted first, which
    /// tells nothing, as everybody knows which phase it is then. From there on they are always one phase ahead, so that
    /// nothing about a packet's phase shows in the time that it takes (RFC 9001 §6.3, §9.5).
    next: Option<Box<(PacketKey, PacketKey)>>,
    updates: KeyUpdates,
    phase: bool,
    /// The keys are not the first ones any more.
    updated: bool,
    /// Lowest packet number received in the current phase.
    phase_start: Option<u64>,
    /// First packet number sent with the current key.
    sent_from: u64,
    /// A packet of the current phase was acknowledged, so that we may update (RFC 9001 §6.1).
    confirmed: bool,
    sent_with_key: u64,
    failed: u64,
}

/// Which keys a packet wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Generation {
    Previous,
    Current,
    Next,
}

impl OneRtt {
    pub(crate) fn new(keys: Keys, updates: KeyUpdates) -> Self {
        let Keys { local, remote } = keys;
        let DirectionKeys { header: local_header, packet: local } = local;
        let DirectionKeys { header: remote_header, packet: remote } = remote;
        Self {
            local_header,
            remote_header,
            local,
            remote,
            previous: None,
            next: None,
            updates,
            phase: false,
            updated: false,
            phase_start: None,
            sent_from: 0,
            confirmed: false,
            sent_with_key: 0,
            failed: 0,
        }
    }

    /// Starts to bring the keys of both directions into the cache.
    pub(crate) fn prefetch(&self) {
        self.local_header.prefetch();
        self.remote_header.prefetch();
        self.local.prefetch();
        self.remote.prefetch();
    }

    /// The key phase bit of packets that we send.
    pub(crate) fn phase(&self) -> bool {
        self.phase
    }

    /// Which keys a packet with this phase bit and number was made with (RFC 9001 §6.3, §6.5).
    pub(crate) fn select(&self, phase: bool, pn: u64) -> Generation {
        if phase == self.phase {
            Generation::Current
        } else if self.previous.is_some() && self.phase_start.is_none_or(|start| pn < start) {
            Generation::Previous
        } else {
            Generation::Next
        }
    }

    pub(crate) fn remote(&mut self, generation: Generation) -> Option<&PacketKey> {
        match generation {
            Generation::Current => Some(&self.remote),
            Generation::Previous => self.previous.as_ref().map(|(key, _)| key),
            Generation::Next => Some(&self.next.get_or_insert_with(|| Box::new(self.updates.next())).1),
        }
    }

    /// A packet was authenticated with `generation`. `keep_until` bounds the life of replaced keys, if any are.
    /// False: the peer updated twice before we have sent anything with the keys of the first update, hence before it can
    /// have seen that one acknowledged (RFC 9001 §6.2).
    pub(crate) fn on_authenticated(
        &mut self,
        generation: Generation,
        pn: u64,
        next_pn: u64,
        keep_until: impl FnOnce() -> Instant,
    ) -> bool {
        match generation {
            Generation::Previous => true,
            Generation::Current => {
                self.phase_start = Some(self.phase_start.map_or(pn, |start| start.min(pn)));
                true
            }
            Generation::Next => {
                if self.updated && self.phase_start.is_some() && self.sent_with_key == 0 {
                    return false;
                }
                self.rotate(next_pn, keep_until());
                self.phase_start = Some(pn);
                true
            }
        }
    }

    /// Both directions move on to the next keys.
    fn rotate(&mut self, next_pn: u64, keep_until: Instant) {
        let (local, remote) = self.next.take().map_or_else(|| self.updates.next(), |next| *next);
        self.next = Some(Box::new(self.updates.next()));
        let old = std::mem::replace(&mut self.remote, remote);
        self.previous = Some((old, keep_until));
        self.local = local;
        self.phase = !self.phase;
        self.updated = true;
        self.phase_start = None;
        self.sent_from = next_pn;
        self.confirmed = false;
        self.sent_with_key = 0;
    }

    /// Whether the next packet begins an update, well before the key's confidentiality limit (RFC 9001 §6.6).
    pub(crate) fn update_due(&self) -> bool {
        let limit = self.local.confidentiality_limit();
        self.sent_with_key >= limit / 2 && self.confirmed && self.previous.is_none()
    }

    /// A packet goes out; begins an update if one is due.
    /// False when the key is used up and no update was possible: the connection must not send any more.
    #[must_use]
    pub(crate) fn before_send(&mut self, next_pn: u64, keep_until: Instant) -> bool {
        if self.update_due() {
            self.rotate(next_pn, keep_until);
        }
        self.sent_with_key += 1;
        self.sent_with_key < self.local.confidentiality_limit()
    }

    /// Updates keys now if allowed (tests and the application's wish).
    pub(crate) fn force_update(&mut self, next_pn: u64, keep_until: Instant) -> bool {
        let allowed = self.confirmed && self.previous.is_none();
        if allowed {
            self.rotate(next_pn, keep_until);
        }
        allowed
    }

    /// A packet of ours was acknowledged.
    pub(crate) fn on_acked(&mut self, pn: u64) {
        if pn >= self.sent_from {
            self.confirmed = true;
        }
    }

    /// When the previous keys are to be dropped.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.previous.as_ref().map(|(_, until)| *until)
    }

    pub(crate) fn on_timeout(&mut self, now: Instant) {
        self.previous.take_if(|(_, until)| *until <= now);
    }

    /// A packet failed authentication; false when the limit is reached (RFC 9001 §6.6).
    #[must_use]
    pub(crate) fn on_failure(&mut self) -> bool {
        self.failed += 1;
        self.failed < self.remote.integrity_limit()
    }
}

impl core::fmt::Debug for OneRtt {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("OneRtt").field("phase", &self.phase).finish_non_exhaustive()
    }
}
