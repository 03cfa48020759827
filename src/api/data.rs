//! Conversions into [`SendData`].

use bytes::Bytes;

use crate::mem::PinnedBuf;
use crate::quic::SendData;

impl From<PinnedBuf> for SendData {
    /// Sends the whole buffer.
    fn from(buf: PinnedBuf) -> Self {
        let len = buf.len();
        Self::Pinned(buf, len)
    }
}

impl From<Bytes> for SendData {
    fn from(bytes: Bytes) -> Self {
        Self::Bytes(bytes)
    }
}

impl From<Vec<u8>> for SendData {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Bytes(bytes.into())
    }
}

impl From<&'static [u8]> for SendData {
    fn from(bytes: &'static [u8]) -> Self {
        Self::Static(bytes)
    }
}

impl<const N: usize> From<&'static [u8; N]> for SendData {
    fn from(bytes: &'static [u8; N]) -> Self {
        Self::Static(bytes)
    }
}

impl From<&'static str> for SendData {
    fn from(text: &'static str) -> Self {
        Self::Static(text.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_kinds_keep_their_bytes() {
        let mut buf = PinnedBuf::unpinned(3);
        buf.copy_from_slice(b"abc");
        let all: [SendData; 6] = [
            buf.into(),
            Bytes::from_static(b"abc").into(),
            b"abc".to_vec().into(),
            b"abc".into(),
            b"abc"[..].into(),
            "abc".into(),
        ];
        assert!(all.iter().all(|data| data.as_slice() == b"abc"));
    }
}
