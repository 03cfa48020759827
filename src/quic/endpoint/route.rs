//! Routing: which connection, or which core, a datagram belongs to.

use arrayvec::ArrayVec;

use crate::mem::prefetch_object;
use crate::quic::cid::{CidInfo, RawCid};
use crate::quic::connection::{Incoming, RxMeta};
use crate::quic::endpoint::lookup::Known;
use crate::quic::endpoint::{Arrival, Endpoint};
use crate::quic::event::ConnId;
use crate::wire::quic::header;

/// Maximum number of datagrams that are routed together.
pub const RUN: usize = 32;

/// The contents of a connection ID for the core named in it: index, generation and sequence number.
pub type Tag = [u32; 3];

/// Where a datagram belongs, according to its Destination Connection ID.
#[derive(Clone, Copy, Debug, Default)]
pub enum Lead {
    /// To a connection of this core, which may have ended.
    Here(Known),
    /// To another core.
    Core(u8, Tag),
    /// To no known connection. It is handled by the core that received it.
    #[default]
    Unknown,
}

impl Lead {
    fn conn(&self) -> Option<ConnId> {
        match self {
            Self::Here(known) => Some(known.id),
            _ => None,
        }
    }
}

/// A received datagram, for [`Endpoint::handle_run`].
#[derive(Debug)]
pub struct Datagram<'a> {
    /// Its addresses.
    pub meta: &'a RxMeta,
    /// The UDP payload; it is decrypted from where it lies.
    pub data: &'a mut [u8],
    /// Where it belongs.
    pub lead: Lead,
    /// The result of handling it.
    pub arrival: Arrival,
}

impl<'a> Datagram<'a> {
    /// A datagram that has been routed.
    #[inline]
    pub fn new(meta: &'a RxMeta, data: &'a mut [u8], lead: Lead) -> Self {
        Self { meta, data, lead, arrival: Arrival::Handled }
    }

    #[inline]
    pub(super) fn leads_to(&self, known: Known) -> bool {
        matches!(self.lead, Lead::Here(own) if own == known)
    }
}

impl Incoming for Datagram<'_> {
    #[inline]
    fn data(&self) -> &[u8] {
        self.data
    }

    #[inline]
    fn parts(&mut self) -> (&RxMeta, &mut [u8]) {
        (self.meta, self.data)
    }
}

/// The leads of the datagrams of a burst, in order.
#[derive(Debug, Default)]
pub struct Leads {
    leads: ArrayVec<Lead, RUN>,
    /// Datagrams whose connection IDs have yet to be decoded.
    sealed: ArrayVec<Sealed, RUN>,
    /// These IDs. Successive datagrams with the same one share it.
    ids: ArrayVec<RawCid, RUN>,
}

/// A datagram whose connection ID has yet to be decoded.
#[derive(Clone, Copy, Debug)]
struct Sealed {
    /// Its index in [`Leads::leads`].
    lead: u8,
    /// The index of its connection ID in [`Leads::ids`].
    id: u8,
    /// Whether it has a long header.
    long: bool,
}

impl Leads {
    /// An empty list.
    #[inline]
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends a lead.
    #[inline]
    pub fn push(&mut self, lead: Lead) {
        self.leads.push(lead);
    }

    fn push_sealed(&mut self, dcid: RawCid, long: bool) {
        if self.ids.last() != Some(&dcid) {
            self.ids.push(dcid);
        }
        self.sealed.push(Sealed { lead: self.leads.len() as u8, id: self.ids.len() as u8 - 1, long });
        self.leads.push(Lead::Unknown);
    }

    /// Removes and returns all leads.
    pub fn take(&mut self) -> impl Iterator<Item = Lead> + use<> {
        std::mem::take(&mut self.leads).into_iter()
    }
}

impl std::ops::Deref for Leads {
    type Target = [Lead];

    #[inline]
    fn deref(&self) -> &[Lead] {
        &self.leads
    }
}

