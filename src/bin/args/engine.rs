//! Arguments of every command that sends packets: the port, the engine, certificates.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum, ValueHint};
use gannet::quic::{Version, Versions};
use gannet::runtime::Idle;

use super::log::LogArgs;
use super::qlog::QlogArgs;
use super::quic_lb::QuicLb;
use super::tls::{Group, Suite};
use super::values::{self, Cidr, Route};

/// Congestion controllers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Congestion {
    /// CUBIC with HyStart++.
    #[default]
    Cubic,
    /// NewReno (RFC 9002 §7).
    #[value(name = "newreno")]
    NewReno,
    /// BBRv3 (draft-ietf-ccwg-bbr-06).
    Bbr,
}

/// What a poll loop does when it has no work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum IdleMode {
    /// Keep polling: lowest latency, but needs a CPU of its own.
    Spin,
    /// Keep polling, but yield to other threads that want the CPU, and sleep while there are any.
    #[default]
    Yield,
    /// Sleep until a packet arrives: uses next to no CPU time, but the first packet after a pause takes longer.
    Sleep,
}

impl IdleMode {
    /// The library's value for this mode.
    pub fn mode(self) -> Idle {
        match self {
            Self::Spin => Idle::Spin,
            Self::Yield => Idle::Yield,
            Self::Sleep => Idle::Sleep,
        }
    }
}

/// When clients have to prove their address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Retry {
    /// While many handshakes are in flight.
    #[default]
    Auto,
    /// Always. Each handshake takes one more round trip.
    Always,
    /// Never. Packets from forged addresses can then keep clients out.
    Never,
}

/// Duplicate address detection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Dad {
    /// Do not probe: for addresses that move from one machine to another.
    Off,
    /// Use the address at once, and give it up if another machine claims it within a second.
    #[default]
    Optimistic,
    /// Use the address once no other machine has claimed it: after 4 to 7 seconds (IPv6: 1 to 2).
    Strict,
}

/// The port, its addresses, and the engine: common to all commands that send packets.
#[derive(Clone, Debug, Args)]
pub struct EngineArgs {
    /// Port profile: a name (memif, af-packet, ...) or the path of a .toml file.
    #[arg(long, value_name = "PROFILE", help_heading = "Port")]
    pub port: String,

    /// Override a setting of the profile, for example mtu=9000. May be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = values::key_value, help_heading = "Port")]
    pub sets: Vec<(String, String)>,

    /// Address of the port, for example 10.77.0.1/24 or fd00::1/64. May be repeated.
    #[arg(long = "addr", value_name = "IP/LEN", value_parser = values::host_cidr, required = true)]
    #[arg(help_heading = "Port")]
    pub addrs: Vec<Cidr>,

    /// Default router. May be repeated: later ones are used while earlier ones do not answer. It must be in the network
    /// of an --addr, or in one that --route puts on the link; if all addresses are /32 or /128, it can be anywhere.
    #[arg(long = "gateway", value_name = "IP", value_parser = values::ip, help_heading = "Port")]
    pub gateways: Vec<IpAddr>,

    /// Route to a network through a neighbour, for example 10.0.0.0/8=10.77.0.254, or directly, for example
    /// 172.31.1.1/32=link. May be repeated: of several routes to the same network, the first whose router answers is
    /// used.
    #[arg(long = "route", value_name = "NETWORK/LEN=NEXTHOP", help_heading = "Port")]
    pub routes: Vec<Route>,

    /// Duplicate address detection: how to check whether another machine has the address.
    #[arg(long, value_name = "HOW", value_enum, default_value_t, help_heading = "Port")]
    pub dad: Dad,

    /// VLAN to send and receive in, 1 to 4094.
    #[arg(long, value_name = "ID", value_parser = values::number::<u16>(1, 4094), help_heading = "Port")]
    pub vlan: Option<u16>,

    /// CPU to run the poll loop on.
    #[arg(long, value_name = "CPU", value_parser = values::number::<usize>(0, 1023), help_heading = "Engine")]
    pub core: Option<usize>,

    /// What the poll loop does when there is no work.
    #[arg(long, value_name = "MODE", value_enum, default_value_t, help_heading = "Engine")]
    pub idle: IdleMode,

