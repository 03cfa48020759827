//! Messages between the cores of a group, besides frames: each core has a bounded mailbox.
//!
//! An ARP or NDP answer, an ICMP error or a stateless reset reaches one core, and often not the one that it concerns.
//! What that core cannot use itself, it passes on to the others. Strangers can cause most of these notes, so there are
//! limits on what a core passes on, and a part of each mailbox is reserved for notes that must not be lost: our own
//! addresses, new certificates, the request to drain. The sender never waits; notes for which there is no room are
//! dropped and counted.

mod wanted;

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use arrayvec::ArrayVec;
use crossbeam::queue::ArrayQueue;
use crossbeam::utils::CachePadded;
use thiserror::Error;

use crate::base::limit::Limit;
use crate::base::time::Instant;
use crate::net::{Cidr, GroupNews};
use crate::runtime::{Unreachable, Waker};
use wanted::Wanted;

/// The maximum number of notes waiting for a core.
const CAPACITY: usize = 1024;
/// The maximum number of these that anyone outside this process can cause.
const ORDINARY: usize = CAPACITY / 4 * 3;
/// The maximum number of bytes of a quoted packet that are passed on. The longest header up to the connection ID takes
/// 26.
const QUOTE: usize = 40;
/// The number of messages about neighbours that a core passes on per second although no core is known to have asked for
/// them.
const HINTS: u32 = 100;
/// The number of claims to our addresses and of multicast listener queries that a core passes on per second.
const CLAIMS: u32 = 10;
/// The number of ICMP errors of each kind that a core passes on per second.
const ERRORS: u32 = 100;
/// The number of possible stateless resets that a core passes on per second.
const RESETS: u32 = 200;

/// The first bytes of a packet of ours that an ICMP error quotes.
pub(super) type Quoted = ArrayVec<u8, QUOTE>;

/// The cores that a request did not reach: their mailboxes are full, because they have not finished a turn for long.
/// It has reached the others.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{}", unheard(cores))]
pub struct Unheard {
    /// The cores, in ascending order.
    pub cores: Vec<u8>,
}

fn unheard(cores: &[u8]) -> String {
    match cores {
        [core] => format!("core {core} does not read its messages"),
        cores => {
            let list: Vec<String> = cores.iter().map(u8::to_string).collect();
            format!("cores {} do not read their messages", list.join(", "))
        }
    }
}

/// One note.
#[derive(Clone, Debug)]
pub(super) enum Note {
    /// The network layer's news.
    Net(GroupNews),
    /// "Packet too big" for a connection that is not on this core.
    TooBig { local: SocketAddr, remote: SocketAddr, max: u16, len: u16, quoted: Quoted },
    /// "Unreachable" for a connection that is not on this core.
    Undelivered { local: SocketAddr, remote: SocketAddr, why: Unreachable, len: u16, quoted: Quoted },
    /// A datagram from `remote` that ends with `token` and belongs to no connection on this core.
    Reset { remote: SocketAddr, token: [u8; 16] },
    /// One more address.
    AddAddress(Cidr),
    /// One address less.
    RemoveAddress(IpAddr),
    /// Accept no more connections, and end when the existing ones have ended.
    Drain,
    /// New connections use these TLS settings.
    Tls(Arc<rustls::ServerConfig>),
}

impl Note {
    /// The first bytes of a quoted packet, as many as are needed.
    pub(super) fn quote(quoted: &[u8]) -> Quoted {
        quoted.iter().copied().take(QUOTE).collect()
    }

    /// Whether only this process can cause it. Such notes must not be lost.
    fn is_own(&self) -> bool {
        match self {
            Self::Net(news) => matches!(news, GroupNews::AddressHeld { .. } | GroupNews::AddressLost { .. }),
            Self::AddAddress(_) | Self::RemoveAddress(_) | Self::Drain | Self::Tls(_) => true,
            Self::TooBig { .. } | Self::Undelivered { .. } | Self::Reset { .. } => false,
        }
    }
}

