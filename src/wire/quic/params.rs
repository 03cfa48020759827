//! Transport parameters (RFC 9000 §18, RFC 9221 §3, RFC 9287 §3, RFC 9368 §3,
//! draft-ietf-quic-reliable-stream-reset-11 §3, draft-ietf-quic-ack-frequency-14 §3).

use arrayvec::ArrayVec;
use thiserror::Error;

use crate::base::Side;
use crate::wire::quic::varint::{self, Reader, Writer};
use crate::wire::quic::{ConnectionId, frame};

pub use super::preferred::Preferred;

const ORIGINAL_DCID: u64 = 0x00;
const MAX_IDLE_TIMEOUT: u64 = 0x01;
const STATELESS_RESET_TOKEN: u64 = 0x02;
const MAX_UDP_PAYLOAD_SIZE: u64 = 0x03;
const INITIAL_MAX_DATA: u64 = 0x04;
const INITIAL_MAX_STREAM_DATA_BIDI_LOCAL: u64 = 0x05;
const INITIAL_MAX_STREAM_DATA_BIDI_REMOTE: u64 = 0x06;
const INITIAL_MAX_STREAM_DATA_UNI: u64 = 0x07;
const INITIAL_MAX_STREAMS_BIDI: u64 = 0x08;
const INITIAL_MAX_STREAMS_UNI: u64 = 0x09;
const ACK_DELAY_EXPONENT: u64 = 0x0a;
const MAX_ACK_DELAY: u64 = 0x0b;
const DISABLE_ACTIVE_MIGRATION: u64 = 0x0c;
const PREFERRED_ADDRESS: u64 = 0x0d;
const ACTIVE_CONNECTION_ID_LIMIT: u64 = 0x0e;
const INITIAL_SCID: u64 = 0x0f;
const RETRY_SCID: u64 = 0x10;
const VERSION_INFORMATION: u64 = 0x11;
const RESET_STREAM_AT: u64 = 0x1d;
const MAX_DATAGRAM_FRAME_SIZE: u64 = 0x20;
const GREASE_QUIC_BIT: u64 = 0x2ab2;
const MIN_ACK_DELAY: u64 = 0xff04_de1b;

/// The limit of `max_ack_delay` in milliseconds, exclusive (RFC 9000 §18.2).
pub const ACK_DELAY_LIMIT: u64 = 1 << 14;

/// Why the peer's transport parameters are invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ParamError {
    /// They end inside a parameter.
    #[error("truncated")]
    Truncated,
    /// A parameter was sent twice (RFC 9000 §7.4).
    #[error("parameter 0x{0:x} appears twice")]
    Duplicate(u64),
    /// A parameter has an invalid value (RFC 9000 §18.2).
    #[error("parameter 0x{0:x} has an invalid value")]
    Invalid(u64),
    /// Only servers may send this parameter (RFC 9000 §18.2).
    #[error("parameter 0x{0:x} must not be sent by a client")]
    ServerOnly(u64),
}

/// Version Information (RFC 9368 §3).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VersionInformation {
    /// The version that the sender has chosen for this connection.
    pub chosen: u32,
    /// A client's versions that its first flight is compatible with, most preferred first, or the versions that all
    /// servers of a deployment speak. Some may be unknown or reserved.
    pub available: Vec<u32>,
}

impl VersionInformation {
    /// `None` if it is malformed (RFC 9368 §4): of the wrong length, with a version 0, or without a client's chosen
    /// version among those available.
    fn decode(value: &[u8], sender: Side) -> Option<Self> {
        let (numbers, rest) = value.as_chunks::<4>();
        let mut numbers = numbers.iter().map(|number| u32::from_be_bytes(*number));
        let chosen = numbers.next()?;
        let available: Vec<u32> = numbers.collect();
        let listed = sender == Side::Server || available.contains(&chosen);
        (rest.is_empty() && chosen != 0 && !available.contains(&0) && listed).then_some(Self { chosen, available })
    }
}

/// A parameter of no meaning, which receivers ignore (RFC 9000 §18.1).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reserved {
    n: u32,
    value: ArrayVec<u8, 8>,
}

