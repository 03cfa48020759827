//! An endpoint that is sent any datagrams, in every state of its only connection.

use std::time::Duration;

use crate::input::Input;
use crate::states::{space, world};
use crate::world::{addr, client_addr};

/// The first byte chooses the state; datagrams follow, each a byte that says how it is made, and its arguments.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let (mut host, mut peer) = world(input.byte());
    for _ in 0..64 {
        if input.is_empty() {
            break;
        }
        let how = input.byte();
        let mut datagram = match how % 6 {
            0 => input.long_piece().to_vec(),
            1 => [&[0x40 | input.byte() & 0x3f][..], &peer.remote_cid, input.long_piece()].concat(),
            2 => {
                let first = input.byte() | 0x80;
                let version = if input.byte() < 0xc0 { 1 } else { input.word() };
                let (dcid, scid) = (peer.remote_cid, peer.local_cid);
                let lens = [dcid.len() as u8, scid.len() as u8];
                [&[first][..], &version.to_be_bytes(), &lens[..1], &dcid, &lens[1..], &scid, input.long_piece()]
                    .concat()
            }
            // An authentic packet, damaged.
            3 => {
                let space = space(&peer, input.byte());
                let mut datagram = peer.packet(space, input.piece());
                for _ in 0..input.byte() % 4 {
                    let at = usize::from(input.short()) % datagram.len();
                    datagram[at] = input.byte();
                }
                datagram.truncate(datagram.len() - usize::from(input.byte()) % datagram.len());
                datagram
            }
            // What the handshake has to say, once.
            4 => peer.out.pop().unwrap_or_default(),
            _ => {
                host.wait(Duration::from_micros(u64::from(input.word() % 2_000_000)));
                continue;
            }
        };
        // Padded to the size of a client's first datagram.
        if how & 0x40 != 0 && datagram.len() < 1200 {
            datagram.resize(1200, 0);
        }
        let mut from = addr(host.side.peer());
        if how & 0x80 != 0 {
            from.set_port(client_addr().port() ^ u16::from(input.byte() & 3));
        }
        let asked = datagram.len();
        host.receive_from(from, &mut datagram);
        let answers = host.run();
        if from != addr(host.side.peer()) {
            // Nobody has proved to be there (RFC 9000 §8.1).
            let sent: usize = answers.iter().filter(|(to, _)| to.remote == from).map(|(_, bytes)| bytes.len()).sum();
            assert!(sent <= 3 * asked + 1200, "{sent} bytes for {asked}");
        }
    }
    host.wait(Duration::from_secs(300));
    assert_eq!(host.endpoint.connection_count(), 0, "everything ends");
}
