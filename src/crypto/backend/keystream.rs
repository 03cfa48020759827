//! Keystreams that begin in the middle of a block.

use aes::cipher::inout::InOutBuf;
use aes::cipher::typenum::Unsigned;
use aes::cipher::{Block, BlockSizeUser, StreamCipherCore};

/// Splits the plaintext offset `from` into the number of the keystream block, counted from `first`, and the number of
/// bytes to skip in it.
pub(super) fn seek<C: BlockSizeUser>(first: u32, from: usize) -> (u32, usize) {
    let size = C::BlockSize::USIZE;
    // A packet has less than 2^16 bytes, so the counter cannot wrap.
    (first.wrapping_add((from / size) as u32), from % size)
}

/// Applies the keystream of `core`, from byte `skip` of its first block on. A partial first block goes through a block
/// on the stack, the rest through the bulk kernel.
#[inline]
pub(super) fn apply<C: StreamCipherCore>(mut core: C, skip: usize, mut data: InOutBuf<'_, '_, u8>) {
    if skip > 0 {
        let mut block = Block::<C>::default();
        core.write_keystream_block(&mut block);
        let stream = &block[skip..];
        let n = stream.len().min(data.len());
        let (mut edge, rest) = data.split_at(n);
        edge.xor_in2out(&stream[..n]);
        data = rest;
    }
    if !data.is_empty() {
        core.apply_keystream_partial(data);
    }
}
