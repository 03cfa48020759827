//! The connections of one core, found by index and generation.

use crate::quic::connection::Connection;
use crate::quic::event::ConnId;

#[derive(Debug, Default)]
struct Slot {
    generation: u32,
    conn: Option<Box<Connection>>,
}

/// A slab whose places are told apart by generation, so that stale names find nothing.
#[derive(Debug, Default)]
pub(crate) struct Table {
    slots: Vec<Slot>,
    free: Vec<u32>,
    len: usize,
}

impl Table {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The name of the next connection to be inserted.
    pub(crate) fn reserve(&mut self) -> ConnId {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            self.slots.len() as u32 - 1
        });
        ConnId::new(index, self.slots[index as usize].generation)
    }

    /// Gives a reserved name back.
    pub(crate) fn cancel(&mut self, id: ConnId) {
        self.free.push(id.index());
    }

    pub(crate) fn insert(&mut self, id: ConnId, conn: Box<Connection>) {
        let slot = &mut self.slots[id.index() as usize];
        debug_assert!(slot.conn.is_none() && slot.generation == id.generation());
        slot.conn = Some(conn);
        self.len += 1;
    }

    /// A connection for anything but sending: what it found out about what is due may be wrong afterwards.
    pub(crate) fn get(&mut self, id: ConnId) -> Option<&mut Connection> {
        let conn = self.get_to_send(id)?;
        conn.steady = false;
        Some(conn)
    }

    /// A connection that is asked for its next datagram.
    pub(crate) fn get_to_send(&mut self, id: ConnId) -> Option<&mut Connection> {
        let slot = self.slots.get_mut(id.index() as usize)?;
        if slot.generation != id.generation() {
            return None;
        }
        slot.conn.as_deref_mut()
    }

    pub(crate) fn peek(&self, id: ConnId) -> Option<&Connection> {
        let slot = self.slots.get(id.index() as usize)?;
        if slot.generation == id.generation() { slot.conn.as_deref() } else { None }
    }

    pub(crate) fn contains(&self, id: ConnId) -> bool {
        self.peek(id).is_some()
    }

    /// By what a connection ID carries: the index and the low half of the generation.
    pub(crate) fn find(&self, index: u32, generation: u16) -> Option<ConnId> {
        let slot = self.slots.get(index as usize)?;
        (slot.generation as u16 == generation && slot.conn.is_some()).then(|| ConnId::new(index, slot.generation))
    }

    pub(crate) fn remove(&mut self, id: ConnId) -> Option<Box<Connection>> {
        let slot = self.slots.get_mut(id.index() as usize)?;
        if slot.generation != id.generation() {
            return None;
        }
        let conn = slot.conn.take()?;
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(id.index());
        self.len -= 1;
        Some(conn)
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Connection> {
        self.slots.iter_mut().filter_map(|slot| {
            let conn = slot.conn.as_deref_mut()?;
            conn.steady = false;
            Some(conn)
        })
    }

    pub(crate) fn ids(&self) -> impl Iterator<Item = ConnId> + '_ {
        let full = self.slots.iter().enumerate().filter(|(_, slot)| slot.conn.is_some());
        full.map(|(index, slot)| ConnId::new(index as u32, slot.generation))
    }
}
