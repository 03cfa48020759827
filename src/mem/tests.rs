//! Tests of the whole pool.

use std::sync::mpsc;

use proptest::prelude::*;

use super::*;

const MIB: usize = 1 << 20;

fn pool(limit_bytes: usize) -> BufPool {
    BufPool::new(PoolConfig { limit_bytes, hugepages: Hugepages::Never, numa_node: None }).unwrap()
}

fn exhausted(result: Result<PinnedBuf, AllocError>) -> bool {
    matches!(result, Err(AllocError::Exhausted { .. }))
}

#[test]
fn exact_length_class_capacity_and_alignment() {
    let pool = BufPool::heap();
    for shift in 10..24 {
        for len in [1usize << shift, (1 << shift) - 1, (1 << shift) + 1] {
            let buf = pool.alloc(len).unwrap();
            let class = len.next_power_of_two().max(1024);
            assert_eq!((buf.len(), buf.capacity()), (len, class));
            assert!(buf.addr().is_multiple_of(class.min(2 * MIB)), "{buf:?}");
            assert_eq!((buf[0], buf[len - 1]), (0, 0));
        }
    }
    assert_eq!(pool.alloc(0).unwrap_err(), AllocError::Empty);
    assert_eq!(pool.alloc(MAX_BUF + 1).unwrap_err(), AllocError::TooLarge { wanted: MAX_BUF + 1, max: MAX_BUF });
}

#[test]
#[cfg_attr(miri, ignore = "too much memory for an interpreter")]
fn the_largest_class_can_be_had() {
    let pool = BufPool::heap();
    let mut buf = pool.alloc(MAX_BUF).unwrap();
    assert!(buf.addr().is_multiple_of(2 * MIB));
    let last = buf.len() - 1;
    buf[last] = 1;
    drop(buf);
    pool.trim();
    assert_eq!(pool.stats().reserved, 0);
}

#[test]
fn the_buffer_returned_last_is_taken_first() {
    let pool = BufPool::heap();
    let (mut a, b) = (pool.alloc(65536).unwrap(), pool.alloc(65536).unwrap());
    let addr = a.addr();
    a[0] = 5;
    drop(b);
    drop(a);
    let again = pool.alloc(60000).unwrap();
    assert_eq!((again.addr(), again[0]), (addr, 5));
    assert_eq!(pool.stats().reserved, 2 * MIB);
}

#[test]
fn the_limit_holds_and_recovers() {
    let pool = pool(MIB);
    let mut bufs: Vec<_> = (0..16).map(|_| pool.alloc(65536).unwrap()).collect();
    let error = pool.alloc(1).unwrap_err();
    assert_eq!(error, AllocError::Exhausted { limit: MIB, in_use: MIB, wanted: 1024 });
    drop(bufs.pop());
    assert!(exhausted(pool.alloc(65537)));
    let small: Vec<_> = (0..16).map(|_| pool.alloc(4096).unwrap()).collect();
    assert!(exhausted(pool.alloc(1)));
    assert_eq!((pool.stats().in_use, pool.stats().reserved), (MIB, 2 * MIB));
    drop((bufs, small));
    assert_eq!(pool.stats().in_use, 0);
    // Freed memory of all classes is available to all classes, as neighbours are joined.
    drop(pool.alloc(MIB).unwrap());
    assert!(exhausted(pool.alloc(MIB + 1)));
    drop((0..256).map(|_| pool.alloc(1).unwrap()).collect::<Vec<_>>());
    assert!(exhausted(self::pool(0).alloc(1)));
}

#[test]
fn cached_regions_make_room_for_others() {
    let pool = pool(8 * MIB);
    drop((0..4).map(|_| pool.alloc(2 * MIB).unwrap()).collect::<Vec<_>>());
    drop((0..8).map(|_| pool.alloc(MIB).unwrap()).collect::<Vec<_>>());
    assert_eq!(pool.stats().reserved, 8 * MIB);
    let whole = pool.alloc(8 * MIB).unwrap();
    assert_eq!((pool.stats().reserved, pool.regions().len()), (8 * MIB, 1));
    assert_eq!(pool.regions()[0].addr, whole.addr());
    drop(whole);
    let small: Vec<_> = (0..4).map(|_| pool.alloc(4096).unwrap()).collect();
    assert_eq!(pool.regions().len(), 1, "the cached region gave way");
    pool.trim();
    assert_eq!(pool.stats().reserved, 2 * MIB, "what is in use stays");
    drop(small);
    pool.trim();
    assert_eq!((pool.stats().reserved, pool.regions()), (0, vec![]));
}

