//! Checks what traces are told against what can have happened.

use std::collections::{HashMap, HashSet};

use crate::base::time::Instant;
use crate::quic::trace::{
    ConnectionState, PacketCause, TraceEvent, TraceSink, TraceStart, TracedPacket, Tracer, frames,
};
use crate::quic::{ConnId, DropReason};
use crate::wire::quic::frame::Frame;
use crate::wire::quic::header::PacketType;

/// A tracer that panics if it is told something impossible.
#[derive(Clone, Copy, Debug, Default)]
pub struct Checker;

impl Tracer for Checker {
    fn sink(&self) -> Box<dyn TraceSink> {
        Box::new(CheckingSink::default())
    }
}

/// What one engine has told.
#[derive(Debug, Default)]
struct CheckingSink {
    traces: HashMap<ConnId, Trace>,
    room: Vec<u8>,
}

#[derive(Debug, Default)]
struct Trace {
    latest: Instant,
    spaces: [Space; 3],
    state: Option<ConnectionState>,
    /// Number and length of the latest datagram sent.
    datagram: (u32, usize),
    /// Number of packets that came again, and of those for which there was no memory: for the peer, these are lost.
    again: u64,
    refused: u64,
    closed: bool,
}

/// Packet numbers.
#[derive(Debug, Default)]
struct Space {
    sent: HashSet<u64>,
    largest: Option<u64>,
    received: HashSet<u64>,
    acked: HashSet<u64>,
    lost: HashSet<u64>,
}

/// The longest datagram of a play, in bytes.
const LONGEST: usize = 2048;

const TAG_LEN: usize = 16;

fn space(kind: PacketType) -> Option<usize> {
    match kind {
        PacketType::Initial => Some(0),
        PacketType::Handshake => Some(1),
        PacketType::ZeroRtt | PacketType::Short => Some(2),
        PacketType::Retry | PacketType::VersionNegotiation => None,
    }
}

impl TraceSink for CheckingSink {
    fn begin(&mut self, now: Instant, start: &TraceStart) -> bool {
        let trace = Trace { latest: now, ..Trace::default() };
        assert!(self.traces.insert(start.conn, trace).is_none(), "{} begins twice", start.conn);
        true
    }

    fn record(&mut self, now: Instant, conn: ConnId, event: TraceEvent, bytes: &[u8]) {
        let trace = self.traces.get_mut(&conn).unwrap_or_else(|| panic!("{conn} has no trace: {event:?}"));
        trace.check_time(now, &event);
        match event {
            TraceEvent::Packet(packet) => trace.check_packet(&packet, bytes, &mut self.room),
            TraceEvent::Acked(kind) => {
                let space = &mut trace.spaces[space(kind).expect("it has a space")];
                for pn in bytes.chunks(8).map(|pn| u64::from_be_bytes(*pn.first_chunk().expect("eight bytes each"))) {
                    assert!(space.sent.contains(&pn), "{conn}: {kind:?} {pn} is acknowledged but was not sent");
                    assert!(space.acked.insert(pn), "{conn}: {kind:?} {pn} is acknowledged twice");
                }
            }
            TraceEvent::Lost { space: kind, pn, .. } => {
                let space = &mut trace.spaces[space(kind).expect("it has a space")];
                assert!(space.sent.contains(&pn), "{conn}: {kind:?} {pn} is lost but was not sent");
                assert!(!space.acked.contains(&pn), "{conn}: {kind:?} {pn} is lost but was acknowledged");
                assert!(space.lost.insert(pn), "{conn}: {kind:?} {pn} is lost twice");
            }
            TraceEvent::State { old, new } => {
                assert_eq!(trace.state, old, "{conn}");
                assert!(old.is_none_or(|old| old < new), "{conn}: {old:?} to {new:?}");
                trace.state = Some(new);
            }
            TraceEvent::Closed(reason) => {
                assert!(!std::mem::replace(&mut trace.closed, true), "{conn} is closed twice: {reason}");
            }
            TraceEvent::Dropped { reason: DropReason::NoMemory, .. } => trace.refused += 1,
            _ => {}
        }
    }

    fn is_full(&self, _: ConnId) -> bool {
        false
    }

    fn end(&mut self, _: Instant, conn: ConnId) {
        let trace = self.traces.remove(&conn).unwrap_or_else(|| panic!("{conn} ends, but has no trace"));
        assert!(trace.closed, "{conn} was never closed");
        let (again, refused) = (trace.again, trace.refused);
        assert!(again <= refused, "{conn}: {again} packets came again, but only {refused} were refused");
        assert_eq!(trace.state, Some(ConnectionState::Closed), "{conn}");
    }

    fn rest(&mut self, _: Instant) {}
}

impl Trace {
    /// Time goes back only for packets that waited for their keys.
    fn check_time(&mut self, now: Instant, event: &TraceEvent) {
        let replayed = matches!(event, TraceEvent::Packet(packet) if packet.cause == PacketCause::KeysAvailable);
        // What such a packet causes has its time, too.
        if !replayed && self.state.is_some_and(|state| state >= ConnectionState::HandshakeConfirmed) {
            assert!(now >= self.latest, "{event:?} at {now:?}, after {:?}", self.latest);
        }
        self.latest = self.latest.max(now);
    }

    fn check_packet(&mut self, packet: &TracedPacket, bytes: &[u8], room: &mut Vec<u8>) {
        let Some(space) = space(packet.kind).map(|space| &mut self.spaces[space]) else { return };
        let header = usize::from(packet.header_len);
        assert_eq!(bytes[0] & 0x80 == 0, packet.kind == PacketType::Short, "{packet:?}");
        let (mut len, mut good) = (0, true);
        frames::each(&bytes[header..], room, |frame| {
            len += frame.len();
            good &= Frame::decode(frame).is_ok();
        });
        assert_eq!(header + len + TAG_LEN, usize::from(packet.len), "{packet:?}");
        assert!(good, "a frame cannot be decoded: {packet:?} {bytes:?}");
        if !packet.sent {
            self.again += u64::from(!space.received.insert(packet.pn));
            return;
        }
        assert!(space.largest.is_none_or(|largest| packet.pn > largest), "after {:?}: {packet:?}", space.largest);
        space.largest = Some(packet.pn);
        space.sent.insert(packet.pn);
        let (number, before) = self.datagram;
        let len = usize::from(packet.len);
        self.datagram = match packet.datagram.checked_sub(number) {
            Some(0) => (number, before + len),
            Some(1) => (packet.datagram, len),
            other => panic!("datagram {other:?} after {number}: {packet:?}"),
        };
        assert!(self.datagram.1 <= LONGEST, "too much for a datagram: {packet:?}");
    }
}
