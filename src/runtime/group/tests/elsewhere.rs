//! Messages that reach the wrong core, with cores that the test drives turn by turn.

use std::cell::RefCell;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::world::*;
use crate::base::time::Duration;
use crate::datapath::exchange::{Mesh, mesh};
use crate::datapath::sim::{SimPort, SimQueue, SimRx, SimTx};
use crate::datapath::spread::{FlowHash, Guest, Host, Spread};
use crate::datapath::{Burst, Datapath, RxFrame, TxFrame};
use crate::quic::{CloseReason, ConnId, EndpointConfig, Event, ServerConfig};
use crate::runtime::notes::{Members, Note, mailboxes_of};
use crate::runtime::waker::is_rung;
use crate::runtime::{App, Context, Core, CoreConfig, Notes, Place, Seat, Unreachable, Waker, mailboxes};
use crate::wire::arp::{Arp, ArpOp};
use crate::wire::checksum::Sum;
use crate::wire::eth::{ETHERTYPE_ARP, ETHERTYPE_IPV4, EthHeader, Mac};
use crate::wire::ipv4::{self, PROTOCOL_ICMP};
use crate::wire::quic::TransportError;

fn with_notes(cores: u8) -> Vec<Option<Notes>> {
    mailboxes(cores, 7).into_iter().map(Some).collect()
}

/// How many of eight clients get their answers within three seconds when ARP always reaches the core next to that of
/// their connection.
fn served(notes: Vec<Option<Notes>>) -> (usize, Vec<u64>) {
    let config = server_config("server.test");
    let (queues, ports) = links(8, 4, |frame| {
        let (n, arp) = origin(frame);
        n + usize::from(arp)
    });
    let mut cores = cores(queues, &endpoint(1), notes, |place| server(place, &config).unwrap());
    let mut clients: Vec<_> = (1..).zip(ports).map(|(n, port)| client(n, port, Asker::new(Some(b"hello")))).collect();
    let mut answers = 0;
    let mut ms = 0;
    play(|now| {
        cores.iter_mut().for_each(|core| _ = core.turn_at(now));
        clients.iter_mut().for_each(|client| _ = client.turn_at(now));
        answers = clients.iter().filter(|client| client.app.answers == 1).count();
        ms += 1;
        answers == clients.len() || ms == 3000
    });
    (answers, cores.iter().map(|core| core.app.answered as u64).collect())
}

/// In an earlier trial without notes, 1 of 8 clients was served.
#[test]
fn clients_are_served_whichever_core_hears_where_they_are() {
    assert_eq!(served(with_notes(4)), (8, vec![2; 4]));
    let silent = || (0..4).map(|_| None).collect();
    assert!(served(silent()).0 < 8, "so it is the notes that do it");
}

/// A client with two cores, of which core 0 connects. All frames reach the queue that `to` returns.
fn two_cores(to: &Arc<AtomicUsize>) -> (Vec<Member<Asker>>, SimPort) {
    let to = to.clone();
    let (queues, mut ports) = links(1, 2, move |_| to.load(Ordering::Relaxed));
    let cores = cores(queues, &endpoint(3), with_notes(2), |place| {
        let app = if place.core == 0 { Asker::new(Some(b"hello")) } else { Asker::silent() };
        (CoreConfig::new("192.0.2.101/24".parse().unwrap(), place.endpoint), app)
    });
    (cores, ports.remove(0))
}

fn put(port: &mut SimPort, ethertype: u16, bytes: &[u8]) {
    let mut frame = port.tx_alloc().unwrap();
    frame.payload_mut()[..bytes.len()].copy_from_slice(bytes);
    frame.set_payload_len(bytes.len());
    let eth = EthHeader { dst: Mac(mac(0)), src: Mac(mac(1)), vlan: None, ethertype }.to_bytes();
    frame.prepend(eth.len()).copy_from_slice(&eth);
    assert_eq!(port.tx_burst(&mut Burst::<SimTx>::from_iter([frame])), 1);
}

/// An ICMP error about the IPv4 packet `quoted`.
fn error(port: &mut SimPort, kind: u8, code: u8, mtu: u16, quoted: &[u8]) {
    let quoted = &quoted[..quoted.len().min(548)];
    let mut message = vec![kind, code, 0, 0, 0, 0];
    message.extend(mtu.to_be_bytes());
    message.extend(quoted);
    let sum = Sum::new().bytes(&message).checksum();
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    let (router, us) = (Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 101));
    put(port, ETHERTYPE_IPV4, &[&ipv4::header(router, us, PROTOCOL_ICMP, 64, 0, message.len())[..], &message].concat());
}

