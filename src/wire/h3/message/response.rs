//! Heads of responses (RFC 9114 §4.3.2).

use crate::wire::h3::field::Field;
use crate::wire::h3::message::fields::{Fields, In, Limits, Malformed, once};
use crate::wire::h3::priority::Priority;

/// What a well-formed response says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResponseHead {
    /// `:status`, from 100 to 999, and not 101.
    pub status: u16,
    /// Content-Length.
    pub content_length: Option<u64>,
    /// The Priority field.
    pub priority: Priority,
    /// Whether capsules follow, by the Capsule-Protocol field (RFC 9297 §3.4).
    pub capsule_protocol: bool,
}

impl ResponseHead {
    /// Whether another response follows (RFC 9110 §15.2).
    pub const fn is_interim(&self) -> bool {
        self.status < 200
    }
}

/// Checks the head of a response, interim or final.
#[derive(Clone, Copy, Debug)]
pub struct ResponseCheck<'a> {
    fields: Fields<'a>,
    status: Option<&'a [u8]>,
}

impl<'a> ResponseCheck<'a> {
    /// At the front of a head.
    pub const fn new(limits: Limits) -> Self {
        Self { fields: Fields::new(In::Response, limits), status: None }
    }

    /// Takes the next field.
    pub fn add(&mut self, field: Field<'a>) -> Result<(), Malformed> {
        match self.fields.add(field)? {
            Some(b"status") => once(&mut self.status, field.1),
            Some(_) => Err(Malformed::Undefined),
            None => Ok(()),
        }
    }

    /// Judges the head as a whole.
    pub fn finish(self) -> Result<ResponseHead, Malformed> {
        let digits: &[u8; 3] = self.status.ok_or(Malformed::Missing)?.try_into().map_err(|_| Malformed::Status)?;
        if !digits.iter().all(u8::is_ascii_digit) {
            return Err(Malformed::Status);
        }
        let status = digits.iter().fold(0, |status, digit| status * 10 + u16::from(digit - b'0'));
        // HTTP/3 has no Upgrade (RFC 9114 §4.5).
        if status < 100 || status == 101 {
            return Err(Malformed::Status);
        }
        // RFC 9297 §3.2, §3.4: outside of 2xx the field means nothing.
        let capsule_protocol = self.fields.capsules() && (200..300).contains(&status);
        if capsule_protocol && (self.fields.content || matches!(status, 204..=206)) {
            return Err(Malformed::Capsules);
        }
        Ok(ResponseHead {
            status,
            content_length: self.fields.content_length,
            priority: self.fields.priority(),
            capsule_protocol,
        })
    }
}
