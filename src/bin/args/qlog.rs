//! Arguments about qlog files.

use std::path::PathBuf;

use clap::{Args, ValueEnum, ValueHint};
use gannet::api::{QlogConfig, QlogNames};

use super::values;

/// Names of events in qlog files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Names {
    /// Those of the newest drafts (quic-events-13).
    #[default]
    Newest,
    /// Those of qlog 0.3, for qvis.
    Qvis,
}

/// Which connections are described in qlog files, and how.
#[derive(Clone, Debug, Args)]
pub struct QlogArgs {
    /// Write what happens to each connection to a file of its own in this directory, which is made if there is none.
    /// Slows the engine down.
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath, env = "QLOGDIR", hide_env_values = true)]
    #[arg(help_heading = "Diagnostics")]
    pub qlog: Option<PathBuf>,

    /// Size at which a qlog file ends, for example 100M [default: 64M].
    #[arg(long, value_name = "BYTES", value_parser = values::bytes, requires = "qlog", help_heading = "Diagnostics")]
    pub qlog_limit: Option<u64>,

    /// Write qlog files for one of this many connections [default: 1, all].
    #[arg(long, value_name = "N", value_parser = values::number::<u64>(1, 1 << 32), requires = "qlog")]
    #[arg(help_heading = "Diagnostics")]
    pub qlog_every: Option<u64>,

    /// Names of events in qlog files.
    #[arg(long, value_name = "WHOSE", value_enum, default_value_t, help_heading = "Diagnostics")]
    pub qlog_names: Names,
}

impl QlogArgs {
    /// The library's settings; `None` if no files are wanted.
    pub fn config(&self) -> Option<QlogConfig> {
        // As with other variables that name files, an empty one means none.
        let dir = self.qlog.as_ref().filter(|dir| !dir.as_os_str().is_empty())?;
        let default = QlogConfig::new(dir);
        Some(QlogConfig {
            limit: self.qlog_limit.unwrap_or(default.limit),
            every: self.qlog_every.unwrap_or(default.every),
            names: match self.qlog_names {
                Names::Newest => QlogNames::Newest,
                Names::Qvis => QlogNames::Qvis,
            },
            ..default
        })
    }
}
