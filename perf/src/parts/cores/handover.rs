//! Hand-over: what it costs to read the connection IDs of packets of another core, and to pass the packets on over the
//! exchange.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use gannet::base::time::Instant;
use gannet::datapath::exchange::{Exchange as _, Handed};
use gannet::datapath::{BURST, Burst, RxFrame as _};
use gannet::dpdk::{RingExchange, RxMbuf};
use gannet::mem::{BufPool, cycles, cycles_per_ns};
use gannet::quic::{Endpoint, EndpointConfig, Lead, Leads};
use gannet::wire::quic::{ConnectionId, header};

use crate::Failure;
use crate::cores::pin;
use crate::lab::group::Ports;
use crate::lab::world::{NAME, REMOTE, client_config, transport};
use crate::run::Run;
use crate::stats::Stat;
use crate::stop::StopOnDrop;

/// The size of Ethernet, IPv4 and UDP headers, in bytes.
const HEADERS: usize = 42;

/// The size of the frames, in bytes.
const FRAME: usize = 128;

/// Nanoseconds per packet.
#[derive(Clone, Copy, Debug)]
struct Cost {
    /// At the core that received it: reading its ID, and offering it to the exchange.
    give: f64,
    /// At the core of its connection: taking it.
    take: f64,
}

/// The endpoint of core `core` of two, which does not accept connections.
fn endpoint(core: u8) -> Endpoint {
    Endpoint::new(EndpointConfig::from_seed([7; 32]).for_core(core, 2), None, BufPool::heap())
}

/// Connection IDs of core 1, all of different connections.
fn ids(count: usize) -> Result<Vec<ConnectionId>, Failure> {
    let (mut maker, config) = (endpoint(1), client_config(1500, transport())?);
    let (now, local) = (Instant::from_nanos(1_000_000_000), SocketAddr::from((Ipv4Addr::LOCALHOST, 1)));
    let mut slot = vec![0; 2048];
    let mut ids = Vec::new();
    for _ in 0..count {
        maker.connect(now, &config, NAME, local, REMOTE)?;
        while let Some(sent) = maker.poll_transmit(now, &mut slot) {
            let id = header::parse(&slot[..sent.len], 0)?.scid;
            if ids.last() != Some(&id) {
                ids.push(id);
            }
        }
    }
    Ok(ids)
}

/// A frame with a packet of the connection that `id` belongs to. Nothing but the ID is ever read.
fn frame(id: &ConnectionId) -> Vec<u8> {
    let mut frame = vec![0; HEADERS];
    frame.push(0x40);
    frame.extend_from_slice(id);
    frame.resize(FRAME, 0x5a);
    frame
}

/// Appends the frames that have to be handed over to core 1 to `leaving`, with their tags. These are all.
fn sort_out(endpoint: &mut Endpoint, frames: &mut Burst<RxMbuf>, leaving: &mut Burst<Handed<RxMbuf>>) {
    let mut leads = Leads::new();
    for frame in frames.iter_mut() {
        endpoint.lead(&mut leads, &frame.data_mut()[HEADERS..]);
    }
    endpoint.route(&mut leads);
    for (frame, lead) in frames.drain(..).zip(leads.take()) {
        if let Lead::Core(1, tag) = lead {
            leaving.push(Handed { frame, tag: Some(tag) });
        }
    }
}

/// Returns how many of the frames taken over belong to connections of this core.
fn accept(endpoint: &Endpoint, taken: &mut Burst<Handed<RxMbuf>>) -> usize {
    let mut leads = Leads::new();
    for Handed { frame, tag } in taken.iter_mut() {
        endpoint.lead_handed(&mut leads, *tag, &frame.data_mut()[HEADERS..]);
    }
    leads.take().filter(|lead| matches!(lead, Lead::Here(_))).count()
}

/// Core 0's part: hands `frames` over `rounds` times, all at once, and waits until they are sent back. Returns the
/// cycles of each hand-over.
fn give(
    exchange: &mut RingExchange<RxMbuf>,
    frames: &mut Burst<RxMbuf>,
    rounds: usize,
    alive: impl Fn() -> bool,
) -> Result<Vec<f64>, Failure> {
    let (mut endpoint, count) = (endpoint(0), frames.len());
    let (mut spent, mut moving) = (Vec::with_capacity(rounds), Burst::new());
    for _ in 0..rounds {
        // A device writes each frame anew, so the second CPU never has it in its cache.
        for frame in frames.iter_mut() {
            frame.data_mut()[..HEADERS].fill(0);
        }
        let start = cycles();
        sort_out(&mut endpoint, frames, &mut moving);
        let offered = exchange.offer(1, &mut moving);
        spent.push((cycles() - start) as f64);
        if offered != count {
            return Err(format!("the exchange took {offered} of {count} frames").into());
        }
        while moving.len() < count {
            if exchange.take(&mut moving) == 0 && !alive() {
                return Err("frames have not come back".into());
            }
            std::hint::spin_loop();
        }
        frames.extend(moving.drain(..).map(|handed| handed.frame));
    }
    Ok(spent)
}

