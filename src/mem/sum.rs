//! Sums over memory, for internet checksums, with the widest registers that the CPU has.

/// The sum of `data`, taken as 32-bit words in the machine's byte order and padded with zeros to whole words. For an
/// internet checksum it only has to be folded (RFC 1071 §2). Up to 16 GiB do not overflow.
pub fn sum_words(data: &[u8]) -> u64 {
    #[cfg(target_arch = "x86_64")]
    if std::is_x86_feature_detected!("avx2") {
        // SAFETY: the CPU has AVX2.
        return unsafe { wide(data) };
    }
    portable(data)
}

/// The loop below, where the compiler may use AVX2 for it.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn wide(data: &[u8]) -> u64 {
    portable(data)
}

/// Chains that do not wait for each other, as many as fill two 256-bit registers.
const LANES: usize = 16;

#[inline(always)]
fn portable(data: &[u8]) -> u64 {
    let (blocks, rest) = data.as_chunks::<{ 4 * LANES }>();
    let mut sum = 0;
    // Upper halves of words apart from the lower ones: 16 bits into 32, which so many blocks do not fill.
    for blocks in blocks.chunks(1 << 15) {
        let (mut low, mut high) = ([0u32; LANES], [0u32; LANES]);
        for block in blocks {
            let words: [u32; LANES] = std::array::from_fn(|i| u32::from_ne_bytes(block.as_chunks::<4>().0[i]));
            for i in 0..LANES {
                low[i] += words[i] & 0xffff;
                high[i] += words[i] >> 16;
            }
        }
        let total = |lanes: [u32; LANES]| lanes.iter().map(|lane| u64::from(*lane)).sum::<u64>();
        sum += total(low) + (total(high) << 16);
    }
    let (words, odd) = rest.as_chunks::<4>();
    sum += words.iter().map(|word| u64::from(u32::from_ne_bytes(*word))).sum::<u64>();
    let mut last = [0; 4];
    last[..odd.len()].copy_from_slice(odd);
    sum + u64::from(u32::from_ne_bytes(last))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn is_the_sum_of_words(data in proptest::collection::vec(any::<u8>(), 0..600)) {
            let mut want = 0;
            for word in data.chunks(4) {
                let mut bytes = [0; 4];
                bytes[..word.len()].copy_from_slice(word);
                want += u64::from(u32::from_ne_bytes(bytes));
            }
            prop_assert_eq!(sum_words(&data), want);
            prop_assert_eq!(portable(&data), want);
        }
    }

    #[test]
    fn does_not_overflow() {
        let data = vec![0xff; 9 << 20];
        assert_eq!(sum_words(&data), u64::from(u32::MAX) * (data.len() as u64 / 4));
    }
}
