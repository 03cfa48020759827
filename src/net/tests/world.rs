//! The wire, its frames, and hosts on it.

use std::net::{IpAddr, SocketAddr};

use crate::base::time::{Duration, Instant};
use crate::datapath::{Caps, Checksum, RxFrame, TX_HEADROOM, TxFrame, TxOffload};
use crate::net::{Net, NetConfig, Received, Sent};

/// A frame for both directions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
    pub(super) offload: Option<TxOffload>,
    pub(super) ip: Checksum,
    pub(super) l4: Checksum,
}

impl Frame {
    pub(super) fn empty(area: usize) -> Self {
        let bytes = vec![0xee; TX_HEADROOM + area];
        let end = bytes.len();
        Self { bytes, start: TX_HEADROOM, end, offload: None, ip: Checksum::Unknown, l4: Checksum::Unknown }
    }

    /// A frame with `payload`, as built by the engine.
    pub(super) fn with_payload(payload: &[u8]) -> Self {
        let mut frame = Self::empty(2048.max(payload.len()));
        frame.payload_mut()[..payload.len()].copy_from_slice(payload);
        frame.set_payload_len(payload.len());
        frame
    }

    /// A received frame.
    pub(super) fn received(bytes: &[u8]) -> Self {
        let mut frame = Self::empty(0);
        frame.bytes = bytes.to_vec();
        (frame.start, frame.end) = (0, bytes.len());
        frame
    }
}

impl TxFrame for Frame {
    fn payload_mut(&mut self) -> &mut [u8] {
        assert_eq!(self.start, TX_HEADROOM, "only before the first prepend");
        &mut self.bytes[self.start..]
    }

    fn set_payload_len(&mut self, len: usize) {
        assert!(self.start + len <= self.bytes.len());
        self.end = self.start + len;
    }

    fn prepend(&mut self, n: usize) -> &mut [u8] {
        self.start -= n;
        &mut self.bytes[self.start..self.start + n]
    }

    fn data(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    fn data_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.end]
    }

    fn set_offload(&mut self, offload: TxOffload) {
        self.offload = Some(offload);
    }
}

impl RxFrame for Frame {
    fn data_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.end]
    }

    fn ip_checksum(&self) -> Checksum {
        self.ip
    }

    fn l4_checksum(&self) -> Checksum {
        self.l4
    }
}

pub(super) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(super) fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

pub(super) fn caps(mac: u8) -> Caps {
    Caps { mac: [2, 0, 0, 0, 0, mac], mtu: 1500, tx_ip_checksum: false, tx_udp_checksum: false }
}

/// A quiet configuration with the given addresses.
pub(super) fn config(addrs: &[&str]) -> NetConfig {
    NetConfig { addrs: addrs.iter().map(|a| a.parse().unwrap()).collect(), announce: false, ..NetConfig::default() }
}

/// A host with MAC address 02:00:00:00:00:`mac`.
pub(super) fn host(mac: u8, addrs: &[&str]) -> Net<Frame> {
    Net::new(&config(addrs), &caps(mac), Instant::ZERO).unwrap()
}

pub(super) fn secs(n: u64) -> Instant {
    Instant::ZERO + Duration::from_secs(n)
}

/// All frames that `net` has to send.
pub(super) fn poll_all(net: &mut Net<Frame>, now: Instant) -> Vec<Frame> {
    std::iter::from_fn(|| net.poll(now, || Some(Frame::empty(2048)))).collect()
}

/// Delivers `frames` to `net`; returns the results other than [`Received::Consumed`], with their payloads.
pub(super) fn deliver(net: &mut Net<Frame>, now: Instant, frames: Vec<Frame>) -> Vec<(Received, Vec<u8>)> {
    let mut seen = Vec::new();
    for mut frame in frames {
        let received = net.receive(now, &mut frame);
        let payload = match &received {
            Received::Udp(udp) => RxFrame::data_mut(&mut frame)[udp.payload.clone()].to_vec(),
            _ => Vec::new(),
        };
        if received != Received::Consumed {
            seen.push((received, payload));
        }
    }
    seen
}

/// Runs both until neither sends any more; returns what each received.
pub(super) fn settle(a: &mut Net<Frame>, b: &mut Net<Frame>, now: Instant) -> [Vec<(Received, Vec<u8>)>; 2] {
    let mut seen = [Vec::new(), Vec::new()];
    for _ in 0..20 {
        let from_a = poll_all(a, now);
        let from_b = poll_all(b, now);
        if from_a.is_empty() && from_b.is_empty() {
            return seen;
        }
        seen[1].extend(deliver(b, now, from_a));
        seen[0].extend(deliver(a, now, from_b));
    }
    panic!("they never fall silent");
}

/// The frame of a send that must be ready.
#[track_caller]
pub(super) fn ready(sent: Sent<Frame>) -> Frame {
    match sent {
        Sent::Ready(frame) => frame,
        other => panic!("not ready: {other:?}"),
    }
}

/// Sends `payload` from `a` to `b`, resolving addresses on the way; returns the frame that `a` sends.
pub(super) fn resolved(
    a: &mut Net<Frame>,
    b: &mut Net<Frame>,
    now: Instant,
    from: SocketAddr,
    to: SocketAddr,
    payload: &[u8],
) -> Frame {
    let _ = a.send(now, from, to, 0, Frame::with_payload(b"first"));
    settle(a, b, now);
    ready(a.send(now, from, to, 0, Frame::with_payload(payload)))
}
