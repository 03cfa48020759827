//! Addresses that change in a play: NATs that rebind, clients that move and probe, attackers who send copies of
//! datagrams with addresses of their own, servers that prefer another address.
//!
//! It checks that no connection ID is used on two paths by choice, and that an address from which nothing has come back
//! gets at most three times the bytes that came from it.

use std::collections::HashMap;
use std::net::SocketAddr;

use crate::base::Side;
use crate::base::rng::Rng;
use crate::quic::Transmit;
use crate::sim::addr;

/// What happens to the addresses at some time after the client has connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Move {
    /// The NAT gives the client another port.
    RebindPort,
    /// The NAT gives the client another address.
    RebindHost,
    /// The client moves to one of its other local addresses, or back.
    Migrate(u8),
    /// The client probes another local address.
    Probe(u8),
    /// One side replaces its connection IDs.
    Rotate(Side),
}

/// The server's preferred address.
pub fn preferred() -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 22], 4433))
}

/// One of the client's local addresses; 0 is the one that it starts with.
pub fn local(n: u8) -> SocketAddr {
    match n {
        0 => addr(Side::Client),
        // One of them is on the same host.
        1 => SocketAddr::from(([192, 0, 2, 1], 50_001)),
        n => SocketAddr::from(([192, 0, 2, 100 + n], 50_000)),
    }
}

/// The ends of a datagram in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ends {
    /// The address of its receiver, as the receiver sees it.
    pub local: SocketAddr,
    /// The address of its sender, as the receiver sees it.
    pub remote: SocketAddr,
    /// The client's address outside of the NAT, or the attacker's.
    pub outside: SocketAddr,
}

/// What an address has sent to the server, and got from it.
#[derive(Clone, Copy, Debug, Default)]
struct Account {
    came: u64,
    sent: u64,
    /// Whether a datagram has reached the client there.
    reached: bool,
}

/// From which address each ID was used, and for which local address of the client, once that is known.
type Used = HashMap<Vec<u8>, (SocketAddr, Option<SocketAddr>)>;

/// The addresses of a world.
#[derive(Debug)]
pub struct Addresses {
    rng: Rng,
    /// What the NAT makes of the client's local addresses; others are not translated.
    nat: HashMap<SocketAddr, SocketAddr>,
    /// The local address of every address that the client has ever had outside.
    owners: HashMap<SocketAddr, SocketAddr>,
    accounts: HashMap<SocketAddr, Account>,
    /// The local address of the client on whose paths each ID was used, by host.
    used: [Used; 2],
    /// Number of rebindings so far.
    pub rebindings: u64,
    next: u16,
}

impl Addresses {
    /// The addresses when a world begins.
    pub fn new(rng: Rng) -> Self {
        let first = addr(Side::Client);
        let account = Account { reached: true, ..Account::default() };
        Self {
            rng,
            nat: HashMap::new(),
            owners: HashMap::from([(first, first)]),
            // It is validated by the handshake.
            accounts: HashMap::from([(first, account)]),
            used: Default::default(),
            rebindings: 0,
            next: 0,
        }
    }

    fn outside(&self, local: SocketAddr) -> SocketAddr {
        self.nat.get(&local).copied().unwrap_or(local)
    }

    /// The NAT gives all local addresses others outside.
    pub fn rebind(&mut self, host: bool) {
        self.rebindings += 1;
        for n in 0..4 {
            self.next += 1;
            let now = self.outside(local(n));
            let ip =
                if host { [203, 0, (113 + self.next / 200) as u8, (self.next % 200) as u8].into() } else { now.ip() };
            let outside = SocketAddr::new(ip, 10_000 + self.next);
            self.nat.insert(local(n), outside);
            self.owners.insert(outside, local(n));
        }
    }

    /// An attacker's address.
    pub fn attacker(&mut self) -> SocketAddr {
        let same_host = self.rng.chance(300);
        let ip = if same_host { addr(Side::Client).ip() } else { [198, 51, 100, self.rng.below(5) as u8].into() };
        SocketAddr::new(ip, 60_000 + self.rng.below(20) as u16)
    }

    /// `side` sends a datagram whose short header, if it has one, contains an ID of `cid_len` bytes. Returns its ends; none
    /// if they lead nowhere.
    pub fn send(
        &mut self,
        side: Side,
        transmit: &Transmit,
        data: &[u8],
        cid_len: usize,
    ) -> Result<Option<Ends>, String> {
        let Transmit { local, remote, conn, .. } = *transmit;
        let server = |at| at == addr(Side::Server) || at == preferred();
        if side == Side::Client {
            if !server(remote) || !(0..4).any(|n| self::local(n) == local) {
                return Err(format!("the client sends from {local} to {remote}"));
            }
            let outside = self.outside(local);
            self.owners.insert(outside, local);
            self.check_id(side, conn.is_some(), local, Some(local), data, cid_len)?;
            return Ok(Some(Ends { local: remote, remote: outside, outside }));
        }
        if !server(local) {
            return Err(format!("the server sends from {local}"));
        }
        let owner = self.owners.get(&remote).copied();
        self.check_id(side, conn.is_some(), local, owner, data, cid_len)?;
        let account = self.accounts.entry(remote).or_default();
        account.sent += data.len() as u64;
        if !account.reached && account.sent > 3 * account.came {
            return Err(format!("{remote} has got {} bytes for {}", account.sent, account.came));
        }
        let inside = owner.filter(|inside| self.outside(*inside) == remote);
        Ok(inside.map(|inside| Ends { local: inside, remote: local, outside: remote }))
    }

    /// Checks that an ID is used from one address of its sender only, and for one local address of the client.
    fn check_id(
        &mut self,
        side: Side,
        connected: bool,
        local: SocketAddr,
        client: Option<SocketAddr>,
        data: &[u8],
        cid_len: usize,
    ) -> Result<(), String> {
        let short = data.first().is_some_and(|first| first & 0x80 == 0);
        let Some(id) = data.get(1..1 + cid_len).filter(|_| short && connected) else { return Ok(()) };
        let (from, to) = self.used[side as usize].entry(id.to_vec()).or_insert((local, client));
        if *from != local {
            return Err(format!("{side:?} has sent to the ID {id:02x?} from {from} and {local}"));
        }
        if let (Some(before), Some(now)) = (*to, client)
            && before != now
        {
            return Err(format!("{side:?} has sent to the ID {id:02x?} for {before} and {now}"));
        }
        *to = to.or(client);
        Ok(())
    }

    /// A datagram of `len` bytes has arrived at `to`.
    pub fn arrive(&mut self, to: Side, ends: &Ends, len: usize) {
        let account = self.accounts.entry(ends.outside).or_default();
        match to {
            Side::Client => account.reached = true,
            Side::Server => account.came += len as u64,
        }
    }

    /// Whether `addr` is one that the client, or an attacker, has ever had.
    pub fn is_known(&self, ip: std::net::IpAddr) -> bool {
        self.accounts.keys().any(|addr| addr.ip() == ip)
    }
}
