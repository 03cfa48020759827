//! The request line.

use std::fmt;

use thiserror::Error;

/// Longest request line in bytes, its end included.
pub const MAX_LINE: usize = 4096;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// A file's bytes.
    Get,
    /// To keep the bytes that follow (an extension).
    Put,
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Get => "GET",
            Self::Put => "PUT",
        })
    }
}

/// A request line that was understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// What to do.
    pub method: Method,
    /// With what: begins with a slash, is still percent-encoded, and has no query.
    pub path: String,
    /// Bytes of the line, its end included: a body starts there.
    pub len: usize,
}

/// Why a request line was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum RequestError {
    /// Neither GET nor PUT.
    #[error("the request is neither GET nor PUT")]
    Method,
    /// The path does not begin with a slash or is not text.
    #[error("the path does not begin with '/' or is not text")]
    Path,
    /// No end of line within 4096 bytes.
    #[error("the request line is longer than {MAX_LINE} bytes")]
    TooLong,
}

impl Request {
    /// Reads the request line at the front of `bytes`; `None` if more is needed. `ended`: nothing follows,
    /// so that the end of the bytes ends the line as well.
    ///
    /// # Errors
    /// [`RequestError`] if it cannot become a request line any more.
    pub fn parse(bytes: &[u8], ended: bool) -> Result<Option<Self>, RequestError> {
        let line = match bytes.iter().take(MAX_LINE).position(|b| *b == b'\n') {
            Some(at) => &bytes[..=at],
            None if bytes.len() >= MAX_LINE => return Err(RequestError::TooLong),
            None if ended => bytes,
            None => return Ok(None),
        };
        let text = std::str::from_utf8(line).map_err(|_| RequestError::Path)?.trim_end_matches(['\r', '\n']);
        let (method, rest) = text.split_once(' ').ok_or(RequestError::Method)?;
        let method = match method {
            "GET" => Method::Get,
            "PUT" => Method::Put,
            _ => return Err(RequestError::Method),
        };
        // Whatever follows the path (a query, a protocol version) has no meaning here.
        let path = rest.split([' ', '?']).next().unwrap_or_default();
        if !path.starts_with('/') {
            return Err(RequestError::Path);
        }
        Ok(Some(Self { method, path: path.to_owned(), len: line.len() }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lines() {
        let parse = |text: &str, ended| Request::parse(text.as_bytes(), ended);
        let get = parse("GET /a/b?x=1\r\nrest", false).unwrap().unwrap();
        assert_eq!((get.method, get.path.as_str(), get.len), (Method::Get, "/a/b", 14));
        assert_eq!(parse("GET /a", false), Ok(None));
        assert_eq!(parse("GET /a", true).unwrap().unwrap().path, "/a");
        assert_eq!(parse("PUT /a HTTP/0.9\n", false).unwrap().unwrap().path, "/a");
        assert_eq!(parse("POST /a\r\n", false), Err(RequestError::Method));
        assert_eq!(parse("", true), Err(RequestError::Method));
        assert_eq!(parse("GET a\r\n", false), Err(RequestError::Path));
        assert_eq!(Request::parse(b"GET /\xff\n", false), Err(RequestError::Path));
        assert_eq!(parse(&format!("GET /{}", "a".repeat(5000)), false), Err(RequestError::TooLong));
    }

    proptest! {
        #[test]
        fn any_bytes_parse_or_fail(bytes in proptest::collection::vec(any::<u8>(), 0..200), ended: bool) {
            if let Ok(Some(request)) = Request::parse(&bytes, ended) {
                prop_assert!(request.len <= bytes.len() && request.path.starts_with('/'));
            }
        }
    }
}
