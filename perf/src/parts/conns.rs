//! Many connections: the memory of an idle one, and the cost per packet compared with a single one.

use gannet::mem::BufPool;
use gannet::quic::TransportConfig;

use crate::Failure;
use crate::alloc::{self, Account};
use crate::cores::pin;
use crate::lab::visits::{Answerer, Visitor};
use crate::lab::world::{self, Setup, World};
use crate::run::Run;

/// The size of a request and of its answer in bytes: each fills a packet.
const MESSAGE: usize = 1400;

/// The number of requests in flight: a burst.
const BURST: usize = 32;

static MESSAGE_BYTES: [u8; MESSAGE] = [0x5a; MESSAGE];

/// Connections between two cores.
struct Crowd {
    world: World<Visitor, Answerer>,
    server_pool: BufPool,
    base: i64,
}

impl Crowd {
    fn new(most: usize) -> Result<Self, Failure> {
        let server_pool = world::pool(64 << 20)?;
        let setup = Setup {
            mtu: 1500,
            frames: 4096,
            server: Answerer::transport(&server_pool),
            server_pool: server_pool.clone(),
            client_pool: world::pool(64 << 20)?,
            max_connections: most,
        };
        let client = TransportConfig { stream_window_bidi_local: 64 << 10, ..world::transport() };
        let visitor = Visitor::new(world::client_config(1500, client)?, &MESSAGE_BYTES);
        let world = World::new(setup, visitor, Answerer::new(&MESSAGE_BYTES))?;
        let mut crowd = Self { world, server_pool, base: 0 };
        crowd.base = crowd.server_bytes();
        Ok(crowd)
    }

    /// All memory of the server's side, in bytes.
    fn server_bytes(&self) -> i64 {
        alloc::bytes(Account::Right) + self.server_pool.stats().in_use as i64
    }

    /// Opens connections until there are `count`, and waits until all are quiet.
    fn grow(&mut self, count: usize) -> Result<(), Failure> {
        if self.world.client.app.conns.is_empty() && count > 1 {
            // Only a limited number of packets can wait for the neighbour's address.
            self.grow(1)?;
        }
        self.world.client.app.wanted = count;
        let mut cycles = 0;
        while self.world.client.app.conns.len() < count || self.world.server.app.connected < count {
            self.turn(100_000);
            cycles += 1;
            if cycles > 1000 + 10 * count || self.world.client.app.lost > 0 {
                let visitor = &self.world.client.app;
                let (up, lost) = (visitor.conns.len(), visitor.lost);
                return Err(format!("{up} of {count} connections came up, {lost} were lost").into());
            }
        }
        // For the last acknowledgements and path MTU discovery.
        for _ in 0..200 {
            self.turn(5_000_000);
        }
        Ok(())
    }

    fn turn(&mut self, nanos: u64) {
        self.world.run_client(usize::MAX);
        self.world.run_server(usize::MAX);
        self.world.pass(nanos);
    }

    /// The memory of an idle connection at the server, in bytes.
    fn bytes_idle(&self) -> f64 {
        (self.server_bytes() - self.base) as f64 / self.world.server.app.connected as f64
    }

    /// The server's time per packet, several times, after a first time that does not count.
    fn repeat(&mut self, visits: usize, repeats: u32) -> Result<Vec<f64>, Failure> {
        self.ns_per_packet(visits)?;
        (0..repeats).map(|_| self.ns_per_packet(visits)).collect()
    }

    /// The server's time per packet, sent or received, over `visits` requests on connections in turn.
    fn ns_per_packet(&mut self, visits: usize) -> Result<f64, Failure> {
        let packets = |world: &World<Visitor, Answerer>| {
            let stats = world.server.endpoint_stats();
            stats.rx_packets + stats.tx_datagrams
        };
        self.world.reset();
        let (before, answered) = (packets(&self.world), self.world.client.app.answered);
        let mut turns = 0;
        while self.world.client.app.answered < answered + visits {
            let visitor = &mut self.world.client.app;
            visitor.visits = BURST.saturating_sub(visitor.in_flight());
            // So short that no acknowledgement timer expires: each is sent with the next request.
            self.turn(1000);
            turns += 1;
            if turns > 1000 + visits {
                return Err(format!("only {} of {visits} requests are answered", self.world.client.app.answered).into());
            }
        }
        Ok(self.world.server_effort.time.as_nanos() as f64 / (packets(&self.world) - before) as f64)
    }
}

/// Measures the part.
///
/// # Errors
/// If connections fail.
pub fn measure(run: &mut Run) -> Result<(), Failure> {
    pin(run.cores[1]);
    let wanted = run.scale.pick(200, 200_000, 200_000);
    let mut crowd = Crowd::new(1 << 20)?;
    crowd.grow(1)?;
    let visits = run.scale.pick(1000, 100_000, 400_000);
    let alone = crowd.repeat(visits, run.repeats)?;
    // As many as a burst has packets: all of them stay in the cache, but packets have nothing in common any more, such as
    // one acknowledgement for all of them. What more connections cost beyond that is due to memory.
    crowd.grow(BURST)?;
    let few = crowd.repeat(visits, run.repeats)?;
    let probe = run.scale.pick(100, 1000, 1000);
    let before = alloc::bytes(Account::Left);
    crowd.grow(probe)?;
    let client_bytes = (alloc::bytes(Account::Left) - before) as f64 / (probe - BURST) as f64;
    let fitting = (0.6 * available_memory() / (client_bytes + crowd.bytes_idle())) as usize;
    if fitting < wanted {
        run.note(format!("conns: memory for {fitting} connections (both ends in one process) instead of {wanted}"));
    }
    let half = wanted.min(fitting) / 2;
    crowd.grow(half)?;
    // One round first, so that every connection has been used.
    crowd.ns_per_packet(half)?;
    for (alone, few) in alone.into_iter().zip(few) {
        let many = crowd.ns_per_packet(visits.max(half))?;
        run.sheet.add("conns.ns_per_packet_one", alone);
        run.sheet.add("conns.ns_per_packet_32", few);
        run.sheet.add("conns.ns_per_packet_many", many);
        run.sheet.add("conns.cost_growth", many / alone);
        run.sheet.add("conns.cost_growth_from_32", many / few);
    }
    run.sheet.add("conns.many", half as f64);
    run.sheet.add("conns.bytes_used", crowd.bytes_idle());
    drop(crowd);
    idle(run, 2 * half)
}

/// Measures connections that never carried a stream.
fn idle(run: &mut Run, count: usize) -> Result<(), Failure> {
    let mut crowd = Crowd::new(1 << 20)?;
    crowd.grow(count)?;
    run.sheet.add("conns.bytes_idle", crowd.bytes_idle());
    run.sheet.add("conns.count", count as f64);
    Ok(())
}

/// The available memory, in bytes.
fn available_memory() -> f64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib =
        text.lines().find_map(|l| l.strip_prefix("MemAvailable:")?.trim().strip_suffix(" kB")?.parse::<f64>().ok());
    kib.unwrap_or(4e6) * 1024.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crowd_is_measured() {
        let mut crowd = Crowd::new(1000).unwrap();
        crowd.grow(20).unwrap();
        assert!(crowd.bytes_idle() > 500.0, "{}", crowd.bytes_idle());
        assert!(crowd.ns_per_packet(200).unwrap() > 0.0);
        assert!(crowd.world.client.app.answered >= 200);
    }
}
