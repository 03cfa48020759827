//! Instructions per packet and per request, counted by callgrind: reproducible, so that small regressions show.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use gannet::report::file::write_atomically;
use serde_json::{Map, Value};

use crate::Failure;
use crate::cli::ReplayArgs;
use crate::lab::apps::Placement;
use crate::parts::alone::Alone;
use crate::parts::transfer::{Shape, Transfer};
use crate::process::{Running, value};
use crate::run::Run;

/// The maximum ratio to the recorded count.
const TOLERANCE: f64 = 1.05;

/// Shared objects whose instructions are counted as the cipher's.
const CIPHERS: [&str; 2] = ["libIPSec_MB", "libcrypto"];

/// Runs the work that is counted: the same bytes at the same times in each run.
///
/// # Errors
/// If the transfer fails.
pub fn replay(args: &ReplayArgs) -> Result<(), Failure> {
    if args.requests {
        return replay_requests(args);
    }
    let shape = Shape { mtu: args.mtu, placement: Placement::Direct, span: args.span << 20 };
    let mut transfer = Transfer::warmed(shape, args.warmup)?;
    let before = transfer.packets();
    for _ in 0..args.cycles {
        counted_tx(&mut transfer);
        counted_rx(&mut transfer);
        transfer.rest();
    }
    let after = transfer.packets();
    println!("rx_packets: {}", after[0] - before[0]);
    println!("tx_packets: {}", after[1] - before[1]);
    Ok(())
}

fn replay_requests(args: &ReplayArgs) -> Result<(), Failure> {
    let mut alone = Alone::new()?;
    let before = alone.answers();
    for _ in 0..args.cycles {
        counted_request(&mut alone);
        alone.rest();
    }
    println!("requests: {}", alone.answers() - before);
    Ok(())
}

/// Callgrind counts while it is in here.
#[inline(never)]
fn counted_request(alone: &mut Alone) {
    alone.turn();
}

/// Callgrind counts while it is in here.
#[inline(never)]
fn counted_tx(transfer: &mut Transfer) {
    transfer.send();
}

/// Callgrind counts while it is in here.
#[inline(never)]
fn counted_rx(transfer: &mut Transfer) {
    transfer.receive();
}

/// Measures the part.
///
/// # Errors
/// If valgrind is missing or fails, or counts have increased and `--check` is given.
pub fn measure(run: &mut Run) -> Result<(), Failure> {
    let mut counts = Map::new();
    let cycles = run.scale.pick("2", "5", "20");
    let transfer = ["--warmup", "12", "--cycles", cycles];
    let requests = ["--requests", "--cycles", run.scale.pick("50", "500", "2000")];
    for (what, unit, args) in
        [("rx", "rx_packets", &transfer[..]), ("tx", "tx_packets", &transfer), ("request", "requests", &requests)]
    {
        let (engine, cipher) = count(run, what, unit, args)?;
        run.sheet.add(format!("icount.{what}"), engine);
        run.sheet.add(format!("icount.{what}_cipher"), cipher);
        counts.insert(format!("icount.{what}"), engine.round().into());
    }
    let path = &run.args.baseline;
    if run.args.record {
        write_atomically(path, format!("{:#}\n", Value::Object(counts)).as_bytes())?;
        return Ok(());
    }
    let text = fs::read_to_string(path);
    match text {
        Err(error) if run.args.check => {
            Err(format!("cannot read {}: {error}; record counts with --record", path.display()).into())
        }
        Err(_) => Ok(()),
        Ok(text) => {
            let grown = grown(&serde_json::from_str(&text)?, &counts);
            match grown {
                Some(why) if run.args.check => Err(why.into()),
                Some(why) => {
                    run.note(why);
                    Ok(())
                }
                None => Ok(()),
            }
        }
    }
}

/// Describes counts that exceed the tolerance.
fn grown(baseline: &Value, counts: &Map<String, Value>) -> Option<String> {
    let lines: Vec<String> = counts
        .iter()
        .filter_map(|(key, now)| {
            let (now, before) = (now.as_f64()?, baseline[key].as_f64()?);
            let percent = (now / before - 1.0) * 100.0;
            (now > before * TOLERANCE)
                .then(|| format!("{key}: {now:.0} instructions, {before:.0} recorded ({percent:+.1} %)"))
        })
        .collect();
    if lines.is_empty() {
        return None;
    }
    Some(format!("{}; if that is intended, record it with `cargo xtask bench icount --record`", lines.join("; ")))
}

