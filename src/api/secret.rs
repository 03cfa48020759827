//! A secret that outlives the process, stored in a file.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::base::rng::os_seed;
use crate::quic::Secret;

/// Why a secret could not be loaded from its file or created.
#[derive(Debug, Error)]
pub enum SecretError {
    /// The file could not be read or created.
    #[error("{what} the secret {}: {error}", path.display())]
    Io {
        /// The failed operation.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's error.
        error: io::Error,
    },
    /// The path is a directory, a device or a pipe.
    #[error("the secret {} is not a regular file", .0.display())]
    NoFile(PathBuf),
    /// Users other than the owner may read or write the file.
    #[error("the secret {} is accessible to other users (mode {mode:04o}): chmod 600 it, or remove it if others may have read it", path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file belongs to another user, who may know or change the secret.
    #[error("the secret {} belongs to user {uid}, who is neither root nor the current user: remove it or chown it", path.display())]
    Owner {
        /// The file.
        path: PathBuf,
        /// The owner's user ID.
        uid: u32,
    },
    /// The file was not made by [`secret_file`].
    #[error("the secret {} has {len} bytes instead of {}: it is damaged or not a secret", path.display(), Secret::LEN)]
    Size {
        /// The file.
        path: PathBuf,
        /// Its length in bytes.
        len: u64,
    },
}

/// Loads the secret in the file at `path`: 32 random bytes, readable by the file's owner only. If the file does not
/// exist, it is created with mode 0600. If several processes do so at the same time, all get the same secret.
///
/// # Errors
/// [`SecretError`]. An existing file is never changed.
pub fn secret_file(path: &Path) -> Result<Secret, SecretError> {
    match read(path) {
        Err(SecretError::Io { error, .. }) if error.kind() == io::ErrorKind::NotFound => {}
        done => return done,
    }
    let failed = |error| SecretError::Io { what: "cannot make", path: path.to_owned(), error };
    match make(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(failed(error)),
        // Created, by us or by another process.
        _ => read(path),
    }
}

/// Opens a regular file for reading; `None` if `path` is anything else.
pub(super) fn open_regular(path: &Path) -> io::Result<Option<(File, Metadata)>> {
    // Opening a pipe must not block.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    let metadata = file.metadata()?;
    Ok(metadata.is_file().then_some((file, metadata)))
}

/// The permission bits of a file, if users other than its owner may read or write it.
pub(super) fn exposed(metadata: &Metadata) -> Option<u32> {
    let mode = metadata.permissions().mode() & 0o7777;
    (mode & 0o077 != 0).then_some(mode)
}

fn read(path: &Path) -> Result<Secret, SecretError> {
    let failed = |error| SecretError::Io { what: "cannot read", path: path.to_owned(), error };
    let opened = open_regular(path).map_err(failed)?;
    let (mut file, metadata) = opened.ok_or_else(|| SecretError::NoFile(path.to_owned()))?;
    if let Some(mode) = exposed(&metadata) {
        return Err(SecretError::Exposed { path: path.to_owned(), mode });
    }
    // The owner of /proc/self is the current user. Without /proc, the mode has to suffice.
    let uid = metadata.uid();
    if uid != 0 && fs::metadata("/proc/self").is_ok_and(|me| me.uid() != uid) {
        return Err(SecretError::Owner { path: path.to_owned(), uid });
    }
    if metadata.len() != Secret::LEN as u64 {
        return Err(SecretError::Size { path: path.to_owned(), len: metadata.len() });
    }
    let mut bytes = Zeroizing::new([0; Secret::LEN]);
    file.read_exact(&mut *bytes).map_err(failed)?;
    Ok(Secret::from(*bytes))
}

