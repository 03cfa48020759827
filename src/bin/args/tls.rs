//! Arguments about TLS: suites, groups, certificates, trust.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum, ValueHint};

/// Cipher suites of TLS 1.3.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Suite {
    /// TLS_AES_128_GCM_SHA256.
    Aes128,
    /// TLS_AES_256_GCM_SHA384.
    Aes256,
    /// TLS_CHACHA20_POLY1305_SHA256.
    #[value(name = "chacha20")]
    ChaCha20,
}

/// Key exchange groups of TLS 1.3.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Group {
    /// X25519 with ML-KEM-768, safe from quantum computers.
    #[value(name = "x25519mlkem768")]
    X25519MlKem768,
    /// X25519.
    X25519,
    /// NIST P-256.
    Secp256r1,
    /// NIST P-384.
    Secp384r1,
}

/// What happens to clients that ask for a host name that no certificate covers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum UnknownName {
    /// They see the first certificate.
    #[default]
    Default,
    /// They are refused (unrecognized_name).
    Refuse,
}

/// Whether clients need certificates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ClientAuth {
    /// Clients without one are refused.
    #[default]
    Required,
    /// Clients may have one.
    Optional,
}

/// The server's identity, and that of its clients.
#[derive(Clone, Debug, Args)]
pub struct IdentityArgs {
    /// Certificate chain, the server's certificate first. May be repeated, with a --key for each: clients see the one
    /// that covers the host name they ask for; the first is for all others.
    #[arg(long = "cert", value_name = "PEM", value_hint = ValueHint::FilePath, help_heading = "TLS", required = true)]
    pub certs: Vec<PathBuf>,

    /// Private key of the certificate; with several, in the same order.
    #[arg(long = "key", value_name = "PEM", value_hint = ValueHint::FilePath, help_heading = "TLS", required = true)]
    pub keys: Vec<PathBuf>,

    /// What happens to clients that ask for a host name that no certificate covers.
    #[arg(long, value_name = "WHAT", value_enum, default_value_t, help_heading = "TLS")]
    pub unknown_name: UnknownName,

    /// Ask clients for certificates, issued by a CA of this file.
    #[arg(long, value_name = "PEM", value_hint = ValueHint::FilePath, help_heading = "TLS")]
    pub client_ca: Option<PathBuf>,

    /// Whether clients need such a certificate [default: required].
    #[arg(long, value_name = "WHEN", value_enum, requires = "client_ca", help_heading = "TLS")]
    pub client_auth: Option<ClientAuth>,

    /// Refuse clients whose certificate is revoked in this file. May be repeated; each CA that issues to clients needs a
    /// list.
    #[arg(long = "client-crl", value_name = "PEM", value_hint = ValueHint::FilePath, requires = "client_ca")]
    #[arg(help_heading = "TLS")]
    pub client_crls: Vec<PathBuf>,
}

impl IdentityArgs {
    /// Checks that each certificate has a key.
    pub fn check(&self) -> Result<(), String> {
        let (certs, keys) = (self.certs.len(), self.keys.len());
        if certs == keys {
            Ok(())
        } else {
            Err(format!("--cert and --key make pairs, but there are {certs} and {keys}"))
        }
    }

    /// The files of each certificate and its key.
    pub fn pairs(&self) -> impl Iterator<Item = (&Path, &Path)> {
        self.certs.iter().map(PathBuf::as_path).zip(self.keys.iter().map(PathBuf::as_path))
    }

    /// All files.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        let pairs = self.pairs().flat_map(|(cert, key)| [cert, key]);
        pairs.chain(self.client_ca.iter().chain(&self.client_crls).map(PathBuf::as_path))
    }
}

/// The servers that a client trusts: exactly one of the options.
#[derive(Clone, Debug, Args)]
#[group(required = true, multiple = false)]
pub struct TrustArgs {
    /// Certificates of the CAs to trust.
    #[arg(long, value_name = "PEM", value_hint = ValueHint::FilePath, help_heading = "TLS")]
    pub ca: Option<PathBuf>,

    /// Trust any server. For tests only: anyone on the path can impersonate the server.
    #[arg(long, help_heading = "TLS")]
    pub insecure: bool,
}

/// A client's identity, and which certificates of servers are revoked.
#[derive(Clone, Debug, Default, Args)]
pub struct ClientIdentityArgs {
    /// Certificate chain to show to servers that ask for one, the client's certificate first.
    #[arg(long, value_name = "PEM", value_hint = ValueHint::FilePath, requires = "key", help_heading = "TLS")]
    pub cert: Option<PathBuf>,

    /// Private key of the certificate.
    #[arg(long, value_name = "PEM", value_hint = ValueHint::FilePath, requires = "cert", help_heading = "TLS")]
    pub key: Option<PathBuf>,

    /// Refuse servers whose certificate is revoked in this file. May be repeated; each CA that issues to servers needs a
    /// list.
    // clap does not ask for `--ca` beside `--insecure`.
    #[arg(long = "crl", value_name = "PEM", value_hint = ValueHint::FilePath, help_heading = "TLS")]
    #[arg(requires = "ca", conflicts_with = "insecure")]
    pub crls: Vec<PathBuf>,
}