impl Reserved {
    /// A reserved parameter from `random` bits.
    pub fn new(random: [u64; 2]) -> Self {
        let bytes = random[1].to_be_bytes();
        let len = (random[0] >> 32) as usize % (bytes.len() + 1);
        Self { n: random[0] as u32, value: bytes.into_iter().take(len).collect() }
    }

    /// Its ID, of the form 31 * N + 27.
    pub fn id(&self) -> u64 {
        31 * u64::from(self.n) + 27
    }
}

/// The transport parameters of an endpoint. Times are in milliseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct TransportParameters {
    pub original_destination_connection_id: Option<ConnectionId>,
    pub max_idle_timeout: u64,
    pub stateless_reset_token: Option<[u8; 16]>,
    pub max_udp_payload_size: u64,
    pub initial_max_data: u64,
    pub initial_max_stream_data_bidi_local: u64,
    pub initial_max_stream_data_bidi_remote: u64,
    pub initial_max_stream_data_uni: u64,
    pub initial_max_streams_bidi: u64,
    pub initial_max_streams_uni: u64,
    pub ack_delay_exponent: u64,
    pub max_ack_delay: u64,
    pub disable_active_migration: bool,
    pub active_connection_id_limit: u64,
    pub initial_source_connection_id: Option<ConnectionId>,
    pub retry_source_connection_id: Option<ConnectionId>,
    pub version_information: Option<VersionInformation>,
    pub preferred_address: Option<Preferred>,
    /// RFC 9221 §3; 0 if DATAGRAM frames are not supported.
    pub max_datagram_frame_size: u64,
    /// Whether the fixed bit of received packets may have any value (RFC 9287 §3).
    pub grease_quic_bit: bool,
    /// Only to be sent; received ones are ignored.
    pub reserved: Option<Reserved>,
    /// Whether RESET_STREAM_AT frames are accepted (draft-ietf-quic-reliable-stream-reset-11 §3).
    pub reset_stream_at: bool,
    /// The shortest acknowledgement delay that may be requested, in microseconds; `None` if ACK_FREQUENCY and
    /// IMMEDIATE_ACK frames are not accepted (draft-ietf-quic-ack-frequency-14 §3).
    pub min_ack_delay: Option<u64>,
}

impl Default for TransportParameters {
    /// The values of absent parameters.
    fn default() -> Self {
        Self {
            original_destination_connection_id: None,
            max_idle_timeout: 0,
            stateless_reset_token: None,
            max_udp_payload_size: 65_527,
            initial_max_data: 0,
            initial_max_stream_data_bidi_local: 0,
            initial_max_stream_data_bidi_remote: 0,
            initial_max_stream_data_uni: 0,
            initial_max_streams_bidi: 0,
            initial_max_streams_uni: 0,
            ack_delay_exponent: 3,
            max_ack_delay: 25,
            disable_active_migration: false,
            active_connection_id_limit: 2,
            initial_source_connection_id: None,
            retry_source_connection_id: None,
            version_information: None,
            preferred_address: None,
            max_datagram_frame_size: 0,
            grease_quic_bit: false,
            reserved: None,
            reset_stream_at: false,
            min_ack_delay: None,
        }
    }
}

impl TransportParameters {
    /// The integer parameters with their IDs.
    fn integers(&mut self) -> [(u64, &mut u64); 12] {
        [
            (MAX_IDLE_TIMEOUT, &mut self.max_idle_timeout),
            (MAX_UDP_PAYLOAD_SIZE, &mut self.max_udp_payload_size),
            (INITIAL_MAX_DATA, &mut self.initial_max_data),
            (INITIAL_MAX_STREAM_DATA_BIDI_LOCAL, &mut self.initial_max_stream_data_bidi_local),
            (INITIAL_MAX_STREAM_DATA_BIDI_REMOTE, &mut self.initial_max_stream_data_bidi_remote),
            (INITIAL_MAX_STREAM_DATA_UNI, &mut self.initial_max_stream_data_uni),
            (INITIAL_MAX_STREAMS_BIDI, &mut self.initial_max_streams_bidi),
            (INITIAL_MAX_STREAMS_UNI, &mut self.initial_max_streams_uni),
            (ACK_DELAY_EXPONENT, &mut self.ack_delay_exponent),
            (MAX_ACK_DELAY, &mut self.max_ack_delay),
            (ACTIVE_CONNECTION_ID_LIMIT, &mut self.active_connection_id_limit),
            (MAX_DATAGRAM_FRAME_SIZE, &mut self.max_datagram_frame_size),
        ]
    }

