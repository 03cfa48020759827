//! Making requests and receiving answers.

use crate::base::time::Instant;
use crate::mem::PinnedBuf;
use crate::proto::perf::client::PerfClient;
use crate::proto::perf::client::link::{Link, Stage};
use crate::proto::perf::client::request::Request;
use crate::proto::perf::failure::PerfFailure;
use crate::quic::{Conn, ConnId, Dir, OpenError, StreamId};
use crate::runtime::Context;

/// The outcome of starting a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Started {
    /// It was sent, or waits for a stream on its connection.
    Yes,
    /// The connection has ended; another one may take the request.
    Over,
    /// It failed because there is no memory.
    NoMemory,
}

impl PerfClient {
    /// Starts due requests while connections have room.
    pub(super) fn feed(&mut self, cx: &mut Context<'_>) {
        let now = cx.now();
        while let Some(id) = self.ready.front().copied()
            && let Some(due) = self.schedule.as_ref().and_then(|schedule| schedule.next(now))
        {
            self.in_flight += 1;
            let started = self.start(cx, id, due);
            self.ready.pop_front();
            if started == Started::Over {
                self.in_flight -= 1;
            } else if let Some(schedule) = &mut self.schedule {
                schedule.issue(due);
            }
            let Some(link) = self.links.get_mut(&id) else { continue };
            link.listed = started != Started::Over && link.has_room(self.plan.streams);
            if link.listed {
                self.ready.push_back(id);
            }
            // Memory cannot come back before the next turn.
            if started == Started::NoMemory {
                break;
            }
        }
        let waiting = self.backlog(now);
        self.results.max_waiting = self.results.max_waiting.max(waiting);
    }

    /// Starts the only request of a new connection: as 0-RTT data, or as soon as there are streams.
    pub(super) fn start_early(&mut self, cx: &mut Context<'_>, id: ConnId, due: Instant) {
        self.in_flight += 1;
        if self.start(cx, id, due) == Started::Over {
            self.in_flight -= 1;
        }
    }

    /// Starts a request on a connection, or queues it there until a stream is available.
    fn start(&mut self, cx: &mut Context<'_>, id: ConnId, due: Instant) -> Started {
        let Some(mut conn) = cx.conn(id) else { return Started::Over };
        match conn.open(Dir::Bidi) {
            Ok(stream) if self.launch(&mut conn, id, stream, due) => Started::Yes,
            Ok(_) => Started::NoMemory,
            Err(OpenError::StreamsExhausted) => {
                let Some(link) = self.links.get_mut(&id) else { return Started::Over };
                link.queued.push_back(due);
                Started::Yes
            }
            Err(OpenError::Closed) => Started::Over,
        }
    }

    /// Starts queued requests when the server allows more streams.
    pub(super) fn start_queued(&mut self, cx: &mut Context<'_>, id: ConnId) {
        let Some(mut conn) = cx.conn(id) else { return };
        while let Some(due) = self.links.get(&id).and_then(|link| link.queued.front().copied()) {
            let Ok(stream) = conn.open(Dir::Bidi) else { return };
            if let Some(link) = self.links.get_mut(&id) {
                link.queued.pop_front();
            }
            let _ = self.launch(&mut conn, id, stream, due);
        }
    }

    /// Sends a request on its new stream; returns `false` if it failed.
    fn launch(&mut self, conn: &mut Conn<'_>, id: ConnId, stream: StreamId, due: Instant) -> bool {
        let Some(link) = self.links.get_mut(&id) else { return false };
        let mut request = Request::new(due, self.shape.window());
        let refused = match self.buffers.take() {
            Ok(bufs) => conn.provide_receive_buffers(stream, bufs).err().map(|refused| {
                refused.bufs.into_iter().for_each(|buf| self.buffers.put(buf));
                refused.kind.to_string()
            }),
            Err(error) => Some(error.to_string()),
        };
        if refused.is_none() {
            request.pump(&self.template, conn, stream);
        }
        link.requests.insert(stream, request);
        let Some(reason) = refused else { return true };
        self.fail(conn, id, stream, PerfFailure::Memory(reason));
        false
    }

    /// Handles a returned buffer with `valid` bytes from `offset` of an answer, and provides it again if more is to
    /// come.
    pub(super) fn on_buffer(
        &mut self,
        cx: &mut Context<'_>,
        id: ConnId,
        stream: StreamId,
        buf: PinnedBuf,
        (offset, valid): (u64, usize),
    ) {
        let request = self.links.get_mut(&id).and_then(|link| link.requests.get_mut(&stream));
        let Some(request) = request else { return self.buffers.put(buf) };
        let new = request.receive(offset + valid as u64);
        if self.plan.verify {
            request.verify(offset, &buf[..valid]);
        }
        let len = buf.len();
        let again = valid == len && request.wants_more(&self.template);
        let refused = match cx.conn(id).filter(|_| again) {
            Some(mut conn) => match conn.provide_receive_buffers(stream, vec![buf]) {
                Ok(()) => {
                    request.add(len);
                    Vec::new()
                }
                Err(refused) => refused.bufs,
            },
            None => vec![buf],
        };
        refused.into_iter().for_each(|buf| self.buffers.put(buf));
        self.count_down(cx.now(), new);
    }

