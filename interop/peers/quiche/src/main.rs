//! hq-interop over quiche, with a loop that polls nonblocking sockets. See ../README.md.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::io::Write;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use peer_common::{DATAGRAMS, ENOUGH, Failure, REFUSED, Task, WINDOW, came_back, datagram, end, say};
use quiche::{Config, Connection, ConnectionId, RecvInfo, Shutdown};

const CLIENT: [&str; 10] = [
    "transfer",
    "reset",
    "multiconnect",
    "retry",
    "resumption",
    "zerortt",
    "stopsending",
    "delayedacks",
    "migration",
    "datagrams",
];
const SERVER: [&str; 10] = [
    "reset",
    "keyupdate",
    "transfer",
    "multiconnect",
    "retry",
    "resumption",
    "zerortt",
    "delayedacks",
    "migration",
    "datagrams",
];

/// Length of connection IDs.
const CID: usize = 16;

fn main() {
    end(Task::load(&CLIENT, &SERVER).and_then(|task| if task.is_server { serve(&task) } else { get(&task) }));
}

fn config(task: &Task) -> Result<Config, Failure> {
    let mut config = Config::new(quiche::PROTOCOL_VERSION)?;
    let payload = usize::from(task.payload());
    config.set_application_protos(&[task.alpn.as_bytes()])?;
    config.set_max_idle_timeout(30_000);
    config.set_max_recv_udp_payload_size(payload);
    config.set_max_send_udp_payload_size(payload);
    config.set_initial_max_data(u64::from(WINDOW));
    config.set_initial_max_stream_data_bidi_local(u64::from(WINDOW));
    config.set_initial_max_stream_data_bidi_remote(u64::from(WINDOW));
    config.set_initial_max_streams_bidi(100);
    config.set_active_connection_id_limit(4);
    config.enable_pacing(false);
    config.discover_pmtu(true);
    config.log_keys();
    if task.case == "delayedacks" {
        config.set_max_ack_delay(200);
    }
    if task.case == "zerortt" {
        config.enable_early_data();
    }
    if task.case == "datagrams" {
        config.enable_dgram(true, 1000, 1000);
    }
    Ok(config)
}

/// Bytes that nobody has used before in this process.
fn fresh() -> Vec<u8> {
    use std::collections::hash_map::RandomState;
    use std::hash::{BuildHasher, Hasher};
    (0..CID / 8).flat_map(|_| RandomState::new().build_hasher().finish().to_be_bytes()).collect()
}

fn log_to(connection: &mut Connection) -> Result<(), Failure> {
    if let Ok(path) = std::env::var("SSLKEYLOGFILE") {
        let file = File::options().append(true).create(true).open(path)?;
        connection.set_keylog(Box::new(file));
    }
    if let Ok(dir) = std::env::var("QLOGDIR") {
        let name = format!("{dir}/{}.sqlog", connection.trace_id());
        connection.set_qlog(Box::new(File::create(name)?), "quiche".into(), "interop".into());
    }
    Ok(())
}

/// Sends all pending datagrams through the sockets that they belong to.
fn flush(connection: &mut Connection, sockets: &[UdpSocket], buffer: &mut [u8]) -> Result<bool, Failure> {
    let mut any = false;
    while let Ok((len, info)) = connection.send(buffer) {
        any = true;
        for socket in sockets {
            if sockets.len() > 1 && socket.local_addr()?.port() != info.from.port() {
                continue;
            }
            while let Err(error) = socket.send_to(&buffer[..len], info.to) {
                match error.kind() {
                    std::io::ErrorKind::WouldBlock => std::thread::sleep(Duration::from_micros(100)),
                    // Too large for the path, or unreachable: as if it was lost.
                    _ => break,
                }
            }
        }
    }
    Ok(any)
}

fn spare_ids(connection: &mut Connection) -> Result<(), Failure> {
    while connection.is_established() && connection.scids_left() > 0 {
        let (id, token) = (fresh(), fresh());
        let token = u128::from_be_bytes(token.try_into().expect("16 bytes"));
        connection.new_scid(&ConnectionId::from_ref(&id), token, false)?;
    }
    Ok(())
}