/// Instructions of the engine and of the cipher in `counted_WHAT`, for each `unit` that `replay` prints the number of.
fn count(run: &Run, what: &str, unit: &str, args: &[&str]) -> Result<(f64, f64), Failure> {
    let out = run.out.join(format!("callgrind-{what}.out"));
    let mut command = Command::new("valgrind");
    command.args(["--tool=callgrind", "--collect-atstart=no", "--error-exitcode=9"]);
    command.arg(format!("--toggle-collect=*icount*counted_{what}*"));
    command.arg(format!("--callgrind-out-file={}", out.display()));
    command.arg(std::env::current_exe()?).arg("replay").args(args);
    let name = format!("callgrind-{what}");
    let running = Running::start(&name, command, &run.out).map_err(|e| format!("{e} (is valgrind installed?)"))?;
    let units = value(&running.finish(Duration::from_secs(600))?, unit)?;
    let (engine, cipher) = read_profile(&out)?;
    if engine == 0 || units == 0.0 {
        return Err(format!("callgrind counted nothing; see {}", out.display()).into());
    }
    Ok((engine as f64 / units, cipher as f64 / units))
}

fn read_profile(path: &Path) -> Result<(u64, u64), Failure> {
    let text = fs::read_to_string(path).map_err(|e| format!("cannot read {}: {e}", path.display()))?;
    Ok(split(&text))
}

/// The instructions in a callgrind profile outside and inside the ciphers' libraries.
fn split(profile: &str) -> (u64, u64) {
    let mut names: HashMap<&str, &str> = HashMap::new();
    let (mut in_cipher, mut call, mut sums) = (false, false, (0, 0));
    for line in profile.lines() {
        if let Some(object) = line.strip_prefix("ob=") {
            // `(3) name` gives number 3 a name, `(3)` alone uses it.
            let (id, name) = object.split_once(' ').unwrap_or((object, ""));
            if !name.is_empty() {
                names.insert(id, name);
            }
            let name = names.get(id).copied().unwrap_or(object);
            in_cipher = CIPHERS.iter().any(|cipher| name.contains(cipher));
        } else if let Some(object) = line.strip_prefix("cob=") {
            if let Some((id, name)) = object.split_once(' ') {
                names.insert(id, name);
            }
        } else if line.starts_with("calls=") {
            call = true;
        } else if line.starts_with(|c: char| c.is_ascii_digit() || "+-*".contains(c)) {
            // The line after a call has the callee's cost, which is counted there.
            if !std::mem::take(&mut call)
                && let Some(cost) = line.split_whitespace().nth(1).and_then(|cost| cost.parse::<u64>().ok())
            {
                *(if in_cipher { &mut sums.1 } else { &mut sums.0 }) += cost;
            }
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROFILE: &str = "\
version: 1
positions: line
events: Ir
ob=(1) /x/gannet-perf
fl=(1) a.rs
fn=(1) one
10 100
+3 20
cob=(2) /usr/lib/libIPSec_MB.so.1
cfn=(2) aes
calls=5 0
* 5000
ob=(2)
fn=(2)
0 4000
ob=(3) /lib/libc.so.6
fn=(3) memcpy
0 7
ob=(1)
fn=(4) two
- 1
totals: 5128
";

    #[test]
    fn profiles_are_split_by_object() {
        assert_eq!(split(PROFILE), (128, 4000));
    }

    #[test]
    fn growth_beyond_the_tolerance_is_told() {
        let counts = |rx: f64| Map::from_iter([("icount.rx".to_owned(), Value::from(rx))]);
        let baseline = serde_json::json!({ "icount.rx": 1000.0, "icount.tx": 5.0 });
        assert_eq!(grown(&baseline, &counts(1049.0)), None);
        assert_eq!(grown(&baseline, &counts(500.0)), None);
        let why = grown(&baseline, &counts(1100.0)).unwrap();
        assert!(why.contains("icount.rx") && why.contains("+10.0 %"), "{why}");
    }
}
