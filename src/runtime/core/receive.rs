//! Receiving frames. A burst is processed in passes over all of its frames: the network layer's headers, connection IDs,
//! the engine. Frames of other cores' connections leave before the engine's pass.

use arrayvec::ArrayVec;
use std::net::IpAddr;
use std::ops::Range;

use super::Core;
use crate::base::time::Instant;
use crate::datapath::exchange::{Exchange, Handed};
use crate::datapath::{BURST, Burst, Datapath, RxFrame, TxFrame};
use crate::net::{FlowDatagram, Net, Quote, Received, UdpDatagram};
use crate::quic::{Arrival, Datagram, Lead, Leads, RxMeta, TooBig, Undelivered};
use crate::runtime::notes::Note;
use crate::runtime::observe::{Mark, Observe};
use crate::runtime::{App, Unreachable};

/// Up to this many connections are assumed to stay in the CPU's caches.
const FEW: usize = 32;

/// A UDP datagram in a burst of frames.
struct Found {
    /// The index of its frame.
    frame: u8,
    /// The index of its addresses in [`Datagrams::metas`].
    meta: u8,
    /// The start and end of its payload in the frame.
    payload: [u16; 2],
}

impl Found {
    fn payload(&self) -> Range<usize> {
        let [from, to] = self.payload;
        from.into()..to.into()
    }
}

/// The UDP datagrams in a burst of frames.
#[derive(Default)]
struct Datagrams {
    found: ArrayVec<Found, BURST>,
    /// Consecutive datagrams of one flow share one.
    metas: ArrayVec<RxMeta, BURST>,
    /// The flow and the ECN bits of the previous datagram, if both were known.
    last: Option<(u8, u8)>,
}

impl Datagrams {
    /// Adds the datagram in a frame, and returns the position of its payload, unless that is beyond the length of any
    /// frame.
    fn push(&mut self, frame: usize, udp: UdpDatagram) -> Option<Range<usize>> {
        let UdpDatagram { local, remote, ecn, payload } = udp;
        let [from, to] = [payload.start, payload.end].map(|at| u16::try_from(at).ok());
        let payload = [from?, to?];
        self.last = None;
        self.metas.push(RxMeta { local, remote, ecn });
        Some(self.found_in(frame, payload))
    }

    /// The same for a datagram of a known flow. `None` if the flow has just been forgotten.
    #[inline(always)]
    fn push_known<T: TxFrame>(&mut self, net: &Net<T>, frame: usize, known: FlowDatagram) -> Option<Range<usize>> {
        let FlowDatagram { flow, ecn, payload } = known;
        if self.last != Some((flow, ecn)) {
            let (local, remote) = net.flow(flow)?;
            self.metas.push(RxMeta { local, remote, ecn });
            self.last = Some((flow, ecn));
        }
        Some(self.found_in(frame, payload))
    }

    /// Adds the datagram in a frame, whose addresses are the last ones.
    #[inline]
    fn found_in(&mut self, frame: usize, payload: [u16; 2]) -> Range<usize> {
        let datagram = Found { frame: frame as u8, meta: self.metas.len() as u8 - 1, payload };
        let payload = datagram.payload();
        self.found.push(datagram);
        payload
    }
}

impl<D: Datapath, A: App, X: Exchange<D::Rx>> Core<D, A, X> {
    /// Receives a burst from the other cores and one from the port. What others hand over arrived before what is in the
    /// port's queue now. In the other order, packets of a flow that changes queues would overtake each other by more than
    /// their short packet numbers allow for (RFC 9000 §A.3), and would fail authentication.
    pub(super) fn receive(&mut self, now: Instant, seen: &mut impl Observe) -> bool {
        let handed = !X::ALONE && self.take_over(now, seen);
        self.receive_own(now, seen) || handed
    }