/// An answer that is being sent.
struct Answer {
    body: Vec<u8>,
    sent: usize,
}

struct Client {
    connection: Connection,
    requests: HashMap<u64, Vec<u8>>,
    answers: BTreeMap<u64, Answer>,
}

impl Client {
    fn turn(&mut self, task: &Task) {
        let connection = &mut self.connection;
        if !connection.is_established() && !connection.is_in_early_data() {
            return;
        }
        let mut block = [0; 4096];
        while let Ok(n) = connection.dgram_recv(&mut block) {
            let _ = connection.dgram_send(&block[..n]);
        }
        for id in connection.readable() {
            while let Ok((n, fin)) = connection.stream_recv(id, &mut block) {
                let request = self.requests.entry(id).or_default();
                request.extend_from_slice(&block[..n]);
                if !fin {
                    continue;
                }
                match task.answer(request) {
                    Some(body) => drop(self.answers.insert(id, Answer { body, sent: 0 })),
                    None => drop(connection.stream_shutdown(id, Shutdown::Write, REFUSED.into())),
                }
            }
        }
        self.answers.retain(|id, answer| {
            loop {
                match connection.stream_send(*id, &answer.body[answer.sent..], true) {
                    Ok(n) => {
                        answer.sent += n;
                        if answer.sent == answer.body.len() {
                            return false;
                        }
                        if n == 0 {
                            return true;
                        }
                    }
                    Err(quiche::Error::Done) => return true,
                    Err(error) => {
                        say(&format!("stream {error}"));
                        return false;
                    }
                }
            }
        });
    }
}

fn serve(task: &Task) -> Result<(), Failure> {
    let mut config = config(task)?;
    config.load_cert_chain_from_pem_file(&task.cert.display().to_string())?;
    config.load_priv_key_from_pem_file(&task.key.display().to_string())?;
    config.set_ticket_key(&[7; 48])?;
    let socket = UdpSocket::bind(task.listen)?;
    socket.set_nonblocking(true)?;
    let local = socket.local_addr()?;
    let sockets = [socket];
    say("ready");
    let mut clients: Vec<Client> = Vec::new();
    // The client of each connection ID.
    let mut ids: HashMap<Vec<u8>, usize> = HashMap::new();
    let mut buffer = vec![0; 65_536];
    loop {
        let mut busy = false;
        while let Ok((len, from)) = sockets[0].recv_from(&mut buffer) {
            busy = true;
            let packet = &mut buffer[..len];
            let Ok(header) = quiche::Header::from_slice(packet, CID) else { continue };
            let at = match ids.get(&header.dcid.to_vec()) {
                Some(at) => *at,
                None => {
                    if header.ty != quiche::Type::Initial {
                        continue;
                    }
                    let mut out = [0; 1500];
                    if !quiche::version_is_supported(header.version) {
                        let n = quiche::negotiate_version(&header.scid, &header.dcid, &mut out)?;
                        sockets[0].send_to(&out[..n], from)?;
                        continue;
                    }
                    let token = header.token.clone().unwrap_or_default();
                    let mut original = None;
                    let mut scid = ConnectionId::from_vec(fresh());
                    if task.case == "retry" {
                        if token.is_empty() {
                            let mut token = from.to_string().into_bytes();
                            token.push(b'|');
                            token.extend_from_slice(&header.dcid);
                            let n = quiche::retry(&header.scid, &header.dcid, &scid, &token, header.version, &mut out)?;
                            sockets[0].send_to(&out[..n], from)?;
                            continue;
                        }
                        let bar = token.iter().position(|b| *b == b'|').ok_or("a foreign token")?;
                        original = Some(ConnectionId::from_vec(token[bar + 1..].to_vec()));
                        scid = ConnectionId::from_vec(header.dcid.to_vec());
                    }
                    let mut connection = quiche::accept(&scid, original.as_ref(), local, from, &mut config)?;
                    log_to(&mut connection)?;
                    ids.insert(scid.to_vec(), clients.len());
                    ids.insert(header.dcid.to_vec(), clients.len());
                    clients.push(Client { connection, requests: HashMap::new(), answers: BTreeMap::new() });
                    clients.len() - 1
                }
            };
            // Invalid packets are dropped. quiche gives a connection up if the first one is.
            let connection = &mut clients[at].connection;
            let done = connection.recv(packet, RecvInfo { from, to: local });
            if done.is_err() && connection.stats().recv == 0 {
                ids.retain(|_, owner| *owner != at);
            }
        }
        for (at, client) in clients.iter_mut().enumerate() {
            if client.connection.is_closed() {
                continue;
            }
            if client.connection.timeout().is_some_and(|left| left.is_zero()) {
                client.connection.on_timeout();
            }
            client.turn(task);
            spare_ids(&mut client.connection)?;
            for id in client.connection.source_ids() {
                ids.insert(id.to_vec(), at);
            }
            busy |= flush(&mut client.connection, &sockets, &mut buffer)?;
            client.turn(task);
            busy |= flush(&mut client.connection, &sockets, &mut buffer)?;
            if client.connection.is_closed() {
                say(&format!("closed {:?}", client.connection.peer_error()));
            }
        }
        if !busy {
            std::thread::sleep(Duration::from_micros(300));
        }
    }
}

