//! Connections for threads that are not cores.
//!
//! [`channel`] makes two ends: a [`HandleApp`], which is the application of one core, and a [`Handle`], through which
//! any thread uses connections of that core. Two bounded rings connect them: one for commands, one for
//! [`HandleEvent`]s. Memory moves through them without being copied: send data and receive buffers are handed over and
//! returned in events, and the data of pooled streams arrives as [`LentChunk`]s, lent from the engine's pool.
//!
//! # Blocking and limits
//! The core never waits for its handles:
//! * When the event ring is full, further events wait behind it in order. While as many events wait as the ring holds,
//!   no commands are taken, and so no more answers are produced; a newer `Progress` or `ReceiveBufferLow` replaces an
//!   older one of its stream. Data of pooled streams then stays in the streams, and peers stop sending for lack of
//!   credit. The number of waiting events is thus bounded by the memory that handles have handed over, by the number of
//!   streams and connections, and by [`HandleApp::with_backlog`], which limits how many of those peers may create.
//! * At most [`HandleApp::with_read_ahead`] bytes of each pooled stream are with the handles until chunks are dropped.
//!   A stream that is not read holds a bounded amount of memory, and only that stream is blocked.
//! * Data for a stream whose send budget is used up waits in the core, in order. While as many such sends wait as the
//!   ring holds, counting all streams, [`Handle::send`] and [`Handle::send_vectored`] return
//!   [`CommandErrorKind::Full`].
//!
//! Handles block only in [`Handle::next_timeout`] and [`Handle::events`]. If the command ring is full, commands fail
//! with [`CommandErrorKind::Full`] and return the memory passed with them; the caller should then read events.
//!
//! # Shutdown
//! [`Handle::shutdown`], or dropping the last handle, closes every connection and ends the core. After
//! [`Core::run`](crate::runtime::Core::run) has returned, the events that return all memory can still be read, followed
//! by refusals of commands that were not carried out; then the handle's iteration ends. The same happens if the core's
//! port fails or an application that contains the [`HandleApp`] panics, but in a panic, the memory held by connections
//! returns to its pools without an event. That is also so for a core that is dropped without having run to its end (see
//! [`HandleApp::stop`]); [`Core::into_app`](crate::runtime::Core::into_app) returns the memory in events. If there are
//! no handles, memory returns to its pools.
//!
//! When a connection is closed by its peer or by an error, data that arrived before is delivered as
//! [`HandleEvent::Data`] before its `Closed`, whether or not the ring has room.

mod app;
mod command;
mod event;
mod held;
mod lent;
mod opening;
mod outbox;
mod readable;

use std::collections::VecDeque;
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, TryRecvError, TrySendError, bounded};

use crate::base::time::Duration;
use crate::mem::PinnedBuf;
use crate::quic::{ClientConfig, ConnId, Dir, Notify, OutOfSpace, Priority, SendData, StreamId};
use crate::runtime::Waker;

pub use app::HandleApp;
use command::{Command, Connect, Pieces};
pub use command::{CommandError, CommandErrorKind};
pub use event::{ConnectRefusal, HandleEvent, Operation};
pub use lent::LentChunk;
pub use opening::{Opening, Ticket};

/// State shared by both ends.
struct Shared {
    /// Whether the core has to end.
    stop: Arc<AtomicBool>,
    /// Whether the application is gone and no more commands are taken.
    gone: AtomicBool,
    /// Number of sends that wait in the core, as of its last turn.
    held: AtomicUsize,
    capacity: usize,
    tickets: AtomicU64,
    /// The commands, so that handles can take them back when the core is gone.
    commands: Receiver<Command>,
    /// Events that were not yet in the ring when the core ended.
    rest: Mutex<VecDeque<HandleEvent>>,
    /// Wakes a sleeping core.
    waker: Waker,
    /// Whether events wait behind a full ring, so that the core has to be woken when there is room.
    crowded: AtomicBool,
}

impl Shared {
    fn rest(&self) -> MutexGuard<'_, VecDeque<HandleEvent>> {
        self.rest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the core's side and leaves `events` behind.
    fn leave(&self, events: impl Iterator<Item = HandleEvent>) {
        self.rest().extend(events);
        self.gone.store(true, Ordering::Release);
    }

