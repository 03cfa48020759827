//! Selects the libclang for bindgen if several are installed, for the build scripts of `dpdk-sys` and `ipsec-mb-sys`.
//!
//! By default, bindgen loads the libclang with the highest number in its file name, and takes the compiler's own
//! headers (`stddef.h`, the intrinsics) from the first `clang` on the path. With two LLVM installations, this often
//! combines a library with no headers or with those of the other installation, and the build fails because of a missing
//! `stddef.h` or an unknown builtin. Therefore, a library is chosen here together with its headers.
#![forbid(unsafe_code)]

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A libclang and its headers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Libclang {
    /// The shared library, for `LIBCLANG_PATH`.
    pub file: PathBuf,
    /// Its release, such as `[14, 0, 6]`, as far as the file name contains it.
    pub version: Vec<u32>,
    /// The directory for `-resource-dir`, whose `include` holds the compiler's own headers.
    pub resources: Option<PathBuf>,
}

/// The result of the selection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    /// The user has set `LIBCLANG_PATH`, which bindgen follows.
    Set,
    /// This libclang was found.
    Found(Libclang),
    /// None was found; bindgen may know other places.
    None,
}

/// Environment variables that the choice depends on.
pub const VARIABLES: [&str; 2] = ["LIBCLANG_PATH", "LLVM_CONFIG_PATH"];

impl Choice {
    /// The libclang to pass to bindgen, if one was found.
    pub fn found(self) -> Option<Libclang> {
        match self {
            Self::Found(libclang) => Some(libclang),
            Self::Set | Self::None => None,
        }
    }
}

/// Finds the libclang for this machine: the one named by `LIBCLANG_PATH`; otherwise, among those with headers, the one
/// of `llvm-config` (or `LLVM_CONFIG_PATH`), or the newest.
pub fn find() -> Choice {
    if env::var_os("LIBCLANG_PATH").is_some() {
        return Choice::Set;
    }
    let preferred = llvm_config("--version").and_then(|version| numbers(&version).first().copied());
    let mut places = places(Path::new("/"));
    places.extend(llvm_config("--libdir").map(PathBuf::from));
    choose(&places, Path::new("/"), preferred).map_or(Choice::None, Choice::Found)
}

/// Library directories of Linux distributions below `root`: `/usr/lib/llvm-14/lib`, `/usr/lib/x86_64-linux-gnu`,
/// `/usr/lib64` and the like.
fn places(root: &Path) -> Vec<PathBuf> {
    let mut places = Vec::new();
    for base in ["usr/lib", "usr/lib64", "usr/local/lib", "usr/local/lib64", "usr/local", "opt"] {
        let base = root.join(base);
        let entries = fs::read_dir(&base).into_iter().flatten().flatten().map(|entry| entry.path());
        let inside = entries.filter(|path| {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            name.starts_with("llvm") || name.ends_with("-linux-gnu")
        });
        for dir in inside {
            places.extend([dir.join("lib"), dir.join("lib64"), dir]);
        }
        places.push(base);
    }
    places.sort();
    places
}

/// The best libclang in `places`: preferably one with headers, then one of LLVM `preferred`, then the newest. `root` is
/// the root of the file system.
fn choose(places: &[PathBuf], root: &Path, preferred: Option<u32>) -> Option<Libclang> {
    let files = places.iter().flat_map(|place| {
        let entries = fs::read_dir(place).into_iter().flatten().flatten().map(|entry| entry.path());
        let mut files: Vec<_> = entries.filter(|path| is_libclang(path)).collect();
        // A library may have several names; the shortest is chosen, so that the result is reproducible.
        files.sort_by_key(|path| (path.as_os_str().len(), path.clone()));
        files
    });
    let candidates = files.filter(|file| fits_this_machine(file)).map(|file| {
        let version = version(&file);
        let resources = resources(&file, root, &version);
        Libclang { file, version, resources }
    });
    let mut best: Option<Libclang> = None;
    for candidate in candidates {
        let rank = |one: &Libclang| {
            (
                one.resources.is_some(),
                preferred.is_some() && one.version.first().copied() == preferred,
                one.version.clone(),
            )
        };
        // The first of several equal ones.
        if best.as_ref().is_none_or(|best| rank(&candidate) > rank(best)) {
            best = Some(candidate);
        }
    }
    best
}

