//! A load of datagrams.

use std::time::Duration;

use gannet::mem::BufPool;
use gannet::proto::perf::{ALPN, DatagramClient, DatagramPlan, datagram_transport};
use gannet::quic::TransportConfig;
use gannet::runtime::App;

use super::world::{REMOTE, World, client_config, server_tls};

fn world(plan: DatagramPlan) -> World<DatagramClient> {
    let pool = BufPool::heap();
    let client = DatagramClient::new(plan, pool.clone()).unwrap();
    World::new(client, pool, BufPool::heap(), server_tls(ALPN), TransportConfig::default())
}

fn plan(len: usize, transport: TransportConfig) -> DatagramPlan {
    DatagramPlan {
        remote: REMOTE,
        server_name: "perf.test".to_owned(),
        client_config: client_config(transport),
        rate: 5000.0,
        len,
        duration: Duration::from_millis(200),
    }
}

#[test]
fn datagrams_come_back_at_their_rate() {
    for len in [1, 100, 1300] {
        let mut world = world(plan(len, datagram_transport(TransportConfig::default())));
        world.until(|world| world.client.app.is_done());
        let results = world.client.app.results();
        assert_eq!(results.failure, None);
        assert_eq!(results.due, 1000, "at 5000/s");
        assert_eq!((results.sent + results.unsent, results.latency.count()), (1000, results.returned));
        assert!(results.sent > 0 && results.returned <= results.sent, "{results:?}");
        assert_eq!(world.client.endpoint_stats().dgram_frames_received, results.returned);
        assert_eq!(world.server.endpoint_stats().dgram_frames_received, results.sent);
    }
}

#[test]
fn what_cannot_work_is_told() {
    let mut large = world(plan(1600, datagram_transport(TransportConfig::default())));
    large.until(|world| world.client.app.is_done());
    let why = large.client.app.results().failure.clone().unwrap();
    assert!(why.starts_with("datagrams of 1600 bytes do not fit into packets: the limit is "), "{why}");
    let mut without = world(plan(100, TransportConfig::default()));
    without.until(|world| world.client.app.is_done());
    assert_eq!(without.client.app.results().failure.as_deref(), Some("the server accepts no datagrams"));
}
