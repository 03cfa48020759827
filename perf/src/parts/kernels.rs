//! The bare AEAD, with packets and destinations as at a receiver: the upper limit of throughput.

use std::hint::black_box;

use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use gannet::crypto::{PacketKey, Suite, TAG_LEN, header_key, packet_key};
use gannet::mem::PinnedBuf;

use crate::Failure;
use crate::cpu;
use crate::lab::world;

/// The size of a short header: first byte, connection ID, packet number.
const HEADER: usize = 20;

/// The overhead of a packet besides data and tag, in bytes: IPv4, UDP, short header and STREAM frame header.
const OVERHEAD: usize = 28 + HEADER + 12;

const KEY: [u8; 16] = [7; 16];
const IV: [u8; 12] = [3; 12];

/// Sealed packets, and their destination.
pub struct Bench {
    key: PacketKey,
    peer: LessSafeKey,
    /// Sealed packets, never modified.
    master: PinnedBuf,
    /// The working copy.
    packets: PinnedBuf,
    target: PinnedBuf,
    at: usize,
    packet: usize,
    stride: usize,
    count: usize,
}

/// Nanoseconds per packet of each kernel.
#[derive(Clone, Copy, Debug, Default)]
pub struct Times {
    /// Verify, then decrypt to the destination.
    pub direct: f64,
    /// Verify only.
    pub verify: f64,
    /// Decrypt in place with aws-lc-rs, then copy to the destination.
    pub copy: f64,
    /// Encrypt from a source into the packet, and write the tag.
    pub seal: f64,
    /// Compute a header protection mask.
    pub mask: f64,
    /// Copy to the destination.
    pub memcpy: f64,
}

impl Bench {
    /// Creates packets that fill an MTU, and a destination of `span` bytes.
    ///
    /// # Errors
    /// If there is no memory.
    pub fn new(mtu: u16, span: usize) -> Result<Self, Failure> {
        let count = (3 << 19) / usize::from(mtu);
        let packet = usize::from(mtu) - OVERHEAD + HEADER + TAG_LEN;
        let stride = packet.next_multiple_of(64) + 128;
        let bytes = stride * count;
        let pool = world::pool(2 * bytes.next_power_of_two() + span.next_power_of_two() + (8 << 20))?;
        let key = packet_key(Suite::Aes128Gcm, &KEY, &IV);
        let mut master = pool.alloc(bytes)?;
        for (pn, slot) in master.chunks_exact_mut(stride).enumerate() {
            slot.fill(pn as u8);
            let mut sealer = key.seal(pn as u64, &mut slot[..packet], HEADER);
            sealer.in_place(packet - HEADER - TAG_LEN);
            sealer.finish();
        }
        let mut target = pool.alloc(span)?;
        target.fill(1);
        let peer = UnboundKey::new(&AES_128_GCM, &KEY).map_err(|_| "aws-lc-rs refuses a key")?;
        let packets = pool.alloc(bytes)?;
        Ok(Self { key, peer: LessSafeKey::new(peer), master, packets, target, at: 0, packet, stride, count })
    }

    /// The plaintext size of a packet in bytes.
    fn data(&self) -> usize {
        self.packet - HEADER - TAG_LEN
    }

    /// Runs `kernel` on all packets `rounds` times; returns ns per packet. It gets key material, packet number, packet
    /// and destination, which cycles through the first `span` bytes of the target.
    fn time(
        &mut self,
        rounds: usize,
        span: usize,
        mut kernel: impl FnMut(&PacketKey, &LessSafeKey, u64, &mut [u8], &mut [u8]),
    ) -> f64 {
        let data = self.data();
        let mut spent = 0;
        for _ in 0..rounds {
            self.packets.copy_from_slice(&self.master);
            let start = cpu::time();
            for (pn, slot) in self.packets.chunks_exact_mut(self.stride).enumerate() {
                if self.at + data > span {
                    self.at = 0;
                }
                let target = &mut self.target[self.at..self.at + data];
                self.at += data;
                kernel(&self.key, &self.peer, pn as u64, &mut slot[..self.packet], target);
            }
            spent += cpu::time().saturating_sub(start).as_nanos();
        }
        spent as f64 / (rounds * self.count) as f64
    }