    /// Encodes the parameters, except those with default values. An integer above 2^62-1, which has no encoding, is
    /// encoded as 2^62-1.
    pub fn to_bytes(&self) -> Vec<u8> {
        let information = self.version_information.as_ref();
        let information = information.map(|info| {
            let numbers = [info.chosen].into_iter().chain(info.available.iter().copied());
            numbers.flat_map(u32::to_be_bytes).collect::<Vec<_>>()
        });
        let mut buf = vec![0; 512 + information.as_ref().map_or(0, Vec::len)];
        let mut w = Writer::new(&mut buf);
        let mut bytes = |id, value: Option<&[u8]>| {
            if let Some(value) = value {
                w.varint(id);
                w.prefixed(value);
            }
        };
        bytes(ORIGINAL_DCID, self.original_destination_connection_id.as_deref());
        bytes(STATELESS_RESET_TOKEN, self.stateless_reset_token.as_ref().map(|t| &t[..]));
        bytes(DISABLE_ACTIVE_MIGRATION, self.disable_active_migration.then_some(&[]));
        bytes(INITIAL_SCID, self.initial_source_connection_id.as_deref());
        bytes(RETRY_SCID, self.retry_source_connection_id.as_deref());
        bytes(VERSION_INFORMATION, information.as_deref());
        bytes(RESET_STREAM_AT, self.reset_stream_at.then_some(&[]));
        bytes(GREASE_QUIC_BIT, self.grease_quic_bit.then_some(&[]));
        if let Some(reserved) = &self.reserved {
            bytes(reserved.id(), Some(&reserved.value));
        }
        bytes(PREFERRED_ADDRESS, self.preferred_address.map(|preferred| preferred.to_bytes()).as_deref());
        let (mut this, mut default) = (self.clone(), Self::default());
        let all = this.integers().into_iter().zip(default.integers());
        let changed = all.filter(|((_, value), (_, default))| value != default).map(|((id, value), _)| (id, *value));
        for (id, value) in changed.chain(self.min_ack_delay.map(|delay| (MIN_ACK_DELAY, delay))) {
            let value = value.min(varint::MAX);
            w.varint(id);
            w.varint(varint::size(value) as u64);
            w.varint(value);
        }
        let len = w.finish().expect("all others at their longest take less than 512 bytes");
        buf.truncate(len);
        buf
    }

    /// Decodes the parameters announced by `sender`. Unknown parameters are ignored (RFC 9000 §7.4.2).
    ///
    /// # Errors
    /// [`ParamError`]; the connection must be closed with TRANSPORT_PARAMETER_ERROR.
    pub fn decode(raw: &[u8], sender: Side) -> Result<Self, ParamError> {
        let mut params = Self::default();
        let mut seen = 0u64;
        // IDs above 63, most of them unknown. Their number is bounded by that of the bytes that TLS accepts.
        let mut others = Vec::new();
        let mut r = Reader::new(raw);
        while !r.is_empty() {
            let id = r.varint().ok_or(ParamError::Truncated)?;
            let value = r.prefixed().ok_or(ParamError::Truncated)?;
            if id < 64 {
                if seen & (1 << id) != 0 {
                    return Err(ParamError::Duplicate(id));
                }
                seen |= 1 << id;
            } else {
                others.push(id);
            }
            params.set(id, value, sender)?;
        }
        others.sort_unstable();
        if let Some([id, _]) = others.array_windows().find(|[one, next]| one == next) {
            return Err(ParamError::Duplicate(*id));
        }
        params.check()?;
        Ok(params)
    }

