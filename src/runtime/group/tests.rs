//! Groups of cores over simulated devices.

mod elsewhere;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::AtomicUsize;

use super::*;
use crate::datapath::exchange::mesh;
use crate::datapath::sim::SimQueue;
use crate::quic::CloseReason;
use crate::runtime::Context;
use crate::wire::quic::TransportError;
use world::*;

/// Runs `count` server cores on threads of their own, and `clients` on this thread. Frames of client `n` reach core
/// `n`.
fn serve<A: App + Send>(
    count: u8,
    group: Group,
    make: impl Fn(Place) -> Result<(CoreConfig, A), Failure> + Sync,
    queues: Vec<SimQueue>,
    clients: impl FnOnce() + Send,
) -> Result<Vec<A>, GroupError> {
    std::thread::scope(|scope| {
        scope.spawn(clients);
        group.run(queues, mesh(count, 256), make)
    })
}

fn by_client(frame: &[u8]) -> usize {
    origin(frame).0
}

#[test]
fn results_come_in_the_order_of_the_cores_and_every_core_serves() {
    let config = server_config("server.test");
    let (queues, ports) = links(3, 3, by_client);
    let group = Group::new(3, endpoint(1));
    let control = group.control();
    let apps = serve(
        3,
        group,
        |place| server(place, &config),
        queues,
        || {
            for (n, port) in (1..).zip(ports) {
                drive(&mut client(n, port, Asker::new(Some(b"hello"))), |app| app.answers == 1);
            }
            control.stop();
        },
    );
    let apps: Vec<_> = apps.unwrap().iter().map(|app| (app.core, app.answered)).collect();
    assert_eq!(apps, [(0, 1), (1, 1), (2, 1)]);
}

/// A core that is done earlier must not leave the frames for others in its queue.
#[test]
fn a_core_that_is_done_goes_on_for_the_others() {
    let config = server_config("server.test");
    // The host with two cores is the client, and all answers reach core 1, which has nothing to do itself.
    let (queues, mut ports) = links(1, 2, |_| 1);
    let port = ports.remove(0);
    let group = Group::new(2, endpoint(1));
    let address = "192.0.2.101/24".parse().unwrap();
    let apps = std::thread::scope(|scope| {
        let stop = Arc::new(AtomicBool::new(false));
        let served = stop.clone();
        scope.spawn(move || {
            let place = CoreConfig::new(format!("{SERVER}/24").parse().unwrap(), endpoint(2)).serving(443, config);
            let mut core =
                Core::new(port, CoreConfig { idle: crate::runtime::Idle::Yield, ..place }, Echo::default()).unwrap();
            core.run(&served).unwrap();
        });
        let apps = group.run(queues, mesh(2, 256), |place| {
            let app = if place.core == 0 { Asker::new(Some(b"hello")) } else { Asker::silent() };
            Ok((
                CoreConfig { idle: crate::runtime::Idle::Yield, ..CoreConfig::new(address, place.endpoint) },
                Until(app),
            ))
        });
        stop.store(true, Ordering::Relaxed);
        apps.unwrap()
    });
    assert_eq!(apps.iter().map(|app| app.0.answers).collect::<Vec<_>>(), [1, 0]);
}

/// An asker that is done when it has its answer, or nothing to ask.
struct Until(Asker);

impl App for Until {
    fn on_turn(&mut self, cx: &mut Context<'_>) {
        if self.0.answers == 1
            && let Some(conn) = self.0.conn.take()
        {
            cx.close(conn, 0, "");
        }
        self.0.on_turn(cx);
    }

    fn on_event(&mut self, cx: &mut Context<'_>, id: crate::quic::ConnId, event: crate::quic::Event) {
        self.0.on_event(cx, id, event);
    }

    fn is_done(&self) -> bool {
        self.0.ask.is_none() && (self.0.answers == 1 || !self.0.connected)
    }
}

#[test]
fn the_first_error_stops_all() {
    let config = server_config("server.test");
    let run = |make: &(dyn Fn(Place) -> Result<(CoreConfig, Echo), Failure> + Sync)| {
        let (queues, _ports) = links(1, 3, by_client);
        Group::new(3, endpoint(1)).run(queues, mesh(3, 256), make).unwrap_err()
    };
    let error = run(&|place| if place.core == 1 { Err("no hugepages".into()) } else { server(place, &config) });
    assert_eq!((error.core, error.to_string()), (1, "core 1: no hugepages".to_owned()));
    // Secrets of its own: other cores could not find its connections.
    let error = run(&|mut place| {
        if place.core == 2 {
            place.endpoint = endpoint(9).for_core(2, 3);
        }
        server(place, &config)
    });
    assert_eq!((error.core, error.cause.downcast_ref()), (2, Some(&Misfit::Stranger)));
    // The settings of another core.
    let error = run(&|mut place| {
        place.endpoint.core = 0;
        server(place, &config)
    });
    assert_eq!(error.cause.downcast_ref(), Some(&Misfit::Stranger));
    // An address that no port can have: an error of the core itself.
    let error = run(&|place| {
        let (mut config, app) = server(place, &config)?;
        config.net.addrs.clear();
        Ok((config, app))
    });
    assert!(error.cause.downcast_ref::<crate::net::NetError>().is_some(), "{error}");
    let (queues, _ports) = links(1, 2, by_client);
    let error = Group::new(3, endpoint(1)).run(queues, mesh(3, 256), |place| server(place, &config)).unwrap_err();
    assert_eq!(error.cause.downcast_ref(), Some(&Misfit::Counts { cores: 3, queues: 2, ends: 3 }));
}

