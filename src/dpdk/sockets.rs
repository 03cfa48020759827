//! The location of sockets, and who else can access it.

use std::fs::{self, DirBuilder, Metadata};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

/// The directory of sockets given without one: `$XDG_RUNTIME_DIR/gannet`; without that variable `/run/gannet` for root,
/// and `/run/user/UID/gannet` for others.
pub fn runtime_dir() -> PathBuf {
    let given = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    given_or_default(given, user())
}

fn given_or_default(given: Option<PathBuf>, user: u32) -> PathBuf {
    let base = match (given.filter(|dir| dir.is_absolute()), user) {
        (Some(dir), _) => dir,
        (None, 0) => PathBuf::from("/run"),
        (None, user) => PathBuf::from(format!("/run/user/{user}")),
    };
    base.join("gannet")
}

/// The problem with the [`runtime_dir`], if it exists and has one: its owner, or who else can access it.
pub fn runtime_dir_problem() -> Option<String> {
    check_folder(&runtime_dir().join("any"), false, None).err()
}

fn user() -> u32 {
    // SAFETY: takes nothing and cannot fail.
    unsafe { libc::geteuid() }
}

/// The path of the socket `name`: names without a directory are in the [`runtime_dir`].
pub(super) fn path_of(name: &str) -> PathBuf {
    if name.contains('/') { PathBuf::from(name) } else { runtime_dir().join(name) }
}

/// Checks that nobody but us, root and `peer` can replace a socket at `path` or listen on it. Creates the runtime
/// directory for the first listener.
///
/// # Errors
/// The problem with the directory, and a remedy.
pub(super) fn check_folder(path: &Path, listening: bool, peer: Option<u32>) -> Result<(), String> {
    let folder = path.parent().filter(|d| !d.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let own = folder == runtime_dir();
    if own && listening {
        match DirBuilder::new().mode(0o700).create(folder) {
            Err(e) if e.kind() != ErrorKind::AlreadyExists => {
                let advice = "set XDG_RUNTIME_DIR to a directory of yours, or give the socket a path";
                return Err(format!("the runtime directory {} cannot be created ({e}); {advice}", folder.display()));
            }
            _ => {}
        }
    }
    let meta = match if own { fs::symlink_metadata(folder) } else { fs::metadata(folder) } {
        Ok(meta) => meta,
        // Later errors are clearer: no such directory, or nobody listens.
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(format!("directory {}: {e}", folder.display())),
    };
    judge(folder, &meta, own, user(), peer)
}

fn judge(folder: &Path, meta: &Metadata, own: bool, user: u32, peer: Option<u32>) -> Result<(), String> {
    let (mode, at) = (meta.mode() & 0o7777, folder.display());
    if !meta.is_dir() {
        return Err(format!("{at} is not a directory"));
    }
    if own && (meta.uid() != user || mode & 0o077 != 0) {
        let owner = meta.uid();
        return Err(format!(
            "the runtime directory {at} belongs to user {owner} and has mode {mode:03o}; it must be ours, with mode 700: \
             `chmod 700 {at}`"
        ));
    }
    if meta.uid() != user && meta.uid() != 0 && Some(meta.uid()) != peer {
        return Err(format!("directory {at} belongs to user {}, who could replace the socket", meta.uid()));
    }
    // In a sticky directory nobody can remove the files of others, and the owner of an existing socket is checked.
    if mode & 0o022 != 0 && mode & 0o1000 == 0 {
        return Err(format!(
            "others can write to directory {at} (mode {mode:03o}); `chmod go-w {at}`, or choose another"
        ));
    }
    Ok(())
}

/// Checks that the socket that we are about to connect to belongs to us, to root or to `peer`.
///
/// # Errors
/// The owner of the socket.
pub(super) fn check_owner(path: &Path, peer: Option<u32>) -> Result<(), String> {
    let owner = match fs::symlink_metadata(path) {
        Ok(meta) => meta.uid(),
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(io::Error::to_string(&e)),
    };
    if owner == user() || owner == 0 || Some(owner) == peer {
        return Ok(());
    }
    Err(format!("it belongs to user {owner}; if that is correct, `--set peer_uid={owner}`"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn names_without_a_folder_are_in_the_runtime_folder() {
        assert_eq!(given_or_default(Some("/x".into()), 7), Path::new("/x/gannet"));
        assert_eq!(given_or_default(Some("x".into()), 7), Path::new("/run/user/7/gannet"));
        assert_eq!(given_or_default(None, 0), Path::new("/run/gannet"));
        assert_eq!(path_of("s.sock"), runtime_dir().join("s.sock"));
        assert_eq!(path_of("./s.sock"), Path::new("./s.sock"));
    }

    #[test]
    fn folders_that_others_can_write_to_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let of = |mode: u32, own: bool, user: u32, peer: Option<u32>| {
            fs::set_permissions(dir.path(), fs::Permissions::from_mode(mode)).unwrap();
            judge(dir.path(), &fs::metadata(dir.path()).unwrap(), own, user, peer)
        };
        let me = user();
        for (mode, own, fine) in [
            (0o700, true, true),
            (0o750, true, false),
            (0o701, true, false),
            (0o755, false, true),
            (0o775, false, false),
            (0o777, false, false),
            (0o1777, false, true),
            (0o1777, true, false),
        ] {
            assert_eq!(of(mode, own, me, None).is_ok(), fine, "{mode:o} {own}");
        }
        assert!(of(0o700, true, me + 1, None).is_err());
        if me != 0 {
            assert!(of(0o700, false, me + 1, None).is_err());
            assert!(of(0o700, false, me + 1, Some(me)).is_ok());
        }
        let file = dir.path().join("f");
        fs::write(&file, "").unwrap();
        assert!(judge(&file, &fs::metadata(&file).unwrap(), false, me, None).is_err());
    }

    #[test]
    fn the_owner_of_a_socket_is_asked() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("s");
        fs::write(&file, "").unwrap();
        assert!(check_owner(&file, None).is_ok());
        assert!(check_owner(&dir.path().join("none"), None).is_ok());
        if user() == 0 {
            std::os::unix::fs::chown(&file, Some(4321), None).unwrap();
            assert!(check_owner(&file, None).is_err_and(|e| e.contains("peer_uid=4321")));
            assert!(check_owner(&file, Some(4321)).is_ok());
        }
    }
}
