//! Poly1305 (RFC 8439 §2.5) in constant time, with limbs of 44, 44 and 42 bits and two blocks per reduction.
//!
//! We have our own because the hash of a packet begins with one block of header, after which the vector code of the
//! `poly1305` crate stays on its slow path.

use zeroize::Zeroize;

const MASK44: u64 = (1 << 44) - 1;
const MASK42: u64 = (1 << 42) - 1;

/// A number modulo 2^130 - 5; limbs may be a bit too long.
type Limbs = [u64; 3];

/// A running hash. The key must be different for every packet.
pub(super) struct Poly1305 {
    r: Multiplier,
    /// The square of `r`.
    r2: Multiplier,
    h: Limbs,
    pad: u128,
}

/// A factor, with the values of its upper limbs when they wrap around: 2^132 is 20 modulo 2^130 - 5.
struct Multiplier {
    limbs: Limbs,
    wrapped: [u64; 2],
}

impl Multiplier {
    fn new(limbs: Limbs) -> Self {
        Self { limbs, wrapped: [limbs[1] * 20, limbs[2] * 20] }
    }

    /// The product, without carries.
    #[inline(always)]
    fn times(&self, a: Limbs) -> [u128; 3] {
        let mul = |a: u64, b: u64| u128::from(a) * u128::from(b);
        let ([r0, r1, r2], [s1, s2]) = (self.limbs, self.wrapped);
        [
            mul(a[0], r0) + mul(a[1], s2) + mul(a[2], s1),
            mul(a[0], r1) + mul(a[1], r0) + mul(a[2], s2),
            mul(a[0], r2) + mul(a[1], r1) + mul(a[2], r0),
        ]
    }
}

impl Poly1305 {
    pub(super) fn new(key: &[u8; 32]) -> Self {
        let (r, pad) = key.split_first_chunk::<16>().expect("32 bytes");
        let r = u128::from_le_bytes(*r) & 0x0fff_fffc_0fff_fffc_0fff_fffc_0fff_ffff;
        let r = Multiplier::new(split(r));
        let r2 = Multiplier::new(carry(r.times(r.limbs)));
        Self { r, r2, h: [0; 3], pad: u128::from_le_bytes(*pad.first_chunk().expect("16 bytes are left")) }
    }

    /// Hashes `data`, padded with zeros to whole blocks.
    pub(super) fn update_padded(&mut self, data: &[u8]) {
        let (pairs, rest) = data.as_chunks::<32>();
        for pair in pairs {
            let (first, second) = pair.split_at(16);
            let first = add(self.h, block(first.try_into().expect("half of 32 bytes")));
            let second = block(second.try_into().expect("half of 32 bytes"));
            let (a, b) = (self.r2.times(first), self.r.times(second));
            self.h = carry([a[0] + b[0], a[1] + b[1], a[2] + b[2]]);
        }
        let (blocks, rest) = rest.as_chunks::<16>();
        for block in blocks {
            self.update(block);
        }
        if !rest.is_empty() {
            let mut last = [0; 16];
            last[..rest.len()].copy_from_slice(rest);
            self.update(&last);
        }
    }

    /// Hashes one block.
    pub(super) fn update(&mut self, data: &[u8; 16]) {
        self.h = carry(self.r.times(add(self.h, block(data))));
    }

    /// The tag.
    pub(super) fn finish(&mut self) -> [u8; 16] {
        // Another carry, after which all limbs have their proper length. That includes the second one: the first one
        // overflows into it only if it has just overflowed itself and is short.
        let [h0, h1, h2] = carry(self.h.map(u128::from));
        // h - p, which is the result unless it is negative.
        let g0 = h0 + 5;
        let g1 = h1 + (g0 >> 44);
        let g2 = (h2 + (g1 >> 44)).wrapping_sub(1 << 42);
        let keep = (g2 >> 63).wrapping_neg();
        let pick = |h: u64, g: u64| u128::from((h & keep) | (g & !keep));
        let sum = pick(h0, g0 & MASK44) | (pick(h1, g1 & MASK44) << 44) | (pick(h2, g2) << 88);
        sum.wrapping_add(self.pad).to_le_bytes()
    }
}

impl Drop for Poly1305 {
    fn drop(&mut self) {
        // The square reveals the key too, and so does the sum together with the hashed data.
        for factor in [&mut self.r, &mut self.r2] {
            factor.limbs.zeroize();
            factor.wrapped.zeroize();
        }
        self.h.zeroize();
        self.pad.zeroize();
    }
}

/// 128 bits in limbs.
#[inline(always)]
fn split(n: u128) -> Limbs {
    [n as u64 & MASK44, (n >> 44) as u64 & MASK44, (n >> 88) as u64]
}

/// A whole block, followed by a set bit.
#[inline(always)]
fn block(data: &[u8; 16]) -> Limbs {
    let [a, b, c] = split(u128::from_le_bytes(*data));
    [a, b, c | 1 << 40]
}

#[inline(always)]
fn add(a: Limbs, b: Limbs) -> Limbs {
    [a[0] + b[0], a[1] + b[1], a[2] + b[2]]
}

/// Carries excess bits of limbs on to the next ones. The second limb may remain a bit too long.
#[inline(always)]
fn carry([d0, d1, d2]: [u128; 3]) -> Limbs {
    let d1 = d1 + (d0 >> 44);
    let d2 = d2 + (d1 >> 44);
    let h0 = (d0 as u64 & MASK44) + (d2 >> 42) as u64 * 5;
    [h0 & MASK44, (d1 as u64 & MASK44) + (h0 >> 44), d2 as u64 & MASK42]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::hex::encode;
    use crate::crypto::tests::hex;

    fn tag(key: &str, blocks: &str) -> String {
        let key = hex(key).try_into().unwrap();
        let mut hash = Poly1305::new(&key);
        hash.update_padded(&hex(blocks));
        let whole = encode(&hash.finish());
        // One or two blocks at a time give the same result.
        let mut hash = Poly1305::new(&key);
        hex(blocks).chunks(16).for_each(|block| hash.update_padded(block));
        let single = encode(&hash.finish());
        assert_eq!(whole, single);
        whole
    }

    /// RFC 8439 §A.3, numbers 7 to 11: sums that wrap around.
    #[test]
    fn wraps_around_as_the_rfc_says() {
        let zeros = "00".repeat(16);
        let ones = "ff".repeat(16);
        let r = |first: &str| format!("{first}{}{zeros}", "00".repeat(15));
        assert_eq!(tag(&r("02"), &ones), format!("03{}", "00".repeat(15)));
        assert_eq!(
            tag(&format!("02{}{ones}", "00".repeat(15)), &format!("02{}", "00".repeat(15))),
            format!("03{}", "00".repeat(15))
        );
        let three = format!("{ones}f0{}11{}", "ff".repeat(15), "00".repeat(15));
        assert_eq!(tag(&r("01"), &three), format!("05{}", "00".repeat(15)));
        let zero = format!("{ones}fb{}{}", "fe".repeat(15), "01".repeat(16));
        assert_eq!(tag(&r("01"), &zero), zeros);
        assert_eq!(tag(&r("02"), &format!("fd{}", "ff".repeat(15))), format!("fa{}", "ff".repeat(15)));
        let key = format!("0100000000000000{}{zeros}", "0400000000000000");
        let blocks = "e33594d7505e43b900000000000000003394d7505e4379cd0100000000000000\
                      0000000000000000000000000000000001000000000000000000000000000000";
        assert_eq!(tag(&key, blocks), "14000000000000005500000000000000");
    }
}
