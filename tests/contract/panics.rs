//! Applications that panic anywhere: peers are informed, all memory is returned, and the panic continues in the caller
//! of the core.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;

use gannet::api::*;
use gannet::datapath::sim::{SimConfig, SimLink, SimPort};

use super::api::{HandleCore, client_config, core, next, remote, run_core, server_config, tls_options};

/// A server with an application and TLS settings of its own, and a client with a handle.
struct Guest<A> {
    server_core: Core<SimPort, A>,
    client: Handle,
    client_core: HandleCore,
    server_pool: BufPool,
}

impl<A: App> Guest<A> {
    fn new(
        transport: TransportConfig,
        key_log: Option<Arc<dyn rustls::KeyLog>>,
        app: impl FnOnce(&BufPool) -> A,
    ) -> Self {
        let options = tls::TlsOptions { key_log, ..tls_options() };
        let (server_port, client_port) = SimLink::pair(SimConfig::default());
        let (client, client_app) = handle::channel(64);
        let server_pool = BufPool::heap();
        let server = server_config(&options, transport);
        Self {
            server_core: core(server_port, "192.0.2.1/24", Some(server), &server_pool, app(&server_pool)),
            client,
            client_core: core(client_port, "192.0.2.2/24", None, &BufPool::heap(), client_app),
            server_pool,
        }
    }
}

/// Where the application panics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// In the handler of an event, with memory everywhere.
    Event,
    /// In its turn.
    Turn,
    /// When it is asked for buffers, in the middle of a packet.
    Provider,
    /// When TLS passes it a secret, in the middle of the handshake.
    KeyLog,
    /// As `Event`, and again when the engine drops memory with a custom drop.
    Memory,
    /// As `Event`, and again when it is informed of the end.
    End,
}

/// Memory with a custom drop.
struct Fragile([u8; 64], bool);

impl AsMut<[u8]> for Fragile {
    fn as_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

impl Drop for Fragile {
    fn drop(&mut self) {
        if self.1 {
            self.1 = false;
            panic!("the second one");
        }
    }
}

struct Panicky {
    at: At,
    armed: bool,
    ended: Arc<AtomicBool>,
}

impl App for Panicky {
    fn on_event(&mut self, cx: &mut Context<'_>, id: ConnId, event: Event) {
        let pool = cx.pool().clone();
        match event {
            Event::Connected { .. } => {
                let mut conn = cx.conn(id).unwrap();
                // Buffers that receive nothing, and data that is not acknowledged in time. The connection is already
                // closed if application code has panicked in the meantime.
                let Ok(asking) = conn.open(Dir::Bidi) else { return };
                let mut bufs: Vec<_> = (0..3).map(|_| pool.alloc(10_000).unwrap()).collect();
                if self.at == At::Memory {
                    bufs.push(PinnedRegion::from_mapping(Fragile([0; 64], true)).unwrap().into_buf());
                }
                conn.provide_receive_buffers(asking, bufs).unwrap();
                conn.send(asking, pool.alloc(1 << 20).unwrap().into(), false).unwrap();
            }
            Event::Readable { .. } if matches!(self.at, At::Event | At::Memory | At::End) => panic!("as planned"),
            Event::Readable { .. } => self.armed = true,
            _ => {}
        }
    }

    fn on_turn(&mut self, _: &mut Context<'_>) {
        if self.armed && self.at == At::Turn {
            panic!("as planned");
        }
    }

    fn on_end(&mut self) {
        self.ended.store(true, std::sync::atomic::Ordering::Relaxed);
        if self.at == At::End {
            panic!("the second one");
        }
    }
}

#[derive(Debug)]
struct PanickyGuest;

impl BufferProvider for PanickyGuest {
    fn initial_window(&self) -> u64 {
        1000
    }

