//! Exchange of reachability information between the network layer and the engine.

use std::net::IpAddr;

use crate::quic::connection::{Connection, PeerStanding};
use crate::quic::endpoint::{AnswerId, Endpoint, Origin};
use crate::quic::event::ConnId;

impl Endpoint {
    /// Sets the origin of the datagram whose handling resulted in [`Arrival::Answered`](super::Arrival::Answered).
    /// [`Endpoint::answer_origin`] returns it when the answer is sent.
    pub fn set_answer_origin(&mut self, answer: AnswerId, origin: Origin) {
        self.answers.set_origin(answer, origin);
    }

    /// The origin of the datagram that caused the answer just written by [`Endpoint::poll_transmit`].
    pub fn answer_origin(&self) -> Option<Origin> {
        self.answers.written_origin()
    }

    /// What is known about the path to a connection's peer; `None` if the connection is gone.
    pub fn standing(&self, id: ConnId) -> Option<PeerStanding> {
        self.table.peek(id).map(Connection::standing)
    }

    /// The next peer that has not acknowledged several consecutive probes (RFC 9002 §6.2). The caller should check
    /// whether its link-layer address is still valid (RFC 4861 §7.3.1).
    pub fn poll_doubt(&mut self) -> Option<IpAddr> {
        self.doubts.pop()
    }
}
