//! The handles' side of the rings: those of one core, or of several.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use crossbeam::channel::{Receiver, RecvTimeoutError, Select, Sender, TryRecvError, TrySendError};

use crate::api::handle::command::{Command, CommandErrorKind};
use crate::api::handle::{HandleEvent, Shared, Ticket};
use crate::base::time::Duration;
use crate::quic::ConnId;

/// The rings of one core.
pub(super) struct End {
    pub(super) commands: Sender<Command>,
    pub(super) events: Receiver<HandleEvent>,
    pub(super) shared: Arc<Shared>,
}

impl End {
    pub(super) fn command(&self, command: Command) -> Result<(), (CommandErrorKind, Command)> {
        if self.is_gone() {
            return Err((CommandErrorKind::Gone, command));
        }
        self.commands.try_send(command).map_err(|e| match e {
            TrySendError::Full(command) => (CommandErrorKind::Full, command),
            TrySendError::Disconnected(command) => (CommandErrorKind::Gone, command),
        })?;
        self.shared.waker.wake();
        Ok(())
    }

    pub(super) fn is_gone(&self) -> bool {
        self.shared.gone.load(Ordering::Acquire)
    }

    /// Accounts for an event taken from the ring: if the core waits for room, there is some now.
    fn taken(&self, event: HandleEvent) -> HandleEvent {
        if self.shared.crowded.load(Ordering::Relaxed) {
            self.shared.waker.wake();
        }
        event
    }
}

/// Result of polling the rings.
enum Look {
    Event(HandleEvent),
    /// Nothing yet.
    Nothing,
    /// Every core has ended, and everything was read.
    End,
}

/// The rings of all cores, in their order.
pub(super) struct Ends {
    ends: Box<[End]>,
    tickets: AtomicU64,
    /// The core whose turn it is to open a connection, and the one whose turn it is to be read from.
    connects: AtomicUsize,
    reads: AtomicUsize,
}

impl Ends {
    pub(super) fn new(ends: impl IntoIterator<Item = End>) -> Self {
        let ends: Box<[End]> = ends.into_iter().collect();
        assert!(!ends.is_empty(), "no core");
        Self { ends, tickets: AtomicU64::new(0), connects: AtomicUsize::new(0), reads: AtomicUsize::new(0) }
    }

    pub(super) fn all(&self) -> &[End] {
        &self.ends
    }

    pub(super) fn ticket(&self) -> Ticket {
        Ticket(self.tickets.fetch_add(1, Ordering::Relaxed))
    }

    /// The rings of the core that owns `conn`; `None` if that is not one of these cores.
    pub(super) fn of(&self, conn: ConnId) -> Option<&End> {
        match &*self.ends {
            // A single core may have any number.
            [only] => Some(only),
            ends => ends.get(usize::from(conn.core())),
        }
    }

    /// Sends `command` to the next core in turn; cores that cannot take it are skipped.
    pub(super) fn spread(&self, mut command: Command) -> Result<(), CommandErrorKind> {
        let count = self.ends.len();
        let first = self.connects.fetch_add(1, Ordering::Relaxed);
        let mut why = CommandErrorKind::Gone;
        for n in 0..count {
            match self.ends[first.wrapping_add(n) % count].command(command) {
                Ok(()) => return Ok(()),
                Err((kind, back)) => {
                    command = back;
                    if kind == CommandErrorKind::Full {
                        why = kind;
                    }
                }
            }
        }
        Err(why)
    }

    /// The next event, if there is one. The cores take turns.
    pub(super) fn try_next(&self) -> Option<HandleEvent> {
        match self.look(|_| {}) {
            Look::Event(event) => Some(event),
            Look::Nothing | Look::End => None,
        }
    }

    /// Polls the rings until there is an event; `empty` gets those that may have one later.
    fn look<'a>(&'a self, mut empty: impl FnMut(&'a Receiver<HandleEvent>)) -> Look {
        let count = self.ends.len();
        let first = self.reads.load(Ordering::Relaxed);
        let mut over = true;
        for n in 0..count {
            let at = first.wrapping_add(n) % count;
            let end = &self.ends[at];
            let event = match end.events.try_recv() {
                Ok(event) => Some(end.taken(event)),
                Err(TryRecvError::Empty) => {
                    over = false;
                    empty(&end.events);
                    None
                }
                Err(TryRecvError::Disconnected) => end.shared.take_rest(),
            };
            if let Some(event) = event {
                if count > 1 {
                    self.reads.store(at + 1, Ordering::Relaxed);
                }
                return Look::Event(event);
            }
        }
        if over { Look::End } else { Look::Nothing }
    }

    /// The next event; waits for it until `deadline`, if there is one. `None` immediately if every core has ended and
    /// everything was read.
    fn wait(&self, deadline: Option<Instant>) -> Option<HandleEvent> {
        loop {
            // Cores that have ended are left out: their rings would always be ready.
            let mut select = Select::new();
            let look = self.look(|ring| {
                select.recv(ring);
            });
            match (look, deadline) {
                (Look::Event(event), _) => return Some(event),
                (Look::End, _) => return None,
                (Look::Nothing, None) => {
                    select.ready();
                }
                (Look::Nothing, Some(deadline)) => {
                    if select.ready_deadline(deadline).is_err() {
                        return self.try_next();
                    }
                }
            }
        }
    }

