//! One connection of a client.

use std::collections::VecDeque;

use crate::base::id_map::IdMap;
use crate::base::time::Instant;
use crate::proto::perf::client::request::Request;
use crate::proto::perf::failure::PerfFailure;
use crate::quic::StreamId;

/// How far a connection has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Handshake,
    Ready,
    /// It was closed; its memory is coming back.
    Closing,
}

#[derive(Debug)]
pub(super) struct Link {
    pub(super) stage: Stage,
    /// When it was to start.
    pub(super) due: Instant,
    pub(super) requests: IdMap<StreamId, Request>,
    /// Requests that wait for the server to allow another stream, by when they were due.
    pub(super) queued: VecDeque<Instant>,
    /// It is in the list of those that take another request.
    pub(super) listed: bool,
    /// Why it is being closed, if not because it is done.
    pub(super) failure: Option<PerfFailure>,
}

impl Link {
    pub(super) fn new(due: Instant) -> Self {
        Self {
            stage: Stage::Handshake,
            due,
            requests: IdMap::default(),
            queued: VecDeque::new(),
            listed: false,
            failure: None,
        }
    }

    /// Whether it takes another request when it may have `streams`.
    pub(super) fn has_room(&self, streams: u32) -> bool {
        self.stage == Stage::Ready && self.requests.len() + self.queued.len() < streams as usize
    }

    /// When each of its requests was due.
    pub(super) fn dues(&self) -> impl Iterator<Item = Instant> + '_ {
        self.requests.values().map(|request| request.due).chain(self.queued.iter().copied())
    }
}
