//! Layer `api`: what applications use.
//!
//! # In short
//! * A [`Core`] is a poll loop on one thread: a port's queue pair, the network layer, the QUIC engine, and an
//!   application. Cores share nothing.
//! * An [`App`] is an application that runs on a core: it is called with every [`Event`] and uses its [`Context`] to
//!   connect, and a [`Conn`] to open streams, to send and to receive. It must return soon.
//! * A [`Handle`] is for everybody else: it does the same from other threads, over two bounded rings
//!   (see [`handle`]).
//!
//! # Memory
//! Stream bytes are never copied inside the stack. (A port whose packet buffers a peer process can write to copies whole
//! frames to private memory first, unless its profile trusts that process: `dpdk::PortProfile::copies_frames`.)
//! * **Sending**: [`SendData`] moves in and is encrypted from where it lies; it comes back in `SendDone` when the peer
//!   has acknowledged it.
//! * **Receiving into your own memory**: [`Conn::provide_receive_buffers`] moves [`PinnedBuf`]s in; bytes are
//!   decrypted straight into them, and the window follows what was provided. Each comes back once, in
//!   `Buffer`, whatever ends the stream. Set the stream's window in [`TransportConfig`] to 0, or provide at
//!   least that much at first. For streams that peers open, use a [`BufferProvider`].
//! * **Receiving from the pool**: without provided buffers, bytes are decrypted into chunks of the core's
//!   [`BufPool`]. [`Conn::take`] lends them as [`Chunk`]s, which may go to other threads and return to the
//!   pool when they are dropped; [`Conn::peek`] and [`Conn::consume`] read them in place.
//!
//! # What an application may rely on
//! * **Everything comes back exactly once**: each buffer in `Buffer` with the number of its valid bytes, each sent
//!   memory in `SendDone` with the number of its acknowledged ones, whatever ends the stream: its end, a reset, a stop,
//!   a close from either side, a timeout, the end of the core ([`Core::run`] with an error, [`Core::into_app`]) or of a
//!   bare engine (`Endpoint::into_events`). What cannot be taken comes back in the error.
//! * **A warning before space runs out**: [`Event::ReceiveBufferLow`] comes once fewer than
//!   [`receive_low_water`](TransportConfig::receive_low_water) provided bytes, and less than half of all that were
//!   provided, are unfilled; and again when the peer has used some of what was provided since, or says that it is blocked.
//!   A stream whose end is known to fit needs no warning and gets none. A late application stalls its peer and loses
//!   nothing, however long it takes: whichever side waits for space, or owes some, keeps the connection alive.
//! * **Buffers of exactly the right size are enough**: the peer has credit for one byte more, so it always reaches the end
//!   of its stream. If it has more than that, [`OutOfSpace::Stop`] stops the stream at once rather than let it wait.
//! * **Running out of memory ends nothing**: packets whose data finds no memory, in an empty pool or beyond what a
//!   [`BufferProvider`] gave, count as lost (`quic_no_memory`); the peer sends them again.
//! * **Nobody takes all of the pool**: a connection's chunks are charged to it and to its address, until they are dropped
//!   ([`MemoryConfig`]).
//! * **Data that arrived is not lost**: bytes of pooled streams that came before a peer's close are reported before
//!   `Closed`, and can be taken until the application has handled that.
//! * **Order**: [`Conn::set_priority`] ranks streams by urgency; streams of equal urgency go one after the other, or take
//!   turns ([`Priority`], RFC 9218). [`Conn::send_vectored`] and [`Handle::send_vectored`] take all pieces or none.
//! * **One event for all**: with [`Notify::WhenComplete`], a stream is silent until everything has arrived.
//! * **Numbers**: [`Conn::stream_stats`], [`Event::Finished`] and the engine's counters say how many bytes were placed
//!   directly, how many went through a cipher block on the stack, and how many were copied, which is none.
//!
//! * **A panic stays no secret**: if an application panics, [`Core::run`] closes its connections with INTERNAL_ERROR, so that
//!   peers are told, gives all memory back, and lets the panic go on.
//!
//! # Logging
//! The library emits events of the crate `tracing`, with targets below `gannet`, and prints nothing. `warn` and `error` are
//! for the operator. What a peer can cause is `debug` or `info`, and limited in number where it can repeat; nothing is said
//! about single packets. Lines about a connection have the fields `conn` (its [`ConnId`]) and `peer`. A level that nobody
//! asks for costs a branch.
//!
//! A core emits events from its poll loop: a subscriber that waits for a disk or a terminal stops all connections. Let it hand
//! its lines to another thread, and rather lose some than wait.
//!
//! # Two cores in one thread
//! A server that answers in upper case, and a client that asks it, over a simulated link. With a real port (feature
//! `dpdk`), each core has a thread of its own that calls [`Core::run`].
//! ```
//! use std::net::SocketAddr;
//!
//! use gannet::api::*;
//! use gannet::datapath::sim::{SimConfig, SimLink};
//!
//! struct Server;
//!
//! impl App for Server {
//!     fn on_event(&mut self, cx: &mut Context<'_>, conn: ConnId, event: Event) {
//!         let (Event::Readable { id, .. }, Some(mut conn)) = (event, cx.conn(conn)) else { return };
//!         while let Some(chunk) = conn.take(id) {
//!             // Refused only if the client has lost its interest.
//!             let _ = conn.send(id, chunk.to_ascii_uppercase().into(), chunk.is_last());
//!         }
//!     }
//! }
//!
//! struct Client {
//!     server: SocketAddr,
//!     config: ClientConfig,
//!     started: bool,
//!     answer: Vec<u8>,
//!     done: bool,
//! }
//!
//! impl App for Client {
//!     fn on_turn(&mut self, cx: &mut Context<'_>) {
//!         if !std::mem::replace(&mut self.started, true) {
//!             cx.connect(&self.config, "server.test", self.server).expect("one connection");
//!         }
//!     }
//!
//!     fn on_event(&mut self, cx: &mut Context<'_>, id: ConnId, event: Event) {
//!         let Some(mut conn) = cx.conn(id) else { return };
//!         match event {
//!             Event::Connected { .. } => {
//!                 let stream = conn.open(Dir::Bidi).expect("the first stream");
//!                 conn.send(stream, "please shout".into(), true).expect("a new stream");
//!             }
//!             Event::Readable { id: stream, .. } => {
//!                 while let Some(chunk) = conn.take(stream) {
//!                     self.answer.extend_from_slice(&chunk);
//!                     self.done |= chunk.is_last();
//!                 }
//!                 if self.done {
//!                     cx.close(id, 0, "thank you");
//!                 }
//!             }
//!             Event::Closed { reason } => assert!(self.done, "{reason}"),
//!             _ => {}
//!         }
//!     }
//!
//!     fn is_done(&self) -> bool {
//!         self.done
//!     }
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let tls_options = tls::TlsOptions { alpn: vec![b"shout".to_vec()], ..Default::default() };
//! let identity = rcgen::generate_simple_self_signed(["server.test".to_owned()])?;
//! let key = rustls::pki_types::PrivateKeyDer::try_from(identity.signing_key.serialize_der())?;
//! let server_tls = tls::server_config(vec![identity.cert.der().clone()], key, &tls_options)?;
//! let server = ServerConfig::new(server_tls, TransportConfig::default())?;
//! let mut roots = rustls::RootCertStore::empty();
//! roots.add(identity.cert.der().clone())?;
//! let client = ClientConfig::new(tls::client_config(roots, &tls_options)?, TransportConfig::default())?;
//!
//! let core_config = |addr: &str, server: Option<ServerConfig>| -> Result<CoreConfig, Box<dyn std::error::Error>> {
//!     let config = CoreConfig::new(addr.parse()?, endpoint_config()?);
//!     Ok(CoreConfig { listen: server.as_ref().map(|_| 443), server, ..config })
//! };
//! let (port_a, port_b) = SimLink::pair(SimConfig::default());
//! let mut server = Core::new(port_a, core_config("192.0.2.1/24", Some(server))?, Server)?;
//! let remote = "192.0.2.1:443".parse()?;
//! let asking = Client { server: remote, config: client, started: false, answer: Vec::new(), done: false };
//! let mut client = Core::new(port_b, core_config("192.0.2.2/24", None)?, asking)?;
//! while !client.app.done {
//!     server.turn();
//!     client.turn();
//! }
//! assert_eq!(client.app.answer, b"PLEASE SHOUT");
//! # Ok(())
//! # }
//! ```
//!
//! # From another thread
//! The same with handles: the cores run on their own threads, and these threads do what they like.
//! ```
//! # use std::net::SocketAddr;
//! use gannet::api::handle::{self, Handle, HandleApp, HandleEvent, Opening};
//! # use gannet::api::*;
//! # use gannet::datapath::sim::{SimConfig, SimLink};
//!
//! fn serve(server: &Handle) {
//!     for event in server.events() {
//!         if let HandleEvent::Data { conn, id, chunk } = event {
//!             // A real server reads events and tries again if this says that the ring is full.
//!             server.send(conn, id, chunk.to_ascii_uppercase(), chunk.is_last()).expect("a short answer");
//!         }
//!     }
//! }
//!
//! fn ask(client: &Handle, config: &ClientConfig, remote: SocketAddr) -> Result<Vec<u8>, Box<dyn std::error::Error>> {
//!     let mut answer = Vec::new();
//!     client.connect(config, "server.test", remote)?;
//!     for event in client.events() {
//!         match event {
//!             HandleEvent::Engine { conn, event: Event::Connected { .. } } => {
//!                 let opening = Opening { data: Some("please shout".into()), fin: true, ..Opening::default() };
//!                 client.open_with(conn, Dir::Bidi, opening)?;
//!             }
//!             HandleEvent::Data { chunk, .. } => {
//!                 answer.extend_from_slice(&chunk);
//!                 if chunk.is_last() {
//!                     client.shutdown();
//!                 }
//!             }
//!             HandleEvent::ConnectFailed { why, .. } => return Err(why.into()),
//!             HandleEvent::Engine { event: Event::Closed { reason }, .. } if answer.is_empty() => {
//!                 return Err(reason.to_string().into());
//!             }
//!             _ => {}
//!         }
//!     }
//!     Ok(answer)
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let tls_options = tls::TlsOptions { alpn: vec![b"shout".to_vec()], ..Default::default() };
//! # let identity = rcgen::generate_simple_self_signed(["server.test".to_owned()])?;
//! # let key = rustls::pki_types::PrivateKeyDer::try_from(identity.signing_key.serialize_der())?;
//! # let server_tls = tls::server_config(vec![identity.cert.der().clone()], key, &tls_options)?;
//! # let server_config = ServerConfig::new(server_tls, TransportConfig::default())?;
//! # let mut roots = rustls::RootCertStore::empty();
//! # roots.add(identity.cert.der().clone())?;
//! # let client_config = ClientConfig::new(tls::client_config(roots, &tls_options)?, TransportConfig::default())?;
//! # let core_config = |addr: &str, server: Option<ServerConfig>| -> Result<CoreConfig, Box<dyn std::error::Error>> {
//! #     let config = CoreConfig::new(addr.parse()?, endpoint_config()?);
//! #     Ok(CoreConfig { listen: server.as_ref().map(|_| 443), server, ..config })
//! # };
//! # let (port_a, port_b) = SimLink::pair(SimConfig::default());
//! # let remote = "192.0.2.1:443".parse()?;
//! let (server, server_app) = handle::channel(1024);
//! let (client, client_app) = handle::channel(1024);
//! let mut server_core = Core::new(port_a, core_config("192.0.2.1/24", Some(server_config))?, server_app)?;
//! let mut client_core = Core::new(port_b, core_config("192.0.2.2/24", None)?, client_app)?;
//! let answer = std::thread::scope(|scope| {
//!     scope.spawn(move || {
//!         let stop = server_core.app.stop();
//!         server_core.run(&stop).expect("a link that stays up");
//!     });
//!     scope.spawn(move || {
//!         let stop = client_core.app.stop();
//!         client_core.run(&stop).expect("a link that stays up");
//!     });
//!     scope.spawn(|| serve(&server));
//!     let answer = ask(&client, &client_config, remote);
//!     client.shutdown();
//!     server.shutdown();
//!     answer
//! })?;
//! assert_eq!(answer, b"PLEASE SHOUT");
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]

