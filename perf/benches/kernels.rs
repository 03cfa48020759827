//! The kernels that every packet goes through, individually.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use gannet::crypto::{Suite, TAG_LEN, header_key, packet_key};
use gannet::quic::{CidCodec, CidConfig, CidInfo};
use gannet::wire::checksum::Sum;
use std::hint::black_box;

const SUITES: [(&str, Suite); 3] =
    [("aes128", Suite::Aes128Gcm), ("aes256", Suite::Aes256Gcm), ("chacha20", Suite::ChaCha20Poly1305)];

/// The plaintext lengths of packets that fill the MTU, in bytes.
const SIZES: [usize; 2] = [1452, 8900];

const HEADER: usize = 20;

fn aead(c: &mut Criterion) {
    for (name, suite) in SUITES {
        let key = packet_key(suite, &vec![7; suite.key_len()], &[3; 12]);
        let mut group = c.benchmark_group(name);
        for size in SIZES {
            let mut packet = vec![1u8; HEADER + size + TAG_LEN];
            let source = vec![2u8; size];
            let mut target = vec![0u8; size];
            let mut sealer = key.seal(1, &mut packet, HEADER);
            sealer.copy_from(&source);
            sealer.finish();
            group.throughput(Throughput::Bytes(size as u64));
            group.bench_function(format!("open/{size}"), |b| {
                b.iter(|| {
                    let (aad, body) = packet.split_at_mut(HEADER);
                    key.open(1, aad, body, &mut [0; _]).is_ok()
                });
            });
            group.bench_function(format!("decrypt_at/{size}"), |b| {
                let (aad, body) = packet.split_at_mut(HEADER);
                let opened = key.open(1, aad, body, &mut [0; _]).expect("sealed with the same key");
                b.iter(|| opened.decrypt_at(0, black_box(&mut target)));
            });
            group.bench_function(format!("seal/{size}"), |b| {
                b.iter(|| {
                    let mut sealer = key.seal(1, black_box(&mut packet), HEADER);
                    sealer.copy_from(&source);
                    sealer.finish()
                });
            });
        }
        let header = header_key(suite, &vec![9; suite.key_len()]);
        group.throughput(Throughput::Elements(1));
        group.bench_function("mask", |b| b.iter(|| header.mask(black_box(&[5; 16]))));
        let (samples, mut masks) = ([[5; 16]; 32], [[0; 5]; 32]);
        group.throughput(Throughput::Elements(32));
        group.bench_function("masks/32", |b| b.iter(|| header.masks(black_box(&samples), &mut masks)));
        group.finish();
    }
}

fn checksum(c: &mut Criterion) {
    let bytes = vec![0xa5u8; 1480];
    let mut group = c.benchmark_group("checksum");
    group.throughput(Throughput::Bytes(bytes.len() as u64));
    group.bench_function("1480", |b| {
        b.iter(|| Sum::new().bytes(black_box(&bytes)));
    });
    group.finish();
}

/// Connection IDs: four AES blocks each, or one with 17 bytes; with a load balancer's key, one more if server ID and nonce
/// have 16 bytes together, and four more otherwise.
fn connection_ids(c: &mut Criterion) {
    let mut group = c.benchmark_group("connection_id");
    let unrouted = |len| CidConfig::unrouted(len).expect("a length that works");
    let routed = |nonce| CidConfig::routed(0, &[1; 4], nonce, Some(&[5; 16])).expect("a length that works");
    for (name, form) in
        [("10", unrouted(10)), ("17", unrouted(17)), ("routed-17", routed(12)), ("routed-14", routed(9))]
    {
        let codec = CidCodec::new(&form, &[7; 16], &[9; 16]);
        let info = CidInfo { core: 1, index: 2, generation: 3, sequence: 4 };
        let cid = codec.encode(info);
        group.bench_function(format!("decode/{name}"), |b| b.iter(|| codec.decode(black_box(&cid))));
        group.bench_function(format!("encode/{name}"), |b| b.iter(|| codec.encode(black_box(info))));
    }
    group.finish();
}

criterion_group!(kernels, aead, checksum, connection_ids);
criterion_main!(kernels);
