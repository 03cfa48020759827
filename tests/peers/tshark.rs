//! An independent judge of what goes over the wire: tshark captures, decrypts with the peers' secrets and decodes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::PORT;
use super::netns::End;
use super::process::Proc;

/// Lowest severity of tshark's expert information that counts as a complaint: warnings (errors are above).
const WARNING: u32 = 0x60_0000;

/// Bytes of a pcap file before its first packet: there once the interface is open and the filter set.
const PCAP_HEAD: u64 = 24;

/// Messages of a full TLS 1.3 handshake with a server certificate (RFC 8446 §4).
const HANDSHAKE: [u64; 6] = [1, 2, 8, 11, 15, 20];

/// Columns asked of tshark.
const FIELDS: [&str; 9] = [
    "frame.number",
    "frame.protocols",
    "_ws.malformed",
    "_ws.expert.severity",
    "_ws.expert.message",
    "quic.frame_type",
    "tls.handshake.type",
    "quic.remaining_payload",
    "udp.length",
];

/// A running capture of one end's interface.
#[derive(Debug)]
pub struct Tap {
    tshark: Proc,
    pcap: PathBuf,
}

/// What tshark made of a capture.
#[derive(Clone, Debug, Default)]
pub struct Decoded {
    /// UDP datagrams. A capture may hold other frames, such as ARP.
    pub datagrams: usize,
    /// Length in bytes of the longest, UDP header included.
    pub longest: u64,
    /// Malformed packets, wrong checksums, and whatever else tshark warns about.
    pub complaints: Vec<String>,
    /// Numbers of datagrams with a packet that could not be decrypted.
    pub undecrypted: Vec<u64>,
    /// How often each QUIC frame type occurs.
    pub frames: BTreeMap<u64, usize>,
    /// Types of the TLS handshake messages seen.
    pub handshake: BTreeSet<u64>,
}

impl Tap {
    /// Starts to capture the QUIC traffic at `end` into `pcap`; returns once the capture runs.
    ///
    /// # Panics
    /// When tshark does not start (package tshark).
    pub fn start(end: &End, pcap: &Path) -> Self {
        let mut command = end.command("tshark");
        // The kernel's buffer must hold a whole burst: a frame missed here looks like one never sent.
        command.args(["-n", "-i", &end.iface, "-B", "64", "-F", "pcap", "-f", &format!("udp port {PORT}"), "-w"]);
        let tshark = Proc::spawn("tshark", {
            command.arg(pcap);
            command
        });
        // What it says then differs from release to release, or is nothing.
        tshark.wait_until("the head of the capture", || fs::metadata(pcap).is_ok_and(|file| file.len() >= PCAP_HEAD));
        Self { tshark, pcap: pcap.to_owned() }
    }

    /// Ends the capture and returns its file.
    pub fn stop(self) -> PathBuf {
        self.tshark.stop("INT").expect_success();
        self.pcap
    }
}

impl Decoded {
    /// Decodes `pcap` with the secrets in `keylog`.
    ///
    /// # Panics
    /// When tshark cannot read them (package tshark).
    pub fn new(pcap: &Path, keylog: &Path) -> Self {
        let mut command = Command::new("tshark");
        command.arg("-n").arg("-r").arg(pcap).arg("-o").arg(format!("tls.keylog_file:{}", keylog.display()));
        command.args(["-o", "udp.check_checksum:TRUE", "-o", "ip.check_checksum:TRUE"]);
        command.args(["-d", &format!("udp.port=={PORT},quic"), "-T", "fields", "-E", "occurrence=a"]);
        command.args(FIELDS.iter().flat_map(|f| ["-e", f])).stdin(Stdio::null());
        let out = command.output().unwrap_or_else(|e| panic!("cannot run tshark (package tshark): {e}"));
        let errors = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.success(), "{command:?}: {}: {errors}", out.status);
        let mut this = Self::default();
        String::from_utf8_lossy(&out.stdout).lines().for_each(|line| this.frame(line));
        this
    }

    /// Takes in one line of tshark's answer.
    fn frame(&mut self, line: &str) {
        let columns: Vec<_> = line.split('\t').collect();
        let [number, protocols, malformed, severity, message, frames, handshake, rest, length] = columns[..] else {
            return self.complaints.push(format!("tshark says {line:?}"));
        };
        let quic = protocols.contains(":udp:") && !protocols.contains(":icmp");
        self.datagrams += usize::from(quic);
        self.longest = numbers(length).chain([self.longest]).max().unwrap_or(0);
        if !malformed.is_empty() || numbers(severity).any(|s| s >= WARNING.into()) {
            self.complaints.push(format!("frame {number}: {malformed} {message}"));
        }
        if quic && (frames.is_empty() || !rest.is_empty()) {
            self.undecrypted.extend(numbers(number));
        }
        numbers(frames).for_each(|f| *self.frames.entry(f).or_default() += 1);
        self.handshake.extend(numbers(handshake));
    }

    /// How many frames have a type in `types`.
    pub fn count(&self, types: impl std::ops::RangeBounds<u64>) -> usize {
        self.frames.range(types).map(|(_, n)| n).sum()
    }

    /// Asserts that this is one whole connection in which a file was moved, without a blemish: everything decrypts,
    /// nothing is malformed, only frames of RFC 9000 §19 and of extensions that both sides know occur, and those that
    /// must occur do.
    #[track_caller]
    pub fn assert_sane(&self) {
        assert!(self.complaints.is_empty(), "tshark complains: {:#?}", self.complaints);
        assert!(self.undecrypted.is_empty(), "cannot be decrypted: datagrams {:?}", self.undecrypted);
        let must =
            [("ACK", 0x02..=0x03), ("CRYPTO", 0x06..=0x06), ("STREAM", 0x08..=0x0f), ("HANDSHAKE_DONE", 0x1e..=0x1e)];
        for (name, types) in must {
            assert!(self.count(types) > 0, "no {name} frame in {self:?}");
        }
        assert!([0x09, 0x0b, 0x0d, 0x0f].iter().any(|t| self.frames.contains_key(t)), "no FIN in {self:?}");
        let unknown = self.frames.keys().find(|t| **t > 0x1e && !EXTENSIONS.contains(t));
        assert_eq!(unknown, None, "a frame that nobody knows in {self:?}");
        assert!(HANDSHAKE.iter().all(|t| self.handshake.contains(t)), "no full TLS handshake in {self:?}");
    }
}

/// IMMEDIATE_ACK, RESET_STREAM_AT, DATAGRAM and ACK_FREQUENCY.
const EXTENSIONS: [u64; 5] = [0x1f, 0x24, 0x30, 0x31, 0xaf];

/// The numbers in a column, decimal or hexadecimal.
fn numbers(column: &str) -> impl Iterator<Item = u64> + '_ {
    column.split(',').filter_map(|n| match n.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None => n.parse().ok(),
    })
}
