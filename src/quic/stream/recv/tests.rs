use super::*;
use crate::mem::BufPool;

fn provided(sizes: &[usize]) -> RecvStream {
    let mut s = RecvStream::new(0);
    assert!(s.make_provided());
    for n in sizes {
        s.provide(PinnedBuf::unpinned(*n));
    }
    let limit = s.credit_due().unwrap();
    s.credit_sent(limit);
    s
}

fn put(s: &mut RecvStream, range: Range<u64>, fin: bool, value: u8) -> Result<u64, TransportError> {
    s.accept(&mut range.clone(), fin)?;
    let mut written = 0;
    let placed = s.place(range, &BufPool::heap(), &mut Gaps::default(), |_, memory| {
        memory.fill(value);
        written += memory.len() as u64;
    });
    assert_eq!(placed, Ok(()));
    Ok(written)
}

#[test]
fn window_follows_provided_space() {
    let mut s = provided(&[10, 5]);
    assert_eq!(s.announced, 15 + AHEAD);
    assert_eq!(put(&mut s, 0..17, false, 1), Err(TransportError::FLOW_CONTROL_ERROR));
    assert_eq!(put(&mut s, 0..15, false, 1), Ok(15));
    assert_eq!(s.take_low(4, 4), Some((0, 4)));
    assert_eq!(s.take_low(4, 4), None);
    s.provide(PinnedBuf::unpinned(1));
    assert_eq!(s.credit_due(), Some(16 + AHEAD));
    assert_eq!(s.take_low(4, 4), None, "the peer has used none of it");
    s.credit_sent(16 + AHEAD);
    assert_eq!(put(&mut s, 15..16, false, 1), Ok(1));
    assert_eq!(s.take_low(4, 4), Some((0, 4)));
}

#[test]
fn low_space_is_told_once_for_each_reason() {
    let mut s = provided(&[10]);
    assert_eq!(s.take_low(10, 10), None);
    put(&mut s, 0..5, false, 1).unwrap();
    assert_eq!(s.take_low(10, 10), None, "half of it is there");
    put(&mut s, 5..6, false, 1).unwrap();
    assert_eq!((s.take_low(10, 10), s.take_low(10, 10)), (Some((4, 6)), None));
    put(&mut s, 6..7, false, 1).unwrap();
    assert_eq!(s.take_low(10, 10), None, "nothing was provided since");
    s.peer_blocked(5);
    assert_eq!(s.take_low(10, 10), None, "there is space that is not announced yet");
    s.peer_blocked(10);
    assert_eq!((s.take_low(10, 10), s.credit_due()), (None, Some(11)), "nor is all of it announced now");
    s.peer_blocked(11);
    assert_eq!((s.take_low(10, 10), s.take_low(10, 10)), (Some((3, 7)), None));
    s.provide(PinnedBuf::unpinned(100));
    assert_eq!(s.take_low(10, 10), None);
    s.credit_sent(111);
    put(&mut s, 50..101, false, 1).unwrap();
    assert_eq!(s.take_low(10, 10), Some((9, 1)), "it was enough in between");
    s.peer_blocked(111);
    assert_eq!((s.take_low(0, 0), s.take_low(0, 0)), (Some((9, 1)), None), "blocked counts whatever the mark");
    put(&mut s, 101..105, true, 1).unwrap();
    s.peer_blocked(111);
    assert_eq!(s.take_low(10, 10), None, "the end is known");
}

#[test]
fn buffers_of_exactly_the_right_size_leave_credit_for_the_end() {
    let mut s = provided(&[10]);
    put(&mut s, 0..10, false, 1).unwrap();
    assert!(s.announced > s.high, "a peer that asks for more only with credit has some");
    put(&mut s, 10..10, true, 1).unwrap();
    assert!(s.is_complete() && s.take_low(100, 100).is_none());
    // The same if exactly as much was promised before.
    let mut s = RecvStream::new(10);
    assert!(s.make_provided());
    s.provide(PinnedBuf::unpinned(10));
    put(&mut s, 0..4, false, 1).unwrap();
    assert!(!s.note_credit(), "no frame for what is short");
    put(&mut s, 4..6, false, 1).unwrap();
    assert!(s.note_credit());
    assert_eq!(s.credit_due(), Some(11));
    s.credit_sent(11);
    put(&mut s, 6..10, false, 1).unwrap();
    assert!(!s.note_credit() && !s.is_complete());
}

