//! Throughput of one stream on one connection.

use crate::Failure;
use crate::cli::PeerKind;
use crate::cores::round_trip_ns;
use crate::parts::pair::{self, Keep, Places, Wire};
use crate::run::Run;

/// Measures the part for one MTU.
///
/// # Errors
/// If a process fails.
pub fn measure(run: &mut Run, mtu: u16) -> Result<(), Failure> {
    let size = run.scale.pick("16M", "3G", "10G");
    let peer_size: u64 = run.scale.pick(16 << 20, 1 << 30, 4 << 30);
    let (key, places) = (format!("bulk_{mtu}"), Places::default());
    for _ in 0..run.repeats {
        // All communication between CPUs depends on where the host places them.
        run.sheet.add("machine.core_round_trip_ns", round_trip_ns(run.cores));
        let ours = pair::gannet(run, &places, &Wire::Memif, mtu, &["--download", size], Keep::default())?;
        let gbps = ours.get("download_gbps")?;
        run.sheet.add(format!("{key}.gbps"), gbps);
        run.sheet.add(format!("{key}.packets_lost"), ours.get("sent_packets_lost")?);
        let quinn = pair::peer_gbps(run, &places, PeerKind::Quinn, mtu, peer_size)?;
        run.sheet.add(format!("{key}.quinn_gbps"), quinn);
        run.sheet.add(format!("{key}.vs_quinn"), gbps / quinn);
    }
    let unit = format!("Gbit/s, one stream, MTU {mtu}");
    run.bar("Gannet over memif", &format!("{key}.gbps"), &unit);
    run.bar("quinn over loopback", &format!("{key}.quinn_gbps"), &unit);
    Ok(())
}