    fn set(&mut self, id: u64, value: &[u8], sender: Side) -> Result<(), ParamError> {
        let bad = ParamError::Invalid(id);
        let flag = || value.is_empty().then_some(true).ok_or(bad);
        let integer = || {
            let mut r = Reader::new(value);
            r.varint().filter(|_| r.is_empty()).ok_or(bad)
        };
        let server_only = matches!(id, ORIGINAL_DCID | STATELESS_RESET_TOKEN | PREFERRED_ADDRESS | RETRY_SCID);
        if server_only && sender == Side::Client {
            return Err(ParamError::ServerOnly(id));
        }
        if let Some((_, field)) = self.integers().into_iter().find(|(known, _)| *known == id) {
            *field = integer()?;
            return Ok(());
        }
        match id {
            ORIGINAL_DCID => self.original_destination_connection_id = Some(ConnectionId::new(value).ok_or(bad)?),
            INITIAL_SCID => self.initial_source_connection_id = Some(ConnectionId::new(value).ok_or(bad)?),
            RETRY_SCID => self.retry_source_connection_id = Some(ConnectionId::new(value).ok_or(bad)?),
            STATELESS_RESET_TOKEN => self.stateless_reset_token = Some(value.try_into().map_err(|_| bad)?),
            DISABLE_ACTIVE_MIGRATION => self.disable_active_migration = flag()?,
            RESET_STREAM_AT => self.reset_stream_at = flag()?,
            GREASE_QUIC_BIT => self.grease_quic_bit = flag()?,
            MIN_ACK_DELAY => self.min_ack_delay = Some(integer()?),
            PREFERRED_ADDRESS => self.preferred_address = Some(Preferred::decode(value).ok_or(bad)?),
            VERSION_INFORMATION => {
                self.version_information = Some(VersionInformation::decode(value, sender).ok_or(bad)?);
            }
            _ => {}
        }
        Ok(())
    }

