//! `gannet serve`.

use std::sync::Arc;

use gannet::proto::hq::{self, HqServer, HqServerConfig};
use gannet::quic::ServerConfig;

use super::session::{Failure, Session, say, server_endpoint, server_tls, tls_options, transport};
use crate::args::ServeArgs;

/// Memory for requests and files on their way, beside what is preloaded.
const WORKING_MEMORY: u64 = 1 << 30;

/// Serves files until a signal comes.
pub fn run(args: &ServeArgs) -> Result<(), Failure> {
    // What a user gets wrong most often comes first: no port is opened for it.
    let tls = server_tls(&args.identity, &tls_options(&args.engine, hq::ALPN)?)?;
    let endpoint = server_endpoint(&args.secret, args.retry)?;
    let mut session = Session::open(&args.engine, WORKING_MEMORY + args.preload)?;
    session.endpoint = Some(endpoint);
    run_on(args, tls, session)
}

/// The same on a port that is open already.
pub fn run_on(args: &ServeArgs, tls: Arc<rustls::ServerConfig>, mut session: Session) -> Result<(), Failure> {
    let app = HqServer::new(
        &HqServerConfig {
            root: args.root.clone(),
            uploads: args.upload_dir.clone(),
            preload: args.preload,
            log: args.engine.verbose > 0,
        },
        &session.pool,
    )?;
    let mut config = transport(&args.engine, &session.caps());
    HqServer::adapt(&mut config, &session.pool);
    let server = ServerConfig::new(tls, config)?;
    let what = session.describe();
    let addr = args.engine.addrs[0].addr;
    let ready = || say(&format!("ready: https://{}/ on {what}", std::net::SocketAddr::new(addr, args.listen)));
    let (app, _) = session.run(app, Some((args.listen, server)), ready, || None)?;
    if !args.engine.quiet {
        let stats = app.stats;
        eprintln!(
            "served {} files ({} bytes), kept {} uploads, refused {} requests",
            stats.files, stats.bytes, stats.uploads, stats.refused
        );
    }
    Ok(())
}
