//! Receives a BLOB of known size directly into one pinned buffer: data is decrypted from the packets to where the
//! application wants it, and a single event reports that all of it has arrived.
//!
//! `cargo run --release --example blob [MiB]`: up to 1024, which is one hugepage of 1 GiB if the machine has one.
//! `--help` explains how to run it over a port, between two processes or machines.
#![forbid(unsafe_code)]

mod shared;

use std::net::SocketAddr;

use gannet::api::*;
use shared::{Failure, Options, Wire, client_config};

/// Requests the BLOB and waits for one event.
struct Client {
    config: ClientConfig,
    remote: SocketAddr,
    conn: Option<ConnId>,
    /// Size of the BLOB in bytes; its destination is `memory`.
    len: u64,
    memory: Option<PinnedBuf>,
    placement: Option<PlacementStats>,
    failed: Option<String>,
}

impl Client {
    fn start(&mut self, mut conn: Conn<'_>) -> Result<(), Failure> {
        let id = conn.open(Dir::Bidi)?;
        // The engine owns the memory until it is returned; it cannot be accessed in the meantime.
        conn.provide_receive_buffers(id, self.memory.take().into_iter().collect())?;
        conn.set_notify(id, Notify::WhenComplete)?;
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
                if let Some(Err(why)) = cx.conn(conn).map(|conn| self.start(conn)) {
                    self.failed = Some(why.to_string());
                }
            }
            Event::Buffer { buf, .. } => self.memory = Some(buf),
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
    let Some(wire) = Wire::open(&options, 9000)? else { return Ok(()) };
    let len = options.bytes(256);
    let limit_bytes = usize::try_from(len)?.next_power_of_two().max(64 << 20);
    let pool = BufPool::new(PoolConfig { limit_bytes, ..PoolConfig::default() })?;
    let memory = pool.alloc(usize::try_from(len)?)?;
    println!("{} MiB into one buffer on {:?} pages", len >> 20, memory.backing());
    // The window is what is provided, not a configured number.
    let transport = TransportConfig {
        stream_window_bidi_local: 0,
        max_data: 4 << 30,
        max_udp_payload: wire.max_udp_payload,
        ..TransportConfig::default()
    };
    let client = Client {
        config: client_config(transport)?,
        remote: wire.remote,
        conn: None,
        len,
        memory: Some(memory),
        placement: None,
        failed: None,
    };
    let (client, time) = wire.run(client, pool)?;
    let placed = client.placement.ok_or_else(|| client.failed.unwrap_or("interrupted".to_owned()))?;
    let memory = client.memory.ok_or("the buffer was not returned")?;
    if memory.len() as u64 != len || memory.iter().any(|b| *b != 7) {
        return Err("the received data differs from the sent data".into());
    }
    println!("{:.3} s, {:.2} GB/s", time.as_secs_f64(), len as f64 / time.as_secs_f64() / 1e9);
    println!("bytes direct {}, staged {}, copied {}", placed.direct, placed.staged, placed.copied);
    Ok(())
}