/// Core 1's part: takes frames until it is to `stop`, and sends them back. Returns the cycles of each time.
fn take(exchange: &mut RingExchange<RxMbuf>, stop: &AtomicBool) -> Result<Vec<f64>, Failure> {
    let endpoint = endpoint(1);
    let (mut spent, mut taken) = (Vec::new(), Burst::new());
    while !stop.load(Ordering::Relaxed) {
        let start = cycles();
        if exchange.take(&mut taken) == 0 {
            std::hint::spin_loop();
            continue;
        }
        let known = accept(&endpoint, &mut taken);
        spent.push((cycles() - start) as f64);
        if known != taken.len() {
            return Err(format!("{} frames were handed over to the wrong core", taken.len() - known).into());
        }
        exchange.offer(0, &mut taken);
    }
    Ok(spent)
}

/// Hands `frames` over from the first CPU to the second `rounds` times, all at once.
fn hand_over(
    [near, far]: &mut [RingExchange<RxMbuf>; 2],
    cpus: [usize; 2],
    frames: &mut Burst<RxMbuf>,
    rounds: usize,
) -> Result<Cost, Failure> {
    pin(cpus[0]);
    let (count, stop) = (frames.len(), AtomicBool::new(false));
    let (given, taken) = thread::scope(|scope| {
        let far = scope.spawn(|| {
            pin(cpus[1]);
            take(far, &stop)
        });
        let stop = StopOnDrop(&stop);
        let given = give(near, frames, rounds, || !far.is_finished());
        drop(stop);
        (given, far.join().unwrap_or_else(|_| Err("core 1 has panicked".into())))
    });
    let per_packet = |spent: Vec<f64>| {
        let median = Stat::of(&spent).map_or(f64::NAN, |stat| stat.median);
        median / cycles_per_ns() / count as f64
    };
    let taken = taken?;
    Ok(Cost { give: per_packet(given?), take: per_packet(taken) })
}

/// Measures the hand-over of bursts, of which each packet is from another connection, and of single packets.
///
/// # Errors
/// If there is no memory, or frames are lost.
pub fn measure(run: &mut Run, ports: &mut Ports) -> Result<(), Failure> {
    let rounds = run.scale.pick(100, 5000, 20_000);
    let contents: Vec<Vec<u8>> = ids(BURST)?.iter().map(frame).collect();
    let mut burst: Burst<RxMbuf> = ports.frames(&contents)?.into_iter().collect();
    let mut single: Burst<RxMbuf> = ports.frames(&contents[..1])?.into_iter().collect();
    for _ in 0..run.repeats {
        let mut add = |key: &str, value: f64| run.sheet.add(format!("cores.handover_{key}"), value);
        let cost = hand_over(&mut ports.mesh, run.cores, &mut burst, rounds)?;
        add("ns", cost.give + cost.take);
        add("give_ns", cost.give);
        add("take_ns", cost.take);
        let cost = hand_over(&mut ports.mesh, run.cores, &mut single, rounds)?;
        add("single_ns", cost.give + cost.take);
    }
    let unit = "ns per packet handed over";
    run.bar("in bursts of 32", "cores.handover_ns", unit);
    run.bar("one by one", "cores.handover_single_ns", unit);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_name_connections_of_core_1_that_only_core_0_passes_on() {
        let ids = ids(BURST).unwrap();
        assert_eq!(ids.len(), BURST, "an ID each");
        let (mut near, far) = (endpoint(0), endpoint(1));
        let mut leads = Leads::new();
        let frames: Vec<_> = ids.iter().map(frame).collect();
        frames.iter().for_each(|frame| near.lead(&mut leads, &frame[HEADERS..]));
        near.route(&mut leads);
        let tags: Vec<_> =
            leads.take().map(|lead| if let Lead::Core(1, tag) = lead { Some(tag) } else { None }).collect();
        assert!(tags.iter().all(Option::is_some), "{tags:?}");
        let mut indexes: Vec<u32> = tags.iter().flatten().map(|[index, ..]| *index).collect();
        indexes.dedup();
        assert_eq!(indexes.len(), BURST, "of different connections");
        let mut leads = Leads::new();
        for (tag, frame) in tags.iter().zip(&frames) {
            far.lead_handed(&mut leads, *tag, &frame[HEADERS..]);
        }
        assert!(leads.take().all(|lead| matches!(lead, Lead::Here(_))));
    }
}
