//! The core's side: an application that carries out the commands of handles and reports events to them.

use std::collections::HashSet;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam::channel::{Receiver, Sender, TryRecvError};

use crate::api::handle::command::{Command, Connect, Pieces};
use crate::api::handle::held::Held;
use crate::api::handle::lent::Lending;
use crate::api::handle::outbox::Outbox;
use crate::api::handle::readable::Readable;
use crate::api::handle::{HandleEvent, Opening, Operation, Shared, Ticket};
use crate::mem::PinnedBuf;
use crate::quic::{
    ConnId, DatagramErrorKind, DatagramOptions, Dir, Event, MigrateError, OpenError, ProvideErrorKind, SendData,
    SendErrorKind, StreamError, StreamId,
};
use crate::runtime::{App, Context, Unreachable, Waker};

/// Limit of commands per turn, so that packets do not wait too long.
const COMMANDS_PER_TURN: usize = 256;

/// Minimum number of waiting events from which on peers may not cause more.
const MIN_BACKLOG: usize = 4096;

/// Default read-ahead of a pooled stream, in bytes; see [`HandleApp::with_read_ahead`].
const READ_AHEAD: usize = 256 << 10;

/// The application that runs on a core on behalf of the [`Handle`](super::Handle)s of other threads. Made by
/// [`channel`](super::channel).
pub struct HandleApp {
    commands: Receiver<Command>,
    outbox: Outbox,
    shared: Arc<Shared>,
    /// Open connections that the handles know of.
    conns: HashSet<ConnId>,
    held: Held,
    /// Streams with data to take.
    readable: Readable<(ConnId, StreamId)>,
    lending: Lending,
    /// Connections with datagrams to take.
    datagrams: Readable<ConnId>,
    /// While this many events wait, no commands are taken.
    capacity: usize,
    backlog: usize,
    backlog_code: u64,
    ending: bool,
    /// The core has ended.
    over: bool,
}

impl HandleApp {
    pub(super) fn new(
        commands: Receiver<Command>,
        events: Sender<HandleEvent>,
        shared: Arc<Shared>,
        capacity: usize,
    ) -> Self {
        Self {
            commands,
            outbox: Outbox::new(events),
            lending: Lending::new(READ_AHEAD, shared.waker.clone()),
            shared,
            conns: HashSet::new(),
            held: Held::default(),
            readable: Readable::default(),
            datagrams: Readable::default(),
            capacity,
            backlog: MIN_BACKLOG.max(16 * capacity),
            backlog_code: 0,
            ending: false,
            over: false,
        }
    }

    /// Sets how many `events` may wait behind a full ring. Beyond that, connections of peers that cause new events (by
    /// connecting or opening streams) are closed with the application error `code`. The default is 16 times the ring's
    /// capacity but at least 4096 events, and code 0.
    #[must_use]
    pub fn with_backlog(mut self, events: usize, code: u64) -> Self {
        (self.backlog, self.backlog_code) = (events, code);
        self
    }

    /// Sets how many `bytes` of a pooled stream may be with the handles, in the event ring or in chunks that are not
    /// yet dropped. Further data stays in the stream, so that flow control stops a peer whose data is not read. The
    /// default is 256 KiB; with 0, there is at most one chunk at a time.
    #[must_use]
    pub fn with_read_ahead(mut self, bytes: usize) -> Self {
        self.lending.set_ahead(bytes.max(1));
        self
    }

    /// The stop flag to pass to [`Core::run`](crate::runtime::Core::run). It is set by
    /// [`Handle::shutdown`](super::Handle::shutdown) and when the last handle is dropped; others may set it too.
    pub fn stop(&self) -> Arc<AtomicBool> {
        self.shared.stop.clone()
    }

    /// Number of events that wait behind the full ring.
    pub fn waiting_events(&self) -> usize {
        self.outbox.waiting()
    }

    /// Closes all connections, after a shutdown or when there are no handles any more.
    fn end(&mut self, cx: &mut Context<'_>) {
        if std::mem::replace(&mut self.ending, true) {
            return;
        }
        self.shared.stop.store(true, Ordering::Relaxed);
        let mut conns: Vec<_> = self.conns.iter().copied().collect();
        conns.sort_unstable();
        for conn in conns {
            cx.close(conn, 0, "shutting down");
        }
    }

    /// Admits a connection from a peer, or closes it and returns false.
    fn admit(&mut self, cx: &mut Context<'_>, conn: ConnId) -> bool {
        let code = if self.ending { 0 } else { self.backlog_code };
        if self.ending || self.outbox.waiting() >= self.backlog {
            cx.close(conn, code, "too busy");
            return false;
        }
        let Some(peer) = cx.conn(conn) else { return false };
        let accepted = HandleEvent::Accepted { conn, remote: peer.remote(), local: peer.local() };
        self.conns.insert(conn);
        self.outbox.push(accepted);
        true
    }

