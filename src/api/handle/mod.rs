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
//!   no commands are taken, and so no more answers are produced; a newer `Progress`, `EarlyBytes` or `ReceiveBufferLow`
//!   replaces an older one of its stream. Data of pooled streams then stays in the streams, and peers stop sending for lack of
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
mod ends;
mod event;
mod held;
mod lent;
mod opening;
mod outbox;
mod readable;

use std::collections::VecDeque;
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crossbeam::channel::{Receiver, bounded};

use crate::base::time::Duration;
use crate::mem::PinnedBuf;
use crate::quic::{ClientConfig, ConnId, Dir, Notify, OutOfSpace, Priority, SendData, StreamId};
use crate::runtime::Waker;

pub use app::HandleApp;
use command::{Command, Connect, Pieces};
pub use command::{CommandError, CommandErrorKind};
use ends::{End, Ends};
pub use event::{ConnectRefusal, HandleEvent, Operation};
pub use lent::LentChunk;
pub use opening::{Opening, Ticket};

/// State shared by both ends.
struct Shared {
    /// The core that the application belongs on, if it is one of several.
    core: Option<u8>,
    /// Whether the core has to end.
    stop: Arc<AtomicBool>,
    /// Whether the application is gone and no more commands are taken.
    gone: AtomicBool,
    /// Number of sends that wait in the core, as of its last turn.
    held: AtomicUsize,
    capacity: usize,
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
    fn new(core: Option<u8>, stop: Arc<AtomicBool>, capacity: usize, commands: Receiver<Command>) -> Self {
        Self {
            core,
            stop,
            gone: AtomicBool::new(false),
            held: AtomicUsize::new(0),
            capacity,
            commands,
            rest: Mutex::default(),
            waker: Waker::new(),
            crowded: AtomicBool::new(false),
        }
    }

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
    let (end, app) = pair(capacity, None, Arc::default());
    (Handle(Arc::new(Ends::new([end]))), app)
}

/// Creates a channel between `cores` cores that serve together and other threads: one handle for all of them, and for
/// each core, in order, its application. `capacity` is that of each core's rings. All applications have the same
/// [`HandleApp::stop`].
///
/// # Panics
/// If there is not enough memory, or `cores` is 0. An application panics on a core other than its own.
pub fn channels(cores: u8, capacity: usize) -> (Handle, Vec<HandleApp>) {
    let stop = Arc::<AtomicBool>::default();
    let (ends, apps): (Vec<_>, _) = (0..cores).map(|core| pair(capacity, Some(core), stop.clone())).unzip();
    (Handle(Arc::new(Ends::new(ends))), apps)
}

fn pair(capacity: usize, core: Option<u8>, stop: Arc<AtomicBool>) -> (End, HandleApp) {
    let capacity = capacity.max(1);
    let (command_sender, command_receiver) = bounded(capacity);
    let (event_sender, event_receiver) = bounded(capacity);
    let shared = Arc::new(Shared::new(core, stop, capacity, command_receiver.clone()));
    let app = HandleApp::new(command_receiver, event_sender, shared.clone(), capacity);
    (End { commands: command_sender, events: event_receiver, shared }, app)
}

/// A thread's access to a core, or to several: sends commands and receives events.
///
/// Clones share the cores and their events: each event goes to one of them. Typically one thread reads events and others
/// send commands. The commands of a thread to a connection are carried out in order. When the last clone is dropped,
/// the cores end.
///
/// With several cores ([`channels`]), a command goes to the core of its connection ([`ConnId::core`]), and events of
/// all cores are read in turn. New connections go to the cores in turn as well.
#[derive(Clone)]
pub struct Handle(Arc<Ends>);

impl Handle {
    /// Sends a command to the core of `conn`.
    fn command(&self, conn: ConnId, command: Command) -> Result<(), (CommandErrorKind, Command)> {
        match self.0.of(conn) {
            Some(end) => end.command(command),
            None => Err((CommandErrorKind::Gone, command)),
        }
    }

    /// Sends a command that passes no memory.
    fn plain(&self, conn: ConnId, command: Command) -> Result<(), CommandError> {
        self.command(conn, command).map_err(|(kind, _)| CommandError { kind, given: () })
    }

    /// Number of cores.
    pub fn cores(&self) -> usize {
        self.0.all().len()
    }