mod data;
pub mod handle;
mod secret;

use std::io;

use crate::base::rng::os_seed;

#[doc(inline)]
pub use crate::base::time::{Duration, Instant};
#[doc(inline)]
pub use crate::mem::{AllocError, BufPool, Hugepages, PinnedBuf, PinnedRegion, PoolConfig, PoolStats};
#[doc(inline)]
pub use crate::net::{Cidr, CidrError, Detect, Drops, NetConfig, NetDrop, NetError, NetStats, Route, RouteError};
#[doc(inline)]
pub use crate::quic::{
    BufferProvider, Chunk, CidConfig, CidConfigError, ClientConfig, CloseReason, ConfigError, CongestionAlgorithm,
    Conn, ConnId, ConnStats, ConnectError, Dir, DropReason, EndpointConfig, EndpointStats, Event, MemoryConfig, Notify,
    OpenError, OutOfSpace, PlacementStats, Priority, ProvideError, ProvideErrorKind, RetryPolicy, Secret, SendData,
    SendError, SendErrorKind, ServerConfig, StreamError, StreamId, StreamStats, TransportConfig, tls,
};
#[doc(inline)]
pub use crate::runtime::{
    App, ConnectFailure, Context, Core, CoreConfig, CoreLive, CoreStats, Idle, Observer, RunError, Stage, Stages,
    Unreachable, Waker,
};
/// Bytes with shared ownership, one kind of [`SendData`].
pub use bytes::Bytes;
pub use handle::{Handle, HandleApp, HandleEvent};
/// The TLS library whose certificates and keys [`tls`] takes.
pub use rustls;
pub use secret::{SecretError, secret_file};

/// Settings of an engine with fresh secrets from the system: core 0, up to 2^20 connections and 10,000
/// handshakes at a time, 1,000 stateless resets a second. Several cores differ in
/// [`EndpointConfig::core`].
///
/// # Errors
/// When the system gives no random numbers.
pub fn endpoint_config() -> io::Result<EndpointConfig> {
    Ok(EndpointConfig::from_seed(os_seed()?))
}

/// The same with a secret that outlives the process ([`secret_file`]): a peer whose connection was lost with an earlier
/// process is told so as soon as it sends.
///
/// # Errors
/// When the system gives no random numbers.
pub fn endpoint_config_with(secret: &Secret) -> io::Result<EndpointConfig> {
    Ok(EndpointConfig::from_secret(secret, os_seed()?))
}
