//! Searches all writable memory of this process for copies of key material: stacks including dead frames, and the heap
//! including freed memory.
//!
//! The memory is read through `/proc`, as Rust has no access to what lies below a frame. Both the patterns and the
//! memory are kept inverted, so that the search makes no copies itself.

use std::collections::HashSet;
use std::fs::{self, File};
use std::hint::black_box;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::{Mutex, PoisonError};

use zeroize::{Zeroize, zeroize_stack};

use crate::base::Side;
use crate::crypto::backend::Backend;
use crate::crypto::{HeadRoom, HeaderKey, Keys, PacketKey, Suite, TAG_LEN, initial_keys, traceless};
use crate::wire::quic::Version;

/// Serialises tests that search for the same key, if they share a process.
static ALONE: Mutex<()> = Mutex::new(());

/// Amount of memory read at a time, in bytes.
const WINDOW: usize = 1 << 18;

/// Length of a pattern in bytes.
const LEN: usize = 16;

/// The memory of `object`.
pub(crate) fn place<T>(object: &T) -> Range<usize> {
    let at = std::ptr::from_ref(object).addr();
    at..at + size_of::<T>()
}

/// The patterns to search for.
#[derive(Default)]
pub(crate) struct Secrets {
    inverted: HashSet<[u8; LEN]>,
    /// Their first bytes, which exclude nearly all memory quickly.
    first: HashSet<u16>,
    /// Where they are allowed.
    homes: Vec<Range<usize>>,
}

impl Secrets {
    /// Adds everything at `home`, in pieces, except values that are too common.
    pub(crate) fn add_home(&mut self, home: Range<usize>) {
        let mut window = vec![0; home.len()];
        read_inverted(&mut window, home.start);
        window.as_chunks::<LEN>().0.iter().for_each(|piece| self.add_inverted(*piece));
        self.homes.push(home);
    }

    fn add_inverted(&mut self, piece: [u8; LEN]) {
        if piece.iter().collect::<HashSet<_>>().len() > 6 {
            self.inverted.insert(piece);
            self.first.insert(u16::from_le_bytes([piece[0], piece[1]]));
        }
    }

    /// Allows them nowhere, as their owners are gone.
    pub(crate) fn homeless(mut self) -> Self {
        self.homes.clear();
        self
    }

    pub(crate) fn len(&self) -> usize {
        self.inverted.len()
    }

    /// Where copies are that are not allowed, each with the name of its region.
    pub(crate) fn copies(&self) -> Vec<(String, usize)> {
        let mut window = vec![0; WINDOW];
        let own = window.as_ptr().addr()..window.as_ptr().addr() + WINDOW;
        let mut found = Vec::new();
        for (region, name) in regions() {
            let mut at = region.start;
            while at < region.end {
                let n = WINDOW.min(region.end - at);
                // Skip the patterns themselves.
                let seen = at..at + n;
                let skip = own.start < seen.end && seen.start < own.end;
                if skip && at < own.start {
                    let n = own.start - at;
                    self.look(&mut window[..n], at, &name, &mut found);
                }
                if skip {
                    at = own.end;
                    continue;
                }
                self.look(&mut window[..n], at, &name, &mut found);
                at += if n == WINDOW { n - LEN } else { n };
            }
        }
        found
    }

    fn look(&self, window: &mut [u8], at: usize, name: &str, found: &mut Vec<(String, usize)>) {
        read_inverted(window, at);
        for (i, piece) in window.windows(LEN).enumerate() {
            let first = u16::from_le_bytes([piece[0], piece[1]]);
            if first != 0xffff && self.first.contains(&first) && self.inverted.contains(piece) {
                let at = at + i;
                if !self.homes.iter().any(|home| home.contains(&at)) {
                    found.push((name.to_owned(), at));
                }
            }
        }
        window.zeroize();
    }
}

