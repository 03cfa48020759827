//! Converts command-line arguments to configurations of the library.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use gannet::api::{self, LbKey};
use gannet::base::cpus;
pub use gannet::base::cpus::pin;
use gannet::base::rng::Rng;
use gannet::datapath::Caps;
use gannet::net::{Cidr, Detect, NetConfig, Route};
use gannet::quic::{
    AckRequests, CidConfig, ClientConfig, CongestionAlgorithm, EarlyDataRequest, EndpointConfig, MemoryTokens,
    RetryPolicy, ServerConfig, TransportConfig,
};
use gannet::wire::ipv4::IPV4_LEN;
use gannet::wire::ipv6::IPV6_LEN;
use gannet::wire::udp::UDP_LEN;

use super::{Failure, Usage};
use crate::args::ResumeArgs;
use crate::args::engine::{Congestion, Dad, EngineArgs, Retry, SecretArgs};
use crate::args::quic_lb::QuicLb;
use crate::args::target::HostPort;
use crate::args::values;

fn cidr(c: &values::Cidr) -> Result<Cidr, Failure> {
    Ok(Cidr::new(c.addr, c.prefix)?)
}

/// The network layer's settings. Only a server's port is open.
pub fn net_config(args: &EngineArgs, listen: Option<u16>) -> Result<NetConfig, Failure> {
    let routed = args.routes.iter().filter_map(|r| Some((&r.to, r.via?)));
    let on_link = args.routes.iter().filter(|r| r.via.is_none());
    Ok(NetConfig {
        addrs: args.addrs.iter().map(cidr).collect::<Result<_, _>>()?,
        gateways: args.gateways.clone(),
        on_link: on_link.map(|r| cidr(&r.to)).collect::<Result<_, _>>()?,
        routes: routed.map(|(to, via)| Ok(Route { dest: cidr(to)?, via })).collect::<Result<_, Failure>>()?,
        detect: match args.dad {
            Dad::Off => Detect::Off,
            Dad::Optimistic => Detect::Optimistic,
            Dad::Strict => Detect::Strict,
        },
        vlan: args.vlan,
        ports: listen.map(|port| vec![port]),
        seed: Rng::from_os()?.next_u64(),
        ..NetConfig::default()
    })
}

/// The idle timeout of clients. Pings keep connections to live servers open.
const CLIENT_IDLE: Duration = Duration::from_secs(10);

/// A client's transport settings for a port with `caps` and `cores` cores. Keep-alives hold the connection open while
/// either side is slow, so the idle timeout can be short enough to notice soon that the server is gone.
pub fn client_transport(args: &EngineArgs, caps: &Caps, cores: u8) -> TransportConfig {
    let idle = args.idle_timeout.unwrap_or(CLIENT_IDLE);
    TransportConfig { max_idle_timeout: idle, keep_alive: Some(idle / 4), ..transport(args, caps, cores) }
}

/// Transport settings for a port with `caps` and `cores` cores.
pub fn transport(args: &EngineArgs, caps: &Caps, cores: u8) -> TransportConfig {
    let most = |ip_len: usize| {
        let fits = caps.mtu.saturating_sub((ip_len + UDP_LEN) as u16);
        args.max_udp_payload.map_or(fits, |wish| wish.min(fits))
    };
    let mut default = TransportConfig::default();
    if let Some(bytes) = args.memory {
        default = default.with_memory(bytes / u64::from(cores));
    }
    TransportConfig {
        versions: args.versions.clone().unwrap_or_default(),
        first_version: args.first_version,
        ecn: !args.no_ecn,
        spin: args.spin,
        ack_requests: if args.fewer_acks { AckRequests::Adaptive } else { default.ack_requests },
        packets_per_key: args.packets_per_key.unwrap_or(default.packets_per_key),
        max_idle_timeout: args.idle_timeout.unwrap_or(default.max_idle_timeout),
        handshake_timeout: args.idle_timeout.unwrap_or_default().max(default.handshake_timeout),
        congestion: match args.congestion {
            Congestion::Cubic => CongestionAlgorithm::Cubic,
            Congestion::NewReno => CongestionAlgorithm::NewReno,
            Congestion::Bbr => CongestionAlgorithm::Bbr,
        },
        max_udp_payload: most(IPV4_LEN),
        max_udp_payload_v6: args.addrs.iter().any(|c| c.addr.is_ipv6()).then(|| most(IPV6_LEN)),
        ..default
    }
}

/// A client's settings with what it takes to return to a server.
pub fn resuming(config: ClientConfig, args: &ResumeArgs) -> ClientConfig {
    if !args.is_wanted() {
        return config;
    }
    config.with_sessions(1).with_tokens(Arc::new(MemoryTokens::default())).with_early_data(args.early_data)
}

