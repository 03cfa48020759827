//! The value of `--quic-lb`: how load balancers find a server.

use std::path::PathBuf;
use std::str::FromStr;

use gannet::base::hex;
use gannet::quic::CidConfig;

use super::values::{BadValue, bad};

/// The settings of `--quic-lb`, which fit together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuicLb {
    /// The config rotation bits.
    pub config: u8,
    /// The server ID.
    pub server_id: Vec<u8>,
    /// Length of the nonce in bytes.
    pub nonce: usize,
    /// The file with the key; `None` if server IDs are not encrypted.
    pub key: Option<PathBuf>,
}

const EXAMPLE: &str = "write for example config=0,server-id=0a1b,key=lb.key";

impl FromStr for QuicLb {
    type Err = BadValue;

    fn from_str(s: &str) -> Result<Self, BadValue> {
        let (mut config, mut server_id, mut nonce, mut key) = (None, None, None, None);
        for part in s.split(',') {
            let Some((name, value)) = part.split_once('=') else {
                return bad(format!("'{part}' is not a setting: {EXAMPLE}"));
            };
            let slot = match name {
                "config" => &mut config,
                "server-id" => &mut server_id,
                "nonce" => &mut nonce,
                "key" => &mut key,
                _ => return bad(format!("'{name}' is none of config, server-id, nonce and key: {EXAMPLE}")),
            };
            if slot.replace(value).is_some() {
                return bad(format!("{name} is given twice"));
            }
        }
        let Some(config) = config else { return bad(format!("config is missing: {EXAMPLE}")) };
        let Some(digits) = server_id else { return bad(format!("server-id is missing: {EXAMPLE}")) };
        let whole = |s: &str| s.parse::<u8>().ok().filter(|_| s.bytes().all(|b| b.is_ascii_digit()));
        let Some(config) = whole(config) else {
            return bad(format!("config={config}: expected a whole number from 0 to 6"));
        };
        let Some(server_id) = hex::decode(digits.as_bytes()) else {
            return bad(format!("server-id={digits}: expected two hexadecimal digits for each byte, for example 0a1b"));
        };
        let nonce = match nonce {
            None => CidConfig::usual_nonce_len(server_id.len()),
            Some(nonce) => match whole(nonce) {
                Some(nonce) => nonce.into(),
                None => return bad(format!("nonce={nonce}: expected a number of bytes from 9 to 18")),
            },
        };
        if key == Some("") {
            return bad("key: the file is missing; without key, server IDs are not encrypted");
        }
        if let Err(why) = CidConfig::routed(config, &server_id, nonce, None) {
            return bad(why.to_string());
        }
        Ok(Self { config, server_id, nonce, key: key.map(PathBuf::from) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(s: &str) -> QuicLb {
        s.parse().unwrap_or_else(|why| panic!("{s}: {why}"))
    }

    fn why(s: &str) -> String {
        s.parse::<QuicLb>().expect_err(s).to_string()
    }

    #[test]
    fn settings_in_any_order() {
        let lb = read("config=0,server-id=0a1B,key=lb.key");
        let want = QuicLb { config: 0, server_id: vec![0x0a, 0x1b], nonce: 14, key: Some("lb.key".into()) };
        assert_eq!(lb, want);
        assert_eq!(read("key=lb.key,server-id=0a:1b,config=0"), want);
        let lb = read("config=6,nonce=9,server-id=00010203040506070809");
        assert_eq!((lb.server_id.len(), lb.nonce, lb.key), (10, 9, None));
        assert_eq!(read("config=1,server-id=ff,nonce=18").nonce, 18);
        // A path may contain anything but a comma.
        assert_eq!(read("config=1,server-id=ff,key=a=b").key, Some("a=b".into()));
    }

    #[test]
    fn settings_that_cannot_work_are_refused_by_name() {
        for (line, parts) in [
            ("", &["'' is not a setting", "config=0,server-id=0a1b,key=lb.key"][..]),
            ("0", &["'0' is not a setting"]),
            ("config=0,server-id=0a,", &["'' is not a setting"]),
            ("config=0,server_id=0a", &["'server_id' is none of config, server-id, nonce and key"]),
            ("server-id=0a", &["config is missing", "for example"]),
            ("config=0", &["server-id is missing"]),
            ("config=0,config=1,server-id=0a", &["config is given twice"]),
            ("config=0,server-id=0a,key=a,key=b", &["key is given twice"]),
            ("config=7,server-id=0a", &["configuration 7 does not exist", "0 to 6"]),
            ("config=256,server-id=0a", &["config=256", "0 to 6"]),
            ("config=-1,server-id=0a", &["config=-1", "0 to 6"]),
            ("config=+1,server-id=0a", &["config=+1"]),
            ("config=x,server-id=0a", &["config=x"]),
            ("config=0,server-id=", &["server-id=", "two hexadecimal digits"]),
            ("config=0,server-id=0", &["server-id=0", "two hexadecimal digits"]),
            ("config=0,server-id=0x0a", &["server-id=0x0a"]),
            ("config=0,server-id=0a:", &["server-id=0a:"]),
            ("config=0,server-id=0a1:b", &["server-id=0a1:b"]),
            ("config=0,server-id=0a1b:2c", &["server-id=0a1b:2c"]),
            ("config=0,server-id=\u{e9}a", &["server-id=\u{e9}a"]),
            // 11 to 15 bytes are possible in QUIC-LB, but leave less than our nonce needs.
            ("config=0,server-id=000102030405060708090a", &["server ID of 11 bytes", "1 to 10 bytes", "needs 9"]),
            ("config=0,server-id=000102030405060708090a0b0c0d0e,nonce=4", &["15 bytes", "needs 9"]),
            ("config=0,server-id=0a,nonce=4", &["nonce of 4 bytes", "9 to 18"]),
            ("config=0,server-id=0a,nonce=19", &["nonce of 19 bytes", "9 to 18"]),
            ("config=0,server-id=0a0b0c0d,nonce=16", &["nonce of 16 bytes", "9 to 15"]),
            ("config=0,server-id=0a,nonce=256", &["nonce=256", "9 to 18"]),
            ("config=0,server-id=0a,nonce=", &["nonce=", "9 to 18"]),
            ("config=0,server-id=0a,key=", &["key: the file is missing"]),
        ] {
            parts.iter().for_each(|part| assert!(why(line).contains(part), "{line}: {}", why(line)));
        }
    }
}
