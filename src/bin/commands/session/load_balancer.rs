//! How load balancers route a server's connection IDs, in words and as JSON.

use gannet::base::hex;
use gannet::quic::CidConfig;
use serde_json::{Value, json};

/// The form of `ids` in words, for whoever configures the load balancers; `None` if there are none.
pub fn words(ids: &CidConfig) -> Option<String> {
    let (config, server_id, nonce) = (ids.rotation(), hex::encode(ids.server_id()?), ids.nonce_len());
    let how = match ids.passes() {
        0 => "not encrypted".to_owned(),
        1 => "encrypted in one pass".to_owned(),
        n => format!("encrypted in {n} passes"),
    };
    Some(format!("QUIC-LB configuration {config} (server ID {server_id}, nonce of {nonce} bytes, {how})"))
}

/// The same as JSON; null if there are none.
pub fn json(ids: &CidConfig) -> Value {
    let (config, nonce, passes) = (ids.rotation(), ids.nonce_len(), ids.passes());
    ids.server_id().map_or(Value::Null, |server_id| {
        json!({ "config": config, "server_id": hex::encode(server_id), "nonce_bytes": nonce, "encryption_passes": passes })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_but_the_key_is_told() {
        let told = |id: &[u8], nonce, key: Option<[u8; 16]>| {
            let ids = CidConfig::routed(3, id, nonce, key.as_ref()).unwrap();
            (words(&ids).unwrap(), json(&ids).to_string())
        };
        let (words_, json_) = told(&[0x0a, 0x1b], 14, Some([0x5c; 16]));
        assert_eq!(words_, "QUIC-LB configuration 3 (server ID 0a1b, nonce of 14 bytes, encrypted in one pass)");
        assert_eq!(json_, r#"{"config":3,"encryption_passes":1,"nonce_bytes":14,"server_id":"0a1b"}"#);
        assert!(told(&[1], 9, Some([0x5c; 16])).0.ends_with("encrypted in 4 passes)"));
        assert!(told(&[1], 9, None).0.ends_with("not encrypted)"));
        assert_eq!((words(&CidConfig::default()), json(&CidConfig::default())), (None, Value::Null));
    }
}
