//! What a server has to know of a ClientHello (RFC 8446 §4.1.2) before TLS reads it: which tickets it offers, and
//! whether it announces early data.

use crate::quic::tls::hello::{self, vector};
use crate::wire::quic::varint::Reader;

/// Extensions (RFC 8446 §4.2, RFC 7301).
const SERVER_NAME: u16 = 0;
const ALPN: u16 = 16;
const PRE_SHARED_KEY: u16 = 41;
const EARLY_DATA: u16 = 42;

/// Maximum number of offered tickets that are looked at. Clients offer one.
const MAX_TICKETS: usize = 2;

/// The parts of a ClientHello.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Offer<'a> {
    /// The server's name, if it is UTF-8.
    pub(crate) server_name: Option<&'a str>,
    /// The first offered application protocol.
    pub(crate) alpn: &'a [u8],
    /// Whether 0-RTT packets may follow.
    pub(crate) early_data: bool,
    tickets: [Option<&'a [u8]>; MAX_TICKETS],
}

impl<'a> Offer<'a> {
    /// Reads a whole message; `None` if it is no ClientHello or malformed, which TLS will report.
    pub(crate) fn read(message: &'a [u8]) -> Option<Self> {
        let mut offer = Self::default();
        for extension in hello::extensions(message)? {
            let (kind, value) = extension?;
            let mut value = Reader::new(value);
            match kind {
                SERVER_NAME => {
                    let mut names = Reader::new(vector::<2>(&mut value)?);
                    // The only type of name is a host name (RFC 6066 §3).
                    names.u8().filter(|kind| *kind == 0)?;
                    offer.server_name = std::str::from_utf8(vector::<2>(&mut names)?).ok();
                }
                ALPN => {
                    let mut names = Reader::new(vector::<2>(&mut value)?);
                    offer.alpn = vector::<1>(&mut names)?;
                }
                PRE_SHARED_KEY => {
                    let mut identities = Reader::new(vector::<2>(&mut value)?);
                    for ticket in &mut offer.tickets {
                        if identities.is_empty() {
                            break;
                        }
                        *ticket = Some(vector::<2>(&mut identities)?);
                        // The obfuscated age is checked by TLS.
                        identities.bytes(4)?;
                    }
                }
                EARLY_DATA => offer.early_data = true,
                _ => {}
            }
        }
        Some(offer)
    }

    /// The first of the offered tickets.
    pub(crate) fn tickets(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        self.tickets.into_iter().flatten()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A ClientHello with these extensions.
    fn client_hello(extensions: &[(u16, &[u8])]) -> Vec<u8> {
        let mut list = Vec::new();
        for (kind, value) in extensions {
            list.extend_from_slice(&kind.to_be_bytes());
            list.extend_from_slice(&(value.len() as u16).to_be_bytes());
            list.extend_from_slice(value);
        }
        let mut body = vec![3; 2 + 32];
        body.extend_from_slice(&[1, 9, 0, 2, 0x13, 1, 1, 0]);
        body.extend_from_slice(&(list.len() as u16).to_be_bytes());
        body.extend_from_slice(&list);
        [&[1, 0], &(body.len() as u16).to_be_bytes()[..], &body].concat()
    }

    #[test]
    fn the_parts_are_found() {
        let psk = [&[0, 22, 0, 3][..], b"one", &[7; 4], &[0, 7], b"another", &[7; 4], &[0, 3, 2, 1, 1]].concat();
        let extensions: [(u16, &[u8]); 5] = [
            (SERVER_NAME, b"\0\x06\0\0\x03sim"),
            (0x0a0a, b"grease"),
            (ALPN, b"\0\x06\x02h3\x02hq"),
            (EARLY_DATA, b""),
            (PRE_SHARED_KEY, &psk),
        ];
        let message = client_hello(&extensions);
        let read = Offer::read(&message).unwrap();
        assert_eq!((read.server_name, read.alpn, read.early_data), (Some("sim"), &b"h3"[..], true));
        assert_eq!(read.tickets().collect::<Vec<_>>(), [&b"one"[..], b"another"]);
        assert_eq!(hello::message_len(&message), Some(message.len()));
        assert_eq!(Offer::read(&client_hello(&[])), Some(Offer::default()));
        for len in 0..message.len() {
            assert_eq!(Offer::read(&message[..len]), None, "{len}");
        }
        let finished = [&[20], &message[1..]].concat();
        assert_eq!(Offer::read(&finished), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(
            kind in prop::sample::select(vec![SERVER_NAME, ALPN, PRE_SHARED_KEY, EARLY_DATA]),
            value in proptest::collection::vec(any::<u8>(), 0..60),
            raw in proptest::collection::vec(any::<u8>(), 0..100),
        ) {
            let message = client_hello(&[(kind, &value)]);
            if let Some(read) = Offer::read(&message) {
                prop_assert!(read.tickets().all(|ticket| ticket.len() <= value.len()));
            }
            let _ = (Offer::read(&raw), hello::message_len(&raw));
        }
    }
}