    fn receive_own(&mut self, now: Instant, seen: &mut impl Observe) -> bool {
        if self.datapath.rx_burst(&mut self.rx) == 0 {
            return false;
        }
        seen.at(Mark::BurstArrived);
        self.stats.rx_bursts += 1;
        let mut rx = std::mem::take(&mut self.rx);
        let (mut datagrams, mut leads) = (Datagrams::default(), Leads::new());
        for i in 0..rx.len() {
            if let Some(payload) = self.receive_frame(now, &mut rx, i, &mut datagrams) {
                self.endpoint.lead(&mut leads, &rx[i].data_mut()[payload]);
            }
        }
        self.endpoint.route(&mut leads);
        if !X::ALONE && leads.iter().any(|lead| matches!(lead, Lead::Core(..))) {
            self.hand_over(&mut rx, &mut datagrams.found, &mut leads);
        }
        self.handle(now, &mut rx, &datagrams, &leads, seen);
        self.datapath.release(&mut rx);
        self.rx = rx;
        true
    }

    /// Hands over the frames of other cores' connections. Frames for which there is no room are dropped.
    #[cold]
    fn hand_over(&mut self, rx: &mut Burst<D::Rx>, found: &mut ArrayVec<Found, BURST>, leads: &mut Leads) {
        let mut staying = std::mem::take(found).into_iter().zip(leads.take()).peekable();
        for (i, frame) in std::mem::take(rx).into_iter().enumerate() {
            if let Some((mut datagram, lead)) = staying.next_if(|(datagram, _)| usize::from(datagram.frame) == i) {
                if let Lead::Core(to, tag) = lead {
                    self.leaving[usize::from(to)].push(Handed { frame, tag: Some(tag) });
                    continue;
                }
                datagram.frame = rx.len() as u8;
                found.push(datagram);
                leads.push(lead);
            }
            rx.push(frame);
        }
        for (to, burst) in self.leaving.iter_mut().enumerate().filter(|(_, burst)| !burst.is_empty()) {
            let handed = self.seat.exchange.offer(to as u8, burst) as u64;
            if let Some(notes) = self.seat.notes.as_ref().filter(|_| handed > 0) {
                notes.wake(to as u8);
            }
            self.stats.handed_over += handed;
            self.stats.exchange_full += burst.len() as u64;
            burst.clear();
        }
    }

    /// Takes over frames from other cores, which have decoded the connection IDs. These frames are never handed over again.
    fn take_over(&mut self, now: Instant, seen: &mut impl Observe) -> bool {
        let mut handed = Burst::new();
        if self.seat.exchange.take(&mut handed) == 0 {
            return false;
        }
        seen.at(Mark::BurstArrived);
        self.stats.taken_over += handed.len() as u64;
        let (mut rx, mut tags) = (Burst::new(), ArrayVec::<_, BURST>::new());
        for Handed { frame, tag } in handed {
            rx.push(frame);
            tags.push(tag);
        }
        let (mut datagrams, mut leads) = (Datagrams::default(), Leads::new());
        for (i, tag) in tags.into_iter().enumerate() {
            let payload = match self.net.receive_known_handed(&mut rx[i]) {
                Some(known) => datagrams.push_known(&self.net, i, known),
                None => {
                    let udp = self.net.receive_handed(now, &mut rx[i]);
                    // What a flow's number means may have changed.
                    datagrams.last = None;
                    udp.and_then(|udp| datagrams.push(i, udp))
                }
            };
            if let Some(payload) = payload {
                self.endpoint.lead_handed(&mut leads, tag, &rx[i].data_mut()[payload]);
            }
        }
        self.handle(now, &mut rx, &datagrams, &leads, seen);
        self.datapath.release(&mut rx);
        true
    }

    /// Adds the UDP datagram in frame `i` of a burst, and returns the position of its payload. Handles any other frame.
    #[inline]
    fn receive_frame(
        &mut self,
        now: Instant,
        rx: &mut Burst<D::Rx>,
        i: usize,
        datagrams: &mut Datagrams,
    ) -> Option<Range<usize>> {
        if let Some(known) = self.net.receive_known(&mut rx[i]) {
            return datagrams.push_known(&self.net, i, known);
        }
        let udp = self.receive_other(now, rx, i);
        // What a flow's number means may have changed.
        datagrams.last = None;
        datagrams.push(i, udp?)
    }

