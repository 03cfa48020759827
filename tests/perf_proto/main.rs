//! The perf protocol over a simulated link: client and server cores in one thread.

mod datagrams;
mod raw;
mod sleep;
mod world;

use std::sync::Arc;
use std::time::Duration;

use gannet::mem::BufPool;
use gannet::proto::perf::{PerfClient, PerfFailure, PerfPlan, UNLIMITED};
use gannet::quic::{EarlyDataRequest, TransportConfig};
use gannet::runtime::{App, CoreLive, Observer, Stage, Unreachable};

use world::{REMOTE, World, client_config, plan, server_tls, shared_tls};

const MB: u64 = 1_000_000;

fn received(world: &World<PerfClient>) -> (u64, u64) {
    let bytes = |p: gannet::quic::PlacementStats| p.direct + p.staged;
    (bytes(world.server.endpoint_stats().placement), bytes(world.client.endpoint_stats().placement))
}

#[test]
fn small_requests() {
    let mut world = World::perf(PerfPlan {
        upload: 64,
        download: 1000,
        requests: Some(500),
        connections: 3,
        streams: 4,
        verify: true,
        ..plan()
    });
    world.run();
    let r = world.client.app.results();
    assert!(r.is_clean(), "{:?}", r.failures);
    assert_eq!((r.requests, r.latency.count(), r.unfinished), (500, 500, 0));
    assert_eq!((r.bytes_up, r.bytes_down), (500 * 72, 500 * 1000));
    assert_eq!((r.connections, r.handshakes, r.handshake.count(), r.connections_lost), (3, 3, 3, 0));
    assert_eq!(received(&world), (500 * 72, 500 * 1000));
    let s = world.server.app.stats();
    assert_eq!((s.requests, s.ignored, s.bytes_received, s.connections), (500, 0, 500 * 72, 3));
    assert_eq!((s.pooled_streams, s.starved), (0, 0));
    let live = world.client.app.live().snapshot();
    assert_eq!((live.requests, live.in_flight, live.connections), (500, 0, 0));
}

#[test]
fn empty_answers() {
    let mut world = World::perf(PerfPlan { requests: Some(50), streams: 8, ..plan() });
    world.run();
    let r = world.client.app.results();
    assert!(r.is_clean(), "{:?}", r.failures);
    assert_eq!((r.requests, r.bytes_up, r.bytes_down), (50, 400, 0));
}

#[test]
fn download_of_50_mb() {
    let mut world = World::perf(PerfPlan { download: 50 * MB, verify: true, ..plan() });
    world.run();
    let r = world.client.app.results();
    assert!(r.is_clean(), "{:?}", r.failures);
    assert_eq!((r.requests, r.bytes_up, r.bytes_down), (1, 8, 50 * MB));
    assert_eq!(received(&world), (8, 50 * MB));
    // The client's close brings its last acknowledgement along.
    assert_eq!(world.server.app.stats().bytes_acked, 50 * MB);
}

#[test]
fn upload_of_50_mb() {
    let mut world = World::perf(PerfPlan { upload: 50 * MB, ..plan() });
    world.run();
    let r = world.client.app.results();
    assert!(r.is_clean(), "{:?}", r.failures);
    assert_eq!((r.requests, r.bytes_up, r.bytes_down), (1, 50 * MB + 8, 0));
    assert_eq!(received(&world), (50 * MB + 8, 0));
    let s = world.server.app.stats();
    assert_eq!((s.requests, s.bytes_received, s.pooled_streams), (1, 50 * MB + 8, 0));
}

#[test]
fn both_ways_on_many_streams() {
    let mut world = World::perf(PerfPlan {
        upload: 300_000,
        download: 3 * MB,
        requests: Some(20),
        connections: 2,
        streams: 3,
        verify: true,
        ..plan()
    });
    world.run();
    let r = world.client.app.results();
    assert!(r.is_clean(), "{:?}", r.failures);
    assert_eq!((r.requests, r.bytes_up, r.bytes_down), (20, 20 * 300_008, 60 * MB));
}

#[test]
fn more_streams_than_the_server_allows() {
    let mut world = World::perf(PerfPlan { requests: Some(7000), streams: 3000, ..plan() });
    world.run();
    let r = world.client.app.results();
    assert!(r.is_clean(), "{:?}", r.failures);
    assert_eq!((r.requests, r.unfinished), (7000, 0));
}

