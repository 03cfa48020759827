//! QUIC versions 1 and 2 (RFC 9000, RFC 9369) on [DPDK](https://www.dpdk.org), for programs that are built around their
//! network.
//!
//! Stream data is decrypted directly into memory that the application provides and encrypted directly from memory that
//! it hands over, without intermediate copies. One poll loop per core owns a port's queue pair, the network layer, the
//! QUIC engine and the application; cores share nothing.
//!
//! # A first program
//! An application is a type that implements [`App`](api::App); a [`Core`](api::Core) is the loop that calls it. Here a
//! server and a client run in one thread, connected by an in-memory link. The client provides the buffer that the
//! answer is decrypted into.
//! ```
//! use gannet::api::*;
//! use gannet::datapath::sim::{SimConfig, SimLink};
//!
//! /// Answers each request when it is complete.
//! struct Server;
//!
//! impl App for Server {
//!     fn on_event(&mut self, cx: &mut Context<'_>, conn: ConnId, event: Event) {
//!         let (Event::Readable { id, .. }, Some(mut conn)) = (event, cx.conn(conn)) else { return };
//!         while let Some(chunk) = conn.take(id) {
//!             if chunk.is_last() {
//!                 // Fails only if the client no longer wants the answer.
//!                 let _ = conn.send(id, "the answer".into(), true);
//!             }
//!         }
//!     }
//! }
//!
//! /// Sends one request and closes the connection when the answer has arrived.
//! struct Client {
//!     config: Option<ClientConfig>,
//!     answer: Vec<u8>,
//!     done: bool,
//! }
//!
//! impl App for Client {
//!     fn on_turn(&mut self, cx: &mut Context<'_>) {
//!         if let Some(config) = self.config.take() {
//!             let server = "192.0.2.1:443".parse().expect("an address");
//!             cx.connect(&config, "server.test", server).expect("room for one connection");
//!         }
//!     }
//!
//!     fn on_event(&mut self, cx: &mut Context<'_>, id: ConnId, event: Event) {
//!         match event {
//!             Event::Connected { .. } => {
//!                 let buf = cx.pool().alloc(4096).expect("4 KiB of memory");
//!                 let Some(mut conn) = cx.conn(id) else { return };
//!                 let stream = conn.open(Dir::Bidi).expect("the first stream");
//!                 conn.provide_receive_buffers(stream, vec![buf]).expect("a new stream");
//!                 conn.send(stream, "a question".into(), true).expect("a new stream");
//!             }
//!             // The buffer is returned; its first `valid` bytes are the answer.
//!             Event::Buffer { buf, valid, .. } => self.answer = buf[..valid].to_vec(),
//!             Event::Finished { .. } => cx.close(id, 0, "thank you"),
//!             Event::Closed { .. } => self.done = true,
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
//! // A certificate that the client trusts. Real programs load theirs from files.
//! let identity = rcgen::generate_simple_self_signed(["server.test".to_owned()])?;
//! let certificate = identity.cert.der().clone();
//! let key = rustls::pki_types::PrivateKeyDer::try_from(identity.signing_key.serialize_der())?;
//! let mut roots = rustls::RootCertStore::empty();
//! roots.add(certificate.clone())?;
//!
//! let options = tls::TlsOptions { alpn: vec![b"questions".to_vec()], ..Default::default() };
//! let server = ServerConfig::new(tls::server_config(vec![certificate], key, &options)?, TransportConfig::default())?;
//! // Streams that the client opens start with a window of 0, which grows with the buffers that it provides.
//! let transport = TransportConfig { stream_window_bidi_local: 0, ..TransportConfig::default() };
//! let config = Some(ClientConfig::new(tls::client_config(roots, &options)?, transport)?);
//!
//! let (one_end, other_end) = SimLink::pair(SimConfig::default());
//! let server = CoreConfig::new("192.0.2.1/24".parse()?, endpoint_config()?).serving(443, server);
//! let mut server = Core::new(one_end, server, Server)?;
//! let client = Client { config, answer: Vec::new(), done: false };
//! let mut client = Core::new(other_end, CoreConfig::new("192.0.2.2/24".parse()?, endpoint_config()?), client)?;
//! while !client.app.is_done() {
//!     server.turn();
//!     client.turn();
//! }
//! assert_eq!(client.app.answer, b"the answer");
//! # Ok(())
//! # }
//! ```
//!
//! # On a real port
//! With the feature `dpdk`, a port replaces the link and [`Core::run`](api::Core::run) replaces the loop: it polls
//! until the application is done or `stop` is set. A profile selects and configures the device; it is one of those in
//! `dpdk-config/` or a file, and single settings can be overridden.
#![cfg_attr(feature = "dpdk", doc = "```no_run")]
#![cfg_attr(not(feature = "dpdk"), doc = "```ignore")]
//! use std::sync::atomic::AtomicBool;
//!
//! use gannet::api::*;
//! use gannet::dpdk::{Eal, EalConfig, Port, PortProfile};
//!
//! fn serve(app: impl App, server: ServerConfig, stop: &AtomicBool) -> Result<(), Box<dyn std::error::Error>> {
//!     let profile = PortProfile::load("ice", &[("device".into(), "0000:01:00.0".into())])?;
//!     // Once per process. The EAL lives until the last port is closed.
//!     let eal = Eal::init(&EalConfig::for_profiles(std::slice::from_ref(&profile)))?;
//!     if let Some(warning) = eal.warning() {
//!         eprintln!("{warning}");
//!     }
//!     let mut port = Port::open(&eal, &profile)?;
//!     // One queue pair for each core; this profile has one.
//!     let queue = port.take_queues().pop().ok_or("the port has no queue")?;
//!     // The polling thread should have a CPU of its own.
//!     let _registered = eal.register_thread()?;
//!     let config = CoreConfig::new("10.0.0.1/24".parse()?, endpoint_config()?).serving(443, server);
//!     Core::new(queue, config, app)?.run(stop)?;
//!     Ok(())
//! }
//! ```
//!
//! # Where to go from here
//! * [`api`] contains everything an application needs. Its documentation describes the guarantees, how memory moves,
//!   and how other threads talk to a core.
//! * [`datapath`] has in-memory links for tests, and decorators that drop packets or write captures.
#![cfg_attr(feature = "dpdk", doc = "* [`dpdk`] opens ports.")]
#![cfg_attr(
    feature = "proto",
    doc = "* [`proto`] has two applications: files over hq-interop, and a performance test."
)]
//! * `examples/` in the repository has three programs that show the benefits of owning the memory.
//!
//! # Features
//! | feature | what it adds | default |
//! | --- | --- | --- |
//! | `dpdk` | real ports; needs libdpdk | yes |
//! | `ipsec-mb` | AES-GCM by Intel's library, for CPUs without 512-bit VAES; needs libipsec-mb | yes |
//! | `cli` | the `gannet` command, and `proto` and `report` with it | yes |
//! | `proto` | the applications of the command | with `cli` |
//! | `report` | latencies as `.hdr` logs and HTML pages | with `cli` |
//!
//! Libraries should use `default-features = false, features = ["dpdk", "ipsec-mb"]`, which leaves out the dependencies
//! of the command.
//!
//! # Stability
//! The public items of the modules on this page follow semantic versioning: before 1.0, breaking changes increment the
//! minor version. Other modules are public for this repository's tests and benchmarks only; they are hidden here and
//! may change at any time.

pub mod api;
#[doc(hidden)]
pub mod base;
#[doc(hidden)]
pub mod crypto;
pub mod datapath;
#[cfg(feature = "dpdk")]
pub mod dpdk;
#[doc(hidden)]
pub mod mem;
#[doc(hidden)]
pub mod net;
#[cfg(feature = "proto")]
pub mod proto;
#[doc(hidden)]
pub mod qlog;
#[doc(hidden)]
pub mod quic;
pub mod report;
#[doc(hidden)]
pub mod runtime;
#[doc(hidden)]
pub mod sim;
#[doc(hidden)]
pub mod wire;

/// The README's example compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
