//! The payload of SETTINGS (RFC 9114 §7.2.4, RFC 9204 §5, RFC 9220 §3, RFC 9297 §2.1.1, draft-ietf-webtrans-http3-16
//! §9.2).

use crate::base::Side;
use crate::wire::h3::error::{Code, Error};
use crate::wire::h3::frame::{FrameHeader, FrameType};
use crate::wire::h3::grease;
use crate::wire::quic::varint::{self, Reader, Writer};

const QPACK_MAX_TABLE_CAPACITY: u64 = 0x01;
const MAX_FIELD_SECTION_SIZE: u64 = 0x06;
const QPACK_BLOCKED_STREAMS: u64 = 0x07;
const ENABLE_CONNECT_PROTOCOL: u64 = 0x08;
const H3_DATAGRAM: u64 = 0x33;
const WT_INITIAL_MAX_DATA: u64 = 0x2b61;
const WT_INITIAL_MAX_STREAMS_UNI: u64 = 0x2b64;
const WT_INITIAL_MAX_STREAMS_BIDI: u64 = 0x2b65;
const WT_ENABLED: u64 = 0x2c7c_f000;
/// `SETTINGS_ENABLE_WEBTRANSPORT` of draft-ietf-webtrans-http3-02, which browsers still want.
const ENABLE_WEBTRANSPORT: u64 = 0x2b60_3742;
/// `SETTINGS_WEBTRANSPORT_MAX_SESSIONS` of draft-ietf-webtrans-http3-07, which browsers still want.
const WEBTRANSPORT_MAX_SESSIONS: u64 = 0xc671_706a;

/// Maximum length of a SETTINGS payload that is accepted, in bytes.
pub const MAX_LEN: usize = 1024;

/// Maximum number of settings that fit [`MAX_LEN`].
const MAX_SETTINGS: usize = MAX_LEN / 2;

/// What an end says about itself. The default is what holds until its SETTINGS arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Limit of the dynamic table of its decoder, in bytes (RFC 9204 §5).
    pub qpack_max_table_capacity: u64,
    /// Number of streams that may wait for its decoder (RFC 9204 §5).
    pub qpack_blocked_streams: u64,
    /// Limit of a field section that it accepts, in bytes as RFC 9114 §4.2.2 counts them; `None`: no limit.
    pub max_field_section_size: Option<u64>,
    /// A server that accepts extended CONNECT (RFC 9220 §3).
    pub enable_connect_protocol: bool,
    /// It accepts HTTP datagrams (RFC 9297 §2.1.1).
    pub h3_datagram: bool,
    /// A server that accepts WebTransport sessions (draft-ietf-webtrans-http3-16 §3.1).
    pub wt_enabled: bool,
    /// WebTransport as of draft-ietf-webtrans-http3-02.
    pub enable_webtransport: bool,
    /// WebTransport sessions that a server accepts, as of draft-ietf-webtrans-http3-07.
    pub webtransport_max_sessions: u64,
    /// Bytes that may be sent at first in a WebTransport session.
    pub wt_initial_max_data: u64,
    /// Unidirectional streams that may be opened at first in a WebTransport session.
    pub wt_initial_max_streams_uni: u64,
    /// Bidirectional streams that may be opened at first in a WebTransport session.
    pub wt_initial_max_streams_bidi: u64,
}

impl Settings {
    /// The default values.
    pub const DEFAULT: Self = Self {
        qpack_max_table_capacity: 0,
        qpack_blocked_streams: 0,
        max_field_section_size: None,
        enable_connect_protocol: false,
        h3_datagram: false,
        wt_enabled: false,
        enable_webtransport: false,
        webtransport_max_sessions: 0,
        wt_initial_max_data: 0,
        wt_initial_max_streams_uni: 0,
        wt_initial_max_streams_bidi: 0,
    };