fn get(task: &Task) -> Result<(), Failure> {
    let mut config = config(task)?;
    config.verify_peer(true);
    config.load_verify_locations_from_file(&task.ca.display().to_string())?;
    let (mut session, mut all) = (None, true);
    for (number, paths) in task.connections().into_iter().enumerate() {
        let keeps = number == 0 && matches!(task.case.as_str(), "resumption" | "zerortt");
        let (done, ticket) = download(task, &mut config, session.take(), paths, keeps)?;
        session = ticket;
        all &= done;
    }
    if all { Ok(()) } else { Err("not all files have arrived".into()) }
}

/// Datagrams that are sent and come back.
#[derive(Default)]
struct Bounce {
    sent: u16,
    missing: BTreeSet<Vec<u8>>,
    since: Option<Instant>,
}

impl Bounce {
    /// Sends one and takes those that have come. Returns whether that was all.
    fn turn(&mut self, connection: &mut Connection) -> Result<bool, Failure> {
        if self.sent < DATAGRAMS {
            connection.dgram_send(&datagram(self.sent))?;
            self.missing.insert(datagram(self.sent));
            self.sent += 1;
            self.since = Some(Instant::now());
        }
        let mut block = [0; 4096];
        while let Ok(n) = connection.dgram_recv(&mut block) {
            if !self.missing.remove(&block[..n]) {
                return Err("a datagram that was not sent, or came twice".into());
            }
        }
        let late = self.since.is_some_and(|since| since.elapsed() > Duration::from_secs(1));
        Ok(self.sent == DATAGRAMS && (self.missing.is_empty() || late))
    }
}

