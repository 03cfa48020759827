//! Layer `net`: one core's network layer: neighbours, routes, header templates, ICMP.
//!
//! [`Net::receive`] looks at a received frame: UDP for us is handed on, everything else is handled or a
//! counted drop. [`Net::send`] puts headers in front of a payload; in the steady state that is one
//! table look-up, one copy, and the checksums. [`Net::poll`] gives the frames that `net` itself has to send.
//!
//! What the device has to be set up for: VLAN tags are not stripped, and with IPv6 multicasts are
//! received (all of them, or at least the solicited-node groups). On a veth whose other end is the
//! kernel, that end's offloads have to be off: otherwise frames arrive with unfinished checksums, which
//! are dropped here as wrong.
//!
//! What is not done: reassembly of fragments, router discovery (advertisements are counted), redirects.
#![forbid(unsafe_code)]

mod addressing;
mod cidr;
mod claim;
mod config;
mod control;
mod flows;
mod listener;
mod neighbor;
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
pub use packet::{Quote, UdpDatagram};
pub use receive::Received;
pub use route::{RouteError, Sources, WayError};
pub use send::{Sent, Standing};
pub use stack::{Net, NetEvent};
pub use stats::{Drops, NetDrop, NetStats};
