//! Files that a server keeps in memory.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use crate::mem::{BufPool, PinnedBuf};
use crate::proto::hq::{Root, ServeError};

/// Memory that is sent from by many streams at once.
struct Kept(PinnedBuf);

impl AsRef<[u8]> for Kept {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// Reads the files directly in `root` into pinned memory, the smallest first, until `limit` bytes are used.
pub(super) fn preload(root: &Root, limit: u64, pool: &BufPool) -> Result<HashMap<PathBuf, Bytes>, ServeError> {
    let mut kept = HashMap::new();
    if limit == 0 {
        return Ok(kept);
    }
    let fail = |path: &Path, reason: String| ServeError::Preload { path: path.into(), reason };
    let entries = std::fs::read_dir(root.dir()).map_err(|e| fail(root.dir(), e.to_string()))?;
    let files = entries.filter_map(|e| e.ok().map(|e| e.path()));
    let mut files: Vec<(u64, PathBuf)> = files
        .filter_map(|path| path.metadata().ok().filter(|m| m.is_file() && m.len() > 0).map(|m| (m.len(), path)))
        .collect();
    files.sort();
    let mut used = 0;
    for (len, path) in files {
        if len > limit - used {
            break;
        }
        let mut buf = pool.alloc(len as usize).map_err(|e| fail(&path, e.to_string()))?;
        let mut file = std::fs::File::open(&path).map_err(|e| fail(&path, e.to_string()))?;
        io::Read::read_exact(&mut file, &mut buf).map_err(|e| fail(&path, e.to_string()))?;
        used += len;
        kept.insert(path, Bytes::from_owner(Kept(buf)));
    }
    Ok(kept)
}
