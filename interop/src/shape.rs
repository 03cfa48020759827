//! Shapes of links on the command line: `delay=15ms,rate=10M,loss=0.5,drop=2-7`.

use std::time::Duration;

use gannet::sim::forwarder::{Codel, Gilbert, Outage, PER_MILLE, Rebinding, Shape};

/// Parses a shape. Keys are the fields of [`Shape`]; probabilities are per mille, with up to three decimals. `drop` (a
/// number or a range), `outage` (`from+length`, or `from+length/every`) and `step` (`from+rate`) may be repeated.
///
/// # Errors
/// If a key is unknown or a value is not valid.
pub fn shape(text: &str) -> Result<Shape, String> {
    let mut shape = Shape::default();
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let (key, value) = part.split_once('=').unwrap_or((part, ""));
        match key {
            "delay" => shape.delay = time(value)?,
            "jitter" => shape.jitter = time(value)?,
            "overtaking" => shape.overtaking = true,
            "held" => shape.held = time(value)?,
            "late" => shape.late = per_mille(value)?,
            "late_by" => shape.late_by = time(value)?,
            "rate" => shape.rate = number(value)?,
            "step" => {
                let (from, rate) = value.split_once('+').ok_or("step is FROM+RATE")?;
                shape.steps.push((time(from)?, number(rate)?));
            }
            "queue" => shape.queue = number(value)?,
            "codel" => shape.codel = Some(Codel::default()),
            "codel_marks" => shape.codel = Some(Codel { marks: true, ..Codel::default() }),
            "loss" => shape.loss = per_mille(value)?,
            "loss_run" => shape.loss_run = number(value)?,
            "gilbert" => {
                let parts: Vec<_> = value.split('/').map(per_mille).collect::<Result<_, _>>()?;
                let [to_bad, to_good, loss_bad] = parts[..] else { return Err("gilbert is BAD/GOOD/LOSS".into()) };
                shape.gilbert = Some(Gilbert { to_bad, to_good, loss_good: 0, loss_bad });
            }
            "corrupt" => shape.corrupt = per_mille(value)?,
            "corrupt_run" => shape.corrupt_run = number(value)?,
            "duplicate" => shape.duplicate = per_mille(value)?,
            "reorder" => shape.reorder = per_mille(value)?,
            "marks" => shape.marks = per_mille(value)?,
            "mark_above" => shape.mark_above = Some(number(value)?),
            "bleach" => shape.bleach = true,
            "mtu" => shape.mtu = number(value)? as usize,
            "drop" => {
                let (first, last) = value.split_once('-').unwrap_or((value, value));
                shape.drops.push(number(first)?..=number(last)?);
            }
            "burst" => {
                let (period, count) = value.split_once('/').ok_or("burst is PERIOD/COUNT")?;
                shape.bursts = Some((number(period)?, number(count)?));
            }
            "outage" => {
                let (from, rest) = value.split_once('+').ok_or("outage is FROM+LENGTH or FROM+LENGTH/EVERY")?;
                let (length, every) = rest.split_once('/').map_or((rest, None), |(l, e)| (l, Some(e)));
                let every = every.map(time).transpose()?.unwrap_or(Duration::ZERO);
                shape.outages.push(Outage { from: time(from)?, length: time(length)?, every });
            }
            _ => return Err(format!("unknown property '{key}'")),
        }
    }
    Ok(shape)
}

/// Parses a rebinding: `TIME=port`, `TIME=address` or `TIME=both`.
///
/// # Errors
/// If it is not one of these.
pub fn rebinding(text: &str) -> Result<(Duration, Rebinding), String> {
    let (at, what) = text.split_once('=').ok_or("a rebinding is TIME=port|address|both")?;
    let what = match what {
        "port" => Rebinding::Port,
        "address" => Rebinding::Address,
        "both" => Rebinding::Both,
        _ => return Err(format!("'{what}' is not port, address or both")),
    };
    Ok((time(at)?, what))
}

fn time(text: &str) -> Result<Duration, String> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(split);
    let count: u64 = digits.parse().map_err(|_| format!("'{text}' is not a time such as 15ms"))?;
    match unit {
        "us" => Ok(Duration::from_micros(count)),
        "ms" => Ok(Duration::from_millis(count)),
        "s" => Ok(Duration::from_secs(count)),
        _ => Err(format!("'{text}' needs a unit: us, ms or s")),
    }
}

/// K, M and G are powers of 1000.
fn number(text: &str) -> Result<u64, String> {
    let (digits, factor) = match text.char_indices().next_back() {
        Some((at, 'K')) => (&text[..at], 1000),
        Some((at, 'M')) => (&text[..at], 1_000_000),
        Some((at, 'G')) => (&text[..at], 1_000_000_000),
        _ => (text, 1),
    };
    let count: Option<u64> = digits.parse().ok();
    count.and_then(|n| n.checked_mul(factor)).ok_or_else(|| format!("'{text}' is not a number"))
}

/// A probability per mille, with up to three decimals.
fn per_mille(text: &str) -> Result<u64, String> {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
    let bad = || format!("'{text}' is not a number per mille with up to three decimals");
    let digits = format!("{decimals:0<3}");
    let thousandths: u64 = digits.parse().ok().filter(|_| digits.len() == 3).ok_or_else(bad)?;
    let whole: u64 = whole.parse().map_err(|_| bad())?;
    match whole.checked_mul(PER_MILLE).map(|n| n + thousandths) {
        Some(n) if n <= 1000 * PER_MILLE => Ok(n),
        _ => Err(format!("'{text}' is more than 1000 per mille")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_are_read() {
        let text = "delay=15ms,rate=10M,queue=37500,loss=20,drop=2-7,drop=9,outage=5s+2s/7s,burst=10/2,bleach";
        let shape = shape(text).unwrap();
        assert_eq!((shape.delay, shape.rate, shape.queue), (Duration::from_millis(15), 10_000_000, 37_500));
        assert_eq!((shape.loss, shape.drops, shape.bursts), (20 * PER_MILLE, vec![2..=7, 9..=9], Some((10, 2))));
        assert_eq!(shape.outages[0].every, Duration::from_secs(7));
        assert!(shape.bleach);
        assert_eq!(rebinding("1s=port"), Ok((Duration::from_secs(1), Rebinding::Port)));
    }

    #[test]
    fn the_links_of_the_internet_are_read() {
        let text = "rate=10M,step=5s+2M,loss=0.05,gilbert=1/100.5/1000,late=10,late_by=5ms,overtaking,codel_marks";
        let shape = shape(text).unwrap();
        assert_eq!((shape.steps, shape.loss), (vec![(Duration::from_secs(5), 2_000_000)], 50));
        let gilbert = Gilbert { to_bad: 1000, to_good: 100_500, loss_good: 0, loss_bad: 1_000_000 };
        assert_eq!((shape.gilbert, shape.late), (Some(gilbert), 10_000));
        assert!(shape.overtaking && shape.codel.is_some_and(|codel| codel.marks));
        assert_eq!(shape.late_by, Duration::from_millis(5));
    }

    #[test]
    fn mistakes_are_named() {
        for bad in [
            "speed=1",
            "delay=15",
            "delay=xms",
            "loss=1001",
            "rate=99999999999999G",
            "burst=3",
            "outage=1s",
            "loss=1.2345",
            "gilbert=1/2",
            "step=1M",
        ] {
            assert!(shape(bad).is_err(), "{bad}");
        }
        assert!(rebinding("1s=name").is_err() && rebinding("port").is_err());
    }
}