#[test]
fn a_byte_too_many_waits_for_a_buffer() {
    for fin in [false, true] {
        let mut s = provided(&[10]);
        assert_eq!(put(&mut s, 5..11, fin, 1), Ok(6));
        assert_eq!(s.take_low(0, 0), Some((0, 1)), "the peer has more");
        assert_eq!(put(&mut s, 0..11, fin, 2), Ok(5));
        assert_eq!((s.contiguous(), s.is_complete()), (10, false));
        assert_eq!(s.pop_filled().unwrap().1[..], [2, 2, 2, 2, 2, 1, 1, 1, 1, 1]);
        assert_eq!(s.take_low(0, 0), None, "once");
        s.provide(PinnedBuf::unpinned(2));
        assert_eq!((s.contiguous(), s.is_complete()), (11, fin));
        assert_eq!(put(&mut s, 10..11, fin, 3), Ok(0), "it is not written again");
        let (at, buf, valid) = s.pop_any().unwrap();
        assert_eq!((at, &buf[..], valid), (10, &[1, 0][..], 1));
    }
}

#[test]
fn an_end_beyond_what_was_provided_is_told() {
    // 10 were promised and 4 provided; all 8 arrived at once and found no room.
    let mut s = RecvStream::new(10);
    assert!(s.make_provided());
    s.provide(PinnedBuf::unpinned(4));
    s.accept(&mut (0..8), true).unwrap();
    assert_eq!(s.place(0..8, &BufPool::heap(), &mut Gaps::default(), |_, _| panic!("no space")), Err(NoMemory));
    s.space_missing();
    assert_eq!((s.take_low(0, 0), s.take_low(0, 0)), (Some((0, 4)), None));
}

/// At 1 Gbit/s and 200 ms, a burst that overshoots by its own size: the receiver must keep what arrives, or all of it
/// has to be retransmitted.
#[test]
fn one_overshoot_leaves_as_many_gaps_as_it_likes() {
    const PACKET: u64 = 1000;
    const GAPS: u64 = 25_148;
    let mut s = RecvStream::new(1 << 40);
    s.placement = Placement::Discard;
    let (pool, mut gaps) = (BufPool::heap(), Gaps::default());
    for n in 1..=GAPS {
        let range = 2 * n * PACKET..(2 * n + 1) * PACKET;
        assert_eq!(s.place(range, &pool, &mut gaps, |_, _| {}), Ok(()), "packet {n}");
    }
    assert!(gaps.used() <= 5 << 18, "{} bytes", gaps.used());
    for n in 0..=GAPS {
        s.place(2 * n * PACKET..(2 * n + 2) * PACKET, &pool, &mut gaps, |_, _| {}).unwrap();
        assert_eq!(s.contiguous(), ((2 * n + 3) * PACKET).min((2 * GAPS + 2) * PACKET));
    }
    assert!(gaps.used() <= 2 << 10, "{} bytes", gaps.used());
}

#[test]
fn with_no_memory_for_gaps_only_what_makes_none_gets_in() {
    let mut s = RecvStream::new(1 << 20);
    let (pool, mut gaps) = (BufPool::heap(), Gaps::default());
    let mut put = |s: &mut RecvStream, range: Range<u64>| s.place(range, &pool, &mut gaps, |_, _| {});
    let limit = 2 * (1..).take_while(|n| put(&mut s, 2 * n..2 * n + 1).is_ok()).last().unwrap();
    assert_eq!(put(&mut s, limit + 3..limit + 4), Err(NoMemory));
    assert_eq!(put(&mut s, limit + 2..limit + 4), Err(NoMemory));
    put(&mut s, 0..1).unwrap();
    assert_eq!(s.contiguous(), 1, "the next bytes are always accepted");
    for at in [limit + 1, limit - 1, limit - 3] {
        put(&mut s, at..at + 1).unwrap();
    }
    put(&mut s, 1..limit).unwrap();
    assert_eq!(s.contiguous(), limit + 2);
}