/// Creates the file atomically: others see no file or a complete one. An existing file is not replaced.
fn make(path: &Path) -> io::Result<()> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // An unpredictable name; if it exists nevertheless, creating the file fails.
    let unique = u128::from_le_bytes(os_seed()?[..16].try_into().expect("16 of 32 bytes"));
    let draft = Draft(dir.join(format!(".gannet-secret-{unique:032x}")));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft.0)?;
    file.write_all(&*Zeroizing::new(os_seed()?))?;
    file.sync_all()?;
    give_name(&draft.0, path)?;
    File::open(dir)?.sync_all()
}

/// A temporary file, removed when dropped unless it was renamed.
struct Draft(PathBuf);

impl Drop for Draft {
    fn drop(&mut self) {
        // Fails if the file was renamed.
        let _ = fs::remove_file(&self.0);
    }
}

/// Renames `from` to `to` unless `to` exists.
fn give_name(from: &Path, to: &Path) -> io::Result<()> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // The file system does not support that.
        Err(Errno::INVAL | Errno::NOSYS) => fs::hard_link(from, to),
        done => Ok(done?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quic::EndpointConfig;

    fn keys(secret: &Secret) -> Vec<u8> {
        EndpointConfig::from_secret(secret, [0; 32]).reset_key.to_vec()
    }

    #[test]
    fn a_secret_is_made_once_and_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        let first = keys(&secret_file(&path).unwrap());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        assert_eq!(fs::read(&path).unwrap().len(), 32);
        assert_eq!(keys(&secret_file(&path).unwrap()), first);
        assert_ne!(keys(&secret_file(&dir.path().join("other")).unwrap()), first);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "nothing else is left behind");
    }

    #[test]
    fn those_who_make_it_at_once_agree() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        let all: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| keys(&secret_file(&path).unwrap()))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(all.iter().all(|one| *one == all[0]));
    }

    #[test]
    fn files_that_are_no_secret_are_refused_by_name_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let file = |name: &str, len: usize, mode: u32| {
            fs::write(path(name), vec![7; len]).unwrap();
            fs::set_permissions(path(name), fs::Permissions::from_mode(mode)).unwrap();
            let refused = secret_file(&path(name));
            assert_eq!(fs::read(path(name)).unwrap(), vec![7; len]);
            refused
        };
        for mode in [0o640, 0o604, 0o620, 0o602, 0o666] {
            let refused = file("open", 32, mode);
            assert!(matches!(refused, Err(SecretError::Exposed { mode: m, .. }) if m == mode), "{refused:?}");
            fs::remove_file(path("open")).unwrap();
        }
        assert!(file("good", 32, 0o400).is_ok());
        assert!(matches!(file("short", 31, 0o600), Err(SecretError::Size { len: 31, .. })));
        assert!(matches!(file("empty", 0, 0o600), Err(SecretError::Size { len: 0, .. })));
        assert!(matches!(file("long", 33, 0o600), Err(SecretError::Size { len: 33, .. })));
        fs::create_dir(path("dir")).unwrap();
        fs::set_permissions(path("dir"), fs::Permissions::from_mode(0o700)).unwrap();
        assert!(matches!(secret_file(&path("dir")), Err(SecretError::NoFile(_))));
        assert!(matches!(secret_file(Path::new("/dev/null")), Err(SecretError::NoFile(_))));
        if fs::metadata("/proc/self").unwrap().uid() == 0 {
            assert!(file("theirs", 32, 0o600).is_ok());
            std::os::unix::fs::chown(path("theirs"), Some(4321), None).unwrap();
            assert!(matches!(secret_file(&path("theirs")), Err(SecretError::Owner { uid: 4321, .. })));
        }
        let nowhere = secret_file(&path("no/such/dir"));
        assert!(matches!(&nowhere, Err(SecretError::Io { what: "cannot make", .. })), "{nowhere:?}");
        std::os::unix::fs::symlink(path("good"), path("link")).unwrap();
        assert!(secret_file(&path("link")).is_ok(), "secrets that are mounted are links");
        std::os::unix::fs::symlink(path("nothing"), path("dangling")).unwrap();
        assert!(secret_file(&path("dangling")).is_err() && !path("nothing").exists());
    }
}