impl Endpoint {
    /// Appends the lead of one more datagram, which is complete after [`Endpoint::route`].
    #[inline]
    pub fn lead(&self, leads: &mut Leads, data: &[u8]) {
        match self.ids.short_dcid(data) {
            Some(dcid) => match self.lookup.recent(dcid) {
                Some(known) => leads.push(Lead::Here(known)),
                None => leads.push_sealed(dcid, false),
            },
            None if self.config.cores > 1 => self.lead_long(leads, data),
            None => leads.push(Lead::Unknown),
        }
    }

    /// Packets with long headers have an ID of ours, too, once the peer knows one. Those of this core are nevertheless
    /// looked up later, along with the IDs that clients choose for their first packets.
    #[inline(never)]
    fn lead_long(&self, leads: &mut Leads, data: &[u8]) {
        let long = data.first().is_some_and(|first| first & 0x80 != 0);
        match header::raw_dcid(data).filter(|_| long).and_then(|dcid| self.ids.raw(dcid)) {
            Some(dcid) => leads.push_sealed(dcid, true),
            None => leads.push(Lead::Unknown),
        }
    }

    /// Appends the lead of a datagram that another core has handed over, with the tag that it gave it.
    pub fn lead_handed(&self, leads: &mut Leads, tag: Option<Tag>, data: &[u8]) {
        leads.push(match tag {
            Some([index, generation, sequence]) if self.ids.short_dcid(data).is_some() => {
                let id = ConnId::new(index, generation).on(self.config.core);
                Lead::Here(Known { id, sequence: sequence as u16 })
            }
            _ => Lead::Unknown,
        });
    }

    /// Decodes the connection IDs that were not cached, several at a time.
    #[inline]
    pub fn route(&mut self, leads: &mut Leads) {
        if !leads.sealed.is_empty() {
            self.route_sealed(leads);
        }
    }

    #[inline(never)]
    fn route_sealed(&mut self, leads: &mut Leads) {
        let mut read = ArrayVec::<_, RUN>::new();
        self.ids.read_all(&leads.ids, |info| read.push(info));
        let found: ArrayVec<_, RUN> =
            leads.ids.drain(..).zip(read).map(|(dcid, info)| self.judge(dcid, info)).collect();
        for Sealed { lead, id, long } in leads.sealed.drain(..) {
            leads.leads[usize::from(lead)] = match found[usize::from(id)] {
                Lead::Here(_) if long => Lead::Unknown,
                found => found,
            };
        }
    }

    /// Decodes a connection ID that is not cached.
    pub(super) fn read(&mut self, dcid: RawCid) -> Lead {
        self.judge(dcid, self.ids.read(dcid))
    }

    /// Where datagrams with the ID `dcid` belong, which was decoded to `info`. Caches it if that is a connection of this
    /// core; nobody else can make such an ID.
    fn judge(&mut self, dcid: RawCid, info: Option<CidInfo>) -> Lead {
        match info {
            Some(info) if info.core == self.config.core => {
                let Some(id) = self.table.find(info.index, info.generation) else { return Lead::Unknown };
                let known = Known { id, sequence: info.sequence };
                self.lookup.remember(dcid, known);
                Lead::Here(known)
            }
            Some(info) if info.core < self.config.cores => {
                Lead::Core(info.core, [info.index, info.generation, info.sequence.into()])
            }
            _ => Lead::Unknown,
        }
    }

    /// Prefetches what handling the datagrams will need, in three passes, so that the waits for memory overlap.
    pub fn prefetch(&self, leads: &Leads) {
        let conns = || leads.iter().filter_map(Lead::conn).filter_map(|id| self.table.peek(id));
        conns().for_each(prefetch_object);
        conns().for_each(|conn| conn.prefetch_near());
        conns().for_each(|conn| conn.prefetch_far());
    }
}

#[cfg(test)]
mod tests;