#[test]
fn an_unlimited_download_ends_with_the_duration() {
    let mut world = World::perf(PerfPlan {
        download: UNLIMITED,
        requests: None,
        duration: Some(Duration::from_millis(200)),
        streams: 2,
        verify: true,
        ..plan()
    });
    world.run();
    let r = world.client.app.results();
    assert!(r.is_clean(), "{:?}", r.failures);
    assert_eq!((r.requests, r.unfinished), (2, 0));
    assert!(r.bytes_down > 0 && r.elapsed == Duration::from_millis(200));
    assert_eq!(world.server.app.stats().stopped, 2);
}

#[test]
fn an_open_loop_makes_every_request_that_is_due() {
    let duration = Duration::from_millis(300);
    let mut world = World::perf(PerfPlan {
        download: 100,
        requests: None,
        duration: Some(duration),
        warmup: Duration::from_millis(100),
        rate: Some(2000.0),
        streams: 2,
        grace: Duration::from_secs(60),
        ..plan()
    });
    world.run();
    let r = world.client.app.results();
    assert!(r.is_clean(), "{:?}", r.failures);
    // Due in [100 ms, 400 ms): 600 requests, each of which was answered or is owned up to.
    assert_eq!(r.latency.count() + r.unfinished, 600);
    assert!(r.requests <= r.latency.count());
    assert_eq!(r.elapsed, duration);
    assert_eq!(world.server.app.stats().requests, 800 - r.unfinished);
}

#[test]
fn an_open_loop_counts_from_when_requests_were_due() {
    // One stream at a time and answers that take long: most requests wait.
    let mut world = World::perf(PerfPlan { download: 200_000, requests: Some(40), rate: Some(1e6), ..plan() });
    world.run();
    let r = world.client.app.results();
    assert!(r.is_clean(), "{:?}", r.failures);
    assert_eq!((r.requests, r.latency.count()), (40, 40));
    assert!(r.max_waiting >= 30, "{}", r.max_waiting);
    // All were due within 40 us, so the last of them waited for about the whole run. In a closed loop the
    // mean would be a fortieth of that.
    let (all, mean) = (r.elapsed.as_nanos() as f64, r.latency.summary().mean);
    assert!(mean > all / 10.0, "mean {mean} ns of {all} ns");
}

#[test]
fn handshakes_only() {
    let mut world = World::perf(PerfPlan { handshakes: true, requests: Some(30), connections: 4, ..plan() });
    world.run();
    let r = world.client.app.results();
    assert!(r.is_clean(), "{:?}", r.failures);
    assert_eq!((r.handshakes, r.handshake.count(), r.connections, r.requests), (30, 30, 30, 0));
    // None was closed before the server had all of it.
    assert_eq!((world.client.endpoint_stats().handshakes, world.server.endpoint_stats().handshakes), (30, 30));
}