#[test]
fn what_was_promised_but_not_provided_has_to_wait() {
    let mut s = RecvStream::new(10);
    assert!(s.make_provided());
    s.provide(PinnedBuf::unpinned(4));
    s.accept(&mut (0..8), false).unwrap();
    assert_eq!(s.place(0..8, &BufPool::heap(), &mut Gaps::default(), |_, _| panic!("no space")), Err(NoMemory));
    assert_eq!((s.contiguous(), s.take_low(2, 2)), (0, Some((0, 6))));
    s.provide(PinnedBuf::unpinned(6));
    assert_eq!(s.credit_due(), None, "the peer knows");
    assert_eq!(put(&mut s, 0..8, false, 1), Ok(8));
}

#[test]
fn overlaps_never_rewrite_a_byte() {
    let mut s = provided(&[20]);
    assert_eq!(put(&mut s, 4..8, false, 1), Ok(4));
    assert_eq!(put(&mut s, 2..10, false, 2), Ok(4));
    assert_eq!(put(&mut s, 0..20, true, 3), Ok(12));
    assert!(s.is_complete());
    let (_, buf) = s.pop_filled().unwrap();
    assert_eq!(&buf[..], [3, 3, 2, 2, 1, 1, 1, 1, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3]);
}

#[test]
fn final_size_never_changes() {
    let mut s = provided(&[20]);
    put(&mut s, 0..10, true, 1).unwrap();
    assert_eq!(put(&mut s, 0..11, false, 1), Err(TransportError::FINAL_SIZE_ERROR));
    assert_eq!(put(&mut s, 0..9, true, 1), Err(TransportError::FINAL_SIZE_ERROR));
    assert_eq!(s.reset(11), Err(TransportError::FINAL_SIZE_ERROR));
    assert_eq!(s.reset(10), Ok(0));
    let mut t = provided(&[20]);
    put(&mut t, 5..10, false, 1).unwrap();
    assert_eq!(put(&mut t, 0..9, true, 1), Err(TransportError::FINAL_SIZE_ERROR));
    assert_eq!(t.reset(9), Err(TransportError::FINAL_SIZE_ERROR));
    assert_eq!(t.reset(12), Ok(2));
}

#[test]
fn unfilled_buffers_come_back_with_their_valid_bytes() {
    let mut s = provided(&[4, 4, 4]);
    put(&mut s, 0..6, false, 1).unwrap();
    put(&mut s, 8..10, false, 1).unwrap();
    let back: Vec<_> = std::iter::from_fn(|| s.pop_any()).map(|(at, _, valid)| (at, valid)).collect();
    assert_eq!(back, [(0, 4), (4, 2), (8, 0)]);
}

#[test]
fn pooled_window_slides_with_consumption() {
    let mut s = RecvStream::new(100);
    put(&mut s, 0..60, false, 7).unwrap();
    assert_eq!(s.peek().len(), 60);
    assert_eq!(s.consume(19), 19);
    assert_eq!(s.credit_due(), None, "40 are left of the 79 that it could have");
    assert_eq!(s.consume(50), 41);
    assert_eq!(s.credit_due(), Some(160));
    put(&mut s, 60..60, true, 7).unwrap();
    assert_eq!(s.credit_due(), None, "nobody needs credit beyond the end (RFC 9000 §13.3)");
    s.credit_lost();
    s.peer_blocked(0);
    assert!(s.credit_due().is_none() && !s.note_credit() && !s.has_due());
    assert!(s.is_complete());
    assert_eq!(s.consume(0), 0);
    assert!(s.is_done());
}

#[test]
fn provided_is_refused_once_pooled_data_is_there() {
    let mut s = RecvStream::new(100);
    put(&mut s, 0..1, false, 7).unwrap();
    assert!(!s.make_provided());
}

