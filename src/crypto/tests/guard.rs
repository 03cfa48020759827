//! Checks that kernels access nothing beyond the ends of their arguments: inaccessible pages lie before and after
//! header, body, output and source, for lengths up to 4096 and offsets up to 64, on every backend and every
//! architecture of intel-ipsec-mb.
//!
//! `GANNET_GUARD_STEP=1` tries all lengths, which takes about a minute; by default, all short ones and some long ones
//! are tried.
#![allow(unsafe_code)]

use std::ops::Range;

use super::differential::reference;
use super::traces::place as place_of;
use crate::crypto::backend::Backend;
use crate::crypto::{HEAD_AT, HEAD_LEN, HeaderKey, PacketKey, SAMPLE_LEN, Suite, TAG_LEN};

/// Maximum length of the plaintext.
const MAX: usize = 4096;
/// Maximum offset by which a range begins late or ends early.
const OFFSETS: usize = 64;
/// Up to here, all lengths are always tried: several steps of every kernel.
const SHORT: usize = 150;
/// Step between longer ones.
const STEP: usize = 97;

const PAGE: usize = 4096;
const PAGES: usize = 2;

/// Memory between two inaccessible pages.
struct Guarded {
    start: *mut u8,
}

/// Which end of the memory adjoins such a page.
#[derive(Clone, Copy, Debug)]
enum End {
    Front,
    Back,
}

impl Guarded {
    const LEN: usize = PAGES * PAGE;

    fn new() -> Self {
        let len = Self::LEN + 2 * PAGE;
        // SAFETY: a new mapping at an address chosen by the system.
        let all = unsafe {
            libc::mmap(std::ptr::null_mut(), len, libc::PROT_NONE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0)
        };
        assert_ne!(all, libc::MAP_FAILED);
        // SAFETY: a page is within the mapping.
        let start = unsafe { all.cast::<u8>().add(PAGE) };
        // SAFETY: the pages between the first and the last one are ours.
        assert_eq!(unsafe { libc::mprotect(start.cast(), Self::LEN, libc::PROT_READ | libc::PROT_WRITE) }, 0);
        Self { start }
    }

    /// `len` bytes at one of its ends.
    fn place(&mut self, len: usize, end: End) -> &mut [u8] {
        let room: Range<usize> = match end {
            End::Front => 0..len,
            End::Back => Self::LEN.checked_sub(len).expect("it fits")..Self::LEN,
        };
        // SAFETY: the pages are ours, initially zero, and borrowed for as long as the slice lives.
        let all = unsafe { std::slice::from_raw_parts_mut(self.start, Self::LEN) };
        &mut all[room]
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `new`, which is no longer borrowed.
        unsafe { libc::munmap(self.start.sub(PAGE).cast(), Self::LEN + 2 * PAGE) };
    }
}

/// One key and its guarded memory.
struct Bench {
    key: PacketKey,
    suite: Suite,
    raw: [u8; 32],
    iv: [u8; 12],
    plain: Vec<u8>,
    aad: Guarded,
    body: Guarded,
    out: Guarded,
    src: Guarded,
}

