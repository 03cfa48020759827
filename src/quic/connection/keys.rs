//! 1-RTT keys and their updates (RFC 9001 §6).

use crate::base::time::Instant;
use crate::crypto::{DirectionKeys, HeaderKey, Keys, PacketKey};
use crate::quic::tls::KeyUpdates;

/// Number of packets reserved for the close when a key reaches its limit and cannot be updated.
const LAST_WORDS: u64 = 128;

/// What a peer did wrong that used older keys for a packet than for one with a smaller number (RFC 9001 §6.4).
const OLDER_KEYS: &str = "older keys for a packet with a larger number";

/// The previous keys, kept for late packets.
struct Previous {
    remote: PacketKey,
    /// When they are dropped. `None` until a packet with the new keys arrives: the peer may not know of the update, and
    /// everything it sends needs these keys (RFC 9001 §6.1).
    until: Option<Instant>,
}

/// Keys of the Data space: current, next, and temporarily the previous ones.
pub(crate) struct OneRtt {
    pub(crate) local_header: HeaderKey,
    pub(crate) remote_header: HeaderKey,
    pub(crate) local: PacketKey,
    remote: PacketKey,
    previous: Option<Previous>,
    /// The next phase's keys, local and remote. Until the first update they are derived on demand, which reveals
    /// nothing, as the phase is known. Thereafter they are always derived one phase ahead, so that timing reveals
    /// nothing about a packet's phase (RFC 9001 §6.3, §9.5).
    next: Option<Box<(PacketKey, PacketKey)>>,
    updates: KeyUpdates,
    phase: bool,
    /// Whether there was an update.
    updated: bool,
    /// Lowest packet number received in the current phase.
    phase_start: Option<u64>,
    /// First packet number sent with the current key.
    sent_from: u64,
    /// Whether a packet of the current phase was acknowledged, so that we may update (RFC 9001 §6.1).
    confirmed: bool,
    sent_with_key: u64,
    /// Number of packets after which the key is updated.
    update_at: u64,
    /// Maximum number of packets sealed with a key (RFC 9001 §6.6).
    limit: u64,
}

/// The generation of keys that a packet uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Generation {
    Previous,
    Current,
    Next,
}

impl OneRtt {
    /// `update_after` is the number of packets sealed with a key before it is updated, subject to the key's limit.
    pub(crate) fn new(keys: Keys, updates: KeyUpdates, update_after: u64) -> Self {
        let Keys { local, remote } = keys;
        let DirectionKeys { header: local_header, packet: local } = local;
        let DirectionKeys { header: remote_header, packet: remote } = remote;
        let limit = local.confidentiality_limit();
        Self {
            update_at: update_after.min(limit / 2),
            limit,
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
        }
    }

    /// Prefetches the keys of both directions.
    pub(crate) fn prefetch(&self) {
        self.local_header.prefetch();
        self.remote_header.prefetch();
        self.local.prefetch();
        self.remote.prefetch();
    }

    /// The key phase bit of packets to send.
    pub(crate) fn phase(&self) -> bool {
        self.phase
    }

    /// Selects the keys for a packet with this phase bit and number (RFC 9001 §6.3, §6.5).
    pub(crate) fn select(&self, phase: bool, pn: u64) -> Generation {
        if phase == self.phase {
            Generation::Current
        } else if self.previous.is_some() && self.phase_start.is_none_or(|start| pn < start) {
            Generation::Previous
        } else {
            Generation::Next
        }
    }

    /// The key that opens packets of the current phase, and the phase, if a packet with it has arrived: further ones
    /// then change nothing here.
    pub(crate) fn settled(&self) -> Option<(&PacketKey, bool)> {
        self.phase_start.map(|_| (&self.remote, self.phase))
    }

    /// Any key that opens packets; their limits are the same.
    pub(crate) fn any_remote(&self) -> &PacketKey {
        &self.remote
    }

    #[inline(always)]
    pub(crate) fn remote(&mut self, generation: Generation) -> Option<&PacketKey> {
        if generation == Generation::Current { Some(&self.remote) } else { self.other_remote(generation) }
    }

    #[cold]
    fn other_remote(&mut self, generation: Generation) -> Option<&PacketKey> {
        match generation {
            Generation::Current => Some(&self.remote),
            Generation::Previous => self.previous.as_ref().map(|previous| &previous.remote),
            Generation::Next => Some(&self.next.get_or_insert_with(|| Box::new(self.updates.next())).1),
        }
    }

