//! The state of a run of the benchmarks.

use std::path::{Path, PathBuf};

use gannet::report::{Bar, Series};

use crate::Failure;
use crate::cli::RunArgs;
use crate::cores::cores;
use crate::stats::Sheet;

/// The scale of measurements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// As little as possible.
    Tiny,
    /// Within ten minutes for everything.
    Quick,
    /// As much as good figures need.
    Full,
}

impl Scale {
    /// Selects one of three values by scale.
    pub fn pick<T>(self, tiny: T, quick: T, full: T) -> T {
        match self {
            Self::Tiny => tiny,
            Self::Quick => quick,
            Self::Full => full,
        }
    }
}

/// The prefixes of labels of other stacks' bars.
const OTHERS: [&str; 4] = ["quinn", "s2n-quic", "quiche", "rustls"];

/// A run: its settings and results.
#[derive(Debug)]
pub struct Run {
    /// The scale of measurements.
    pub scale: Scale,
    /// The number of repeats.
    pub repeats: u32,
    /// The output directory.
    pub out: PathBuf,
    /// The program to measure.
    pub gannet: PathBuf,
    /// The server's and the client's CPU.
    pub cores: [usize; 2],
    /// The figures.
    pub sheet: Sheet,
    /// Latencies for the report.
    pub series: Vec<Series>,
    /// Bars for the report.
    pub bars: Vec<Bar>,
    /// Notes for the reader.
    pub notes: Vec<String>,
    /// The arguments.
    pub args: RunArgs,
}

impl Run {
    /// Creates a run without results.
    ///
    /// # Errors
    /// If the output directory cannot be created.
    pub fn new(args: &RunArgs) -> Result<Self, Failure> {
        let scale = match (args.tiny, args.quick) {
            (true, _) => Scale::Tiny,
            (_, true) => Scale::Quick,
            _ => Scale::Full,
        };
        std::fs::create_dir_all(&args.out).map_err(|e| format!("cannot create {}: {e}", args.out.display()))?;
        let out = args.out.canonicalize().map_err(|e| format!("cannot find {}: {e}", args.out.display()))?;
        let gannet = match &args.gannet {
            Some(path) => path.clone(),
            None => std::env::current_exe()?.with_file_name("gannet"),
        };
        Ok(Self {
            scale,
            repeats: args.repeats.unwrap_or(scale.pick(1, 5, 7)),
            out,
            gannet,
            cores: cores(),
            sheet: Sheet::default(),
            series: Vec::new(),
            bars: Vec::new(),
            notes: Vec::new(),
            args: args.clone(),
        })
    }

    /// Adds a bar for `key`, if there are samples: the median and, for repeats, the spread. It is Gannet's unless its
    /// label starts with the name of another stack.
    pub fn bar(&mut self, label: impl Into<String>, key: &str, unit: &str) {
        self.bar_of(label, key, 1.0, unit);
    }

    /// The same for a `unit` that is the sheet's divided by `scale`.
    pub fn bar_of(&mut self, label: impl Into<String>, key: &str, scale: f64, unit: &str) {
        let Some(stat) = self.sheet.stat(key) else { return };
        let label = label.into();
        let other = OTHERS.iter().find(|name| label.starts_with(**name));
        let stack = other.map_or("Gannet", |name| name).to_owned();
        let spread = (stat.min < stat.max).then_some((stat.min * scale, stat.max * scale));
        self.bars.push(Bar { stack, spread, ..Bar::new(label, stat.median * scale, unit) });
    }

    /// Adds a note for the reader.
    pub fn note(&mut self, note: impl Into<String>) {
        let note = note.into();
        eprintln!("note: {note}");
        self.notes.push(note);
    }

    /// The program that is measured.
    ///
    /// # Errors
    /// If it has not been built.
    pub fn gannet(&self) -> Result<&Path, Failure> {
        if self.gannet.is_file() {
            return Ok(&self.gannet);
        }
        let path = self.gannet.display();
        Err(format!("{path} does not exist: build it with `cargo build --release --bin gannet`, or use --gannet")
            .into())
    }
}
