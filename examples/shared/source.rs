//! The server of all examples: it sends as many bytes as requested.

use std::collections::HashMap;

use gannet::api::*;

/// Maximum length of a request: 2^64 in decimal digits.
const MAX_REQUEST: usize = 20;

/// Answers each stream with as many bytes as its request says, in decimal digits. The data is sent in pieces of 1 MiB,
/// so that it is never in memory as a whole.
pub struct Source {
    piece: Bytes,
    streams: HashMap<(ConnId, StreamId), Answer>,
}

#[derive(Default)]
struct Answer {
    request: Vec<u8>,
    /// Number of bytes still to be queued, once known.
    left: Option<u64>,
}

impl Source {
    /// A server without requests.
    pub fn new() -> Self {
        Self { piece: Bytes::from(vec![7; 1 << 20]), streams: HashMap::new() }
    }

    fn read(&mut self, cx: &mut Context<'_>, conn: ConnId, id: StreamId) {
        let answer = self.streams.entry((conn, id)).or_default();
        let Some(mut conn_of) = cx.conn(conn) else { return };
        while let Some(chunk) = conn_of.take(id) {
            let room = MAX_REQUEST - answer.request.len().min(MAX_REQUEST);
            answer.request.extend_from_slice(&chunk[..chunk.len().min(room)]);
            if chunk.is_last() {
                let text = std::str::from_utf8(&answer.request).ok();
                answer.left = text.and_then(|digits| digits.parse().ok());
                if answer.left.is_none() {
                    // Fails only if the stream is gone.
                    let _ = conn_of.reset(id, 1);
                }
            }
        }
        self.write(cx, conn, id);
    }

    fn write(&mut self, cx: &mut Context<'_>, conn: ConnId, id: StreamId) {
        let Some(Answer { left: Some(left), .. }) = self.streams.get_mut(&(conn, id)) else { return };
        let Some(mut conn_of) = cx.conn(conn) else { return };
        while *left > 0 {
            let n = (*left).min(self.piece.len() as u64);
            let piece = self.piece.slice(..n as usize);
            if conn_of.send(id, piece.into(), n == *left).is_err() {
                return; // The send budget is used up; `Writable` will follow.
            }
            *left -= n;
        }
        self.streams.remove(&(conn, id));
    }
}

impl App for Source {
    fn on_event(&mut self, cx: &mut Context<'_>, conn: ConnId, event: Event) {
        match event {
            Event::Readable { id, .. } => self.read(cx, conn, id),
            Event::Writable { id } => self.write(cx, conn, id),
            Event::Closed { .. } => self.streams.retain(|(of, _), _| *of != conn),
            _ => {}
        }
    }
}