    /// How long a client waits for a link that is down, for example 5 or 500ms [default: 5 s at start, afterwards the
    /// idle timeout of its connections].
    #[arg(long, value_name = "TIME", value_parser = values::duration, help_heading = "Engine")]
    pub link_patience: Option<Duration>,

    /// Memory for what is on its way, of all cores: received data, files being sent or written. Windows follow from it: a
    /// path on which rate times round-trip time is a thirtieth of it is filled [default: 1G, or 256M for each core if
    /// that is more; of get, 512M instead of 1G].
    #[arg(long, value_name = "BYTES", value_parser = values::memory, help_heading = "Engine")]
    pub memory: Option<u64>,

    /// Congestion controller.
    #[arg(long, value_name = "NAME", value_enum, default_value_t, help_heading = "Engine")]
    pub congestion: Congestion,

    /// Cipher suite to offer. May be repeated, in order of preference [default: all].
    #[arg(long = "suite", value_name = "NAME", value_enum, help_heading = "Engine")]
    pub suites: Vec<Suite>,

    /// Key exchange group to offer. May be repeated, in order of preference [default: all, in the order of the list].
    #[arg(long = "group", value_name = "NAME", value_enum, help_heading = "Engine")]
    pub groups: Vec<Group>,

    /// Versions of QUIC to speak, in order of preference, for example v2,v1. A server chooses its most preferred one of
    /// those that the client speaks [default: v1,v2].
    #[arg(long, value_name = "LIST", value_parser = values::versions, help_heading = "Engine")]
    pub versions: Option<Versions>,

    /// Version that a client begins with [default: the oldest of --versions]. Servers that prefer another one change to
    /// it without a round trip.
    #[arg(long, value_name = "VERSION", value_parser = values::version, help_heading = "Engine")]
    pub first_version: Option<Version>,

    /// Do not mark packets for explicit congestion notification (ECN). Otherwise they are marked on paths where that works.
    #[arg(long, help_heading = "Engine")]
    pub no_ecn: bool,

    /// Let the network measure round-trip times by the spin bit, on all but one in 16 paths.
    #[arg(long, help_heading = "Engine")]
    pub spin: bool,

    /// Send nothing that peers have to ignore (reserved versions and transport parameters), and always set the fixed bit.
    #[arg(long, help_heading = "Engine")]
    pub no_grease: bool,

    /// Ask peers that can do it to acknowledge less often on fast paths (draft-ietf-quic-ack-frequency).
    #[arg(long, help_heading = "Engine")]
    pub fewer_acks: bool,

    /// Update the packet keys after sending this many packets, or earlier where the cipher demands it (RFC 9001 §6).
    #[arg(long, value_name = "N", value_parser = values::number::<u64>(1, u64::MAX), help_heading = "Engine")]
    pub packets_per_key: Option<u64>,

    /// Largest UDP payload to send, 1200 to 65527 bytes [default: as the port's MTU allows].
    #[arg(long, value_name = "BYTES", value_parser = values::number::<u16>(1200, 65527), help_heading = "Engine")]
    pub max_udp_payload: Option<u16>,

    /// Close connections whose peer has been silent for this long, for example 5 or 500ms [default: 10 for clients, 30
    /// for servers]. Clients ping a silent server after a quarter of this time; a server that is merely slow answers
    /// and keeps its connection. Handshakes are given up after 10 s, or this time if it is longer.
    #[arg(long, value_name = "TIME", value_parser = values::duration, help_heading = "Engine")]
    pub idle_timeout: Option<Duration>,

    /// Write every frame sent and received to this capture file.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, help_heading = "Diagnostics")]
    pub pcap: Option<PathBuf>,

    /// Append the TLS secrets to this file, so that captures can be decrypted.
    #[arg(long, visible_alias = "key-log", value_name = "FILE", value_hint = ValueHint::FilePath)]
    #[arg(env = "SSLKEYLOGFILE", hide_env_values = true, help_heading = "Diagnostics")]
    pub keylog: Option<PathBuf>,

    /// Qlog files.
    #[command(flatten)]
    pub qlog: QlogArgs,

    /// Write all counters to this file as JSON on exit.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, help_heading = "Diagnostics")]
    pub stats: Option<PathBuf>,

    /// Time each stage of every packet (port to engine, AEAD, placement, events, sending), print a table on exit, and
    /// write the histograms to this file, for `gannet report`. Slows the engine down.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, help_heading = "Diagnostics")]
    pub stages: Option<PathBuf>,

