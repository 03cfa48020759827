//! Calls of application code in the middle of the engine's work: buffer providers and parts of TLS configurations (key
//! logs, verifiers, certificate resolvers).
//!
//! A panic in such code must not lose the keys borrowed for the current packet, or the peer could not be informed. It
//! is therefore caught here, the connection fails with INTERNAL_ERROR (RFC 9000 §20.1), and the panic is resumed in
//! [`Endpoint::poll_event`](crate::quic::Endpoint::poll_event), where the engine's state is consistent.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use crate::wire::quic::TransportError;

/// The payload of a caught panic, until it is resumed.
#[derive(Debug, Default)]
pub(crate) struct Guests(Option<Box<dyn Any + Send>>);

impl Guests {
    /// Calls application code. After a panic, whatever it was working on must not be used: the connection has to fail.
    ///
    /// # Errors
    /// INTERNAL_ERROR if it panics.
    pub(crate) fn call<T>(&mut self, guest: impl FnOnce() -> T) -> Result<T, TransportError> {
        catch_unwind(AssertUnwindSafe(guest)).map_err(|panic| {
            self.0.get_or_insert(panic);
            TransportError::INTERNAL_ERROR
        })
    }

    /// Resumes a caught panic.
    pub(crate) fn go_on(&mut self) {
        if let Some(panic) = self.0.take() {
            resume_unwind(panic);
        }
    }
}