/// Without notes, such errors are ignored: no connection of core 1 has sent the packets that they quote.
#[test]
fn icmp_errors_reach_the_connection_on_another_core() {
    let (mut cores, mut port) = two_cores(&Arc::new(AtomicUsize::new(1)));
    let mut sent = None;
    let mut told = 0;
    let took = play(|now| {
        cores.iter_mut().for_each(|core| _ = core.turn_at(now));
        let mut burst = Burst::<SimRx>::new();
        port.rx_burst(&mut burst);
        for frame in &mut burst {
            let frame = frame.data_mut();
            if frame[12..14] == ETHERTYPE_ARP.to_be_bytes() {
                let Ok(ask) = Arp::parse(&frame[14..]) else { continue };
                if ask.sender_ip.is_unspecified() || ask.target_ip != Ipv4Addr::new(192, 0, 2, 1) {
                    continue;
                }
                let (sender_mac, sender_ip) = (Mac(mac(1)), ask.target_ip);
                let (target_mac, target_ip) = (ask.sender_mac, ask.sender_ip);
                let answer = Arp { op: ArpOp::Reply, sender_mac, sender_ip, target_mac, target_ip };
                put(&mut port, ETHERTYPE_ARP, &answer.to_bytes());
            } else {
                sent = Some(frame[14..].to_vec());
            }
        }
        if let Some(packet) = sent.take().filter(|_| told == 0) {
            told = 1;
            // Fragmentation needed, host unreachable, port unreachable (RFC 792).
            error(&mut port, 3, 4, 1000, &packet);
            error(&mut port, 3, 1, 0, &packet);
            error(&mut port, 3, 3, 0, &packet);
        }
        cores[0].stats().notes_heeded == 3
    });
    assert!(took.is_some(), "{:?} {:?}", cores[0].stats(), cores[1].stats());
    assert_eq!(cores[0].app.unreachable, Some(Unreachable::PortClosed), "the last one");
    assert_eq!(cores[1].app.unreachable, None);
    let ignored = |n: usize| cores[n].endpoint_stats().too_big_ignored + cores[n].endpoint_stats().undelivered_ignored;
    assert_eq!([0, 1].map(ignored), [0, 3], "counted once, where they came");
}

/// Frames for a sleeping core wake it, and so do notes.
#[test]
fn a_core_that_gets_a_frame_from_another_one_is_woken() {
    let config = server_config("server.test");
    let to = Arc::new(AtomicUsize::new(0));
    let picked = to.clone();
    let (queues, mut ports) = links(1, 2, move |_| picked.load(Ordering::Relaxed));
    let (waker, notes) = (Waker::new(), mailboxes(2, 7));
    waker.prepare();
    notes[0].woken_by(&waker);
    let mut cores = cores(queues, &endpoint(1), notes.into_iter().map(Some), |place| server(place, &config).unwrap());
    let mut client = client(1, ports.remove(0), Asker::new(None));
    let mut woken = false;
    play(|now| {
        client.turn_at(now);
        if client.app.connected && to.swap(1, Ordering::Relaxed) == 0 {
            client.app.ask = Some(b"hello");
        }
        waker.fall_asleep();
        cores[1].turn_at(now);
        woken |= is_rung(&waker);
        cores[0].turn_at(now);
        client.app.answers == 1
    })
    .expect("an answer");
    assert!(woken && cores[1].stats().handed_over > 0);
}

/// The queue pair of a core that shares a simulated queue.
type Shared = Spread<SimQueue, SimQueue, Mesh<SimRx>, Mesh<SimTx>>;

/// A host and a guest that share `queue`.
fn shared(queue: SimQueue) -> [Shared; 2] {
    let mut source = links(1, 1, |_| 0).0;
    let (mut received, mut sent) = (mesh(2, 256).into_iter(), mesh(2, 256).into_iter());
    let mut ends = || (received.next().unwrap(), sent.next().unwrap());
    let (rx, tx) = ends();
    let host = Spread::Host(Host::new(queue, rx, tx, FlowHash::new([3, 5, 7])));
    let (rx, tx) = ends();
    [host, Spread::Guest(Guest::new(source.remove(0), rx, tx))]
}

