//! Layer `api`.