    fn provide(&self, _: StreamId, give: &mut dyn FnMut(PinnedBuf)) {
        give(PinnedBuf::unpinned(500));
        panic!("as planned");
    }
}

impl rustls::KeyLog for PanickyGuest {
    fn log(&self, _: &str, _: &[u8], _: &[u8]) {
        panic!("as planned");
    }
}

/// The client used to wait for its idle timeout, and the core's memory was whatever the unwinding left.
#[test]
fn peers_are_told_memory_comes_back_and_the_panic_goes_on() {
    for at in [At::Event, At::Turn, At::Provider, At::KeyLog, At::Memory, At::End] {
        let ended = Arc::new(AtomicBool::new(false));
        let transport = TransportConfig {
            stream_window_bidi_local: 0,
            provider: (at == At::Provider).then(|| Arc::new(PanickyGuest) as Arc<dyn BufferProvider>),
            ..TransportConfig::default()
        };
        let key_log = (at == At::KeyLog).then(|| Arc::new(PanickyGuest) as Arc<dyn rustls::KeyLog>);
        let app = |_: &BufPool| Panicky { at, armed: false, ended: ended.clone() };
        let Guest { mut server_core, client, client_core, server_pool } = Guest::new(transport, key_log, app);
        let panic = thread::scope(|scope| {
            scope.spawn(|| run_core(client_core));
            let serving = scope.spawn(move || {
                let ran = catch_unwind(AssertUnwindSafe(|| server_core.run(&AtomicBool::new(false))));
                // All memory is returned although the core still exists.
                let used = server_pool.stats().in_use;
                (ran.expect_err("the panic goes on"), used, server_core.endpoint_stats().connections_opened)
            });
            client.connect(&client_config(TransportConfig::default()), "server.test", remote()).unwrap();
            let reason = loop {
                match next(&client) {
                    HandleEvent::Engine { conn, event: Event::Connected { .. } } => {
                        let opening = handle::Opening { data: Some("hello".into()), ..Default::default() };
                        client.open_with(conn, Dir::Bidi, opening).unwrap();
                    }
                    HandleEvent::Engine { event: Event::Closed { reason }, .. } => break reason,
                    _ => {}
                }
            };
            // INTERNAL_ERROR (RFC 9000 §20.1).
            assert!(matches!(reason, CloseReason::PeerTransport { code: 1, .. }), "{at:?}: {reason}");
            client.shutdown();
            let (panic, used, connections) = serving.join().unwrap();
            assert_eq!((used, connections), (0, 1), "{at:?}");
            panic
        });
        assert_eq!(panic.downcast_ref::<&str>(), Some(&"as planned"), "{at:?}");
        assert!(ended.load(std::sync::atomic::Ordering::Relaxed), "{at:?}: the last that it hears");
    }
}

/// An application that contains a `HandleApp`.
struct Wrapper(HandleApp, bool);

impl App for Wrapper {
    fn on_event(&mut self, cx: &mut Context<'_>, conn: ConnId, event: Event) {
        self.1 |= matches!(event, Event::Readable { .. });
        self.0.on_event(cx, conn, event);
    }

    fn on_turn(&mut self, cx: &mut Context<'_>) {
        assert!(!self.1, "as planned");
        self.0.on_turn(cx);
    }

    fn on_end(&mut self) {
        self.0.on_end();
    }
}

/// The reader used to wait forever.
#[test]
fn events_of_a_handle_end_with_a_panic_too() {
    let (handle, app) = handle::channel(8);
    let Guest { mut server_core, client, client_core, .. } =
        Guest::new(TransportConfig::default(), None, |_| Wrapper(app, false));
    thread::scope(|scope| {
        scope.spawn(|| run_core(client_core));
        scope.spawn(|| {
            client.connect(&client_config(TransportConfig::default()), "server.test", remote()).unwrap();
            while let Some(event) = client.events().next() {
                match event {
                    HandleEvent::Engine { conn, event: Event::Connected { .. } } => {
                        let opening = handle::Opening { data: Some("hello".into()), ..Default::default() };
                        client.open_with(conn, Dir::Bidi, opening).unwrap();
                    }
                    HandleEvent::Engine { event: Event::Closed { .. }, .. } => client.shutdown(),
                    _ => {}
                }
            }
        });
        let reading = scope.spawn(|| handle.events().count());
        let ran = catch_unwind(AssertUnwindSafe(|| server_core.run(&AtomicBool::new(false))));
        assert!(ran.is_err());
        assert!(reading.join().unwrap() > 0);
        assert!(handle.is_gone());
    });
    drop(server_core);
}
