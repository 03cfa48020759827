//! Arguments of `cargo xtask demo`.

use std::path::PathBuf;

use super::wire::{DEFAULT_MTU, Wire};
use crate::error::{Error, Result};

/// The demo's options.
#[derive(Clone, Debug, clap::Args)]
pub struct DemoArgs {
    /// Wire between the two processes; af-packet and af-xdp need root
    #[arg(long, value_enum, default_value_t = Wire::Memif)]
    pub wire: Wire,
    /// Download this file rather than pseudo-random bytes
    #[arg(long, value_name = "PATH", conflicts_with = "size")]
    pub file: Option<PathBuf>,
    /// Number of pseudo-random bytes to download, optionally with K, M or G (powers of 1024)
    #[arg(long, value_name = "BYTES", default_value = "1GiB", value_parser = parse_size)]
    pub size: u64,
    /// Largest IP packet on the wire in bytes
    #[arg(long, value_name = "BYTES", default_value_t = DEFAULT_MTU, value_parser = clap::value_parser!(u16).range(1280..=9000))]
    pub mtu: u16,
    /// Capture both sides' packets, and the TLS secrets that decrypt them
    #[arg(long)]
    pub pcap: bool,
    /// Keep the received file
    #[arg(long)]
    pub keep: bool,
    /// Requests of 512 bytes, each answered with 4000, for the latency report; 0 for none
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    pub requests: u64,
    /// Directory for files, captures and the report [default: target/demo]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Time limit of the download, and of the requests, in seconds [default: by their size]
    #[arg(long, value_name = "SECONDS")]
    pub timeout: Option<u64>,
    /// Install nothing and leave huge pages as they are
    #[arg(long)]
    pub no_setup: bool,
    /// Use this `gannet` rather than building one
    #[arg(long, value_name = "PATH", env = "GANNET_BIN", hide = true)]
    pub gannet: Option<PathBuf>,
}

impl DemoArgs {
    /// Checks the arguments.
    ///
    /// # Errors
    /// If the wire needs root and we are not root, or it does not support the arguments.
    pub fn check(&self) -> Result<()> {
        self.wire.check()?;
        if self.wire == Wire::Ring && (self.pcap || self.mtu != DEFAULT_MTU) {
            return Err(Error::Unmet(
                "--wire ring is one process with a fixed port: it takes no --pcap and no --mtu; use --wire memif"
                    .into(),
            ));
        }
        Ok(())
    }
}

/// Parses a number of bytes: `1073741824`, `1G`, `1GB` and `1GiB` are the same.
fn parse_size(text: &str) -> std::result::Result<u64, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let shift = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        _ => return Err(format!("`{unit}` is not a unit; use K, M or G")),
    };
    let number: u64 = number.parse().map_err(|_| "expected a number of bytes, such as 64M".to_owned())?;
    number.checked_mul(1 << shift).ok_or_else(|| format!("{text} is too large"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        assert_eq!(parse_size("1GiB"), Ok(1 << 30));
        assert_eq!(parse_size("64k"), Ok(64 << 10));
        assert_eq!(parse_size("0"), Ok(0));
        assert_eq!(parse_size("17b"), Ok(17));
        assert!(parse_size("5T").unwrap_err().contains("`T`"));
        assert!(parse_size("G").is_err());
        assert!(parse_size("-1").is_err());
        assert!(parse_size("99999999999G").is_err());
    }
}
