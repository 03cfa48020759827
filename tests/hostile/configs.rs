//! Configurations that users may try: those that cannot work are refused when they are made, and no others are.

use std::sync::Arc;
use std::time::Duration;

use gannet::base::Side;
use gannet::crypto::Suite;
use gannet::mem::BufPool;
use gannet::quic::{ClientConfig, ConfigError, Endpoint, Event, ServerConfig, TransportConfig, tls};
use rustls::crypto::{CryptoProvider, aws_lc_rs};

use super::world::{CLIENT_TLS, Host, SERVER_TLS, certificate, endpoint_config, small};

/// A server's configuration as made directly with rustls.
fn server_by_hand(provider: Arc<CryptoProvider>, change: impl FnOnce(&mut rustls::ServerConfig)) -> ServerResult {
    let (chain, key) = certificate();
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    config.alpn_protocols = vec![b"hostile".to_vec()];
    change(&mut config);
    ServerConfig::new(Arc::new(config), small())
}

fn client_by_hand(provider: Arc<CryptoProvider>, change: impl FnOnce(&mut rustls::ClientConfig)) -> ClientResult {
    let any = Arc::new(tls::AnyCertificate::new(&provider));
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(any)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"hostile".to_vec()];
    change(&mut config);
    ClientConfig::new(Arc::new(config), small())
}

type ServerResult = Result<ServerConfig, ConfigError>;
type ClientResult = Result<ClientConfig, ConfigError>;

fn plain() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// The keys of such suites are not accessible: the first client made the server panic.
#[test]
fn a_configuration_of_plain_rustls_is_refused_with_the_remedy() {
    let errors = [server_by_hand(plain(), |_| {}).unwrap_err(), client_by_hand(plain(), |_| {}).unwrap_err()];
    for error in errors {
        assert!(matches!(error, ConfigError::ForeignSuite(_)), "{error:?}");
        assert!(error.to_string().contains("TLS13_AES_256_GCM_SHA384"), "{error}");
        assert!(error.to_string().contains("tls::crypto_provider()"), "{error}");
    }
    // One foreign suite is enough, as the client chooses.
    let mut mixed = (*tls::crypto_provider(&[])).clone();
    mixed.cipher_suites.push(aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256);
    let error = server_by_hand(Arc::new(mixed), |_| {}).unwrap_err();
    assert_eq!(error, ConfigError::ForeignSuite("TLS13_AES_128_GCM_SHA256".into()));
}

#[test]
fn tls_settings_that_cannot_work_are_refused() {
    let ours = || tls::crypto_provider(&[]);
    assert_eq!(server_by_hand(ours(), |c| c.alpn_protocols.clear()).unwrap_err(), ConfigError::NoAlpn);
    assert_eq!(client_by_hand(ours(), |c| c.alpn_protocols.clear()).unwrap_err(), ConfigError::NoAlpn);
    let long = |n: usize| vec![b"ok".to_vec(), vec![b'x'; n]];
    for n in [0, 256] {
        let error = server_by_hand(ours(), |c| c.alpn_protocols = long(n)).unwrap_err();
        assert!(matches!(error, ConfigError::Number { value, .. } if value == n as u64), "{error:?}");
        let error = client_by_hand(ours(), |c| c.alpn_protocols = long(n)).unwrap_err();
        assert!(matches!(error, ConfigError::Number { value, .. } if value == n as u64), "{error:?}");
    }
    let error = server_by_hand(ours(), |c| c.max_early_data_size = u32::MAX).unwrap_err();
    assert_eq!(error, ConfigError::EarlyData(u32::MAX));
}

#[test]
fn transport_settings_are_checked_by_every_constructor() {
    let wrong = || TransportConfig { max_data: u64::MAX, ..small() };
    let is_right = |error: ConfigError| matches!(error, ConfigError::Number { name: "max_data", .. });
    assert!(is_right(ServerConfig::new(SERVER_TLS.clone(), wrong()).unwrap_err()));
    assert!(is_right(ClientConfig::new(CLIENT_TLS.clone(), wrong()).unwrap_err()));
    let client = ClientConfig::new(CLIENT_TLS.clone(), small()).unwrap();
    assert!(is_right(client.with_transport(wrong()).unwrap_err()));
}

