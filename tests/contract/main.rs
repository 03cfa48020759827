//! The contract on application-owned memory for receiving and sending: what an application may rely on, whatever the
//! peer and the network do.
//!
//! `rig` plays one stream frame by frame against an engine and compares every event with a simple model; `pair`
//! consists of two engines and a network.
#![forbid(unsafe_code)]

#[path = "../api/mod.rs"]
#[allow(dead_code, reason = "shared with the tests of handles")]
mod api;
#[path = "../hostile/peer.rs"]
#[allow(dead_code, reason = "shared with the tests of hostile peers")]
mod peer;
#[path = "../hostile/world.rs"]
#[allow(dead_code, reason = "shared with the tests of hostile peers")]
mod world;

mod cores;
mod datagrams;
mod endings;
mod hybrid;
mod memory;
mod migrating;
mod misuse;
mod model;
mod pair;
mod panics;
mod paths;
mod property;
mod rig;
mod scenarios;
mod sending;
mod stalls;
mod steps;
mod tls;
mod windows;
