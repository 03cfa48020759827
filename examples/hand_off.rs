//! Hands filled buffers to another thread: ownership of the memory that packets were decrypted into moves to that
//! thread, and the memory returns to its pool when the thread drops it.
//!
//! `cargo run --release --example hand_off [MiB]`; `--help` explains how to run it over a port.
#![forbid(unsafe_code)]

mod shared;

use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use gannet::api::*;
use shared::{Failure, Options, Wire, client_config};

/// Size of a buffer in bytes, and number of buffers that the stream has at a time.
const BUF: usize = 1 << 20;
const AHEAD: usize = 4;

/// Passes on every full buffer and provides a new one.
struct Client {
    config: ClientConfig,
    remote: SocketAddr,
    conn: Option<ConnId>,
    /// Number of bytes to request.
    len: u64,
    out: Sender<(PinnedBuf, usize)>,
    placement: Option<PlacementStats>,
    failed: Option<String>,
}

impl Client {
    fn provide(&mut self, cx: &mut Context<'_>, conn: ConnId, id: StreamId, count: usize) -> Result<(), Failure> {
        let bufs = (0..count).map(|_| cx.pool().alloc(BUF)).collect::<Result<Vec<_>, _>>()?;
        if let Some(mut conn) = cx.conn(conn) {
            // Fails if the stream's end is known.
            let _ = conn.provide_receive_buffers(id, bufs);
        }
        Ok(())
    }

    fn start(&mut self, cx: &mut Context<'_>, conn: ConnId) -> Result<(), Failure> {
        let id = cx.conn(conn).ok_or("the connection is gone")?.open(Dir::Bidi)?;
        self.provide(cx, conn, id, AHEAD)?;
        if let Some(mut conn) = cx.conn(conn) {
            conn.send(id, self.len.to_string().into_bytes().into(), true)?;
        }
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
        let done = match event {
            Event::Connected { .. } => self.start(cx, conn),
            Event::Buffer { id, buf, valid, .. } => {
                // Moves a pointer; the data stays where it is.
                let _ = self.out.send((buf, valid));
                self.provide(cx, conn, id, 1)
            }
            Event::Finished { placement, .. } => {
                self.placement = Some(placement);
                Ok(())
            }
            Event::Closed { reason } if !self.is_done() => Err(reason.to_string().into()),
            _ => Ok(()),
        };
        self.failed = self.failed.take().or(done.err().map(|why| why.to_string()));
    }

    fn is_done(&self) -> bool {
        self.placement.is_some() || self.failed.is_some()
    }
}

/// Runs on a thread that knows nothing about QUIC.
fn work(buffers: &Receiver<(PinnedBuf, usize)>) -> (u64, u64) {
    buffers.iter().fold((0, 0), |(bytes, sum), (buf, valid)| {
        let add: u64 = buf[..valid].iter().map(|b| u64::from(*b)).sum();
        // `buf` is dropped here and thus returned to the core's pool.
        (bytes + valid as u64, sum + add)
    })
}

fn main() -> Result<(), Failure> {
    let options = Options::load();
    let Some(wire) = Wire::open(&options, 1500)? else { return Ok(()) };
    let len = options.bytes(512);
    let (out, buffers) = channel();
    let worker = thread::spawn(move || work(&buffers));
    let transport = TransportConfig {
        stream_window_bidi_local: 0,
        receive_low_water: 0,
        max_udp_payload: wire.max_udp_payload,
        ..TransportConfig::default()
    };
    let config = client_config(transport)?;
    let client = Client { config, remote: wire.remote, conn: None, len, out, placement: None, failed: None };
    // Enough for the stream's buffers and those waiting for the worker, however slow it is.
    let limit_bytes = (usize::try_from(len)? + 8 * BUF).max(64 << 20);
    let pool = BufPool::new(PoolConfig { limit_bytes, ..PoolConfig::default() })?;
    let (Client { placement, failed, out, .. }, time) = wire.run(client, pool.clone())?;
    drop(out);
    let (bytes, sum) = worker.join().map_err(|_| "the worker has failed")?;
    let placed = placement.ok_or_else(|| failed.unwrap_or("interrupted".to_owned()))?;
    if (bytes, sum) != (len, 7 * len) {
        return Err(format!("{bytes} bytes with sum {sum}: not the data that was sent").into());
    }
    println!("{} MiB handed to another thread; {} bytes are still out of the pool", len >> 20, pool.stats().in_use);
    println!("{:.3} s, {:.2} GB/s", time.as_secs_f64(), len as f64 / time.as_secs_f64() / 1e9);
    println!("bytes direct {}, staged {}, copied {}", placed.direct, placed.staged, placed.copied);
    Ok(())
}
