//! The test cases. Those with names of quic-interop-runner check what it checks, with smaller files.

use std::time::Duration;

use gannet::sim::forwarder::{ForwarderConfig, Outage, PER_MILLE, Rebinding, Shape};

use crate::decode::{self, Decoded};
use crate::error::Result;
use crate::evidence::Evidence;
use crate::lab::PREFERRED;
use crate::peer::Peer;
use crate::sight::{Kind, V1, V2};

/// Fails with a text unless a condition holds.
macro_rules! ensure {
    ($condition:expr, $($text:tt)+) => {
        if !$condition {
            return Err(format!($($text)+).into());
        }
    };
}

const MS: fn(u64) -> Duration = Duration::from_millis;

/// A file on the server.
#[derive(Clone, Debug)]
pub struct Served {
    /// Its name.
    pub name: String,
    /// Its size in bytes.
    pub size: u64,
}

/// What may become of the client's request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// All files arrive.
    Success,
    /// All but the first file arrive: the client has stopped it.
    FirstStopped,
    /// All files arrive, but `missing`, which is requested as well, does not exist.
    OneMissing,
    /// There is no connection.
    Refused,
    /// The server is killed during the transfer.
    ServerKilled,
}

/// A test case.
#[derive(Clone)]
pub struct Case {
    /// Its name.
    pub name: &'static str,
    /// What it checks.
    pub about: &'static str,
    /// `TESTCASE` of both sides.
    pub testcase: &'static str,
    /// `TESTCASE` of the server, where it has to do something else.
    pub server: Option<&'static str>,
    /// The files.
    pub files: fn() -> Vec<Served>,
    /// The links.
    pub link: fn() -> ForwarderConfig,
    /// MTU of the links in bytes.
    pub mtu: u16,
    /// Whether IPv6 is used.
    pub v6: bool,
    /// Whether Gannet's port is AF_XDP rather than AF_PACKET.
    pub xdp: bool,
    /// Whether Gannet is started by the entry point of an image for quic-interop-runner.
    pub image: bool,
    /// Whether the server's certificate chain is big.
    pub big_chain: bool,
    /// The application protocol that the client asks for.
    pub alpn: &'static str,
    /// What is to happen.
    pub ending: Ending,
    /// Whether it makes sense with Gannet as the client.
    pub gannet_gets: bool,
    /// Whether it makes sense with Gannet as the server.
    pub gannet_serves: bool,
    /// Number of connections.
    pub connections: usize,
    /// Further checks.
    pub check: fn(&Evidence<'_>) -> Result<()>,
}

impl Case {
    /// Whether it makes sense without Gannet.
    pub const fn suits_all(&self) -> bool {
        !self.xdp && !self.image
    }
}

/// Files of these sizes, named by their numbers.
fn sizes(sizes: &[u64]) -> Vec<Served> {
    sizes.iter().enumerate().map(|(i, size)| Served { name: format!("file{i}"), size: *size }).collect()
}

/// The simple link of quic-interop-runner, ten times as fast: 15 ms each way, 100 Mbit/s, 25 packets of queue.
fn simple() -> Shape {
    Shape { delay: MS(15), rate: 100_000_000, queue: 100 * 1500, ..Shape::default() }
}

/// One that is slow enough for things to happen during a transfer.
fn slow() -> Shape {
    Shape { rate: 20_000_000, queue: 40 * 1500, ..simple() }
}

fn both(shape: Shape) -> ForwarderConfig {
    ForwarderConfig { to_server: shape.clone(), to_client: shape, ..ForwarderConfig::default() }
}

/// A NAT whose earlier mappings still work for what is in flight. Otherwise, a client that only receives would have no
/// reason to send, and the server would never hear of its new source.
fn rebinding(what: Rebinding) -> ForwarderConfig {
    let addresses = ["10.9.0.33", "10.9.0.34", "10.9.0.35", "fd00::33", "fd00::34", "fd00::35"];
    ForwarderConfig {
        rebindings: [400, 700, 1000].map(|ms| (MS(ms), what)).to_vec(),
        addresses: addresses.iter().filter_map(|ip| ip.parse().ok()).collect(),
        keeps_mappings: true,
        ..both(slow())
    }
}

const BASE: Case = Case {
    name: "",
    about: "",
    testcase: "transfer",
    server: None,
    files: || sizes(&[1024]),
    link: || both(simple()),
    mtu: 1500,
    v6: false,
    xdp: false,
    image: false,
    big_chain: false,
    alpn: "hq-interop",
    ending: Ending::Success,
    gannet_gets: true,
    gannet_serves: true,
    connections: 1,
    check: |_| Ok(()),
};

/// All cases.
pub fn all() -> Vec<Case> {
    vec![
        Case { name: "handshake", about: "one small file; one handshake, one version, no Retry", check: plain, ..BASE },
        Case {
            name: "transfer",
            about: "three files at once, with flow control",
            files: || sizes(&[2 << 20, 3 << 20, 5 << 20]),
            check: plain,
            ..BASE
        },
        Case {
            name: "longrtt",
            about: "1.5 s of round-trip time: handshakes take longer than the first timeouts",
            link: || both(Shape { delay: MS(750), ..simple() }),
            ..BASE
        },
        Case {
            name: "chacha20",
            about: "TLS_CHACHA20_POLY1305_SHA256 is offered and chosen",
            testcase: "chacha20",
            files: || sizes(&[1 << 20]),
            check: |e| {
                let suites = e.tls_column("tls.handshake.type==2", "tls.handshake.ciphersuite")?;
                ensure!(suites.contains("0x1303"), "the server chose {suites:?}");
                Ok(())
            },
            ..BASE
        },
        Case {
            name: "multiplexing",
            about: "50 files at once, each in a stream of its own",
            files: || sizes(&[4096; 50]),
            check: plain,
            ..BASE
        },
        Case {
            name: "retry",
            about: "the server asks for a token, the client returns with it",
            testcase: "retry",
            check: |e| {
                ensure!(e.sight().server.count(Kind::Retry) > 0, "there was no Retry packet");
                ensure!(e.sight().client.with_token > 0, "no Initial packet had a token");
                Ok(())
            },
            ..BASE
        },
        Case {
            name: "resumption",
            about: "the second connection resumes the session of the first: it has no certificate",
            testcase: "resumption",
            files: || sizes(&[5000, 6000]),
            connections: 2,
            check: |e| {
                let certificates = e.decoded()?.server.messages.get(&decode::CERTIFICATE).copied().unwrap_or(0);
                ensure!(certificates == 1, "{certificates} certificates were sent");
                Ok(())
            },
            ..BASE
        },
        Case {
            name: "newtoken",
            about: "the client begins a second connection with a token of the first (RFC 9000 §8.1.3)",
            testcase: "resumption",
            files: || sizes(&[5000, 6000]),
            connections: 2,
            check: |e| {
                let sent = e.decoded()?.server.count(decode::NEW_TOKEN);
                ensure!(sent > 0, "the server has sent no NEW_TOKEN");
                ensure!(e.sight().client.with_token > 0, "no Initial packet had a token");
                ensure!(e.sight().server.count(Kind::Retry) == 0, "there was a Retry packet");
                Ok(())
            },
            ..BASE
        },
        Case {
            name: "zerortt",
            about: "the requests of a second connection travel in 0-RTT packets",
            testcase: "zerortt",
            files: || sizes(&[1000; 20]),
            connections: 2,
            check: |e| {
                ensure!(e.sight().client.count(Kind::ZeroRtt) > 0, "there was no 0-RTT packet");
                Ok(())
            },
            ..BASE
        },
        Case {
            name: "blackhole",
            about: "nothing gets through for two seconds of a transfer",
            files: || sizes(&[3 << 20]),
            link: || {
                let outages = vec![Outage { from: MS(500), length: MS(2000), every: Duration::ZERO }];
                both(Shape { outages, ..slow() })
            },
            check: |e| {
                ensure!(e.view.stats.to_client.lost_outage > 0, "nothing was sent during the outage");
                plain(e)
            },
            ..BASE
        },
        Case {
            name: "keyupdate",
            about: "the client updates keys during a transfer, and the server follows",
            testcase: "keyupdate",
            files: || sizes(&[3 << 20]),
            link: || both(slow()),
            check: |e| {
                let Decoded { client, server } = e.decoded()?;
                ensure!(client.phases.len() == 2, "the client has not updated its keys");
                ensure!(server.phases.len() == 2, "the server has not updated its keys");
                Ok(())
            },
            ..BASE
        },
        Case {
            name: "ecn",
            about: "both sides send ECT(0) and report what arrives",
            testcase: "ecn",
            files: || sizes(&[1 << 20]),
            check: |e| {
                let Decoded { client, server } = e.decoded()?;
                for (name, sent, frames) in
                    [("client", &e.sight().client, client), ("server", &e.sight().server, server)]
                {
                    ensure!(sent.ecn[2] > 0, "the {name} has not sent ECT(0)");
                    ensure!(frames.count(decode::ACK_ECN) > 0, "the {name} has sent no ACK with ECN counts");
                }
                Ok(())
            },
            ..BASE
        },
        Case {
            name: "ecnmarks",
            about: "a tenth of all packets is marked \"congestion experienced\" on the way",
            testcase: "ecn",
            files: || sizes(&[1 << 20]),
            link: || both(Shape { marks: 100 * PER_MILLE, ..simple() }),
            check: |e| {
                ensure!(e.view.stats.to_client.marked > 0, "no packet of the server was marked");
                ensure!(e.decoded()?.client.count(decode::ACK_ECN) > 0, "the client does not report marks");
                Ok(())
            },
            ..BASE
        },
        Case {
            name: "ecnbleached",
            about: "ECN codepoints are cleared on the way",
            testcase: "ecn",
            files: || sizes(&[1 << 20]),
            link: || both(Shape { bleach: true, ..simple() }),
            check: |e| {
                ensure!(e.view.stats.to_client.bleached > 0, "no packet of the server had a codepoint");
                ensure!(e.sight().server.ecn[0] > 0, "the server goes on to mark all packets as ECN-capable");
                Ok(())
            },
            ..BASE
        },
        Case {
            name: "amplificationlimit",
            about: "a big chain, and the client's second to seventh datagrams are lost",
            big_chain: true,
            files: || sizes(&[5000]),
            link: || {
                let mut config = both(simple());
                config.to_server.drops = vec![2..=7];
                config
            },
            ..BASE
        },
        Case {
            name: "handshakeloss",
            about: "five connections, with 30 % of loss",
            testcase: "multiconnect",
            files: || sizes(&[1024; 5]),
            link: || both(Shape { loss: 300 * PER_MILLE, loss_run: 3, ..simple() }),
            connections: 5,
            ..BASE
        },
        Case {
            name: "handshakecorruption",
            about: "five connections, with 30 % of the datagrams damaged",
            testcase: "multiconnect",
            files: || sizes(&[1024; 5]),
            link: || both(Shape { corrupt: 300 * PER_MILLE, corrupt_run: 3, ..simple() }),
            connections: 5,
            ..BASE
        },
        Case {
            name: "transferloss",
            about: "2 % of loss",
            files: || sizes(&[2 << 20]),
            link: || both(Shape { loss: 20 * PER_MILLE, loss_run: 3, ..simple() }),
            ..BASE
        },
        Case {
            name: "transfercorruption",
            about: "2 % of the datagrams are damaged",
            files: || sizes(&[2 << 20]),
            link: || both(Shape { corrupt: 20 * PER_MILLE, corrupt_run: 3, ..simple() }),
            ..BASE
        },
        Case {
            name: "ipv6",
            about: "a transfer over IPv6",
            v6: true,
            files: || sizes(&[5000, 1 << 20]),
            check: plain,
            ..BASE
        },
        Case {
            name: "v2",
            about: "the client begins with version 1, and the server chooses version 2 (RFC 9368 §2.3)",
            testcase: "v2",
            check: |e| {
                for (name, sent) in [("client", &e.sight().client), ("server", &e.sight().server)] {
                    ensure!(sent.handshake_versions.contains(&V2), "the {name} has no Handshake packet of version 2");
                }
                ensure!(e.sight().client.versions.contains(&V1), "the client has not begun with version 1");
                Ok(())
            },
            ..BASE
        },
        Case {
            name: "rebind-port",
            about: "a NAT gives the client another port, three times during a transfer",
            server: Some("migration"),
            files: || sizes(&[4 << 20]),
            link: || rebinding(Rebinding::Port),
            check: rebound,
            ..BASE
        },
        Case {
            name: "rebind-addr",
            about: "a NAT gives the client another address, three times during a transfer",
            server: Some("migration"),
            files: || sizes(&[4 << 20]),
            link: || rebinding(Rebinding::Address),
            check: rebound,
            ..BASE
        },
        Case {
            name: "rebind-lost",
            about: "a NAT gives the client another port, and drops what arrives at the old one: the client's PING is what helps",
            server: Some("migration"),
            files: || sizes(&[4 << 20]),
            link: || ForwarderConfig { keeps_mappings: false, ..rebinding(Rebinding::Port) },
            // Other clients do not send PING frames by themselves.
            gannet_serves: false,
            check: rebound,
            ..BASE
        },
        Case {
            name: "connectionmigration",
            about: "the client moves to another port, with another connection ID",
            testcase: "migration",
            files: || sizes(&[4 << 20]),
            link: || both(slow()),
            check: |e| {
                let sources = &e.sight().sources;
                ensure!(sources.len() > 1, "the client has not moved");
                let shared = sources[0].shared_ids(&sources[1]);
                ensure!(shared == 0, "{shared} connection IDs were used on both paths");
                rebound(e)
            },
            ..BASE
        },
        Case {
            name: "preferredaddress",
            about: "the server prefers another of its addresses, and the client moves there (RFC 9000 §9.6)",
            server: Some("preferredaddress"),
            files: || sizes(&[4 << 20]),
            link: || both(slow()),
            // The clients of the others stay where they are.
            gannet_serves: false,
            check: |e| {
                let to = format!("quic && ip.dst=={PREFERRED} && quic.frame_type in {{2, 3}}");
                ensure!(!e.tls_column(&to, "frame.number")?.is_empty(), "no ACK went to the preferred address");
                let Decoded { client, server } = e.decoded()?;
                ensure!(client.count(decode::PATH_CHALLENGE) > 0, "the client has validated no path");
                ensure!(server.count(decode::PATH_RESPONSE) > 0, "the server has not answered PATH_CHALLENGE");
                Ok(())
            },
            ..BASE
        },
        Case {
            name: "bigchain",
            about: "a certificate chain of more than three times the client's first datagram",
            big_chain: true,
            check: plain,
            ..BASE
        },
        Case {
            name: "files500",
            about: "500 files over one connection: more than the peer's limit of streams",
            files: || sizes(&[700; 500]),
            check: plain,
            ..BASE
        },
        Case {
            name: "exactsizes",
            about: "files of the sizes of buffers, packets and varints, and one byte more or less",
            files: || {
                let mut all = vec![0, 1, 2];
                for edge in [64, 1200, 16_384, 65_536, 262_144, 1 << 20] {
                    all.extend([edge - 1, edge, edge + 1]);
                }
                sizes(&all)
            },
            check: plain,
            ..BASE
        },
        Case {
            name: "stopsending",
            about: "the client stops a stream in the middle, then fetches another file",
            testcase: "stopsending",
            server: Some("transfer"),
            files: || sizes(&[3 << 20, 100_000]),
            link: || both(slow()),
            ending: Ending::FirstStopped,
            // `gannet get` stops no stream.
            gannet_gets: false,
            check: |e| {
                let Decoded { client, server } = e.decoded()?;
                ensure!(client.count(decode::STOP_SENDING) > 0, "the client has sent no STOP_SENDING");
                ensure!(server.count(decode::RESET_STREAM) > 0, "the server has sent no RESET_STREAM");
                Ok(())
            },
            ..BASE
        },
        Case {
            name: "reset",
            about: "the server resets the stream of one request; the others succeed",
            testcase: "reset",
            files: || sizes(&[100_000, 1000]),
            ending: Ending::OneMissing,
            check: |e| {
                ensure!(e.decoded()?.server.count(decode::RESET_STREAM) > 0, "the server has sent no RESET_STREAM");
                Ok(())
            },
            ..BASE
        },
        Case {
            name: "closecode",
            about: "the client closes the connection with application error 0",
            check: |e| {
                let codes = &e.decoded()?.client.app_codes;
                ensure!(codes.contains(&0), "the client's closes have the application error codes {codes:?}");
                Ok(())
            },
            ..BASE
        },
        Case {
            name: "badalpn",
            about: "without a common application protocol, the server refuses with error 0x178",
            alpn: "other",
            ending: Ending::Refused,
            // `gannet get` speaks nothing else.
            gannet_gets: false,
            check: |e| {
                let codes = &e.decoded()?.server.codes;
                ensure!(codes.contains(&0x178), "the server's closes have the error codes {codes:x?}");
                Ok(())
            },
            ..BASE
        },
        Case {
            name: "mtu1280",
            about: "links with an MTU of 1280 bytes",
            mtu: 1280,
            files: || sizes(&[1 << 20]),
            check: |e| {
                let longest = e.sight().client.longest.max(e.sight().server.longest);
                ensure!(longest <= 1252, "a datagram had {longest} bytes");
                plain(e)
            },
            ..BASE
        },
        Case {
            name: "mtu9000",
            about: "links with an MTU of 9000 bytes",
            mtu: 9000,
            files: || sizes(&[3 << 20]),
            check: plain,
            ..BASE
        },
        Case {
            name: "mtufalls",
            about: "the MTU of the path falls to 1280 bytes during a transfer, without a word",
            files: || sizes(&[4 << 20]),
            link: || both(Shape { later_mtu: Some((MS(500), 1280)), ..slow() }),
            ..BASE
        },
        Case {
            name: "serverkilled",
            about: "the server is killed during a transfer: the client notices and leaves no file",
            files: || sizes(&[20 << 20]),
            link: || both(slow()),
            ending: Ending::ServerKilled,
            // What a peer's client does then does not depend on Gannet.
            gannet_serves: false,
            ..BASE
        },
        Case {
            name: "delayedacks",
            about: "the peer delays acknowledgements by up to 200 ms",
            testcase: "delayedacks",
            files: || sizes(&[1 << 20]),
            ..BASE
        },
        Case {
            name: "ackfrequency",
            about: "both ends ask for fewer acknowledgements (draft-ietf-quic-ack-frequency)",
            testcase: "ackfrequency",
            files: || sizes(&[4 << 20]),
            link: || both(slow()),
            check: |e| {
                let asked = e.decoded()?.server.count(decode::ACK_FREQUENCY);
                ensure!(asked > 0, "the server has sent no ACK_FREQUENCY");
                let (data, acks) = (e.sight().server.datagrams, e.sight().client.datagrams);
                ensure!(acks < data / 4, "{acks} datagrams of the client for {data} of the server");
                Ok(())
            },
            ..BASE
        },
        Case {
            name: "datagrams",
            about: "DATAGRAM frames go to the server and come back (RFC 9221)",
            testcase: "datagrams",
            files: Vec::new,
            alpn: "perf",
            check: |e| {
                let Decoded { client, server } = e.decoded()?;
                for (name, frames) in [("client", client), ("server", server)] {
                    let sent: usize = decode::DATAGRAM.iter().map(|kind| frames.count(*kind)).sum();
                    ensure!(sent >= 100, "the {name} has sent {sent} DATAGRAM frames");
                }
                Ok(())
            },
            ..BASE
        },
        Case {
            name: "earlyloss",
            about: "the second and third datagrams of either side are lost: flights arrive with holes",
            files: || sizes(&[100_000]),
            link: || both(Shape { drops: vec![2..=3], ..simple() }),
            ..BASE
        },
        Case {
            name: "reordering",
            about: "a tenth of the datagrams is held back, a twentieth arrives twice, the delay varies",
            files: || sizes(&[1 << 20]),
            link: || {
                both(Shape {
                    reorder: 100 * PER_MILLE,
                    held: MS(20),
                    duplicate: 50 * PER_MILLE,
                    jitter: MS(3),
                    ..simple()
                })
            },
            ..BASE
        },
        Case {
            name: "narrow",
            about: "5 Mbit/s with a queue of 10 packets",
            files: || sizes(&[1 << 20]),
            link: || both(Shape { rate: 5_000_000, queue: 15_000, ..simple() }),
            check: plain,
            ..BASE
        },
        Case {
            name: "xdp",
            about: "a transfer with Gannet's port on AF_XDP",
            xdp: true,
            files: || sizes(&[2 << 20]),
            check: plain,
            ..BASE
        },
        Case {
            name: "image",
            about: "a transfer with Gannet started by the entry point of an image for quic-interop-runner",
            image: true,
            files: || sizes(&[2 << 20, 1000]),
            check: plain,
            ..BASE
        },
    ]
}

/// A connection of one version without Retry and without 0-RTT. Where both ends know version 2, servers may choose it.
fn plain(evidence: &Evidence<'_>) -> Result<()> {
    let sight = evidence.sight();
    ensure!(sight.server.count(Kind::Retry) == 0, "there was a Retry packet");
    ensure!(sight.client.count(Kind::ZeroRtt) == 0, "there was a 0-RTT packet");
    let versions = &sight.server.handshake_versions;
    let known = versions.contains(&V1) || versions.contains(&V2);
    ensure!(versions.len() == 1 && known, "versions on the wire: {versions:x?}");
    Ok(())
}

/// The server has validated the client's new addresses.
fn rebound(evidence: &Evidence<'_>) -> Result<()> {
    let sources = evidence.sight().sources.len();
    ensure!(sources > 1, "the server has seen one address only");
    let Decoded { client, server } = evidence.decoded()?;
    let (asked, answered) = (server.count(decode::PATH_CHALLENGE), client.count(decode::PATH_RESPONSE));
    ensure!(asked > 0, "the server has validated no path");
    ensure!(answered > 0, "the client has not answered PATH_CHALLENGE");
    Ok(())
}

/// What every case checks, beyond its files.
///
/// # Errors
/// The first that is violated.
pub fn common(case: &Case, evidence: &Evidence<'_>) -> Result<()> {
    let sight = evidence.sight();
    if evidence.server == Peer::Gannet {
        for source in &sight.sources {
            let (sent, received) = source.before_validation;
            ensure!(
                source.kept_limit(),
                "Gannet sent {sent} bytes to {} before it was validated, after {received} bytes from there",
                source.address
            );
        }
    }
    if evidence.client == Peer::Gannet
        && let Some(least) = sight.client.smallest_initial
    {
        ensure!(least >= 1200, "Gannet sent an Initial packet in a datagram of {least} bytes");
    }
    let handshakes = sight.server.handshakes();
    ensure!(handshakes > 0 || case.ending == Ending::Refused, "there was no handshake");
    if case.ending == Ending::Success {
        ensure!(handshakes == case.connections, "there were {handshakes} handshakes");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_unique_and_the_runners_are_there() {
        let names: BTreeSet<_> = all().iter().map(|case| case.name).collect();
        assert_eq!(names.len(), all().len());
        for name in [
            "handshake",
            "transfer",
            "longrtt",
            "chacha20",
            "multiplexing",
            "retry",
            "resumption",
            "zerortt",
            "blackhole",
            "keyupdate",
            "ecn",
            "amplificationlimit",
            "handshakeloss",
            "handshakecorruption",
            "transferloss",
            "transfercorruption",
            "ipv6",
            "v2",
            "rebind-port",
            "rebind-addr",
            "connectionmigration",
        ] {
            assert!(names.contains(name), "{name}");
        }
        assert!(all().iter().all(|case| !case.about.is_empty()));
    }
}
