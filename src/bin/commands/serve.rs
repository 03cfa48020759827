//! `gannet serve`.

use std::fs::Metadata;
use std::path::Path;
use std::sync::Arc;

use gannet::mem::BufPool;
use gannet::proto::hq::{self, HqServer, HqServerConfig, ServeStats};
use gannet::quic::ServerConfig;
use gannet::report::text;

use super::memory::{Wish, working_memory_and};
use super::session::{
    Failure, Member, Renewal, Role, Session, early_data, preferred_address, server_endpoint, tls_options,
};
use crate::args::ServeArgs;
use crate::terminal;

/// Memory for requests and files in transit, in addition to preloaded files, in bytes.
const WORKING_MEMORY: u64 = 1 << 30;

/// Serves files until a signal arrives.
pub fn run(args: &ServeArgs) -> Result<(), Failure> {
    // Check the most frequent mistakes first, before opening a port.
    let renewal = Renewal::new(&args.identity, &args.engine, tls_options(&args.engine, hq::ALPN)?)?;
    let tls = renewal.tls()?;
    let endpoint = server_endpoint(&args.secret, args.retry)?;
    // The files may need less than is allowed.
    let bytes = args.preload.min(files_in(&args.root));
    let (wish, both) = (Wish { flag: "--preload", bytes }, "--memory together with --preload");
    let cores = args.cores.of(&args.engine).count();
    let memory = working_memory_and(&wish, both, &args.engine, cores, WORKING_MEMORY)?;
    let mut session = Session::open(&args.engine, &args.cores, bytes, memory - bytes)?;
    session.endpoint = Some(endpoint);
    session.renewal = Some(renewal);
    session.drain = args.end.drain;
    run_on(args, tls, session)
}

/// Memory for the files in the top level of `dir`: each takes whole blocks of its size class, less than twice its size.
/// Files that cannot be examined fail later, when they are read.
fn files_in(dir: &Path) -> u64 {
    let files =
        std::fs::read_dir(dir).into_iter().flatten().filter_map(|entry| entry.and_then(|e| e.path().metadata()).ok());
    files.filter(Metadata::is_file).fold(0, |sum, file| sum.saturating_add(file.len().saturating_mul(2)))
}

/// Like [`run`], on a port that is already open.
pub fn run_on(args: &ServeArgs, tls: Arc<rustls::ServerConfig>, mut session: Session) -> Result<(), Failure> {
    let config = HqServerConfig {
        root: args.root.clone(),
        uploads: args.upload_dir.clone(),
        preload: args.preload,
        file_patience: hq::FILE_PATIENCE,
    };
    let mut wish = session.transport();
    wish.preferred_address = preferred_address(&args.preferred_address, &args.engine, args.listen)?;
    // Requests only read files, so they may be repeated.
    let server = early_data(ServerConfig::new(tls, wish.clone())?, args.early_data);
    let servers = HqServer::for_cores(&config, &session.shared, &session.pools)?;
    let member = |(app, pool): (HqServer, &BufPool)| -> Result<Member<HqServer>, Failure> {
        let mut transport = wish.clone();
        HqServer::adapt(&mut transport, pool);
        Ok(Member { app, server: Some(server.clone().with_transport(transport)?) })
    };
    let members = servers.into_iter().zip(&session.pools).map(member).collect::<Result<_, _>>()?;
    let what = session.describe();
    let addr = args.engine.addrs[0].addr;
    // No URL: browsers and other HTTP/3 clients cannot use this server.
    let listens = std::net::SocketAddr::new(addr, args.listen);
    let ready = || terminal::announce(&format!("ready: hq-interop on {listens}, {what}"));
    let (apps, _) = session.run(members, Role::Server { listen: args.listen }, ready, || None)?;
    tracing::info!("{}", told(&apps.iter().map(|app| app.stats).sum()));
    Ok(())
}

/// Summarises what a server has done.
fn told(stats: &ServeStats) -> String {
    let named = |n: u64, one: &str, many: &str| format!("{} {}", text::count(n), if n == 1 { one } else { many });
    let mut told = format!("sent {}", named(stats.files, "file", "files"));
    if stats.partial > 0 {
        told.push_str(&format!(" and part of {}", named(stats.partial, "other", "others")));
    }
    let (bytes, uploads) = (named(stats.bytes, "byte", "bytes"), named(stats.uploads, "upload", "uploads"));
    let refused = named(stats.refused, "request", "requests");
    told + &format!(" ({bytes}); stored {uploads}; refused {refused}")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server whose client had left in the middle of a file used to report "served 0 files (114294784 bytes)".
    #[test]
    fn what_a_server_did_is_told_in_words_that_fit() {
        let stats = ServeStats { partial: 1, bytes: 114_294_784, ..ServeStats::default() };
        assert_eq!(
            told(&stats),
            "sent 0 files and part of 1 other (114,294,784 bytes); stored 0 uploads; refused 0 requests"
        );
        let stats = ServeStats { files: 1, bytes: 1, uploads: 1, refused: 1, ..ServeStats::default() };
        assert_eq!(told(&stats), "sent 1 file (1 byte); stored 1 upload; refused 1 request");
    }
}