/// Core `core` of a server with two, whose application is made by `app`.
fn seated<A: App>(
    queue: Shared,
    (core, exchange, notes): (u8, Mesh<SimRx>, Notes),
    server_config: &ServerConfig,
    app: impl FnOnce(Echo) -> A,
) -> Core<Shared, A, Mesh<SimRx>> {
    let place = Place { core, cores: 2, endpoint: endpoint(1).for_core(core, 2) };
    let (mut config, echo) = server(place, server_config).unwrap();
    config.net = config.net.for_core(core, 2);
    Core::in_group(queue, config, app(echo), Seat { core, cores: 2, exchange, notes: Some(notes) }).unwrap()
}

/// A core without a queue of its own used to look for frames every 50 us. It is woken by the host's frames, and wakes the
/// host to have its own sent.
#[test]
fn cores_that_share_a_queue_wake_each_other() {
    let config = server_config("server.test");
    let (mut queues, ports) = links(8, 1, |_| 0);
    let (wakers, notes) = ([Waker::new(), Waker::new()], mailboxes(2, 7));
    for (waker, notes) in wakers.iter().zip(&notes) {
        waker.prepare();
        notes.woken_by(waker);
    }
    let seats = shared(queues.remove(0)).into_iter().zip(mesh::<SimRx>(2, 256)).zip(notes).zip(0..);
    let mut cores: Vec<_> = seats
        .map(|(((queue, exchange), notes), core)| seated(queue, (core, exchange, notes), &config, |echo| echo))
        .collect();
    let mut clients: Vec<_> = (1..).zip(ports).map(|(n, port)| client(n, port, Asker::new(Some(b"hello")))).collect();
    // Once all neighbours are known, nothing but frames wakes anybody.
    let (mut woken, mut again) = ([0; 2], false);
    play(|now| {
        clients.iter_mut().for_each(|client| _ = client.turn_at(now));
        for core in [0, 1] {
            wakers[1 - core].fall_asleep();
            cores[core].turn_at(now);
            woken[1 - core] += usize::from(is_rung(&wakers[1 - core]) && again);
        }
        if !again && clients.iter().all(|client| client.app.answers == 1) {
            clients.iter_mut().for_each(|client| client.app.ask = Some(b"again"));
            again = true;
        }
        clients.iter().all(|client| client.app.answers == 2)
    })
    .expect("answers");
    let answered = [0, 1].map(|core| cores[core].app.answered);
    assert!(answered[1] > 0 && answered[0] + answered[1] == 16, "{answered:?}");
    assert!(woken.iter().all(|n| *n > 0), "{woken:?} for {answered:?}");
}

/// The application of a host whose guest, stopped at the same time, is slow: it takes its last turns only after hundreds
/// of the host's.
struct Ahead<G> {
    echo: Echo,
    stop: Arc<AtomicBool>,
    turns: u32,
    guest: G,
}

impl<G: FnMut()> App for Ahead<G> {
    fn on_event(&mut self, cx: &mut Context<'_>, conn: ConnId, event: Event) {
        self.echo.on_event(cx, conn, event);
    }

    fn on_turn(&mut self, _: &mut Context<'_>) {
        self.turns += u32::from(self.stop.load(Ordering::Relaxed));
        if self.turns == 300 {
            self.turns += 1;
            (self.guest)();
        }
    }
}

/// The host used to leave after two quiet turns, and the clients of slower guests waited for their idle timeouts.
#[test]
fn a_host_sends_the_last_frames_of_guests_that_stop_later() {
    let config = server_config("server.test");
    let (mut queues, ports) = links(8, 1, |_| 0);
    let members = Members::new(2, 7);
    let seats = mesh::<SimRx>(2, 256).into_iter().zip(mailboxes_of(&members));
    let mut seats = (0..).zip(seats).map(|(core, (exchange, notes))| (core, exchange, notes));
    let [host, guest] = shared(queues.remove(0));
    let (first, second) = (seats.next().unwrap(), seats.next().unwrap());
    let guest = RefCell::new(seated(guest, second, &config, |echo| echo));
    let stop = Arc::new(AtomicBool::new(false));
    let last_turns = || {
        guest.borrow_mut().run(&stop).unwrap();
        members.rests(1);
    };
    let ahead = |echo| Ahead { echo, stop: stop.clone(), turns: 0, guest: last_turns };
    let mut host = seated(host, first, &config, ahead);
    let mut clients: Vec<_> = (1..).zip(ports).map(|(n, port)| client(n, port, Asker::new(Some(b"hello")))).collect();
    while clients.iter().any(|client| client.app.answers == 0) {
        host.turn();
        guest.borrow_mut().turn();
        clients.iter_mut().for_each(|client| _ = client.turn());
    }
    assert!(guest.borrow().app.answered > 0, "the guest has clients");
    // The host waits for half a second at most, which can be too short on a machine that is busy.
    host.stop_clock();
    guest.borrow_mut().stop_clock();
    stop.store(true, Ordering::Relaxed);
    host.run(&stop).unwrap();
    assert!(host.app.turns > 300, "the host has waited");
    let told = |client: &mut Core<SimPort, Asker>| {
        (0..1000).for_each(|_| _ = client.turn());
        matches!(client.app.closed, Some(CloseReason::Application { code: 0, .. }))
    };
    assert!(clients.iter_mut().all(told), "clients that have not been told");
}

