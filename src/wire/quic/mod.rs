//! QUIC's wire format: RFC 8999, RFC 9000 §16–§20, RFC 9221, RFC 9369.

pub mod frame;
pub mod header;
pub mod params;
mod preferred;
pub mod varint;
pub mod version;

use core::fmt;
use core::ops::Deref;

use crate::base::Side;

pub use version::{Version, Versions};

/// Direction of a stream (RFC 9000 §2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dir {
    /// Bidirectional.
    Bidi,
    /// Unidirectional, from the opener to the peer.
    Uni,
}

/// A stream ID (RFC 9000 §2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub u64);

impl StreamId {
    /// The `index`th stream that `initiator` opens in direction `dir`, counted from 0.
    pub const fn new(initiator: Side, dir: Dir, index: u64) -> Self {
        let side = matches!(initiator, Side::Server) as u64;
        let uni = matches!(dir, Dir::Uni) as u64;
        Self(index << 2 | uni << 1 | side)
    }

    /// The end that opens it.
    pub const fn initiator(self) -> Side {
        if self.0 & 1 == 0 { Side::Client } else { Side::Server }
    }

    /// Its direction.
    pub const fn dir(self) -> Dir {
        if self.0 & 2 == 0 { Dir::Bidi } else { Dir::Uni }
    }

    /// Its index among the streams of its kind, counted from 0.
    pub const fn index(self) -> u64 {
        self.0 >> 2
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A connection ID of up to 20 bytes (RFC 9000 §5.1).
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct ConnectionId {
    len: u8,
    bytes: [u8; Self::MAX],
}

impl ConnectionId {
    /// Maximum length of a connection ID in QUIC version 1, in bytes.
    pub const MAX: usize = 20;

    /// Makes an ID of `bytes`; `None` if there are more than 20.
    #[inline]
    pub fn new(bytes: &[u8]) -> Option<Self> {
        // A constant length takes one move.
        if let Ok(eight) = <&[u8; 8]>::try_from(bytes) {
            let mut cid = Self { len: 8, bytes: [0; Self::MAX] };
            cid.bytes[..8].copy_from_slice(eight);
            return Some(cid);
        }
        let mut cid = Self { len: bytes.len() as u8, bytes: [0; Self::MAX] };
        cid.bytes.get_mut(..bytes.len())?.copy_from_slice(bytes);
        Some(cid)
    }
}

impl Deref for ConnectionId {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

impl fmt::Debug for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

/// A transport error code (RFC 9000 §20.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TransportError(pub u64);

macro_rules! codes {
    ($($name:ident = $code:literal: $text:literal;)*) => {
        #[allow(missing_docs)]
        impl TransportError {
            $(pub const $name: Self = Self($code);)*
        }

        impl fmt::Display for TransportError {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self.0 {
                    $($code => f.write_str($text),)*
                    0x100..=0x1ff => write!(f, "TLS alert {}: {}", self.0 & 0xff, alert_text(self.0 as u8)),
                    code => write!(f, "transport error 0x{code:x}"),
                }
            }
        }
    };
}

/// Description of a TLS alert (RFC 8446 §6.2).
const fn alert_text(alert: u8) -> &'static str {
    match alert {
        10 => "unexpected message",
        20 => "bad record MAC",
        40 => "handshake failure: no parameters in common",
        42 => "bad certificate",
        43 => "unsupported certificate",
        44 => "revoked certificate",
        45 => "expired certificate",
        46 => "unacceptable certificate",
        47 => "illegal parameter",
        48 => "certificate from an unknown CA",
        50 => "decode error",
        51 => "decrypt error",
        70 => "no TLS version in common",
        80 => "internal error",
        109 => "missing extension",
        112 => "unrecognized server name",
        116 => "client certificate required",
        120 => "no application protocol (ALPN) in common",
        _ => "see the TLS alert registry",
    }
}

codes! {
    NO_ERROR = 0x00: "no error";
    INTERNAL_ERROR = 0x01: "internal error";
    CONNECTION_REFUSED = 0x02: "connection refused";
    FLOW_CONTROL_ERROR = 0x03: "flow control limit exceeded";
    STREAM_LIMIT_ERROR = 0x04: "too many streams opened";
    STREAM_STATE_ERROR = 0x05: "frame for a stream in the wrong state";
    FINAL_SIZE_ERROR = 0x06: "final size changed or exceeded";
    FRAME_ENCODING_ERROR = 0x07: "frame encoding error";
    TRANSPORT_PARAMETER_ERROR = 0x08: "transport parameter error";
    CONNECTION_ID_LIMIT_ERROR = 0x09: "too many connection IDs";
    PROTOCOL_VIOLATION = 0x0a: "protocol violation";
    INVALID_TOKEN = 0x0b: "invalid token";
    APPLICATION_ERROR = 0x0c: "application error";
    CRYPTO_BUFFER_EXCEEDED = 0x0d: "too much buffered handshake data";
    KEY_UPDATE_ERROR = 0x0e: "key update error";
    AEAD_LIMIT_REACHED = 0x0f: "AEAD limit reached";
    NO_VIABLE_PATH = 0x10: "no viable path";
    VERSION_NEGOTIATION_ERROR = 0x11: "version negotiation error";
}

impl TransportError {
    /// CRYPTO_ERROR for a TLS alert (RFC 9001 §4.8).
    pub const fn crypto(alert: u8) -> Self {
        Self(0x100 | alert as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stream_ids_of_table_1() {
        assert_eq!(StreamId::new(Side::Client, Dir::Bidi, 0).0, 0);
        assert_eq!(StreamId::new(Side::Server, Dir::Bidi, 0).0, 1);
        assert_eq!(StreamId::new(Side::Client, Dir::Uni, 1).0, 6);
        let id = StreamId(7);
        assert_eq!((id.initiator(), id.dir(), id.index()), (Side::Server, Dir::Uni, 1));
    }

    #[test]
    fn connection_ids_hold_20_bytes() {
        assert_eq!(ConnectionId::new(&[7; 20]).unwrap().len(), 20);
        assert_eq!(ConnectionId::new(&[7; 21]), None);
    }
}
