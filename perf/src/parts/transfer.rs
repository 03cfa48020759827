//! An endless stream from a server core to a client core in the same thread.

use gannet::crypto::with_keys_in_place;
use gannet::mem::BufPool;

use crate::Failure;
use crate::lab::apps::{Placement, Sink, Source};
use crate::lab::world::{self, CYCLE_NS, Setup, World};
use crate::run::Scale;

/// Frames of a port in addition to those of a batch.
const SPARE_FRAMES: usize = 512;

/// The number of cycles after which slow start is long over and every frame has been used.
const WARM_UP: usize = 64;

/// The parameters of a transfer.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Largest IP packet in bytes.
    pub mtu: u16,
    /// How the client receives bytes.
    pub placement: Placement,
    /// The size of the destination memory, which is used cyclically.
    pub span: usize,
}

/// A size that always fits in the caches.
pub const WARM: usize = 2 << 20;

impl Shape {
    /// The number of frames that the server sends before the client's turn: about 1.5 MiB, more than fits in a core's
    /// own cache besides the destination, as with frames from a device or another core.
    pub fn batch(self) -> usize {
        (3 << 19) / usize::from(self.mtu)
    }

    /// The size of a cold destination.
    pub fn cold(scale: Scale) -> usize {
        scale.pick(8 << 20, 256 << 20, 256 << 20)
    }
}

/// The transfer.
pub struct Transfer {
    world: World<Sink, Source>,
    batch: usize,
    client_pool: BufPool,
}

/// The cost of part of a transfer, per packet of data.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cost {
    /// The client's time, including its application, in ns.
    pub rx_ns: f64,
    /// The server's time, in ns.
    pub tx_ns: f64,
    /// Allocations of both ends, per packet.
    pub allocations: f64,
    /// Bytes copied by the engine or the application, per stream byte.
    pub copied: f64,
    /// Stream bytes per nanosecond of the client's time: GB/s.
    pub rx_gb_per_s: f64,
}

impl Transfer {
    /// Connects both ends, and transfers until all is warm.
    ///
    /// # Errors
    /// If there is no memory or no connection is established.
    pub fn new(shape: Shape) -> Result<Self, Failure> {
        Self::warmed(shape, WARM_UP)
    }

    /// The same with this many cycles; 10 end slow start and use every frame.
    ///
    /// # Errors
    /// As [`Transfer::new`].
    pub fn warmed(shape: Shape, cycles: usize) -> Result<Self, Failure> {
        let batch = shape.batch();
        // The engine leaves two thirds of the memory to others, and chunks are not always full. Unused memory is not reserved.
        let client_pool = world::pool(8 * shape.span + (64 << 20))?;
        let config = world::client_config(shape.mtu, Sink::transport(shape.placement))?;
        let sink = Sink::new(config, shape.placement, shape.span, &client_pool)?;
        let setup = Setup {
            mtu: shape.mtu,
            frames: batch + SPARE_FRAMES,
            server: world::transport(),
            server_pool: world::pool(8 << 20)?,
            client_pool: client_pool.clone(),
            max_connections: 8,
        };
        let mut transfer = Self { world: World::new(setup, sink, Source::default())?, batch, client_pool };
        let up = |world: &World<Sink, Source>| world.client.app.received > 0;
        match shape.placement {
            // The client's keys are created now, and so are the server's, which opens next to nothing.
            Placement::Copied => with_keys_in_place(|| transfer.world.until(batch, "a transfer", up))?,
            _ => transfer.world.until(batch, "a transfer", up)?,
        }
        for _ in 0..cycles {
            transfer.cycle();
        }
        Ok(transfer)
    }

    /// Transfers one batch of packets from the server to the client.
    pub fn cycle(&mut self) {
        self.world.cycle(self.batch);
    }

    /// The server's part of a cycle.
    pub fn send(&mut self) {
        self.world.run_server(self.batch);
    }

    /// The client's part of a cycle.
    pub fn receive(&mut self) {
        self.world.run_client(usize::MAX);
    }

    /// The rest of a cycle: time advances.
    pub fn rest(&mut self) {
        self.world.pass(CYCLE_NS);
    }

    /// Packets received by the client, and sent by the server.
    pub fn packets(&self) -> [u64; 2] {
        let [rx, tx, _] = counters(&self.world);
        [rx, tx]
    }

    /// Transfers `bytes`, and returns the cost.
    ///
    /// # Errors
    /// If the transfer stops.
    pub fn run(&mut self, bytes: u64) -> Result<Cost, Failure> {
        let world = &mut self.world;
        world.reset();
        let before = (world.client.app.received, counters(world));
        let until = before.0 + bytes;
        while world.client.app.received < until {
            let so_far = world.client.app.received;
            world.cycle(self.batch);
            if world.client.app.closed || world.client.app.received == so_far {
                let pool = self.client_pool.stats();
                return Err(format!("the transfer stopped after {so_far} bytes; the client's pool: {pool:?}").into());
            }
        }
        let [rx, tx, copied] = counters(world);
        let [rx_before, tx_before, copied_before] = before.1;
        let (rx, tx) = (rx - rx_before, tx - tx_before);
        let bytes = world.client.app.received - before.0;
        let copied = copied - copied_before;
        let (client, server) = (world.client_effort, world.server_effort);
        Ok(Cost {
            rx_ns: client.time.as_nanos() as f64 / rx as f64,
            tx_ns: server.time.as_nanos() as f64 / tx as f64,
            allocations: (client.allocations + server.allocations) as f64 / rx as f64,
            copied: copied as f64 / bytes as f64,
            rx_gb_per_s: bytes as f64 / client.time.as_nanos() as f64,
        })
    }
}

/// Packets received by the client, sent by the server, and bytes copied by the client's engine.
fn counters(world: &World<Sink, Source>) -> [u64; 3] {
    let client = world.client.endpoint_stats();
    [client.rx_packets, world.server.endpoint_stats().tx_datagrams, client.placement.copied]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_moves_bytes_and_says_what_it_copied() {
        for placement in Placement::ALL {
            let mut transfer = Transfer::new(Shape { mtu: 1500, placement, span: 1 << 20 }).unwrap();
            let cost = transfer.run(3 << 20).unwrap();
            let copied = if placement == Placement::Copied { 1.0 } else { 0.0 };
            assert_eq!(cost.copied, copied, "{placement:?}");
            assert!(cost.rx_ns > 0.0 && cost.tx_ns > 0.0);
            let [rx, tx] = transfer.packets();
            assert!(rx >= 2000 && tx >= 2000, "{placement:?}: {rx}, {tx}");
        }
    }
}
