//! Commands from handles to their core.

use std::net::SocketAddr;

use thiserror::Error;

use crate::api::handle::{ConnectRefusal, HandleEvent, Opening, Operation, Ticket};
use crate::base::time::Duration;
use crate::mem::PinnedBuf;
use crate::quic::{
    ClientConfig, ConnId, DatagramErrorKind, Dir, MigrateError, Notify, OpenError, OutOfSpace, Priority,
    ProvideErrorKind, SendData, SendErrorKind, StreamError, StreamId,
};

/// Why a command was not queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum CommandErrorKind {
    /// The core has not taken earlier commands yet, waits for the handle to read events, or holds back the maximum
    /// amount of data that peers have not taken.
    #[error("the core is busy; read events, then try again")]
    Full,
    /// The core has ended.
    #[error("the core has ended")]
    Gone,
}

/// A command was not queued. Memory passed with it is returned in the error.
#[derive(Debug, Error)]
#[error("{kind}")]
pub struct CommandError<T = ()> {
    /// The reason.
    pub kind: CommandErrorKind,
    /// The memory passed with the command.
    pub given: T,
}

/// Data of one send, accepted as a whole or not at all.
pub(super) enum Pieces {
    One(SendData),
    Many(Vec<SendData>),
}

impl Pieces {
    pub(super) fn one(self) -> SendData {
        match self {
            Self::One(data) => data,
            Self::Many(mut data) => data.pop().unwrap_or(SendData::Static(&[])),
        }
    }

    pub(super) fn many(self) -> Vec<SendData> {
        match self {
            Self::One(data) => vec![data],
            Self::Many(data) => data,
        }
    }

    /// Refuses the data: returns each piece, in order, in an event of its own, the last one with `fin`. Without any
    /// pieces, one event with empty data is produced.
    pub(super) fn refuse(
        self,
        (conn, id): (ConnId, StreamId),
        fin: bool,
        why: SendErrorKind,
        mut tell: impl FnMut(HandleEvent),
    ) {
        let (before, last) = match self {
            Self::One(data) => (Vec::new(), data),
            Self::Many(mut data) => {
                let last = data.pop().unwrap_or(SendData::Static(&[]));
                (data, last)
            }
        };
        for data in before {
            tell(HandleEvent::SendRefused { conn, id, data, fin: false, why });
        }
        tell(HandleEvent::SendRefused { conn, id, data: last, fin, why });
    }
}

/// A connection to start; boxed because it is rare and large.
pub(super) struct Connect {
    pub(super) ticket: Ticket,
    pub(super) config: ClientConfig,
    pub(super) server_name: String,
    pub(super) remote: SocketAddr,
}

pub(super) enum Command {
    Connect(Box<Connect>),
    Open { ticket: Ticket, conn: ConnId, dir: Dir, opening: Opening },
    Send { conn: ConnId, id: StreamId, data: Pieces, fin: bool },
    SetPriority { conn: ConnId, id: StreamId, priority: Priority },
    SetNotify { conn: ConnId, id: StreamId, notify: Notify },
    SetOutOfSpace { conn: ConnId, id: StreamId, what: OutOfSpace },
    Provide { conn: ConnId, id: StreamId, bufs: Vec<PinnedBuf> },
    Reset { conn: ConnId, id: StreamId, code: u64 },
    ResetAt { conn: ConnId, id: StreamId, code: u64, reliable: u64 },
    SendDatagram { conn: ConnId, data: SendData, urgency: u8, within: Option<Duration> },
    ProvideDatagrams { conn: ConnId, bufs: Vec<PinnedBuf> },
    StopSending { conn: ConnId, id: StreamId, code: u64 },
    Migrate { conn: ConnId, to: Option<SocketAddr> },
    Probe { conn: ConnId, local: SocketAddr },
    RotateIds { conn: ConnId },
    Close { conn: ConnId, code: u64, reason: String },
}

impl Command {
    /// Refuses the command because the core ends: with one event for most commands, one for each piece of vectored
    /// data, and none for commands that expect no answer.
    pub(super) fn refuse(self, mut tell: impl FnMut(HandleEvent)) {
        tell(match self {
            Self::Connect(connect) => {
                HandleEvent::ConnectFailed { ticket: connect.ticket, why: ConnectRefusal::ShuttingDown }
            }
            Self::Open { ticket, conn, opening, .. } => {
                HandleEvent::OpenFailed { ticket, conn, why: OpenError::Closed, opening }
            }
            Self::Send { conn, id, data, fin } => {
                return data.refuse((conn, id), fin, SendErrorKind::Closed, tell);
            }
            Self::Provide { conn, id, bufs } => {
                HandleEvent::ProvideRefused { conn, id, bufs, why: ProvideErrorKind::Closed }
            }
            Self::SendDatagram { conn, data, .. } => {
                HandleEvent::DatagramRefused { conn, data, why: DatagramErrorKind::Closed }
            }
            Self::ProvideDatagrams { conn, bufs } => {
                HandleEvent::DatagramBuffersRefused { conn, bufs, why: ProvideErrorKind::Closed }
            }
            Self::ResetAt { conn, id, .. } => {
                HandleEvent::Refused { conn, id, what: Operation::ResetAt, why: StreamError::Closed }
            }
            Self::Reset { conn, id, .. } => {
                HandleEvent::Refused { conn, id, what: Operation::Reset, why: StreamError::Closed }
            }
            Self::StopSending { conn, id, .. } => {
                HandleEvent::Refused { conn, id, what: Operation::StopSending, why: StreamError::Closed }
            }
            Self::SetPriority { conn, id, .. } => {
                HandleEvent::Refused { conn, id, what: Operation::SetPriority, why: StreamError::Closed }
            }
            Self::SetNotify { conn, id, .. } => {
                HandleEvent::Refused { conn, id, what: Operation::SetNotify, why: StreamError::Closed }
            }
            Self::SetOutOfSpace { conn, id, .. } => {
                HandleEvent::Refused { conn, id, what: Operation::SetOutOfSpace, why: StreamError::Closed }
            }
            Self::Migrate { conn, .. } | Self::Probe { conn, .. } => {
                HandleEvent::MigrateRefused { conn, why: MigrateError::Closed }
            }
            Self::RotateIds { .. } | Self::Close { .. } => return,
        });
    }
}