#[test]
fn statistics_and_regions_agree() {
    let pool = pool(64 * MIB);
    pool.prepare(65536, 40).unwrap();
    assert_eq!(pool.stats().in_use, 0);
    let reserved = pool.stats().reserved;
    assert_eq!(reserved, 4 * MIB);
    let bufs: Vec<_> = (0..40).map(|_| pool.alloc(65536).unwrap()).collect();
    let stats = pool.stats();
    assert_eq!((stats.in_use, stats.reserved, stats.limit), (40 * 65536, reserved, 64 * MIB));
    assert_eq!(stats.huge_1g + stats.huge_2m + stats.locked + stats.unlocked, stats.reserved);
    for buf in &bufs {
        let home = pool.regions().into_iter().find(|r| (r.addr..r.addr + r.len).contains(&buf.addr())).unwrap();
        assert_eq!(home.backing, buf.backing());
    }
    assert!(format!("{pool:?}").contains("in use"));
}

#[test]
fn buffers_outlive_their_pool() {
    let pool = BufPool::heap();
    let (mut small, mut large) = (pool.alloc(10).unwrap(), pool.alloc(4 * MIB).unwrap());
    drop(pool);
    small.fill(1);
    large.fill(2);
    let (front, back) = small.split(5);
    drop(front);
    assert_eq!((back[0], large[4 * MIB - 1]), (1, 2));
}

#[test]
fn parts_return_their_block_once() {
    let pool = pool(4096);
    let (front, back) = pool.alloc(4000).unwrap().split(1000);
    drop(back);
    assert!(exhausted(pool.alloc(1)));
    drop(front);
    let again = pool.alloc(4000).unwrap();
    assert!(exhausted(pool.alloc(1)));
    drop(again);
}

#[test]
fn a_part_counts_in_the_whole_and_stops_at_its_own_limit() {
    let pool = pool(64 << 10);
    let part = pool.part(32 << 10);
    let small = part.part(8 << 10);
    let held = [small.alloc(3000).unwrap(), small.alloc(4096).unwrap()];
    let error = small.alloc(1).unwrap_err();
    assert_eq!(error, AllocError::Exhausted { limit: 8 << 10, in_use: 8 << 10, wanted: 1024 });
    assert_eq!((small.in_use(), part.in_use(), pool.in_use()), (8 << 10, 8 << 10, 8 << 10));
    // The limit may be that of any part above; nothing is then counted anywhere.
    let other = pool.alloc(32 << 10).unwrap();
    let rest = part.alloc(16 << 10).unwrap();
    assert!(exhausted(part.alloc(16 << 10)));
    let wide = pool.part(usize::MAX);
    assert!(exhausted(wide.alloc(16 << 10)) && wide.in_use() == 0);
    assert_eq!((part.in_use(), pool.stats().in_use), (24 << 10, 56 << 10));
    assert!(part.is_shared() && !wide.is_shared());
    // Buffers return to the pool without the handle, from any thread, and in parts.
    drop((small, part.clone()));
    let [a, b] = held;
    let (front, back) = a.split(10);
    std::thread::spawn(move || drop((front, b))).join().unwrap();
    assert_eq!(part.in_use(), 20 << 10);
    drop((back, rest));
    assert_eq!((part.in_use(), pool.in_use()), (0, 32 << 10));
    drop(other);
    assert!(!part.is_shared() && pool.in_use() == 0);
}

#[test]
fn required_hugepages_are_huge_or_an_error() {
    let config = PoolConfig { limit_bytes: 2 * MIB, hugepages: Hugepages::Require, numa_node: Some(0) };
    match BufPool::new(config) {
        Ok(pool) => assert!(pool.regions().iter().all(|r| r.page_size >= 2 * MIB)),
        Err(error) => assert!(matches!(error, AllocError::NoHugepages { .. }), "{error}"),
    }
}

