//! One connection of a client.

use std::collections::VecDeque;

use crate::base::id_map::IdMap;
use crate::base::time::Instant;
use crate::proto::perf::client::request::Request;
use crate::proto::perf::failure::PerfFailure;
use crate::quic::StreamId;

/// The state of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Handshake,
    Ready,
    /// It was closed, and its memory is coming back.
    Closing,
}

#[derive(Debug)]
pub(super) struct Link {
    pub(super) stage: Stage,
    /// When it was due to start.
    pub(super) due: Instant,
    /// The number of packets sent when the handshake was completed, before the last of it.
    pub(super) sent: u64,
    pub(super) requests: IdMap<StreamId, Request>,
    /// Requests that wait for the server to allow another stream, by their due times.
    pub(super) queued: VecDeque<Instant>,
    /// It is in the list of connections that can take another request.
    pub(super) listed: bool,
    /// The failure for which it is being closed, if any.
    pub(super) failure: Option<PerfFailure>,
}

impl Link {
    pub(super) fn new(due: Instant) -> Self {
        Self {
            stage: Stage::Handshake,
            due,
            sent: 0,
            requests: IdMap::default(),
            queued: VecDeque::new(),
            listed: false,
            failure: None,
        }
    }

    /// Returns whether it can take another request, with a limit of `streams`.
    pub(super) fn has_room(&self, streams: u32) -> bool {
        self.stage == Stage::Ready && self.requests.len() + self.queued.len() < streams as usize
    }

    /// Returns whether it has no requests.
    pub(super) fn is_idle(&self) -> bool {
        self.requests.is_empty() && self.queued.is_empty()
    }

    /// The due times of its requests.
    pub(super) fn dues(&self) -> impl Iterator<Item = Instant> + '_ {
        self.requests.values().map(|request| request.due).chain(self.queued.iter().copied())
    }
}