/// Writable private memory.
fn regions() -> Vec<(Range<usize>, String)> {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let region = |line: &str| {
        let mut fields = line.split_ascii_whitespace();
        let (from, to) = fields.next()?.split_once('-')?;
        let number = |digits| usize::from_str_radix(digits, 16).ok();
        let rights = fields.next()?;
        let name = fields.nth(3).unwrap_or("anonymous");
        // Larger regions are only reserved, for shadow memory and growing heaps.
        let real = number(to)? - number(from)? < 1 << 30;
        (rights.starts_with("rw-p") && real).then_some((number(from)?..number(to)?, name.to_owned()))
    };
    maps.lines().filter_map(region).collect()
}

/// Reads memory from `at` on, inverted; ones where there is none.
fn read_inverted(window: &mut [u8], at: usize) {
    let memory = File::open("/proc/self/mem").unwrap();
    let read = memory.read_at(window, at as u64).unwrap_or(0);
    window[read..].zeroize();
    window.iter_mut().for_each(|byte| *byte = !*byte);
}

/// Runs `work` deep in the stack, so that frames of the search do not overwrite what it left.
#[inline(never)]
pub(crate) fn deep<T>(work: impl FnOnce() -> T) -> T {
    let mut above = [0u8; 128 << 10];
    black_box(&mut above);
    let done = work();
    black_box(&mut above);
    done
}

/// `n` bytes that are neither on the stack nor on the heap.
fn key(n: usize) -> &'static [u8] {
    static KEY: [u8; 32] = [
        0x6b, 0x1d, 0x93, 0xe4, 0x2f, 0xa8, 0x70, 0xc5, 0x16, 0xdb, 0x4e, 0x89, 0xf7, 0x32, 0xbc, 0x05, 0xd1, 0x5a,
        0x97, 0x2e, 0x48, 0xe3, 0x0c, 0xb6, 0x7f, 0x81, 0x39, 0xca, 0x64, 0x13, 0xad, 0xf0,
    ];
    &KEY[..n]
}

/// A key of which copies are made on purpose. They outlive their test, and other tests may share its process.
static COPIED: [u8; 32] = [
    0x3a, 0xc4, 0x57, 0x8e, 0x01, 0xf9, 0x6d, 0xb2, 0x45, 0x9b, 0xe0, 0x28, 0x73, 0xdf, 0x14, 0xa6, 0xc8, 0x5d, 0x92,
    0x37, 0xeb, 0x06, 0x7a, 0xf1, 0x2c, 0x84, 0xb9, 0x60, 0xd5, 0x1f, 0x43, 0xae,
];

/// Performs all operations of a packet key.
fn work(key: &PacketKey) {
    for len in [0, 10, 40, 100, 500, 1452, 4000] {
        let mut packet = vec![7; 20 + len + TAG_LEN];
        let mut sealer = key.seal(9, &mut packet, 20);
        sealer.in_place(len / 3);
        sealer.copy_from(&vec![8; len - len / 3]);
        sealer.finish();
        let (aad, body) = packet.split_at_mut(20);
        let mut head: HeadRoom = [0; _];
        let opened = key.open(9, aad, body, &mut head).unwrap();
        let mut out = vec![0; len];
        for from in [0, 1, 16, 33] {
            opened.decrypt_at(from.min(len), &mut out[from.min(len)..]);
        }
    }
}

/// Kernels with AES instructions use registers, of which compilers may spill some with round keys to the stack. The
/// next packet overwrites them; doing so for each packet would cost more than half as much as its encryption.
fn wipes_after_use(backend: Backend, suite: Suite) -> bool {
    backend == Backend::Portable || suite == Suite::ChaCha20Poly1305
}

