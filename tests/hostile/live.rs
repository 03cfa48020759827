//! Attackers who see every datagram of a transfer and send forgeries, pieces, copies and replays of them.

use gannet::base::Side;
use gannet::base::rng::Rng;
use gannet::base::time::Duration;
use gannet::mem::PinnedBuf;
use gannet::quic::{Dir, DropReason, Event, SendData, StreamId, TransportConfig};

use super::world::{Host, addr};

/// Initial contents of provided memory. No byte of the file is like it.
const POISON: u8 = 0xa5;

const FILE: usize = 300_000;

/// Size of the buffers provided for it.
const BUFFER: usize = 7_001;
const BUFFERS: usize = 60;

fn file() -> Vec<u8> {
    (0..FILE).map(|i| (i ^ i >> 8 ^ i >> 15) as u8).map(|b| if b == POISON { !b } else { b }).collect()
}

fn transport() -> TransportConfig {
    TransportConfig { stream_window_bidi_local: 0, ..TransportConfig::default() }
}

/// Sends anything, having seen everything.
struct Attacker {
    rng: Rng,
    seen: Vec<(Side, Vec<u8>)>,
}

impl Attacker {
    fn random(&mut self, n: usize) -> Vec<u8> {
        let mut bytes = vec![0; n];
        self.rng.fill(&mut bytes);
        bytes
    }

    /// Some manipulations of a datagram for `to`.
    fn attack(&mut self, hosts: &mut [Host; 2], to: Side, real: &[u8]) {
        let host = |hosts: &mut [Host; 2], to: Side, mut data: Vec<u8>| {
            let host = &mut hosts[usize::from(to == Side::Server)];
            host.receive_from(addr(to.peer()), &mut data);
        };
        // A copy from another address, ahead of the real one.
        let elsewhere = "198.51.100.7:4433".parse().unwrap();
        hosts[usize::from(to == Side::Server)].receive_from(elsewhere, &mut real.to_vec());
        // The header is real, the rest is not.
        let len = 30 + self.rng.below(1300) as usize;
        let mut forged = [&real[..real.len().min(9)], &self.random(len)].concat();
        forged[0] = real[0] ^ (self.rng.next_u64() as u8 & 0x1f);
        host(hosts, to, forged);
        // A bit is flipped.
        let mut flipped = real.to_vec();
        let bit = self.rng.below(8 * real.len() as u64) as usize;
        flipped[bit / 8] ^= 1 << (bit % 8);
        host(hosts, to, flipped);
        // The end is missing or different.
        let cut = self.rng.below(real.len() as u64) as usize;
        host(hosts, to, real[..cut].to_vec());
        let tail = self.random(real.len() - cut);
        host(hosts, to, [&real[..cut], &tail].concat());
        host(hosts, to, [real, &self.random(40)].concat());
        // To the wrong end, and replays of old ones.
        host(hosts, to.peer(), real.to_vec());
        for _ in 0..2 {
            if !self.seen.is_empty() {
                let i = self.rng.below(self.seen.len() as u64) as usize;
                let (side, old) = self.seen[i].clone();
                host(hosts, side, old);
            }
        }
        self.seen.push((to, real.to_vec()));
    }
}

/// What was returned to the client: stream offset, buffer, valid bytes.
type Returned = Vec<(u64, PinnedBuf, usize)>;

struct Transfer {
    hosts: [Host; 2],
    attacker: Attacker,
    file: Vec<u8>,
    stream: Option<StreamId>,
    returned: Returned,
    finished: bool,
    progress: u64,
}

impl Transfer {
    fn new(seed: u64) -> Self {
        Self {
            hosts: [Host::client(transport()), Host::server(transport())],
            attacker: Attacker { rng: Rng::from_u64(seed), seen: Vec::new() },
            file: file(),
            stream: None,
            returned: Vec::new(),
            finished: false,
            progress: 0,
        }
    }

