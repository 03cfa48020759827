//! Heads of requests (RFC 9114 §4.3.1, §4.4, RFC 9220 §3).

use crate::wire::h3::field::{self, Field};
use crate::wire::h3::message::fields::{Fields, In, Limits, Malformed, once};
use crate::wire::h3::priority::Priority;

/// What a well-formed request says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestHead<'a> {
    /// `:method`.
    pub method: &'a [u8],
    /// `:scheme`; empty for CONNECT.
    pub scheme: &'a [u8],
    /// `:authority`, or Host if there is none; empty if the scheme does without.
    pub authority: &'a [u8],
    /// `:path`; empty for CONNECT.
    pub path: &'a [u8],
    /// `:protocol` of an extended CONNECT.
    pub protocol: Option<&'a [u8]>,
    /// Content-Length.
    pub content_length: Option<u64>,
    /// The Priority field.
    pub priority: Priority,
    /// Whether the client waits for status 100 before it sends content (RFC 9110 §10.1.1).
    pub expect_continue: bool,
    /// Whether capsules follow, by the Capsule-Protocol field (RFC 9297 §3.4).
    pub capsule_protocol: bool,
}

impl RequestHead<'_> {
    /// Whether it asks for a tunnel: CONNECT, extended or not.
    pub fn is_connect(&self) -> bool {
        self.method == b"CONNECT"
    }
}

/// Checks the head of a request.
#[derive(Clone, Copy, Debug)]
pub struct RequestCheck<'a> {
    fields: Fields<'a>,
    /// Whether `:protocol` is defined.
    extended: bool,
    method: Option<&'a [u8]>,
    scheme: Option<&'a [u8]>,
    authority: Option<&'a [u8]>,
    path: Option<&'a [u8]>,
    protocol: Option<&'a [u8]>,
}

impl<'a> RequestCheck<'a> {
    /// At the front of a head. `extended`: the server's settings enable extended CONNECT (RFC 9220 §3).
    pub const fn new(limits: Limits, extended: bool) -> Self {
        Self {
            fields: Fields::new(In::Request, limits),
            extended,
            method: None,
            scheme: None,
            authority: None,
            path: None,
            protocol: None,
        }
    }

    /// Takes the next field.
    pub fn add(&mut self, field: Field<'a>) -> Result<(), Malformed> {
        let Some(pseudo) = self.fields.add(field)? else { return Ok(()) };
        let slot = match pseudo {
            b"method" => &mut self.method,
            b"scheme" => &mut self.scheme,
            b"authority" => &mut self.authority,
            b"path" => &mut self.path,
            b"protocol" if self.extended => &mut self.protocol,
            _ => return Err(Malformed::Undefined),
        };
        once(slot, field.1)
    }

    /// Judges the head as a whole.
    pub fn finish(self) -> Result<RequestHead<'a>, Malformed> {
        let method = self.method.ok_or(Malformed::Missing)?;
        if !field::is_token(method) {
            return Err(Malformed::Method);
        }
        let host = self.fields.host;
        if self.authority.is_some() && host.is_some() && self.authority != host {
            return Err(Malformed::Host);
        }
        let authority = self.authority.or(host);
        if authority.is_some_and(<[u8]>::is_empty) {
            return Err(Malformed::Authority);
        }
        let connect = method == b"CONNECT";
        if self.protocol.is_some() && !connect {
            return Err(Malformed::Surplus);
        }
        if connect && self.protocol.is_none() {
            if self.scheme.is_some() || self.path.is_some() {
                return Err(Malformed::Surplus);
            }
            let target = self.authority.ok_or(Malformed::Missing)?;
            if !field::is_host_and_port(target) {
                return Err(Malformed::Authority);
            }
        } else {
            self.check_target(method, authority)?;
        }
        if self.protocol.is_some_and(|protocol| !field::is_token(protocol)) {
            return Err(Malformed::Protocol);
        }
        // RFC 9297 §3.2.
        if self.fields.capsules() && self.fields.content {
            return Err(Malformed::Capsules);
        }
        Ok(RequestHead {
            method,
            scheme: self.scheme.unwrap_or_default(),
            authority: authority.unwrap_or_default(),
            path: self.path.unwrap_or_default(),
            protocol: self.protocol,
            content_length: self.fields.content_length,
            priority: self.fields.priority(),
            expect_continue: self.fields.expect_continue,
            capsule_protocol: self.fields.capsules(),
        })
    }

    /// Scheme, authority and path of all requests but plain CONNECT.
    fn check_target(&self, method: &[u8], authority: Option<&[u8]>) -> Result<(), Malformed> {
        let (Some(scheme), Some(path)) = (self.scheme, self.path) else { return Err(Malformed::Missing) };
        if !field::is_scheme(scheme) {
            return Err(Malformed::Scheme);
        }
        // Extended CONNECT names its target like other requests (RFC 8441 §4).
        if self.protocol.is_some() && self.authority.is_none() {
            return Err(Malformed::Missing);
        }
        if !field::is_path(path) {
            return Err(Malformed::Path);
        }
        // Schemes are compared without case (RFC 3986 §3.1).
        if !scheme.eq_ignore_ascii_case(b"https") && !scheme.eq_ignore_ascii_case(b"http") {
            return Ok(());
        }
        if !authority.is_some_and(field::is_authority) {
            return Err(Malformed::Authority);
        }
        if path.starts_with(b"/") || (path == b"*" && method == b"OPTIONS") { Ok(()) } else { Err(Malformed::Path) }
    }
}
