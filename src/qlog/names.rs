//! Which names events have.

/// Whose names events have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Names {
    /// Those of the newest drafts, main-schema-14 and quic-events-13.
    #[default]
    Newest,
    /// Those of qlog 0.3, which is what the stable release of qvis reads: events have categories, such as
    /// `transport:packet_sent`.
    Qvis,
}
