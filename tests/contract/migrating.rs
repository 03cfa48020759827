//! Two engines whose addresses change: NATs that rebind, clients that move, servers that prefer another address (RFC
//! 9000 §9).

use std::collections::HashMap;
use std::net::SocketAddr;

use bytes::Bytes;
use gannet::base::Side;
use gannet::base::time::{Duration, Instant};
use gannet::quic::{Dir, Event, MigrateError, PreferredAddress, RxMeta, SendData, StreamId, Transmit, TransportConfig};

use super::world::{Host, addr, client_addr, server_addr};

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// A datagram in flight: its addresses as its receiver sees them, and its bytes.
struct Flying {
    at: Instant,
    to: Side,
    meta: RxMeta,
    data: Vec<u8>,
}

/// The local and the remote address of a datagram, as its sender sees them.
type Ends = (SocketAddr, SocketAddr);

/// A client behind a NAT and a server, with a delay of 5 ms between them.
struct World {
    hosts: [Host; 2],
    /// What the server sees instead of the client's addresses; others are not translated.
    nat: HashMap<SocketAddr, SocketAddr>,
    /// Addresses of the client whose datagrams get lost.
    dead: Vec<SocketAddr>,
    flying: Vec<Flying>,
    /// The addresses that each side has sent each destination ID to, and from.
    ids: [HashMap<Vec<u8>, Vec<Ends>>; 2],
    sent: [u64; 2],
    received: u64,
}

impl World {
    fn new(client: TransportConfig, server: TransportConfig) -> Self {
        let mut this = Self::beginning(client, server);
        this.run(ms(200));
        assert!(this.events(Side::Client).iter().any(|event| matches!(event, Event::Connected { .. })));
        this.events(Side::Server);
        this
    }

    /// The client is about to send its first packet.
    fn beginning(client: TransportConfig, server: TransportConfig) -> Self {
        Self {
            hosts: [Host::client(client), Host::server(server)],
            nat: HashMap::new(),
            dead: Vec::new(),
            flying: Vec::new(),
            ids: Default::default(),
            sent: [0; 2],
            received: 0,
        }
    }

    fn plain() -> Self {
        Self::new(TransportConfig::default(), TransportConfig::default())
    }

