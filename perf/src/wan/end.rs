//! What a stack looks like from the network: packets and the time go in, packets come out.

use std::time::Duration;

use gannet::base::time::Instant;

use crate::Failure;

/// The memory of a packet, in bytes.
pub const ROOM: usize = 2048;

/// Memory for a packet.
pub type Memory = Box<[u8; ROOM]>;

/// A UDP payload.
#[derive(Debug)]
pub struct Packet {
    /// The ECN codepoint.
    pub ecn: u8,
    /// Its length in bytes.
    pub len: usize,
    /// The memory that it is at the front of.
    pub memory: Memory,
}

impl Packet {
    /// The payload.
    pub fn data(&mut self) -> &mut [u8] {
        &mut self.memory[..self.len]
    }
}

/// Memory for packets, used again and again.
#[derive(Debug, Default)]
pub struct Spares(Vec<Memory>);

impl Spares {
    /// Memory for one packet, whose contents are undefined.
    pub fn take(&mut self) -> Memory {
        self.0.pop().unwrap_or_else(|| Box::new([0; ROOM]))
    }

    /// Takes the memory of a packet back.
    pub fn give(&mut self, packet: Packet) {
        self.0.push(packet.memory);
    }
}

/// The state of a sender, for plots.
#[derive(Clone, Copy, Debug, Default)]
pub struct View {
    /// The congestion window in bytes.
    pub window: u64,
    /// The smoothed round-trip time.
    pub rtt: Duration,
}

/// One end of a connection, with an application that sends or receives one stream.
pub trait End {
    /// Starts the connection, at the client.
    ///
    /// # Errors
    /// If the stack refuses.
    fn begin(&mut self, now: Instant) -> Result<(), Failure>;

    /// Handles packets that have arrived, and gives their memory back.
    fn receive(&mut self, now: Instant, packets: &mut Vec<Packet>, spares: &mut Spares);

    /// When [`End::handle_timeout`] has to be called next.
    fn next_timeout(&mut self) -> Option<Instant>;

    /// Handles deadlines that have passed.
    fn handle_timeout(&mut self, now: Instant);

    /// Appends up to `most` packets that are to be sent now. Fewer than that: there are no more.
    fn transmit(&mut self, now: Instant, most: usize, out: &mut Vec<Packet>, spares: &mut Spares);

    /// The number of stream bytes that the application has received in order.
    fn received(&self) -> u64;

    /// Whether the whole stream has been received.
    fn is_finished(&self) -> bool;

    /// The number of bytes sent again because packets were declared lost.
    fn resent(&mut self) -> u64;

    /// The number of bytes of its pool in use.
    fn held(&self) -> u64 {
        0
    }

    /// The state of the sender.
    fn view(&mut self) -> View;

    /// Why the connection has ended, if it has.
    fn ended(&self) -> Option<String>;
}
