//! The program being demonstrated.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::{Error, Result};
use crate::{process, workspace};

/// The path of the program.
#[derive(Debug)]
pub struct Gannet(PathBuf);

impl Gannet {
    /// Uses the program at `path`.
    ///
    /// # Errors
    /// If it does not exist.
    pub fn at(path: &Path) -> Result<Self> {
        path.canonicalize().map(Self).map_err(Error::path("find the program", path))
    }

    /// Builds the program from this repository, optimised.
    ///
    /// # Errors
    /// If it does not build.
    pub fn build() -> Result<Self> {
        process::run("the build", &mut workspace::cargo(&["build", "--release", "--bin", "gannet"]))?;
        Self::at(&workspace::target().join("release/gannet"))
    }

    /// The command that runs it, inside a network namespace if one is named.
    pub fn command(&self, namespace: Option<&str>) -> Command {
        let Some(namespace) = namespace else {
            return Command::new(&self.0);
        };
        let mut command = Command::new("ip");
        command.args(["netns", "exec", namespace]).arg(&self.0);
        command
    }
}