    /// The next of what an ended core has left: events, then commands.
    fn take_rest(&self) -> Option<HandleEvent> {
        let mut rest = self.rest();
        loop {
            if let Some(event) = rest.pop_front() {
                return Some(event);
            }
            self.commands.try_recv().ok()?.refuse(|event| rest.push_back(event));
        }
    }
}

/// Creates a channel between a core and other threads, with room for `capacity` commands and as many events (at least
/// one each). The memory of the rings is allocated immediately.
///
/// # Panics
/// If there is not enough memory.
pub fn channel(capacity: usize) -> (Handle, HandleApp) {
    let capacity = capacity.max(1);
    let (command_sender, command_receiver) = bounded(capacity);
    let (event_sender, event_receiver) = bounded(capacity);
    let shared = Arc::new(Shared {
        stop: Arc::default(),
        gone: AtomicBool::new(false),
        held: AtomicUsize::new(0),
        capacity,
        tickets: AtomicU64::new(0),
        commands: command_receiver.clone(),
        rest: Mutex::default(),
        waker: Waker::new(),
        crowded: AtomicBool::new(false),
    });
    let app = HandleApp::new(command_receiver, event_sender, shared.clone(), capacity);
    (Handle { commands: command_sender, events: event_receiver, shared }, app)
}

/// A thread's access to a core: sends commands and receives events.
///
/// Clones share the core and its events: each event goes to one of them. Typically one thread reads events and others
/// send commands. The commands of a thread are carried out in order. When the last clone is dropped, the core ends.
#[derive(Clone)]
pub struct Handle {
    commands: Sender<Command>,
    events: Receiver<HandleEvent>,
    shared: Arc<Shared>,
}

impl Handle {
    fn command(&self, command: Command) -> Result<(), (CommandErrorKind, Command)> {
        if self.shared.gone.load(Ordering::Acquire) {
            return Err((CommandErrorKind::Gone, command));
        }
        self.commands.try_send(command).map_err(|e| match e {
            TrySendError::Full(command) => (CommandErrorKind::Full, command),
            TrySendError::Disconnected(command) => (CommandErrorKind::Gone, command),
        })?;
        self.shared.waker.wake();
        Ok(())
    }

    /// Sends a command that passes no memory.
    fn plain(&self, command: Command) -> Result<(), CommandError> {
        self.command(command).map_err(|(kind, _)| CommandError { kind, given: () })
    }

    fn ticket(&self) -> Ticket {
        Ticket(self.shared.tickets.fetch_add(1, Ordering::Relaxed))
    }

    /// Starts a connection to `remote`, whose certificate must be for `server_name`. Answered by
    /// [`HandleEvent::Connecting`] or [`HandleEvent::ConnectFailed`].
    ///
    /// # Errors
    /// [`CommandError`] if the command was not queued.
    pub fn connect(
        &self,
        config: &ClientConfig,
        server_name: &str,
        remote: SocketAddr,
    ) -> Result<Ticket, CommandError> {
        let ticket = self.ticket();
        let connect = Connect { ticket, config: config.clone(), server_name: server_name.to_owned(), remote };
        self.plain(Command::Connect(Box::new(connect)))?;
        Ok(ticket)
    }

    /// Opens a stream. Answered by [`HandleEvent::Opened`] or [`HandleEvent::OpenFailed`].
    ///
    /// # Errors
    /// [`CommandError`] if the command was not queued.
    pub fn open(&self, conn: ConnId, dir: Dir) -> Result<Ticket, CommandError> {
        self.open_with(conn, dir, Opening::default()).map_err(|e| CommandError { kind: e.kind, given: () })
    }

    /// Opens a stream that starts with receive buffers, data to send, or both, which saves a round trip through the
    /// event ring. If the stream is opened, these are handled as by [`Handle::provide_receive_buffers`] and
    /// [`Handle::send`].
    ///
    /// # Errors
    /// [`CommandError`] with `opening` if the command was not queued.
    pub fn open_with(&self, conn: ConnId, dir: Dir, opening: Opening) -> Result<Ticket, CommandError<Opening>> {
        let ticket = self.ticket();
        match self.command(Command::Open { ticket, conn, dir, opening }) {
            Ok(()) => Ok(ticket),
            Err((kind, Command::Open { opening, .. })) => Err(CommandError { kind, given: opening }),
            Err((kind, _)) => Err(CommandError { kind, given: Opening::default() }),
        }
    }