    fn run_commands(&mut self, cx: &mut Context<'_>) {
        for _ in 0..COMMANDS_PER_TURN {
            // If answers are not read, no more are produced.
            if self.outbox.waiting() >= self.capacity {
                return;
            }
            match self.commands.try_recv() {
                Ok(command) if self.ending => command.refuse(|event| self.outbox.push(event)),
                Ok(command) => self.run(cx, command),
                Err(TryRecvError::Empty) => return,
                Err(TryRecvError::Disconnected) => return self.end(cx),
            }
        }
    }

    fn run(&mut self, cx: &mut Context<'_>, command: Command) {
        match command {
            Command::Connect(connect) => self.connect(cx, &connect),
            Command::Open { ticket, conn, dir, opening } => self.open(cx, ticket, conn, dir, opening),
            Command::Send { conn, id, data, fin } => self.send(cx, conn, id, data, fin),
            Command::Provide { conn, id, bufs } => self.provide(cx, conn, id, bufs),
            Command::Reset { conn, id, code } => {
                let done = cx.conn(conn).map_or(Err(StreamError::Closed), |mut c| c.reset(id, code));
                self.refused(conn, id, Operation::Reset, done);
                self.retry(cx, conn, id);
            }
            Command::ResetAt { conn, id, code, reliable } => {
                let done = cx.conn(conn).map_or(Err(StreamError::Closed), |mut c| c.reset_at(id, code, reliable));
                self.refused(conn, id, Operation::ResetAt, done);
                self.retry(cx, conn, id);
            }
            Command::SendDatagram { conn, data, urgency, within } => {
                let options = DatagramOptions { urgency, deadline: within.map(|within| cx.now() + within) };
                self.send_datagram(cx, conn, data, options);
            }
            Command::ProvideDatagrams { conn, bufs } => self.provide_datagrams(cx, conn, bufs),
            Command::StopSending { conn, id, code } => {
                let done = cx.conn(conn).map_or(Err(StreamError::Closed), |mut c| c.stop_sending(id, code));
                self.refused(conn, id, Operation::StopSending, done);
            }
            Command::SetPriority { conn, id, priority } => {
                let done = cx.conn(conn).map_or(Err(StreamError::Closed), |mut c| c.set_priority(id, priority));
                self.refused(conn, id, Operation::SetPriority, done);
            }
            Command::SetNotify { conn, id, notify } => {
                let done = cx.conn(conn).map_or(Err(StreamError::Closed), |mut c| c.set_notify(id, notify));
                self.refused(conn, id, Operation::SetNotify, done);
            }
            Command::SetOutOfSpace { conn, id, what } => {
                let done = cx.conn(conn).map_or(Err(StreamError::Closed), |mut c| c.set_out_of_space(id, what));
                self.refused(conn, id, Operation::SetOutOfSpace, done);
            }
            Command::Migrate { conn, to } => {
                let done = cx.migrate(conn, to);
                self.not_moved(conn, done);
            }
            Command::Probe { conn, local } => {
                let done = cx.conn(conn).map_or(Err(MigrateError::Closed), |mut c| c.probe(local));
                self.not_moved(conn, done);
            }
            Command::RotateIds { conn } => {
                if let Some(mut conn) = cx.conn(conn) {
                    conn.rotate_ids();
                }
            }
            Command::Close { conn, code, reason } => cx.close(conn, code, &reason),
        }
    }

    fn not_moved(&mut self, conn: ConnId, done: Result<(), MigrateError>) {
        if let Err(why) = done {
            self.outbox.push(HandleEvent::MigrateRefused { conn, why });
        }
    }

    fn connect(&mut self, cx: &mut Context<'_>, connect: &Connect) {
        let Connect { ticket, config, server_name, remote } = connect;
        let ticket = *ticket;
        match cx.connect(config, server_name, *remote) {
            Ok(conn) => {
                self.conns.insert(conn);
                self.outbox.push(HandleEvent::Connecting { ticket, conn });
            }
            Err(why) => self.outbox.push(HandleEvent::ConnectFailed { ticket, why: why.into() }),
        }
    }

    fn open(&mut self, cx: &mut Context<'_>, ticket: Ticket, conn: ConnId, dir: Dir, opening: Opening) {
        let id = match cx.conn(conn).map_or(Err(OpenError::Closed), |mut c| c.open(dir)) {
            Ok(id) => id,
            Err(why) => return self.outbox.push(HandleEvent::OpenFailed { ticket, conn, why, opening }),
        };
        self.outbox.push(HandleEvent::Opened { ticket, conn, id });
        let Opening { receive, data, fin, priority, notify } = opening;
        if let Some(mut c) = cx.conn(conn) {
            // A stream takes only the settings for the directions it has.
            let _ = (c.set_priority(id, priority), c.set_notify(id, notify));
        }
        if !receive.is_empty() {
            self.provide(cx, conn, id, receive);
        }
        if data.is_some() || fin {
            self.send(cx, conn, id, Pieces::One(data.unwrap_or(SendData::Static(&[]))), fin);
        }
    }

