//! What all connections of a core share while one of them works.

use crate::quic::config::EarlyDataServer;
use crate::quic::connection::paths::Elsewhere;
use crate::quic::connection::sent::{FrameLists, SentFrame, SentFrames};
use crate::quic::connection::waiting::Kept;
use crate::quic::guest::Guests;
use crate::quic::recovery::SpaceId;
use crate::quic::tls::Tickets;
use crate::quic::token::AddressTokens;
use crate::quic::trace::Tracing;

/// Lists that a connection needs temporarily. All connections of a core share one set, which keeps its capacity.
#[derive(Debug)]
pub(crate) struct Scratch {
    /// Packets acknowledged by an ACK frame, and packets lost.
    pub(super) acked: Vec<(u64, SentFrames)>,
    pub(super) lost: Vec<(SpaceId, u64, SentFrames)>,
    pub(super) lists: FrameLists,
    /// Frames of the packet being built.
    pub(super) building: Vec<SentFrame>,
    /// Frames that a probe repeats.
    pub(super) repeating: Vec<SentFrame>,
    /// Memory limit of packets that arrived before their keys.
    pub(super) kept: Kept,
    /// While a datagram is handled that came by another path than the one in use.
    pub(super) elsewhere: Option<Elsewhere>,
    /// Calls to code of the application.
    pub(crate) guests: Guests,
    /// Makes and reads address tokens.
    pub(crate) tokens: AddressTokens,
    /// On a server: makes and reads session tickets.
    pub(crate) tickets: Option<Box<Tickets>>,
    /// On a server: decides about 0-RTT.
    pub(crate) early_data: Option<EarlyDataServer>,
    /// Who is told what happens, if anyone is.
    pub(crate) tracing: Option<Box<Tracing>>,
}

impl Scratch {
    pub(crate) fn new(tokens: AddressTokens) -> Self {
        Self {
            acked: Vec::new(),
            lost: Vec::new(),
            lists: FrameLists::default(),
            building: Vec::new(),
            repeating: Vec::new(),
            kept: Kept::default(),
            elsewhere: None,
            guests: Guests::default(),
            tokens,
            tickets: None,
            early_data: None,
            tracing: None,
        }
    }
}
