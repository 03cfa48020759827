use std::net::SocketAddr;

use super::*;
use crate::base::time::Instant;
use crate::mem::BufPool;
use crate::quic::stats::DropReason;
use crate::quic::{CidConfig, EndpointConfig};

fn config(cores: u8, len: usize) -> EndpointConfig {
    let config = EndpointConfig { cores, ..EndpointConfig::from_seed([7; 32]) };
    EndpointConfig { cid: CidConfig::unrouted(len).unwrap(), ..config }
}

/// The engines of all cores of a server.
fn endpoints(cores: u8, len: usize) -> Vec<Endpoint> {
    let base = config(cores, len);
    (0..cores).map(|core| Endpoint::new(base.for_core(core, cores), None, BufPool::heap())).collect()
}

fn meta() -> RxMeta {
    let [local, remote] = [1, 2].map(|host| SocketAddr::from(([192, 0, 2, host], 443)));
    RxMeta { local, remote, ecn: 0 }
}

/// A packet with a short header for the connection that `info` names.
fn short(info: CidInfo, len: usize) -> Vec<u8> {
    let cid = config(1, len).cid_codec().encode(info);
    [&[0x41], &cid[..], &[0x77; 60]].concat()
}

/// A Handshake packet for it.
fn long(info: CidInfo, len: usize) -> Vec<u8> {
    let cid = config(1, len).cid_codec().encode(info);
    [&[0xe1, 0, 0, 0, 1, cid.len() as u8], &cid[..], &[0], &[0x40, 40], &[0x77; 40]].concat()
}

fn lead(endpoint: &mut Endpoint, data: &[u8]) -> Lead {
    let mut leads = Leads::new();
    endpoint.lead(&mut leads, data);
    endpoint.route(&mut leads);
    assert_eq!(leads.len(), 1);
    leads[0]
}

fn info(core: u8, index: u32) -> CidInfo {
    CidInfo { core, index, generation: 5, sequence: 3 }
}

#[test]
fn ids_lead_to_their_core_whatever_the_header() {
    for len in [10, 13, 17] {
        let mut cores = endpoints(4, len);
        for packet in [short, long] {
            for (at, endpoint) in cores.iter_mut().enumerate() {
                for to in 0..6 {
                    match lead(endpoint, &packet(info(to, 9), len)) {
                        Lead::Core(core, tag) => assert_eq!((core, tag), (to, [9, 5, 3])),
                        // The connection does not exist, nor do cores from 4 on.
                        Lead::Unknown => assert!(usize::from(to) == at || to >= 4),
                        Lead::Here(known) => panic!("{known:?}"),
                    }
                }
            }
        }
    }
    let alone = &mut endpoints(1, 10)[0];
    assert!(matches!(lead(alone, &short(info(1, 9), 10)), Lead::Unknown));
    let two = &mut endpoints(2, 10)[0];
    assert!(matches!(lead(two, &short(info(1, 9), 11)), Lead::Unknown), "not of our form");
    assert!(matches!(lead(two, &[]), Lead::Unknown));
    assert!(matches!(lead(two, &[0xc0; 7]), Lead::Unknown));
    assert!(matches!(lead(two, &short(info(1, 9), 10)[..20]), Lead::Unknown), "too short");
}

/// All datagrams of a burst, with IDs that occur once, several times in a row, or are not of our form.
#[test]
fn a_burst_is_routed_like_each_of_its_datagrams() {
    let mut cores = endpoints(3, 10);
    let datagrams: Vec<Vec<u8>> = (0..RUN as u32)
        .map(|n| match n % 7 {
            0 => vec![n as u8; 40],
            1 => long(info((n % 3) as u8, n), 10),
            2 | 3 => short(info((n / 7 % 3) as u8, 1000), 10),
            _ => short(info((n % 4) as u8, n), 10),
        })
        .collect();
    let mut leads = Leads::new();
    datagrams.iter().for_each(|data| cores[0].lead(&mut leads, data));
    cores[0].route(&mut leads);
    assert_eq!(leads.len(), RUN);
    let mut others = 0;
    for (data, together) in datagrams.iter().zip(leads.iter()) {
        match (lead(&mut cores[0], data), together) {
            (Lead::Unknown, Lead::Unknown) => {}
            (Lead::Core(core, tag), Lead::Core(core2, tag2)) => {
                assert_eq!((core, tag), (*core2, *tag2));
                others += 1;
            }
            different => panic!("{different:?}"),
        }
    }
    assert!(others > RUN / 3);
}