/// Connects both with each other; returns the result.
fn connect(server: ServerConfig, client: &ClientConfig) -> [Host; 2] {
    let endpoint = Endpoint::new(endpoint_config(Side::Server), Some(server), BufPool::heap());
    let mut server = Host::new(Side::Server, endpoint);
    let mut host = Host::idle_client();
    host.connect_with(client.clone());
    for _ in 0..10 {
        host.run().into_iter().for_each(|(_, datagram)| server.receive(datagram));
        server.run().into_iter().for_each(|(_, datagram)| host.receive(datagram));
    }
    [host, server]
}

fn are_connected(hosts: &[Host; 2]) -> bool {
    let connected = |host: &Host| host.events.iter().any(|(_, event)| matches!(event, Event::Connected { .. }));
    hosts.iter().all(|host| connected(host) && host.closed().is_none())
}

/// Users who need more of rustls than our own constructors offer build with our provider.
#[test]
fn rustls_own_builders_are_welcome_with_the_engines_provider() {
    for suites in [&[][..], &[Suite::ChaCha20Poly1305], &[Suite::Aes256Gcm, Suite::Aes128Gcm]] {
        let provider = tls::crypto_provider(suites);
        let server = server_by_hand(provider.clone(), |_| {}).unwrap();
        let client = client_by_hand(provider, |_| {}).unwrap();
        assert!(are_connected(&connect(server, &client)));
    }
}

/// Settings that are not refused work, with the usual settings at the other end.
#[test]
fn the_most_extreme_settings_that_are_possible_connect() {
    let max = (1 << 62) - 1;
    let wide = TransportConfig {
        max_data: max,
        stream_window_bidi_local: max,
        stream_window_bidi_remote: max,
        stream_window_uni: max,
        max_streams_bidi: 1 << 60,
        max_streams_uni: 1 << 60,
        receive_low_water: u64::MAX,
        send_budget: u64::MAX,
        ack_frequency: u32::MAX,
        max_udp_payload: 65_527,
        max_idle_timeout: Duration::from_secs(365 * 24 * 3600),
        handshake_timeout: Duration::from_secs(365 * 24 * 3600),
        initial_rtt: Duration::from_secs(60),
        max_ack_delay: Duration::from_millis(16_383),
        keep_alive: Some(Duration::from_secs(365 * 24 * 3600)),
        ..TransportConfig::default()
    };
    let narrow = TransportConfig {
        max_data: 0,
        stream_window_bidi_local: 0,
        stream_window_bidi_remote: 0,
        stream_window_uni: 0,
        max_streams_bidi: 0,
        max_streams_uni: 0,
        receive_low_water: 0,
        send_budget: 1,
        ack_frequency: 1,
        max_udp_payload: 1200,
        max_idle_timeout: Duration::from_millis(1),
        handshake_timeout: Duration::from_millis(1),
        initial_rtt: Duration::from_micros(1),
        // Announced as 1 ms, as 0 would be less than the actual delay.
        max_ack_delay: Duration::from_micros(1),
        keep_alive: Some(Duration::from_millis(1)),
        ..TransportConfig::default()
    };
    let server = |transport: &TransportConfig| ServerConfig::new(SERVER_TLS.clone(), transport.clone()).unwrap();
    let client = |transport: &TransportConfig| ClientConfig::new(CLIENT_TLS.clone(), transport.clone()).unwrap();
    for settings in [&wide, &narrow] {
        assert!(are_connected(&connect(server(settings), &client(&small()))), "{settings:?}");
        assert!(are_connected(&connect(server(&small()), &client(settings))), "{settings:?}");
        assert!(are_connected(&connect(server(settings), &client(settings))), "{settings:?}");
    }
}
