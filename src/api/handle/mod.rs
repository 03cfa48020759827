//! Connections for threads that are not cores.
//!
//! [`channel`] makes two ends: a [`HandleApp`], which is the application of one core, and a [`Handle`], with
//! which any thread has connections on that core. Between them are two bounded rings: commands go one way,
//! [`HandleEvent`]s the other. Memory moves through them and is never copied: send data and receive buffers are
//! handed over and come back in events, and the bytes of pooled streams arrive as [`LentChunk`]s, lent
//! from the engine's pool.
//!
//! # Who waits for whom
//! The core never waits for its handles:
//! * When the event ring is full, events wait behind it in order. As long as one ring's capacity of them waits, no
//!   commands are taken, so that no more answers come; a younger `Progress` or `ReceiveBufferLow` replaces an older
//!   one of its stream. Bytes of pooled streams stay in their streams then, and without new credit the peers stop
//!   sending. So what waits is bounded by what the handles have handed over, by the streams and connections that
//!   there are, and by [`HandleApp::with_backlog`], which keeps peers from making ever more of them.
//! * Of each pooled stream, no more is taken than [`HandleApp::with_read_ahead`] says until chunks of it are dropped: a
//!   reader that stops, or one of many streams that nobody reads, holds a bounded piece of memory, and its peer stops
//!   sending there and nowhere else.
//! * Data for a stream whose send budget is used up waits in the core, in order. As long as one ring's capacity of
//!   such sends waits, all streams together, [`Handle::send`] and [`Handle::send_vectored`] answer
//!   [`CommandErrorKind::Full`].
//!
//! Handles never wait either, unless they are asked to ([`Handle::next_timeout`], [`Handle::events`]): when the
//! command ring is full, they say [`CommandErrorKind::Full`] and give back what was to be handed over. Then it is
//! time to read events.
//!
//! # The end
//! [`Handle::shutdown`], or dropping the last handle, closes every connection and ends the core. The events in
//! which all memory comes back are still there to be read when [`Core::run`](crate::runtime::Core::run) has returned,
//! followed by refusals of commands that were not carried out; behind them, the handle's iteration ends. So it is when
//! the core's port fails, and when its application panics (one that has a [`HandleApp`] in it, say): then what the
//! connections hold goes home without an event. A core that is dropped without having run to its end (see
//! [`HandleApp::stop`]) gives the memory that its connections hold to the pools it came from, without an event; with
//! [`Core::into_app`](crate::runtime::Core::into_app) it comes back in events as well. Without handles, memory goes
//! home.
//!
//! When a connection is closed by its peer or by an accident, bytes that had arrived before come as
//! [`HandleEvent::Data`] ahead of its `Closed`, whether or not the ring has room.

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

/// What both ends see.
struct Shared {
    /// The core is to end, or has been told so.
    stop: Arc<AtomicBool>,
    /// The application is gone: nobody takes commands any more.
    gone: AtomicBool,
    /// Sends that wait in the core, as of its last turn.
    held: AtomicUsize,
    capacity: usize,
    tickets: AtomicU64,
    /// The commands, for handles to take back when the core is gone.
    commands: Receiver<Command>,
    /// Events that were not in the ring when the core went.
    rest: Mutex<VecDeque<HandleEvent>>,
    /// Wakes the core when it sleeps.
    waker: Waker,
    /// Events wait behind a full ring: the core wants to know when there is room again.
    crowded: AtomicBool,
}

impl Shared {
    fn rest(&self) -> MutexGuard<'_, VecDeque<HandleEvent>> {
        self.rest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The core goes and leaves `events` behind.
    fn leave(&self, events: impl Iterator<Item = HandleEvent>) {
        self.rest().extend(events);
        self.gone.store(true, Ordering::Release);
    }

    /// What a core that is gone has left behind: events, then commands.
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

/// Two ends of a new connection between a core and other threads, with room for `capacity` commands and as many
/// events on their way (at least one). All memory of the rings is taken now.
///
/// # Panics
/// If there is no memory for so many.
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

/// What a thread has of a core: it gives commands and gets events.
///
/// Clones share the core and its events: each event goes to one of them. Typically one thread reads events, and
/// others have clones to give commands. Commands of one thread are carried out in the order they were given.
/// Without any clone left, the core ends.
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

    /// A command that nothing is handed over with.
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
    /// [`CommandError`] when the core did not get the command.
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
    /// [`CommandError`] when the core did not get the command.
    pub fn open(&self, conn: ConnId, dir: Dir) -> Result<Ticket, CommandError> {
        self.open_with(conn, dir, Opening::default()).map_err(|e| CommandError { kind: e.kind, given: () })
    }

    /// Opens a stream that has receive buffers, sends data, or both: a request without a round trip through the
    /// event ring. If the stream opens, what it started with goes the same ways as with
    /// [`Handle::provide_receive_buffers`] and [`Handle::send`].
    ///
    /// # Errors
    /// [`CommandError`] with `opening` when the core did not get the command.
    pub fn open_with(&self, conn: ConnId, dir: Dir, opening: Opening) -> Result<Ticket, CommandError<Opening>> {
        let ticket = self.ticket();
        match self.command(Command::Open { ticket, conn, dir, opening }) {
            Ok(()) => Ok(ticket),
            Err((kind, Command::Open { opening, .. })) => Err(CommandError { kind, given: opening }),
            Err((kind, _)) => Err(CommandError { kind, given: Opening::default() }),
        }
    }

