//! The frames of a packet without application data, for traces.
//!
//! Each frame is stored as its length in the packet, the number of bytes that are kept, and these bytes: the frame up to
//! its data. So a frame can be decoded again by filling it up with zeros, and no byte that belongs to an application, a
//! token or a TLS message is copied.

use crate::wire::quic::frame::Frame;

/// Maximum number of bytes stored for one packet. Frames beyond that are stored as one of which only the type is known.
const MOST: usize = 8 << 10;

/// Appends the frames in `payload`, the decrypted contents of a packet, to `out`. A frame that cannot be decoded, and
/// everything after it, is stored as one.
pub fn squeeze(payload: &[u8], out: &mut Vec<u8>) {
    let begin = out.len();
    let mut rest = payload;
    while !rest.is_empty() {
        let Ok((frame, used)) = Frame::decode(rest) else { return push_raw(rest, rest.len(), 8, out) };
        let (data, behind) = match &frame {
            Frame::Crypto { data, .. } => (data.len(), 0),
            Frame::NewToken { token } => (token.len(), 0),
            Frame::Padding(run) => (run - 1, 0),
            Frame::Stream(header) => (0, usize::try_from(header.len.unwrap_or(u64::MAX)).unwrap_or(usize::MAX)),
            Frame::Datagram { len } => (0, usize::try_from(len.unwrap_or(u64::MAX)).unwrap_or(usize::MAX)),
            _ => (0, 0),
        };
        let len = used.saturating_add(behind).min(rest.len());
        if out.len() - begin + 4 + used - data > MOST {
            return push_raw(rest, rest.len(), 1, out);
        }
        push_raw(rest, len, used - data, out);
        rest = &rest[len..];
    }
}

/// Appends a frame of `len` bytes that begins with `head`, which lacks only data.
pub fn push(head: &[u8], len: usize, out: &mut Vec<u8>) {
    push_raw(head, len, head.len(), out);
}

fn push_raw(frame: &[u8], len: usize, kept: usize, out: &mut Vec<u8>) {
    let kept = kept.min(frame.len()).min(len);
    out.extend_from_slice(&(len.min(usize::from(u16::MAX)) as u16).to_be_bytes());
    out.extend_from_slice(&(kept as u16).to_be_bytes());
    out.extend_from_slice(&frame[..kept]);
}

/// Calls `each` for every frame stored in `bytes`, with its contents, in which data is replaced by zeros, and whether
/// that is all of it. `room` is used for them.
pub fn each<'b>(mut bytes: &'b [u8], room: &mut Vec<u8>, mut each: impl FnMut(&[u8])) {
    let mut take = |n: usize| -> Option<&'b [u8]> {
        let (front, back) = bytes.split_at_checked(n)?;
        bytes = back;
        Some(front)
    };
    let mut next = || {
        let [a, b, c, d] = *take(4)?.first_chunk()?;
        let kept = take(usize::from(u16::from_be_bytes([c, d])))?;
        Some((usize::from(u16::from_be_bytes([a, b])), kept))
    };
    while let Some((len, kept)) = next() {
        room.clear();
        room.extend_from_slice(kept);
        room.resize(len.max(kept.len()), 0);
        each(room);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::quic::StreamId;
    use crate::wire::quic::frame::StreamHeader;
    use crate::wire::quic::varint::Writer;

    fn encode(write: impl FnOnce(&mut Writer<'_>)) -> Vec<u8> {
        let mut buf = vec![0; 2000];
        let mut w = Writer::new(&mut buf);
        write(&mut w);
        let len = w.finish().unwrap();
        buf.truncate(len);
        buf
    }

    fn stored(payload: &[u8]) -> (Vec<u8>, Vec<Vec<u8>>) {
        let (mut out, mut room, mut frames) = (Vec::new(), Vec::new(), Vec::new());
        squeeze(payload, &mut out);
        each(&out, &mut room, |frame| frames.push(frame.to_vec()));
        (out, frames)
    }

    #[test]
    fn frames_come_back_without_their_data() {
        let secret = [0xabu8; 300];
        let id = StreamId(8);
        let payload = encode(|w| {
            Frame::Ping.encode(w);
            Frame::Crypto { offset: 7, data: &secret }.encode(w);
            Frame::NewToken { token: &secret[..90] }.encode(w);
            StreamHeader { id, offset: 70_000, len: Some(300), fin: true }.encode(w);
            w.bytes(&secret);
            Frame::Datagram { len: Some(9) }.encode(w);
            w.bytes(&secret[..9]);
            w.zeros(20);
            StreamHeader { id, offset: 0, len: None, fin: false }.encode(w);
            w.bytes(&secret);
        });
        let (out, frames) = stored(&payload);
        assert!(!out.contains(&0xab), "{out:02x?}");
        assert_eq!(frames.iter().map(Vec::len).sum::<usize>(), payload.len());
        let decoded: Vec<_> = frames.iter().map(|frame| Frame::decode(frame).unwrap()).collect();
        assert_eq!(decoded[0].0, Frame::Ping);
        assert_eq!(decoded[1].0, Frame::Crypto { offset: 7, data: &[0; 300] });
        assert_eq!(decoded[2].0, Frame::NewToken { token: &[0; 90] });
        assert_eq!(decoded[3].0, Frame::Stream(StreamHeader { id, offset: 70_000, len: Some(300), fin: true }));
        assert_eq!(decoded[4].0, Frame::Datagram { len: Some(9) });
        assert_eq!(decoded[5].0, Frame::Padding(20));
        assert_eq!(
            (&decoded[6].0, frames[6].len() - decoded[6].1),
            (&Frame::Stream(StreamHeader { id, offset: 0, len: None, fin: false }), 300)
        );
        assert_eq!(frames.len(), 7);
    }

    #[test]
    fn what_cannot_be_decoded_or_is_too_much_is_stored_as_one() {
        let (_, frames) = stored(&[1, 0x40, 0x01, 9, 9, 9, 9, 9, 9, 9, 9, 9]);
        assert_eq!(frames, [vec![1], [vec![0x40, 1], vec![9; 6], vec![0; 3]].concat()]);
        let (out, frames) = stored(&[1; 60_000]);
        assert!(out.len() <= MOST + 5 && frames.iter().map(Vec::len).sum::<usize>() == 60_000, "{}", out.len());
        assert_eq!(stored(&[]).1, Vec::<Vec<u8>>::new());
    }

    /// Whatever a peer sends, and whatever is left of what was stored.
    #[test]
    fn any_bytes_are_handled() {
        let mut rng = crate::base::rng::Rng::from_u64(1);
        for _ in 0..2000 {
            let mut bytes = vec![0; rng.below(200) as usize];
            rng.fill(&mut bytes);
            let (out, frames) = stored(&bytes);
            assert_eq!(frames.iter().map(Vec::len).sum::<usize>(), bytes.len());
            let mut count = 0;
            each(&out[..out.len() / 2], &mut Vec::new(), |_| count += 1);
            each(&bytes, &mut Vec::new(), |_| {});
            assert!(count <= frames.len());
        }
    }
}
