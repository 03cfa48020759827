//! Several cores behind one port: frames that arrive at the wrong core reach their connection, exactly once, and none
//! is lost.
#![forbid(unsafe_code)]

mod peer;
mod world;

use gannet::datapath::faults::FaultConfig;
use gannet::quic::DropReason;

use world::{Host, Spread, World};

/// Each frame arrives at a random core, and some frames are lost, duplicated or reordered: every byte arrives in its
/// place, no core sends a reset, and every frame is returned to its pool.
#[test]
fn misdirected_on_purpose() {
    let faults = FaultConfig { loss: 10, duplicate: 10, corrupt: 5, reorder: 20, ..FaultConfig::default() };
    let host = |cores| Host { spread: Spread::Random, faults, ..Host::new(cores) };
    let mut world = World::new(host(3), host(4), 6, 60_000);
    world.finish(400_000);
    world.check();
    for cores in [&world.clients, &world.servers] {
        for core in cores.iter().flatten() {
            let stats = core.stats();
            assert!(stats.handed_over > 20 && stats.taken_over > 20, "{stats:?}");
            assert_eq!(stats.exchange_full, 0);
        }
    }
    world.end();
}

/// With flows that stay on their cores, servers hand nothing over. Answers to clients arrive wherever the hash of the
/// addresses leads, which is usually the wrong core.
#[test]
fn flows_stay_where_they_are() {
    let mut world = World::new(Host::new(4), Host::new(4), 4, 60_000);
    world.finish(100_000);
    world.check();
    assert_eq!(World::sum(&world.servers, |core| core.stats().handed_over), 0);
    assert!(World::sum(&world.clients, |core| core.stats().handed_over) > 0);
    world.end();
}

/// A full queue between two cores drops frames and counts them; nothing else happens.
#[test]
fn a_full_exchange_is_a_loss() {
    let host = |cores| Host { spread: Spread::Random, capacity: 1, ..Host::new(cores) };
    let mut world = World::new(host(2), host(3), 4, 60_000);
    world.finish(400_000);
    world.check();
    assert!(World::sum(&world.servers, |core| core.stats().exchange_full) > 0);
    world.end();
}

/// A NAT gives clients other source ports, again and again, and the hash leads to other cores: the packets reach the
/// owners, which follow the clients and stay the owners.
#[test]
fn clients_that_move_stay_on_their_cores() {
    let mut world = World::new(Host::new(3), Host::new(4), 5, 6_000_000);
    let moves = |world: &World| World::sum(&world.servers, |core| core.endpoint_stats().paths_validated);
    for n in 1..=6 {
        world.run(10_000, |world| {
            World::sum(&world.servers, |core| core.endpoint_stats().rx_bytes) > u64::from(n) * 150_000
        });
        world.rebind(1000 * n);
        let before = moves(&world);
        world.run(10_000, |world| moves(world) >= before + 10);
    }
    assert!(World::sum(&world.servers, |core| core.stats().handed_over) > 100);
    let wrong = World::sum(&world.servers, |core| core.endpoint_stats().drops[DropReason::WrongPath as usize]);
    assert_eq!(wrong, 0);
    world.finish(400_000);
    world.check();
    world.end();
}

/// Cores end while others hand frames over to them and hold frames of theirs.
#[test]
fn frames_of_cores_that_are_gone_come_back() {
    let host = |cores| Host { spread: Spread::Random, capacity: 2, ..Host::new(cores) };
    let mut world = World::new(host(3), host(4), 5, 60_000);
    world.run(10_000, |world| World::sum(&world.servers, |core| core.endpoint_stats().rx_bytes) > 100_000);
    (world.servers[1], world.clients[2]) = (None, None);
    // Frames still arrive at their queues and for their connections.
    let dropped = |world: &World| World::sum(&world.servers, |core| core.stats().exchange_full);
    let before = dropped(&world);
    world.run(200_000, |world| dropped(world) > before + 2);
    world.end();
}