    fn check(&self) -> Result<(), ParamError> {
        let limits = [
            (MAX_UDP_PAYLOAD_SIZE, self.max_udp_payload_size >= 1200),
            (ACK_DELAY_EXPONENT, self.ack_delay_exponent <= 20),
            (MAX_ACK_DELAY, self.max_ack_delay < ACK_DELAY_LIMIT),
            (MIN_ACK_DELAY, self.min_ack_delay.is_none_or(|min| min <= self.max_ack_delay.saturating_mul(1000))),
            (ACTIVE_CONNECTION_ID_LIMIT, self.active_connection_id_limit >= 2),
            (INITIAL_MAX_STREAMS_BIDI, self.initial_max_streams_bidi <= frame::MAX_STREAMS),
            (INITIAL_MAX_STREAMS_UNI, self.initial_max_streams_uni <= frame::MAX_STREAMS),
        ];
        match limits.iter().find(|(_, ok)| !ok) {
            Some((id, _)) => Err(ParamError::Invalid(*id)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cid(n: u8) -> Option<ConnectionId> {
        ConnectionId::new(&[n; 8])
    }

    #[test]
    fn round_trip() {
        let params = TransportParameters {
            original_destination_connection_id: cid(1),
            max_idle_timeout: 30_000,
            stateless_reset_token: Some([3; 16]),
            max_udp_payload_size: 1472,
            initial_max_data: varint::MAX,
            initial_max_streams_bidi: 100,
            disable_active_migration: true,
            initial_source_connection_id: cid(2),
            retry_source_connection_id: cid(4),
            max_datagram_frame_size: 65_535,
            reset_stream_at: true,
            min_ack_delay: Some(1000),
            preferred_address: Some(Preferred {
                v4: Some("192.0.2.1:443".parse().unwrap()),
                v6: Some("[2001:db8::1]:4443".parse().unwrap()),
                cid: cid(5).unwrap(),
                token: [6; 16],
            }),
            ..TransportParameters::default()
        };
        assert_eq!(TransportParameters::decode(&params.to_bytes(), Side::Server), Ok(params.clone()));
        let refused = TransportParameters::decode(&params.to_bytes(), Side::Client);
        assert_eq!(refused, Err(ParamError::ServerOnly(ORIGINAL_DCID)));
    }

    #[test]
    fn the_largest_parameters_can_be_written() {
        let longest = ConnectionId::new(&[7; 20]);
        let mut params = TransportParameters {
            original_destination_connection_id: longest,
            stateless_reset_token: Some([3; 16]),
            disable_active_migration: true,
            initial_source_connection_id: longest,
            retry_source_connection_id: longest,
            reset_stream_at: true,
            min_ack_delay: Some(u64::MAX),
            preferred_address: Some(Preferred { v4: None, v6: None, cid: longest.unwrap(), token: [5; 16] }),
            ..TransportParameters::default()
        };
        params.integers().into_iter().for_each(|(_, value)| *value = u64::MAX);
        let bytes = params.to_bytes();
        assert!(bytes.len() < 512);
        let refused = TransportParameters::decode(&bytes, Side::Server);
        assert_eq!(refused, Err(ParamError::Invalid(ACK_DELAY_EXPONENT)), "they are well-formed but useless");
    }

    #[test]
    fn absence_is_default() {
        assert_eq!(TransportParameters::decode(&[], Side::Client), Ok(TransportParameters::default()));
        assert!(TransportParameters::default().to_bytes().is_empty());
    }

    #[test]
    fn bad_values_are_refused() {
        let decode = |bytes: &[u8]| TransportParameters::decode(bytes, Side::Server).unwrap_err();
        assert_eq!(decode(&[0x0a, 1, 21]), ParamError::Invalid(ACK_DELAY_EXPONENT));
        assert_eq!(decode(&[0x0b, 4, 0x80, 0, 0x40, 0]), ParamError::Invalid(MAX_ACK_DELAY));
        assert_eq!(decode(&[0x03, 2, 0x44, 0xaf]), ParamError::Invalid(MAX_UDP_PAYLOAD_SIZE));
        assert_eq!(decode(&[0x0e, 1, 1]), ParamError::Invalid(ACTIVE_CONNECTION_ID_LIMIT));
        assert_eq!(decode(&[0x0e, 2, 2, 0]), ParamError::Invalid(ACTIVE_CONNECTION_ID_LIMIT));
        assert_eq!(decode(&[0x0c, 1, 0]), ParamError::Invalid(DISABLE_ACTIVE_MIGRATION));
        assert_eq!(decode(&[0x02, 1, 0]), ParamError::Invalid(STATELESS_RESET_TOKEN));
        assert_eq!(decode(&[0x0d, 1, 0]), ParamError::Invalid(PREFERRED_ADDRESS));
        assert_eq!(decode(&[0x1d, 1, 0]), ParamError::Invalid(RESET_STREAM_AT));
        // At most max_ack_delay, which is in milliseconds, and 25 by default.
        let min_ack_delay = [0xc0, 0, 0, 0, 0xff, 0x04, 0xde, 0x1b];
        let with = |value: &[u8]| [&min_ack_delay[..], value].concat();
        assert!(TransportParameters::decode(&with(&[4, 0x80, 0, 0x61, 0xa8]), Side::Server).is_ok(), "25,000 us");
        assert_eq!(decode(&with(&[4, 0x80, 0, 0x61, 0xa9])), ParamError::Invalid(MIN_ACK_DELAY));
        assert_eq!(decode(&with(&[2, 5, 5])), ParamError::Invalid(MIN_ACK_DELAY));
        let twice = [with(&[1, 5]), with(&[1, 5])].concat();
        assert_eq!(decode(&twice), ParamError::Duplicate(MIN_ACK_DELAY));
        assert_eq!(decode(&[0x01, 1, 5, 0x01, 1, 5]), ParamError::Duplicate(MAX_IDLE_TIMEOUT));
        assert_eq!(decode(&[0x6a, 0xb2, 0, 0x6a, 0xb2, 0]), ParamError::Duplicate(GREASE_QUIC_BIT));
        assert_eq!(decode(&[0x7f, 0xff, 0, 0x40, 0x41, 0, 0x7f, 0xff, 1, 7]), ParamError::Duplicate(0x3fff));
        assert_eq!(decode(&[0x01, 2, 5]), ParamError::Truncated);
        assert!(TransportParameters::decode(&[0x7f, 0xff, 1, 9], Side::Client).is_ok(), "unknown ones are ignored");
    }

    proptest! {
        #[test]
        fn any_bytes_decode_or_fail(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = TransportParameters::decode(&bytes, Side::Server);
        }
    }
}