    /// Counts the progress of an answer.
    pub(super) fn on_progress(&mut self, cx: &Context<'_>, id: ConnId, stream: StreamId, contiguous: u64) {
        if let Some(request) = self.links.get_mut(&id).and_then(|link| link.requests.get_mut(&stream)) {
            let new = request.receive(contiguous);
            self.count_down(cx.now(), new);
        }
    }

    /// Sends more of an upload.
    pub(super) fn on_writable(&mut self, cx: &mut Context<'_>, id: ConnId, stream: StreamId) {
        let Some(mut conn) = cx.conn(id) else { return };
        if let Some(request) = self.links.get_mut(&id).and_then(|link| link.requests.get_mut(&stream)) {
            request.pump(&self.template, &mut conn, stream);
        }
    }

    /// Handles the end of an answer of `size` bytes.
    pub(super) fn on_answer(&mut self, cx: &mut Context<'_>, id: ConnId, stream: StreamId, size: u64) {
        let now = cx.now();
        let wanted = self.plan.download;
        let Some(request) = self.links.get(&id).and_then(|link| link.requests.get(&stream)) else { return };
        let (due, wrong) = (request.due, request.wrong);
        let failure = match wrong {
            _ if size != wanted => Some(PerfFailure::WrongLength { got: size, wanted }),
            Some(offset) => Some(PerfFailure::WrongBytes { offset }),
            None => None,
        };
        if let Some(failure) = failure {
            if let Some(mut conn) = cx.conn(id) {
                self.fail(&mut conn, id, stream, failure);
            }
            return;
        }
        if let Some(mut request) = self.remove(id, stream) {
            // The answer implies that the whole request has arrived.
            self.count_up(now, request.acknowledge(u64::MAX, &self.template));
        }
        self.complete(now, due);
    }

    /// Counts `acked` acknowledged bytes of an upload.
    pub(super) fn on_send_done(&mut self, cx: &Context<'_>, id: ConnId, stream: StreamId, acked: u64) {
        if let Some(request) = self.links.get_mut(&id).and_then(|link| link.requests.get_mut(&stream)) {
            let new = request.acknowledge(acked, &self.template);
            self.count_up(cx.now(), new);
        }
    }

    /// Counts a completed request.
    pub(super) fn complete(&mut self, now: Instant, due: Instant) {
        self.counts.requests += 1;
        self.last_done = now;
        let Some(schedule) = self.schedule.as_ref().filter(|schedule| schedule.counts(due)) else { return };
        self.results.latency.record(now.saturating_since(due).as_nanos() as u64);
        self.results.requests += u64::from(schedule.is_open(now));
    }

    /// Fails a request and stops its stream.
    pub(super) fn fail(&mut self, conn: &mut Conn<'_>, id: ConnId, stream: StreamId, failure: PerfFailure) {
        if let Some(request) = self.remove(id, stream) {
            // Either direction may have ended already. Buffers come back in events, if they have not yet.
            let _ = conn.reset(stream, 0);
            let _ = conn.stop_sending(stream, 0);
            self.count_errors(&[request.due]);
            self.results.fail(failure);
        }
    }

    /// Removes a request; its connection can take another, or is closed if it was opened for this one.
    fn remove(&mut self, id: ConnId, stream: StreamId) -> Option<Request> {
        let link = self.links.get_mut(&id)?;
        let request = link.requests.remove(&stream)?;
        self.in_flight -= 1;
        if self.plan.handshakes {
            if link.stage == Stage::Ready && link.is_idle() {
                self.leaving.push_back((id, link.sent));
            }
        } else if !link.listed && link.has_room(self.plan.streams) {
            link.listed = true;
            self.ready.push_back(id);
        }
        Some(request)
    }

    /// Counts failed requests, given their due times.
    pub(super) fn count_errors(&mut self, dues: &[Instant]) {
        self.counts.errors += dues.len() as u64;
        self.results.errors += self.measured(dues.iter().copied());
    }

    /// The number of these requests that are measured.
    pub(super) fn measured(&self, dues: impl Iterator<Item = Instant>) -> u64 {
        self.schedule.as_ref().map_or(0, |schedule| dues.filter(|due| schedule.counts(*due)).count() as u64)
    }

    /// Stops unlimited answers, and counts them as complete.
    pub(super) fn stop_answers(&mut self, cx: &mut Context<'_>) {
        let mut ids: Vec<ConnId> = self.links.keys().copied().collect();
        ids.sort_unstable();
        for id in ids {
            let Some(mut conn) = cx.conn(id) else { continue };
            let Some(link) = self.links.get_mut(&id) else { continue };
            let requests = std::mem::take(&mut link.requests);
            self.in_flight -= requests.len() as u64;
            for (stream, request) in requests {
                let _ = conn.stop_sending(stream, 0);
                self.results.requests += self.measured(std::iter::once(request.due));
                self.counts.requests += 1;
            }
        }
    }

    /// Returns whether stopped streams still wait for the server's acknowledgement.
    pub(super) fn is_stopping(&self, cx: &mut Context<'_>) -> bool {
        self.links
            .iter()
            .filter(|(_, link)| link.stage == Stage::Ready)
            .any(|(id, _)| cx.conn(*id).is_some_and(|conn| conn.stream_count() > 0))
    }

    /// Abandons a connection's requests; returns their due times.
    pub(super) fn abandon(&mut self, link: &mut Link) -> Vec<Instant> {
        let dues: Vec<Instant> = link.dues().collect();
        link.requests.clear();
        link.queued.clear();
        self.in_flight -= dues.len() as u64;
        dues
    }
}