    fn conn(&mut self, side: Side) -> gannet::quic::Conn<'_> {
        let host = &mut self.hosts[side as usize];
        host.endpoint.conn(host.conn.unwrap()).expect("the connection is there")
    }

    fn events(&mut self, side: Side) -> Vec<Event> {
        self.hosts[side as usize].events.drain(..).map(|(_, event)| event).collect()
    }

    fn outside(&self, local: SocketAddr) -> SocketAddr {
        self.nat.get(&local).copied().unwrap_or(local)
    }

    fn send(&mut self, side: Side, transmit: &Transmit, data: Vec<u8>) {
        let at = self.hosts[0].now + ms(5);
        self.sent[side as usize] += 1;
        if data[0] & 0x80 == 0 {
            let ends = (transmit.local, transmit.remote);
            let seen = self.ids[side as usize].entry(data[1..11].to_vec()).or_default();
            if !seen.contains(&ends) {
                seen.push(ends);
            }
        }
        let meta = match side {
            Side::Client if self.dead.contains(&transmit.local) => return,
            Side::Client => RxMeta { local: transmit.remote, remote: self.outside(transmit.local), ecn: 0 },
            Side::Server => {
                // Only the current binding leads to the client.
                let inside =
                    self.nat.iter().find(|(_, outside)| **outside == transmit.remote).map(|(inside, _)| *inside);
                let inside = inside.or(Some(transmit.remote).filter(|remote| !self.nat.contains_key(remote)));
                let Some(local) = inside.filter(|local| !self.dead.contains(local)) else { return };
                RxMeta { local, remote: transmit.local, ecn: 0 }
            }
        };
        self.flying.push(Flying { at, to: side.peer(), meta, data });
    }

    /// Lets `time` pass.
    fn run(&mut self, time: Duration) {
        let until = self.hosts[0].now + time;
        loop {
            for side in [Side::Client, Side::Server] {
                for (transmit, data) in self.hosts[side as usize].run() {
                    self.send(side, &transmit, data);
                }
            }
            let timers = self.hosts.iter().filter_map(|host| host.endpoint.next_timeout());
            let next = timers.chain(self.flying.iter().map(|flying| flying.at)).min();
            let now = next.map_or(until, |next| next.max(self.hosts[0].now)).min(until);
            self.hosts.iter_mut().for_each(|host| host.now = now);
            if next.is_none_or(|next| next > until) {
                return;
            }
            let (arrived, rest): (Vec<_>, Vec<_>) = self.flying.drain(..).partition(|flying| flying.at <= now);
            self.flying = rest;
            for Flying { to, meta, mut data, .. } in arrived {
                self.hosts[to as usize].endpoint.handle_datagram(now, &meta, &mut data);
            }
            self.hosts.iter_mut().for_each(Host::poll);
            self.read();
        }
    }

    /// The server reads what the client sends.
    fn read(&mut self) {
        let readable: Vec<StreamId> = self.hosts.iter().flat_map(|host| &host.events).filter_map(readable).collect();
        for id in readable {
            for side in [Side::Client, Side::Server] {
                while let Some(chunk) = self.conn(side).take(id) {
                    self.received += chunk.len() as u64;
                }
            }
        }
        self.hosts
            .iter_mut()
            .for_each(|host| host.events.retain(|(_, event)| !matches!(event, Event::Readable { .. })));
    }

    /// Sends `len` bytes and waits until they have arrived.
    fn transfer(&mut self, side: Side, len: usize) {
        let before = self.received;
        let id = self.conn(side).open(Dir::Uni).unwrap();
        self.conn(side).send(id, SendData::Bytes(Bytes::from(vec![7; len])), true).unwrap();
        for _ in 0..1000 {
            if self.received == before + len as u64 {
                return;
            }
            self.run(ms(20));
        }
        panic!("{} of {len} bytes arrived", self.received - before);
    }

    /// Checks that no ID was used from, or to, more than one address by choice: only a NAT may change the remote one.
    fn check_ids(&self) {
        for (side, ids) in self.ids.iter().enumerate() {
            for (id, ends) in ids {
                let mut locals: Vec<_> = ends.iter().map(|(local, _)| *local).collect();
                locals.dedup();
                assert_eq!(locals.len(), 1, "host {side} has sent to {id:02x?} by {ends:?}");
                let mut remotes: Vec<_> = ends.iter().map(|(_, remote)| *remote).collect();
                remotes.dedup();
                assert!(remotes.len() == 1 || !self.nat.is_empty(), "host {side} has sent to {id:02x?} by {ends:?}");
            }
        }
    }
}

fn readable((_, event): &(gannet::quic::ConnId, Event)) -> Option<StreamId> {
    match event {
        Event::Readable { id, .. } => Some(*id),
        _ => None,
    }
}

/// Another address of the client.
fn local(n: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 100 + n], 50_000 + u16::from(n)))
}

fn moves(events: &[Event]) -> Vec<(SocketAddr, SocketAddr)> {
    let ends = |event: &Event| match event {
        Event::Migrated { local, remote } | Event::PeerMigrated { local, remote } => Some((*local, *remote)),
        _ => None,
    };
    events.iter().filter_map(ends).collect()
}

/// RFC 9000 §9.2, §9.5: a client moves, again and again, with a new ID each time, and so does its server.
#[test]
fn a_client_moves_and_takes_its_server_along() {
    let mut world = World::plain();
    for n in 0..8 {
        world.transfer(Side::Client, 50_000);
        world.conn(Side::Client).migrate(local(n)).unwrap();
        world.transfer(Side::Server, 50_000);
        world.run(ms(200));
        assert_eq!(moves(&world.events(Side::Client)), [(local(n), server_addr())]);
        assert_eq!(moves(&world.events(Side::Server)), [(server_addr(), local(n))]);
        assert_eq!(world.conn(Side::Client).local(), local(n));
        world.check_ids();
    }
    // Every ID but those of the latest paths is retired, so that there are always others to use.
    assert_eq!(world.conn(Side::Client).stats().migrations, 8);
    assert!(world.ids.iter().all(|ids| ids.len() >= 9), "{:?}", world.ids.each_ref().map(HashMap::len));
}

