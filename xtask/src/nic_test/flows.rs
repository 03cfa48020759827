//! Many flows to a server with several cores: who serves them, and where receive side scaling should steer them.
//!
//! The hash is computed here once more, so that the program's own computation and the emulated device's are compared
//! with a third.

use std::net::{IpAddr, SocketAddr};

use super::guest::Guest;
use super::lab::JOB;
use crate::error::{Error, Result};

/// A connection as its server logged it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// The core that accepted it, which is the one that received its first packet.
    pub core: u32,
    /// The client's address and UDP port.
    pub peer: SocketAddr,
}

/// The connections in the server's log, in order.
///
/// # Errors
/// If the machine does not answer, or a line cannot be understood.
pub fn accepted(server: &mut Guest) -> Result<Vec<Flow>> {
    let said = server.call(&format!("sed -n 's/.*: new connection //p' /tmp/job/{JOB}.err"))?;
    let unclear = |line: &String| Error::Unmet(format!("the server logged a connection as `{line}`"));
    said.lines.iter().map(|line| Flow::parse(line).ok_or_else(|| unclear(line))).collect()
}

/// How the server's port steers packets, according to the server's log.
///
/// # Errors
/// If the machine does not answer, or nothing that can be understood was logged.
pub fn steering(server: &mut Guest) -> Result<Steering> {
    let said = server.call(&format!("sed -n 's/.*steering=//p' /tmp/job/{JOB}.err"))?;
    let line = said.lines.first().map_or("", String::as_str);
    Steering::parse(line).ok_or_else(|| Error::Unmet(format!("the server logged its port's steering as `{line}`")))
}

impl Flow {
    /// Parses `conn=CORE:INDEX.GENERATION peer=ADDRESS:PORT`; core 0 is left out.
    fn parse(line: &str) -> Option<Self> {
        let value = |key: &str| line.split_whitespace().find_map(|word| word.strip_prefix(key));
        let core = value("conn=")?.split_once(':').map_or(Some(0), |(core, _)| core.parse().ok())?;
        Some(Self { core, peer: value("peer=")?.parse().ok()? })
    }
}

/// The key and the table of a device.
#[derive(Debug, PartialEq, Eq)]
pub struct Steering {
    key: Vec<u8>,
    table: Vec<u32>,
}

impl Steering {
    /// Parses `key HEX, table QUEUE…, IPv4 ports, IPv6 ports`.
    fn parse(line: &str) -> Option<Self> {
        let parts: Vec<_> = line.trim().split(", ").collect();
        let [key, table, "IPv4 ports", "IPv6 ports"] = parts[..] else { return None };
        let hex = key.strip_prefix("key ")?;
        let bytes = (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(hex.get(i..i + 2)?, 16).ok());
        let queues = table.strip_prefix("table ")?.split(' ').map(|queue| queue.parse().ok());
        Some(Self { key: bytes.collect::<Option<_>>()?, table: queues.collect::<Option<_>>()? })
    }

    /// The queue at which datagrams from `from` to `to` should arrive.
    pub fn queue(&self, from: SocketAddr, to: SocketAddr) -> Option<u32> {
        let octets = |ip: IpAddr| match ip {
            IpAddr::V4(ip) => ip.octets().to_vec(),
            IpAddr::V6(ip) => ip.octets().to_vec(),
        };
        let ports = [from.port().to_be_bytes(), to.port().to_be_bytes()].concat();
        let hash = toeplitz(&self.key, &[octets(from.ip()), octets(to.ip()), ports].concat());
        self.table.get(hash as usize % self.table.len().max(1)).copied()
    }
}

/// For each bit set in the input, the 32 bits of the key from there on, added without carry.
fn toeplitz(key: &[u8], input: &[u8]) -> u32 {
    let bit = |bytes: &[u8], i: usize| bytes.get(i / 8).is_some_and(|byte| byte >> (7 - i % 8) & 1 != 0);
    let window = |at: usize| (at..at + 32).fold(0, |window, i| window << 1 | u32::from(bit(key, i)));
    (0..8 * input.len()).filter(|i| bit(input, *i)).fold(0, |hash, i| hash ^ window(i))
}