    /// The client requests the file as soon as it is connected; the server sends it.
    fn applications(&mut self) {
        let [client, server] = &mut self.hosts;
        for (conn, event) in client.events.extract_if(.., |(_, e)| !matches!(e, Event::Closed { .. })) {
            match event {
                Event::Connected { .. } => {
                    let mut conn = client.endpoint.conn(conn).unwrap();
                    let id = conn.open(Dir::Bidi).unwrap();
                    let poisoned = || {
                        let mut buf = PinnedBuf::unpinned(BUFFER);
                        buf.fill(POISON);
                        buf
                    };
                    conn.provide_receive_buffers(id, (0..BUFFERS).map(|_| poisoned()).collect()).unwrap();
                    conn.send(id, SendData::Static(b"the file"), true).unwrap();
                    self.stream = Some(id);
                }
                Event::Buffer { buf, offset, valid, .. } => self.returned.push((offset, buf, valid)),
                Event::Finished { size, .. } => {
                    assert_eq!(size, FILE as u64);
                    self.finished = true;
                }
                Event::Progress { contiguous, .. } => self.progress = contiguous,
                _ => {}
            }
        }
        for (conn, event) in server.events.extract_if(.., |(_, e)| !matches!(e, Event::Closed { .. })) {
            if let Event::StreamOpened { id } = event {
                let data = SendData::Bytes(self.file.clone().into());
                server.endpoint.conn(conn).unwrap().send(id, data, true).unwrap();
            }
        }
    }

    /// One round trip, with the attacker's datagrams around each real one.
    fn round(&mut self) {
        for index in [0, 1] {
            let said = self.hosts[index].run();
            let to = self.hosts[1 - index].side;
            for (transmit, datagram) in said {
                if transmit.conn.is_none() {
                    // Resets provoked by the attacker go to whoever caused them.
                    continue;
                }
                self.attacker.attack(&mut self.hosts, to, &datagram);
                self.hosts[1 - index].receive(datagram);
            }
        }
        self.applications();
        for host in &mut self.hosts {
            host.now += Duration::from_micros(500);
        }
    }

    fn check_buffers(&mut self) {
        self.returned.sort_by_key(|(offset, ..)| *offset);
        assert_eq!(self.returned.len(), BUFFERS, "every buffer comes back once");
        let mut at = 0;
        for (offset, buf, valid) in &self.returned {
            assert_eq!((*offset, buf.len()), (at, BUFFER));
            at += BUFFER as u64;
            let start = *offset as usize;
            assert!(start + valid <= FILE || *valid == 0);
            assert_eq!(buf[..*valid], self.file[start.min(FILE)..][..*valid]);
            for (i, byte) in buf.iter().enumerate().skip(*valid) {
                let real = self.file.get(start + i);
                // Beyond a gap, a packet's bytes may be there, but never anyone else's.
                assert!(*byte == POISON || Some(byte) == real, "offset {}: {byte:#x}", start + i);
                assert!(!self.finished || *byte == POISON, "written behind the end");
            }
        }
    }
}

#[test]
fn a_transfer_under_fire_completes() {
    for seed in 0..3 {
        let mut t = Transfer::new(seed);
        for _ in 0..2000 {
            if t.finished {
                break;
            }
            t.round();
        }
        assert!(t.hosts.iter().all(|host| host.closed().is_none()), "{:?}", t.hosts.each_ref().map(Host::closed));
        assert!(t.finished, "seed {seed}: {} bytes arrived, {:?}", t.progress, t.hosts[0].endpoint.stats());
        t.check_buffers();
        let valid: usize = t.returned.iter().map(|(.., valid)| valid).sum();
        assert_eq!(valid, FILE);
        let stats = t.hosts[0].endpoint.stats();
        assert_eq!((stats.placement.direct + stats.placement.staged, stats.placement.copied), (FILE as u64, 0));
        for why in [DropReason::Authentication, DropReason::Duplicate, DropReason::WrongPath] {
            assert!(stats.drops[why as usize] > 100, "the attack must have happened: {stats:?}");
        }
        // The copy of the first packet from another address has a handshake of its own for a while.
        t.hosts[1].wait(Duration::from_secs(15));
        assert_eq!(t.hosts[1].endpoint.connection_count(), 1, "copies make no connections that stay");
    }
}

#[test]
fn a_transfer_that_ends_under_fire_leaves_memory_clean() {
    let mut t = Transfer::new(9);
    for _ in 0..2000 {
        if t.progress > FILE as u64 / 3 {
            break;
        }
        t.round();
    }
    assert!(t.progress > FILE as u64 / 3 && !t.finished);
    let id = t.hosts[0].conn.unwrap();
    t.hosts[0].endpoint.conn(id).unwrap().close(5, "enough");
    t.round();
    t.round();
    t.check_buffers();
    assert!(t.hosts.iter().all(|host| host.closed().is_some()));
}
