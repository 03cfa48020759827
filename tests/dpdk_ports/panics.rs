//! An application that panics on a real port: its peer is told, and every packet buffer comes back.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Barrier;
use std::sync::atomic::AtomicBool;
use std::thread;

use gannet::api::*;
use gannet::datapath::{Burst, Datapath as _};
use gannet::dpdk::{Port, Queue};

use crate::support::*;

struct Panicky;

impl App for Panicky {
    fn on_event(&mut self, cx: &mut Context<'_>, conn: ConnId, event: Event) {
        match event {
            Event::Connected { .. } => {
                let buf = cx.pool().alloc(1 << 20).unwrap();
                let mut conn = cx.conn(conn).unwrap();
                let stream = conn.open(Dir::Uni).unwrap();
                conn.send(stream, buf.into(), true).unwrap();
            }
            Event::Readable { .. } => panic!("as planned"),
            _ => {}
        }
    }
}

struct Client {
    config: ClientConfig,
    started: bool,
    reason: Option<CloseReason>,
}

impl App for Client {
    fn on_turn(&mut self, cx: &mut Context<'_>) {
        if !std::mem::replace(&mut self.started, true) {
            cx.connect(&self.config, "server.test", "192.0.2.1:443".parse().unwrap()).unwrap();
        }
    }

    fn on_event(&mut self, cx: &mut Context<'_>, conn: ConnId, event: Event) {
        match event {
            Event::Connected { .. } => {
                let mut conn = cx.conn(conn).unwrap();
                let stream = conn.open(Dir::Uni).unwrap();
                conn.send(stream, "hello".into(), true).unwrap();
            }
            Event::Closed { reason } => self.reason = Some(reason),
            _ => {}
        }
    }

    fn is_done(&self) -> bool {
        self.reason.is_some()
    }
}

fn core<A: App>(queue: Queue, addr: &str, server: Option<ServerConfig>, pool: &BufPool, app: A) -> Core<Queue, A> {
    let config = CoreConfig::new(addr.parse().unwrap(), endpoint_config().unwrap());
    let listen = server.as_ref().map(|_| 443);
    Core::new(queue, CoreConfig { listen, server, pool: pool.clone(), ..config }, app).unwrap()
}

#[test]
fn panics_leave_no_packet_buffer_behind() {
    isolated("panics::panics_leave_no_packet_buffer_behind", || {
        let eal = eal();
        let (mut a, mut b) = Port::ring_pair(&eal, &profile("ring", &[])).unwrap();
        let options = tls::TlsOptions { alpn: vec![b"test".to_vec()], ..tls::TlsOptions::default() };
        let identity = rcgen::generate_simple_self_signed(["server.test".to_owned()]).unwrap();
        let key = rustls::pki_types::PrivateKeyDer::try_from(identity.signing_key.serialize_der()).unwrap();
        let server = tls::server_config(vec![identity.cert.der().clone()], key, &options).unwrap();
        let server = ServerConfig::new(server, TransportConfig::default()).unwrap();
        let config =
            ClientConfig::new(tls::insecure_client_config(&options).unwrap(), TransportConfig::default()).unwrap();
        let pools = [BufPool::heap(), BufPool::heap()];
        let queue = a.take_queues().remove(0);
        let client = Client { config, started: false, reason: None };
        let mut asking = core(b.take_queues().remove(0), "192.0.2.2/24", None, &pools[1], client);
        // Frames that the other end did not wait for.
        let drain = |queue: &mut Queue| {
            let mut burst = Burst::new();
            while queue.rx_burst(&mut burst) > 0 {
                burst.clear();
            }
        };
        let both_ended = Barrier::new(2);
        let panicked = thread::scope(|scope| {
            let server = scope.spawn(|| {
                let _thread = eal.register_thread().unwrap();
                let mut core = core(queue, "192.0.2.1/24", Some(server), &pools[0], Panicky);
                let panicked = catch_unwind(AssertUnwindSafe(|| core.run(&AtomicBool::new(false)))).is_err();
                both_ended.wait();
                drain(core.datapath_mut());
                panicked
            });
            let _thread = eal.register_thread().unwrap();
            asking.run(&AtomicBool::new(false)).unwrap();
            both_ended.wait();
            server.join().unwrap()
        });
        drain(asking.datapath_mut());
        let reason = asking.into_app().reason;
        assert!(panicked, "the panic goes on");
        // INTERNAL_ERROR (RFC 9000 §20.1).
        assert!(matches!(reason, Some(CloseReason::PeerTransport { code: 1, .. })), "{reason:?}");
        assert_eq!((pools[0].stats().in_use, pools[1].stats().in_use), (0, 0));
        assert_no_leak(&a);
        assert_no_leak(&b);
    });
}