/// Whether the name is that of a libclang: `libclang.so`, `libclang.so.1`, `libclang-14.so`, `libclang-14.so.1`, but
/// not `libclang-cpp.so.14`, which is another library.
fn is_libclang(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let Some(rest) = name.strip_prefix("libclang") else { return false };
    let rest = match rest.strip_prefix('-') {
        Some(numbered) if numbered.starts_with(|c: char| c.is_ascii_digit()) => {
            numbered.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.')
        }
        Some(_) => return false,
        // The dots before `so` were removed with the number.
        None => rest.trim_start_matches('.'),
    };
    rest == "so" || rest.strip_prefix("so.").is_some_and(|n| n.chars().all(|c| c.is_ascii_digit() || c == '.'))
}

/// Whether `file` is a shared object for this machine's processor, as build scripts load it.
fn fits_this_machine(file: &Path) -> bool {
    let machine: u16 = match env::consts::ARCH {
        "x86_64" => 62,
        "aarch64" => 183,
        // For other processors, the loader decides.
        _ => return file.is_file(),
    };
    let Ok(mut file) = fs::File::open(file) else { return false };
    let mut head = [0; 20];
    let read = std::io::Read::read_exact(&mut file, &mut head);
    read.is_ok() && head.starts_with(b"\x7fELF") && u16::from_le_bytes([head[18], head[19]]) == machine
}

/// The release, according to the name of the file that `file` links to. The numbers of `libclang.so.1` and
/// `libclang.so.13` are not releases but versions of the interface, which many releases share.
fn version(file: &Path) -> Vec<u32> {
    let real = fs::canonicalize(file).unwrap_or_else(|_| file.to_owned());
    let name = |path: &Path| path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
    for name in [name(&real), name(file)] {
        let (before, after) = name.split_once(".so").unwrap_or((&name, ""));
        let after = numbers(after);
        if after.len() >= 2 {
            return after;
        }
        if let Some(numbered) = before.strip_prefix("libclang-") {
            return numbers(numbered);
        }
    }
    // `/usr/lib/llvm-19/lib/libclang.so.1`
    let of_llvm = |part: &std::ffi::OsStr| Some(numbers(part.to_str()?.strip_prefix("llvm")?.trim_start_matches('-')));
    file.iter().filter_map(of_llvm).find(|numbers| !numbers.is_empty()).unwrap_or_default()
}

/// The numbers in `14.0.6`, up to the first part that is not a number.
fn numbers(text: &str) -> Vec<u32> {
    text.trim_start_matches('.').split('.').map_while(|part| part.trim().parse().ok()).collect()
}

/// The compiler's own headers of the same release, beside the library or in the directories of distributions.
fn resources(file: &Path, root: &Path, version: &[u32]) -> Option<PathBuf> {
    let major = version.first()?;
    let beside = [Some(file.to_owned()), fs::canonicalize(file).ok()].into_iter().flatten();
    let mut shelves: Vec<_> = beside.filter_map(|file| Some(file.parent()?.join("clang"))).collect();
    shelves.push(root.join(format!("usr/lib/llvm-{major}/lib/clang")));
    shelves.extend(["usr/lib/clang", "usr/lib64/clang", "usr/local/lib/clang"].map(|shelf| root.join(shelf)));
    let releases = shelves.iter().flat_map(|shelf| {
        let entries = fs::read_dir(shelf).into_iter().flatten().flatten().map(|entry| entry.path());
        let mut same: Vec<_> = entries
            .filter_map(|dir| Some((numbers(dir.file_name()?.to_str()?), dir)))
            .filter(|(release, _)| release.iter().zip(version).all(|(a, b)| a == b) && !release.is_empty())
            .collect();
        same.sort();
        same.into_iter().rev().map(|(_, dir)| dir)
    });
    releases.into_iter().find(|dir| dir.join("include/stddef.h").is_file())
}

/// The output of `llvm-config`, if it is installed.
fn llvm_config(question: &str) -> Option<String> {
    let program = env::var_os("LLVM_CONFIG_PATH").unwrap_or_else(|| "llvm-config".into());
    let out = Command::new(program).arg(question).output().ok().filter(|out| out.status.success())?;
    Some(String::from_utf8_lossy(&out.stdout).trim().to_owned())
}

#[cfg(test)]
mod tests;