/// RFC 9000 §10.3: the datagram has no connection ID that names a core.
#[test]
fn a_stateless_reset_reaches_the_connection_on_another_core() {
    let config = server_config("server.test");
    let (mut cores, port) = two_cores(&Arc::new(AtomicUsize::new(1)));
    let life = Arc::new(AtomicUsize::new(0));
    let now_lives = life.clone();
    let mut lives = port.into_queues(2, move |_| now_lives.load(Ordering::Relaxed)).into_iter();
    let mut start = |seed| {
        let endpoint = EndpointConfig::from_secret(&[9; 32].into(), [seed; 32]);
        let config = CoreConfig::new(format!("{SERVER}/24").parse().unwrap(), endpoint).serving(443, config.clone());
        Core::new(lives.next().unwrap(), config, Echo::default()).unwrap()
    };
    let mut server = start(1);
    let mut then = None;
    let took = play(|now| {
        cores.iter_mut().for_each(|core| _ = core.turn_at(now));
        server.turn_at(now);
        if cores[0].app.answers == 1 && then.is_none() {
            // The server crashes; its successor has the same secret.
            life.store(1, Ordering::Relaxed);
            server = start(2);
            cores[0].app.ask = Some(b"are you there?");
            then = Some(now);
        }
        cores[0].app.closed.is_some()
    });
    assert!(took.is_some());
    assert_eq!(cores[0].app.closed, Some(CloseReason::StatelessReset));
    assert_eq!((server.endpoint_stats().resets_sent > 0, cores[0].stats().notes_heeded), (true, 1));
    assert_eq!(cores.iter().map(|core| core.endpoint_stats().resets_sent).sum::<u64>(), 0);
}

/// Cores that drain keep their connections, refuse others, and end.
#[test]
fn a_group_that_drains_refuses_and_ends_with_its_last_connection() {
    let config = server_config("server.test");
    let members = Members::new(1, 7);
    let (queues, ports) = links(2, 1, |_| 0);
    let notes = mailboxes_of(&members).into_iter().map(Some);
    let mut server = cores(queues, &endpoint(1), notes, |place| server(place, &config).unwrap());
    let mut clients: Vec<_> = (1..).zip(ports).map(|(n, port)| client(n, port, Asker::new(None))).collect();
    let mut drained = false;
    play(|now| {
        server[0].turn_at(now);
        clients[0].turn_at(now);
        if clients[0].app.connected && !std::mem::replace(&mut drained, true) {
            members.tell_all(&Note::Drain).unwrap();
            clients[0].app.ask = Some(b"hello");
        }
        if drained {
            clients[1].turn_at(now);
        }
        clients[1].app.closed.is_some() && clients[0].app.answers == 1
    })
    .expect("an end");
    let refused = TransportError::CONNECTION_REFUSED.0;
    let closed = clients[1].app.closed.as_ref();
    assert!(matches!(closed, Some(CloseReason::PeerTransport { code, .. }) if *code == refused), "{closed:?}");
    assert!(!clients[1].app.connected && clients[0].app.closed.is_none());
    // It ends by itself, as the client has gone. Its time is now that of its own clock, which is behind.
    drop(clients);
    let later = crate::base::time::Instant::from_nanos(120_000_000_000) + Duration::from_secs(60);
    server[0].turn_at(later);
    server[0].run(&AtomicBool::new(false)).unwrap();
}

#[test]
fn new_certificates_are_for_new_connections_of_all_cores() {
    let [old, new] = ["server.test", "new.test"].map(server_config);
    let members = Members::new(2, 7);
    let (queues, _ports) = links(1, 2, super::by_client);
    let notes = mailboxes_of(&members).into_iter().map(Some);
    let mut all = cores(queues, &endpoint(1), notes, |place| server(place, &old).unwrap());
    members.tell_all(&Note::Tls(new.tls().clone())).unwrap();
    for core in &mut all {
        core.turn_at(crate::base::time::Instant::from_nanos(60_000_000_000));
        assert!(core.serves_with(new.tls()));
    }
}
