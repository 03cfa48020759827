//! An earlier connection of the hosts of a play: its tokens and tickets are used in the play.

use std::sync::Arc;

use crate::base::Side;
use crate::base::time::{Duration, Instant};
use crate::quic::{ClientConfig, EarlyDataRequest, Endpoint, EndpointConfig, MemoryTokens, RxMeta, ServerConfig};
use crate::sim::app::{App, Failure};
use crate::sim::plan::{Plan, Return};
use crate::sim::{POOL, SERVER_TLS, START, Start, addr, client_tls, endpoint_config, transport};

/// The server's settings in the play.
pub(super) fn server_config(plan: &Plan, app: &App) -> ServerConfig {
    let config = ServerConfig::new(SERVER_TLS.clone(), transport(plan, Side::Server, app)).expect("plans are valid");
    let Some(kind) = plan.early else { return config };
    let allowed = kind != Return::Refuses;
    config.with_early_data(Arc::new(move |_: &EarlyDataRequest<'_>| allowed))
}

/// The settings of the server's endpoint in the play.
pub(super) fn change_secret(plan: &Plan, side: Side, config: &mut EndpointConfig) {
    if plan.early == Some(Return::Forgot) && side == Side::Server {
        config.ticket_key = [7; 32].into();
        config.address_key = [7; 32].into();
    }
}

/// The client's settings, with what it has from an earlier connection to the server, over a perfect network.
pub(super) fn client_config(plan: &Plan, server: &ServerConfig) -> Result<Option<ClientConfig>, Failure> {
    let Some(kind) = plan.early else { return Ok(None) };
    let apps = [Side::Client, Side::Server].map(|side| App::new(side, Arc::new(plan.clone())));
    let config = ClientConfig::new(client_tls(plan), transport(plan, Side::Client, &apps[0]))
        .map_err(|e| format!("configuration: {e}"))?;
    let config = config.with_sessions(4).with_tokens(Arc::new(MemoryTokens::default()));
    let config = config.with_early_data(kind != Return::Patient);

    let mut before = (*transport(plan, Side::Server, &apps[1])).clone();
    if kind == Return::Reduced {
        before.max_streams_bidi += 3;
        before.max_streams_uni += 3;
        before.max_data *= 2;
    }
    // The same process, which knows what has become of its tickets.
    let server = server.clone().with_transport(before).map_err(|e| format!("configuration: {e}"))?;
    let endpoint = |side: Side, server| {
        let config = endpoint_config(&Plan { early: None, ..plan.clone() }, side, Start::First);
        Endpoint::new(config, server, POOL.part(1 << 20))
    };
    let mut hosts =
        [(Side::Client, endpoint(Side::Client, None)), (Side::Server, endpoint(Side::Server, Some(server)))];
    let connected = hosts[0].1.connect(START, &config, "sim", addr(Side::Client), addr(Side::Server));
    connected.map_err(|e| format!("connect: {e}"))?;
    let mut slot = vec![0; 2048];
    for turn in 0..20 {
        let now: Instant = START + turn * Duration::from_millis(10);
        for from in [0, 1] {
            let mut sent = Vec::new();
            let host = &mut hosts[from].1;
            if host.next_timeout().is_some_and(|at| at <= now) {
                host.handle_timeout(now);
            }
            while host.poll_event().is_some() {}
            while let Some(transmit) = host.poll_transmit(now, &mut slot) {
                sent.push(slot[..transmit.len].to_vec());
            }
            let (side, peer) = &mut hosts[1 - from];
            let meta = RxMeta { local: addr(*side), remote: addr(side.peer()), ecn: 0 };
            for mut datagram in sent {
                peer.handle_datagram(now, &meta, &mut datagram);
            }
        }
    }
    Ok(Some(config))
}
