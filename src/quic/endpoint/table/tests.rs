use std::sync::Arc;

use super::*;
use crate::base::Side;
use crate::base::rng::Rng;
use crate::base::time::Instant;
use crate::quic::EndpointConfig;
use crate::quic::cid::{CidConfig, IdMaker};
use crate::quic::connection::Birth;
use crate::quic::path::Spin;
use crate::wire::quic::{ConnectionId, Version};

/// Number of places that the connections of a test share.
const PLACES: usize = 48;

fn maker(seed: u8) -> IdMaker {
    EndpointConfig::from_secret(&[7; 32].into(), [seed; 32]).id_maker()
}

/// Starts and ends `count` connections, `PLACES` at a time, in an order determined by the seed. `each` gets every name.
/// Returns the final table.
fn lives(count: usize, last_generation: u32, mut each: impl FnMut(ConnId)) -> Table {
    let (mut table, mut rng, mut alive) = (Table::new(last_generation, 0), Rng::from_u64(9), Vec::new());
    for _ in 0..count {
        if alive.len() == PLACES {
            // Sometimes all of them end at once.
            let ends = if rng.chance(1) { PLACES } else { 1 };
            for _ in 0..ends {
                table.cancel(alive.swap_remove(rng.below(alive.len() as u64) as usize));
            }
        }
        let id = table.reserve().expect("places without end");
        alive.push(id);
        each(id);
    }
    table
}

fn assert_each_once(mut all: Vec<u128>) {
    let count = all.len();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), count);
}

fn number(bytes: &[u8]) -> u128 {
    let mut wide = [0; 16];
    wide[..bytes.len()].copy_from_slice(bytes);
    u128::from_be_bytes(wide)
}

/// RFC 9000 §5.1. Before, IDs repeated after 65,536 connections in a place.
#[test]
fn ten_million_connections_in_few_places_have_ids_of_their_own() {
    let (ids, mut all) = (maker(1), Vec::with_capacity(10_000_000));
    let table = lives(10_000_000, ids.last_generation(), |id| all.push(number(&ids.cid(id, 0))));
    assert_each_once(all);
    assert_eq!(table.slots.len(), PLACES);
    // First in, first out: all places are used evenly.
    let generations = || table.slots.iter().map(|slot| slot.name.generation());
    let (least, most) = (generations().min().unwrap(), generations().max().unwrap());
    assert!(least > 1 << 16 && most - least < least / 10, "{least} to {most}");
}

/// RFC 9000 §10.3.2.
#[test]
fn ten_million_connections_in_few_places_have_tokens_of_their_own() {
    let (ids, mut all) = (maker(1), Vec::with_capacity(10_000_000));
    lives(10_000_000, ids.last_generation(), |id| all.push(u128::from_be_bytes(ids.token(&ids.cid(id, 0)))));
    assert_each_once(all);
}

/// A secret that outlives processes must not bring back their IDs. Here: twenty processes of a server, with the IDs of
/// their concurrent connections.
#[test]
fn processes_with_one_secret_have_ids_of_their_own() {
    let mut all = Vec::new();
    for life in 0..20 {
        let ids = maker(life);
        lives(20_000, ids.last_generation(), |id| all.extend((0..4).map(|sequence| number(&ids.cid(id, sequence)))));
    }
    assert_each_once(all);
}

#[test]
fn a_place_without_generations_is_not_used_again() {
    let mut seen = std::collections::HashSet::new();
    let table = lives(1000, 9, |id| assert!(seen.insert(id) && id.generation() <= 9));
    let retired = table.slots.iter().filter(|slot| slot.name.generation() == CidInfo::NO_GENERATION).count();
    assert!((1000 / 10 - PLACES..=1000 / 10).contains(&retired), "{retired} places");
    assert!(table.slots.len() <= retired + PLACES);
    // The shortest IDs have 24 bits for it; longer ones are limited by the connection's name.
    let last = |len| {
        let config = EndpointConfig { cid: CidConfig::unrouted(len).unwrap(), ..EndpointConfig::from_seed([1; 32]) };
        config.id_maker().last_generation()
    };
    assert_eq!([10, 11, 17].map(last), [(1 << 24) - 1, u32::MAX - 1, u32::MAX - 1]);
}

#[test]
fn names_of_the_past_find_nothing() {
    let mut table = Table::new(1, 0);
    let first = table.reserve().unwrap();
    table.cancel(first);
    let second = table.reserve().unwrap();
    assert_eq!((first.index(), first.generation(), second.generation()), (0, 0, 1));
    table.cancel(second);
    assert_eq!(table.reserve().map(ConnId::index), Some(1), "the place is used up");
    for generation in [0, 1, 2, CidInfo::NO_GENERATION] {
        assert!(table.find(0, generation).is_none());
    }
}

/// Before, connections of all cores had the same names.
#[test]
fn names_of_other_cores_find_nothing() {
    let [mut one, mut other] = [3, 255].map(|core| Table::new(9, core));
    let [a, b] = [&mut one, &mut other].map(|table| table.reserve().unwrap());
    assert_eq!([a, b].map(|id| (id.core(), id.index(), id.generation())), [(3, 0, 0), (255, 0, 0)]);
    assert_eq!([a.to_string(), b.to_string(), ConnId::new(17, 2).to_string()], ["3:0.0", "255:0.0", "17.2"]);
    let (addr, cid) = (([192, 0, 2, 1], 443).into(), ConnectionId::new(&[7; 8]).unwrap());
    let birth = Birth {
        spin: Spin::new(Side::Server, false, &mut Rng::from_u64(1)),
        version: Version::V1,
        id: a,
        side: Side::Client,
        config: Arc::default(),
        local: addr,
        remote: addr,
        original_dcid: cid,
        retry_scid: None,
        with_token: false,
        remote_cid: cid,
        max_data: 0,
        seed: 0,
    };
    one.insert(a, Box::new(Connection::new(&birth, Instant::ZERO, None)));
    assert!(one.get(a).is_some() && one.find(0, 0) == Some(a));
    assert!(one.get(b).is_none() && one.peek(b).is_none() && one.get_to_send(b).is_none() && one.remove(b).is_none());
    assert_eq!((one.remove(a).is_some(), one.reserve().map(|id| (id.core(), id.generation()))), (true, Some((3, 1))));
}
