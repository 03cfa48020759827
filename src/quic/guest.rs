//! Code of the application that the engine calls in the middle of its work: buffer providers, and what a TLS configuration
//! consists of (key logs, verifiers, resolvers of certificates).
//!
//! A panic in it must not take the keys along that the packet at hand has on loan, or the peer could not be told. So it stops
//! here, the connection fails with INTERNAL_ERROR (RFC 9000 §20.1), and the panic goes on from where nothing is in the air:
//! [`Endpoint::poll_event`](crate::quic::Endpoint::poll_event).

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use crate::wire::quic::TransportError;

/// What a guest's panic was raised with, until it goes on.
#[derive(Debug, Default)]
pub(crate) struct Guests(Option<Box<dyn Any + Send>>);

impl Guests {
    /// Calls a guest. After a panic, what it was working on is not looked at again: the connection is to fail.
    ///
    /// # Errors
    /// INTERNAL_ERROR if it panics.
    pub(crate) fn call<T>(&mut self, guest: impl FnOnce() -> T) -> Result<T, TransportError> {
        catch_unwind(AssertUnwindSafe(guest)).map_err(|panic| {
            self.0.get_or_insert(panic);
            TransportError::INTERNAL_ERROR
        })
    }

    /// Lets a panic go on that was stopped.
    pub(crate) fn go_on(&mut self) {
        if let Some(panic) = self.0.take() {
            resume_unwind(panic);
        }
    }
}
