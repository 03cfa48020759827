//! Routing: which connection, or which core, a datagram belongs to.

use arrayvec::ArrayVec;

use crate::mem::prefetch_object;
use crate::quic::cid::RawCid;
use crate::quic::connection::RxMeta;
use crate::quic::endpoint::lookup::Known;
use crate::quic::endpoint::{Arrival, Endpoint};
use crate::quic::event::ConnId;

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
    /// Converts the tag of a datagram that another core has handed over.
    pub fn handed(core: u8, tag: Option<Tag>) -> Self {
        tag.map_or(Self::Unknown, |[index, generation, sequence]| {
            Self::Here(Known { id: ConnId::new(index, generation).on(core), sequence: sequence as u16 })
        })
    }

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
}

/// The leads of the datagrams of a burst, in order.
#[derive(Debug, Default)]
pub struct Leads {
    leads: ArrayVec<Lead, RUN>,
    /// Connection IDs that have yet to be decoded, with their indexes in `leads`.
    sealed: ArrayVec<(usize, RawCid), RUN>,
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
        let lead = match self.ids.short_dcid(data) {
            None => Lead::Unknown,
            Some(dcid) => match self.lookup.recent(dcid) {
                Some(known) => Lead::Here(known),
                None => {
                    leads.sealed.push((leads.leads.len(), dcid));
                    Lead::Unknown
                }
            },
        };
        leads.leads.push(lead);
    }

    /// Decodes the connection IDs that were not cached.
    #[inline]
    pub fn route(&mut self, leads: &mut Leads) {
        for (i, dcid) in leads.sealed.drain(..) {
            leads.leads[i] = self.read(dcid);
        }
    }

    pub(super) fn read(&mut self, dcid: RawCid) -> Lead {
        match self.ids.read(dcid) {
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
        conns().for_each(|conn| prefetch_object(conn));
        conns().for_each(|conn| conn.prefetch_near());
        conns().for_each(|conn| conn.prefetch_far());
    }
}
