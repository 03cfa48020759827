//! Files that are written completely or not at all.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// A file could not be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {}: {source}{}", path.display(), remedy(source))]
pub struct WriteError {
    /// The file that was to be written.
    pub path: PathBuf,
    /// The error.
    pub source: io::Error,
}

/// Advice for the user about `e`.
fn remedy(e: &io::Error) -> &'static str {
    match e.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "; free some space or choose another place",
        io::ErrorKind::NotFound => "; the directory does not exist, create it first",
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => "; choose a directory you may write to",
        io::ErrorKind::IsADirectory => "; give the name of a file in it",
        _ => "",
    }
}

/// Writes `content` to `path` so that others see the old file or the complete new one: it is written to a temporary
/// file in the same directory, which is then renamed.
///
/// # Errors
/// If it cannot be written. The file at `path` is then unchanged, and no temporary file is left.
pub fn write_atomically(path: &Path, content: &[u8]) -> Result<(), WriteError> {
    put(path, content).map_err(|source| WriteError { path: path.into(), source })
}

fn put(path: &Path, content: &[u8]) -> io::Result<()> {
    // The target of a symbolic link is replaced. Devices and pipes are written to directly.
    let path = match fs::canonicalize(path) {
        Ok(real) => real,
        Err(e) if e.kind() == io::ErrorKind::NotFound => path.to_path_buf(),
        Err(e) => return Err(e),
    };
    match fs::metadata(&path) {
        Ok(m) if m.is_dir() => return Err(io::ErrorKind::IsADirectory.into()),
        Ok(m) if !m.is_file() => return File::options().write(true).open(&path)?.write_all(content),
        _ => {}
    }
    let Some(name) = path.file_name() else { return Err(io::ErrorKind::IsADirectory.into()) };
    let mut temp = std::ffi::OsString::from(".");
    temp.push(name);
    temp.push(format!(".{}.tmp", std::process::id()));
    let temp = path.with_file_name(temp);
    let done = write_synced(&temp, content).and_then(|()| fs::rename(&temp, &path));
    if done.is_err() {
        // The first error is the one to report.
        let _ = fs::remove_file(&temp);
    }
    done
}

/// Writes a file and syncs it to disk, as some file systems report only then that they are full.
fn write_synced(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(content)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let mut all: Vec<_> =
            fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        all.sort();
        all
    }

    #[test]
    fn replaces_whole_files_and_leaves_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        write_atomically(&path, b"one, which is longer").unwrap();
        write_atomically(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(names(dir.path()), ["a"]);
    }

    #[test]
    fn errors_name_the_file_and_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let e = write_atomically(&dir.path().join("no/such/x.hdr"), b"").unwrap_err().to_string();
        assert!(e.contains("x.hdr") && e.contains("create it first"), "{e}");
        let e = write_atomically(dir.path(), b"").unwrap_err().to_string();
        assert!(e.contains("name of a file"), "{e}");
        assert!(names(dir.path()).is_empty());
    }

    #[test]
    fn a_full_device_is_an_error_and_stays_a_device() {
        use std::os::unix::fs::FileTypeExt;
        let full = Path::new("/dev/full");
        let e = write_atomically(full, b"x").unwrap_err().to_string();
        assert!(e.contains("/dev/full") && e.contains("free some space"), "{e}");
        assert!(fs::metadata(full).unwrap().file_type().is_char_device());
    }

    #[test]
    fn a_link_stays_a_link() {
        let dir = tempfile::tempdir().unwrap();
        let (real, link) = (dir.path().join("real"), dir.path().join("link"));
        fs::write(&real, "old").unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        write_atomically(&link, b"new").unwrap();
        assert_eq!(fs::read(&real).unwrap(), b"new");
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    }
}
