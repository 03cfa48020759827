//! The same transfer with bytes decrypted directly into the application's buffers, with lent chunks, and with a copy.

use std::time::Duration;

use crate::Failure;
use crate::cores::pin;
use crate::lab::apps::Placement;
use crate::parts::kernels::Bench;
use crate::parts::transfer::{Cost, Shape, Transfer, WARM};
use crate::run::Run;

/// Measures the part.
///
/// # Errors
/// If there is no memory.
pub fn measure(run: &mut Run) -> Result<(), Failure> {
    pin(run.cores[1]);
    println!(
        "{:<22}{:<8}{:>12}{:>8}{:>14}{:>16}",
        "placement", "", "ns/packet", "GB/s", "copied/byte", "sender ns/pkt"
    );
    for mtu in [1500, 9000] {
        for temperature in ["warm", "cold"] {
            one(run, mtu, temperature)?;
        }
    }
    Ok(())
}

fn one(run: &mut Run, mtu: u16, temperature: &str) -> Result<(), Failure> {
    let span = if temperature == "warm" { WARM } else { Shape::cold(run.scale) };
    let bytes: u64 = run.scale.pick(2 << 20, 256 << 20, 1 << 30);
    let prefix = format!("placement_{mtu}_{temperature}");
    let mut transfers = Vec::new();
    for placement in Placement::ALL {
        transfers.push((placement, Transfer::new(Shape { mtu, placement, span })?));
    }
    let mut kernels = Bench::new(mtu, span)?;
    for repeat in 0..run.repeats {
        let mut costs = [Cost::default(); 3];
        for ((placement, transfer), cost) in transfers.iter_mut().zip(&mut costs) {
            *cost = transfer.run(bytes)?;
            let name = placement.name();
            run.sheet.add(format!("{prefix}.{name}_ns"), cost.rx_ns);
            run.sheet.add(format!("{prefix}.{name}_gbytes_per_s"), cost.rx_gb_per_s);
            run.sheet.add(format!("{prefix}.{name}_copied_per_byte"), cost.copied);
            if repeat == 0 {
                let Cost { rx_ns, rx_gb_per_s, copied, tx_ns, .. } = *cost;
                println!("{prefix:<22}{name:<8}{rx_ns:>12.1}{rx_gb_per_s:>8.2}{copied:>14.2}{tx_ns:>16.1}");
            }
        }
        run.sheet.add(format!("{prefix}.direct_vs_copy"), costs[2].rx_ns / costs[0].rx_ns);
        run.sheet.add(format!("{prefix}.pooled_vs_copy"), costs[2].rx_ns / costs[1].rx_ns);
        let times = kernels.run(bytes as usize / 4);
        run.sheet.add(format!("{prefix}.kernel_direct_ns"), times.direct);
        run.sheet.add(format!("{prefix}.kernel_copy_ns"), times.copy);
        run.sheet.add(format!("{prefix}.kernel_direct_vs_copy"), times.copy / times.direct);
    }
    for placement in Placement::ALL {
        let key = format!("{prefix}.{}_ns", placement.name());
        let unit = format!("ns per packet, receiver, MTU {mtu}, {temperature} destination");
        run.bar(placement.name(), &key, &unit);
    }
    // Free pinned memory before the next one allocates.
    drop(transfers);
    std::thread::sleep(Duration::from_millis(10));
    Ok(())
}