    /// Starts a connection to `remote`, whose certificate must be for `server_name`. Answered by
    /// [`HandleEvent::Connecting`] or [`HandleEvent::ConnectFailed`]. Of several cores, each opens a connection in turn;
    /// one whose ring is full is skipped.
    ///
    /// # Errors
    /// [`CommandError`] if the command was not queued.
    pub fn connect(
        &self,
        config: &ClientConfig,
        server_name: &str,
        remote: SocketAddr,
    ) -> Result<Ticket, CommandError> {
        let ticket = self.0.ticket();
        let connect = Connect { ticket, config: config.clone(), server_name: server_name.to_owned(), remote };
        match self.0.spread(Command::Connect(Box::new(connect))) {
            Ok(()) => Ok(ticket),
            Err(kind) => Err(CommandError { kind, given: () }),
        }
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
        let ticket = self.0.ticket();
        match self.command(conn, Command::Open { ticket, conn, dir, opening }) {
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
        let Some(end) = self.0.of(conn) else { return Err((CommandErrorKind::Gone, data)) };
        if end.shared.held.load(Ordering::Relaxed) >= end.shared.capacity {
            return Err((if end.is_gone() { CommandErrorKind::Gone } else { CommandErrorKind::Full }, data));
        }
        match end.command(Command::Send { conn, id, data, fin }) {
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
        match self.command(conn, Command::Provide { conn, id, bufs }) {
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
        self.plain(conn, Command::SetPriority { conn, id, priority })
    }

    /// Chooses whether a stream with provided buffers reports data as it arrives, or once when all has arrived. The
    /// initial choice for a new stream is [`Opening::notify`].
    ///
    /// # Errors
    /// [`CommandError`] if the command was not queued.
    pub fn set_notify(&self, conn: ConnId, id: StreamId, notify: Notify) -> Result<(), CommandError> {
        self.plain(conn, Command::SetNotify { conn, id, notify })
    }

    /// Chooses whether a stream with provided buffers waits or is stopped if its peer has more data than they hold.
    ///
    /// # Errors
    /// [`CommandError`] if the command was not queued.
    pub fn set_out_of_space(&self, conn: ConnId, id: StreamId, what: OutOfSpace) -> Result<(), CommandError> {
        self.plain(conn, Command::SetOutOfSpace { conn, id, what })
    }

    /// Abandons sending on a stream (RFC 9000 §3.1). Unsent and unacknowledged data is returned.
    ///
    /// # Errors
    /// [`CommandError`] if the command was not queued.
    pub fn reset(&self, conn: ConnId, id: StreamId, code: u64) -> Result<(), CommandError> {
        self.plain(conn, Command::Reset { conn, id, code })
    }

    /// Abandons sending on a stream, but still delivers its first `reliable` bytes
    /// ([`Conn::reset_at`](crate::quic::Conn::reset_at)).
    ///
    /// # Errors
    /// [`CommandError`] if the command was not queued.
    pub fn reset_at(&self, conn: ConnId, id: StreamId, code: u64, reliable: u64) -> Result<(), CommandError> {
        self.plain(conn, Command::ResetAt { conn, id, code, reliable })
    }

    /// Sends a datagram at most once (RFC 9221), before those with a higher number for `urgency`. If it was not sent
    /// `within` the given time after the core has taken the command, it is dropped. The data is sent from where it lies,
    /// and returned in the engine's `DatagramDone` or in [`HandleEvent::DatagramRefused`].
    ///
    /// # Errors
    /// [`CommandError`] with the data if the command was not queued.
    pub fn send_datagram(
        &self,
        conn: ConnId,
        data: impl Into<SendData>,
        urgency: u8,
        within: Option<Duration>,
    ) -> Result<(), CommandError<SendData>> {
        match self.command(conn, Command::SendDatagram { conn, data: data.into(), urgency, within }) {
            Ok(()) => Ok(()),
            Err((kind, Command::SendDatagram { data, .. })) => Err(CommandError { kind, given: data }),
            Err((kind, _)) => Err(CommandError { kind, given: SendData::Static(&[]) }),
        }
    }

    /// Provides buffers for received datagrams, one datagram each
    /// ([`Conn::provide_datagram_buffers`](crate::quic::Conn::provide_datagram_buffers)). Each buffer is returned once,
    /// in the engine's `DatagramBuffer`, or all of them in [`HandleEvent::DatagramBuffersRefused`].
    ///
    /// # Errors
    /// [`CommandError`] with the buffers if the command was not queued.
    pub fn provide_datagram_buffers(
        &self,
        conn: ConnId,
        bufs: Vec<PinnedBuf>,
    ) -> Result<(), CommandError<Vec<PinnedBuf>>> {
        match self.command(conn, Command::ProvideDatagrams { conn, bufs }) {
            Ok(()) => Ok(()),
            Err((kind, Command::ProvideDatagrams { bufs, .. })) => Err(CommandError { kind, given: bufs }),
            Err((kind, _)) => Err(CommandError { kind, given: Vec::new() }),
        }
    }

    /// Asks the peer to stop sending on a stream (RFC 9000 §3.5). Provided buffers are returned.
    ///
    /// # Errors
    /// [`CommandError`] if the command was not queued.
    pub fn stop_sending(&self, conn: ConnId, id: StreamId, code: u64) -> Result<(), CommandError> {
        self.plain(conn, Command::StopSending { conn, id, code })
    }

    /// Moves a client's connection to another local address (RFC 9000 §9.2): to `to`, or by default to the next source
    /// port of its core. The engine's `Migrated` or `PathFailed` follows, or [`HandleEvent::MigrateRefused`].
    ///
    /// # Errors
    /// [`CommandError`] if the command was not queued.
    pub fn migrate(&self, conn: ConnId, to: Option<SocketAddr>) -> Result<(), CommandError> {
        self.plain(conn, Command::Migrate { conn, to })
    }

    /// Validates the path from another local address without using it (RFC 9000 §9.1). The engine's `PathValidated` or
    /// `PathFailed` follows, or [`HandleEvent::MigrateRefused`].
    ///
    /// # Errors
    /// [`CommandError`] if the command was not queued.
    pub fn probe(&self, conn: ConnId, local: SocketAddr) -> Result<(), CommandError> {
        self.plain(conn, Command::Probe { conn, local })
    }

    /// Asks the peer to use other connection IDs from now on (RFC 9000 §5.1.2).
    ///
    /// # Errors
    /// [`CommandError`] if the command was not queued.
    pub fn rotate_ids(&self, conn: ConnId) -> Result<(), CommandError> {
        self.plain(conn, Command::RotateIds { conn })
    }

    /// Closes a connection with the application error `code`. All its memory is returned in events, followed by the
    /// engine's `Closed`. Has no effect on a connection that is already closed.
    ///
    /// # Errors
    /// [`CommandError`] if the command was not queued.
    pub fn close(&self, conn: ConnId, code: u64, reason: &str) -> Result<(), CommandError> {
        self.plain(conn, Command::Close { conn, code, reason: reason.to_owned() })
    }

    /// Closes every connection and ends the core, or all of them. Commands not yet carried out are refused. To get all
    /// memory back, read events until the iteration ends.
    pub fn shutdown(&self) {
        for end in self.0.all() {
            end.shared.stop.store(true, Ordering::Relaxed);
            end.shared.waker.wake();
        }
    }

    /// The next event, if there is one. Does not block.
    pub fn try_next(&self) -> Option<HandleEvent> {
        self.0.try_next()
    }

    /// Waits up to `timeout` for the next event. Returns `None` at once if every core has ended and everything was read.
    pub fn next_timeout(&self, timeout: Duration) -> Option<HandleEvent> {
        self.0.next_timeout(timeout)
    }

    /// An iterator over events. It blocks until the next event, and ends when every core has ended and everything
    /// was read.
    pub fn events(&self) -> Events<'_> {
        Events { handle: self }
    }

    /// Whether every core has ended. There may still be unread events.
    pub fn is_gone(&self) -> bool {
        self.0.all().iter().all(End::is_gone)
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sum = |len: fn(&End) -> usize| self.0.all().iter().map(len).sum::<usize>();
        f.debug_struct("Handle")
            .field("cores", &self.cores())
            .field("commands", &sum(|end| end.commands.len()))
            .field("events", &sum(|end| end.events.len()))
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
        self.handle.0.next()
    }
}
