//! hq-interop: files over QUIC streams, the way interoperability tests do it.
//!
//! A client opens a bidirectional stream, sends `GET /path\r\n` and its end; the server answers with the
//! file's bytes and the end. What goes wrong is told by RESET_STREAM with an HTTP status as code.
//! As an extension, `PUT /name\r\n` followed by bytes uploads a file.

mod client;
mod download;
mod fetch;
mod files;
mod kept;
mod path;
mod request;
mod server;
mod setup;
mod shares;

pub use client::{HqClient, receive_buffers};
pub use fetch::{Destination, FetchError, Fetched, HqClientConfig, Job, Progress};
pub use path::{PathError, Root};
pub use request::{Method, Request, RequestError};
pub use server::HqServer;
pub use setup::{FILE_PATIENCE, HqServerConfig, RequestProvider, ServeError, ServeStats};

/// The application protocol's name in TLS.
pub const ALPN: &[u8] = b"hq-interop";

/// Error codes on streams: HTTP's status codes.
pub mod status {
    /// The request made no sense.
    pub const BAD_REQUEST: u64 = 400;
    /// The file may not be read, or uploads are not taken.
    pub const FORBIDDEN: u64 = 403;
    /// There is no such file.
    pub const NOT_FOUND: u64 = 404;
    /// The server could not read or write the file.
    pub const INTERNAL: u64 = 500;
    /// The server has no memory for the request now, or too many others wait for its disk.
    pub const UNAVAILABLE: u64 = 503;
    /// The server's disk did not answer in time.
    pub const TIMEOUT: u64 = 504;

    /// What a code means.
    pub fn text(code: u64) -> &'static str {
        match code {
            BAD_REQUEST => "the request was not understood",
            FORBIDDEN => "the server may not give or take that file",
            NOT_FOUND => "no such file on the server",
            INTERNAL => "the server could not read or write the file",
            UNAVAILABLE => "the server has no memory left for the request",
            TIMEOUT => "the server's disk did not answer in time",
            _ => "unknown error of the server",
        }
    }
}

#[cfg(test)]
mod tests;
