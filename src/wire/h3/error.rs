//! Errors of HTTP/3 with what they end.

use core::fmt;

/// An application error code (RFC 9114 §8.1, RFC 9204 §6, RFC 9297 §5.2, draft-ietf-webtrans-http3-16 §9.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Code(pub u64);

macro_rules! codes {
    ($($name:ident = $code:literal: $text:literal;)*) => {
        impl Code {
            $(#[doc = concat!("`", stringify!($name), "`: ", $text, ".")] pub const $name: Self = Self($code);)*

            /// The name in the registry, if there is one.
            pub const fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($code => Some(stringify!($name)),)*
                    _ => None,
                }
            }
        }
    };
}

codes! {
    H3_DATAGRAM_ERROR = 0x33: "an invalid datagram or its capsule";
    H3_NO_ERROR = 0x100: "no error";
    H3_GENERAL_PROTOCOL_ERROR = 0x101: "a violation that has no code of its own";
    H3_INTERNAL_ERROR = 0x102: "an internal error";
    H3_STREAM_CREATION_ERROR = 0x103: "a stream that is not accepted";
    H3_CLOSED_CRITICAL_STREAM = 0x104: "a stream that the connection needs was closed";
    H3_FRAME_UNEXPECTED = 0x105: "a frame that is not permitted on this stream or in this state";
    H3_FRAME_ERROR = 0x106: "a frame of invalid layout or size";
    H3_EXCESSIVE_LOAD = 0x107: "behavior that causes too much load";
    H3_ID_ERROR = 0x108: "a stream ID or push ID that was used incorrectly";
    H3_SETTINGS_ERROR = 0x109: "an invalid SETTINGS frame";
    H3_MISSING_SETTINGS = 0x10a: "a control stream that does not begin with SETTINGS";
    H3_REQUEST_REJECTED = 0x10b: "a request that was not processed";
    H3_REQUEST_CANCELLED = 0x10c: "a request or response that is no longer wanted";
    H3_REQUEST_INCOMPLETE = 0x10d: "a stream that ended before the request was complete";
    H3_MESSAGE_ERROR = 0x10e: "a malformed message";
    H3_CONNECT_ERROR = 0x10f: "a tunnel's connection was reset or closed abnormally";
    H3_VERSION_FALLBACK = 0x110: "the request has to be sent over HTTP/1.1";
    QPACK_DECOMPRESSION_FAILED = 0x200: "a field section that cannot be decoded";
    QPACK_ENCODER_STREAM_ERROR = 0x201: "an invalid instruction on the encoder stream";
    QPACK_DECODER_STREAM_ERROR = 0x202: "an invalid instruction on the decoder stream";
    WT_FLOW_CONTROL_ERROR = 0x045d_4487: "a violated limit of a WebTransport session";
    WT_ALPN_ERROR = 0x0817_b3dd: "no protocol of the WebTransport session in common";
    WT_SESSION_GONE = 0x170d_7b68: "a stream whose WebTransport session is closed";
    WT_REQUIREMENTS_NOT_MET = 0x212c_0d48: "a setting or transport parameter that WebTransport needs is missing";
    WT_BUFFERED_STREAM_REJECTED = 0x3994_bd84: "a stream whose WebTransport session is unknown";
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "HTTP/3 error 0x{:x}", self.0),
        }
    }
}

/// What an error ends (RFC 9114 §8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The stream it was found on. The connection goes on.
    Stream,
    /// The connection.
    Connection,
}

/// A violation by the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {reason}")]
pub struct Error {
    /// The code to report it with.
    pub code: Code,
    /// What it ends.
    pub scope: Scope,
    /// What is wrong, for logs and the reason phrase.
    pub reason: &'static str,
}

impl Error {
    /// An error that ends the connection.
    pub const fn connection(code: Code, reason: &'static str) -> Self {
        Self { code, scope: Scope::Connection, reason }
    }

    /// An error that ends the stream.
    pub const fn stream(code: Code, reason: &'static str) -> Self {
        Self { code, scope: Scope::Stream, reason }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_have_their_names() {
        assert_eq!(Code::H3_MESSAGE_ERROR.to_string(), "H3_MESSAGE_ERROR");
        assert_eq!(Code(0x21).to_string(), "HTTP/3 error 0x21");
        let error = Error::stream(Code::H3_REQUEST_INCOMPLETE, "no request");
        assert_eq!(error.to_string(), "H3_REQUEST_INCOMPLETE: no request");
    }
}
