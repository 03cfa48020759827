//! Settings of datagrams.

/// What is dropped when a queue of datagrams is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DropPolicy {
    /// The oldest datagram in the queue; of those to be sent, the oldest of the least urgent ones.
    Oldest,
    /// The new datagram. One that is to be sent is returned with an error.
    Newest,
}

/// Whether datagrams or streams are sent first when both wait (RFC 9221 §5.1). Whichever comes second still gets every
/// eighth packet, so neither starves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum DatagramOrder {
    /// Datagrams first.
    #[default]
    BeforeStreams,
    /// Streams first.
    AfterStreams,
}

/// Settings of unreliable datagrams (RFC 9221).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatagramConfig {
    /// Maximum size of DATAGRAM frames that we accept, with their type and length, in bytes; announced to the peer (RFC
    /// 9221 §3). 65535, the default, accepts whatever fits into a packet, 0 nothing: then datagrams can only be sent.
    pub max_frame_size: u16,
    /// Maximum number of received datagrams in the engine's memory that wait for
    /// [`Conn::take_datagram`](crate::quic::Conn::take_datagram), at least 1. Their memory is charged to the connection
    /// ([`MemoryConfig`](crate::quic::MemoryConfig)). Does not apply to provided buffers.
    pub receive_queue: usize,
    /// What is dropped when that many wait. With provided buffers, `Oldest` means that a datagram without an unused
    /// buffer replaces the oldest one that was not yet reported.
    pub receive_drop: DropPolicy,
    /// Raise [`Event::DatagramSpaceLow`](crate::quic::Event::DatagramSpaceLow) when fewer than this many provided
    /// buffers, and less than half of those that there were, are unused.
    pub low_water: usize,
    /// Maximum number of datagrams that wait to be sent, at least 1.
    pub send_queue: usize,
    /// What is dropped when that many wait.
    pub send_drop: DropPolicy,
    /// Whether datagrams or streams are sent first.
    pub order: DatagramOrder,
    /// Whether [`Event::DatagramAcked`](crate::quic::Event::DatagramAcked) and
    /// [`Event::DatagramLost`](crate::quic::Event::DatagramLost) are raised.
    pub report_delivery: bool,
}

impl Default for DatagramConfig {
    fn default() -> Self {
        Self {
            max_frame_size: u16::MAX,
            receive_queue: 256,
            receive_drop: DropPolicy::Oldest,
            low_water: 8,
            send_queue: 256,
            send_drop: DropPolicy::Newest,
            order: DatagramOrder::default(),
            report_delivery: true,
        }
    }
}
