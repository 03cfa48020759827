//! Two cores of a server: datagrams reach the wrong one, and are handed over with any tag.

use gannet::base::Side;
use gannet::mem::BufPool;
use gannet::quic::{Datagram, Endpoint, EndpointConfig, Lead, Leads, RxMeta, ServerConfig};

use crate::input::Input;
use crate::peer::{DATA, Peer};
use crate::states::transport;
use crate::world::{Host, SERVER_TLS, addr, client_addr, endpoint_config, exchange};

fn core(n: u8) -> EndpointConfig {
    endpoint_config(Side::Server).for_core(n, 2)
}

/// Datagrams, each a byte that says how it is made and where it arrives, and its arguments.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let server = ServerConfig::new(SERVER_TLS.clone(), transport()).expect("a valid configuration");
    let mut owner = Host::server_with(core(0), transport());
    let mut other = Endpoint::new(core(1), Some(server), BufPool::heap());
    let mut peer = Peer::client(client_addr(), 1, |params| params.to_bytes());
    exchange(&mut owner, &mut peer);
    let meta = RxMeta { local: addr(Side::Server), remote: client_addr(), ecn: 0 };
    let mut slot = vec![0; 2048];
    for _ in 0..64 {
        if input.is_empty() {
            break;
        }
        let how = input.byte();
        let mut bytes = match how % 3 {
            0 => input.long_piece().to_vec(),
            1 => peer.packet(DATA, input.piece()),
            _ => {
                let mut bytes = peer.packet(DATA, input.piece());
                let at = usize::from(input.short()) % bytes.len();
                bytes[at] ^= input.byte();
                bytes
            }
        };
        let mut leads = Leads::new();
        other.lead(&mut leads, &bytes);
        other.route(&mut leads);
        let (core, mut tag) = match leads[0] {
            Lead::Core(core, tag) => (core, Some(tag)),
            _ => (1, None),
        };
        assert!(core < 2, "there is no core {core}");
        // A tag names a connection that may be gone; only what cannot be encoded in an ID is left out.
        if how & 0x40 != 0 {
            tag = (how & 0x20 != 0).then(|| [input.word() & 0xff_ffff, input.word() & 0xff, input.word()]);
        }
        let endpoint = if core == 0 || how & 0x80 != 0 { &mut owner.endpoint } else { &mut other };
        let mut leads = Leads::new();
        endpoint.lead_handed(&mut leads, tag, &bytes);
        endpoint.route(&mut leads);
        let mut datagram = Datagram::new(&meta, &mut bytes, leads[0]);
        endpoint.handle_run(owner.now, std::slice::from_mut(&mut datagram));
        owner.run();
        while other.poll_event().is_some() {}
        while other.poll_transmit(owner.now, &mut slot).is_some() {}
    }
    owner.wait(std::time::Duration::from_secs(300));
    let mut now = owner.now;
    while let Some(at) = other.next_timeout() {
        now = now.max(at);
        other.handle_timeout(now);
        while other.poll_event().is_some() {}
        while other.poll_transmit(now, &mut slot).is_some() {}
    }
    assert_eq!((owner.endpoint.connection_count(), other.connection_count()), (0, 0), "everything ends");
}
