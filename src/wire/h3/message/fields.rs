//! What holds for every field section.

use crate::wire::h3::error::{Code, Error};
use crate::wire::h3::field::{self, Field};
use crate::wire::h3::priority::Priority;

/// Why a message is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the texts say it")]
pub enum Malformed {
    #[error("the name of a field is empty, has upper case, or is no token")]
    Name,
    #[error("the value of a field has a character that is not permitted, or whitespace around it")]
    Value,
    #[error("a field of connections of HTTP/1.1")]
    Connection,
    #[error("a TE field with another value than trailers, or outside of a request")]
    Te,
    #[error("a pseudo-header field behind a regular field")]
    Order,
    #[error("a pseudo-header field that is not defined here")]
    Undefined,
    #[error("a pseudo-header field appears twice")]
    Duplicate,
    #[error("a pseudo-header field is missing")]
    Missing,
    #[error("a pseudo-header field that must not be in this kind of request")]
    Surplus,
    #[error("invalid :method")]
    Method,
    #[error("invalid :scheme")]
    Scheme,
    #[error("invalid or missing authority")]
    Authority,
    #[error(":authority and Host differ, or there are several Host fields")]
    Host,
    #[error("invalid :path")]
    Path,
    #[error("invalid :protocol")]
    Protocol,
    #[error("invalid :status")]
    Status,
    #[error("invalid Content-Length, or several that differ")]
    ContentLength,
    #[error("the content is not as long as Content-Length says, or there must be none")]
    Content,
    #[error("the Capsule Protocol with a field or status that excludes it")]
    Capsules,
    #[error("the response ends before it is complete")]
    Incomplete,
    #[error("the field section is larger than the limit")]
    TooLarge,
}

impl Malformed {
    /// What to report. A section that is too large is not malformed: a server can answer it with status 431.
    pub fn error(self) -> Error {
        match self {
            Self::TooLarge => Error::stream(Code::H3_EXCESSIVE_LOAD, "the field section is larger than the limit"),
            _ => Error::stream(Code::H3_MESSAGE_ERROR, "malformed message"),
        }
    }
}

impl From<Malformed> for Error {
    fn from(malformed: Malformed) -> Self {
        malformed.error()
    }
}

/// Limits of a field section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Size in bytes, as RFC 9114 §4.2.2 counts: SETTINGS_MAX_FIELD_SECTION_SIZE.
    pub size: u64,
    /// Number of field lines.
    pub fields: u32,
}

impl Limits {
    /// No limit.
    pub const NONE: Self = Self { size: u64::MAX, fields: u32::MAX };
}

impl Default for Limits {
    fn default() -> Self {
        Self { size: 64 << 10, fields: 512 }
    }
}

/// Which section a field is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum In {
    Request,
    Response,
    Trailers,
}

/// What is known about the regular fields of a section so far.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fields<'a> {
    section: In,
    left: Limits,
    /// A regular field was seen: no pseudo-header fields any more.
    regular: bool,
    pub content_length: Option<u64>,
    /// Content-Length or Content-Type was seen, which the Capsule Protocol excludes.
    pub content: bool,
    /// Capsule-Protocol fields with the value true, and with any value.
    capsules: (bool, u32),
    pub host: Option<&'a [u8]>,
    priority: Priority,
    /// A Priority field was no Dictionary.
    no_priority: bool,
    pub expect_continue: bool,
}

impl<'a> Fields<'a> {
    pub const fn new(section: In, limits: Limits) -> Self {
        Self {
            section,
            left: limits,
            regular: false,
            content_length: None,
            content: false,
            capsules: (false, 0),
            host: None,
            priority: Priority { urgency: None, incremental: None },
            no_priority: false,
            expect_continue: false,
        }
    }

    /// Takes a field. `Some`: it is a pseudo-header field in a permitted place, with its name without the colon.
    pub fn add(&mut self, (name, value): Field<'a>) -> Result<Option<&'a [u8]>, Malformed> {
        self.left.size = self.left.size.checked_sub(field::size(name, value)).ok_or(Malformed::TooLarge)?;
        self.left.fields = self.left.fields.checked_sub(1).ok_or(Malformed::TooLarge)?;
        if !field::is_value(value) {
            return Err(Malformed::Value);
        }
        if let Some(pseudo) = name.strip_prefix(b":") {
            if self.section == In::Trailers {
                return Err(Malformed::Undefined);
            }
            return if self.regular { Err(Malformed::Order) } else { Ok(Some(pseudo)) };
        }
        self.regular = true;
        if !field::is_name(name) {
            return Err(Malformed::Name);
        }
        if field::is_of_connection(name) {
            return Err(Malformed::Connection);
        }
        match name {
            b"te" if self.section != In::Request || !value.eq_ignore_ascii_case(b"trailers") => {
                return Err(Malformed::Te);
            }
            // In trailers it says nothing about the content (RFC 9110 §6.5.1).
            _ if self.section == In::Trailers => {}
            b"content-length" => {
                let length = field::content_length(value).ok_or(Malformed::ContentLength)?;
                if self.content_length.is_some_and(|before| before != length) {
                    return Err(Malformed::ContentLength);
                }
                self.content_length = Some(length);
                self.content = true;
            }
            b"content-type" => self.content = true,
            // RFC 9297 §3.4: a list is no Boolean, and parameters are ignored.
            b"capsule-protocol" => {
                let on = value == b"?1" || value.starts_with(b"?1;");
                self.capsules = (on, self.capsules.1.saturating_add(1));
            }
            // RFC 9110 §7.2: more than one is an error.
            b"host" if self.section == In::Request => {
                let before = self.host.replace(value);
                if before.is_some() {
                    return Err(Malformed::Host);
                }
            }
            b"priority" => self.no_priority |= self.priority.add(value).is_none(),
            b"expect" => self.expect_continue |= value.eq_ignore_ascii_case(b"100-continue"),
            _ => {}
        }
        Ok(None)
    }

    /// The Priority field; nothing if it was no Dictionary.
    pub fn priority(&self) -> Priority {
        if self.no_priority { Priority::default() } else { self.priority }
    }

    /// Whether the Capsule-Protocol field says that capsules follow.
    pub const fn capsules(&self) -> bool {
        matches!(self.capsules, (true, 1))
    }
}

/// Stores a pseudo-header field, of which there is one at most.
pub(super) fn once<'a>(slot: &mut Option<&'a [u8]>, value: &'a [u8]) -> Result<(), Malformed> {
    if slot.replace(value).is_some() { Err(Malformed::Duplicate) } else { Ok(()) }
}

/// Checks a trailer section.
#[derive(Clone, Copy, Debug)]
pub struct TrailersCheck<'a>(Fields<'a>);

impl<'a> TrailersCheck<'a> {
    /// At the front of a section.
    pub const fn new(limits: Limits) -> Self {
        Self(Fields::new(In::Trailers, limits))
    }

    /// Takes the next field.
    pub fn add(&mut self, field: Field<'a>) -> Result<(), Malformed> {
        self.0.add(field).map(|_| ())
    }
}