    /// Maximum length of the frame that [`Self::encode`] writes, in bytes: header, eleven settings, and a reserved one.
    pub const MAX_FRAME: usize = 3 + 3 * (1 + 8) + 2 * (1 + 1) + 2 * (4 + 1) + 3 * (2 + 8) + (8 + 8) + (8 + 8);

    /// Reads the payload that `sender` sent. Unknown settings are ignored.
    pub fn decode(payload: &[u8], sender: Side) -> Result<Self, Error> {
        const fn bad(reason: &'static str) -> Error {
            Error::connection(Code::H3_SETTINGS_ERROR, reason)
        }
        const TRUNCATED: Error = Error::connection(Code::H3_FRAME_ERROR, "SETTINGS end within a setting");
        if payload.len() > MAX_LEN {
            return Err(Error::connection(Code::H3_EXCESSIVE_LOAD, "SETTINGS are too long"));
        }
        let flag = |value| match value {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(bad("a setting that is neither 0 nor 1")),
        };
        let mut seen = [0u64; MAX_SETTINGS];
        let mut count = 0;
        let mut settings = Self::DEFAULT;
        let mut r = Reader::new(payload);
        while !r.is_empty() {
            let id = r.varint().ok_or(TRUNCATED)?;
            let value = r.varint().ok_or(TRUNCATED)?;
            seen[count] = id;
            count += 1;
            match id {
                QPACK_MAX_TABLE_CAPACITY => settings.qpack_max_table_capacity = value,
                QPACK_BLOCKED_STREAMS => settings.qpack_blocked_streams = value,
                MAX_FIELD_SECTION_SIZE => settings.max_field_section_size = Some(value),
                ENABLE_CONNECT_PROTOCOL => settings.enable_connect_protocol = flag(value)?,
                H3_DATAGRAM => settings.h3_datagram = flag(value)?,
                // Only clients are told to refuse other values (draft-ietf-webtrans-http3-16 §3.1).
                WT_ENABLED if matches!(sender, Side::Client) => settings.wt_enabled = value == 1,
                WT_ENABLED => settings.wt_enabled = flag(value)?,
                ENABLE_WEBTRANSPORT => settings.enable_webtransport = flag(value)?,
                WEBTRANSPORT_MAX_SESSIONS => settings.webtransport_max_sessions = value,
                WT_INITIAL_MAX_DATA => settings.wt_initial_max_data = value,
                WT_INITIAL_MAX_STREAMS_UNI => settings.wt_initial_max_streams_uni = value,
                WT_INITIAL_MAX_STREAMS_BIDI => settings.wt_initial_max_streams_bidi = value,
                // Settings of HTTP/2 (RFC 9114 §11.2.2).
                0x00 | 0x02..=0x05 => return Err(bad("a setting of HTTP/2")),
                _ => {}
            }
        }
        // Sorted, so that a frame of only unknown settings costs no more than its length warrants.
        let seen = &mut seen[..count];
        seen.sort_unstable();
        if seen.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(bad("a setting appears twice"));
        }
        Ok(settings)
    }

    /// The settings that differ from their default.
    fn given(&self) -> impl Iterator<Item = (u64, u64)> + use<> {
        let limit = self.max_field_section_size;
        [
            (QPACK_MAX_TABLE_CAPACITY, self.qpack_max_table_capacity),
            (QPACK_BLOCKED_STREAMS, self.qpack_blocked_streams),
            (ENABLE_CONNECT_PROTOCOL, u64::from(self.enable_connect_protocol)),
            (H3_DATAGRAM, u64::from(self.h3_datagram)),
            (WT_ENABLED, u64::from(self.wt_enabled)),
            (ENABLE_WEBTRANSPORT, u64::from(self.enable_webtransport)),
            (WEBTRANSPORT_MAX_SESSIONS, self.webtransport_max_sessions),
            (WT_INITIAL_MAX_DATA, self.wt_initial_max_data),
            (WT_INITIAL_MAX_STREAMS_UNI, self.wt_initial_max_streams_uni),
            (WT_INITIAL_MAX_STREAMS_BIDI, self.wt_initial_max_streams_bidi),
        ]
        .into_iter()
        .filter(|(_, value)| *value != 0)
        .chain(limit.map(|value| (MAX_FIELD_SECTION_SIZE, value)))
    }

    /// Appends a whole SETTINGS frame. `random` selects a setting that means nothing and its value (RFC 9114
    /// §7.2.4.1).
    pub fn encode(&self, w: &mut Writer<'_>, random: [u64; 2]) {
        let reserved = (grease::reserved(random[0]), random[1] & varint::MAX);
        let all = || self.given().chain([reserved]);
        let len: usize = all().map(|(id, value)| varint::size(id) + varint::size(value)).sum();
        FrameHeader { frame: FrameType::SETTINGS, len: len as u64 }.encode(w);
        for (id, value) in all() {
            w.varint(id);
            w.varint(value);
        }
    }

    /// Whether what was sent under `remembered` settings is valid under these (RFC 9114 §7.2.4.2, RFC 9204 §3.2.3,
    /// RFC 9297 §2.1.1). The client of a connection with accepted 0-RTT checks it.
    pub fn honor(&self, remembered: &Self) -> Result<(), Error> {
        let limit = |s: &Self| s.max_field_section_size.unwrap_or(u64::MAX);
        let table = remembered.qpack_max_table_capacity;
        let kept = limit(self) >= limit(remembered)
            && (table == 0 || self.qpack_max_table_capacity == table)
            && self.qpack_blocked_streams >= remembered.qpack_blocked_streams
            && self.enable_connect_protocol >= remembered.enable_connect_protocol
            && self.h3_datagram >= remembered.h3_datagram
            && self.wt_enabled >= remembered.wt_enabled
            && self.enable_webtransport >= remembered.enable_webtransport
            && self.webtransport_max_sessions >= remembered.webtransport_max_sessions
            && self.wt_initial_max_data >= remembered.wt_initial_max_data
            && self.wt_initial_max_streams_uni >= remembered.wt_initial_max_streams_uni
            && self.wt_initial_max_streams_bidi >= remembered.wt_initial_max_streams_bidi;
        if kept { Ok(()) } else { Err(Error::connection(Code::H3_SETTINGS_ERROR, "a setting is less than in 0-RTT")) }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self::DEFAULT
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bytes(settings: &[(u64, u64)]) -> Vec<u8> {
        let mut buf = vec![0; 16 * settings.len()];
        let mut w = Writer::new(&mut buf);
        for (id, value) in settings {
            w.varint(*id);
            w.varint(*value);
        }
        let n = w.finish().unwrap();
        buf.truncate(n);
        buf
    }

    fn code(settings: &[(u64, u64)], sender: Side) -> Option<Code> {
        Settings::decode(&bytes(settings), sender).err().map(|error| error.code)
    }

    #[test]
    fn invalid_settings_are_refused() {
        let refused: [&[(u64, u64)]; 14] = [
            &[(0, 0)],
            &[(2, 0)],
            &[(3, 100)],
            &[(4, 65_535)],
            &[(5, 16_384)],
            &[(8, 2)],
            &[(0x33, 2)],
            &[(0x33, varint::MAX)],
            &[(6, 100), (6, 100)],
            &[(0x21, 1), (6, 100), (0x21, 2)],
            &[(1, 0), (7, 0), (1, 0)],
            &[(8, 1), (8, 1)],
            &[(0x4000_0000, 1), (0x4000_0000, 1)],
            &[(1, 1), (2, 1)],
        ];
        for settings in refused {
            for sender in [Side::Client, Side::Server] {
                assert_eq!(code(settings, sender), Some(Code::H3_SETTINGS_ERROR), "{settings:x?}");
            }
        }
        assert_eq!(code(&[(WT_ENABLED, 2)], Side::Server), Some(Code::H3_SETTINGS_ERROR));
        assert_eq!(code(&[(WT_ENABLED, 2)], Side::Client), None);
    }

    #[test]
    fn unknown_settings_are_ignored() {
        let settings = Settings::decode(&bytes(&[(0x21, 9), (0x0f, 1), (varint::MAX, 5)]), Side::Client);
        assert_eq!(settings, Ok(Settings::DEFAULT));
        assert_eq!(Settings::decode(&[], Side::Server), Ok(Settings::default()));
    }

    #[test]
    fn settings_that_end_early_are_a_frame_error() {
        let whole = bytes(&[(6, 0x1234), (WT_ENABLED, 1)]);
        for len in 0..whole.len() {
            let got = Settings::decode(&whole[..len], Side::Server).err().map(|error| error.code);
            assert_eq!(got, (len != 0 && len != 3).then_some(Code::H3_FRAME_ERROR), "{len} bytes");
        }
    }

    #[test]
    fn the_longest_payload_is_read() {
        let mut many = Vec::new();
        for id in 0x8000_4000u32.. {
            if many.len() + 5 > MAX_LEN {
                break;
            }
            many.extend_from_slice(&id.to_be_bytes());
            many.push(0);
        }
        assert_eq!(Settings::decode(&many, Side::Client), Ok(Settings::DEFAULT));
        // As many as there can be, all alike.
        let twins = vec![0x21; MAX_LEN];
        assert_eq!(Settings::decode(&twins, Side::Client).unwrap_err().code, Code::H3_SETTINGS_ERROR);
        let more = vec![0x21; MAX_LEN + 1];
        assert_eq!(Settings::decode(&more, Side::Client).unwrap_err().code, Code::H3_EXCESSIVE_LOAD);
    }

    #[test]
    fn zero_rtt_is_not_taken_back() {
        let old = Settings { qpack_max_table_capacity: 100, h3_datagram: true, ..Settings::DEFAULT };
        assert!(old.honor(&old).is_ok() && old.honor(&Settings::DEFAULT).is_ok());
        let lost = [
            Settings { h3_datagram: false, ..old },
            Settings { qpack_max_table_capacity: 200, ..old },
            Settings { qpack_max_table_capacity: 0, ..old },
            Settings { max_field_section_size: Some(1000), ..old },
        ];
        for new in lost {
            assert_eq!(new.honor(&old).unwrap_err().code, Code::H3_SETTINGS_ERROR, "{new:?}");
        }
    }

    prop_compose! {
        fn any_settings()(
            numbers in [0..=varint::MAX, 0..=varint::MAX, 0..=varint::MAX, 0..=varint::MAX, 0..=varint::MAX, 0..=varint::MAX],
            max_field_section_size in proptest::option::of(0..=varint::MAX),
            flags in any::<[bool; 4]>(),
        ) -> Settings {
            Settings {
                qpack_max_table_capacity: numbers[0],
                qpack_blocked_streams: numbers[1],
                max_field_section_size,
                enable_connect_protocol: flags[0],
                h3_datagram: flags[1],
                wt_enabled: flags[2],
                enable_webtransport: flags[3],
                webtransport_max_sessions: numbers[5],
                wt_initial_max_data: numbers[2],
                wt_initial_max_streams_uni: numbers[3],
                wt_initial_max_streams_bidi: numbers[4],
            }
        }
    }

    proptest! {
        #[test]
        fn round_trip(settings in any_settings(), random in any::<[u64; 2]>()) {
            let mut buf = [0; Settings::MAX_FRAME];
            let mut w = Writer::new(&mut buf);
            settings.encode(&mut w, random);
            let n = w.finish().unwrap();
            let (header, front) = FrameHeader::decode(&buf[..n]).unwrap();
            prop_assert_eq!((header.frame, header.len as usize), (FrameType::SETTINGS, n - front));
            prop_assert_eq!(Settings::decode(&buf[front..n], Side::Server), Ok(settings));
        }

        #[test]
        fn any_bytes_decode_or_fail(bytes in proptest::collection::vec(any::<u8>(), 0..1100)) {
            let _ = Settings::decode(&bytes, Side::Client);
        }
    }
}
