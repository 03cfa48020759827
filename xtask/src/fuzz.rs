//! `cargo xtask fuzz`: runs the fuzz targets under libFuzzer.
//!
//! The programs are built as `cargo fuzz` builds them, with the toolchain that is there: coverage instrumentation, and
//! AddressSanitizer for the code below the engine. New inputs and inputs that fail are kept in `target/fuzz`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::{Error, Result};
use crate::process;
use crate::workspace::{cargo, root, target};

/// The target of the programs. It is named so that build scripts and macros are not instrumented.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// What libFuzzer needs: counters of edges, and the operands of comparisons.
const RUSTFLAGS: &str = "--cfg fuzzing -Zsanitizer=address -Cpasses=sancov-module \
     -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
     -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares \
     -Ccodegen-units=1 -Cdebug-assertions -Coverflow-checks";

/// The largest input that is committed, in bytes.
const MAX_COMMITTED: u64 = 512;

/// Arguments of `cargo xtask fuzz`.
#[derive(Clone, Debug, clap::Args)]
pub struct FuzzArgs {
    /// Targets to run [default: all, one after the other]
    #[arg(value_name = "TARGET")]
    targets: Vec<String>,
    /// Time for each target, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    time: u64,
    /// Afterwards, replace the committed inputs with the fewest short ones that reach as much
    #[arg(long)]
    keep: bool,
}

/// Runs the targets.
///
/// # Errors
/// If one cannot be built or fails, or a signal arrives. The input that failed is named in the output.
pub fn run(args: &FuzzArgs) -> Result<()> {
    let all = names()?;
    let targets = if args.targets.is_empty() { all.clone() } else { args.targets.clone() };
    if let Some(unknown) = targets.iter().find(|name| !all.contains(name)) {
        return Err(Error::Unmet(format!("there is no fuzz target {unknown:?}; there are: {}", all.join(", "))));
    }
    process::run("building the fuzz targets", &mut build(&targets))?;
    for name in &targets {
        let [work, failures] = ["corpus", "failures"].map(|kind| home().join(kind).join(name));
        for folder in [&work, &failures] {
            fs::create_dir_all(folder).map_err(Error::path("create", folder))?;
        }
        let mut fuzzing = program(name);
        fuzzing.arg(&work);
        let committed = committed(name);
        if committed.is_dir() {
            fuzzing.arg(&committed);
        }
        fuzzing.arg(format!("-max_total_time={}", args.time)).args([
            "-timeout=20",
            "-rss_limit_mb=4096",
            "-max_len=4096",
        ]);
        fuzzing.arg(format!("-artifact_prefix={}/", failures.display()));
        process::run(name, &mut fuzzing)?;
        if args.keep {
            keep(name, &work, &committed)?;
        }
    }
    Ok(())
}

/// The names of all targets.
fn names() -> Result<Vec<String>> {
    let files = files(&root().join("fuzz/fuzz_targets"))?;
    let mut names: Vec<_> = files.iter().filter_map(|path| path.file_stem()?.to_str()).map(str::to_owned).collect();
    names.sort();
    Ok(names)
}

/// What a folder contains.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).map_err(Error::path("read", folder))?;
    entries.map(|entry| Ok(entry.map_err(Error::path("read", folder))?.path())).collect()
}

/// Where programs, new inputs and failures are.
fn home() -> PathBuf {
    target().join("fuzz")
}

fn committed(name: &str) -> PathBuf {
    root().join("fuzz/corpus").join(name)
}

fn build(targets: &[String]) -> Command {
    let mut command = cargo(&["build", "--release", "--package", "gannet-fuzz", "--features", "libfuzzer"]);
    command.args(["--target", TARGET, "--target-dir"]).arg(home());
    command.args(targets.iter().flat_map(|name| ["--bin", name]));
    command.env("RUSTC_BOOTSTRAP", "1").env("RUSTFLAGS", RUSTFLAGS).env("CARGO_PROFILE_RELEASE_LTO", "off");
    command
}

fn program(name: &str) -> Command {
    let mut command = Command::new(home().join(TARGET).join("release").join(name));
    // rustls and others keep what they have set up once.
    command.env("ASAN_OPTIONS", "detect_leaks=0");
    command
}

/// Replaces the committed inputs with the fewest of all short ones that reach as much.
fn keep(name: &str, work: &Path, committed: &Path) -> Result<()> {
    let [short, best] = ["short", "best"].map(|kind| home().join(kind).join(name));
    for folder in [&short, &best] {
        let _ = fs::remove_dir_all(folder);
        fs::create_dir_all(folder).map_err(Error::path("create", folder))?;
    }
    for folder in [work, committed].into_iter().filter(|folder| folder.is_dir()) {
        for path in files(folder)? {
            if path.metadata().map_err(Error::path("read", &path))?.len() <= MAX_COMMITTED {
                copy(&path, &short)?;
            }
        }
    }
    process::run(name, program(name).arg("-merge=1").arg("-set_cover_merge=1").args([&best, &short]))?;
    let _ = fs::remove_dir_all(committed);
    fs::create_dir_all(committed).map_err(Error::path("create", committed))?;
    files(&best)?.iter().try_for_each(|path| copy(path, committed))
}

/// Copies a file into a folder.
fn copy(path: &Path, folder: &Path) -> Result<()> {
    let to = folder.join(path.file_name().expect("a file in a folder"));
    fs::copy(path, &to).map(drop).map_err(Error::path("write", &to))
}
