//! Layer `net`.
