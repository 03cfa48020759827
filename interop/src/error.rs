//! Errors.

/// Any error; the text says what failed and why.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The result type of this program.
pub type Result<T> = std::result::Result<T, Failure>;

/// Adds what failed to an error.
pub trait About<T> {
    /// The same with `what` before its text.
    ///
    /// # Errors
    /// The same errors.
    fn about(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: std::fmt::Display> About<T> for std::result::Result<T, E> {
    fn about(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|e| format!("{}: {e}", what()).into())
    }
}
