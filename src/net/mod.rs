//! Layer `net`: the network layer of one core: neighbours, routes, header templates, ICMP.
//!
//! [`Net::receive`] classifies a received frame: UDP for us is passed on, anything else is handled here or dropped and
//! counted. [`Net::send`] prepends headers to a payload; in the steady state that is one table lookup, one copy, and
//! the checksums. [`Net::poll`] returns frames that the network layer itself has to send.
//!
//! The device must not strip VLAN tags, and with IPv6 it must receive multicasts (all of them, or at least the
//! solicited-node groups). On a veth whose other end is the kernel, that end's offloads must be off: otherwise frames
//! arrive with incomplete checksums, which are dropped here as wrong.
//!
//! Not implemented: reassembly of fragments, router discovery (advertisements are counted), redirects.
#![forbid(unsafe_code)]

mod addressing;
mod cidr;
mod claim;
mod config;
mod control;
mod flows;
mod group;
mod listener;
mod neighbor;
mod news;
mod outbox;
mod packet;
mod pending;
mod ports;
mod receive;
mod route;
mod send;
mod stack;
mod stats;
mod template;
#[cfg(test)]
mod tests;

pub use cidr::{Cidr, CidrError};
pub use config::{Detect, NetConfig, NetError, Route};
pub use news::{GroupNews, Overheard};
pub use packet::{FlowDatagram, Quote, UdpDatagram};
pub use receive::Received;
pub use route::{RouteError, Sources, WayError};
pub use send::{Sent, Standing};
pub use stack::{Net, NetEvent};
pub use stats::{Drops, NetDrop, NetStats};
