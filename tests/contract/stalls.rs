//! Applications that take their time: both ends stay connected, and go on where they were.

use bytes::Bytes;
use gannet::base::Side;
use gannet::base::time::Duration;
use gannet::mem::PinnedBuf;
use gannet::quic::{Dir, Event, SendData, StreamId, TransportConfig};

use super::pair::Pair;

fn bytes(n: usize) -> SendData {
    SendData::Bytes(Bytes::from(vec![7; n]))
}

/// Takes all that is there on the client's stream, and gives the buffers back.
fn read(pair: &mut Pair, id: StreamId) -> usize {
    let mut got = 0;
    for event in pair.events(Side::Client) {
        if let Event::Buffer { buf, valid, .. } = event {
            got += valid;
            // Refused if the end is there.
            let _ = pair.conn(Side::Client).provide_receive_buffer(id, buf);
        }
    }
    while let Some(chunk) = pair.conn(Side::Client).take(id) {
        got += chunk.len();
    }
    got
}

#[test]
fn an_application_that_pauses_for_minutes_loses_nothing() {
    const LEN: usize = 1_000_000;
    for (provided, max_data) in [(true, 64 << 20), (false, 64 << 20), (false, 50_000)] {
        let window = if provided { 0 } else { 64 << 10 };
        let client = TransportConfig {
            stream_window_bidi_local: window,
            max_data,
            receive_low_water: 1,
            ..TransportConfig::default()
        };
        let mut pair = Pair::connected(client, TransportConfig::default());
        let id = pair.conn(Side::Client).open(Dir::Bidi).unwrap();
        if provided {
            pair.conn(Side::Client).provide_receive_buffer(id, PinnedBuf::unpinned(64 << 10)).unwrap();
        }
        pair.conn(Side::Client).send(id, SendData::Static(b"x"), true).unwrap();
        pair.wait(Duration::from_millis(50));
        pair.conn(Side::Server).send(id, bytes(LEN), true).unwrap();
        let mut got = 0;
        while got < LEN {
            pair.wait(Duration::from_secs(200));
            assert!(pair.client.closed().is_none() && pair.server.closed().is_none(), "after {got} bytes");
            // It reads all it has, and what comes at once; then it is busy elsewhere.
            for _ in 0..2 {
                got += read(&mut pair, id);
                pair.wait(Duration::from_millis(100));
            }
            got += read(&mut pair, id);
            if LEN - got <= 64 << 10 {
                // The rest fits: nobody waits for anything then.
                pair.wait(Duration::from_millis(100));
                got += read(&mut pair, id);
            }
        }
        assert_eq!(got, LEN);
    }
}