impl Bench {
    fn new(backend: Backend, suite: Suite) -> Self {
        let (raw, iv) = ([0x5a; 32], std::array::from_fn(|i| i as u8 * 17));
        let plain = (0..=MAX as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        let key = PacketKey::on(backend, suite, &raw[..suite.key_len()], &iv);
        let [aad, body, out, src] = std::array::from_fn(|_| Guarded::new());
        Self { key, suite, raw, iv, plain, aad, body, out, src }
    }

    /// All operations on a packet of `len` bytes at `end`.
    fn packet(&mut self, len: usize, end: End) {
        let Self { key, suite, raw, iv, plain, aad, body, out, src } = self;
        let (pn, plain) = (len as u64 * 7919, &plain[..len]);
        let aad = aad.place(len % 67, end);
        aad.iter_mut().enumerate().for_each(|(i, b)| *b = i as u8 ^ 0x33);
        let want = reference(*suite, raw, iv, pn, aad, plain);

        let sealed = body.place(len + TAG_LEN, end);
        sealed.copy_from_slice(&want);
        let mut head = [0xa5; HEAD_AT + HEAD_LEN];
        let opened = key.open(pn, aad, sealed, &mut head).expect("authentic");
        let n = opened.head_len();
        assert_eq!(head[HEAD_AT..HEAD_AT + n], plain[..n]);
        let mut range = |from: usize, to: usize, end: End| {
            let out = out.place(to - from, end);
            opened.decrypt_at(from, out);
            assert!(*out == plain[from..to], "{from}..{to} of {len} bytes");
        };
        for offset in 0..=OFFSETS.min(len) {
            range(offset, len, End::Front);
            range(offset, len, End::Back);
            let from = offset.min(len - offset);
            range(from, len - offset, if offset % 2 == 0 { End::Back } else { End::Front });
        }

        // The front is in the packet, the rest comes from elsewhere.
        for front in 0..=(OFFSETS + 8).min(len) {
            let packet = body.place(aad.len() + len + TAG_LEN, end);
            let (header, rest) = packet.split_at_mut(aad.len());
            header.copy_from_slice(aad);
            rest[..front].copy_from_slice(&plain[..front]);
            rest[front..].fill(0xee);
            let from = src.place(len - front, if front % 2 == 0 { End::Back } else { End::Front });
            from.copy_from_slice(&plain[front..]);
            let mut sealer = key.seal(pn, packet, aad.len());
            sealer.in_place(front);
            sealer.copy_from(from);
            let sample = sealer.finish_and_sample(aad.len()).1;
            assert!(packet[aad.len()..] == want, "{front} of {len} bytes in place");
            assert_eq!(sample, want[..SAMPLE_LEN]);
        }
        // Everything in place, then two pieces from elsewhere.
        for pieces in 1..=2 {
            let packet = body.place(aad.len() + len + TAG_LEN, end);
            let (header, rest) = packet.split_at_mut(aad.len());
            header.copy_from_slice(aad);
            rest[..len].copy_from_slice(plain);
            let from = src.place(len, end);
            from.copy_from_slice(plain);
            let mut sealer = key.seal(pn, packet, aad.len());
            if pieces == 1 {
                sealer.in_place(len);
            } else {
                let (one, two) = from.split_at(len * 7 / 11);
                sealer.copy_from(one);
                sealer.copy_from(two);
            }
            sealer.finish();
            assert!(packet[aad.len()..] == want, "{len} bytes in {pieces} pieces");
        }
    }
}

fn lengths() -> impl Iterator<Item = usize> {
    let step = std::env::var("GANNET_GUARD_STEP").ok().and_then(|n| n.parse().ok()).unwrap_or(STEP);
    (0..SHORT).chain((SHORT..MAX).step_by(step)).chain([MAX])
}

#[test]
fn kernels_stay_within_their_buffers() {
    for backend in Backend::all() {
        for suite in Suite::ALL {
            if suite == Suite::ChaCha20Poly1305 && backend != Backend::Portable {
                // The same for all.
                continue;
            }
            let mut bench = Bench::new(backend, suite);
            for len in lengths() {
                bench.packet(len, End::Front);
                bench.packet(len, End::Back);
            }
        }
    }
}

#[test]
fn masks_stay_within_their_samples() {
    let mut place = Guarded::new();
    for backend in Backend::all() {
        for suite in Suite::ALL {
            let key = HeaderKey::on(backend, suite, &[7; 32][..suite.key_len()]);
            for end in [End::Front, End::Back] {
                for n in 0..40 {
                    let samples = place.place(n * SAMPLE_LEN, end);
                    samples.iter_mut().enumerate().for_each(|(i, byte)| *byte = i as u8);
                    let (samples, _) = samples.as_chunks();
                    let mut masks = vec![[0; 5]; n];
                    key.masks(samples, &mut masks);
                    assert!(samples.iter().zip(&masks).all(|(sample, mask)| key.mask(sample) == *mask));
                }
            }
        }
    }
}

/// The premise of these tests: the next byte faults. It is looked up rather than tried, as a fault ends the process.
#[test]
fn a_guarded_place_ends_at_pages_that_nobody_may_touch() {
    let mut place = Guarded::new();
    let front = place_of(&place.place(1, End::Front)[0]).start;
    let back = place_of(&place.place(1, End::Back)[0]).end;
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let rights = |at: usize| {
        maps.lines().find_map(|line| {
            let (range, rest) = line.split_once(' ')?;
            let (from, to) = range.split_once('-')?;
            let number = |digits| usize::from_str_radix(digits, 16).ok();
            (number(from)?..number(to)?).contains(&at).then(|| rest[..3].to_owned())
        })
    };
    for (at, want) in [(front - 1, "---"), (front, "rw-"), (back - 1, "rw-"), (back, "---")] {
        assert_eq!(rights(at).as_deref(), Some(want));
    }
}
