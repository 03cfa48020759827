//! Hands filled buffers to another thread: the memory that packets were decrypted into moves there by ownership, and
//! goes back to its pool when that thread drops it.
//!
//! `cargo run --release --example hand_off [MiB]`
#![forbid(unsafe_code)]

mod shared;

use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Instant;

use gannet::api::*;
use shared::{Failure, Source, client_config, cores, server_addr};

/// Bytes of a buffer, and how many the stream has at a time.
const BUF: usize = 1 << 20;
const AHEAD: usize = 4;

/// Passes every full buffer on and provides a fresh one.
struct Client {
    config: ClientConfig,
    conn: Option<ConnId>,
    out: Sender<(PinnedBuf, usize)>,
    placement: Option<PlacementStats>,
    failed: Option<String>,
}

impl Client {
    fn provide(&mut self, cx: &mut Context<'_>, conn: ConnId, id: StreamId, count: usize) -> Result<(), Failure> {
        let bufs = (0..count).map(|_| cx.pool().alloc(BUF)).collect::<Result<Vec<_>, _>>()?;
        if let Some(mut conn) = cx.conn(conn) {
            // Refused when the stream's end is known.
            let _ = conn.provide_receive_buffers(id, bufs);
        }
        Ok(())
    }

    fn start(&mut self, cx: &mut Context<'_>, conn: ConnId) -> Result<(), Failure> {
        let id = cx.conn(conn).ok_or("the connection is gone")?.open(Dir::Bidi)?;
        self.provide(cx, conn, id, AHEAD)?;
        if let Some(mut conn) = cx.conn(conn) {
            conn.send(id, "everything, please".into(), true)?;
        }
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
        let done = match event {
            Event::Connected { .. } => self.start(cx, conn),
            Event::Buffer { id, buf, valid, .. } => {
                // A move of a pointer; the bytes stay where they are.
                let _ = self.out.send((buf, valid));
                self.provide(cx, conn, id, 1)
            }
            Event::Finished { placement, .. } => {
                self.placement = Some(placement);
                Ok(())
            }
            Event::Closed { reason } => Err(reason.to_string().into()),
            _ => Ok(()),
        };
        self.failed = self.failed.take().or(done.err().map(|why| why.to_string()));
    }
}

/// Runs on a thread that knows nothing of QUIC.
fn work(buffers: &Receiver<(PinnedBuf, usize)>) -> (u64, u64) {
    buffers.iter().fold((0, 0), |(bytes, sum), (buf, valid)| {
        let add: u64 = buf[..valid].iter().map(|b| u64::from(*b)).sum();
        // `buf` is dropped here and thereby back in the core's pool.
        (bytes + valid as u64, sum + add)
    })
}

fn main() -> Result<(), Failure> {
    let mib: u64 = std::env::args().nth(1).map_or(Ok(512), |n| n.parse())?;
    let len = mib << 20;
    let (out, buffers) = channel();
    let worker = thread::spawn(move || work(&buffers));
    let transport = TransportConfig { stream_window_bidi_local: 0, receive_low_water: 0, ..TransportConfig::default() };
    let client = Client { config: client_config(transport)?, conn: None, out, placement: None, failed: None };
    // Enough for what the stream has and what waits for the worker, however slow that is.
    let pool =
        BufPool::new(PoolConfig { limit_bytes: (len as usize + 8 * BUF).max(64 << 20), ..PoolConfig::default() })?;
    let (mut server, mut client) = cores(1500, Source::new(len), client, pool.clone())?;
    let start = Instant::now();
    while client.app.placement.is_none() && client.app.failed.is_none() {
        server.turn();
        client.turn();
    }
    let seconds = start.elapsed().as_secs_f64();
    let Client { placement, failed, out, .. } = client.into_app();
    drop(out);
    let (bytes, sum) = worker.join().map_err(|_| "the worker has failed")?;
    let placed = placement.ok_or_else(|| failed.unwrap_or_default())?;
    if (bytes, sum) != (len, 7 * len) {
        return Err(format!("{bytes} bytes with sum {sum}: not what was sent").into());
    }
    println!("{mib} MiB handed to another thread; {} bytes are still out of the pool", pool.stats().in_use);
    println!("{seconds:.2} s, {:.2} GB/s with both ends on one CPU", len as f64 / seconds / 1e9);
    println!("bytes direct {}, staged {}, copied {}", placed.direct, placed.staged, placed.copied);
    Ok(())
}
