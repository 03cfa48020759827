//! Receives a stream of unknown length into a ring of a few buffers: each is returned when it is full, processed in
//! place, and provided again. The peer can never send more than the ring has room for.
//!
//! `cargo run --release --example ring_of_buffers [MiB]`; `--help` explains how to run it over a port.
#![forbid(unsafe_code)]

mod shared;

use std::net::SocketAddr;

use gannet::api::*;
use shared::{Failure, Options, Wire, client_config};

/// Number of buffers in the ring, and size of each in bytes.
const RING: usize = 8;
const BUF: usize = 256 << 10;

/// Sums up the received bytes.
struct Client {
    config: ClientConfig,
    remote: SocketAddr,
    conn: Option<ConnId>,
    /// Number of bytes to request; the receiving side does not need to know it.
    len: u64,
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
        conn.send(id, self.len.to_string().into_bytes().into(), true)?;
        Ok(())
    }
}

impl App for Client {
    fn on_turn(&mut self, cx: &mut Context<'_>) {
        if self.conn.is_none() && self.failed.is_none() {
            match cx.connect(&self.config, "server.example", self.remote) {
                Ok(conn) => self.conn = Some(conn),
                Err(why) => self.failed = Some(why.to_string()),
            }
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
                // Processed in place. Only then is it provided again, and only then may the peer fill it.
                self.bytes += valid as u64;
                self.sum += buf[..valid].iter().map(|b| u64::from(*b)).sum::<u64>();
                self.laps += 1;
                if let Some(mut conn) = cx.conn(conn) {
                    // Fails if the stream's end is known; the buffer then returns to its pool.
                    let _ = conn.provide_receive_buffers(id, vec![buf]);
                }
            }
            Event::Finished { placement, .. } => self.placement = Some(placement),
            Event::Closed { reason } if !self.is_done() => self.failed = Some(reason.to_string()),
            _ => {}
        }
    }

    fn is_done(&self) -> bool {
        self.placement.is_some() || self.failed.is_some()
    }
}

fn main() -> Result<(), Failure> {
    let options = Options::load();
    let Some(wire) = Wire::open(&options, 1500)? else { return Ok(()) };
    let len = options.bytes(512);
    let transport = TransportConfig {
        stream_window_bidi_local: 0,
        // The application reacts to full buffers and needs no warning.
        receive_low_water: 0,
        max_udp_payload: wire.max_udp_payload,
        ..TransportConfig::default()
    };
    let client = Client {
        config: client_config(transport)?,
        remote: wire.remote,
        conn: None,
        len,
        bytes: 0,
        sum: 0,
        laps: 0,
        placement: None,
        failed: None,
    };
    let pool = BufPool::new(PoolConfig { limit_bytes: 16 << 20, ..PoolConfig::default() })?;
    let (client, time) = wire.run(client, pool)?;
    let placed = client.placement.ok_or_else(|| client.failed.unwrap_or("interrupted".to_owned()))?;
    if (client.bytes, client.sum) != (len, 7 * len) {
        return Err(format!("{} bytes with sum {}: not the data that was sent", client.bytes, client.sum).into());
    }
    println!("{} MiB through {RING} buffers of {BUF} bytes, {} of them filled", len >> 20, client.laps);
    println!("{:.3} s, {:.2} GB/s", time.as_secs_f64(), len as f64 / time.as_secs_f64() / 1e9);
    println!("bytes direct {}, staged {}, copied {}", placed.direct, placed.staged, placed.copied);
    Ok(())
}
