//! quiche on kernel sockets. As it brings no I/O, this is the loop that it needs: one nonblocking socket that is
//! polled, with one `sendto` per datagram (like quiche's own example without segmentation offload).

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant, SystemTime};

use gannet::report::{Latency, Series};
use quiche::{Config, Connection, ConnectionId, RecvInfo};

use super::load::{self, BLOCK};
use super::{HEADERS, WINDOW};
use crate::Failure;
use crate::cli::PeerArgs;
use crate::lab::world::{ALPN, NAME, identity_pem};
use crate::output::keep_series;

/// The number of requests that are not measured.
const WARM_UP: u64 = 1000;

/// Runs one end.
///
/// # Errors
/// If it fails.
pub fn run(args: &PeerArgs) -> Result<(), Failure> {
    match (args.listen, args.connect) {
        (Some(listen), _) => serve(args, listen),
        (None, Some(remote)) => connect(args, remote),
        (None, None) => Err("neither --listen nor --connect is given".into()),
    }
}

fn config(args: &PeerArgs) -> Result<Config, Failure> {
    let mut config = Config::new(quiche::PROTOCOL_VERSION)?;
    let payload = usize::from(args.mtu - HEADERS);
    config.set_application_protos(&[ALPN])?;
    config.set_max_idle_timeout(30_000);
    config.set_max_recv_udp_payload_size(payload);
    config.set_max_send_udp_payload_size(payload);
    config.set_initial_max_data(u64::from(WINDOW));
    config.set_initial_max_stream_data_bidi_local(u64::from(WINDOW));
    config.set_initial_max_stream_data_bidi_remote(u64::from(WINDOW));
    config.set_max_connection_window(u64::from(WINDOW));
    config.set_max_stream_window(u64::from(WINDOW));
    config.set_initial_max_streams_bidi(2048);
    config.set_cc_algorithm(quiche::CongestionControlAlgorithm::CUBIC);
    config.enable_pacing(false);
    config.verify_peer(false);
    Ok(config)
}

/// A connection and its socket.
struct Driver {
    socket: UdpSocket,
    connection: Connection,
    local: SocketAddr,
    buffer: Vec<u8>,
}

impl Driver {
    fn new(socket: UdpSocket, connection: Connection) -> Result<Self, Failure> {
        socket.set_nonblocking(true)?;
        let local = socket.local_addr()?;
        Ok(Self { socket, connection, local, buffer: vec![0; 65_536] })
    }

    /// Receives and sends all pending datagrams.
    fn turn(&mut self) -> Result<(), Failure> {
        while let Ok((len, from)) = self.socket.recv_from(&mut self.buffer) {
            let info = RecvInfo { from, to: self.local };
            // Invalid packets are dropped.
            let _ = self.connection.recv(&mut self.buffer[..len], info);
        }
        if self.connection.timeout().is_some_and(|left| left.is_zero()) {
            self.connection.on_timeout();
        }
        while let Ok((len, info)) = self.connection.send(&mut self.buffer) {
            while let Err(error) = self.socket.send_to(&self.buffer[..len], info.to) {
                if error.kind() != std::io::ErrorKind::WouldBlock {
                    return Err(error.into());
                }
            }
        }
        if self.connection.is_closed() { Err("the connection was closed".into()) } else { Ok(()) }
    }
}

fn serve(args: &PeerArgs, listen: SocketAddr) -> Result<(), Failure> {
    let mut config = config(args)?;
    let dir = std::env::temp_dir().join(format!("gannet-perf-quiche-{}", std::process::id()));
    std::fs::create_dir_all(&dir)?;
    let (cert, key) = identity_pem();
    for (name, pem) in [("cert.pem", cert), ("key.pem", key)] {
        std::fs::write(dir.join(name), pem)?;
    }
    let file = |name: &str| dir.join(name).display().to_string();
    config.load_cert_chain_from_pem_file(&file("cert.pem"))?;
    config.load_priv_key_from_pem_file(&file("key.pem"))?;
    std::fs::remove_dir_all(&dir)?;

    let socket = UdpSocket::bind(listen)?;
    println!("ready: {}", socket.local_addr()?);
    let mut first = vec![0; 65_536];
    let (len, from) = socket.recv_from(&mut first)?;
    let scid = [7; 16];
    let local = socket.local_addr()?;
    let mut connection = quiche::accept(&ConnectionId::from_ref(&scid), None, local, from, &mut config)?;
    connection.recv(&mut first[..len], RecvInfo { from, to: local })?;
    let mut driver = Driver::new(socket, connection)?;
    let mut answers: Vec<(u64, u64)> = Vec::new();
    loop {
        driver.turn()?;
        let conn = &mut driver.connection;
        for id in conn.readable() {
            let mut request = [0; 4096];
            let mut size = None;
            while let Ok((n, fin)) = conn.stream_recv(id, &mut request) {
                size = size.or_else(|| request[..n].first_chunk().map(|head| u64::from_be_bytes(*head)));
                if fin {
                    answers.push((id, size.unwrap_or(0)));
                }
            }
        }
        answers.retain_mut(|(id, left)| {
            loop {
                let n = (*left).min(BLOCK.len() as u64);
                match conn.stream_send(*id, &BLOCK[..n as usize], n == *left) {
                    Ok(sent) if sent as u64 == *left => return false,
                    Ok(0) | Err(quiche::Error::Done) => return true,
                    Ok(sent) => *left -= sent as u64,
                    Err(_) => return false,
                }
            }
        });
    }
}

fn connect(args: &PeerArgs, remote: SocketAddr) -> Result<(), Failure> {
    let mut config = config(args)?;
    let any: SocketAddr = if remote.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }.parse()?;
    let socket = UdpSocket::bind(any)?;
    socket.connect(remote)?;
    let local = socket.local_addr()?;
    let socket = {
        drop(socket);
        UdpSocket::bind(local)?
    };
    let scid = [9; 16];
    let connection = quiche::connect(Some(NAME), &ConnectionId::from_ref(&scid), local, remote, &mut config)?;
    let mut driver = Driver::new(socket, connection)?;
    while !driver.connection.is_established() {
        driver.turn()?;
    }
    let question = load::request(args);
    let (mut next, mut answer) = (0, vec![0; 1 << 20]);
    let mut ask = || -> Result<u64, Failure> {
        driver.connection.stream_send(next, &question, true)?;
        let (mut got, mut over) = (0, false);
        while !over {
            driver.turn()?;
            while let Ok((n, fin)) = driver.connection.stream_recv(next, &mut answer) {
                got += n as u64;
                over |= fin;
            }
        }
        next += 4;
        Ok(got)
    };
    let Some(duration) = args.duration else {
        let start = Instant::now();
        let bytes = ask()?;
        println!("download_gbps: {}", bytes as f64 * 8.0 / 1e9 / start.elapsed().as_secs_f64());
        return Ok(());
    };
    for _ in 0..WARM_UP {
        ask()?;
    }
    let (began, start, mut latency) = (SystemTime::now(), Instant::now(), Latency::new());
    while start.elapsed() < duration {
        let sent = Instant::now();
        ask()?;
        latency.record(sent.elapsed().as_nanos() as u64);
    }
    let (seconds, summary): (Duration, _) = (start.elapsed(), latency.summary());
    println!("requests_per_second: {}", latency.count() as f64 / seconds.as_secs_f64());
    if let Some(p50) = summary.p50 {
        println!("latency_p50_us: {}", p50 as f64 / 1000.0);
    }
    if let Some(path) = &args.hdr {
        keep_series(path, Series::new("request", latency).recorded(began, seconds))?;
    }
    Ok(())
}
