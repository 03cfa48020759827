//! The request line.

use std::fmt;

use thiserror::Error;

/// The maximum length of a request line in bytes, including its end.
pub const MAX_LINE: usize = 4096;

/// The method of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Download a file.
    Get,
    /// Upload the bytes that follow (an extension).
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

/// A parsed request line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The method.
    pub method: Method,
    /// The path: starts with a slash, still percent-encoded, without a query.
    pub path: String,
    /// The length of the line in bytes, including its end: the offset of the body.
    pub len: usize,
}

/// The reason why a request line is invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum RequestError {
    /// Neither GET nor PUT.
    #[error("the request is neither GET nor PUT")]
    Method,
    /// The path does not start with a slash or is not UTF-8.
    #[error("the path does not start with '/' or is not UTF-8")]
    Path,
    /// The line is longer than `MAX_LINE` bytes.
    #[error("the request line is longer than {MAX_LINE} bytes")]
    TooLong,
}

impl Request {
    /// Parses the request line at the start of `bytes`; `None` if more is needed. If `ended`, nothing follows, so the
    /// end of the bytes is also the end of the line.
    ///
    /// # Errors
    /// [`RequestError`] if the bytes are not the start of a request line.
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
        // Anything after the path (a query, a protocol version) is ignored.
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