    /// Sends `data` on a stream, and its end if `fin`. It is sent from where it lies, behind everything that was
    /// sent on the stream before, and comes back in the engine's `SendDone` when it is acknowledged or the stream
    /// dies, or else in [`HandleEvent::SendRefused`].
    ///
    /// # Errors
    /// [`CommandError`] with the data when the core did not get it.
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

    /// Sends many pieces of memory on a stream as if they were one, and its end if `fin`: a header and a body from
    /// where each lies, with nothing in between. All of them are sent or none, also when they have to wait for the
    /// stream's send budget. Each piece comes back in an event of its own: in the engine's `SendDone`, or, if the
    /// stream takes no more data, all of them in order in [`HandleEvent::SendRefused`], the last with `fin`.
    ///
    /// # Errors
    /// [`CommandError`] with all pieces, in order, when the core did not get them.
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

    /// Sends data, unless the core holds enough back already; then it comes back.
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

    /// Ends a stream behind what was sent. If it cannot be ended, an empty [`HandleEvent::SendRefused`] says so.
    ///
    /// # Errors
    /// [`CommandError`] when the core did not get the command.
    pub fn finish(&self, conn: ConnId, id: StreamId) -> Result<(), CommandError> {
        self.send(conn, id, b"", true).map_err(|e| CommandError { kind: e.kind, given: () })
    }

    /// Hands receive buffers over, for a stream that was opened here, or one of the peer's that has them from its
    /// listener's provider. The stream's bytes are decrypted straight into them; each comes back once, in the
    /// engine's `Buffer`, or all of them in [`HandleEvent::ProvideRefused`].
    ///
    /// # Errors
    /// [`CommandError`] with the buffers when the core did not get them.
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

    /// Ranks a stream's data among that of the connection's other streams (RFC 9218 §4), from now on. A new stream can
    /// have its priority from the start: [`Opening::priority`].
    ///
    /// # Errors
    /// [`CommandError`] when the core did not get the command.
    pub fn set_priority(&self, conn: ConnId, id: StreamId, priority: Priority) -> Result<(), CommandError> {
        self.plain(Command::SetPriority { conn, id, priority })
    }

    /// Chooses whether a stream with provided buffers tells of its data as it comes, or of all at the end. A new
    /// stream can have it from the start: [`Opening::notify`].
    ///
    /// # Errors
    /// [`CommandError`] when the core did not get the command.
    pub fn set_notify(&self, conn: ConnId, id: StreamId, notify: Notify) -> Result<(), CommandError> {
        self.plain(Command::SetNotify { conn, id, notify })
    }

    /// Chooses whether a stream with provided buffers waits or is stopped when its peer has more than they hold.
    ///
    /// # Errors
    /// [`CommandError`] when the core did not get the command.
    pub fn set_out_of_space(&self, conn: ConnId, id: StreamId, what: OutOfSpace) -> Result<(), CommandError> {
        self.plain(Command::SetOutOfSpace { conn, id, what })
    }

    /// Abandons sending on a stream (RFC 9000 §3.1). What was being sent comes back.
    ///
    /// # Errors
    /// [`CommandError`] when the core did not get the command.
    pub fn reset(&self, conn: ConnId, id: StreamId, code: u64) -> Result<(), CommandError> {
        self.plain(Command::Reset { conn, id, code })
    }

    /// Asks the peer to stop sending on a stream (RFC 9000 §3.5). Provided buffers come back.
    ///
    /// # Errors
    /// [`CommandError`] when the core did not get the command.
    pub fn stop_sending(&self, conn: ConnId, id: StreamId, code: u64) -> Result<(), CommandError> {
        self.plain(Command::StopSending { conn, id, code })
    }

    /// Closes a connection with the application's error `code`. All its memory comes back in events, then the
    /// engine's `Closed`. For a connection that is closed already, nothing happens.
    ///
    /// # Errors
    /// [`CommandError`] when the core did not get the command.
    pub fn close(&self, conn: ConnId, code: u64, reason: &str) -> Result<(), CommandError> {
        self.plain(Command::Close { conn, code, reason: reason.to_owned() })
    }

    /// Closes every connection and ends the core, without waiting for commands that were not carried out yet:
    /// these are refused. Read on until the iteration ends to get all memory back.
    pub fn shutdown(&self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.shared.waker.wake();
    }

    /// An event was taken: if the core waits for room, there is some now.
    fn taken(&self, event: HandleEvent) -> HandleEvent {
        if self.shared.crowded.load(Ordering::Relaxed) {
            self.shared.waker.wake();
        }
        event
    }

    /// The next event, if there is one.
    pub fn try_next(&self) -> Option<HandleEvent> {
        match self.events.try_recv() {
            Ok(event) => Some(self.taken(event)),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => self.shared.take_rest(),
        }
    }

    /// The next event; waits for it, but not longer than `timeout`. `None` at once when the core is gone and
    /// everything was read.
    pub fn next_timeout(&self, timeout: Duration) -> Option<HandleEvent> {
        match self.events.recv_timeout(timeout) {
            Ok(event) => Some(self.taken(event)),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => self.shared.take_rest(),
        }
    }

    /// All events that come. Waits for each, and ends when the core is gone and everything was read.
    pub fn events(&self) -> Events<'_> {
        Events { handle: self }
    }

    /// Whether the core is gone. There may still be events to be read.
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
