//! The frames of a message (RFC 9114 §4.1, §4.4) and the length of its content (§4.1.2).

use crate::wire::h3::error::{Code, Error};
use crate::wire::h3::message::fields::Malformed;
use crate::wire::h3::message::request::RequestHead;
use crate::wire::h3::message::response::ResponseHead;

/// What the request of a response was, as far as the response's content depends on it (RFC 9110 §6.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// HEAD: the response has no content.
    Head,
    /// CONNECT: a tunnel follows a response of success.
    Connect,
    /// Anything else.
    Other,
}

impl Asked {
    /// By the request's method.
    pub fn by(method: &[u8]) -> Self {
        match method {
            b"HEAD" => Self::Head,
            b"CONNECT" => Self::Connect,
            _ => Self::Other,
        }
    }
}

/// What a HEADERS frame contains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    /// The head of a request or response.
    Head,
    /// Trailers.
    Trailers,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// No head yet, or only interim ones.
    Start,
    /// A head whose fields are not known yet.
    Head,
    /// Behind the head.
    Content,
    /// Behind the trailers.
    Trailers,
    /// A tunnel: nothing but DATA.
    Tunnel,
}

/// Follows what one end sends on a request stream: first [`Self::headers`] for each HEADERS frame, then
/// [`Self::request`] or [`Self::response`] when a head was checked; [`Self::data`] for each DATA frame;
/// [`Self::finish`].
#[derive(Clone, Copy, Debug)]
pub struct Sequence {
    state: State,
    /// For responses.
    asked: Option<Asked>,
    /// Length of the content in bytes, if it is known.
    expected: Option<u64>,
    /// Sum of the DATA frames so far, in bytes.
    received: u64,
}

impl Sequence {
    /// At the front of a request.
    pub const fn of_request() -> Self {
        Self { state: State::Start, asked: None, expected: None, received: 0 }
    }

    /// At the front of a response.
    pub const fn of_response(asked: Asked) -> Self {
        Self { state: State::Start, asked: Some(asked), expected: None, received: 0 }
    }

    /// A HEADERS frame begins.
    pub const fn headers(&mut self) -> Result<Section, Error> {
        match self.state {
            State::Start => {
                self.state = State::Head;
                Ok(Section::Head)
            }
            State::Content => {
                self.state = State::Trailers;
                Ok(Section::Trailers)
            }
            State::Head | State::Trailers => Err(unexpected("HEADERS behind the end of a message")),
            State::Tunnel => Err(unexpected("HEADERS in a tunnel")),
        }
    }

    /// The head of the request was checked.
    pub fn request(&mut self, head: &RequestHead<'_>) {
        debug_assert_eq!(self.state, State::Head);
        self.state = if head.is_connect() { State::Tunnel } else { State::Content };
        self.expected = head.content_length;
    }

    /// A head of the response was checked.
    pub fn response(&mut self, head: &ResponseHead) {
        debug_assert_eq!(self.state, State::Head);
        let success = (200..300).contains(&head.status);
        (self.state, self.expected) = match self.asked {
            _ if head.is_interim() => (State::Start, None),
            // Content-Length means nothing there (RFC 9110 §9.3.6).
            Some(Asked::Connect) if success => (State::Tunnel, None),
            Some(Asked::Head) => (State::Content, Some(0)),
            _ if matches!(head.status, 204 | 304) => (State::Content, Some(0)),
            _ => (State::Content, head.content_length),
        };
    }

    /// A DATA frame of `len` bytes begins.
    pub fn data(&mut self, len: u64) -> Result<(), Error> {
        match self.state {
            State::Tunnel => return Ok(()),
            State::Content => {}
            State::Start | State::Head => return Err(unexpected("DATA in front of a message's head")),
            State::Trailers => return Err(unexpected("DATA behind trailers")),
        }
        // Cannot overflow by what fits a stream.
        self.received = self.received.saturating_add(len);
        if self.expected.is_some_and(|expected| self.received > expected) {
            return Err(Malformed::Content.into());
        }
        Ok(())
    }

    /// The stream ends.
    pub fn finish(&self) -> Result<(), Error> {
        match (self.state, self.asked) {
            (State::Start | State::Head, None) => {
                Err(Error::stream(Code::H3_REQUEST_INCOMPLETE, "the stream ends before the request is complete"))
            }
            (State::Start | State::Head, Some(_)) => Err(Malformed::Incomplete.into()),
            (State::Tunnel, _) => Ok(()),
            _ if self.expected.is_some_and(|expected| self.received != expected) => Err(Malformed::Content.into()),
            _ => Ok(()),
        }
    }
}

const fn unexpected(reason: &'static str) -> Error {
    Error::connection(Code::H3_FRAME_UNEXPECTED, reason)
}

#[cfg(test)]
mod tests;
