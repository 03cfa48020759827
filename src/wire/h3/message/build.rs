//! Field sections to send: what a peer would refuse is refused here.

use crate::wire::h3::field::{Field, section_size};
use crate::wire::h3::message::fields::{Limits, Malformed, TrailersCheck};
use crate::wire::h3::message::request::{RequestCheck, RequestHead};
use crate::wire::h3::message::response::{ResponseCheck, ResponseHead};

/// The fields of a request's head: the pseudo-header fields in front of `fields`. Empty parts of the target are left
/// out. `limit` is the peer's SETTINGS_MAX_FIELD_SECTION_SIZE.
pub fn request<'a, I>(
    method: &'a [u8],
    target: [&'a [u8]; 3],
    protocol: Option<&'a [u8]>,
    fields: I,
    limit: Option<u64>,
) -> Result<(RequestHead<'a>, impl Iterator<Item = Field<'a>> + Clone + use<'a, I>), Malformed>
where
    I: Iterator<Item = Field<'a>> + Clone,
{
    let [scheme, authority, path] = target;
    let given = |name: &'static [u8], value: &'a [u8]| (!value.is_empty()).then_some((name, value));
    let pseudo: [Option<Field<'a>>; 5] = [
        Some((b":method", method)),
        given(b":scheme", scheme),
        given(b":authority", authority),
        given(b":path", path),
        protocol.map(|protocol| (&b":protocol"[..], protocol)),
    ];
    let all = pseudo.into_iter().flatten().chain(fields);
    let mut check = RequestCheck::new(limits(limit), true);
    all.clone().try_for_each(|field| check.add(field))?;
    Ok((check.finish()?, all))
}

/// The digits of a status, for [`response`].
pub const fn status_text(status: u16) -> [u8; 3] {
    [b'0' + (status / 100 % 10) as u8, b'0' + (status / 10 % 10) as u8, b'0' + (status % 10) as u8]
}

/// The fields of a response's head: `:status` in front of `fields`. `limit` is the peer's
/// SETTINGS_MAX_FIELD_SECTION_SIZE.
pub fn response<'a, I>(
    status: &'a [u8; 3],
    fields: I,
    limit: Option<u64>,
) -> Result<(ResponseHead, impl Iterator<Item = Field<'a>> + Clone + use<'a, I>), Malformed>
where
    I: Iterator<Item = Field<'a>> + Clone,
{
    let all = core::iter::once::<Field<'a>>((b":status", status)).chain(fields);
    let mut check = ResponseCheck::new(limits(limit));
    all.clone().try_for_each(|field| check.add(field))?;
    Ok((check.finish()?, all))
}

/// Checks the fields of a trailer section. `limit` is the peer's SETTINGS_MAX_FIELD_SECTION_SIZE.
pub fn trailers<'a, I>(fields: I, limit: Option<u64>) -> Result<I, Malformed>
where
    I: Iterator<Item = Field<'a>> + Clone,
{
    let mut check = TrailersCheck::new(limits(limit));
    fields.clone().try_for_each(|field| check.add(field))?;
    debug_assert!(limit.is_none_or(|limit| section_size(fields.clone()) <= limit));
    Ok(fields)
}

/// The peer's limit; the number of fields is its own business.
const fn limits(size: Option<u64>) -> Limits {
    Limits { size: if let Some(size) = size { size } else { u64::MAX }, fields: u32::MAX }
}
