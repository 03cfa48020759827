//! Nonces (RFC 9001 §5.3).

use zeroize::Zeroizing;

/// Length of an IV or nonce in bytes, the same for all suites.
pub(super) const IV_LEN: usize = 12;

/// The secret IV from which nonces are derived.
pub(super) struct Iv(Zeroizing<u128>);

/// The nonce of a packet as a little-endian number. It is computed and used in registers: writing single bytes and
/// loading them as a block would cost more than the encryption of the block.
#[derive(Clone, Copy)]
pub(super) struct Nonce(u128);

impl Iv {
    pub(super) fn new(iv: &[u8; IV_LEN]) -> Self {
        let mut bytes = [0; 16];
        bytes[..IV_LEN].copy_from_slice(iv);
        Self(Zeroizing::new(u128::from_le_bytes(bytes)))
    }

    /// The IV, XORed with the packet number as a big-endian number at its end.
    #[inline]
    pub(super) fn nonce(&self, pn: u64) -> Nonce {
        Nonce(*self.0 ^ (u128::from(pn.swap_bytes()) << 32))
    }
}

impl Nonce {
    /// The nonce followed by a big-endian counter, which is the cipher input of AES-GCM, as a little-endian number.
    #[inline]
    pub(super) fn block(self, counter: u32) -> u128 {
        self.0 | (u128::from(counter.swap_bytes()) << 96)
    }

    #[inline]
    pub(super) fn bytes(self) -> [u8; IV_LEN] {
        *self.0.to_le_bytes().first_chunk().expect("16 bytes")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 9001 §A.5.
    #[test]
    fn nonce_is_that_of_the_rfc() {
        let iv = Iv::new(&[0xe0, 0x45, 0x9b, 0x34, 0x74, 0xbd, 0xd0, 0xe4, 0x4a, 0x41, 0xc1, 0x44]);
        let nonce = iv.nonce(654_360_564);
        assert_eq!(nonce.bytes(), [0xe0, 0x45, 0x9b, 0x34, 0x74, 0xbd, 0xd0, 0xe4, 0x6d, 0x41, 0x7e, 0xb0]);
        assert_eq!(nonce.block(0x0102_0304).to_le_bytes()[12..], [1, 2, 3, 4]);
        assert_eq!(nonce.block(9).to_le_bytes()[..12], nonce.bytes());
    }
}
