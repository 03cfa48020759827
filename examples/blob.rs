//! Receives a BLOB of known size straight into one pinned buffer: the bytes are decrypted from the packets to where the
//! application wants them, and one event tells that all is there.
//!
//! `cargo run --release --example blob [MiB]`: up to 1024, which is one hugepage of 1 GiB where the machine has it.
#![forbid(unsafe_code)]

mod shared;

use std::time::Instant;

use gannet::api::*;
use shared::{Failure, Source, client_config, cores, server_addr};

/// Asks for the BLOB and waits for one event.
struct Client {
    config: ClientConfig,
    conn: Option<ConnId>,
    /// Where the BLOB goes.
    memory: Option<PinnedBuf>,
    placement: Option<PlacementStats>,
    failed: Option<String>,
}

impl Client {
    fn start(&mut self, mut conn: Conn<'_>) -> Result<(), Failure> {
        let id = conn.open(Dir::Bidi)?;
        // The memory is the engine's until it comes back; there is no way to touch it meanwhile.
        conn.provide_receive_buffers(id, self.memory.take().into_iter().collect())?;
        conn.set_notify(id, Notify::WhenComplete)?;
        conn.send(id, "the blob, please".into(), true)?;
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
                if let Some(Err(why)) = cx.conn(conn).map(|conn| self.start(conn)) {
                    self.failed = Some(why.to_string());
                }
            }
            Event::Buffer { buf, .. } => self.memory = Some(buf),
            Event::Finished { placement, .. } => self.placement = Some(placement),
            Event::Closed { reason } => self.failed = Some(reason.to_string()),
            _ => {}
        }
    }
}

fn main() -> Result<(), Failure> {
    let mib: usize = std::env::args().nth(1).map_or(Ok(256), |n| n.parse())?;
    let len = mib << 20;
    let pool = BufPool::new(PoolConfig { limit_bytes: 2 << 30, ..PoolConfig::default() })?;
    let memory = pool.alloc(len)?;
    println!("{mib} MiB into one buffer on {:?} pages", memory.backing());
    // The window is what is provided, not a number in a configuration.
    let transport = TransportConfig {
        stream_window_bidi_local: 0,
        max_data: 4 << 30,
        max_udp_payload: 8972,
        ..TransportConfig::default()
    };
    let config = client_config(transport)?;
    let client = Client { config, conn: None, memory: Some(memory), placement: None, failed: None };
    let (mut server, mut client) = cores(9000, Source::new(len as u64), client, pool)?;
    let start = Instant::now();
    while client.app.placement.is_none() {
        server.turn();
        client.turn();
        if let Some(why) = &client.app.failed {
            return Err(why.clone().into());
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    let memory = client.app.memory.take().ok_or("the buffer did not come back")?;
    if memory.len() != len || memory.iter().any(|b| *b != 7) {
        return Err("these are not the bytes that were sent".into());
    }
    let placed = client.app.placement.unwrap_or_default();
    println!("{seconds:.2} s, {:.2} GB/s with both ends on one CPU", len as f64 / seconds / 1e9);
    println!("bytes direct {}, staged {}, copied {}", placed.direct, placed.staged, placed.copied);
    Ok(())
}
