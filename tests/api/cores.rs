//! One handle for several cores.

use std::collections::HashMap;
use std::sync::Mutex;
use std::thread;

use gannet::api::handle::{self, Opening};
use gannet::api::*;
use gannet::datapath::exchange::mesh;
use gannet::datapath::sim::{SimConfig, SimLink, SimPort};

use crate::api::{client_config, remote, server_config, tls_options};

/// A group with the applications of one handle, on a port that puts frames into random queues: the last byte, which
/// decides, is encrypted in most frames.
fn group(port: SimPort, addr: &str, server: Option<&ServerConfig>, apps: Vec<HandleApp>) {
    let cores = apps.len() as u8;
    let queues = port.into_queues(cores, |frame| frame.last().copied().unwrap_or(0).into());
    let group = Group::new(cores, endpoint_config().unwrap()).stop_on(apps[0].stop());
    let apps: Vec<_> = apps.into_iter().map(|app| Mutex::new(Some(app))).collect();
    let ended = group.run(queues, mesh(cores, 512), |place| {
        let config = CoreConfig { idle: Idle::Yield, ..CoreConfig::new(addr.parse()?, place.endpoint) };
        let config = match server {
            Some(server) => config.serving(443, server.clone()),
            None => config,
        };
        Ok((config, apps[usize::from(place.core)].lock().unwrap().take().expect("one for each core")))
    });
    assert_eq!(ended.unwrap().len(), usize::from(cores));
}

/// Echoes everything until the end. Returns the events of each connection.
fn echo(server: &Handle) -> HashMap<ConnId, usize> {
    let mut events = HashMap::new();
    for event in server.events() {
        match event {
            HandleEvent::Data { conn, id, chunk } => {
                *events.entry(conn).or_default() += 1;
                server.send(conn, id, chunk.to_vec(), chunk.is_last()).unwrap();
            }
            HandleEvent::Engine { conn, .. } => *events.entry(conn).or_default() += 1,
            HandleEvent::Accepted { conn, .. } => assert!(events.insert(conn, 0).is_none(), "one core has it"),
            _ => {}
        }
    }
    events
}

#[test]
fn one_handle_serves_and_uses_many_cores() {
    const CONNECTIONS: usize = 12;
    let (left, right) = SimLink::pair(SimConfig::default());
    let config = server_config(&tls_options(), TransportConfig::default());
    let (server, server_apps) = handle::channels(3, 256);
    let (client, client_apps) = handle::channels(2, 256);
    let (mut opened, mut answers) = (HashMap::new(), HashMap::<ConnId, Vec<u8>>::new());
    let served = thread::scope(|scope| {
        scope.spawn(|| group(left, "192.0.2.1/24", Some(&config), server_apps));
        scope.spawn(|| group(right, "192.0.2.2/24", None, client_apps));
        let served = scope.spawn(|| echo(&server));
        for _ in 0..CONNECTIONS {
            client.connect(&client_config(TransportConfig::default()), "server.test", remote()).unwrap();
        }
        let mut finished = 0;
        for event in client.events() {
            match event {
                HandleEvent::Connecting { conn, .. } => *opened.entry(conn.core()).or_insert(0) += 1,
                HandleEvent::Engine { conn, event: Event::Connected { .. } } => {
                    let opening =
                        Opening { data: Some(conn.to_string().into_bytes().into()), fin: true, ..Opening::default() };
                    client.open_with(conn, Dir::Bidi, opening).unwrap();
                }
                HandleEvent::Data { conn, chunk, .. } => {
                    answers.entry(conn).or_default().extend_from_slice(&chunk);
                    finished += usize::from(chunk.is_last());
                    if finished == CONNECTIONS {
                        client.shutdown();
                    }
                }
                HandleEvent::ConnectFailed { why, .. } => panic!("{why}"),
                _ => {}
            }
        }
        assert!(client.is_gone());
        server.shutdown();
        served.join().unwrap()
    });
    assert_eq!(opened, HashMap::from([(0, CONNECTIONS / 2), (1, CONNECTIONS / 2)]), "in turn");
    assert_eq!(answers.len(), CONNECTIONS);
    assert!(answers.iter().all(|(conn, answer)| conn.to_string().as_bytes() == answer), "{answers:?}");
    assert_eq!(served.len(), CONNECTIONS);
    // A handle that comes too late finds no core.
    let refused = client.connect(&client_config(TransportConfig::default()), "server.test", remote());
    assert_eq!(refused.unwrap_err().kind, handle::CommandErrorKind::Gone);
}
