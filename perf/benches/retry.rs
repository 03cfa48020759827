//! The cost of a first packet from an unknown client for a server that requires tokens, from the datagram to the Retry.

use std::hint::black_box;
use std::net::SocketAddr;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use gannet::base::time::Instant;
use gannet::crypto::{initial_direction, retry_tag};
use gannet::mem::BufPool;
use gannet::quic::{Endpoint, EndpointConfig, RetryPolicy, RxMeta, ServerConfig, TransportConfig, tls};
use gannet::wire::quic::Version;
use gannet::wire::quic::header::{self, PacketType};

/// A first packet of 1200 bytes with `token`. It is not sealed, as that is not checked before the token.
fn first(token: &[u8]) -> Vec<u8> {
    let mut data = vec![0x5a; 1200];
    let at = header::encode_long(&mut data, Version::V1, PacketType::Initial, &[1; 8], &[2; 8], token, 0, 1);
    let at = at.expect("room for it");
    let length = (data.len() - at.pn_offset) as u16;
    data[at.length_offset..at.pn_offset].copy_from_slice(&(0x4000 | length).to_be_bytes());
    data
}

fn server() -> Endpoint {
    let cert = rcgen::generate_simple_self_signed(vec!["bench".into()]).expect("a certificate");
    let key = rustls::pki_types::PrivateKeyDer::try_from(cert.signing_key.serialize_der()).expect("a key");
    let options = tls::TlsOptions { alpn: vec![b"bench".to_vec()], ..tls::TlsOptions::default() };
    let tls = tls::server_config(vec![cert.cert.der().clone()], key, &options).expect("a configuration");
    let config = EndpointConfig { retry: RetryPolicy::Always, ..EndpointConfig::from_seed([1; 32]) };
    let server = ServerConfig::new(tls, TransportConfig::default()).expect("good settings");
    Endpoint::new(config, Some(server), BufPool::heap())
}

fn retry(c: &mut Criterion) {
    let mut group = c.benchmark_group("retry");
    group.throughput(Throughput::Elements(1));
    let (mut endpoint, now) = (server(), Instant::from_nanos(1 << 40));
    let local = SocketAddr::from(([192, 0, 2, 2], 443));
    let mut slot = [0; 1500];
    let mut n = 0u32;
    let mut meta = move || {
        n = n.wrapping_add(1);
        RxMeta { local, remote: SocketAddr::from((n.to_be_bytes(), 5)), ecn: 0 }
    };
    let mut data = first(&[]);
    group.bench_function("first packet to Retry", |b| {
        b.iter(|| {
            endpoint.handle_datagram(now, &meta(), black_box(&mut data));
            endpoint.poll_transmit(now, &mut slot).expect("a Retry")
        });
    });
    let mut token = [7; 59];
    token[0] = 1;
    token[1] = ((1u64 << 40) / 1_000_000 / 64_000) as u8;
    let mut data = first(&token);
    // The first ones are answered, up to the limit.
    for _ in 0..2000 {
        endpoint.handle_datagram(now, &meta(), &mut data);
    }
    group.bench_function("first packet with a forged token", |b| {
        b.iter(|| endpoint.handle_datagram(now, &meta(), black_box(&mut data)));
    });
    group.bench_function("integrity tag of a Retry", |b| {
        b.iter(|| retry_tag(Version::V1, &[1; 8], black_box(&slot[..91])))
    });
    group.bench_function("Initial keys of one direction", |b| {
        b.iter(|| initial_direction(Version::V1, black_box(&[1; 8]), gannet::base::Side::Client))
    });
    group.finish();
}

criterion_group!(benches, retry);
criterion_main!(benches);
