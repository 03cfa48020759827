//! Logging options.

use clap::{Args, ValueEnum};
use tracing_subscriber::filter::{LevelFilter, Targets};

/// The environment variable with the log level, if no option sets one.
const VARIABLE: &str = "GANNET_LOG";

/// Formats of log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Time, level, component, message and fields.
    #[default]
    Text,
    /// One JSON object per line, with the same contents.
    Json,
}

/// Logging options.
#[derive(Clone, Debug, Default, Args)]
pub struct LogArgs {
    /// Log events of this level and above: off, error, warn, info, debug or trace. Components can have levels of their
    /// own: warn,net=debug,quic=trace [default: the value of GANNET_LOG, or info].
    #[arg(long, value_name = "LEVEL", value_parser = filter, help_heading = "Diagnostics")]
    pub log_level: Option<Targets>,

    /// Format of log lines. They go to standard error; lines that it does not accept at once are dropped and counted.
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t, help_heading = "Diagnostics")]
    pub log_format: LogFormat,

    /// Log errors only and show no progress; same as --log-level error.
    #[arg(short, long, conflicts_with = "verbose", help_heading = "Diagnostics")]
    pub quiet: bool,

    /// Log more; same as --log-level debug. -vv is the same as --log-level trace.
    #[arg(short, long, action = clap::ArgAction::Count, help_heading = "Diagnostics")]
    pub verbose: u8,
}

impl LogArgs {
    /// The filter that these options select.
    pub fn filter(&self) -> Targets {
        let level = |level: LevelFilter| Targets::new().with_default(level);
        match (&self.log_level, self.quiet, self.verbose) {
            (Some(filter), ..) => filter.clone(),
            (None, true, _) => level(LevelFilter::ERROR),
            (None, false, 0) => of_environment().ok().flatten().unwrap_or_else(|| level(LevelFilter::INFO)),
            (None, false, 1) => level(LevelFilter::DEBUG),
            (None, false, _) => level(LevelFilter::TRACE),
        }
    }

    /// Checks the environment variable, which clap does not.
    pub fn check(&self) -> Result<(), String> {
        of_environment().map(drop)
    }
}

fn of_environment() -> Result<Option<Targets>, String> {
    match std::env::var_os(VARIABLE) {
        None => Ok(None),
        Some(text) if text.is_empty() => Ok(None),
        Some(text) => filter(&text.to_string_lossy()).map(Some).map_err(|why| format!("{VARIABLE}: {why}")),
    }
}

/// Parses a level for everything, and any number of the form COMPONENT=LEVEL.
fn filter(text: &str) -> Result<Targets, String> {
    let level = |name: &str| -> Result<LevelFilter, String> {
        let known = !name.is_empty() && !name.contains(|c: char| !c.is_ascii_alphabetic());
        let level = Some(name).filter(|_| known).and_then(|name| name.parse().ok());
        level.ok_or_else(|| format!("'{name}' is not a level: use off, error, warn, info, debug or trace"))
    };
    let mut targets = Targets::new().with_default(LevelFilter::INFO);
    for word in text.split(',').map(str::trim) {
        targets = match word.split_once('=') {
            None => targets.with_default(level(word)?),
            Some((part, name)) if part.starts_with("gannet") => targets.with_target(part, level(name)?),
            Some((part, name)) => targets.with_target(format!("gannet::{part}"), level(name)?),
        };
    }
    Ok(targets)
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    #[test]
    fn levels_of_all_and_of_parts() {
        let all = filter("debug").unwrap();
        assert!(all.would_enable("gannet::net", &Level::DEBUG) && !all.would_enable("gannet::net", &Level::TRACE));
        let parts = filter("warn, net=trace,gannet::quic=off").unwrap();
        assert!(parts.would_enable("gannet::net::stack", &Level::TRACE));
        assert!(!parts.would_enable("gannet::quic::endpoint", &Level::ERROR));
        assert!(parts.would_enable("gannet::mem", &Level::WARN) && !parts.would_enable("gannet::mem", &Level::INFO));
        for wrong in ["verbose", "", "net", "info,", "net=", "net=loud", "5", "info;debug"] {
            let why = filter(wrong).unwrap_err();
            assert!(why.contains("use off, error, warn"), "{why}");
        }
    }

    #[test]
    fn quiet_and_verbose_are_levels() {
        let enables = |quiet, verbose, level: Level| {
            LogArgs { quiet, verbose, ..LogArgs::default() }.filter().would_enable("gannet::net", &level)
        };
        assert!(enables(true, 0, Level::ERROR) && !enables(true, 0, Level::WARN));
        assert!(enables(false, 1, Level::DEBUG) && !enables(false, 1, Level::TRACE));
        assert!(enables(false, 2, Level::TRACE));
        let said = LogArgs { quiet: true, log_level: Some(filter("trace").unwrap()), ..LogArgs::default() };
        assert!(said.filter().would_enable("gannet", &Level::TRACE), "the explicit option wins");
    }
}
