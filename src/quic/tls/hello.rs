//! Reads a ClientHello as far as a server has to know it before its TLS session can begin (RFC 8446 §4.1.2): the
//! session is told which version of QUIC was chosen, and the choice depends on the client's transport parameters. TLS
//! does not mind what QUIC forbids.

use crate::wire::quic::varint::Reader;

/// Handshake type client_hello.
const CLIENT_HELLO: u8 = 1;

/// Extension quic_transport_parameters (RFC 9001 §8.2).
const TRANSPORT_PARAMETERS: u16 = 0x39;

/// Length of the type and the length of a handshake message, in bytes.
const HEAD_LEN: usize = 4;

/// Maximum length of a ClientHello, in bytes. RFC 9000 §7.5 requires that 4096 can be buffered.
const MAX_HELLO: usize = 16 << 10;

/// What is known about a ClientHello of which `bytes` have arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hello {
    /// More bytes have to come.
    Partial,
    /// It is complete, or something else, which TLS will refuse.
    Complete,
    /// It is longer than is accepted.
    TooLong,
}

/// Judges the first `bytes` of a client's handshake.
pub(crate) fn judge(bytes: &[u8]) -> Hello {
    if bytes.first().is_some_and(|kind| *kind != CLIENT_HELLO) {
        return Hello::Complete;
    }
    match message_len(bytes) {
        Some(len) if bytes.len() >= len => Hello::Complete,
        Some(len) if len > HEAD_LEN + MAX_HELLO => Hello::TooLong,
        _ => Hello::Partial,
    }
}

/// Length of the handshake message at the front of `bytes`, once its header is there (RFC 8446 §4).
pub(super) fn message_len(bytes: &[u8]) -> Option<usize> {
    let [_, a, b, c] = *bytes.first_chunk::<HEAD_LEN>()?;
    Some(HEAD_LEN + u32::from_be_bytes([0, a, b, c]) as usize)
}

/// The bytes of a vector whose length has `N` bytes.
pub(super) fn vector<'a, const N: usize>(r: &mut Reader<'a>) -> Option<&'a [u8]> {
    let len = r.bytes(N)?.iter().fold(0, |len, byte| len << 8 | usize::from(*byte));
    r.bytes(len)
}

/// A reader behind type, length, legacy_version and random of a ClientHello; `None` if it is something else.
fn body(hello: &[u8]) -> Option<Reader<'_>> {
    let mut r = Reader::new(hello);
    if r.u8()? != CLIENT_HELLO {
        return None;
    }
    r.bytes(3 + 2 + 32)?;
    Some(r)
}

/// Types and contents of extensions. `None` is what cannot be read, and the end of the rest.
pub(super) struct Extensions<'a>(Reader<'a>);

impl<'a> Iterator for Extensions<'a> {
    type Item = Option<(u16, &'a [u8])>;

    fn next(&mut self) -> Option<Self::Item> {
        (!self.0.is_empty()).then(|| Some((self.0.u16()?, vector::<2>(&mut self.0)?)))
    }
}

/// The extensions of a complete ClientHello; `None` if it is something else, or malformed.
pub(super) fn extensions(hello: &[u8]) -> Option<Extensions<'_>> {
    let mut r = body(hello)?;
    // Session ID, cipher suites, compression methods.
    vector::<1>(&mut r)?;
    vector::<2>(&mut r)?;
    vector::<1>(&mut r)?;
    vector::<2>(&mut r).map(|list| Extensions(Reader::new(list)))
}

/// Whether a complete ClientHello has a legacy session ID, which QUIC does not allow (RFC 9001 §8.4).
pub(crate) fn asks_for_compatibility(hello: &[u8]) -> bool {
    body(hello).and_then(|mut r| r.u8()).is_some_and(|session_id| session_id != 0)
}

/// The encoded transport parameters in a complete ClientHello; `None` if it has none, or is malformed.
pub(crate) fn transport_parameters(hello: &[u8]) -> Option<&[u8]> {
    for extension in extensions(hello)? {
        let (kind, data) = extension?;
        if kind == TRANSPORT_PARAMETERS {
            return Some(data);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::crypto::tests::hex;

    /// The ClientHello of RFC 9001 §A.2.
    const HELLO: &str = "010000ed0303ebf8fa56f12939b9584a3896472ec40bb863cfd3e86804fe3a47f06a2b69484c0000041301130201\
        0000c000000010000e00000b6578616d706c652e636f6dff01000100000a00080006001d0017001800100007000504616c706e00050005\
        0100000000003300260024001d00209370b2c9caa47fbabaf4559fedba753de171fa71f50f1ce15d43e994ec74d748002b000302030400\
        0d0010000e0403050306030203080408050806002d00020101001c00024001003900320408ffffffffffffffff05048000ffff07048000\
        ffff0801100104800075300901100f088394c8f03e51570806048000ffff";

    #[test]
    fn the_parameters_of_the_rfcs_example_are_found() {
        let hello = hex(HELLO);
        assert_eq!(judge(&hello), Hello::Complete);
        let params = transport_parameters(&hello).unwrap();
        assert_eq!((params.len(), &params[..2]), (0x32, &[4, 8][..]));
        for len in 0..hello.len() {
            assert_eq!(judge(&hello[..len]), Hello::Partial, "{len}");
            assert_eq!(transport_parameters(&hello[..len]), None, "{len}");
        }
    }

    #[test]
    fn a_session_id_is_noticed() {
        let mut hello = hex(HELLO);
        assert!(!asks_for_compatibility(&hello));
        hello[38] = 32;
        assert!(asks_for_compatibility(&hello) && !asks_for_compatibility(&hello[..38]));
        hello[0] = 2;
        assert!(!asks_for_compatibility(&hello), "it is another message");
    }

    #[test]
    fn other_messages_and_endless_ones_do_not_wait() {
        assert_eq!((judge(&[]), judge(&[1]), judge(&[2])), (Hello::Partial, Hello::Partial, Hello::Complete));
        assert_eq!(judge(&[1, 0, 0x40, 0]), Hello::Partial);
        assert_eq!(judge(&[1, 0, 0x40, 1]), Hello::TooLong);
        assert_eq!(judge(&[0x0b, 0xff, 0xff, 0xff]), Hello::Complete);
        assert_eq!(transport_parameters(&[2; 100]), None);
    }

    proptest! {
        #[test]
        fn changed_hellos_are_read_or_not(at in 0usize..241, to: u8) {
            let mut hello = hex(HELLO);
            hello[at] = to;
            let _ = (judge(&hello), transport_parameters(&hello));
        }
    }
}