/// RFC 9000 §9.1: a path can be probed before it is used, and is then used at once.
#[test]
fn a_path_can_be_probed_first() {
    let mut world = World::plain();
    world.conn(Side::Client).probe(local(1)).unwrap();
    world.run(ms(100));
    let events = world.events(Side::Client);
    assert!(matches!(events[..], [Event::PathValidated { local: at, .. }] if at == local(1)), "{events:?}");
    assert_eq!(world.conn(Side::Client).local(), client_addr());
    assert!(moves(&world.events(Side::Server)).is_empty(), "probes do not move it");
    world.conn(Side::Client).migrate(local(1)).unwrap();
    world.run(ms(1));
    assert_eq!(moves(&world.events(Side::Client)), [(local(1), server_addr())]);
    world.transfer(Side::Server, 10_000);
    world.check_ids();
}

/// RFC 9000 §9.1: "Failure of path validation simply means that the new path is not usable for this connection."
#[test]
fn a_path_that_leads_nowhere_is_not_used() {
    let mut world = World::plain();
    world.dead.push(local(1));
    for go in [true, false] {
        let mut conn = world.conn(Side::Client);
        if go { conn.migrate(local(1)) } else { conn.probe(local(1)) }.unwrap();
        world.transfer(Side::Client, 20_000);
        world.run(Duration::from_secs(10));
        let events = world.events(Side::Client);
        assert!(events.iter().any(|event| matches!(event, Event::PathFailed { local: at, .. } if *at == local(1))));
        assert_eq!(world.conn(Side::Client).local(), client_addr());
    }
    world.transfer(Side::Server, 20_000);
    world.check_ids();
}

/// A NAT gives the client another port, or another address, in the middle of transfers. Nothing is lost but what was on
/// its way.
#[test]
fn a_nat_that_rebinds_a_hundred_times_costs_a_few_packets_each() {
    let quiet = {
        let mut world = World::plain();
        let before = world.sent;
        for n in 0..100 {
            world.transfer(Side::Client, 3000);
            world.transfer(if n % 2 == 0 { Side::Client } else { Side::Server }, 30_000);
        }
        [0, 1].map(|n| world.sent[n] - before[n])
    };
    let mut world = World::plain();
    let before = world.sent;
    for n in 0..100u16 {
        let outside = if n % 5 == 0 { [198, 51, 100, n as u8] } else { [198, 51, 100, 255] };
        world.nat.insert(client_addr(), SocketAddr::from((outside, 1000 + n)));
        // A server learns of a new address by what the client sends.
        world.transfer(Side::Client, 3000);
        world.transfer(if n % 2 == 0 { Side::Client } else { Side::Server }, 30_000);
    }
    world.check_ids();
    let added = [0, 1].map(|n| (world.sent[n] - before[n]).saturating_sub(quiet[n]));
    assert!(added[0] + added[1] < 100 * 40, "{added:?} packets more than {quiet:?}");
    world.run(ms(500));
    assert_eq!(world.conn(Side::Server).stats().migrations, 100);
    assert_eq!(world.ids[0].len() + world.ids[1].len(), 2, "a NAT takes no IDs");
}

fn preferring(v4: SocketAddr) -> TransportConfig {
    let SocketAddr::V4(v4) = v4 else { panic!("an IPv6 address") };
    let preferred_address = PreferredAddress { v4: Some(v4), v6: Some("[2001:db8::9]:443".parse().unwrap()) };
    TransportConfig { preferred_address, ..TransportConfig::default() }
}

fn preferred() -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 222], 4433))
}

/// RFC 9000 §9.6.
#[test]
fn a_client_moves_to_its_servers_preferred_address() {
    let mut world = World::new(TransportConfig::default(), preferring(preferred()));
    world.transfer(Side::Client, 50_000);
    world.run(ms(100));
    assert_eq!(world.conn(Side::Client).remote(), preferred());
    assert_eq!(world.conn(Side::Server).local(), preferred());
    world.transfer(Side::Server, 50_000);
    world.check_ids();
    // From there, it can move on, and does not return.
    world.conn(Side::Client).migrate(local(3)).unwrap();
    world.run(ms(200));
    world.transfer(Side::Server, 50_000);
    assert_eq!((world.conn(Side::Client).local(), world.conn(Side::Client).remote()), (local(3), preferred()));
    world.check_ids();
}

