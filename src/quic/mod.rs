//! The protocol engine: sans-IO, deterministic, and without unsafe code.
//!
//! An [`Endpoint`] is the engine of one core. Received datagrams are passed to [`Endpoint::handle_datagram`], datagrams
//! to send are returned by [`Endpoint::poll_transmit`], events by [`Endpoint::poll_event`], and the time is passed in.
//! Stream data is decrypted from the datagram directly into the memory passed to [`Conn::provide_receive_buffers`].
#![forbid(unsafe_code)]

mod ack_frequency;
mod cid;
pub mod config;
mod config_error;
pub mod congestion;
mod connection;
mod crypto_stream;
mod datagram;
mod early;
mod endpoint;
pub mod event;
mod fixed_bit;
mod flow;
mod guest;
mod memory;
mod negotiation;
mod path;
pub mod recovery;
mod secret;
mod space;
mod stats;
mod stream;
pub mod tls;
mod token;
pub mod trace;
mod window;

pub use crate::wire::quic::{StreamId, Version, Versions};
pub use cid::{CidCodec, CidConfig, CidConfigError, CidInfo};
pub use config::{
    AckRequests, BufferProvider, ClientConfig, CongestionAlgorithm, DatagramConfig, DatagramOrder, DropPolicy,
    EndpointConfig, MemoryConfig, PreferredAddress, ServerConfig, TransportConfig,
};
pub use config_error::ConfigError;
pub use connection::{
    Conn, DatagramError, DatagramErrorKind, MigrateError, OpenError, PeerStanding, ProvideError, ProvideErrorKind,
    RxMeta, SendError, SendErrorKind, Slots, StreamError, TooBig, Transmit, Undelivered,
};
pub use datagram::{DatagramOptions, DatagramStats, ReceivedDatagram};
pub use early::{EarlyData, EarlyDataPolicy, EarlyDataRequest};
pub use endpoint::{AnswerId, Arrival, ConnectError, Datagram, Endpoint, Known, Lead, Leads, Origin, RUN, Tag};
pub use event::{CloseReason, ConnId, DatagramId, DatagramOutcome, Dir, Event, Notify, OutOfSpace, SendData};
pub use secret::Secret;
pub use stats::{ConnStats, DropReason, EndpointStats, PlacementStats, StreamStats};
pub use stream::chunk::Chunk;
pub use stream::priority::Priority;
pub use tls::SessionTickets;
pub(crate) use token::LIFETIME as TOKEN_LIFETIME;
pub use token::{MemoryTokens, NewTokens, RetryPolicy, TokenScope, TokenStore};