/// RFC 9287 §3: the fixed bit has any value, and routing does not depend on it, unless greasing is off. Until 2026-11, an
/// ID of zeros led to the first connection.
#[test]
fn the_fixed_bit_does_not_matter_for_routing() {
    let mut cores = endpoints(3, 10);
    let data = short(info(2, 9), 10);
    let Lead::Core(2, tag) = lead(&mut cores[0], &data) else { panic!("not handed over") };
    let mut cleared = data.clone();
    cleared[0] &= !0x40;
    assert!(matches!(lead(&mut cores[0], &cleared), Lead::Core(2, other) if other == tag));
    let mut leads = Leads::new();
    cores[2].lead_handed(&mut leads, Some(tag), &cleared);
    assert!(matches!(leads[0], Lead::Here(_)));
    let strict = EndpointConfig { grease: false, ..config(3, 10) };
    let mut strict = Endpoint::new(strict, None, BufPool::heap());
    assert!(matches!(lead(&mut strict, &cleared), Lead::Unknown) && !matches!(lead(&mut strict, &data), Lead::Unknown));
    for first in [0, 0x40] {
        let mut zeros = vec![0; 40];
        zeros[0] = first;
        assert!(!matches!(lead(&mut cores[0], &zeros), Lead::Here(_)));
    }
}

/// RFC 9000 §10.3: whoever resets a connection must be sure that no core has it.
#[test]
fn only_the_owner_resets() {
    let now = Instant::from_nanos(1_000_000_000);
    let mut cores = endpoints(3, 10);
    let foreign = DropReason::ForeignId as usize;
    // The core that received it does not, even if it handles the packet.
    for (n, to) in [(0usize, 2u8), (1, 2), (0, 1), (1, 0)] {
        cores[n].handle_datagram(now, &meta(), &mut short(info(to, 9), 10));
    }
    assert_eq!(cores.iter().map(|core| core.stats().drops[foreign]).collect::<Vec<_>>(), [2, 2, 0]);
    assert!(cores.iter().all(|core| core.stats().resets_sent == 0));
    // The owner does, even for a packet that was handed over to it.
    let mut data = short(info(2, 9), 10);
    let Lead::Core(2, tag) = lead(&mut cores[0], &data) else { panic!("not handed over") };
    let mut leads = Leads::new();
    cores[2].lead_handed(&mut leads, Some(tag), &data);
    let meta = meta();
    let mut datagram = Datagram::new(&meta, &mut data, leads[0]);
    assert!(cores[2].handle_run(now, std::slice::from_mut(&mut datagram)));
    assert!(matches!(datagram.arrival, Arrival::Answered(_)));
    assert_eq!(cores.iter().map(|core| core.stats().resets_sent).collect::<Vec<_>>(), [0, 0, 1]);
}

/// Clients of cores that there were before a restart used to wait for their idle timeouts.
#[test]
fn whoever_receives_them_resets_connections_of_cores_that_are_gone() {
    let now = Instant::from_nanos(1_000_000_000);
    let mut cores = endpoints(3, 10);
    for (n, to) in [(0usize, 3u8), (1, 7), (2, 254)] {
        for _ in 0..2 {
            let mut packet = short(info(to, 9), 10);
            assert!(matches!(lead(&mut cores[n], &packet), Lead::Unknown), "it stays where it is");
            cores[n].handle_datagram(now, &meta(), &mut packet);
        }
    }
    assert_eq!(cores.iter().map(|core| core.stats().resets_sent).collect::<Vec<_>>(), [2, 2, 2]);
    // A core that does not know how many there are answers for itself only.
    let config = EndpointConfig { core: 4, ..config(4, 10) };
    let mut lost = Endpoint::new(config, None, BufPool::heap());
    for to in 0..8 {
        lost.handle_datagram(now, &meta(), &mut short(info(to, 9), 10));
    }
    assert_eq!((lost.stats().resets_sent, lost.stats().drops[DropReason::ForeignId as usize]), (1, 7));
}