    /// Records that a packet was authenticated with `generation`. For the first packet of a phase, `facts` says when
    /// the replaced keys are dropped (RFC 9001 §6.5), and whether a packet with a larger number has arrived.
    ///
    /// # Errors
    /// The reason for a KEY_UPDATE_ERROR. The peer may have updated twice before we sent anything with the keys of the
    /// first update, so that it cannot have seen that update acknowledged (RFC 9001 §6.2), or have used older keys for
    /// the packet with the larger number (RFC 9001 §6.4).
    #[inline(always)]
    pub(crate) fn on_authenticated(
        &mut self,
        generation: Generation,
        pn: u64,
        next_pn: u64,
        facts: impl FnOnce() -> (Instant, bool),
    ) -> Result<(), &'static str> {
        // The common case.
        if generation == Generation::Current
            && let Some(start) = &mut self.phase_start
        {
            *start = pn.min(*start);
            return Ok(());
        }
        self.on_new_phase(generation, pn, next_pn, facts())
    }

    #[cold]
    fn on_new_phase(
        &mut self,
        generation: Generation,
        pn: u64,
        next_pn: u64,
        (keep_until, out_of_order): (Instant, bool),
    ) -> Result<(), &'static str> {
        match generation {
            Generation::Previous => {}
            // All packets that have arrived have older keys.
            Generation::Current if self.updated && out_of_order => return Err(OLDER_KEYS),
            Generation::Next if out_of_order => return Err(OLDER_KEYS),
            Generation::Current => {
                self.phase_start = Some(pn);
                if let Some(previous) = &mut self.previous {
                    previous.until = Some(keep_until);
                }
            }
            Generation::Next => {
                if self.updated && self.phase_start.is_some() && self.sent_with_key == 0 {
                    return Err("key update before the last one was acknowledged");
                }
                self.rotate(next_pn, Some(keep_until));
                self.phase_start = Some(pn);
            }
        }
        Ok(())
    }

    /// Moves both directions to the next keys.
    fn rotate(&mut self, next_pn: u64, until: Option<Instant>) {
        let (local, remote) = self.next.take().map_or_else(|| self.updates.next(), |next| *next);
        self.next = Some(Box::new(self.updates.next()));
        self.previous = Some(Previous { remote: std::mem::replace(&mut self.remote, remote), until });
        self.local = local;
        self.phase = !self.phase;
        self.updated = true;
        self.phase_start = None;
        self.sent_from = next_pn;
        self.confirmed = false;
        self.sent_with_key = 0;
    }

    /// Whether an update is due, well before the key's confidentiality limit (RFC 9001 §6.6).
    pub(crate) fn update_due(&self) -> bool {
        self.sent_with_key >= self.update_at && self.may_update()
    }

    /// Whether the peer is known to have the current keys and no older packets are expected (RFC 9001 §6.1, §6.5).
    fn may_update(&self) -> bool {
        self.confirmed && self.previous.is_none()
    }

    /// Starts an update if that is allowed. An ack-eliciting packet must follow, as no other update may start before
    /// the peer has acknowledged this one.
    #[must_use]
    pub(crate) fn begin_update(&mut self, next_pn: u64) -> bool {
        let allowed = self.may_update();
        if allowed {
            self.rotate(next_pn, None);
        }
        allowed
    }

    /// Counts a packet to be sent. False if the key is exhausted except for the close, so that the connection has to
    /// end (RFC 9001 §6.6).
    #[must_use]
    pub(crate) fn before_send(&mut self) -> bool {
        let ok = self.sent_with_key < self.limit - LAST_WORDS;
        self.sent_with_key += u64::from(ok);
        ok
    }

    /// The number of packets that may be sent before the key has to be updated or is used up.
    pub(crate) fn sends_left(&self) -> usize {
        let limit = self.limit - LAST_WORDS;
        let until = if self.may_update() { self.update_at.min(limit) } else { limit };
        usize::try_from(until.saturating_sub(self.sent_with_key)).unwrap_or(usize::MAX)
    }

    /// Records that `n` packets are sent, at most as many as [`OneRtt::sends_left`] allows.
    pub(crate) fn on_sent(&mut self, n: u64) {
        self.sent_with_key += n;
    }

    /// Whether a packet with a close may be sent.
    pub(crate) fn may_close(&self) -> bool {
        self.sent_with_key < self.limit
    }

    /// Counts a packet with a close.
    pub(crate) fn before_close(&mut self) {
        debug_assert!(self.may_close());
        self.sent_with_key += 1;
    }

    /// Handles the acknowledgement of a packet of ours by a packet of `generation`. False if that is older than the
    /// generation of the acknowledged packet, which a peer that received it must not use (RFC 9001 §6.1, §6.2).
    #[must_use]
    pub(crate) fn on_acked(&mut self, pn: u64, generation: Generation) -> bool {
        if pn < self.sent_from {
            return true;
        }
        self.confirmed |= generation != Generation::Previous;
        generation != Generation::Previous
    }

    /// When the previous keys are dropped.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.previous.as_ref().and_then(|previous| previous.until)
    }

    pub(crate) fn on_timeout(&mut self, now: Instant) {
        self.previous.take_if(|previous| previous.until.is_some_and(|until| until <= now));
    }
}

impl core::fmt::Debug for OneRtt {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("OneRtt").field("phase", &self.phase).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