    /// Sends `data` on a stream, and ends the stream after it if `fin`. The data is sent from where it lies, after
    /// everything sent on the stream before. It is returned in the engine's `SendDone` once it is acknowledged or the
    /// stream fails, or in [`HandleEvent::SendRefused`].
    ///
    /// # Errors
    /// [`CommandError`] with the data if the command was not queued.
    pub fn send(
        &self,
        conn: ConnId,
        id: StreamId,
        data: impl Into<SendData>,
        fin: bool,
    ) -> Result<(), CommandError<SendData>> {
        let sent = self.send_pieces(conn, id, Pieces::One(data.into()), fin);
        sent.map_err(|(kind, data)| CommandError { kind, given: data.one() })
    }

    /// Sends several pieces of memory on a stream as if they were one, such as a header and a body, and ends the stream
    /// after them if `fin`. Nothing is sent in between, and either all pieces are sent or none, even if they have to
    /// wait for the stream's send budget. Each piece is returned in an event of its own: in the engine's `SendDone` or,
    /// if the stream accepts no more data, all of them in order in [`HandleEvent::SendRefused`], the last one with
    /// `fin`.
    ///
    /// # Errors
    /// [`CommandError`] with all pieces, in order, if the command was not queued.
    pub fn send_vectored(
        &self,
        conn: ConnId,
        id: StreamId,
        data: impl IntoIterator<Item = SendData>,
        fin: bool,
    ) -> Result<(), CommandError<Vec<SendData>>> {
        let sent = self.send_pieces(conn, id, Pieces::Many(data.into_iter().collect()), fin);
        sent.map_err(|(kind, data)| CommandError { kind, given: data.many() })
    }

    /// Sends data, or returns it in the error if the core already holds back too much.
    fn send_pieces(
        &self,
        conn: ConnId,
        id: StreamId,
        data: Pieces,
        fin: bool,
    ) -> Result<(), (CommandErrorKind, Pieces)> {
        if self.shared.held.load(Ordering::Relaxed) >= self.shared.capacity {
            return Err((if self.is_gone() { CommandErrorKind::Gone } else { CommandErrorKind::Full }, data));
        }
        match self.command(Command::Send { conn, id, data, fin }) {
            Ok(()) => Ok(()),
            Err((kind, Command::Send { data, .. })) => Err((kind, data)),
            Err((kind, _)) => Err((kind, Pieces::Many(Vec::new()))),
        }
    }

    /// Ends a stream after the data sent so far. If that is not possible, [`HandleEvent::SendRefused`] with empty data
    /// reports it.
    ///
    /// # Errors
    /// [`CommandError`] if the command was not queued.
    pub fn finish(&self, conn: ConnId, id: StreamId) -> Result<(), CommandError> {
        self.send(conn, id, b"", true).map_err(|e| CommandError { kind: e.kind, given: () })
    }

    /// Provides receive buffers for a stream that was opened here, or for a stream of the peer that has buffers from
    /// the listener's provider. The stream's data is decrypted directly into them. Each buffer is returned once, in the
    /// engine's `Buffer`, or all of them in [`HandleEvent::ProvideRefused`].
    ///
    /// # Errors
    /// [`CommandError`] with the buffers if the command was not queued.
    pub fn provide_receive_buffers(
        &self,
        conn: ConnId,
        id: StreamId,
        bufs: Vec<PinnedBuf>,
    ) -> Result<(), CommandError<Vec<PinnedBuf>>> {
        match self.command(Command::Provide { conn, id, bufs }) {
            Ok(()) => Ok(()),
            Err((kind, Command::Provide { bufs, .. })) => Err(CommandError { kind, given: bufs }),
            Err((kind, _)) => Err(CommandError { kind, given: Vec::new() }),
        }
    }