/// RFC 9000 §9.6.1: "If path validation fails, the client MUST continue sending all future packets to the server's
/// original IP address." And a client may not follow at all.
#[test]
fn a_preferred_address_that_leads_nowhere_is_not_used() {
    let nowhere = SocketAddr::from(([192, 0, 2, 223], 4433));
    let mut world = World::new(TransportConfig::default(), TransportConfig::default());
    assert_eq!(world.conn(Side::Client).remote(), server_addr());
    // The server does not know the address that it offers.
    let config = preferring(nowhere);
    let stays = TransportConfig { follow_preferred_address: false, ..TransportConfig::default() };
    world = World::new(stays, config);
    world.transfer(Side::Client, 10_000);
    world.run(Duration::from_secs(1));
    assert_eq!(world.conn(Side::Client).remote(), server_addr());
    assert_eq!(world.hosts[0].endpoint.stats().path_challenges, 0);
}

/// RFC 9000 §9, §18.2: a server may ask its clients not to move; its clients obey.
#[test]
fn clients_stay_if_asked_to() {
    let stay = TransportConfig { migration: false, ..TransportConfig::default() };
    let mut world = World::new(TransportConfig::default(), stay);
    assert_eq!(world.conn(Side::Client).migrate(local(1)), Err(MigrateError::Disabled));
    // A NAT does not obey, and is followed all the same.
    world.nat.insert(client_addr(), local(7));
    world.transfer(Side::Client, 10_000);
    world.run(ms(100));
    assert_eq!(world.conn(Side::Server).remote(), local(7));
}

/// RFC 9000 §5.1.2: IDs can be replaced without a move.
#[test]
fn ids_are_replaced_on_request() {
    for side in [Side::Client, Side::Server] {
        let mut world = World::plain();
        for round in 1..20 {
            world.conn(side).rotate_ids();
            world.transfer(side.peer(), 5000);
            world.run(ms(50));
            assert_eq!(world.ids[side.peer() as usize].len(), round + 1);
        }
        world.check_ids();
        assert_eq!(addr(side), addr(side));
    }
}

/// A NAT that rebinds while neither side sends anything hides the client from a server that then has data for it. The
/// client, which waits for the data, asks in time, but not for ever.
#[test]
fn a_client_that_waits_for_data_tells_where_it_is() {
    let mut world = World::plain();
    let id = world.conn(Side::Client).open(Dir::Bidi).unwrap();
    world.conn(Side::Client).send(id, SendData::Bytes(Bytes::from_static(b"request")), true).unwrap();
    world.run(ms(500));
    world.nat.insert(client_addr(), local(9));
    world.run(ms(1000));
    let before = world.received;
    world.conn(Side::Server).send(id, SendData::Bytes(vec![7; 1000].into()), false).unwrap();
    world.run(ms(100));
    assert_eq!(world.received - before, 1000);
    // Another silence, of any length.
    let before = world.sent[0];
    world.run(ms(25_000));
    let asked = world.sent[0] - before;
    assert!((4..=8).contains(&asked), "{asked} packets of the client");
    let before = world.sent[0];
    world.run(ms(4_000));
    assert_eq!(world.sent[0], before, "it has given up");
    // Nothing is expected any more.
    world.conn(Side::Client).close(0, "");
}

/// A client that expects nothing does not ask.
#[test]
fn a_client_that_waits_for_nothing_is_silent() {
    let mut world = World::plain();
    world.transfer(Side::Client, 1000);
    let id = world.conn(Side::Client).open(Dir::Uni).unwrap();
    world.conn(Side::Client).send(id, SendData::Bytes(Bytes::from_static(b"part")), false).unwrap();
    world.run(ms(500));
    let before = world.sent;
    world.run(ms(6_000));
    assert_eq!(world.sent, before);
}

/// A NAT that rebinds at any time of the handshake, after which nothing reaches the client at its former address: not
/// what the server has sent, nor what it sends again.
#[test]
fn a_handshake_survives_a_nat_that_rebinds() {
    let mut followed = 0;
    for after in 0..30 {
        let mut world = World::beginning(TransportConfig::default(), TransportConfig::default());
        world.run(ms(after));
        world.nat.insert(client_addr(), local(9));
        world.run(ms(5000));
        let connected =
            |world: &mut World, side| world.events(side).iter().any(|event| matches!(event, Event::Connected { .. }));
        assert!(connected(&mut world, Side::Client), "rebound after {after} ms");
        // If the client had not yet heard of it, the server has a connection with the former address as well, which ends.
        let stats = world.hosts[1].endpoint.stats();
        followed += stats.paths_validated;
        assert_eq!(stats.handshakes, 1, "rebound after {after} ms");
        world.transfer(Side::Client, 100_000);
        assert_eq!(world.received, 100_000);
    }
    assert!(followed > 10, "{followed} of 30");
}
