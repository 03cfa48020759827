//! The results of `gannet get`: lines of `key: value`.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::str::FromStr;

use crate::error::{Error, Result};

/// The lines, by key.
#[derive(Clone, Debug, Default)]
pub struct Results(BTreeMap<String, String>);

impl Results {
    /// Parses every `key: value` in `lines` and ignores other lines. The last value of a key counts.
    pub fn parse<S: AsRef<str>>(lines: &[S]) -> Self {
        let is_key = |key: &str| !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        let pairs = lines.iter().filter_map(|line| line.as_ref().split_once(": "));
        Self(pairs.filter(|(key, _)| is_key(key)).map(|(key, value)| (key.into(), value.trim().into())).collect())
    }

    /// The value of `key`, if present.
    ///
    /// # Errors
    /// If it is not of the expected type.
    pub fn get<T: FromStr>(&self, key: &str) -> Result<Option<T>> {
        let Some(value) = self.0.get(key) else { return Ok(None) };
        let parsed =
            value.parse().map_err(|_| Error::Unmet(format!("gannet printed `{key}: {value}`, which is invalid")));
        parsed.map(Some)
    }

    /// The value of `key`.
    ///
    /// # Errors
    /// If it is missing or not of the expected type.
    pub fn require<T: FromStr>(&self, key: &str) -> Result<T> {
        self.get(key)?.ok_or_else(|| Error::Unmet(format!("gannet did not print `{key}: …` on stdout")))
    }

    /// The figures in readable form, one per line.
    ///
    /// # Errors
    /// If a figure is not a number.
    pub fn summary(&self) -> Result<String> {
        let mut text = String::new();
        let mut line = |name: &str, value: String| {
            let _ = writeln!(text, "  {name:<28}{value}");
        };
        if let Some(bytes) = self.get("bytes")? {
            line("received", human_bytes(bytes));
        }
        if let Some(gbps) = self.get::<f64>("goodput_gbps")? {
            let time = self.get::<f64>("seconds")?.map_or_else(String::new, |seconds| format!(" ({seconds:.3} s)"));
            line("goodput", format!("{gbps:.2} Gbit/s{time}"));
        }
        if let Some(micros) = self.get::<f64>("handshake_us")? {
            line("handshake", format!("{:.3} ms", micros / 1000.0));
        }
        let counters = [
            ("bytes_copied", "copied inside the stack"),
            ("bytes_direct", "decrypted into place"),
            ("bytes_staged", "edges of cipher blocks"),
        ];
        for (key, name) in counters {
            if let Some(bytes) = self.get(key)? {
                line(name, human_bytes(bytes));
            }
        }
        Ok(text)
    }
}

/// `1.50 GiB (1610612736 bytes)`.
pub fn human_bytes(bytes: u64) -> String {
    let (shift, unit) = match bytes {
        0..=0x3ff => return format!("{bytes} bytes"),
        0x400..=0xf_ffff => (10, "KiB"),
        0x10_0000..=0x3fff_ffff => (20, "MiB"),
        _ => (30, "GiB"),
    };
    // Three digits are shown, so the loss of precision does not matter.
    format!("{:.2} {unit} ({bytes} bytes)", bytes as f64 / f64::from(1u32 << shift))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINES: &[&str] = &[
        "connected to 10.77.0.1",
        "sha256: ab12",
        "bytes: 1073741824",
        "seconds: 0.75",
        "goodput_gbps: 11.4532",
        "handshake_us: 1234",
        "bytes_copied: 0",
        "note that: this is no key",
    ];

    #[test]
    fn values_are_found_and_typed() {
        let results = Results::parse(LINES);
        assert_eq!(results.require::<String>("sha256").unwrap(), "ab12");
        assert_eq!(results.get::<u64>("bytes_copied").unwrap(), Some(0));
        assert_eq!(results.get::<u64>("bytes_staged").unwrap(), None);
        assert_eq!(results.get::<String>("note that").unwrap(), None);
        assert!(results.require::<u64>("absent").unwrap_err().to_string().contains("`absent: "));
        assert!(results.get::<u64>("sha256").unwrap_err().to_string().contains("`sha256: ab12`"));
    }

    #[test]
    fn the_summary_shows_what_was_said() {
        let text = Results::parse(LINES).summary().unwrap();
        assert!(text.contains("11.45 Gbit/s (0.750 s)"), "{text}");
        assert!(text.contains("1.234 ms") && text.contains("1.00 GiB (1073741824 bytes)"), "{text}");
        assert!(text.contains("copied inside the stack     0 bytes"), "{text}");
        assert!(!text.contains("edges"), "{text}");
        assert!(Results::parse(&["bytes: many"]).summary().is_err());
    }

    #[test]
    fn bytes_for_people() {
        assert_eq!(human_bytes(1023), "1023 bytes");
        assert_eq!(human_bytes(1536), "1.50 KiB (1536 bytes)");
        assert_eq!(human_bytes(1 << 20), "1.00 MiB (1048576 bytes)");
    }
}