    /// Seals every packet, as a sender does, and opens it to its destination, as its receiver does. Returns the number of
    /// packets.
    pub fn round(&mut self) -> u64 {
        let (data, span) = (self.data(), self.target.len());
        let sources = self.master.chunks_exact(self.stride);
        for (pn, (slot, source)) in self.packets.chunks_exact_mut(self.stride).zip(sources).enumerate() {
            let mut sealer = self.key.seal(pn as u64, &mut slot[..self.packet], HEADER);
            sealer.copy_from(&source[..data]);
            black_box(sealer.finish());
        }
        let mut head = [0; _];
        for (pn, slot) in self.packets.chunks_exact_mut(self.stride).enumerate() {
            if self.at + data > span {
                self.at = 0;
            }
            let target = &mut self.target[self.at..self.at + data];
            self.at += data;
            let (aad, body) = slot[..self.packet].split_at_mut(HEADER);
            self.key.open(pn as u64, aad, body, &mut head).expect("sealed with the same key").decrypt_at(0, target);
        }
        self.count as u64
    }

    /// Runs every kernel for about `bytes` of data.
    pub fn run(&mut self, bytes: usize) -> Times {
        let rounds = (bytes / (self.data() * self.count)).max(1);
        let header = header_key(Suite::Aes128Gcm, &KEY);
        let span = self.target.len();
        let mut head = [0; _];
        let verify = self.time(rounds, span, |key, _, pn, packet, _| {
            let (aad, body) = packet.split_at_mut(HEADER);
            black_box(key.open(pn, aad, body, &mut head).is_ok());
        });
        let direct = self.time(rounds, span, |key, _, pn, packet, target| {
            let (aad, body) = packet.split_at_mut(HEADER);
            key.open(pn, aad, body, &mut head).expect("sealed with the same key").decrypt_at(0, target);
        });
        let copy = self.time(rounds, span, |_, peer, pn, packet, target| {
            let (aad, body) = packet.split_at_mut(HEADER);
            let plain = peer.open_in_place(nonce(pn), Aad::from(&*aad), body).expect("sealed with the same key");
            target.copy_from_slice(plain);
        });
        // Senders send from a block in the cache.
        let seal = self.time(rounds, span.min(1 << 20), |key, _, pn, packet, source| {
            let mut sealer = key.seal(pn, packet, HEADER);
            sealer.copy_from(source);
            black_box(sealer.finish());
        });
        let mask = self.time(rounds, span, |_, _, _, packet, _| {
            let sample = packet[HEADER..].first_chunk().expect("long enough");
            black_box(header.mask(sample));
        });
        let memcpy = self.time(rounds, span, |_, _, _, packet, target| {
            target.copy_from_slice(&packet[HEADER..HEADER + target.len()])
        });
        Times { direct, verify, copy, seal, mask, memcpy }
    }
}

/// RFC 9001 §5.3.
fn nonce(pn: u64) -> Nonce {
    let mut nonce = IV;
    for (byte, pn) in nonce[4..].iter_mut().zip(pn.to_be_bytes()) {
        *byte ^= pn;
    }
    Nonce::assume_unique_for_key(nonce)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_kernels_agree_on_the_plaintext() {
        let mut bench = Bench::new(1500, 8 << 20).unwrap();
        let data = bench.data();
        assert_eq!(data, 1500 - OVERHEAD);
        // Both check the tag; the peer's nonce is the same, or its expect would fail.
        let times = bench.run(1);
        assert!(times.direct > 0.0 && times.copy > 0.0 && times.seal > 0.0 && times.mask > 0.0);
        let mut out = vec![0; data];
        let slot = &mut bench.master[5 * bench.stride..][..bench.packet];
        let (aad, body) = slot.split_at_mut(HEADER);
        bench.key.open(5, aad, body, &mut [0; _]).unwrap().decrypt_at(0, &mut out);
        assert!(out.iter().all(|b| *b == 5));
    }

    #[test]
    fn a_round_moves_the_source_to_the_destination() {
        let mut bench = Bench::new(1500, 8 << 20).unwrap();
        let data = bench.data();
        assert_eq!(bench.round(), bench.count as u64);
        assert_eq!(bench.at, bench.count * data);
        let sources = bench.master.chunks_exact(bench.stride);
        assert!(bench.target[..bench.at].chunks(data).zip(sources).all(|(packet, source)| packet == &source[..data]));
    }
}
