//! Files that a server keeps in memory.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use crate::mem::{BufPool, PinnedBuf};
use crate::proto::hq::{PathError, Root, ServeError};

/// Memory that many streams send from at once.
struct Kept(PinnedBuf);

impl AsRef<[u8]> for Kept {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// Files by their path relative to the root. Clones share their memory.
#[derive(Clone, Default)]
pub(super) struct KeptFiles(HashMap<PathBuf, Bytes>);

impl KeptFiles {
    /// The contents of the file at a [relative](Root::relative) path, if kept. Does not access the file system.
    pub(super) fn get(&self, path: &Path) -> Option<Bytes> {
        // A trailing slash means a directory, but comparison of paths ignores it.
        if path.as_os_str().as_encoded_bytes().ends_with(b"/") { None } else { self.0.get(path).cloned() }
    }
}

/// Reads the files in the top level of `root` into pinned memory, the smallest first, up to `limit` bytes.
pub(super) fn preload(root: &Root, limit: u64, pool: &BufPool) -> Result<KeptFiles, ServeError> {
    let mut kept = KeptFiles::default();
    if limit == 0 {
        return Ok(kept);
    }
    let fail = |path: &Path, reason: String| ServeError::Preload { path: path.into(), reason };
    let entries = std::fs::read_dir(root.dir()).map_err(|e| fail(root.dir(), e.to_string()))?;
    let names = entries.filter_map(|e| e.ok().map(|e| PathBuf::from(e.file_name())));
    let len = |name: &Path| root.dir().join(name).metadata().ok().filter(|m| m.is_file()).map(|m| m.len());
    let mut files: Vec<(u64, PathBuf)> =
        names.filter_map(|name| Some((len(&name)?, name))).filter(|(len, _)| *len > 0).collect();
    files.sort();
    let mut used = 0;
    for (len, name) in files {
        if len > limit - used {
            break;
        }
        let mut file = match root.open(&name) {
            Ok((_, file, _)) => file,
            // A link out of the directory, or a file that has gone: requests for it are refused later.
            Err(PathError::Outside | PathError::Missing) => continue,
            Err(PathError::Io(error)) => return Err(fail(&root.dir().join(&name), error.to_string())),
        };
        let mut buf = pool.alloc(len as usize).map_err(|e| fail(&root.dir().join(&name), e.to_string()))?;
        io::Read::read_exact(&mut file, &mut buf).map_err(|e| fail(&root.dir().join(&name), e.to_string()))?;
        used += len;
        kept.0.insert(name, Bytes::from_owner(Kept(buf)));
    }
    Ok(kept)
}