/// Each connection makes one request and ends. All but the first ones resume a session; their requests are 0-RTT data if
/// the server accepts it, and otherwise sent again.
#[test]
fn requests_with_the_first_packet() {
    for (wanted, allowed) in [(true, true), (true, false), (false, true)] {
        let config = client_config(TransportConfig::default()).with_sessions(1).with_early_data(wanted);
        let plan = PerfPlan {
            client_config: config,
            handshakes: true,
            early_data: true,
            upload: 2000,
            download: 3000,
            requests: Some(40),
            connections: 2,
            verify: true,
            ..plan()
        };
        let mut world =
            World::perf_with(plan, |server| server.with_early_data(Arc::new(move |_: &EarlyDataRequest<'_>| allowed)));
        world.run();
        let r = world.client.app.results();
        assert!(r.is_clean(), "{:?}", r.failures);
        assert_eq!((r.handshakes, r.connections, r.requests, r.unfinished), (40, 40, 40, 0));
        assert_eq!((r.latency.count(), r.bytes_up, r.bytes_down), (40, 40 * 2008, 40 * 3000));
        assert_eq!(world.server.app.stats().requests, 40);
        let stats = world.server.endpoint_stats();
        assert_eq!(stats.handshakes, 40, "none is closed before the server has all of it");
        let resumed = stats.handshakes_resumed;
        assert!((30..40).contains(&resumed), "{resumed} of 40");
        let [accepted, rejected] = [stats.early_data_accepted, stats.early_data_rejected];
        match (wanted, allowed) {
            (true, true) => assert!(accepted + rejected == resumed && accepted > 30, "{accepted}, {rejected}"),
            (true, false) => assert_eq!((accepted, rejected), (0, resumed)),
            (false, _) => assert_eq!((accepted, rejected), (0, 0)),
        }
    }
}

#[test]
fn many_connections_with_few_handshakes_in_flight() {
    let mut world = World::perf(PerfPlan { connections: 20, max_handshakes: 2, requests: Some(40), ..plan() });
    world.run();
    let r = world.client.app.results();
    assert!(r.is_clean(), "{:?}", r.failures);
    assert_eq!((r.requests, r.handshakes), (40, 20));
}

#[test]
fn more_connections_than_the_engine_takes() {
    let mut world = World::perf(PerfPlan { connections: 100, requests: Some(100), ..plan() });
    world.run();
    let r = world.client.app.results();
    assert_eq!((r.requests, r.connections, r.connections_lost), (100, 64, 36));
    assert!(matches!(&r.failures[..], [(PerfFailure::Connect { .. }, 1)]), "{:?}", r.failures);
}

#[test]
fn a_server_that_vanishes() {
    let base = TransportConfig { max_idle_timeout: Duration::from_millis(300), ..TransportConfig::default() };
    let mut world = World::perf(PerfPlan {
        client_config: client_config(base),
        download: 20 * MB,
        requests: Some(100),
        streams: 2,
        ..plan()
    });
    world.until(|world| world.client.app.results().requests >= 2);
    world.client_until(|world| world.client.app.is_done());
    let r = world.client.app.results();
    assert_eq!(r.failures, [(PerfFailure::IdleTimeout, 1)]);
    assert_eq!((r.errors, r.connections_lost), (2, 1));
    assert_eq!(world.client_pool.stats().in_use, 0, "every buffer came back");
    assert!(r.failures[0].0.to_string().contains("was silent"));
}

#[test]
fn nothing_listens_on_the_port() {
    let mut world = World::perf(PerfPlan { remote: std::net::SocketAddr::new(REMOTE.ip(), 1), ..plan() });
    world.run();
    let r = world.client.app.results();
    assert!(
        matches!(&r.failures[..], [(PerfFailure::Unreachable { why: Unreachable::PortClosed, .. }, 1)]),
        "{:?}",
        r.failures
    );
    assert_eq!((r.connections_lost, r.requests), (1, 0));
}

#[test]
fn no_host_has_the_address() {
    let mut world = World::perf(PerfPlan { remote: "10.77.0.99:4433".parse().unwrap(), ..plan() });
    world.run();
    let r = world.client.app.results();
    assert!(
        matches!(&r.failures[..], [(PerfFailure::Unreachable { why: Unreachable::NoAnswer, .. }, 1)]),
        "{:?}",
        r.failures
    );
}

#[test]
fn a_server_that_never_answers() {
    let base = TransportConfig { handshake_timeout: Duration::from_millis(200), ..TransportConfig::default() };
    let mut world = World::perf(PerfPlan { client_config: client_config(base), handshakes: true, ..plan() });
    world.client_until(|world| world.client.app.is_done());
    let r = world.client.app.results();
    assert_eq!(r.failures, [(PerfFailure::HandshakeTimeout(REMOTE), 1)]);
}

#[test]
fn a_server_of_another_protocol() {
    let pool = BufPool::heap();
    let client = PerfClient::new(plan(), pool.clone()).unwrap();
    let mut world = World::new(client, pool, BufPool::heap(), server_tls(b"hq-interop"), TransportConfig::default());
    world.run();
    let r = world.client.app.results();
    assert!(matches!(&r.failures[..], [(PerfFailure::RefusedByServer { alert: 120, .. }, 1)]), "{:?}", r.failures);
}

#[test]
fn stopping_the_core_gives_everything_back() {
    let mut world = World::perf(PerfPlan { download: 20 * MB, requests: Some(1000), streams: 3, ..plan() });
    world.until(|world| world.client.app.results().bytes_down > MB);
    let stop = std::sync::atomic::AtomicBool::new(true);
    world.client.run(&stop).unwrap();
    let r = world.client.app.results();
    assert!(r.is_clean(), "{:?}", r.failures);
    assert_eq!(r.unfinished, 3);
    assert!(r.elapsed > Duration::ZERO);
    // The client's own list goes with it.
    assert!(world.client.app.is_done());
    assert_eq!(world.client_pool.stats().in_use, 0);
}

/// Cores share the load, and none starts before all are ready: their results are of the same time.
#[test]
fn clients_of_several_cores_start_together() {
    for handshakes in [false, true] {
        let whole = PerfPlan { download: 1000, requests: Some(100), connections: 2, handshakes, ..plan() };
        let pools = [BufPool::heap(), BufPool::heap(), BufPool::heap()];
        let mut clients = PerfClient::for_cores(&whole, &pools).unwrap().into_iter();
        let mut world = || {
            let client = clients.next().unwrap()?;
            let pool = BufPool::heap();
            Some(World::new(client, pool.clone(), pool, shared_tls(), TransportConfig::default()))
        };
        let (mut one, mut two) = (world().unwrap(), world().unwrap());
        assert!(world().is_none(), "there is no third connection");
        if !handshakes {
            one.until(|world| world.client.app.results().handshakes == 1);
        }
        let mut turns = 0;
        one.until(|world| {
            turns += 1;
            let live = world.client.app.live().snapshot();
            assert_eq!((live.requests, live.in_flight), (0, 0), "it has not waited");
            turns == 1000
        });
        two.until(|world| world.client.app.is_done());
        one.until(|world| world.client.app.is_done());
        let mut sum = one.client.app.results().clone();
        sum.merge(two.client.app.results());
        assert!(sum.is_clean(), "{:?}", sum.failures);
        if handshakes {
            assert_eq!(sum.handshakes, 100);
        } else {
            assert_eq!((sum.requests, sum.latency.count(), sum.bytes_down), (100, 100, 100_000));
            assert_eq!((one.client.app.results().requests, sum.handshakes), (50, 2));
        }
    }
}

#[test]
fn uploads_go_on_when_the_servers_memory_is_short() {
    use gannet::mem::{Hugepages, PoolConfig};
    let small = PoolConfig { limit_bytes: 3 << 20, hugepages: Hugepages::Never, numa_node: None };
    let pool = BufPool::heap();
    let load = PerfPlan { upload: 4 * MB, requests: Some(6), streams: 6, ..plan() };
    let client = PerfClient::new(load, pool.clone()).unwrap();
    let mut world = World::new(client, pool, BufPool::new(small).unwrap(), shared_tls(), TransportConfig::default());
    world.run();
    let r = world.client.app.results();
    assert!(r.is_clean(), "{:?}", r.failures);
    assert_eq!(r.requests, 6);
    assert!(world.server.app.stats().starved > 0);
}

#[test]
fn stages_and_counters_of_cores_that_are_looked_at() {
    let mut world =
        World::perf(PerfPlan { upload: 64, download: 100_000, requests: Some(100), verify: true, ..plan() });
    let live = Arc::new(CoreLive::default());
    assert_eq!(live.snapshot(), [], "nothing is known before the core works");
    world.client.observe(Observer::new(true, Some(live.clone())));
    // Looked at, but without timers: keys that were made before stay timed, later ones are not.
    world.server.observe(Observer::new(false, None));
    assert!(world.server.stages().is_none());
    world.client.observe(Observer::new(true, Some(live.clone())));
    world.run();
    assert!(world.client.app.results().is_clean());

    let datagrams = world.client.endpoint_stats().rx_datagrams;
    let (events, sent) = (world.client.stats().events, world.client.endpoint_stats().tx_datagrams);
    let stages = world.client.stages().expect("timers");
    let count = |stage| stages.latency(stage).count();
    assert_eq!(count(Stage::Wait), datagrams);
    assert_eq!(count(Stage::Engine), datagrams);
    assert!(count(Stage::Verify) > datagrams / 2 && count(Stage::Verify) <= datagrams, "{}", count(Stage::Verify));
    assert!(count(Stage::Place) > 0 && count(Stage::Seal) > 0);
    assert_eq!(count(Stage::App), events);
    assert!(count(Stage::Event) > 0 && count(Stage::Event) <= events);
    assert_eq!(count(Stage::Build), sent);
    assert!(count(Stage::Tx) > 0 && count(Stage::Tx) <= sent);

    let value = |name: &str| live.snapshot().iter().find(|(known, _)| *known == name).map(|(_, value)| *value);
    // Counters are published now and then.
    world.until(|_| value("port_rx_frames") > Some(0));
    assert!(value("core_busy_cycles") > Some(0), "{:?}", live.snapshot());
    assert_eq!(value("quic_bytes_copied"), Some(0));
    let counters = live.snapshot();
    let names: std::collections::HashSet<_> = counters.iter().map(|(name, _)| name).collect();
    assert_eq!(names.len(), counters.len(), "each counter has a name of its own");
}
