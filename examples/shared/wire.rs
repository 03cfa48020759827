//! The connection between the two ends: a simulated link, or a port of this machine.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use gannet::api::*;
use gannet::datapath::sim::{SimConfig, SimLink};

use super::{Failure, Options, Source, core_config, server_config};

/// The UDP port of the server on a simulated link.
const LISTEN: u16 = 443;

/// The path from an example's application to its server.
pub struct Wire {
    /// The server's address.
    pub remote: SocketAddr,
    /// The maximum UDP payload, for [`TransportConfig::max_udp_payload`].
    pub max_udp_payload: u16,
    kind: Kind,
}

enum Kind {
    /// With this MTU.
    Simulated(u16),
    #[cfg(feature = "dpdk")]
    Port(Box<super::port::OpenPort>),
}

fn payload(mtu: u16, ip: IpAddr) -> u16 {
    mtu - if ip.is_ipv4() { 28 } else { 48 }
}

impl Wire {
    /// Sets up what `options` ask for; a simulated link has an MTU of `mtu`. As a server, it serves until it is stopped
    /// and then returns `None`.
    pub fn open(options: &Options, mtu: u16) -> Result<Option<Self>, Failure> {
        let Some(profile) = &options.port else {
            let remote = SocketAddr::from(([192, 0, 2, 1], LISTEN));
            let max_udp_payload = payload(mtu, remote.ip());
            return Ok(Some(Self { remote, max_udp_payload, kind: Kind::Simulated(mtu) }));
        };
        Self::open_port(profile, options)
    }

    #[cfg(not(feature = "dpdk"))]
    fn open_port(profile: &str, _: &Options) -> Result<Option<Self>, Failure> {
        Err(format!("--port {profile}: this was built without DPDK; build it with --features dpdk").into())
    }

    #[cfg(feature = "dpdk")]
    fn open_port(profile: &str, options: &Options) -> Result<Option<Self>, Failure> {
        // Ensured by the command line.
        let addr = options.addr.ok_or("--addr is missing")?;
        let port = super::port::OpenPort::new(profile, &options.sets, addr)?;
        let max_udp_payload = payload(port.mtu, addr.addr());
        match (options.listen, options.connect) {
            (Some(listen), _) => {
                println!("ready: {} over {profile}", SocketAddr::new(addr.addr(), listen));
                let server = Some((listen, server_config(max_udp_payload)?));
                port.run(core_config(addr, server, BufPool::heap())?, Source::new())?;
                Ok(None)
            }
            (None, Some(remote)) => Ok(Some(Self { remote, max_udp_payload, kind: Kind::Port(Box::new(port)) })),
            (None, None) => Err("--port needs --listen or --connect".into()),
        }
    }

    /// Runs `client` until it is done; also returns the time since the end of the handshake.
    pub fn run<A: App>(self, client: A, pool: BufPool) -> Result<(A, Duration), Failure> {
        let timed = Timed { app: client, start: None, end: None };
        let Timed { app, start, end } = match self.kind {
            Kind::Simulated(mtu) => simulate(mtu, self.max_udp_payload, timed, pool)?,
            #[cfg(feature = "dpdk")]
            Kind::Port(port) => {
                let config = core_config(port.addr, None, pool)?;
                port.run(config, timed)?
            }
        };
        let time = start.zip(end).map_or(Duration::ZERO, |(start, end)| end - start);
        Ok((app, time))
    }
}

/// Runs both ends in this thread.
fn simulate<A: App>(mtu: u16, max_udp_payload: u16, client: Timed<A>, pool: BufPool) -> Result<Timed<A>, Failure> {
    let (a, b) = SimLink::pair(SimConfig { mtu, ..SimConfig::default() });
    let server_config = Some((LISTEN, server_config(max_udp_payload)?));
    let server_config = core_config("192.0.2.1/24".parse()?, server_config, BufPool::heap())?;
    let mut server = Core::new(a, server_config, Source::new())?;
    let mut client = Core::new(b, core_config("192.0.2.2/24".parse()?, None, pool)?, client)?;
    while !client.app.is_done() {
        server.turn();
        client.turn();
    }
    Ok(client.into_app())
}

/// Measures the time of an application, and closes its connection when it is done.
struct Timed<A> {
    app: A,
    start: Option<Instant>,
    end: Option<Instant>,
}

impl<A: App> App for Timed<A> {
    fn on_event(&mut self, cx: &mut Context<'_>, conn: ConnId, event: Event) {
        if matches!(event, Event::Connected { .. }) {
            self.start = Some(Instant::now());
        }
        self.app.on_event(cx, conn, event);
        if self.app.is_done() && self.end.is_none() {
            self.end = Some(Instant::now());
            cx.close(conn, 0, "done");
        }
    }

    fn on_turn(&mut self, cx: &mut Context<'_>) {
        self.app.on_turn(cx);
    }

    fn is_done(&self) -> bool {
        self.app.is_done()
    }
}