/// One core as the others see it.
#[derive(Debug)]
struct Member {
    mailbox: ArrayQueue<Note>,
    /// What wakes it, once it runs.
    waker: OnceLock<Waker>,
    /// Turns that it has begun; 0 before the first one.
    beat: CachePadded<AtomicU64>,
    /// Whether it has nothing more to do itself.
    over: AtomicBool,
}

impl Member {
    fn wake(&self) {
        if let Some(waker) = self.waker.get() {
            waker.wake();
        }
    }
}

/// All cores of a group.
#[derive(Debug)]
pub(super) struct Members {
    all: Box<[Member]>,
    wanted: Wanted,
}

impl Members {
    pub(super) fn new(cores: u8, seed: u64) -> Arc<Self> {
        let member = |_| Member {
            mailbox: ArrayQueue::new(CAPACITY),
            waker: OnceLock::new(),
            beat: CachePadded::new(AtomicU64::new(0)),
            over: AtomicBool::new(false),
        };
        Arc::new(Self { all: (0..cores).map(member).collect(), wanted: Wanted::new(seed) })
    }

    /// Puts `note` into the mailbox of `core`. False if there is no room.
    fn put(&self, core: usize, note: Note) -> bool {
        let member = &self.all[core];
        let room = note.is_own() || member.mailbox.len() < ORDINARY;
        let put = room && member.mailbox.push(note).is_ok();
        if put {
            member.wake();
        }
        put
    }

    /// Sends a note to all cores. A full mailbox does not keep the note from the other cores.
    ///
    /// # Errors
    /// The cores whose mailboxes had no room.
    pub(super) fn tell_all(&self, note: &Note) -> Result<(), Unheard> {
        let full = |(core, _): &(u8, _)| !self.put(usize::from(*core), note.clone());
        let cores: Vec<u8> = (0..).zip(&self.all).filter(full).map(|(core, _)| core).collect();
        if cores.is_empty() { Ok(()) } else { Err(Unheard { cores }) }
    }

    /// Wakes all cores.
    pub(super) fn wake_all(&self) {
        self.all.iter().for_each(Member::wake);
    }

    /// A core takes no more turns.
    pub(super) fn rests(&self, core: u8) {
        // What it has passed to others before is visible to whoever sees that it rests.
        self.all[usize::from(core)].beat.store(0, Ordering::Release);
    }

    /// The number of turns that each core has begun; 0 for those that take none.
    pub(super) fn beats(&self) -> impl Iterator<Item = u64> + '_ {
        self.all.iter().map(|member| member.beat.load(Ordering::Relaxed))
    }
}

/// Counts of the notes that a core has sent and received.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct NoteStats {
    /// Notes put into mailboxes of others.
    pub(super) told: u64,
    /// Notes from others that were read.
    pub(super) heard: u64,
    /// Notes for which there was no room.
    pub(super) lost: u64,
    /// Notes that were not sent because of the limits.
    pub(super) withheld: u64,
}

/// A core's mailbox, and its access to those of the others.
#[derive(Debug)]
pub struct Notes {
    core: usize,
    members: Arc<Members>,
    hints: Limit,
    claims: Limit,
    too_big: Limit,
    undelivered: Limit,
    resets: Limit,
    stats: NoteStats,
}

/// Mailboxes for `cores` cores, in their order. `seed` is a random number.
pub fn mailboxes(cores: u8, seed: u64) -> Vec<Notes> {
    mailboxes_of(&Members::new(cores, seed))
}

pub(super) fn mailboxes_of(members: &Arc<Members>) -> Vec<Notes> {
    let limit = |count| Limit::new(count, Instant::ZERO);
    let notes = |core| Notes {
        core,
        members: members.clone(),
        hints: limit(HINTS),
        claims: limit(CLAIMS),
        too_big: limit(ERRORS),
        undelivered: limit(ERRORS),
        resets: limit(RESETS),
        stats: NoteStats::default(),
    };
    (0..members.all.len()).map(notes).collect()
}

