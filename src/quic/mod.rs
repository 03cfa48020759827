//! Layer `quic`.
