//! Handshakes per second of a server core, compared with rustls alone.

use std::sync::Arc;
use std::time::Duration;

use gannet::quic::{ClientConfig, ConnId, Event};
use gannet::runtime::{App, Context};
use rustls::pki_types::ServerName;
use rustls::quic::{ClientConnection, ServerConnection, Version};

use crate::Failure;
use crate::cores::pin;
use crate::cpu;
use crate::lab::world::{self, NAME, REMOTE, Setup, World};
use crate::peers::tls;
use crate::run::Run;

/// The number of handshakes in flight.
const IN_FLIGHT: usize = 32;

/// The typical size of transport parameters for the bare handshake, in bytes.
const PARAMETERS: usize = 64;

/// A server that only accepts connections.
#[derive(Debug)]
struct Host;

impl App for Host {
    fn on_event(&mut self, _: &mut Context<'_>, _: ConnId, _: Event) {}
}

/// A client that disconnects as soon as it is connected.
#[derive(Debug)]
struct Knocker {
    config: ClientConfig,
    in_flight: usize,
    done: u64,
    failed: u64,
    /// Connections to be closed once they have sent more than this many packets, the last of the handshake.
    leaving: Vec<(ConnId, u64)>,
}

impl App for Knocker {
    fn on_event(&mut self, cx: &mut Context<'_>, conn: ConnId, event: Event) {
        match event {
            Event::Connected { .. } => {
                self.in_flight -= 1;
                self.done += 1;
                let sent = cx.conn(conn).map_or(0, |conn| conn.stats().tx_packets);
                self.leaving.push((conn, sent));
            }
            Event::Closed { reason } if !matches!(reason, gannet::quic::CloseReason::Local { .. }) => {
                self.failed += 1;
            }
            _ => {}
        }
    }

    fn on_turn(&mut self, cx: &mut Context<'_>) {
        self.leaving.retain(|(conn, sent)| {
            let stays = cx.conn(*conn).is_some_and(|conn| conn.stats().tx_packets <= *sent);
            if !stays {
                cx.close(*conn, 0, "");
            }
            stays
        });
        while self.in_flight < IN_FLIGHT && cx.connect(&self.config, NAME, REMOTE).is_ok() {
            self.in_flight += 1;
        }
    }
}

/// Measures the part.
///
/// # Errors
/// If a handshake fails.
pub fn measure(run: &mut Run) -> Result<(), Failure> {
    pin(run.cores[1]);
    let count: u64 = run.scale.pick(100, 2000, 10_000);
    let group = rustls::crypto::aws_lc_rs::default_provider().kx_groups.first().map(|g| g.name());
    if group != Some(rustls::NamedGroup::X25519) {
        run.note(format!("handshakes use {group:?} instead of X25519, on both sides of the comparison"));
    }
    let mut engine = engine()?;
    handshakes(&mut engine, 64)?;
    for _ in 0..run.repeats {
        let ours = handshakes(&mut engine, count)?;
        let bare = bare(count)?;
        run.sheet.add("hps_1core", ours);
        run.sheet.add("hps.rustls", bare);
        run.sheet.add("hps.vs_rustls", ours / bare);
    }
    let unit = "handshakes/s of a server core, ECDSA P-256, X25519, AES-128-GCM";
    run.bar("Gannet", "hps_1core", unit);
    run.bar("rustls alone", "hps.rustls", unit);
    Ok(())
}

fn engine() -> Result<World<Knocker, Host>, Failure> {
    let setup = Setup {
        mtu: 1500,
        frames: 4096,
        server: world::transport(),
        server_pool: world::pool(4 << 20)?,
        client_pool: world::pool(4 << 20)?,
        max_connections: 1 << 16,
    };
    let config = world::client_config(1500, world::transport())?;
    World::new(setup, Knocker { config, in_flight: 0, done: 0, failed: 0, leaving: Vec::new() }, Host)
}

/// Handshakes per second of server time, over `count` of them.
fn handshakes(world: &mut World<Knocker, Host>, count: u64) -> Result<f64, Failure> {
    let before = world.server.endpoint_stats().handshakes;
    world.reset();
    let mut cycles = 0;
    while world.server.endpoint_stats().handshakes < before + count {
        world.run_client(usize::MAX);
        world.run_server(usize::MAX);
        // Long enough for closed connections to be removed soon.
        world.pass(5_000_000);
        cycles += 1;
        if cycles > 100 * count || world.client.app.failed > 0 {
            return Err(format!("handshakes fail: {:?}", world.client.app).into());
        }
    }
    let done = world.server.endpoint_stats().handshakes - before;
    Ok(done as f64 / world.server_effort.time.as_secs_f64())
}

/// Handshakes per second of rustls' server side alone.
fn bare(count: u64) -> Result<f64, Failure> {
    let (server, client) = (Arc::new(tls::server()?), Arc::new(tls::client()?));
    let mut spent = Duration::ZERO;
    for _ in 0..count {
        spent += bare_once(&server, &client)?;
    }
    Ok(count as f64 / spent.as_secs_f64())
}

/// The time of the server's side of one handshake.
fn bare_once(server: &Arc<rustls::ServerConfig>, client: &Arc<rustls::ClientConfig>) -> Result<Duration, Failure> {
    let name = ServerName::try_from(NAME)?;
    let mut client = ClientConnection::new(Arc::clone(client), Version::V1, name, vec![0; PARAMETERS])?;
    let start = cpu::time();
    let mut server = ServerConnection::new(Arc::clone(server), Version::V1, vec![0; PARAMETERS])?;
    let mut spent = cpu::time().saturating_sub(start);
    while client.is_handshaking() || server.is_handshaking() {
        let up = flights(|out| client.write_hs(out).is_some());
        let start = cpu::time();
        up.iter().try_for_each(|bytes| server.read_hs(bytes))?;
        let down = flights(|out| server.write_hs(out).is_some());
        spent += cpu::time().saturating_sub(start);
        if up.is_empty() && down.is_empty() {
            return Err("rustls does not complete a handshake".into());
        }
        down.iter().try_for_each(|bytes| client.read_hs(bytes))?;
    }
    Ok(spent)
}

/// The output of one side, level by level. `write` returns whether the level has changed.
fn flights(mut write: impl FnMut(&mut Vec<u8>) -> bool) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    loop {
        let mut bytes = Vec::new();
        let changed = write(&mut bytes);
        let silent = bytes.is_empty();
        all.extend((!silent).then_some(bytes));
        if silent && !changed {
            return all;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_shake_hands() {
        assert!(bare(3).unwrap() > 0.0);
        let mut world = engine().unwrap();
        assert!(handshakes(&mut world, 40).unwrap() > 0.0);
        assert!(world.client.app.done >= 40 && world.client.app.failed == 0);
    }
}
