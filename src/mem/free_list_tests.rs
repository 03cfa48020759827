//! Tests of the free list on real threads; those with a model checker are in `tests/free_list_model.rs`.

use std::sync::atomic::{AtomicU8, Ordering};

use super::free_list::FreeList;
use super::slots::Slots;

#[test]
fn last_in_first_out() {
    let (slots, list) = (Slots::default(), FreeList::default());
    assert_eq!(list.pop(&slots), None);
    for id in [3, 0, 100] {
        list.push(&slots, id);
    }
    assert_eq!([list.pop(&slots), list.pop(&slots)], [Some(100), Some(0)]);
    list.push(&slots, 100);
    assert_eq!([list.pop(&slots), list.pop(&slots), list.pop(&slots)], [Some(100), Some(3), None]);
}

#[test]
fn threads_never_own_the_same_slot() {
    const COUNT: u32 = 8;
    let rounds = if cfg!(miri) { 50 } else { 20_000 };
    let (slots, list) = (Slots::default(), FreeList::default());
    let owned: Vec<AtomicU8> = (0..COUNT).map(|_| AtomicU8::new(0)).collect();
    (0..COUNT).for_each(|id| list.push(&slots, id));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..rounds {
                    let held: Vec<_> = std::iter::from_fn(|| list.pop(&slots)).take(3).collect();
                    for id in held {
                        assert_eq!(owned[id as usize].fetch_add(1, Ordering::Relaxed), 0, "slot {id}");
                        owned[id as usize].fetch_sub(1, Ordering::Relaxed);
                        list.push(&slots, id);
                    }
                }
            });
        }
    });
    let mut left: Vec<_> = std::iter::from_fn(|| list.pop(&slots)).collect();
    left.sort();
    assert_eq!(left, (0..COUNT).collect::<Vec<_>>());
}
