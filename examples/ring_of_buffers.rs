//! Receives a stream without a known end into a ring of a few buffers: each comes back when it is full, is worked on
//! where it lies, and is handed over again. The peer can never send more than the ring has room for.
//!
//! `cargo run --release --example ring_of_buffers [MiB]`
#![forbid(unsafe_code)]

mod shared;

use std::time::Instant;

use gannet::api::*;
use shared::{Failure, Source, client_config, cores, server_addr};

/// Buffers of the ring, and bytes of each.
const RING: usize = 8;
const BUF: usize = 256 << 10;

/// Sums up what it receives.
struct Client {
    config: ClientConfig,
    conn: Option<ConnId>,
    bytes: u64,
    sum: u64,
    laps: u64,
    placement: Option<PlacementStats>,
    failed: Option<String>,
}

impl Client {
    fn start(&mut self, cx: &mut Context<'_>, conn: ConnId) -> Result<(), Failure> {
        let ring = (0..RING).map(|_| cx.pool().alloc(BUF)).collect::<Result<Vec<_>, _>>()?;
        let mut conn = cx.conn(conn).ok_or("the connection is gone")?;
        let id = conn.open(Dir::Bidi)?;
        conn.provide_receive_buffers(id, ring)?;
        conn.send(id, "everything, please".into(), true)?;
        Ok(())
    }
}

impl App for Client {
    fn on_turn(&mut self, cx: &mut Context<'_>) {
        if self.conn.is_none() {
            self.conn = cx.connect(&self.config, "server.example", server_addr()).ok();
        }
    }

    fn on_event(&mut self, cx: &mut Context<'_>, conn: ConnId, event: Event) {
        match event {
            Event::Connected { .. } => {
                if let Err(why) = self.start(cx, conn) {
                    self.failed = Some(why.to_string());
                }
            }
            Event::Buffer { id, buf, valid, .. } => {
                // Used where it lies. Only then is it handed over again, and only then may the peer fill it.
                self.bytes += valid as u64;
                self.sum += buf[..valid].iter().map(|b| u64::from(*b)).sum::<u64>();
                self.laps += 1;
                if let Some(mut conn) = cx.conn(conn) {
                    // Refused when the stream's end is known: then the buffer just goes back to its pool.
                    let _ = conn.provide_receive_buffers(id, vec![buf]);
                }
            }
            Event::Finished { placement, .. } => self.placement = Some(placement),
            Event::Closed { reason } => self.failed = Some(reason.to_string()),
            _ => {}
        }
    }
}

fn main() -> Result<(), Failure> {
    let mib: u64 = std::env::args().nth(1).map_or(Ok(512), |n| n.parse())?;
    let len = mib << 20;
    let transport = TransportConfig {
        stream_window_bidi_local: 0,
        // The application answers to full buffers; it needs no warning on top.
        receive_low_water: 0,
        ..TransportConfig::default()
    };
    let config = client_config(transport)?;
    let client = Client { config, conn: None, bytes: 0, sum: 0, laps: 0, placement: None, failed: None };
    let pool = BufPool::new(PoolConfig { limit_bytes: 16 << 20, ..PoolConfig::default() })?;
    let (mut server, mut client) = cores(1500, Source::new(len), client, pool)?;
    let start = Instant::now();
    while client.app.placement.is_none() {
        server.turn();
        client.turn();
        if let Some(why) = &client.app.failed {
            return Err(why.clone().into());
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    let app = &client.app;
    if (app.bytes, app.sum) != (len, 7 * len) {
        return Err(format!("{} bytes with sum {}: not what was sent", app.bytes, app.sum).into());
    }
    let placed = app.placement.unwrap_or_default();
    println!("{mib} MiB through {RING} buffers of {BUF} bytes, {} of them filled", app.laps);
    println!("{seconds:.2} s, {:.2} GB/s with both ends on one CPU", len as f64 / seconds / 1e9);
    println!("bytes direct {}, staged {}, copied {}", placed.direct, placed.staged, placed.copied);
    Ok(())
}