impl Notes {
    /// Wakes another core that now has something to do.
    pub fn wake(&self, core: u8) {
        if let Some(member) = self.members.all.get(usize::from(core)) {
            member.wake();
        }
    }

    /// Sets what wakes this core.
    pub(super) fn woken_by(&self, waker: &Waker) {
        let _ = self.me().waker.set(waker.clone());
    }

    /// A turn begins.
    #[inline]
    pub(super) fn beat(&self, turns: u64) {
        self.me().beat.store(turns, Ordering::Relaxed);
    }

    /// Whether no other core takes turns. What they passed to this one is then there.
    pub(super) fn others_rest(&self) -> bool {
        let mut members = self.members.all.iter().enumerate();
        members.all(|(core, member)| core == self.core || member.beat.load(Ordering::Acquire) == 0)
    }

    /// Records whether this core has nothing more to do. Returns whether this holds for all cores: until then, frames
    /// for others may arrive here.
    pub(super) fn all_over(&self, over: bool) -> bool {
        let mine = &self.me().over;
        if mine.load(Ordering::Relaxed) != over {
            mine.store(over, Ordering::Relaxed);
            if over {
                // The others may be waiting for this one.
                self.members.wake_all();
            }
        }
        over && self.members.all.iter().all(|member| member.over.load(Ordering::Relaxed))
    }

    pub(super) fn stats(&self) -> &NoteStats {
        &self.stats
    }

    /// The next note for this core.
    #[inline]
    pub(super) fn next(&mut self) -> Option<Note> {
        // Cheaper than an attempt to take one, which has a fence.
        if self.me().mailbox.is_empty() {
            return None;
        }
        let note = self.me().mailbox.pop()?;
        self.stats.heard += 1;
        Some(note)
    }

    /// Tells the others what this core's network layer has learned.
    pub(super) fn tell_news(&mut self, now: Instant, news: GroupNews) {
        let wanted = &self.members.wanted;
        let worth = match news {
            GroupNews::Asked { ip } => return wanted.ask(ip),
            GroupNews::Neighbor { ip, .. } => {
                wanted.is_answer(ip);
                true
            }
            GroupNews::Overheard(heard) => heard.is_answer() && wanted.is_answer(heard.ip()) || self.hints.take(now),
            GroupNews::Claimed { .. } | GroupNews::ListenerQuery { .. } => self.claims.take(now),
            GroupNews::AddressHeld { .. } | GroupNews::AddressLost { .. } => true,
        };
        let first_only = matches!(news, GroupNews::Claimed { .. } | GroupNews::ListenerQuery { .. });
        match worth {
            true if first_only => self.put(0, Note::Net(news)),
            true => self.tell(&Note::Net(news)),
            false => self.stats.withheld += 1,
        }
    }

    /// Sends the others a note that anyone outside this process can cause, within the limits.
    pub(super) fn pass_on(&mut self, now: Instant, note: &Note) {
        if self.members.all.len() == 1 {
            return;
        }
        let limit = match note {
            Note::TooBig { .. } => &mut self.too_big,
            Note::Undelivered { .. } => &mut self.undelivered,
            _ => &mut self.resets,
        };
        if limit.take(now) { self.tell(note) } else { self.stats.withheld += 1 }
    }

    /// Sends a note to all others.
    pub(super) fn tell(&mut self, note: &Note) {
        let me = self.core;
        for core in (0..self.members.all.len()).filter(|core| *core != me) {
            self.put(core, note.clone());
        }
    }

    fn put(&mut self, core: usize, note: Note) {
        let put = self.members.put(core, note);
        self.stats.told += u64::from(put);
        self.stats.lost += u64::from(!put);
    }

    fn me(&self) -> &Member {
        &self.members.all[self.core]
    }
}

#[cfg(test)]
mod tests;