    /// Returns the UDP datagram in frame `i` of a burst, which belongs to no known flow, and handles any other frame.
    #[inline(never)]
    fn receive_other(&mut self, now: Instant, rx: &mut Burst<D::Rx>, i: usize) -> Option<UdpDatagram> {
        match self.net.receive_unknown(now, &mut rx[i]) {
            Received::Udp(udp) => return Some(udp),
            Received::PacketTooBig { quote, max_udp_payload: max } => {
                let Quote { local, remote, len, payload } = quote;
                let quoted = &rx[i].data_mut()[payload];
                if !self.endpoint.packet_too_big(now, &TooBig { local, remote, max, len, quoted }) {
                    let quoted = Note::quote(quoted);
                    self.pass_on(now, &Note::TooBig { local, remote, max, len, quoted });
                }
            }
            Received::PortUnreachable { quote } => self.undelivered(now, &quote, &mut rx[i], Unreachable::PortClosed),
            Received::HostUnreachable { quote } => self.undelivered(now, &quote, &mut rx[i], Unreachable::NoPath),
            Received::Consumed | Received::Dropped(_) => {}
        }
        None
    }

    /// Passes datagrams to the engine.
    fn handle(
        &mut self,
        now: Instant,
        rx: &mut Burst<D::Rx>,
        datagrams: &Datagrams,
        leads: &Leads,
        seen: &mut impl Observe,
    ) {
        // With many connections, most are not in the CPU's caches.
        if self.endpoint.connection_count() > FEW {
            self.endpoint.prefetch(leads);
        }
        let mut run = ArrayVec::<_, BURST>::new();
        let (mut frames, mut at) = (rx.iter_mut(), 0);
        let Datagrams { found, metas, .. } = datagrams;
        for (datagram, lead) in found.iter().zip(leads.iter()) {
            let Some(frame) = frames.nth(usize::from(datagram.frame) - at) else { break };
            at = usize::from(datagram.frame) + 1;
            let meta = &metas[usize::from(datagram.meta)];
            run.push(Datagram::new(meta, &mut frame.data_mut()[datagram.payload()], *lead));
        }
        seen.at(Mark::RunBegins(run.len()));
        let news = self.endpoint.handle_run(now, &mut run);
        seen.at(Mark::RunEnds);
        self.pass_on_resets(now);
        if news {
            let arrivals: ArrayVec<_, BURST> = run.iter().map(|datagram| datagram.arrival).collect();
            drop(run);
            for (datagram, arrival) in found.iter().zip(arrivals) {
                let remote = metas[usize::from(datagram.meta)].remote.ip();
                self.note_origin(now, arrival, remote, &mut rx[usize::from(datagram.frame)]);
            }
        }
    }

    /// Notes the MAC address that a datagram came from. Answers to unvalidated addresses go back to it, and unknown
    /// neighbours are solicited there by unicast, so strangers cannot cause broadcasts.
    #[cold]
    fn note_origin(&mut self, now: Instant, arrival: Arrival, remote: IpAddr, frame: &mut D::Rx) {
        let Some(via) = frame.data_mut().get(6..12).and_then(|mac| mac.first_chunk::<6>()).copied() else { return };
        match arrival {
            Arrival::Answered(answer) => self.endpoint.set_answer_origin(answer, via),
            Arrival::Accepted => self.net.heard_from(now, remote, via),
            Arrival::Handled => {}
        }
    }

    /// Handles an ICMP message that a datagram was not delivered. The application is notified if the engine finds the
    /// message credible.
    fn undelivered(&mut self, now: Instant, quote: &Quote, frame: &mut D::Rx, why: Unreachable) {
        let Quote { local, remote, len, ref payload } = *quote;
        let quoted = &frame.data_mut()[payload.clone()];
        let port_closed = why == Unreachable::PortClosed;
        if self.endpoint.is_undelivered(&Undelivered { local, remote, port_closed, len, quoted }) {
            self.unreachable(now, remote.ip(), why);
        } else {
            let quoted = Note::quote(quoted);
            self.pass_on(now, &Note::Undelivered { local, remote, why, len, quoted });
        }
    }
}
