//! Two engines and a network that a test can manipulate.

use gannet::base::Side;
use gannet::base::time::{Duration, Instant};
use gannet::mem::BufPool;
use gannet::quic::{Conn, Event, TransportConfig};

use super::world::Host;

/// A client and a server.
pub struct Pair {
    pub client: Host,
    pub server: Host,
}

impl Pair {
    /// A connected pair without pending events.
    pub fn connected(client: TransportConfig, server: TransportConfig) -> Self {
        Self::on(client, server, BufPool::heap())
    }

    /// The same with a pool for the server's streams.
    pub fn on(client: TransportConfig, server: TransportConfig, pool: BufPool) -> Self {
        let mut this = Self { client: Host::client(client), server: Host::server_on(server, pool) };
        this.talk();
        // Lets timers fire: acknowledgements, larger datagrams.
        this.wait(Duration::from_millis(50));
        for host in [&mut this.client, &mut this.server] {
            assert!(host.events.iter().any(|(_, e)| matches!(e, Event::Connected { .. })));
            host.events.clear();
        }
        this
    }

    pub fn host(&mut self, side: Side) -> &mut Host {
        if side == Side::Client { &mut self.client } else { &mut self.server }
    }

    pub fn conn(&mut self, side: Side) -> Conn<'_> {
        let host = self.host(side);
        let id = host.conn.expect("connected");
        host.endpoint.conn(id).expect("the connection is there")
    }

    /// The events of one side since the last call.
    pub fn events(&mut self, side: Side) -> Vec<Event> {
        self.host(side).events.drain(..).map(|(_, event)| event).collect()
    }

    /// Carries datagrams until both have nothing to send.
    pub fn talk(&mut self) {
        self.talk_with(|_, _| true);
    }

    /// Like `talk`; `pass(this, receiver)` decides whether each datagram arrives.
    pub fn talk_with(&mut self, mut pass: impl FnMut(&mut Self, Side) -> bool) {
        for _ in 0..1000 {
            let mut quiet = true;
            for side in [Side::Client, Side::Server] {
                for (_, datagram) in self.host(side).run() {
                    quiet = false;
                    if pass(self, side.peer()) {
                        self.host(side.peer()).receive(datagram);
                        self.host(side.peer()).poll();
                    }
                }
            }
            if quiet {
                return;
            }
        }
        panic!("they never stop talking");
    }

    /// When something happens next.
    fn next(&self) -> Option<Instant> {
        [&self.client, &self.server].into_iter().filter_map(|h| h.endpoint.next_timeout()).min()
    }

    /// Lets `time` pass, timer by timer.
    pub fn wait(&mut self, time: Duration) {
        let until = self.client.now + time;
        self.talk();
        while let Some(at) = self.next().filter(|at| *at <= until) {
            let now = self.client.now.max(at);
            (self.client.now, self.server.now) = (now, now);
            self.talk();
        }
        (self.client.now, self.server.now) = (until, until);
        self.talk();
    }
}
