//! The cost of a packet for its receiver and its sender, and the AEAD's share.

use crate::Failure;
use crate::cores::pin;
use crate::lab::apps::Placement;
use crate::parts::kernels::Bench;
use crate::parts::transfer::{Shape, Transfer};
use crate::run::Run;

/// Measures the part.
///
/// # Errors
/// If there is no memory.
pub fn measure(run: &mut Run) -> Result<(), Failure> {
    pin(run.cores[1]);
    one(run, 1500)?;
    one(run, 9000)
}

fn one(run: &mut Run, mtu: u16) -> Result<(), Failure> {
    let span = Shape::cold(run.scale);
    let bytes: u64 = run.scale.pick(2 << 20, 256 << 20, 1 << 30);
    let mut transfer = Transfer::new(Shape { mtu, placement: Placement::Direct, span })?;
    let mut kernels = Bench::new(mtu, span)?;
    let (rx, tx) = (format!("rx_{mtu}"), format!("tx_{mtu}"));
    for _ in 0..run.repeats {
        let cost = transfer.run(bytes)?;
        let times = kernels.run(bytes as usize / 4);
        let mut add = |key: String, value: f64| run.sheet.add(key, value);
        add(format!("{rx}.ns_per_packet"), cost.rx_ns);
        add(format!("{tx}.ns_per_packet"), cost.tx_ns);
        add(format!("{rx}.vs_aead_limit"), times.direct / cost.rx_ns);
        add(format!("{tx}.vs_aead_limit"), times.seal / cost.tx_ns);
        // Stages: the cost of the kernels alone, on the same sizes, and the rest.
        add(format!("{rx}.stage_mask_ns"), times.mask);
        add(format!("{rx}.stage_verify_ns"), times.verify);
        add(format!("{rx}.stage_place_ns"), times.direct - times.verify);
        add(format!("{rx}.stage_rest_ns"), cost.rx_ns - times.direct - times.mask);
        add(format!("{tx}.stage_mask_ns"), times.mask);
        add(format!("{tx}.stage_seal_ns"), times.seal);
        add(format!("{tx}.stage_rest_ns"), cost.tx_ns - times.seal - times.mask);
        add(format!("limits_{mtu}.aead_ns"), times.direct);
        add(format!("limits_{mtu}.memcpy_ns"), times.memcpy);
        if mtu == 1500 {
            add("alloc_per_packet".into(), cost.allocations);
            add("copied_bytes_per_byte".into(), cost.copied);
        }
    }
    bars(run, mtu);
    Ok(())
}

fn bars(run: &mut Run, mtu: u16) {
    let stages = [("rx", ["mask", "verify", "place", "rest"].as_slice()), ("tx", &["mask", "seal", "rest"])];
    for (side, stages) in stages {
        let unit = format!("ns per packet by stage, {side}, MTU {mtu}");
        run.bar("all", &format!("{side}_{mtu}.ns_per_packet"), &unit);
        for stage in stages {
            run.bar(*stage, &format!("{side}_{mtu}.stage_{stage}_ns"), &unit);
        }
    }
}