/// A server's settings, if `accept` with 0-RTT for all clients.
pub fn early_data(config: ServerConfig, accept: bool) -> ServerConfig {
    if accept { config.with_early_data(Arc::new(|_: &EarlyDataRequest<'_>| true)) } else { config }
}

/// A server's engine settings.
pub fn server_endpoint(args: &SecretArgs, retry: Retry) -> Result<EndpointConfig, Failure> {
    let mut config = match &args.secret {
        Some(path) => api::endpoint_config_with(&api::secret_file(path)?)?,
        None => api::endpoint_config()?,
    };
    config.retry = match retry {
        Retry::Auto => RetryPolicy::default(),
        Retry::Always => RetryPolicy::Always,
        Retry::Never => RetryPolicy::Never,
    };
    if let Some(lb) = &args.quic_lb {
        config.cid = routed_ids(lb)?;
    }
    Ok(config)
}

/// Connection IDs that load balancers route.
fn routed_ids(lb: &QuicLb) -> Result<CidConfig, Failure> {
    let key = match &lb.key {
        Some(path) => {
            let LbKey { key, exposed } = api::lb_key_file(path)?;
            if let Some(mode) = exposed {
                let path = path.display();
                tracing::warn!("the QUIC-LB key {path} is accessible to other users (mode {mode:04o}): chmod 600 it");
            }
            Some(key)
        }
        None => None,
    };
    Ok(CidConfig::routed(lb.config, &lb.server_id, lb.nonce, key.as_deref())?)
}

/// The address of `target`. Names are resolved by the system; the first of several addresses that this port has a route
/// to is used. A missing route is reported before a port is opened.
pub fn resolve(target: &HostPort, args: &EngineArgs) -> Result<SocketAddr, Failure> {
    let net = net_config(args, None)?;
    let check = |ip: IpAddr| net.source_for(ip).map_err(|e| e.to_string());
    if let Some(ip) = target.ip() {
        check(ip).map_err(Usage)?;
        return Ok(SocketAddr::new(ip, target.port));
    }
    let found = (target.host.as_str(), target.port)
        .to_socket_addrs()
        .map_err(|e| format!("unknown host {}: {e}; use its IP address, or add it to /etc/hosts", target.host))?;
    let mut problems = Vec::new();
    for addr in found {
        match check(addr.ip()) {
            Ok(_) => return Ok(addr),
            Err(problem) => problems.push(problem),
        }
    }
    if problems.is_empty() {
        return Err(format!("{} has no address", target.host).into());
    }
    Err(Usage(format!("{} cannot be reached: {}", target.host, problems.join("; "))).into())
}

/// Checks that this process may run on each of the CPUs that `flag` names.
pub fn check_cpus(flag: &str, cpus: impl IntoIterator<Item = usize>) -> Result<(), Failure> {
    let ids = cpus::allowed();
    let Some(cpu) = cpus.into_iter().find(|cpu| !ids.contains(cpu)) else { return Ok(()) };
    let list: Vec<String> = ids.iter().map(usize::to_string).collect();
    let (s, last) = if list.len() == 1 { ("", "that one") } else { ("s", "one of them") };
    Err(Usage(format!("{flag} {cpu}: this process may run on CPU{s} {}; give {last}", list.join(", "))).into())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        engine: EngineArgs,
    }

    #[test]
    fn each_ip_version_has_its_own_largest_datagram() {
        let sizes = |line: &str| {
            let args = Line::parse_from(format!("gannet --port memif0 {line}").split(' ')).engine;
            let caps = Caps { mac: [2, 0, 0, 0, 0, 1], mtu: 1500, tx_ip_checksum: false, tx_udp_checksum: false };
            let config = transport(&args, &caps, 1);
            (config.max_udp_payload, config.max_udp_payload_v6)
        };
        assert_eq!(sizes("--addr 10.0.0.1/24"), (1472, None));
        assert_eq!(sizes("--addr 10.0.0.1/24 --addr 2001:db8::1/64"), (1472, Some(1452)));
        let wish = "--addr 10.0.0.1/24 --addr 2001:db8::1/64 --max-udp-payload";
        assert_eq!(sizes(&format!("{wish} 1460")), (1460, Some(1452)));
        assert_eq!(sizes(&format!("{wish} 1300")), (1300, Some(1300)));
    }

    #[test]
    fn windows_follow_from_the_memory_of_a_core() {
        let queue = |line: &str, cores| {
            let args = Line::parse_from(format!("gannet --port memif0 --addr 10.0.0.1/24{line}").split(' ')).engine;
            let caps = Caps { mac: [2, 0, 0, 0, 0, 1], mtu: 1500, tx_ip_checksum: false, tx_udp_checksum: false };
            transport(&args, &caps, cores).max_send_budget
        };
        assert_eq!(queue("", 4), TransportConfig::default().max_send_budget);
        assert_eq!([queue(" --memory 8G", 1), queue(" --memory 8G", 4)], [2 << 30, 512 << 20]);
        assert!(Line::try_parse_from("gannet --port memif0 --addr 10.0.0.1/24 --memory 1M".split(' ')).is_err());
    }
}
