//! The QUIC performance protocol (draft-banks-quic-performance-00).
