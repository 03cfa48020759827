//! The API for applications.
//!
//! # Overview
//! * A [`Core`] is a poll loop on one thread: a port's queue pair, the network layer, the QUIC engine, and an
//!   application. Cores share nothing.
//! * An [`App`] is an application that runs on a core: it is called with every [`Event`], connects through its
//!   [`Context`], and opens streams, sends and receives through a [`Conn`]. Its callbacks must not block.
//! * A [`Handle`] offers the same operations to other threads, over two bounded rings (see [`handle`]).
//!
//! # Memory
//! Stream data is never copied inside the stack. (If another process can write to a port's packet buffers, whole frames
//! are first copied to private memory, unless the port's profile trusts that process; see
//! `dpdk::PortProfile::copies_frames`.)
//! * **Sending**: [`SendData`] is moved into the stack and encrypted from where it lies. It is returned in `SendDone`
//!   once the peer has acknowledged it.
//! * **Receiving into your own memory**: [`Conn::provide_receive_buffers`] takes [`PinnedBuf`]s; data is decrypted
//!   directly into them, and the flow-control window grows with what is provided. Each is returned once, in `Buffer`,
//!   however the stream ends. Set the stream's initial window in [`TransportConfig`] to 0, or provide at least that
//!   many bytes first. For streams that peers open, use a [`BufferProvider`].
//! * **Receiving from the pool**: without provided buffers, data is decrypted into chunks of the core's [`BufPool`].
//!   [`Conn::take`] lends them as [`Chunk`]s, which may be sent to other threads and return to the pool when dropped;
//!   [`Conn::peek`] and [`Conn::consume`] read them in place.
//!
//! # Guarantees
//! * **All memory is returned exactly once**: each buffer in `Buffer` with the number of valid bytes, each piece of
//!   sent data in `SendDone` with the number of acknowledged bytes. This holds however the stream ends: normally, by
//!   RESET_STREAM or STOP_SENDING, by a close from either side, by a timeout, or with the core ([`Core::run`] returning
//!   an error, [`Core::into_app`]) or a bare engine (`Endpoint::into_events`). Memory that is not accepted is returned
//!   in the error.
//! * **A warning before space runs out**: [`Event::ReceiveBufferLow`] is raised when fewer than
//!   [`receive_low_water`](TransportConfig::receive_low_water) provided bytes, and less than half of all provided
//!   bytes, are unfilled. It is raised again when the peer has used some of the space provided since, or reports that
//!   it is blocked. It is not raised for a stream whose remaining data is known to fit. A slow application stalls its
//!   peer but loses nothing: both the side that waits for space and the side that has yet to provide it keep the
//!   connection alive.
//! * **Buffers of exactly the right size suffice**: the peer gets credit for one byte more, so it can always reach the
//!   end of its stream. If it has more data, [`OutOfSpace::Stop`] stops the stream at once instead of letting it wait.
//! * **Running out of memory closes no connection**: packets whose data cannot be stored, because the pool is empty or
//!   the buffers of a [`BufferProvider`] are full, are treated as lost and counted in `quic_no_memory`; the peer
//!   retransmits them.
//! * **No peer can exhaust the pool**: chunks are charged to their connection and to its peer's address until they are
//!   dropped ([`MemoryConfig`]).
//! * **Received data is not lost**: data of pooled streams that arrived before the peer's close is reported before
//!   `Closed`, and can be taken until the application has handled that event.
//! * **Order**: [`Conn::set_priority`] ranks streams by urgency; streams of equal urgency are sent one after the other
//!   or interleaved ([`Priority`], RFC 9218). [`Conn::send_vectored`] and [`Handle::send_vectored`] accept all pieces
//!   or none.
//! * **One event per stream**: with [`Notify::WhenComplete`], a stream reports nothing until all of its data has
//!   arrived.
//! * **Counters**: [`Conn::stream_stats`], [`Event::Finished`] and the engine's counters report how many bytes were
//!   placed directly, how many went through a cipher block on the stack, and how many were copied (always 0).
//! * **Panics close connections**: if an application panics, [`Core::run`] closes its connections with INTERNAL_ERROR,
//!   returns all memory, and resumes the panic.
//!
//! # Logging
//! The library emits `tracing` events with targets under `gannet` and prints nothing. `warn` and `error` are for the
//! operator. Anything a peer can cause is logged at `debug` or `info`, rate-limited where it can repeat; single packets
//! are not logged. Events about a connection have the fields `conn` (its [`ConnId`]) and `peer`. A disabled level costs
//! one branch.
//!
//! Cores emit these events from their poll loops, so a subscriber that blocks on a disk or a terminal stalls all
//! connections. It should hand its lines to another thread, and drop lines rather than block.
//!
//! # Two cores in one thread
//! A server that answers in upper case and its client, over a simulated link. With a real port (feature `dpdk`), each
//! core has a thread of its own that calls [`Core::run`].
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
//!             // Fails only if the client no longer wants the answer.
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
//! The same with handles: the cores run on threads of their own, and other threads use the connections.
//! ```
//! # use std::net::SocketAddr;
//! use gannet::api::handle::{self, Handle, HandleApp, HandleEvent, Opening};
//! # use gannet::api::*;
//! # use gannet::datapath::sim::{SimConfig, SimLink};
//!
//! fn serve(server: &Handle) {
//!     for event in server.events() {
//!         if let HandleEvent::Data { conn, id, chunk } = event {
//!             // If the ring is full, a real server reads events and tries again.
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
//!
//! # On several cores
//! A [`Group`] runs one core for each queue pair of a port, each with a thread, an engine and an application of its own.
//! A device spreads packets over its queues by their addresses, and connections stay on the core that accepted or opened
//! them: packets that reach another core are handed over, and what several cores have to know (where neighbours are, for
//! example) they tell each other. One [`Handle`] serves all cores. With a real port (feature `dpdk`), `CorePort` takes the
//! place of the simulated queues and of the mesh between the cores, and pins each core to its CPU.
//! ```
//! # use std::net::SocketAddr;
//! # use gannet::api::handle::{self, Handle, HandleApp, HandleEvent, Opening};
//! # use gannet::api::*;
//! use gannet::datapath::exchange::mesh;
//! # use gannet::datapath::sim::{SimConfig, SimLink};
//! # fn serve(server: &Handle) {
//! #     for event in server.events() {
//! #         if let HandleEvent::Data { conn, id, chunk } = event {
//! #             server.send(conn, id, chunk.to_ascii_uppercase(), chunk.is_last()).expect("a short answer");
//! #         }
//! #     }
//! # }
//! # fn ask(client: &Handle, config: &ClientConfig, remote: SocketAddr) -> Vec<u8> {
//! #     let mut answer = Vec::new();
//! #     client.connect(config, "server.test", remote).expect("room in the ring");
//! #     for event in client.events() {
//! #         match event {
//! #             HandleEvent::Engine { conn, event: Event::Connected { .. } } => {
//! #                 let opening = Opening { data: Some("please shout".into()), fin: true, ..Opening::default() };
//! #                 client.open_with(conn, Dir::Bidi, opening).expect("room in the ring");
//! #             }
//! #             HandleEvent::Data { chunk, .. } => {
//! #                 answer.extend_from_slice(&chunk);
//! #                 if chunk.is_last() {
//! #                     client.shutdown();
//! #                 }
//! #             }
//! #             HandleEvent::Engine { event: Event::Closed { .. }, .. } if answer.is_empty() => break,
//! #             _ => {}
//! #         }
//! #     }
//! #     answer
//! # }
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
//! # let remote = "192.0.2.1:443".parse()?;
//! let (port, other_end) = SimLink::pair(SimConfig::default());
//! // A device with two queues, which spreads frames by their last byte.
//! let queues = port.into_queues(2, |frame| frame.last().copied().unwrap_or(0).into());
//! let (server, apps) = handle::channels(2, 1024);
//! // The cores share the secrets of these settings, and their limits.
//! let group = Group::new(2, endpoint_config()?).stop_on(apps[0].stop());
//! let apps = std::sync::Mutex::new(apps.into_iter().map(Some).collect::<Vec<_>>());
//! let make = |place: Place| {
//!     let config = CoreConfig::new("192.0.2.1/24".parse()?, place.endpoint).serving(443, server_config.clone());
//!     let app = apps.lock().expect("no panic")[usize::from(place.core)].take();
//!     Ok((config, app.expect("one for each core")))
//! };
//! # let (client, client_app) = handle::channel(1024);
//! let answer = std::thread::scope(|scope| {
//! #     let config = CoreConfig::new("192.0.2.2/24".parse().unwrap(), endpoint_config().unwrap());
//! #     let mut client_core = Core::new(other_end, config, client_app).unwrap();
//! #     scope.spawn(move || {
//! #         let stop = client_core.app.stop();
//! #         client_core.run(&stop).unwrap();
//! #     });
//!     scope.spawn(|| serve(&server));
//!     let asking = scope.spawn(|| {
//!         let answer = ask(&client, &client_config, remote);
//!         server.shutdown();
//!         answer
//!     });
//!     group.run(queues, mesh(2, 512), make)?;
//!     Ok::<_, GroupError>(asking.join().expect("no panic"))
//! })?;
//! assert_eq!(answer, b"PLEASE SHOUT");
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]

