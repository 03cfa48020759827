//! Sums for internet checksums, using the widest registers of the CPU.

/// The sum of `data` as 32-bit words in native byte order, padded with zeros to whole words. To get an internet
/// checksum, it has to be folded (RFC 1071 §2). Up to 16 GiB cannot overflow.
pub fn sum_words(data: &[u8]) -> u64 {
    #[cfg(target_arch = "x86_64")]
    if std::is_x86_feature_detected!("avx2") {
        // SAFETY: the CPU has AVX2.
        return unsafe { wide(data) };
    }
    portable(data)
}

/// Bytes per iteration of the wide loop.
#[cfg(target_arch = "x86_64")]
const TURN: usize = 64;

/// Eight words at once. Written with intrinsics, because the compiler generates scalar code for the same loop in plain
/// Rust.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn wide(data: &[u8]) -> u64 {
    use core::arch::x86_64::{
        __m256i, _mm256_add_epi32, _mm256_and_si256, _mm256_loadu_si256, _mm256_set1_epi32, _mm256_setzero_si256,
        _mm256_srli_epi32, _mm256_storeu_si256,
    };
    let total = |lanes: __m256i| {
        let mut words = [0u32; 8];
        // SAFETY: the array has the size of a register.
        unsafe { _mm256_storeu_si256(words.as_mut_ptr().cast(), lanes) };
        words.iter().map(|word| u64::from(*word)).sum::<u64>()
    };
    let (turns, rest) = data.as_chunks::<TURN>();
    let (zero, lower) = (_mm256_setzero_si256(), _mm256_set1_epi32(0xffff));
    let mut sum = 0;
    // Halves of words are summed in words, which cannot overflow in so many iterations.
    for turns in turns.chunks(1 << 14) {
        let (mut low, mut high) = ([zero; 2], [zero; 2]);
        for turn in turns {
            for i in 0..2 {
                // SAFETY: both halves of a chunk have 32 bytes; any alignment is allowed.
                let words = unsafe { _mm256_loadu_si256(turn.as_ptr().add(32 * i).cast()) };
                low[i] = _mm256_add_epi32(low[i], _mm256_and_si256(words, lower));
                high[i] = _mm256_add_epi32(high[i], _mm256_srli_epi32::<16>(words));
            }
        }
        sum += total(low[0]) + total(low[1]) + ((total(high[0]) + total(high[1])) << 16);
    }
    sum + portable(rest)
}

fn portable(data: &[u8]) -> u64 {
    let (words, odd) = data.as_chunks::<4>();
    let mut last = [0; 4];
    last[..odd.len()].copy_from_slice(odd);
    words.iter().chain([&last]).map(|word| u64::from(u32::from_ne_bytes(*word))).sum()
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
