//! `gannet doctor`.
