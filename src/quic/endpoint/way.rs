//! What the network layer and the engine tell each other about the way to peers.

use std::net::IpAddr;

use crate::quic::connection::{Connection, PeerStanding};
use crate::quic::endpoint::{Endpoint, Origin};
use crate::quic::event::ConnId;

impl Endpoint {
    /// Says where the datagram came from that [`Endpoint::handle_datagram`] has just taken in and found
    /// [`Arrival::Answered`](super::Arrival::Answered). [`Endpoint::answer_origin`] gives it back when the answer is sent.
    pub fn set_answer_origin(&mut self, origin: Origin) {
        self.answers.set_origin(origin);
    }

    /// Where the cause of the answer came from that [`Endpoint::poll_transmit`] wrote last.
    pub fn answer_origin(&self) -> Option<Origin> {
        self.answers.written_origin()
    }

    /// What is known of the way to a connection's peer; `None` when the connection is gone.
    pub fn standing(&self, id: ConnId) -> Option<PeerStanding> {
        self.table.peek(id).map(Connection::standing)
    }

    /// The next peer that sends no acknowledgements in spite of several probes in a row (RFC 9002 §6.2). Whoever knows the
    /// way there should see whether it still leads there (RFC 4861 §7.3.1).
    pub fn poll_doubt(&mut self) -> Option<IpAddr> {
        self.doubts.pop()
    }
}
