//! Memory for a payload that arrives in pieces.

/// Appends `part` to `held`, which is to become `total` bytes long: never room for more, and never much more room than
/// has arrived, whatever length the peer announced.
pub(super) fn append(held: &mut Vec<u8>, part: &[u8], total: usize) {
    let needed = held.len() + part.len();
    if needed > held.capacity() {
        let room = needed.max(held.capacity().saturating_mul(2)).min(total.max(needed));
        held.reserve_exact(room - held.len());
    }
    held.extend_from_slice(part);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_follows_what_arrives() {
        let (mut held, mut moved) = (Vec::new(), 0);
        for n in 1..=10_000 {
            let before = held.capacity();
            append(&mut held, b"x", 10_000);
            moved += usize::from(held.capacity() != before);
            assert!(held.len() == n && held.capacity() <= (2 * n).min(10_000));
        }
        assert!(moved < 20, "{moved} allocations");
    }
}