/// Takes the next chunk: its range, its end mark, and whether all of its bytes are `value`.
fn take(s: &mut RecvStream, value: u8) -> Option<(Range<u64>, bool, bool)> {
    s.take().map(|c| (c.range(), c.is_last(), c.iter().all(|b| *b == value)))
}

use crate::quic::stream::placement::CHUNK;

#[test]
fn lends_full_chunks_whole_and_the_filled_part_of_others() {
    let mut s = RecvStream::new(10 * CHUNK);
    let pool = BufPool::heap();
    s.accept(&mut (0..2 * CHUNK + 7), false).unwrap();
    s.place(0..2 * CHUNK + 7, &pool, &mut Gaps::default(), |_, memory| memory.fill(9)).unwrap();
    let chunks: Vec<_> = std::iter::from_fn(|| s.take()).collect();
    let ranges: Vec<_> = chunks.iter().map(Chunk::range).collect();
    assert_eq!(ranges, [0..CHUNK, CHUNK..2 * CHUNK, 2 * CHUNK..2 * CHUNK + 7]);
    assert!(chunks.iter().flat_map(|c| c.iter()).all(|b| *b == 9));
    assert_eq!(s.consumed(), 2 * CHUNK + 7);
    assert_eq!(pool.in_use(), 2 * CHUNK as usize + 1024, "a chunk for 7 bytes is a small one");
    drop(chunks);
    assert_eq!(pool.in_use(), 0, "a stream that was read holds nothing");
}

#[test]
fn bytes_out_of_order_around_a_lent_part() {
    let mut s = RecvStream::new(10 * CHUNK);
    put(&mut s, 0..10, false, 1).unwrap();
    put(&mut s, 20..30, false, 3).unwrap();
    let first = s.take().unwrap();
    assert_eq!((first.range(), first.is_last()), (0..10, false));
    assert_eq!(take(&mut s, 0), None, "there is a gap");
    put(&mut s, CHUNK - 5..CHUNK + 5, false, 4).unwrap();
    assert_eq!(put(&mut s, 5..22, false, 2), Ok(10), "present bytes are not written again");
    assert_eq!(s.peek().len(), 20);
    assert_eq!(s.consume(5), 5);
    let second = s.take().unwrap();
    assert_eq!((second.range(), second.is_last()), (15..30, false));
    assert_eq!(second[..], [2, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3]);
    put(&mut s, 30..CHUNK + 5, true, 4).unwrap();
    assert_eq!(take(&mut s, 4), Some((30..1024, false, true)));
    assert_eq!(take(&mut s, 4), Some((1024..CHUNK - 5, false, true)));
    assert_eq!(take(&mut s, 4), Some((CHUNK - 5..CHUNK + 5, true, true)));
    assert_eq!((first[..].to_vec(), s.is_done()), (vec![1; 10], true));
}

#[test]
fn the_end_is_told_once() {
    let pool = BufPool::heap();
    let mut s = RecvStream::new(100);
    put(&mut s, 0..10, false, 1).unwrap();
    assert_eq!(take(&mut s, 1), Some((0..10, false, true)));
    assert_eq!(take(&mut s, 1), None);
    put(&mut s, 10..10, true, 1).unwrap();
    assert_eq!(take(&mut s, 1), Some((10..10, true, true)));
    assert_eq!((take(&mut s, 1), s.is_done()), (None, true));

    let mut s = RecvStream::new(100);
    s.accept(&mut (0..10), true).unwrap();
    s.place(0..10, &pool, &mut Gaps::default(), |_, memory| memory.fill(1)).unwrap();
    let chunk = s.take().unwrap();
    assert_eq!((chunk.range(), chunk.is_last(), s.take().is_none()), (0..10, true, true));
    drop(s);
    assert_eq!(pool.stats().in_use, 1024);
    drop(chunk);
    assert_eq!(pool.stats().in_use, 0);
}

