//! A QUIC-LB load balancer for tests: a forwarder of datagrams between clients in one namespace and servers in others.
//!
//! Each server has a wire of its own, with the load balancer at the right end. A client's datagrams come from an address
//! of the load balancer's, as if from a NAT, which can assign another one to it at any time.

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsFd as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::PORT;
use super::netns::{End, Wire};
use super::quic_lb::Config;

/// How often threads look whether the test is over.
const TICK: Duration = Duration::from_millis(50);

/// The destination connection ID of a datagram: that of a long header, or all that follows the first byte of a short one
/// (RFC 8999 §5).
pub fn destination(datagram: &[u8]) -> Option<&[u8]> {
    if datagram.first()? & 0x80 == 0 {
        return datagram.get(1..);
    }
    datagram.get(6..)?.get(..usize::from(*datagram.get(5)?))
}

/// A load balancer without state.
#[derive(Clone, Debug)]
pub struct Balancer {
    /// Its configurations.
    pub configs: Vec<Config>,
    /// The server ID of each server.
    pub servers: Vec<Vec<u8>>,
}

impl Balancer {
    /// The server that a datagram belongs to; `None` if its destination ID is not routable (§4.1).
    pub fn route(&self, datagram: &[u8]) -> Option<usize> {
        let cid = destination(datagram)?;
        let id = self.configs.iter().find_map(|config| config.server_id(cid))?;
        self.servers.iter().position(|server| *server == id)
    }
}

/// Something that happens while the load balancer runs.
#[derive(Clone, Debug)]
pub enum Change {
    /// Clients get other source ports, or those that they had when this number was theirs; at first, it is 0.
    Moved(u32),
    /// The fallback algorithm chooses another server for all clients, or the one that it chose first.
    Turned(bool),
    /// It gets another configuration.
    Balancer(Balancer),
}

/// What the load balancer has done.
#[derive(Debug, Default)]
pub struct Counts {
    /// Datagrams with short headers that were routed by server ID.
    pub short_by_id: AtomicU64,
    /// The same with long headers.
    pub long_by_id: AtomicU64,
    /// Datagrams with short headers that were not routable.
    pub short_by_fallback: AtomicU64,
    /// The same with long headers.
    pub long_by_fallback: AtomicU64,
    /// Datagrams routed by server ID to another server than the fallback algorithm's choice.
    pub against_fallback: AtomicU64,
}

impl Counts {
    /// The value of a counter.
    pub fn get(counter: &AtomicU64) -> u64 {
        counter.load(Ordering::Relaxed)
    }
}

/// A load balancer that runs until it is dropped.
pub struct Router {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    /// Changes, and after how many more datagrams of clients they happen.
    plan: Mutex<VecDeque<(u64, Change)>>,
    counts: Counts,
    stop: AtomicBool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A socket in the namespace of `end`. It stays there; a thread of its own goes there to make it.
fn bind(end: &End, port: u16) -> UdpSocket {
    let make = || {
        let file = File::open(Path::new("/run/netns").join(&end.ns)).expect("the namespace");
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).expect("to enter it");
        let socket = UdpSocket::bind((end.v4, port)).expect("a socket");
        socket.set_read_timeout(Some(TICK)).expect("its timeout");
        socket
    };
    thread::scope(|scope| scope.spawn(make).join()).expect("no panic")
}

/// The sockets of one client.
struct Flow {
    /// What the fallback algorithm chose for it.
    choice: usize,
    /// Sockets by server, and by the number of the client's source ports.
    up: HashMap<(usize, u32), Arc<UdpSocket>>,
}

