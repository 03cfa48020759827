//! What a handle asks of its core.

use std::net::SocketAddr;

use thiserror::Error;

use crate::api::handle::{ConnectRefusal, HandleEvent, Opening, Operation, Ticket};
use crate::mem::PinnedBuf;
use crate::quic::{
    ClientConfig, ConnId, Dir, Notify, OpenError, OutOfSpace, Priority, ProvideErrorKind, SendData, SendErrorKind,
    StreamError, StreamId,
};

/// Why the core did not get a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum CommandErrorKind {
    /// The core has enough to do: it has not taken earlier commands yet, or waits for the handle to read events,
    /// or holds back as much data as it may because peers do not take it.
    #[error("the core has not yet taken earlier commands; read events, then try again")]
    Full,
    /// The core has ended.
    #[error("the core has ended")]
    Gone,
}

/// The core did not get a command; what was handed over with it comes back.
#[derive(Debug, Error)]
#[error("{kind}")]
pub struct CommandError<T = ()> {
    /// Why.
    pub kind: CommandErrorKind,
    /// What was handed over.
    pub given: T,
}

/// Data that is sent whole, or not at all.
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

    /// Tells that nothing of it is sent: each piece goes back in an event of its own, in order, the last with `fin`.
    /// Of no pieces at all, an empty one tells.
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

/// A connection to be started; boxed, since it is rare and large.
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
    StopSending { conn: ConnId, id: StreamId, code: u64 },
    Close { conn: ConnId, code: u64, reason: String },
}

impl Command {
    /// Tells that a command is not carried out, because the core ends: in one event for most, in many for data in
    /// pieces, in none where there is nothing to say.
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
            Self::Close { .. } => return,
        });
    }
}