mod data;
pub mod handle;
mod lb_key;
#[cfg(feature = "dpdk")]
mod port;
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
pub use crate::qlog::{Names as QlogNames, Qlog, QlogConfig};
#[doc(inline)]
pub use crate::quic::trace::{TraceEvent, TraceSink, TraceStart, Tracer};
#[doc(inline)]
pub use crate::quic::{
    AckRequests, BufferProvider, Chunk, CidConfig, CidConfigError, ClientConfig, CloseReason, ConfigError,
    CongestionAlgorithm, Conn, ConnId, ConnStats, ConnectError, DatagramConfig, DatagramError, DatagramErrorKind,
    DatagramId, DatagramOptions, DatagramOrder, DatagramOutcome, DatagramStats, Dir, DropPolicy, DropReason, EarlyData,
    EarlyDataPolicy, EarlyDataRequest, EndpointConfig, EndpointStats, Event, MemoryConfig, MemoryTokens, MigrateError,
    NewTokens, Notify, OpenError, OutOfSpace, PlacementStats, PreferredAddress, Priority, ProvideError,
    ProvideErrorKind, ReceivedDatagram, RetryPolicy, Secret, SendData, SendError, SendErrorKind, ServerConfig,
    SessionTickets, StreamError, StreamId, StreamStats, TokenScope, TokenStore, TransportConfig, tls,
};
#[doc(inline)]
pub use crate::runtime::{
    App, ConnectFailure, Context, Control, Core, CoreConfig, CoreLive, CoreStats, Crew, Failure, Group, GroupError,
    Idle, Misfit, Observer, Place, RunError, SetTlsError, Stage, Stages, Unheard, Unreachable, Waker,
};
/// Reference-counted bytes, one kind of [`SendData`].
pub use bytes::Bytes;
pub use handle::{Handle, HandleApp, HandleEvent};
pub use lb_key::{LbKey, LbKeyError, lb_key_file};
#[cfg(feature = "dpdk")]
pub use port::CorePort;
/// The TLS library whose certificates and keys [`tls`] takes.
pub use rustls;
pub use secret::{SecretError, secret_file};

/// Settings for the engine of core 0 with fresh secrets from the system: up to 2^20 connections and 10,000 concurrent
/// handshakes, 1,000 stateless resets per second. [`EndpointConfig::for_core`] derives the settings of several cores.
///
/// # Errors
/// If the system provides no random numbers.
pub fn endpoint_config() -> io::Result<EndpointConfig> {
    Ok(EndpointConfig::from_seed(os_seed()?))
}

/// Like [`endpoint_config`], with a secret that outlives the process (see [`secret_file`]): peers of an earlier process
/// receive a stateless reset as soon as they send, instead of waiting for a timeout.
///
/// # Errors
/// If the system provides no random numbers.
pub fn endpoint_config_with(secret: &Secret) -> io::Result<EndpointConfig> {
    Ok(EndpointConfig::from_secret(secret, os_seed()?))
}
