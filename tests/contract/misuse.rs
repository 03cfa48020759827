//! Misuse is reported by a typed error, which returns the memory.

use bytes::Bytes;
use gannet::base::Side;
use gannet::base::time::Duration;
use gannet::mem::PinnedBuf;
use gannet::quic::{Dir, Notify, ProvideErrorKind, SendData, SendErrorKind, StreamError, StreamId, TransportConfig};

use super::pair::Pair;

fn bufs(sizes: &[usize]) -> Vec<PinnedBuf> {
    sizes.iter().map(|len| PinnedBuf::unpinned(*len)).collect()
}

fn data(len: usize) -> SendData {
    SendData::Bytes(Bytes::from(vec![7; len]))
}

/// Provides buffers of `sizes`; returns why that was refused.
fn refused(pair: &mut Pair, id: StreamId, sizes: &[usize]) -> Option<ProvideErrorKind> {
    let given = bufs(sizes);
    let addrs: Vec<_> = given.iter().map(|b| b.as_ptr()).collect();
    let error = pair.conn(Side::Server).provide_receive_buffers(id, given).err()?;
    assert_eq!(error.bufs.iter().map(|b| b.as_ptr()).collect::<Vec<_>>(), addrs, "all of them, in order");
    Some(error.kind)
}

#[test]
fn buffers_that_cannot_be_taken_come_back() {
    use ProvideErrorKind as Kind;
    let config = TransportConfig { stream_window_bidi_local: 1000, ..TransportConfig::default() };
    let mut pair = Pair::connected(TransportConfig::default(), config);
    // A stream that the server has just opened, and one of the client's.
    let own = pair.conn(Side::Server).open(Dir::Bidi).unwrap();
    pair.conn(Side::Server).send(own, data(1), false).unwrap();
    let ids: Vec<_> = (0..4).map(|_| pair.conn(Side::Client).open(Dir::Uni).unwrap()).collect();
    assert_eq!(refused(&mut pair, ids[0], &[10]), Some(Kind::NoStream), "the peer has not opened it");
    pair.conn(Side::Client).send(ids[3], data(0), false).unwrap();
    pair.conn(Side::Client).send(ids[1], data(10), false).unwrap();
    pair.conn(Side::Client).finish(ids[2]).unwrap();
    pair.talk();
    pair.wait(Duration::from_millis(30));
    assert_eq!(refused(&mut pair, ids[0], &[10]), Some(Kind::NoStream), "opened by those above it, but never named");
    assert_eq!(refused(&mut pair, own, &[]), Some(Kind::Empty));
    assert_eq!(refused(&mut pair, own, &[10, 0, 10]), Some(Kind::EmptyBuffer));
    assert_eq!(refused(&mut pair, own, &[600, 399]), Some(Kind::TooSmall { announced: 1000 }));
    assert_eq!(refused(&mut pair, ids[1], &[2000]), Some(Kind::PooledStream), "data is in the pool already");
    assert_eq!(refused(&mut pair, ids[2], &[2000]), Some(Kind::Finished));
    assert_eq!(refused(&mut pair, own, &[600, 400]), None);
    assert_eq!(refused(&mut pair, own, &[1]), None, "later ones may be small");
    // After the end.
    pair.conn(Side::Client).send(own, data(5), true).unwrap();
    pair.talk();
    assert_eq!(refused(&mut pair, own, &[10]), Some(Kind::NoStream), "all has arrived");
    // After stop_sending, and on a closed connection.
    pair.conn(Side::Server).stop_sending(ids[1], 1).unwrap();
    assert_eq!(refused(&mut pair, ids[1], &[10]), Some(Kind::NoStream));
    pair.conn(Side::Server).close(0, "");
    assert_eq!(refused(&mut pair, ids[3], &[10]), Some(Kind::Closed));
    let errors = [Kind::Empty, Kind::TooSmall { announced: 1000 }].map(|kind| kind.to_string());
    assert!(errors[1].contains("1000"), "{errors:?}");
}

#[test]
fn operations_on_what_is_not_there_are_refused() {
    let mut pair = Pair::connected(TransportConfig::default(), TransportConfig::default());
    let id = pair.conn(Side::Client).open(Dir::Uni).unwrap();
    let mut conn = pair.conn(Side::Client);
    assert_eq!(conn.set_notify(id, Notify::WhenComplete), Err(StreamError::NoStream), "nothing is received there");
    assert_eq!(conn.stop_sending(id, 0), Err(StreamError::NoStream));
    assert!(conn.stream_stats(StreamId::new(Side::Client, Dir::Bidi, 0)).is_none());
    conn.send(id, data(4), true).unwrap();
    let error = conn.send(id, data(3), false).unwrap_err();
    assert_eq!((error.kind, error.data.len()), (SendErrorKind::NoStream, 3), "behind the end");
    let mut conn = pair.conn(Side::Client);
    conn.close(0, "");
    assert_eq!(conn.set_notify(id, Notify::Progress), Err(StreamError::Closed));
    assert_eq!(conn.reset(id, 0), Err(StreamError::Closed));
}