    fn provide(&mut self, cx: &mut Context<'_>, conn: ConnId, id: StreamId, bufs: Vec<PinnedBuf>) {
        let (why, bufs) = match cx.conn(conn) {
            None => (ProvideErrorKind::Closed, bufs),
            Some(mut c) => match c.provide_receive_buffers(id, bufs) {
                Ok(()) => return,
                Err(refused) => (refused.kind, refused.bufs),
            },
        };
        self.outbox.push(HandleEvent::ProvideRefused { conn, id, bufs, why });
    }

    fn send_datagram(&mut self, cx: &mut Context<'_>, conn: ConnId, data: SendData, options: DatagramOptions) {
        let (why, data) = match cx.conn(conn) {
            None => (DatagramErrorKind::Closed, data),
            Some(mut c) => match c.send_datagram(data, options) {
                Ok(_) => return,
                Err(refused) => (refused.kind, refused.data),
            },
        };
        self.outbox.push(HandleEvent::DatagramRefused { conn, data, why });
    }

    fn provide_datagrams(&mut self, cx: &mut Context<'_>, conn: ConnId, bufs: Vec<PinnedBuf>) {
        let (why, bufs) = match cx.conn(conn) {
            None => (ProvideErrorKind::Closed, bufs),
            Some(mut c) => match c.provide_datagram_buffers(bufs) {
                Ok(()) => return,
                Err(refused) => (refused.kind, refused.bufs),
            },
        };
        self.outbox.push(HandleEvent::DatagramBuffersRefused { conn, bufs, why });
    }

    /// Takes the next datagram of a connection for the handles. False if there is none.
    fn pass_datagram(&mut self, cx: &mut Context<'_>, conn: ConnId) -> bool {
        let Some(datagram) = cx.conn(conn).and_then(|mut c| c.take_datagram()) else { return false };
        self.outbox.push(HandleEvent::Datagram { conn, datagram });
        true
    }

    fn refused(&mut self, conn: ConnId, id: StreamId, what: Operation, done: Result<(), StreamError>) {
        if let Err(why) = done {
            self.outbox.push(HandleEvent::Refused { conn, id, what, why });
        }
    }

    /// Sends data, or queues it behind data of the stream that waits already.
    fn send(&mut self, cx: &mut Context<'_>, conn: ConnId, id: StreamId, data: Pieces, fin: bool) {
        if self.held.has(conn, id) {
            self.held.push(conn, id, data, fin);
        } else if let Some(data) = self.try_send(cx, conn, id, data, fin) {
            self.held.push(conn, id, data, fin);
        }
    }

    /// Sends data, or reports that it was refused. Returns the data if it has to wait.
    fn try_send(
        &mut self,
        cx: &mut Context<'_>,
        conn: ConnId,
        id: StreamId,
        data: Pieces,
        fin: bool,
    ) -> Option<Pieces> {
        let sent = match (cx.conn(conn), data) {
            (None, data) => Err((SendErrorKind::Closed, data)),
            (Some(mut c), Pieces::One(data)) => c.send(id, data, fin).map_err(|e| (e.kind, Pieces::One(e.data))),
            (Some(mut c), Pieces::Many(data)) => {
                c.send_vectored(id, data, fin).map_err(|e| (e.kind, Pieces::Many(e.data)))
            }
        };
        match sent {
            Ok(()) => None,
            Err((SendErrorKind::Blocked, data)) => Some(data),
            Err((why, data)) => {
                data.refuse((conn, id), fin, why, |event| self.outbox.push(event));
                None
            }
        }
    }

    /// Retries the waiting sends of a stream. If the stream accepts no more data, they are refused.
    fn retry(&mut self, cx: &mut Context<'_>, conn: ConnId, id: StreamId) {
        if !self.held.has(conn, id) {
            return;
        }
        let mut queue = self.held.take(conn, id);
        while let Some((data, fin)) = queue.pop_front() {
            if let Some(data) = self.try_send(cx, conn, id, data, fin) {
                queue.push_front((data, fin));
                break;
            }
        }
        self.held.put(conn, id, queue);
    }

    fn refuse_held(&mut self, conn: Option<ConnId>) {
        if self.held.len() == 0 {
            return;
        }
        for (conn, id) in self.held.streams(conn) {
            for (data, fin) in self.held.take(conn, id) {
                data.refuse((conn, id), fin, SendErrorKind::Closed, |event| self.outbox.push(event));
            }
        }
    }

