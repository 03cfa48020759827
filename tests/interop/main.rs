//! Gannet with other implementations, in both roles, over an AF_PACKET port on a veth.
#![cfg(feature = "cli")]
#![forbid(unsafe_code)]

mod certificates;
mod clients;
mod cores;
mod datagrams;
mod get_failures;
mod hang_ups;
mod host;
mod load_balancer;
mod logs;
mod moving;
mod outputs;
mod patience;
#[path = "../peers/mod.rs"]
mod peers;
mod qlogs;
mod restarts;
mod resumption;
mod retry;
mod scene;
mod serve_failures;
mod signals;
mod transfers;
mod versions;

quinn_peer_entry!();
