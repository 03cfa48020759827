//! hq-interop over aioquic, which lives in a Python virtual environment of its own.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::Role;
use super::netns::End;

/// The one requirement, with its version; `cargo xtask` installs from the same file.
const REQUIREMENT: &str = include_str!("requirements.txt");

/// The command of a peer process at `end`.
pub fn command(end: &End, role: &Role) -> Command {
    let mut command = end.command(python());
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers/aioquic_hq.py"));
    command.arg(serde_json::to_string(role).expect("a role is JSON"));
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    command
}

/// The Python of an environment that has aioquic: the one that `GANNET_VENV` names, else `venv` in Cargo's target
/// directory, which is made when it is missing. Tests run side by side, hence the lock.
///
/// # Panics
/// When there is none and none can be made.
pub fn python() -> PathBuf {
    if let Some(venv) = std::env::var_os("GANNET_VENV") {
        let python = Path::new(&venv).join("bin/python");
        assert!(has_aioquic(&python), "GANNET_VENV: {} lacks {}", python.display(), REQUIREMENT.trim());
        return python;
    }
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from);
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join(target);
    let venv = target.join("venv");
    let python = venv.join("bin/python");
    fs::create_dir_all(&target).expect("Cargo's target directory");
    let lock = File::create(target.join("venv.lock")).expect("a lock file");
    lock.lock().expect("a file lock");
    if !has_aioquic(&python) {
        run(Command::new("python3").args(["-m", "venv"]).arg(&venv));
        run(Command::new(&python)
            .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"])
            .args(REQUIREMENT.lines().filter(|l| !l.is_empty())));
        assert!(has_aioquic(&python), "{} lacks {} though it was installed", python.display(), REQUIREMENT.trim());
    }
    python
}

/// Whether this Python exists and has the version of aioquic that is required.
fn has_aioquic(python: &Path) -> bool {
    let wanted = REQUIREMENT.trim().strip_prefix("aioquic==").expect("a pinned aioquic");
    let script = "import aioquic; print(aioquic.__version__)";
    let out = Command::new(python).args(["-c", script]).stdin(Stdio::null()).output();
    out.is_ok_and(|o| String::from_utf8_lossy(&o.stdout).trim() == wanted)
}

fn run(command: &mut Command) {
    let out = command.stdin(Stdio::null()).output();
    let out = out.unwrap_or_else(|e| panic!("{command:?}: {e} (packages python3, python3-venv)"));
    assert!(out.status.success(), "{command:?}: {}: {}", out.status, String::from_utf8_lossy(&out.stderr));
}
