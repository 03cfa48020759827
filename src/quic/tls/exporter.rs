//! Keying material exporters (RFC 5705, RFC 8446 §7.5).
//!
//! rustls can export only from its whole session, which a server drops once the handshake is over. All that an exporter
//! needs is one secret, which rustls shows to the key log of the configuration. So [`Tap`] stands before the key log,
//! and catches the secret while a session of ours reads.

use std::cell::RefCell;
use std::sync::Arc;

use rustls::crypto::tls13::{HkdfExpander, OkmBlock};
use rustls::{KeyLog, Tls13CipherSuite};
use thiserror::Error;
use zeroize::Zeroizing;

use super::suites::own_suite;
use crate::crypto::{Suite, traceless};

/// The key log's name for the secret.
const LABEL: &str = "EXPORTER_SECRET";

/// Why no keying material was exported.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum ExportError {
    /// The secret was not kept.
    #[error("the exporter secret was not kept: TlsOptions::exporter is off, or the handshake is not complete")]
    NotKept,
    /// The label is longer than 249 bytes (RFC 8446 §7.1).
    #[error("a label of {0} bytes is too long; at most 249 are possible")]
    Label(usize),
    /// More bytes are wanted than HKDF can give.
    #[error("{wanted} bytes cannot be exported, at most {max}")]
    TooMuch {
        /// The length of the output.
        wanted: usize,
        /// The maximum: 255 hashes.
        max: usize,
    },
}

thread_local! {
    /// The secret of the session that is reading; `None` if none is.
    static CAUGHT: RefCell<Option<Zeroizing<Vec<u8>>>> = const { RefCell::new(None) };
}

/// Whether a session is reading, even if that ends with a panic.
struct Catching;

impl Drop for Catching {
    fn drop(&mut self) {
        CAUGHT.with_borrow_mut(|caught| *caught = None);
    }
}

/// Runs `read`, and returns the exporter secret that a [`Tap`] caught meanwhile, if any.
pub(super) fn catching<T>(read: impl FnOnce() -> T) -> (T, Option<Zeroizing<Vec<u8>>>) {
    CAUGHT.with_borrow_mut(|caught| *caught = Some(Zeroizing::default()));
    let _catching = Catching;
    let done = read();
    let secret = CAUGHT.with_borrow_mut(Option::take).filter(|secret| !secret.is_empty());
    (done, secret)
}

/// A key log that lets [`TlsInfo::export_keying_material`](super::TlsInfo::export_keying_material) work for
/// configurations made with rustls' own builders: set it as their `key_log`. [`TlsOptions::exporter`] does so for those
/// made here.
///
/// [`TlsOptions::exporter`]: super::TlsOptions::exporter
#[derive(Debug)]
pub struct Tap {
    log: Option<Arc<dyn KeyLog>>,
}

impl Tap {
    /// Passes secrets on to `log` as well.
    pub fn new(log: Option<Arc<dyn KeyLog>>) -> Self {
        Self { log }
    }
}

impl KeyLog for Tap {
    fn log(&self, label: &str, client_random: &[u8], secret: &[u8]) {
        if label == LABEL {
            CAUGHT.with_borrow_mut(|caught| {
                if let Some(caught) = caught {
                    *caught = Zeroizing::new(secret.to_vec());
                }
            });
        }
        if let Some(log) = self.log.as_ref().filter(|log| log.will_log(label)) {
            log.log(label, client_random, secret);
        }
    }

    fn will_log(&self, label: &str) -> bool {
        label == LABEL || self.log.as_ref().is_some_and(|log| log.will_log(label))
    }
}

/// What is needed to export.
pub(super) struct Exporter {
    suite: &'static Tls13CipherSuite,
    secret: Zeroizing<Vec<u8>>,
}

impl Exporter {
    pub(super) fn new(suite: Suite, secret: Zeroizing<Vec<u8>>) -> Self {
        Self { suite: own_suite(suite), secret }
    }

    /// `TLS-Exporter` (RFC 8446 §7.5).
    pub(super) fn export(&self, out: &mut [u8], label: &[u8], context: &[u8]) -> Result<(), ExportError> {
        if label.len() > MAX_LABEL {
            return Err(ExportError::Label(label.len()));
        }
        let (hkdf, hash) = (self.suite.hkdf_provider, self.suite.common.hash_provider);
        let max = 255 * hash.output_len();
        if out.len() > max {
            return Err(ExportError::TooMuch { wanted: out.len(), max });
        }
        traceless(|| {
            // Blocks overwrite themselves when they are dropped.
            let derived = OkmBlock::new(&self.secret);
            let mut inner = Zeroizing::new(vec![0; hash.output_len()]);
            expand_label(&*hkdf.expander_for_okm(&derived), label, hash.hash(&[]).as_ref(), &mut inner);
            let derived = OkmBlock::new(&inner);
            expand_label(&*hkdf.expander_for_okm(&derived), b"exporter", hash.hash(context).as_ref(), out);
        });
        Ok(())
    }
}

/// Maximum length of a label in bytes: one byte counts, and `tls13 ` comes before it.
const MAX_LABEL: usize = 255 - PREFIX.len();

const PREFIX: &[u8] = b"tls13 ";

/// `HKDF-Expand-Label` (RFC 8446 §7.1). The lengths have been checked.
fn expand_label(secret: &dyn HkdfExpander, label: &[u8], context: &[u8], out: &mut [u8]) {
    let len = (out.len() as u16).to_be_bytes();
    let label_len = [(PREFIX.len() + label.len()) as u8];
    let info = [&len[..], &label_len, PREFIX, label, &[context.len() as u8], context];
    secret.expand_slice(&info, out).expect("at most 255 hashes");
}
