//! The short way in judges as the long one does.

use proptest::prelude::*;

use super::world::*;
use crate::base::time::Instant;
use crate::datapath::{Checksum, RxFrame, TxFrame};
use crate::net::{Net, Received};

const NOW: Instant = Instant::ZERO;

/// Two hosts of one IP version that know each other, and a frame from one to the other.
fn pair(v6: bool, payload: &[u8]) -> (Net<Frame>, Frame) {
    let [a_cidr, b_cidr, from, to] = if v6 {
        ["2001:db8::1/64", "2001:db8::2/64", "[2001:db8::1]:4433", "[2001:db8::2]:50000"]
    } else {
        ["10.0.0.1/24", "10.0.0.2/24", "10.0.0.1:4433", "10.0.0.2:50000"]
    };
    let (mut a, mut b) = (host(1, &[a_cidr]), host(2, &[b_cidr]));
    let frame = resolved(&mut a, &mut b, NOW, at(from), at(to), payload);
    (b, Frame::received(frame.data()))
}

fn verdict() -> impl Strategy<Value = Checksum> {
    proptest::sample::select(&[Checksum::Unknown, Checksum::Good, Checksum::Bad][..])
}

proptest! {
    #[test]
    fn whatever_is_changed(
        v6: bool, payload in proptest::collection::vec(any::<u8>(), 0..80), other in proptest::collection::vec(any::<u8>(), 0..80),
        changes in proptest::collection::vec((0..80usize, any::<u8>()), 0..3), cut in proptest::option::of(0..130usize),
        padding in 0..20usize, ip in verdict(), l4 in verdict(),
    ) {
        let (mut knows, good) = pair(v6, &payload);
        let (mut fresh, next) = pair(v6, &other);
        let mut bytes = next.data().to_vec();
        bytes.extend(vec![0xaa; padding]);
        for (at, value) in changes {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= value;
            }
        }
        bytes.truncate(cut.unwrap_or(usize::MAX));
        // One has seen a packet of the flow, the other has not.
        knows.receive(NOW, &mut good.clone());
        let received = |host: &mut Net<Frame>| {
            let before = *host.stats();
            let mut frame = Frame::received(&bytes);
            (frame.ip, frame.l4) = (ip, l4);
            let received = host.receive(NOW, &mut frame);
            let payload = match &received {
                Received::Udp(udp) => RxFrame::data_mut(&mut frame)[udp.payload.clone()].to_vec(),
                _ => Vec::new(),
            };
            let after = host.stats();
            (received, payload, after.rx_udp - before.rx_udp, after.rx_udp_bytes - before.rx_udp_bytes,
                after.rx_udp_software_checksums - before.rx_udp_software_checksums, after.drops.received() - before.drops.received())
        };
        prop_assert_eq!(received(&mut knows), received(&mut fresh));
    }
}

#[test]
fn a_port_that_is_closed_is_closed_for_flows_that_are_known() {
    let mut config = config(&["10.0.0.2/24"]);
    config.ports = Some(vec![50000]);
    let mut b = Net::new(&config, &caps(2), NOW).unwrap();
    let mut a = host(1, &["10.0.0.1/24"]);
    let frame = resolved(&mut a, &mut b, NOW, at("10.0.0.1:4433"), at("10.0.0.2:50000"), &[7; 40]);
    for _ in 0..2 {
        let received = b.receive(NOW, &mut Frame::received(frame.data()));
        assert!(matches!(received, Received::Udp(_)), "{received:?}");
    }
    b.close_port(50000);
    let received = b.receive(NOW, &mut Frame::received(frame.data()));
    assert!(matches!(received, Received::Dropped(_)), "{received:?}");
}
