//! The connections of one core, by index and generation.

use std::collections::VecDeque;

use crate::quic::cid::{CidInfo, MAX_INDEX};
use crate::quic::connection::Connection;
use crate::quic::event::ConnId;

#[derive(Debug)]
struct Slot {
    /// Name of the connection in this place, or of the next one. Names are compared as a whole, so that those of other
    /// cores find nothing.
    name: ConnId,
    conn: Option<Box<Connection>>,
}

/// A slab whose places have generations, so that stale names find nothing.
///
/// A name is used once. Free places are reused in the order in which they became free, so that their generations are
/// used up evenly; a place without generations left is never used again.
#[derive(Debug)]
pub(crate) struct Table {
    slots: Vec<Slot>,
    free: VecDeque<u32>,
    len: usize,
    last_generation: u32,
    core: u8,
}

impl Table {
    /// The table of `core`, whose places have generations up to `last_generation`, which is below
    /// [`CidInfo::NO_GENERATION`].
    pub(crate) fn new(last_generation: u32, core: u8) -> Self {
        debug_assert!(last_generation < CidInfo::NO_GENERATION);
        Self { slots: Vec::new(), free: VecDeque::new(), len: 0, last_generation, core }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Reserves the name of the next connection; `None` if all places that can be named are taken.
    pub(crate) fn reserve(&mut self) -> Option<ConnId> {
        let index = match self.free.pop_front() {
            Some(index) => index,
            None => {
                let index = u32::try_from(self.slots.len()).ok().filter(|index| *index <= MAX_INDEX)?;
                self.slots.push(Slot { name: ConnId::new(index, 0).on(self.core), conn: None });
                index
            }
        };
        Some(self.slots[index as usize].name)
    }

    /// Releases a reserved name that will not be used. It is not reused, as an ID may have been made of it.
    pub(crate) fn cancel(&mut self, id: ConnId) {
        self.recycle(id.index());
    }

    pub(crate) fn insert(&mut self, id: ConnId, conn: Box<Connection>) {
        let slot = &mut self.slots[id.index() as usize];
        debug_assert!(slot.conn.is_none() && slot.name == id);
        slot.conn = Some(conn);
        self.len += 1;
    }

    /// A connection, for anything but sending. This clears its `steady` state.
    pub(crate) fn get(&mut self, id: ConnId) -> Option<&mut Connection> {
        let conn = self.get_to_send(id)?;
        conn.steady = false;
        Some(conn)
    }

    /// A connection, to ask it for its next datagram.
    pub(crate) fn get_to_send(&mut self, id: ConnId) -> Option<&mut Connection> {
        let slot = self.slots.get_mut(id.index() as usize)?;
        if slot.name != id {
            return None;
        }
        slot.conn.as_deref_mut()
    }

    pub(crate) fn peek(&self, id: ConnId) -> Option<&Connection> {
        let slot = self.slots.get(id.index() as usize)?;
        if slot.name == id { slot.conn.as_deref() } else { None }
    }

    /// The connection with this index and generation.
    pub(crate) fn find(&self, index: u32, generation: u32) -> Option<ConnId> {
        let id = ConnId::new(index, generation).on(self.core);
        self.peek(id).map(|_| id)
    }

    pub(crate) fn remove(&mut self, id: ConnId) -> Option<Box<Connection>> {
        let slot = self.slots.get_mut(id.index() as usize)?;
        if slot.name != id {
            return None;
        }
        let conn = slot.conn.take()?;
        self.recycle(id.index());
        self.len -= 1;
        Some(conn)
    }

    /// Starts the next generation of a place, if there is one.
    fn recycle(&mut self, index: u32) {
        let slot = &mut self.slots[index as usize];
        let named = |generation| ConnId::new(index, generation).on(self.core);
        if slot.name.generation() < self.last_generation {
            slot.name = named(slot.name.generation() + 1);
            self.free.push_back(index);
        } else {
            slot.name = named(CidInfo::NO_GENERATION);
        }
    }

    pub(crate) fn ids(&self) -> impl Iterator<Item = ConnId> + '_ {
        self.slots.iter().filter(|slot| slot.conn.is_some()).map(|slot| slot.name)
    }
}

#[cfg(test)]
mod tests;
