//! `cargo xtask nic-test`: two emulated machines whose PCI NICs `gannet` drives through vfio-pci, behind an emulated IOMMU.

mod apart;
mod clock;
mod cpio;
mod flows;
mod guest;
mod initramfs;
mod lab;
mod lock;
mod model;
pub mod parts;
mod play;
mod step;
mod table;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::demo::certs;
use crate::demo::guards::SocketDir;
use crate::error::{Error, Result};
use crate::{process, workspace};
use lab::{Lab, SERVER, Stage};
use model::Model;
use parts::Parts;
use play::Play;
use step::Step;
use table::{Outcome, Table};

/// What `cargo xtask nic-test` takes.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct NicTestArgs {
    /// Only these NICs, separated by commas [default: all]
    #[arg(long = "model", value_enum, value_name = "MODEL", value_delimiter = ',')]
    models: Vec<Model>,
    /// Only these steps, separated by commas [default: all that suit the NIC]
    #[arg(long = "step", value_enum, value_name = "STEP", value_delimiter = ',')]
    steps: Vec<Step>,
    /// Smaller files: what `cargo xtask test` has time for
    #[arg(long)]
    quick: bool,
    /// Write the table to this file: {"MODEL": {"STEP": "pass" or the reason}}
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Keep the machines' logs and consoles in this directory
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    /// Use this program instead of building one
    #[arg(long, value_name = "FILE")]
    gannet: Option<PathBuf>,
}

/// The command.
///
/// # Errors
/// If the machines cannot be started, a step fails, or a signal arrives. No machine and none of its files outlives the
/// command.
pub fn run(args: &NicTestArgs) -> Result<()> {
    let _lock = Parts::lock()?;
    // Without them, nothing needs to be built.
    let parts = Parts::prepare_locked()?;
    let gannet = match &args.gannet {
        Some(path) => path.canonicalize().map_err(Error::path("find the program", path))?,
        None => build()?,
    };
    let dir = SocketDir::new()?;
    let done = with_logs(args.keep.as_deref(), dir.path(), || play(args, parts, &gannet, dir.path()))?;
    print!("\n{}", done.text());
    if let Some(path) = &args.json {
        fs::write(path, done.json()).map_err(Error::path("write", path))?;
    }
    let failures = done.failures();
    if failures.is_empty() {
        println!("{} steps, none failed", done.len());
        return Ok(());
    }
    Err(Error::Unmet(format!("{} of {} steps failed: {}", failures.len(), done.len(), failures.join(", "))))
}

/// Builds the program as for the tests: slightly optimised, with debug assertions. After a test run, there is nothing
/// to build. Emulated CPUs are so slow that a release build would not even make the steps a third faster.
fn build() -> Result<PathBuf> {
    process::run("the build", &mut workspace::cargo(&["build", "--bin", "gannet"]))?;
    let path = workspace::target().join("debug/gannet");
    path.canonicalize().map_err(Error::path("find the program", &path))
}

/// Copies logs and consoles to `keep` at the end, whether or not `body` fails.
fn with_logs<T>(keep: Option<&Path>, dir: &Path, body: impl FnOnce() -> Result<T>) -> Result<T> {
    let done = body();
    if let Some(keep) = keep {
        fs::create_dir_all(keep).map_err(Error::path("make", keep))?;
        for entry in fs::read_dir(dir).map_err(Error::path("read", dir))?.flatten() {
            let (path, name) = (entry.path(), entry.file_name());
            if path.extension().is_some_and(|end| end == "log" || end == "console" || end == "pcap") {
                fs::copy(&path, keep.join(name)).map_err(Error::path("copy", &path))?;
            }
        }
        println!("logs and consoles: {}", keep.display());
    }
    done
}

fn play(args: &NicTestArgs, parts: Parts, gannet: &Path, dir: &Path) -> Result<Table> {
    let certs = certs::make_for(dir, &SERVER)?;
    let initrd = dir.join("initrd");
    fs::write(&initrd, initramfs::make(&parts, gannet, &certs, dir)?).map_err(Error::path("write", &initrd))?;
    let stage = Stage { parts, initrd, dir: dir.to_owned(), gannet: gannet.to_owned(), certs };
    let models = if args.models.is_empty() { Model::ALL.to_vec() } else { args.models.clone() };
    let wanted = |step: &Step| args.steps.is_empty() || args.steps.contains(step);
    let steps = |model: Model| Step::ALL.into_iter().filter(move |step| wanted(step) && step.suits(model));
    let mut table = Table::default();
    for model in &models {
        for step in Step::ALL.into_iter().filter(wanted) {
            if let Some(why) = step.left_out(*model) {
                table.leave_out(&model.to_string(), step, why);
            }
        }
    }
    let mut lab: Option<Lab> = None;
    for model in &models {
        let together: Vec<_> = steps(*model).filter(|step| !step.is_apart()).collect();
        if together.is_empty() {
            continue;
        }
        if lab.as_ref().is_some_and(Lab::is_lost) {
            // Dropped first, so that there are never two with the same names.
            lab = None;
        }
        let lab = match &mut lab {
            Some(lab) => lab,
            none => {
                let start = Instant::now();
                let booted = none.insert(Lab::boot(&stage, &models)?);
                println!(
                    "two machines with {} NICs each, booted in {:.1} s",
                    models.len(),
                    start.elapsed().as_secs_f64()
                );
                booted
            }
        };
        let mut play = Play::new(lab, *model, args.quick);
        for step in together {
            let start = Instant::now();
            note(&mut table, *model, step, start, play.step(step))?;
        }
    }
    drop(lab);
    for model in models {
        for step in steps(model).filter(|step| step.is_apart()) {
            let start = Instant::now();
            note(&mut table, model, step, start, apart::vhost(&stage, model))?;
        }
    }
    Ok(table)
}

/// Adds to an error what it is about, unless it is that a signal arrived.
fn about(error: Error, words: impl FnOnce(&Error) -> String) -> Error {
    if matches!(error, Error::Interrupted(_)) { error } else { Error::Unmet(words(&error)) }
}

/// Records the outcome of a step.
///
/// # Errors
/// If it was interrupted by a signal.
fn note(table: &mut Table, model: Model, step: Step, start: Instant, done: Result<()>) -> Result<()> {
    let failure = match done {
        Ok(()) => None,
        Err(error @ Error::Interrupted(_)) => return Err(error),
        Err(error) => Some(error.to_string()),
    };
    table.note(&model.to_string(), step, Outcome { failure, took: start.elapsed() });
    Ok(())
}