#[test]
fn drop_storm_from_other_threads() {
    let rounds = if cfg!(miri) { 20 } else { 3000 };
    let pool = pool(4 * MIB);
    std::thread::scope(|scope| {
        for thread in 0..3u8 {
            let (tx, rx) = mpsc::channel::<PinnedBuf>();
            let pool = &pool;
            scope.spawn(move || {
                for round in 0..rounds {
                    let len = 1 << (12 + (round + usize::from(thread)) % 5);
                    let mut buf = loop {
                        match pool.alloc(len) {
                            Ok(buf) => break buf,
                            Err(AllocError::Exhausted { .. }) => std::thread::yield_now(),
                            Err(error) => panic!("{error}"),
                        }
                    };
                    buf[0] = thread;
                    buf[len - 1] = thread;
                    tx.send(buf).unwrap();
                }
            });
            scope.spawn(move || {
                for buf in rx {
                    assert_eq!((buf[0], buf[buf.len() - 1]), (thread, thread));
                }
            });
        }
    });
    assert_eq!(pool.stats().in_use, 0);
    pool.trim();
    assert_eq!(pool.stats().reserved, 0, "every block came back exactly once");
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 3 } else { 64 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// No two buffers overlap, contents stay, the limit holds, and at the end all memory is free again.
    #[test]
    fn memory_is_never_handed_out_twice(steps in proptest::collection::vec((any::<bool>(), 0usize..1 << 22, any::<u16>()), 1..200)) {
        let limit = 16 * MIB;
        let pool = pool(limit);
        let mut held: Vec<(PinnedBuf, u8)> = Vec::new();
        for (n, (take, len, pick)) in steps.into_iter().enumerate() {
            if take {
                // Small lengths as often as large ones.
                let len = (len >> (pick % 22)).max(1);
                match pool.alloc(len) {
                    Ok(mut buf) => {
                        let mark = n as u8;
                        (buf[0], buf[len - 1]) = (mark, mark);
                        held.push((buf, mark));
                    }
                    Err(AllocError::Exhausted { .. }) => prop_assert!(!held.is_empty()),
                    Err(error) => return Err(TestCaseError::fail(error.to_string())),
                }
            } else if !held.is_empty() {
                let (buf, mark) = held.swap_remove(usize::from(pick) % held.len());
                prop_assert_eq!((buf[0], buf[buf.len() - 1]), (mark, mark));
                if pick % 3 == 0 && buf.len() > 1 {
                    let at = buf.len() / 2;
                    let (front, back) = buf.split(at);
                    held.extend([(front, mark), (back, mark)].into_iter().map(|(mut b, m)| { b.fill(m); (b, m) }));
                }
            }
            let mut spans: Vec<_> = held.iter().map(|(b, _)| (b.addr(), b.addr() + b.capacity())).collect();
            spans.sort_unstable();
            prop_assert!(spans.windows(2).all(|w| w[0].1 <= w[1].0), "overlap");
            let stats = pool.stats();
            prop_assert!(stats.in_use <= limit && stats.reserved <= limit);
        }
        drop(held);
        prop_assert_eq!(pool.stats().in_use, 0);
        drop(pool.alloc(limit).unwrap());
        pool.trim();
        prop_assert_eq!(pool.stats().reserved, 0);
    }
}

#[test]
fn kept_regions_stay_mapped() {
    let pool = BufPool::new(PoolConfig { limit_bytes: 64 << 20, ..PoolConfig::default() }).unwrap();
    pool.prepare(4 << 20, 2).unwrap();
    let kept = pool.keep_regions();
    let before = pool.stats().reserved;
    assert!(before >= 8 << 20 && kept.regions().iter().map(|r| r.len).sum::<usize>() == before);
    pool.trim();
    assert_eq!(pool.stats().reserved, before);
    drop(kept);
    pool.trim();
    assert_eq!(pool.stats().reserved, 0);
}