#[test]
fn a_panic_reaches_the_caller_and_all_peers_are_told() {
    let config = server_config("server.test");
    let (queues, mut ports) = links(2, 2, by_client);
    let mut second = client(2, ports.remove(1), Asker::new(Some(b"hello")));
    let mut first = client(1, ports.remove(0), Asker::new(None));
    let panic = catch_unwind(AssertUnwindSafe(|| {
        serve(
            2,
            Group::new(2, endpoint(1)),
            |place| server(place, &config),
            queues,
            || {
                drive(&mut first, |app| app.connected);
                drive(&mut second, |app| app.answers == 1);
                first.app.ask = Some(b"panic");
                while first.app.closed.is_none() || second.app.closed.is_none() {
                    first.turn();
                    second.turn();
                }
            },
        )
    }));
    let message = panic.unwrap_err().downcast::<&str>().map(|text| *text).unwrap_or_default();
    assert!(message.contains("as asked"), "{message}");
    let internal = TransportError::INTERNAL_ERROR.0;
    assert!(
        matches!(&first.app.closed, Some(CloseReason::PeerTransport { code, .. }) if *code == internal),
        "{first:?}",
        first = first.app
    );
    let told = matches!(&second.app.closed, Some(CloseReason::Application { code: 0, .. }));
    assert!(told, "the core without a panic says goodbye: {:?}", second.app);
}

/// A crew whose watch panics.
struct Careless(crate::quic::ServerConfig);

impl Crew<SimQueue, crate::datapath::exchange::Mesh<crate::datapath::sim::SimRx>> for Careless {
    type App = Echo;
    type Guard = ();
    type Yield = ();

    fn enter(&self, _: u8) -> Result<(), Failure> {
        Ok(())
    }

    fn make(&self, place: Place) -> Result<(CoreConfig, Echo), Failure> {
        server(place, &self.0)
    }

    fn watch(&self) {
        panic!("nobody looks");
    }

    fn finish(&self, _: Member<Echo>) {}
}

#[test]
fn a_panic_of_the_watch_stops_the_cores() {
    let (queues, _ports) = links(1, 2, by_client);
    let crew = Careless(server_config("server.test"));
    let group = Group::new(2, endpoint(1));
    assert!(catch_unwind(AssertUnwindSafe(|| group.run_crew(queues, mesh(2, 16), &crew))).is_err());
}

/// Answers when it is released.
struct Stuck<'a> {
    app: Echo,
    held: Option<&'a AtomicBool>,
}

impl App for Stuck<'_> {
    fn on_event(&mut self, cx: &mut Context<'_>, conn: crate::quic::ConnId, event: crate::quic::Event) {
        self.app.on_event(cx, conn, event);
        while self.held.is_some_and(|held| held.load(Ordering::Relaxed)) {
            std::thread::yield_now();
        }
    }
}

/// Keeps the cores that warnings name.
struct Warnings<'a> {
    cores: &'a AtomicUsize,
    held: &'a AtomicBool,
}

impl tracing::field::Visit for Warnings<'_> {
    fn record_debug(&mut self, _: &tracing::field::Field, _: &dyn std::fmt::Debug) {}

    fn record_u64(&mut self, field: &tracing::field::Field, value: u64) {
        if field.name() == "core" {
            self.cores.fetch_or(1 << value, Ordering::Relaxed);
            self.held.store(false, Ordering::Relaxed);
        }
    }
}

struct Listener(Arc<(AtomicUsize, AtomicBool)>);

impl tracing::Subscriber for Listener {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() == tracing::Level::WARN
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        event.record(&mut Warnings { cores: &self.0.0, held: &self.0.1 });
    }

    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}

/// The callback of core 1 does not return until the warning has named the core; core 0 serves meanwhile.
#[test]
fn a_stalled_application_is_named_and_holds_up_nobody_else() {
    let config = server_config("server.test");
    let heard = Arc::new((AtomicUsize::new(0), AtomicBool::new(true)));
    let (queues, ports) = links(2, 2, by_client);
    let group = Group::new(2, endpoint(1)).patience(Duration::from_millis(20));
    let control = group.control();
    let held = &heard.1;
    let make = |place: Place| {
        let stuck = (place.core == 1).then_some(held);
        server(place, &config).map(|(config, app)| (config, Stuck { app, held: stuck }))
    };
    tracing::subscriber::with_default(Listener(heard.clone()), || {
        serve(2, group, make, queues, || {
            let mut ports = ports.into_iter();
            let mut stuck = client(1, ports.next().unwrap(), Asker::new(None));
            let mut other = client(2, ports.next().unwrap(), Asker::new(Some(b"hello")));
            // The event of its connection holds core 1.
            drive(&mut stuck, |app| app.connected);
            drive(&mut other, |app| app.answers == 1);
            stuck.app.ask = Some(b"hello");
            drive(&mut stuck, |app| app.answers == 1);
            control.stop();
        })
        .unwrap();
    });
    assert!(heard.0.load(Ordering::Relaxed) & 2 != 0, "core 1 is named");
}
