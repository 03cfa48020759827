//! Handing received frames over to another core.
//!
//! RSS distributes frames by their addresses, while a connection stays on the core that accepted it. When a client moves
//! to another address, or a NAT gives it another port, its frames may arrive at the wrong core. This core hands them over
//! to the right one: the frame itself rather than a copy, in bursts, and together with its decoded connection ID
//! ([`Tag`]).

mod mesh;

use super::Burst;

pub use mesh::{Mesh, mesh};

/// What the layer above has decoded from a frame, so that the receiving core does not have to do it again.
pub type Tag = [u32; 3];

/// A received frame on its way to another core.
#[derive(Debug)]
pub struct Handed<F> {
    /// The frame.
    pub frame: F,
    /// What the sending core has decoded from it.
    pub tag: Option<Tag>,
}

/// One core's access to the bounded queues between the cores of a group.
pub trait Exchange<F> {
    /// Whether there are never any other cores, so that code for them can be compiled away.
    const ALONE: bool = false;

    /// The number of cores in the group, including this one. They are numbered from 0.
    fn cores(&self) -> u8;
    /// Hands frames over to the core `to`, from the front of `burst`. Frames for which the queue has no room stay in it.
    /// Returns the number of frames handed over.
    fn offer(&mut self, to: u8, burst: &mut Burst<Handed<F>>) -> usize;
    /// Appends frames from other cores, taking turns between them, until `burst` is full or no frame is left. Returns the
    /// number of frames appended.
    fn take(&mut self, burst: &mut Burst<Handed<F>>) -> usize;
}

/// The exchange of a core that belongs to no group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Alone;

impl<F> Exchange<F> for Alone {
    const ALONE: bool = true;

    #[inline(always)]
    fn cores(&self) -> u8 {
        1
    }

    #[inline(always)]
    fn offer(&mut self, _: u8, _: &mut Burst<Handed<F>>) -> usize {
        0
    }

    #[inline(always)]
    fn take(&mut self, _: &mut Burst<Handed<F>>) -> usize {
        0
    }
}
