//! Two cores on a link: the round-trip time behind a slow neighbour, and the end of a core whose work is done.

use super::*;

const SERVER: &str = "192.0.2.1:443";

/// Connects to the server and closes the connection at once.
struct Brief {
    conn: Option<ConnId>,
    is_closed: bool,
}

impl App for Brief {
    fn on_event(&mut self, cx: &mut Context<'_>, conn: ConnId, event: Event) {
        match event {
            Event::Connected { .. } => cx.close(conn, 0, "done"),
            Event::Closed { .. } => self.is_closed = true,
            _ => {}
        }
    }

    fn on_turn(&mut self, cx: &mut Context<'_>) {
        if self.conn.is_none() {
            self.conn = cx.connect(&patient(), "server.test", SERVER.parse().unwrap()).ok();
        }
    }

    fn is_done(&self) -> bool {
        self.is_closed
    }
}

/// A client, and a server whose clients have to expect acknowledgements after 16 s, so they stay for a minute after they
/// have closed.
fn pair() -> (Core<SimPort, Brief>, Core<SimPort, Option<Caller>>) {
    let (near, far) = SimLink::pair(SimConfig::default());
    let client = Core::new(near, core_config(), Brief { conn: None, is_closed: false }).unwrap();
    let config = CoreConfig::new("192.0.2.1/24".parse().unwrap(), EndpointConfig::from_seed([2; 32]));
    let transport = TransportConfig { max_ack_delay: Duration::from_secs(16), ..TransportConfig::default() };
    let config = CoreConfig { listen: Some(443), server: Some(server(transport)), ..config };
    (client, Core::new(far, config, None).unwrap())
}

/// The first round-trip time of a connection used to be the time that the server's MAC address took.
#[test]
fn waiting_for_a_neighbour_is_no_round_trip_time() {
    let (mut client, mut server) = pair();
    for ms in 0..550 {
        let now = Instant::ZERO + Duration::from_millis(ms);
        client.turn_at(now);
        // The server hears nothing for 500 ms.
        while ms >= 500 && client.turn_at(now) | server.turn_at(now) {}
        let Some(conn) = client.app.conn.and_then(|id| client.endpoint.conn(id)) else { continue };
        // None yet, or none as long as that.
        let min_rtt = conn.stats().min_rtt;
        if client.app.is_closed {
            assert!(client.net_stats().tx_released > 0 && min_rtt < Duration::from_millis(20), "{min_rtt:?}");
            return;
        }
    }
    panic!("there was no handshake");
}

/// `gannet get` used to stay for three probe timeouts: 13 s on a path with 1.5 s of round-trip time.
#[test]
fn a_core_that_is_done_waits_a_second_for_closing_connections() {
    let (mut client, mut server) = pair();
    let (mut closed, mut over) = (None, None);
    for ms in 0..60_000 {
        let now = Instant::ZERO + Duration::from_millis(ms);
        while client.turn_at(now) | server.turn_at(now) {}
        if !client.app.is_closed {
            assert!(client.endpoint.connection_count() == 0 || !client.is_alone(Some(now)), "an active connection");
            continue;
        }
        closed = closed.or(Some(ms));
        if client.is_alone(Some(now)) {
            over = Some(ms);
            break;
        }
        assert_eq!(client.endpoint.ended_count(), client.endpoint.connection_count());
        let wake = client.next_timeout().expect("the end of the wait");
        assert!(wake <= now + run::CLOSING, "a sleeping core would not notice");
    }
    let waited = over.expect("it ends") - closed.expect("it has closed");
    assert!((1000..1100).contains(&waited), "{waited} ms");
    assert_eq!(client.endpoint.ended_count(), 0);
}
