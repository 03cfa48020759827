//! A connection whose peer has the keys and sends whatever frames it likes, while the application uses it at random.

use std::time::Duration;

use gannet::mem::PinnedBuf;
use gannet::quic::{Dir, Event, SendData, StreamId};

use crate::input::Input;
use crate::peer::Shape;
use crate::states::{space, world};
use crate::world::Host;

static DATA_TO_SEND: [u8; 1 << 16] = [0x55; 1 << 16];

/// What was handed to the engine and has to come back.
#[derive(Default)]
struct Lent {
    provided: usize,
    sent: usize,
}

/// The first byte chooses the state of the connection; steps follow, each a byte that says which, and its arguments.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let (mut host, mut peer) = world(input.byte());
    peer.takes_any_id = true;
    host.poll();
    host.events.retain(|(_, event)| matches!(event, Event::Closed { .. }));
    let mut lent = Lent::default();
    // The test's peer can open packets of the last two key phases only.
    let mut heard = true;
    for _ in 0..200 {
        if input.is_empty() {
            break;
        }
        match input.byte() % 14 {
            0..4 => {
                let space = space(&peer, input.byte());
                let datagram = peer.packet(space, input.piece());
                host.receive(datagram);
            }
            4 => {
                let space = space(&peer, input.byte());
                let shape = Shape {
                    first: input.byte() & 0x1f,
                    pn: Some(peer.pn[space].saturating_add_signed(i64::from(input.byte() as i8)) & ((1 << 62) - 1)),
                    ..Shape::default()
                };
                let datagram = peer.shaped(space, input.piece(), shape);
                host.receive(datagram);
            }
            5 => {
                let space = space(&peer, input.byte());
                if !peer.got[space].is_empty() {
                    let ack = peer.ack(space);
                    let datagram = peer.packet(space, &ack);
                    host.receive(datagram);
                }
            }
            6 if peer.is_connected() => {
                peer.update_keys();
                heard = false;
            }
            7 => drop(host.wait(Duration::from_micros(u64::from(input.word() % 3_000_000)))),
            8 => host.ecn = input.byte() & 3,
            _ => use_it(&mut host, &mut input, &mut lent),
        }
        // The engine answers for connections that are gone with stateless resets, which nobody can open.
        heard &= host.endpoint.connection_count() > 0;
        for (_, datagram) in host.run() {
            if heard && peer.is_connected() {
                peer.receive(&datagram);
            }
        }
        peer.out.clear();
    }
    host.wait(Duration::from_secs(300));
    assert_eq!(host.endpoint.connection_count(), 0, "everything ends");
    check(&host, &lent);
}

/// The application does something.
fn use_it(host: &mut Host, input: &mut Input<'_>, lent: &mut Lent) {
    let Some(mut conn) = host.conn.and_then(|id| host.endpoint.conn(id)) else { return };
    let what = input.byte();
    let id = StreamId(u64::from(input.byte() & 0x1f));
    let n = usize::from(input.short());
    match what % 9 {
        0 => drop(conn.open(if n % 2 == 0 { Dir::Bidi } else { Dir::Uni })),
        1 | 2 => {
            let taken = n > 0 && conn.send(id, SendData::Static(&DATA_TO_SEND[..n]), what & 0x80 != 0).is_ok();
            lent.sent += usize::from(taken);
        }
        3 | 4 => {
            let bufs = vec![PinnedBuf::unpinned(n.max(1)), PinnedBuf::unpinned(1)];
            lent.provided += if conn.provide_receive_buffers(id, bufs).is_ok() { 2 } else { 0 };
        }
        5 => {
            let len = conn.peek(id).map_or(0, <[u8]>::len);
            conn.consume(id, n.min(len));
        }
        6 => drop(conn.reset(id, n as u64)),
        7 => drop(conn.stop_sending(id, n as u64)),
        _ if what & 0x80 != 0 => conn.close(n as u64, "fuzz"),
        _ => drop(conn.take(id)),
    }
}

/// All that was lent has come back once, and nothing follows the end of the connection.
fn check(host: &Host, lent: &Lent) {
    let count = |pick: fn(&Event) -> bool| host.events.iter().filter(|(_, event)| pick(event)).count();
    assert_eq!(count(|event| matches!(event, Event::Buffer { .. })), lent.provided, "buffers");
    assert_eq!(count(|event| matches!(event, Event::SendDone { .. })), lent.sent, "data");
    let mut ended = Vec::new();
    for (id, event) in &host.events {
        assert!(!ended.contains(id), "nothing comes after Closed: {event:?}");
        if matches!(event, Event::Closed { .. }) {
            ended.push(*id);
        }
    }
}