    /// Each second, show what the core does: packets, bursts, cycles per packet, busy time, drops by reason, losses,
    /// connections.
    #[arg(long, conflicts_with = "quiet", help_heading = "Diagnostics")]
    pub live: bool,

    /// The logging options.
    #[command(flatten)]
    pub log: LogArgs,
}

impl EngineArgs {
    /// Checks that addresses are distinct and routers are neighbours.
    pub fn check(&self) -> Result<(), String> {
        self.log.check()?;
        let versions = self.versions.clone().unwrap_or_default();
        if let Some(first) = self.first_version.filter(|first| !versions.contains(first)) {
            return Err(format!("--first-version {first} is not one of --versions {versions}"));
        }
        for (i, a) in self.addrs.iter().enumerate() {
            if self.addrs[..i].iter().any(|b| b.addr == a.addr) {
                return Err(format!("--addr {a} is given twice"));
            }
        }
        for (i, g) in self.gateways.iter().enumerate() {
            if self.gateways[..i].contains(g) {
                return Err(format!("--gateway {g} is given twice"));
            }
            self.check_neighbour("--gateway", *g)?;
        }
        self.routes.iter().filter_map(|r| r.via).try_for_each(|via| self.check_neighbour("next hop of --route", via))
    }

    /// Networks on the link: those of --addr, and those of --route with `link`.
    fn networks(&self) -> impl Iterator<Item = Cidr> {
        let routed = self.routes.iter().filter(|r| r.via.is_none()).map(|r| r.to);
        self.addrs.iter().copied().chain(routed)
    }

    /// Checks that a router is in one of the port's networks and is not the port itself. An IPv6 router may be
    /// link-local.
    fn check_neighbour(&self, what: &str, ip: IpAddr) -> Result<(), String> {
        if self.addrs.iter().any(|a| a.addr == ip) {
            return Err(format!("{what} {ip} is this port's own --addr"));
        }
        let link_local = matches!(ip, IpAddr::V6(a) if a.is_unicast_link_local());
        if link_local || self.networks().any(|a| a.contains(ip)) {
            return Ok(());
        }
        // A single address has no network, so its router can only be on the link.
        let mut family = self.networks().filter(|a| a.addr.is_ipv4() == ip.is_ipv4()).peekable();
        let len = if ip.is_ipv4() { 32 } else { 128 };
        let alone = family.peek().is_some() && family.all(|a| a.prefix == len);
        if alone && self.gateways.contains(&ip) {
            return Ok(());
        }
        let ours: Vec<String> = self.networks().map(|a| a.network().to_string()).collect();
        Err(format!(
            "{what} {ip} is in none of this port's networks ({}); if it is on the link anyway, add --route {ip}/{len}=link",
            ours.join(", ")
        ))
    }
}

/// What a server's connection IDs are made of.
#[derive(Clone, Debug, Args)]
pub struct SecretArgs {
    /// Keep the secret behind connection IDs, reset tokens and address tokens in this file, which is created if
    /// missing. After a crash and restart, clients then learn at once that their connections are gone. Servers that run
    /// at the same time need separate files, unless each has its own --quic-lb server ID.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, help_heading = "Engine")]
    pub secret: Option<PathBuf>,

    /// Make connection IDs that QUIC-LB load balancers route: config=0..6 and server-id=HEX (1 to 10 bytes, different for
    /// each server) as in the balancers' configuration; key=FILE, its key (16 bytes, or 32 hexadecimal digits), without
    /// which everyone can read the server ID; nonce=BYTES, the nonce's length [default: 16 less the length of the server
    /// ID, at least 9].
    #[arg(long, value_name = "SETTINGS", help_heading = "Engine")]
    pub quic_lb: Option<QuicLb>,
}

/// How a server ends.
#[derive(Clone, Debug, Args)]
pub struct EndArgs {
    /// On SIGTERM or SIGINT, refuse new clients, and let connections finish for up to this time, for example 30 or 500ms,
    /// before they are closed. A second signal closes them at once, a third ends the process [default: close them at
    /// once; the second signal ends the process].
    #[arg(long, value_name = "TIME", value_parser = values::duration, help_heading = "Engine")]
    pub drain: Option<Duration>,
}
