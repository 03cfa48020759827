//! The bulk transfer with more implementations.

use crate::Failure;
use crate::cli::PeerKind;
use crate::parts::pair::{self, Places};
use crate::run::Run;

/// Measures the part.
///
/// # Errors
/// If a process fails.
pub fn measure(run: &mut Run) -> Result<(), Failure> {
    if !cfg!(feature = "peers") {
        run.note("s2n-quic and quiche are not built in: cargo xtask bench --peers builds them");
        return Ok(());
    }
    let size: u64 = run.scale.pick(16 << 20, 1 << 30, 4 << 30);
    let mut failed = Vec::new();
    for _ in 0..run.repeats {
        for (kind, key) in [(PeerKind::S2n, "peers.s2n"), (PeerKind::Quiche, "peers.quiche")] {
            match pair::peer_gbps(run, &Places::default(), kind, 1500, size) {
                Ok(gbps) => run.sheet.add(format!("{key}.gbps"), gbps),
                Err(error) => failed.push(format!("{}: {error}", kind.name())),
            }
        }
    }
    for (label, key) in [("s2n-quic over loopback", "peers.s2n"), ("quiche over loopback", "peers.quiche")] {
        if let (Some(ours), Some(theirs)) =
            (run.sheet.median("bulk_1500.gbps"), run.sheet.median(&format!("{key}.gbps")))
        {
            run.sheet.add(format!("{key}.ratio"), ours / theirs);
        }
        run.bar(label, &format!("{key}.gbps"), "Gbit/s, one stream, MTU 1500");
    }
    failed.dedup();
    if failed.is_empty() { Ok(()) } else { Err(failed.join("; ").into()) }
}