    /// Sets a stream's priority among the connection's streams that have data to send (RFC 9218 §4). The initial
    /// priority of a new stream is [`Opening::priority`].
    ///
    /// # Errors
    /// [`CommandError`] if the command was not queued.
    pub fn set_priority(&self, conn: ConnId, id: StreamId, priority: Priority) -> Result<(), CommandError> {
        self.plain(Command::SetPriority { conn, id, priority })
    }

    /// Chooses whether a stream with provided buffers reports data as it arrives, or once when all has arrived. The
    /// initial choice for a new stream is [`Opening::notify`].
    ///
    /// # Errors
    /// [`CommandError`] if the command was not queued.
    pub fn set_notify(&self, conn: ConnId, id: StreamId, notify: Notify) -> Result<(), CommandError> {
        self.plain(Command::SetNotify { conn, id, notify })
    }

    /// Chooses whether a stream with provided buffers waits or is stopped if its peer has more data than they hold.
    ///
    /// # Errors
    /// [`CommandError`] if the command was not queued.
    pub fn set_out_of_space(&self, conn: ConnId, id: StreamId, what: OutOfSpace) -> Result<(), CommandError> {
        self.plain(Command::SetOutOfSpace { conn, id, what })
    }

    /// Abandons sending on a stream (RFC 9000 §3.1). Unsent and unacknowledged data is returned.
    ///
    /// # Errors
    /// [`CommandError`] if the command was not queued.
    pub fn reset(&self, conn: ConnId, id: StreamId, code: u64) -> Result<(), CommandError> {
        self.plain(Command::Reset { conn, id, code })
    }

    /// Asks the peer to stop sending on a stream (RFC 9000 §3.5). Provided buffers are returned.
    ///
    /// # Errors
    /// [`CommandError`] if the command was not queued.
    pub fn stop_sending(&self, conn: ConnId, id: StreamId, code: u64) -> Result<(), CommandError> {
        self.plain(Command::StopSending { conn, id, code })
    }

    /// Closes a connection with the application error `code`. All its memory is returned in events, followed by the
    /// engine's `Closed`. Has no effect on a connection that is already closed.
    ///
    /// # Errors
    /// [`CommandError`] if the command was not queued.
    pub fn close(&self, conn: ConnId, code: u64, reason: &str) -> Result<(), CommandError> {
        self.plain(Command::Close { conn, code, reason: reason.to_owned() })
    }

    /// Closes every connection and ends the core. Commands not yet carried out are refused. To get all memory back,
    /// read events until the iteration ends.
    pub fn shutdown(&self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.shared.waker.wake();
    }

    /// Wakes the core if it waits for room in the event ring.
    fn taken(&self, event: HandleEvent) -> HandleEvent {
        if self.shared.crowded.load(Ordering::Relaxed) {
            self.shared.waker.wake();
        }
        event
    }

    /// The next event, if there is one. Does not block.
    pub fn try_next(&self) -> Option<HandleEvent> {
        match self.events.try_recv() {
            Ok(event) => Some(self.taken(event)),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => self.shared.take_rest(),
        }
    }

    /// Waits up to `timeout` for the next event. Returns `None` at once if the core has ended and everything was read.
    pub fn next_timeout(&self, timeout: Duration) -> Option<HandleEvent> {
        match self.events.recv_timeout(timeout) {
            Ok(event) => Some(self.taken(event)),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => self.shared.take_rest(),
        }
    }

    /// An iterator over events. It blocks until the next event, and ends when the core has ended and everything was
    /// read.
    pub fn events(&self) -> Events<'_> {
        Events { handle: self }
    }

    /// Whether the core has ended. There may still be unread events.
    pub fn is_gone(&self) -> bool {
        self.shared.gone.load(Ordering::Acquire)
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle")
            .field("commands", &self.commands.len())
            .field("events", &self.events.len())
            .field("gone", &self.is_gone())
            .finish_non_exhaustive()
    }
}

/// The events of a [`Handle`]; see [`Handle::events`].
#[derive(Debug)]
pub struct Events<'a> {
    handle: &'a Handle,
}

impl Iterator for Events<'_> {
    type Item = HandleEvent;

    fn next(&mut self) -> Option<HandleEvent> {
        match self.handle.events.recv() {
            Ok(event) => Some(self.handle.taken(event)),
            Err(_) => self.handle.shared.take_rest(),
        }
    }
}
