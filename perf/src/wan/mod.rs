//! Stacks on links of the Internet, in virtual time: `cargo xtask bench --only wan`.
//!
//! Two engines, Gannet's or quinn's, exchange packets over the links of [`gannet::sim::forwarder`]. Nothing reads a
//! clock, so a run is the same on every machine.

mod cell;
mod end;
mod host;
mod own;
mod plot;
mod quinn;
mod scenario;
mod settings;
mod stack;
mod table;
mod tls;
mod world;

use std::time::Instant;

use self::scenario::Scenario;
use self::stack::Stack;
use self::table::Table;
use crate::Failure;
use crate::run::Run;

/// The seed of the recorded table.
const SEED: u64 = 1;

/// Measures the part.
///
/// # Errors
/// If a connection cannot begin, names are unknown, or cells differ from the recorded ones and `--check` is given.
pub fn measure(run: &mut Run) -> Result<(), Failure> {
    let args = run.args.clone();
    let stacks = stacks(&args.stack)?;
    let scenarios = scenarios(&args.scenario, run.scale.pick(true, true, false))?;
    let (seed, plots) = (args.seed.unwrap_or(SEED), !args.scenario.is_empty());
    if seed != SEED && (args.check || args.record) {
        return Err(format!("the recorded table has seed {SEED}").into());
    }
    println!("{}", table::head());
    let mut now = Table::new();
    for scenario in &scenarios {
        let mut courses = Vec::new();
        for stack in stacks.iter().copied().filter(|stack| stack.is_in(&scenario.name, scenario.windows)) {
            let name = format!("{}.{}", scenario.name, stack.name());
            let begin = Instant::now();
            let course = cell::run(scenario, stack, seed, plots).map_err(|error| format!("wan.{name}: {error}"))?;
            println!("{}", table::row(scenario, stack, &course.figures, begin.elapsed().as_secs_f64()));
            if let Some((at, why)) = &course.ended {
                run.note(format!("wan.{name}: a connection ended after {at:?}: {why}"));
            }
            for (what, value) in table::named(&course.figures) {
                run.sheet.add(format!("wan.{name}.{what}"), value);
            }
            if stack.is_deterministic() {
                now.insert(name, table::recorded(&course.figures));
            }
            courses.push((stack.name(), course));
        }
        if plots {
            println!("{:<32}{}", "", plot::write(&run.out, scenario, &courses)?.display());
        }
    }
    hold(run, now)
}

/// Records the table, or compares it with the recorded one.
fn hold(run: &mut Run, now: Table) -> Result<(), Failure> {
    let path = run.args.wan_table.clone();
    if run.args.record {
        let everything =
            run.args.scenario.is_empty() && run.args.stack.is_empty() && run.scale.pick(false, false, true);
        let mut all = if everything { Table::new() } else { table::read(&path).unwrap_or_default() };
        all.extend(now);
        return table::write(&path, &all);
    }
    if run.args.seed.is_some_and(|seed| seed != SEED) || !(run.args.check || path.is_file()) {
        return Ok(());
    }
    let changes = table::changes(&table::read(&path)?, &now);
    if changes.is_empty() {
        return Ok(());
    }
    let told = format!("{}; if that is intended, record it with `cargo xtask bench wan --record`", changes.join("; "));
    if run.args.check {
        return Err(told.into());
    }
    run.note(told);
    Ok(())
}

/// The stacks with these names; all without names.
fn stacks(names: &[String]) -> Result<Vec<Stack>, Failure> {
    if names.is_empty() {
        return Ok(Stack::ALL.to_vec());
    }
    let known = || Stack::ALL.map(Stack::name).join(", ");
    let named = |name: &String| {
        Stack::named(name).ok_or_else(|| format!("no stack is called {name}; there are {}", known()).into())
    };
    names.iter().map(named).collect()
}

/// The scenarios whose names begin like one of `names`; without names, all, or those of short runs.
fn scenarios(names: &[String], short: bool) -> Result<Vec<Scenario>, Failure> {
    let mut all = scenario::all();
    if names.is_empty() {
        all.retain(|scenario| scenario.quick || !short);
        return Ok(all);
    }
    if let Some(name) = names.iter().find(|name| !all.iter().any(|known| known.name.starts_with(name.as_str()))) {
        let known: Vec<_> = all.into_iter().map(|scenario| scenario.name).collect();
        return Err(format!("no scenario is called {name}; there are {}", known.join(", ")).into());
    }
    all.retain(|scenario| names.iter().any(|name| scenario.name.starts_with(name.as_str())));
    Ok(all)
}