/// One connection. Returns whether all files arrived, and the ticket.
fn download(
    task: &Task,
    config: &mut Config,
    session: Option<Vec<u8>>,
    paths: Vec<String>,
    keeps: bool,
) -> Result<(bool, Option<Vec<u8>>), Failure> {
    let bind = || -> Result<UdpSocket, Failure> {
        // The address that the kernel chooses for this server.
        let probe = UdpSocket::bind(task.any())?;
        probe.connect(task.server)?;
        let ip = probe.local_addr()?.ip();
        drop(probe);
        let socket = UdpSocket::bind(SocketAddr::new(ip, 0))?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    };
    let mut sockets = vec![bind()?];
    let local = sockets[0].local_addr()?;
    // BoringSSL does not look for addresses among the names of a certificate.
    let name = "server";
    let id = fresh();
    let mut connection = quiche::connect(Some(name), &ConnectionId::from_ref(&id), local, task.server, config)?;
    log_to(&mut connection)?;
    if let Some(session) = session {
        connection.set_session(&session)?;
    }
    let mut buffer = vec![0; 65_536];
    let mut bounce = (task.case == "datagrams").then(Bounce::default);
    let mut waiting: Vec<String> = if bounce.is_some() { Vec::new() } else { paths.into_iter().rev().collect() };
    let (mut bodies, mut next, mut good, mut open) = (HashMap::<u64, (String, Vec<u8>)>::new(), 0, true, 0);
    let mut stopping = (task.case == "stopsending").then_some(0_u64);
    let start = Instant::now();
    let mut idle_since = None;
    loop {
        let mut busy = false;
        for socket in &sockets {
            let to = socket.local_addr()?;
            while let Ok((len, from)) = socket.recv_from(&mut buffer) {
                busy = true;
                let _ = connection.recv(&mut buffer[..len], RecvInfo { from, to });
            }
        }
        if connection.timeout().is_some_and(|left| left.is_zero()) {
            connection.on_timeout();
        }
        if connection.is_closed() {
            return Err(format!("closed: {:?} {:?}", connection.local_error(), connection.peer_error()).into());
        }
        spare_ids(&mut connection)?;
        if connection.is_established() || connection.is_in_early_data() {
            while open < 1 || stopping.is_none() {
                let Some(path) = waiting.last().cloned() else { break };
                match connection.stream_send(next, format!("GET {path}\r\n").as_bytes(), true) {
                    Ok(_) => {
                        waiting.pop();
                        bodies.insert(next, (path, Vec::new()));
                        next += 4;
                        open += 1;
                    }
                    Err(_) => break,
                }
            }
        }
        for id in connection.readable() {
            loop {
                match connection.stream_recv(id, &mut buffer) {
                    Ok((n, fin)) => {
                        let Some((path, body)) = bodies.get_mut(&id) else { break };
                        body.extend_from_slice(&buffer[..n]);
                        if stopping == Some(id) && body.len() as u64 >= ENOUGH {
                            connection.stream_shutdown(id, Shutdown::Read, 0x10)?;
                            stopping = None;
                            bodies.remove(&id);
                            break;
                        }
                        if fin {
                            std::fs::write(task.target(path), &body)?;
                            bodies.remove(&id);
                            break;
                        }
                    }
                    Err(quiche::Error::Done) => break,
                    Err(error) => {
                        say(&format!("failed {error}"));
                        good = false;
                        bodies.remove(&id);
                        break;
                    }
                }
            }
        }
        if task.case == "migration"
            && sockets.len() == 1
            && start.elapsed() > Duration::from_millis(300)
            && connection.available_dcids() > 0
        {
            let socket = bind()?;
            connection.migrate_source(socket.local_addr()?)?;
            sockets.push(socket);
        }
        busy |= flush(&mut connection, &sockets, &mut buffer)?;
        if let Some(bounce) = &mut bounce
            && connection.is_established()
        {
            if !bounce.turn(&mut connection)? {
                std::thread::sleep(Duration::from_millis(1));
                continue;
            }
            came_back(usize::from(DATAGRAMS) - bounce.missing.len())?;
        }
        if waiting.is_empty() && bodies.is_empty() && connection.is_established() {
            // A ticket may arrive after the file.
            let since = *idle_since.get_or_insert_with(Instant::now);
            if !keeps || since.elapsed() > Duration::from_millis(300) {
                break;
            }
        }
        if !busy {
            std::thread::sleep(Duration::from_micros(300));
        }
    }
    let ticket = connection.session().map(<[u8]>::to_vec);
    if keeps && ticket.is_none() {
        return Err("no ticket".into());
    }
    if task.case == "zerortt" && !keeps {
        say(&format!("resumed {}", connection.is_resumed()));
    }
    connection.close(true, 0, b"")?;
    flush(&mut connection, &sockets, &mut buffer)?;
    std::io::stdout().flush()?;
    Ok((good, ticket))
}