/// Checks that each of `cores` cores accepted some of the connections, and that there are `wanted` from different ports.
///
/// # Errors
/// If not.
pub fn all_serve(flows: &[Flow], wanted: usize, cores: u32) -> Result<()> {
    let mut peers: Vec<_> = flows.iter().map(|flow| flow.peer).collect();
    peers.sort_unstable();
    peers.dedup();
    if (flows.len(), peers.len()) != (wanted, wanted) {
        let (flows, peers) = (flows.len(), peers.len());
        return Err(Error::Unmet(format!("{wanted} flows were started, and {flows} from {peers} ports accepted")));
    }
    match (0..cores).find(|core| flows.iter().all(|flow| flow.core != *core)) {
        None => Ok(()),
        Some(core) => Err(Error::Unmet(format!("none of {wanted} flows came to core {core}"))),
    }
}

/// Checks that each connection was accepted by the core of the queue at which its packets should arrive.
///
/// # Errors
/// If not.
pub fn as_predicted(flows: &[Flow], steering: &Steering, server: &[SocketAddr]) -> Result<()> {
    for Flow { core, peer } in flows {
        let to = server.iter().find(|to| to.is_ipv4() == peer.is_ipv4());
        let queue = to.and_then(|to| steering.queue(*peer, *to));
        if queue != Some(*core) {
            let queue = queue.map_or_else(|| "none".into(), |queue| queue.to_string());
            return Err(Error::Unmet(format!("{peer} came to core {core}: predicted was {queue}")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The key of Microsoft's verification suite.
    const KEY: &str = "6d5a56da255b0ec24167253d43a38fb0d0ca2bcbae7b30b477cb2da38030f20c6a42b73bbeac01fa";

    fn line(fields: &str) -> String {
        let table: Vec<_> = (0..128).map(|i| i.to_string()).collect();
        format!("key {KEY}, table {}, {fields}", table.join(" "))
    }

    #[test]
    fn queues_are_those_of_the_verification_suite() {
        let steering = Steering::parse(&line("IPv4 ports, IPv6 ports")).unwrap();
        for (to, from, hash) in [
            ("161.142.100.80:1766", "66.9.149.187:2794", 0x51cc_c178u32),
            ("65.69.140.83:4739", "199.92.111.2:14230", 0xc626_b0ea),
            ("[3ffe:2501:200:3::1]:1766", "[3ffe:2501:200:1fff::7]:2794", 0x4020_7d3d),
        ] {
            let queue = steering.queue(from.parse().unwrap(), to.parse().unwrap());
            assert_eq!(queue, Some(hash % 128), "{from}");
        }
    }

    #[test]
    fn only_devices_that_look_at_ports_are_predicted() {
        assert_eq!(Steering::parse(&line("IPv4 ports, IPv6 addresses")), None);
        assert_eq!(Steering::parse("key 6d5, table 0, IPv4 ports, IPv6 ports"), None);
        assert_eq!(Steering::parse("spread over 4 cores"), None);
        assert_eq!(Steering::parse(""), None);
    }

    #[test]
    fn connections_are_read_from_the_log() {
        let flow = |core, peer: &str| Some(Flow { core, peer: peer.parse().unwrap() });
        assert_eq!(Flow::parse("conn=2:17.0 peer=10.77.0.2:50003"), flow(2, "10.77.0.2:50003"));
        assert_eq!(Flow::parse("conn=17.3 peer=[fd77::2]:50003"), flow(0, "[fd77::2]:50003"));
        assert_eq!(Flow::parse("conn=x:17.3 peer=[fd77::2]:50003"), None);
        assert_eq!(Flow::parse("conn=17.3"), None);
    }

    #[test]
    fn idle_cores_lost_flows_and_wrong_queues_are_found() {
        let steering = Steering { key: vec![0; 40], table: vec![1] };
        let server = ["10.77.0.1:4433".parse().unwrap()];
        let flow = |core, port| Flow { core, peer: SocketAddr::from(([10, 77, 0, 2], port)) };
        let good = [flow(1, 1), flow(0, 2)];
        all_serve(&good, 2, 2).unwrap();
        let why = |flows: &[Flow], wanted, cores| all_serve(flows, wanted, cores).unwrap_err().to_string();
        assert_eq!(why(&good, 2, 3), "none of 2 flows came to core 2");
        assert_eq!(why(&good, 3, 2), "3 flows were started, and 2 from 2 ports accepted");
        assert_eq!(why(&[flow(0, 1), flow(1, 1)], 2, 2), "2 flows were started, and 2 from 1 ports accepted");
        as_predicted(&good[..1], &steering, &server).unwrap();
        let error = as_predicted(&good, &steering, &server).unwrap_err().to_string();
        assert_eq!(error, "10.77.0.2:2 came to core 0: predicted was 1");
        let six = [Flow { core: 1, peer: "[fd77::2]:1".parse().unwrap() }];
        assert!(as_predicted(&six, &steering, &server).is_err(), "there is no such address");
    }
}
