//! Malicious peers and strangers: every violation ends its connection with the right error and affects nothing else,
//! and what strangers send changes nothing.

mod ack_frequency;
mod acks;
#[path = "../peers/quic_lb.rs"]
mod balancer;
mod closing;
mod configs;
mod credit;
mod crypto_frames;
mod datagrams;
mod early_data;
mod early_detours;
mod ecn;
mod first_packets;
mod flood;
mod garbage;
mod handshakes;
mod identity;
mod key_updates;
mod live;
mod memory;
mod mtu;
mod new_tokens;
mod pace;
mod paths;
mod peer;
mod pinning;
mod probes;
mod quic_lb;
mod refusing;
mod resets;
mod resets_at;
mod resumption;
mod retry;
mod retry_flood;
mod retry_server;
mod sizes;
mod stream_rules;
mod undelivered;
mod versions;
mod violations;
mod world;
