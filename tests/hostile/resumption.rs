//! Session resumption (RFC 9001 §4.5): which tickets a server accepts, for how long, and across restarts.

use std::time::Duration;

use gannet::base::Side;
use gannet::mem::BufPool;
use gannet::quic::{
    ClientConfig, ConfigError, Endpoint, EndpointConfig, Event, ServerConfig, SessionTickets, TransportConfig,
};

use super::retry_server::{hear, said, talk};
use super::world::{CLIENT_TLS, Host, SERVER_TLS, endpoint_config};

const HOUR: Duration = Duration::from_secs(3600);

pub fn server_config() -> ServerConfig {
    ServerConfig::new(SERVER_TLS.clone(), TransportConfig::default()).unwrap()
}

pub fn server(endpoint: EndpointConfig, config: ServerConfig) -> Host {
    Host::new(Side::Server, Endpoint::new(endpoint, Some(config), BufPool::heap()))
}

pub fn client_config() -> ClientConfig {
    ClientConfig::new(CLIENT_TLS.clone(), TransportConfig::default()).unwrap().with_sessions(8).with_early_data(true)
}

/// A client without a connection, and its settings.
pub fn client() -> (Host, ClientConfig) {
    (Host::idle_client(), client_config())
}

/// Connects and closes; returns whether the server resumed a session. Both ends agree on that.
pub fn visit(client: &mut Host, config: &ClientConfig, server: &mut Host) -> bool {
    client.now = server.now;
    client.events.clear();
    client.connect_with(config.clone());
    hear(server, &said(client));
    talk(client, server);
    let connected = client.events.iter().any(|(_, event)| matches!(event, Event::Connected { .. }));
    assert!(connected && client.closed().is_none());
    let resumed = [&mut *client, server].map(|host| {
        let id = host.conn.unwrap();
        host.endpoint.conn(id).unwrap().is_resumed()
    });
    assert_eq!(resumed[0], resumed[1]);
    client.endpoint.conn(client.conn.unwrap()).unwrap().close(0, "");
    talk(client, server);
    server.wait(Duration::from_secs(30));
    client.wait(Duration::from_secs(30));
    resumed[0]
}

#[test]
fn sessions_are_resumed_by_whoever_has_the_secret() {
    let (mut client, config) = client();
    let mut first = server(endpoint_config(Side::Server), server_config());
    assert_eq!([(); 3].map(|()| visit(&mut client, &config, &mut first)), [false, true, true]);
    let stats = first.endpoint.stats();
    assert_eq!((stats.handshakes_resumed, stats.tickets_sent), (2, 6));
    // Another core, or a process that started later.
    let mut second =
        server(EndpointConfig { core: 9, seed: [5; 32], ..endpoint_config(Side::Server) }, server_config());
    second.now = first.now;
    assert!(visit(&mut client, &config, &mut second));
    let other = EndpointConfig { ticket_key: [5; 32].into(), ..endpoint_config(Side::Server) };
    let mut other = server(other, server_config());
    other.now = second.now;
    assert!(!visit(&mut client, &config, &mut other), "another secret");
}

#[test]
fn tickets_expire() {
    for (age, resumed) in [(23, true), (25, false)] {
        let (mut client, config) = client();
        let mut server = server(endpoint_config(Side::Server), server_config());
        assert!(!visit(&mut client, &config, &mut server));
        server.now += age * HOUR;
        assert_eq!(visit(&mut client, &config, &mut server), resumed, "after {age} hours");
    }
    let short = SessionTickets { lifetime: Duration::from_secs(40), ..SessionTickets::default() };
    let (mut client, config) = client();
    let mut server = server(endpoint_config(Side::Server), server_config().with_tickets(short).unwrap());
    assert!(!visit(&mut client, &config, &mut server) && visit(&mut client, &config, &mut server));
    server.now += Duration::from_secs(30);
    assert!(!visit(&mut client, &config, &mut server));
}

#[test]
fn the_number_of_tickets_is_a_setting() {
    for count in [0, 1, 5] {
        let (mut client, config) = client();
        let tickets = SessionTickets { count, ..SessionTickets::default() };
        let mut server = server(endpoint_config(Side::Server), server_config().with_tickets(tickets).unwrap());
        visit(&mut client, &config, &mut server);
        // The TLS settings allow two.
        assert_eq!(server.endpoint.stats().tickets_sent, count.min(2) as u64);
        assert_eq!(visit(&mut client, &config, &mut server), count > 0);
    }
    for lifetime in [Duration::ZERO, SessionTickets::MAX_LIFETIME + HOUR] {
        let refused = server_config().with_tickets(SessionTickets { lifetime, ..SessionTickets::default() });
        assert!(matches!(refused, Err(ConfigError::Time { .. })));
    }
}

/// Clients without a store, and those of another version (RFC 9369 §5), resume nothing.
#[test]
fn what_is_not_kept_is_not_resumed() {
    let mut server = server(endpoint_config(Side::Server), server_config());
    let mut client = Host::idle_client();
    let forgetful = client_config().with_sessions(0);
    assert_eq!([(); 2].map(|()| visit(&mut client, &forgetful, &mut server)), [false; 2]);
}