#[test]
fn credit_returns_with_taking() {
    let mut s = RecvStream::new(100);
    put(&mut s, 0..60, false, 1).unwrap();
    let kept = s.take().unwrap();
    assert_eq!((kept.len(), s.credit_due()), (60, Some(160)));
}

#[test]
fn a_reset_voids_what_was_not_taken_only() {
    let pool = BufPool::heap();
    let mut s = RecvStream::new(10 * CHUNK);
    s.accept(&mut (0..30), false).unwrap();
    s.place(0..20, &pool, &mut Gaps::default(), |_, memory| memory.fill(1)).unwrap();
    let kept = s.take().unwrap();
    s.place(20..30, &pool, &mut Gaps::default(), |_, memory| memory.fill(2)).unwrap();
    s.reset(30).unwrap();
    s.mark_reset();
    assert_eq!((take(&mut s, 2), s.consume(5)), (None, 0));
    assert_eq!(kept[..], [1; 20]);
    drop(kept);
    assert_eq!(pool.stats().in_use, 0);
}

#[test]
fn nothing_is_lent_from_provided_buffers() {
    let mut s = provided(&[10]);
    put(&mut s, 0..10, true, 1).unwrap();
    assert!(s.take().is_none());
}

proptest::proptest! {
    /// In whatever order data arrives, and whether it is taken or consumed: every byte comes once and in place, and all
    /// memory is returned.
    #[test]
    fn every_byte_is_lent_once(
        frames in proptest::collection::vec((0..3 * CHUNK, 1..CHUNK), 1..40),
        steps in proptest::collection::vec(0u8..4, 40),
        keep in proptest::bool::ANY,
    ) {
        let size = 3 * CHUNK + 17;
        let pool = BufPool::heap();
        let mut s = RecvStream::new(10 * CHUNK);
        let value = |at: u64| (at ^ at >> 8 ^ at >> 16) as u8;
        let mut kept = Vec::new();
        let mut at = 0;
        let whole = (0, size);
        for ((start, len), step) in frames.into_iter().zip(steps).chain([(whole, 0)]) {
            let range = start..(start + len).min(size);
            s.accept(&mut range.clone(), range.end == size).unwrap();
            s.place(range, &pool, &mut Gaps::default(), |from, memory| {
                (from..).zip(memory).for_each(|(at, b)| *b = value(at));
            }).unwrap();
            if step == 1 {
                let n = s.peek().len().div_ceil(2);
                at += s.consume(n as u64);
            }
            while step != 3 && let Some(chunk) = s.take() {
                proptest::prop_assert_eq!(chunk.offset(), at);
                at += chunk.len() as u64;
                proptest::prop_assert_eq!(chunk.is_last(), at == size);
                kept.extend(keep.then_some(chunk));
            }
        }
        proptest::prop_assert!(at == size && s.is_done());
        for chunk in kept.drain(..) {
            proptest::prop_assert!((chunk.offset()..).zip(&chunk[..]).all(|(at, b)| *b == value(at)));
        }
        drop(s);
        proptest::prop_assert_eq!(pool.stats().in_use, 0);
    }
}

#[test]
fn a_window_grows_once_the_stream_is_read() {
    let mut s = RecvStream::new(100);
    put(&mut s, 0..60, false, 7).unwrap();
    s.slide(1000);
    assert!(!s.note_credit(), "nothing was read");
    assert_eq!(s.consume(60), 60);
    s.slide(1000);
    assert_eq!((s.note_credit(), s.credit_due()), (true, Some(1060)));
    s.credit_sent(1060);
    // A smaller window takes nothing back, and is never less than the initial one.
    s.slide(0);
    assert_eq!((s.note_credit(), s.limit()), (false, 160));
    put(&mut s, 60..1060, false, 7).unwrap();
    assert_eq!(s.consume(900), 900);
    assert_eq!(s.credit_due(), None, "1060 were promised");
    assert_eq!((s.consume(100), s.credit_due()), (100, Some(1160)));

    let mut none = RecvStream::new(0);
    none.slide(1000);
    assert!(!none.note_credit() && none.limit() == 0, "buffers are to be provided for it");
}
