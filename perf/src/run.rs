//! What a run of the benchmarks has and has found.

use std::path::{Path, PathBuf};

use gannet::report::{Bar, Series};

use crate::Failure;
use crate::cli::RunArgs;
use crate::cores::cores;
use crate::stats::Sheet;

/// How much is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// As little as possible.
    Tiny,
    /// Within ten minutes for everything.
    Quick,
    /// As much as good figures take.
    Full,
}

impl Scale {
    /// One of three, by scale.
    pub fn pick<T>(self, tiny: T, quick: T, full: T) -> T {
        match self {
            Self::Tiny => tiny,
            Self::Quick => quick,
            Self::Full => full,
        }
    }
}

/// What bars of other stacks begin with.
const OTHERS: [&str; 4] = ["quinn", "s2n-quic", "quiche", "rustls"];

/// What a run has and has found.
#[derive(Debug)]
pub struct Run {
    /// How much is measured.
    pub scale: Scale,
    /// How often.
    pub repeats: u32,
    /// Where files go.
    pub out: PathBuf,
    /// The program that is measured.
    pub gannet: PathBuf,
    /// The server's and the client's CPU.
    pub cores: [usize; 2],
    /// The figures.
    pub sheet: Sheet,
    /// Latencies for the report.
    pub series: Vec<Series>,
    /// Bars for the report.
    pub bars: Vec<Bar>,
    /// What the reader has to know about the run.
    pub notes: Vec<String>,
    /// The arguments.
    pub args: RunArgs,
}

impl Run {
    /// A run that has found nothing yet.
    ///
    /// # Errors
    /// When the folder for its files cannot be made.
    pub fn new(args: &RunArgs) -> Result<Self, Failure> {
        let scale = match (args.tiny, args.quick) {
            (true, _) => Scale::Tiny,
            (_, true) => Scale::Quick,
            _ => Scale::Full,
        };
        std::fs::create_dir_all(&args.out).map_err(|e| format!("cannot make {}: {e}", args.out.display()))?;
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

    /// A bar from what is under `key`, if there is anything: the median and, of repeats, the spread. It is Gannet's unless
    /// its label begins with the name of another stack.
    pub fn bar(&mut self, label: impl Into<String>, key: &str, unit: &str) {
        self.bar_of(label, key, 1.0, unit);
    }

    /// The same for a `unit` of which `scale` are one of the sheet's.
    pub fn bar_of(&mut self, label: impl Into<String>, key: &str, scale: f64, unit: &str) {
        let Some(stat) = self.sheet.stat(key) else { return };
        let label = label.into();
        let other = OTHERS.iter().find(|name| label.starts_with(**name));
        let stack = other.map_or("Gannet", |name| name).to_owned();
        let spread = (stat.min < stat.max).then_some((stat.min * scale, stat.max * scale));
        self.bars.push(Bar { stack, spread, ..Bar::new(label, stat.median * scale, unit) });
    }

    /// Something that the reader has to know.
    pub fn note(&mut self, note: impl Into<String>) {
        let note = note.into();
        eprintln!("note: {note}");
        self.notes.push(note);
    }

    /// The program that is measured.
    ///
    /// # Errors
    /// When it has not been built.
    pub fn gannet(&self) -> Result<&Path, Failure> {
        if self.gannet.is_file() {
            return Ok(&self.gannet);
        }
        let path = self.gannet.display();
        Err(format!("{path} is not there: build it with `cargo build --release --bin gannet`, or say --gannet").into())
    }
}