    /// Lends chunks to the handles as long as the ring has room and the stream's read-ahead allows. Data that stays in
    /// a stream gives the peer no credit.
    fn lend(&mut self, cx: &mut Context<'_>) {
        while let Some((conn, id)) = self.lending.resumed() {
            self.readable.add((conn, id));
        }
        while self.outbox.has_room()
            && let Some((conn, id)) = self.readable.pop()
        {
            if self.lending.may_take(conn, id)
                && let Some(chunk) = cx.conn(conn).and_then(|mut c| c.take(id))
            {
                if !chunk.is_last() {
                    self.readable.add((conn, id));
                }
                let chunk = self.lending.lend(conn, id, chunk);
                self.outbox.push(HandleEvent::Data { conn, id, chunk });
            }
        }
        // They stay in the queues of their connections, which are bounded, until there is room.
        while self.outbox.has_room()
            && let Some(conn) = self.datagrams.pop()
        {
            if self.pass_datagram(cx, conn) {
                self.datagrams.add(conn);
            }
        }
    }

    /// Lends all data left in a closing connection, which is gone after its last event.
    fn lend_rest(&mut self, cx: &mut Context<'_>, conn: ConnId) {
        // A stream in both lists is empty the second time.
        let readable = self.readable.take_all(|(of, _)| *of == conn).into_iter().map(|(_, id)| id);
        for id in readable.chain(self.lending.waiting(conn)) {
            while let Some(chunk) = cx.conn(conn).and_then(|mut c| c.take(id)) {
                let chunk = self.lending.lend(conn, id, chunk);
                self.outbox.push(HandleEvent::Data { conn, id, chunk });
            }
        }
        self.lending.forget_all(conn);
        self.datagrams.take_all(|of| *of == conn);
        while self.pass_datagram(cx, conn) {}
    }

    /// Leaves unread events and pending commands to the handles when the core ends.
    fn leave(&mut self) {
        if !std::mem::replace(&mut self.over, true) {
            self.refuse_held(None);
            self.shared.leave(self.outbox.drain());
            self.outbox.close();
        }
    }
}

impl App for HandleApp {
    fn on_event(&mut self, cx: &mut Context<'_>, conn: ConnId, event: Event) {
        let is_new = matches!(event, Event::Connected { .. } | Event::EarlyData { .. });
        if !self.conns.contains(&conn) && (!is_new || !self.admit(cx, conn)) {
            return;
        }
        match event {
            Event::Readable { id } => return self.readable.add((conn, id)),
            Event::Writable { id } => return self.retry(cx, conn, id),
            Event::DatagramsReadable => return self.datagrams.add(conn),
            Event::StreamOpened { .. } if self.outbox.waiting() >= self.backlog => {
                cx.close(conn, self.backlog_code, "too many streams, application busy");
            }
            Event::Reset { id, .. } => self.lending.forget(conn, id),
            Event::Stopped { id, .. } => {
                self.outbox.push(HandleEvent::Engine { conn, event });
                return self.retry(cx, conn, id);
            }
            Event::Closed { .. } => {
                self.lend_rest(cx, conn);
                self.conns.remove(&conn);
                self.refuse_held(Some(conn));
            }
            _ => {}
        }
        self.outbox.push(HandleEvent::Engine { conn, event });
    }

    fn on_turn(&mut self, cx: &mut Context<'_>) {
        if self.over {
            return;
        }
        if let Some(core) = self.shared.core {
            assert!(core == cx.core(), "the application of core {core} runs on core {}", cx.core());
        }
        if self.shared.stop.load(Ordering::Relaxed) {
            self.end(cx);
        }
        self.outbox.flush();
        self.run_commands(cx);
        self.lend(cx);
        self.shared.held.store(self.held.len(), Ordering::Relaxed);
        let crowded = !self.outbox.has_room();
        if crowded != self.shared.crowded.load(Ordering::Relaxed) {
            self.shared.crowded.store(crowded, Ordering::Relaxed);
        }
    }

    fn waker(&self) -> Option<Waker> {
        Some(self.shared.waker.clone())
    }

    fn on_unreachable(&mut self, _: &mut Context<'_>, remote: IpAddr, why: Unreachable) {
        // Anybody can cause these events, so they are dropped when the ring is full.
        if self.outbox.has_room() {
            self.outbox.push(HandleEvent::Unreachable { remote, why });
        }
    }

    fn on_end(&mut self) {
        self.ending = true;
        self.leave();
    }

    fn is_done(&self) -> bool {
        self.ending
    }
}

impl Drop for HandleApp {
    /// For a core that did not run to its end.
    fn drop(&mut self) {
        self.leave();
    }
}

impl fmt::Debug for HandleApp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HandleApp")
            .field("connections", &self.conns.len())
            .field("waiting_events", &self.outbox.waiting())
            .field("held_sends", &self.held.len())
            .field("ending", &self.ending)
            .finish_non_exhaustive()
    }
}
