//! What tshark makes of a capture with the secrets of an end.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::error::Result;
use crate::lab::PORT;
use crate::process::tool;

/// Columns asked of tshark.
const FIELDS: [&str; 6] = [
    "udp.dstport",
    "quic.frame_type",
    "quic.key_phase",
    "quic.cc.error_code.app",
    "quic.cc.error_code",
    "tls.handshake.type",
];

/// The type of ACK frames with ECN counts.
pub const ACK_ECN: u64 = 0x03;
/// The type of RESET_STREAM frames.
pub const RESET_STREAM: u64 = 0x04;
/// The type of STOP_SENDING frames.
pub const STOP_SENDING: u64 = 0x05;
/// The type of NEW_TOKEN frames.
pub const NEW_TOKEN: u64 = 0x07;
/// The type of PATH_CHALLENGE frames.
pub const PATH_CHALLENGE: u64 = 0x1a;
/// The type of PATH_RESPONSE frames.
pub const PATH_RESPONSE: u64 = 0x1b;

/// The types of DATAGRAM frames, without and with a length (RFC 9221 §4).
pub const DATAGRAM: [u64; 2] = [0x30, 0x31];
/// The type of ACK_FREQUENCY frames (draft-ietf-quic-ack-frequency).
pub const ACK_FREQUENCY: u64 = 0xaf;

/// The type of TLS messages with a certificate chain (RFC 8446 §4).
pub const CERTIFICATE: u64 = 11;

/// What one side has sent.
#[derive(Clone, Debug, Default)]
pub struct Frames {
    /// Frames by type.
    pub frames: BTreeMap<u64, usize>,
    /// Key phases of 1-RTT packets.
    pub phases: BTreeSet<bool>,
    /// Application error codes of closes.
    pub app_codes: BTreeSet<u64>,
    /// Transport error codes of closes.
    pub codes: BTreeSet<u64>,
    /// TLS handshake messages by type. Those that are split over packets are not seen by all versions of tshark.
    pub messages: BTreeMap<u64, usize>,
}

impl Frames {
    /// Frames of a type.
    pub fn count(&self, frame: u64) -> usize {
        self.frames.get(&frame).copied().unwrap_or(0)
    }
}

/// What both sides have sent.
#[derive(Clone, Debug, Default)]
pub struct Decoded {
    /// The client.
    pub client: Frames,
    /// The server.
    pub server: Frames,
}

impl Decoded {
    /// Has tshark decode a capture.
    ///
    /// # Errors
    /// If tshark is missing or fails.
    pub fn read(capture: &Path, keylog: &Path) -> Result<Self> {
        let mut this = Self::default();
        columns(capture, keylog, "quic", &FIELDS)?.lines().for_each(|line| this.line(line));
        Ok(this)
    }

    fn line(&mut self, line: &str) {
        let columns: Vec<_> = line.split('\t').collect();
        let [port, frames, phases, app, code, messages] = columns[..] else { return };
        let side = if numbers(port).any(|p| p == u64::from(PORT)) { &mut self.client } else { &mut self.server };
        numbers(frames).for_each(|frame| *side.frames.entry(frame).or_default() += 1);
        side.phases.extend(numbers(phases).map(|phase| phase != 0));
        side.app_codes.extend(numbers(app));
        side.codes.extend(numbers(code));
        numbers(messages).for_each(|message| *side.messages.entry(message).or_default() += 1);
    }
}

/// What tshark prints for fields of packets that pass a filter: a line for each packet, with all values of a field, and
/// tabs between fields.
///
/// # Errors
/// If tshark is missing or fails.
pub fn columns(capture: &Path, keylog: &Path, filter: &str, fields: &[&str]) -> Result<String> {
    let (capture, keys) = (capture.display().to_string(), format!("tls.keylog_file:{}", keylog.display()));
    let port = format!("udp.port=={PORT},quic");
    let args = ["-n", "-r", &capture, "-o", &keys, "-d", &port, "-Y", filter, "-T", "fields", "-E", "occurrence=a"];
    tool("tshark", args.into_iter().chain(fields.iter().flat_map(|field| ["-e", field])))
}

/// The numbers in a column: decimal, hexadecimal, or truth values.
fn numbers(column: &str) -> impl Iterator<Item = u64> + '_ {
    column.split(',').filter_map(|n| match n {
        "True" => Some(1),
        "False" => Some(0),
        _ => n.strip_prefix("0x").map_or_else(|| n.parse().ok(), |hex| u64::from_str_radix(hex, 16).ok()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_read() {
        let mut decoded = Decoded::default();
        decoded.line("4433\t6,0x1a\t0\t\t\t1");
        decoded.line("50000\t8,8\tTrue\t0x00000000\t\t");
        decoded.line("50000\t8\t0\t\t376\t11");
        assert_eq!((decoded.client.count(PATH_CHALLENGE), decoded.server.count(8)), (1, 3));
        assert_eq!(decoded.server.phases.len(), 2);
        assert!(decoded.server.app_codes.contains(&0) && decoded.server.codes.contains(&376));
        assert_eq!((decoded.client.messages[&1], decoded.server.messages[&CERTIFICATE]), (1, 1));
    }
}