    pub(super) fn next(&self) -> Option<HandleEvent> {
        match &*self.ends {
            [only] => match only.events.recv() {
                Ok(event) => Some(only.taken(event)),
                Err(_) => only.shared.take_rest(),
            },
            _ => self.wait(None),
        }
    }

    pub(super) fn next_timeout(&self, timeout: Duration) -> Option<HandleEvent> {
        match &*self.ends {
            [only] => match only.events.recv_timeout(timeout) {
                Ok(event) => Some(only.taken(event)),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => only.shared.take_rest(),
            },
            // A deadline beyond the range of the clock is no limit.
            _ => self.wait(Instant::now().checked_add(timeout)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::sync::atomic::AtomicBool;

    use crossbeam::channel::bounded;

    use super::*;
    use crate::runtime::Unreachable;

    /// A core's side of its rings.
    type CoreEnd = (Sender<HandleEvent>, Receiver<Command>);

    /// The rings of `count` cores with room for two, and the cores' sides of them.
    fn rings(count: usize) -> (Ends, Vec<CoreEnd>) {
        let (ends, cores): (Vec<_>, _) = (0..count)
            .map(|core| {
                let ((commands, taken), (sent, events)) = (bounded(2), bounded(2));
                let shared = Shared::new(Some(core as u8), Arc::<AtomicBool>::default(), 2, taken.clone());
                (End { commands, events, shared: Arc::new(shared) }, (sent, taken))
            })
            .unzip();
        (Ends::new(ends), cores)
    }

    /// An event that says which core it comes from.
    fn event(core: u8) -> HandleEvent {
        HandleEvent::Unreachable { remote: IpAddr::from([192, 0, 2, core]), why: Unreachable::NoAnswer }
    }

    fn origin(event: HandleEvent) -> u8 {
        match event {
            HandleEvent::Unreachable { remote: IpAddr::V4(remote), .. } => remote.octets()[3],
            other => panic!("{other:?}"),
        }
    }

    fn close(core: u8) -> (ConnId, Command) {
        let conn = ConnId::new(7, 7).on(core);
        (conn, Command::Close { conn, code: 0, reason: String::new() })
    }

    #[test]
    fn a_busy_core_does_not_keep_the_events_of_others() {
        let (ends, cores) = rings(3);
        let mut read = Vec::new();
        // Core 1 always has more.
        for core in [1, 1, 2, 0, 0] {
            cores[core].0.send(event(core as u8)).unwrap();
        }
        while read.len() < 7 {
            read.push(origin(ends.try_next().unwrap()));
            let _ = cores[1].0.try_send(event(1));
        }
        assert_eq!(read, [0, 1, 2, 0, 1, 1, 1]);
    }

    #[test]
    fn waits_for_whichever_core_comes_first_and_for_the_last_one_to_end() {
        let (ends, mut cores) = rings(3);
        assert!(ends.next_timeout(Duration::ZERO).is_none());
        std::thread::scope(|scope| {
            let two = cores.pop().unwrap();
            scope.spawn(move || two.0.send(event(2)).unwrap());
            assert_eq!(ends.next().map(origin), Some(2));
        });
        // Core 2 has ended and left an event.
        ends.all()[2].shared.leave([event(2)].into_iter());
        assert_eq!(ends.next().map(origin), Some(2));
        cores[0].0.send(event(0)).unwrap();
        drop(cores.remove(0));
        assert_eq!(ends.next_timeout(Duration::MAX).map(origin), Some(0));
        assert!(ends.next_timeout(Duration::ZERO).is_none(), "core 1 is there");
        std::thread::scope(|scope| {
            let one = cores.pop().unwrap();
            scope.spawn(move || one.0.send(event(1)).unwrap());
            assert_eq!([ends.next(), ends.next()].map(|event| event.map(origin)), [Some(1), None]);
        });
    }

    #[test]
    fn commands_go_to_the_core_of_their_connection() {
        let (ends, cores) = rings(3);
        let (conn, command) = close(2);
        assert!(ends.of(conn).unwrap().command(command).is_ok());
        assert_eq!([0, 1, 2].map(|core| cores[core].1.len()), [0, 0, 1]);
        assert!(ends.of(close(3).0).is_none(), "there is no such core");
        // A single core may have any number.
        assert!(rings(1).0.of(close(9).0).is_some());
    }

    #[test]
    fn connections_are_opened_by_all_in_turn() {
        let (ends, cores) = rings(3);
        let waiting = || [0, 1, 2].map(|core| cores[core].1.len());
        for _ in 0..4 {
            ends.spread(close(0).1).unwrap();
        }
        assert_eq!(waiting(), [2, 1, 1]);
        ends.all()[1].shared.leave(std::iter::empty());
        ends.spread(close(0).1).unwrap();
        assert_eq!(waiting(), [2, 1, 2], "those that are full or gone are passed over");
        assert_eq!(ends.spread(close(0).1).unwrap_err(), CommandErrorKind::Full);
        ends.all().iter().for_each(|end| end.shared.leave(std::iter::empty()));
        assert_eq!(ends.spread(close(0).1).unwrap_err(), CommandErrorKind::Gone);
    }
}