#[test]
#[cfg_attr(gannet_asan, ignore = "AddressSanitizer has frames of its own on the heap")]
fn making_and_using_keys_leaves_no_copies() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut found = Vec::new();
    let mut note = |what: &str, backend: Backend, suite: Suite, secrets: &Secrets| {
        let copies = secrets.copies();
        if let Some((region, _)) = copies.first() {
            found.push(format!("{what}: {backend:?}, {suite:?}: {} copies, the first in {region}", copies.len()));
        }
    };
    for backend in Backend::all() {
        for suite in Suite::ALL {
            // One-time initialisation is done before.
            drop(PacketKey::on(backend, suite, &[1; 32][..suite.key_len()], &[2; 12]));
            let packet = deep(|| traceless(|| PacketKey::on(backend, suite, key(suite.key_len()), &[2; 12])));
            let mut secrets = Secrets::default();
            secrets.add_home(packet.memory());
            let rounds = if suite == Suite::ChaCha20Poly1305 { 2 } else { 11 };
            assert!(secrets.len() >= rounds, "{} pieces", secrets.len());
            note("making a packet key", backend, suite, &secrets);
            deep(|| work(&packet));
            if wipes_after_use(backend, suite) {
                note("using a packet key", backend, suite, &secrets);
            }
            // Each step is checked on its own.
            deep(zeroize_stack::<{ 64 << 10 }>);
            deep(|| drop(packet));
            let secrets = secrets.homeless();
            note("dropping a packet key", backend, suite, &secrets);

            let header = deep(|| traceless(|| HeaderKey::on(backend, suite, key(suite.key_len()))));
            let mut secrets = Secrets::default();
            secrets.add_home(header.memory());
            note("making a header key", backend, suite, &secrets);
            let mut masks = [[0; 5]; 40];
            deep(|| {
                header.masks(&[[9; 16]; 40], &mut masks);
                assert_eq!(header.mask(&[9; 16]), masks[3]);
            });
            if wipes_after_use(backend, suite) {
                note("using a header key", backend, suite, &secrets);
            }
            deep(zeroize_stack::<{ 64 << 10 }>);
            deep(|| drop(header));
            note("dropping a header key", backend, suite, &secrets.homeless());
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}

/// Adds everything in the keys of both directions.
pub(crate) fn add_keys(secrets: &mut Secrets, keys: &Keys) {
    for direction in [&keys.local, &keys.remote] {
        secrets.add_home(direction.packet.memory());
        secrets.add_home(direction.header.memory());
    }
}

#[test]
#[cfg_attr(gannet_asan, ignore = "AddressSanitizer has frames of its own on the heap")]
fn deriving_initial_keys_leaves_no_copies() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let keys = deep(|| Box::new(initial_keys(Version::V2, b"a connection", Side::Server)));
    let mut secrets = Secrets::default();
    add_keys(&mut secrets, &keys);
    assert_eq!(secrets.copies(), []);
    deep(|| drop(keys));
    assert_eq!(secrets.homeless().copies(), []);
}

/// A search that can find nothing would be useless.
#[test]
#[cfg_attr(gannet_asan, ignore = "AddressSanitizer has frames of its own on the heap")]
fn copies_are_found_where_they_are() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    #[inline(never)]
    fn dead_frame(key: &PacketKey) {
        let mut copy = [0u8; 64];
        let home = key.memory();
        File::open("/proc/self/mem").unwrap().read_at(&mut copy, home.start as u64).unwrap();
        black_box(&mut copy);
    }
    let packet = traceless(|| PacketKey::on(Backend::Portable, Suite::Aes256Gcm, &COPIED, &[2; 12]));
    let mut secrets = Secrets::default();
    secrets.add_home(packet.memory());
    assert_eq!(secrets.copies(), []);
    deep(|| dead_frame(&packet));
    let found = secrets.copies();
    assert!(found.len() >= 3, "the first pieces of a key of 64 bytes: {found:?}");
    zeroize_stack::<{ 256 << 10 }>();
    let freed: Vec<u8> = {
        let mut copy = vec![0; 64];
        File::open("/proc/self/mem").unwrap().read_at(&mut copy, packet.memory().start as u64).unwrap();
        copy
    };
    let found = secrets.copies();
    assert!(found.iter().any(|(_, at)| place(&freed[0]).start == *at), "{found:?}");
}