impl Router {
    /// Starts a load balancer at the left end of the clients' wire, for servers at the left ends of theirs.
    ///
    /// # Panics
    /// When sockets cannot be made.
    pub fn start(clients: &Wire, servers: &[Wire], balancer: Balancer) -> Self {
        assert_eq!(balancer.servers.len(), servers.len());
        let front = bind(&clients.left, PORT);
        let ways = servers.iter().map(|wire| (wire.right.clone(), wire.left.v4)).collect::<Vec<_>>();
        let shared = Arc::<Shared>::default();
        let own = Arc::clone(&shared);
        let thread = thread::spawn(move || own.forward(&front, &ways, balancer));
        Self { shared, thread: Some(thread) }
    }

    /// What it has done so far.
    pub fn counts(&self) -> &Counts {
        &self.shared.counts
    }

    /// Makes changes, each after so many more datagrams from clients than the one before.
    pub fn plan(&self, changes: impl IntoIterator<Item = (u64, Change)>) {
        lock(&self.shared.plan).extend(changes);
    }

    /// Whether all changes have been made.
    pub fn is_done(&self) -> bool {
        lock(&self.shared.plan).is_empty()
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        let done = self.thread.take().map(JoinHandle::join);
        if done.is_some_and(|done| done.is_err()) && !thread::panicking() {
            panic!("the load balancer has panicked");
        }
    }
}

impl Shared {
    fn is_over(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Changes that are due with one more datagram.
    fn due(&self) -> Vec<Change> {
        let (mut plan, mut due) = (lock(&self.plan), Vec::new());
        while let Some((left, _)) = plan.front_mut() {
            if *left > 0 {
                *left -= 1;
                break;
            }
            due.extend(plan.pop_front().map(|(_, change)| change));
        }
        due
    }

    /// Forwards datagrams. `ways` are the load balancer's end and the server's address of each server.
    fn forward(&self, front: &UdpSocket, ways: &[(End, Ipv4Addr)], mut balancer: Balancer) {
        let mut flows: HashMap<SocketAddr, Flow> = HashMap::new();
        let (mut moved, mut turned, mut datagram) = (0, false, [0; 2048]);
        thread::scope(|scope| {
            while !self.is_over() {
                let Ok((len, client)) = front.recv_from(&mut datagram) else { continue };
                for change in self.due() {
                    match change {
                        Change::Moved(to) => moved = to,
                        Change::Turned(to) => turned = to,
                        Change::Balancer(to) => balancer = to,
                    }
                }
                let datagram = &datagram[..len];
                let count = flows.len();
                let flow =
                    flows.entry(client).or_insert_with(|| Flow { choice: count % ways.len(), up: HashMap::new() });
                let choice = (flow.choice + usize::from(turned)) % ways.len();
                let found = balancer.route(datagram);
                self.count(datagram, found, choice);
                let server = found.unwrap_or(choice);
                let up = flow.up.entry((server, moved)).or_insert_with(|| {
                    let (near, far) = &ways[server];
                    let up = Arc::new(bind(near, 0));
                    up.connect((*far, PORT)).expect("an address");
                    let back = Arc::clone(&up);
                    scope.spawn(move || self.back(&back, front, client));
                    up
                });
                // Errors are those of earlier datagrams.
                let _ = up.send(datagram);
            }
        });
    }

    fn count(&self, datagram: &[u8], found: Option<usize>, choice: usize) {
        let counts = &self.counts;
        let counter = match (datagram.first().is_some_and(|first| first & 0x80 == 0), found) {
            (true, Some(_)) => &counts.short_by_id,
            (false, Some(_)) => &counts.long_by_id,
            (true, None) => &counts.short_by_fallback,
            (false, None) => &counts.long_by_fallback,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        if found.is_some_and(|server| server != choice) {
            counts.against_fallback.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Brings a server's datagrams to the client. That of an address which the client no longer has still works.
    fn back(&self, up: &UdpSocket, front: &UdpSocket, client: SocketAddr) {
        let mut datagram = [0; 2048];
        while !self.is_over() {
            if let Ok(len) = up.recv(&mut datagram) {
                let _ = front.send_to(&datagram[..len], client);
            }
        }
    }
}
