//! hq-interop: files over QUIC streams, as used in interoperability tests.
//!
//! A client opens a bidirectional stream, sends `GET /path\r\n` and ends its side; the server answers with the file's
//! bytes and ends its side. Errors are reported by RESET_STREAM with an HTTP status as code. As an extension, `PUT
//! /name\r\n` followed by bytes uploads a file.

mod client;
mod cores;
mod download;
mod fetch;
mod files;
mod kept;
mod path;
mod request;
mod server;
mod setup;
mod shares;
mod space;

pub use client::{HqClient, receive_buffers};
pub use cores::Outcomes;
pub use fetch::{Destination, FetchError, Fetched, HqClientConfig, Job, Progress};
pub use path::{PathError, Root};
pub use request::{Method, Request, RequestError};
pub use server::HqServer;
pub use setup::{FILE_PATIENCE, HqServerConfig, RequestProvider, ServeError, ServeStats};
pub use space::{Buffers, Space};

/// The ALPN protocol ID.
pub const ALPN: &[u8] = b"hq-interop";

/// Error codes of streams: HTTP status codes.
pub mod status {
    /// The request is malformed.
    pub const BAD_REQUEST: u64 = 400;
    /// The file may not be read, or uploads are not accepted.
    pub const FORBIDDEN: u64 = 403;
    /// There is no such file.
    pub const NOT_FOUND: u64 = 404;
    /// The server could not read or write the file.
    pub const INTERNAL: u64 = 500;
    /// The server has no memory for the request, or too many requests wait for its disk.
    pub const UNAVAILABLE: u64 = 503;
    /// The server's disk did not answer in time.
    pub const TIMEOUT: u64 = 504;

    /// A description of a code.
    pub fn text(code: u64) -> &'static str {
        match code {
            BAD_REQUEST => "the request was not understood",
            FORBIDDEN => "the server does not allow access to that file",
            NOT_FOUND => "no such file on the server",
            INTERNAL => "the server could not read or write the file",
            UNAVAILABLE => "the server has no memory left for the request",
            TIMEOUT => "the server's disk did not answer in time",
            _ => "unknown server error",
        }
    }
}

#[cfg(test)]
mod tests;
