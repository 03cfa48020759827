//! The selection on simulated file systems.

use std::os::unix::fs::symlink;

use super::*;

/// A file system that contains only what tests put into it.
struct Machine(tempfile::TempDir);

impl Machine {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, path: &str) -> PathBuf {
        let path = self.0.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        path
    }

    /// The header of a shared object for processor `machine`.
    fn library_for(&self, machine: u16, path: &str) {
        let mut head = [0; 64];
        head[..4].copy_from_slice(b"\x7fELF");
        head[18..20].copy_from_slice(&machine.to_le_bytes());
        fs::write(self.path(path), head).unwrap();
    }

    fn library(&self, path: &str) {
        self.library_for(if env::consts::ARCH == "aarch64" { 183 } else { 62 }, path);
    }

    fn headers(&self, dir: &str) {
        fs::write(self.path(&format!("{dir}/include/stddef.h")), "").unwrap();
    }

    /// Installs LLVM `major` as Debian does, with or without the compiler's headers.
    fn debian(&self, major: u32, headers: bool) {
        self.library(&format!("usr/lib/x86_64-linux-gnu/libclang-{major}.so.{major}.0.6"));
        let plain = self.path(&format!("usr/lib/x86_64-linux-gnu/libclang-{major}.so.1"));
        symlink(format!("libclang-{major}.so.{major}.0.6"), plain).unwrap();
        let dev = self.path(&format!("usr/lib/llvm-{major}/lib/libclang.so.1"));
        symlink(format!("../../x86_64-linux-gnu/libclang-{major}.so.1"), dev).unwrap();
        self.library(&format!("usr/lib/llvm-{major}/lib/libclang-cpp.so.{major}"));
        if headers {
            self.headers(&format!("usr/lib/llvm-{major}/lib/clang/{major}.0.6"));
        }
    }

    fn choose(&self, preferred: Option<u32>) -> Option<(String, Vec<u32>, Option<String>)> {
        let root = self.0.path();
        let short = |path: &Path| path.strip_prefix(root).unwrap().display().to_string();
        let chosen = choose(&places(root), root, preferred)?;
        Some((short(&chosen.file), chosen.version, chosen.resources.as_deref().map(short)))
    }
}

#[test]
fn a_library_without_headers_loses_to_an_older_one_with_them() {
    let machine = Machine::new();
    machine.debian(14, true);
    machine.debian(19, false);
    let (file, version, resources) = machine.choose(None).unwrap();
    assert!(file.starts_with("usr/lib/llvm-14/lib/") || file.contains("libclang-14"), "{file}");
    assert_eq!(version, [14, 0, 6]);
    assert_eq!(resources.as_deref(), Some("usr/lib/llvm-14/lib/clang/14.0.6"));
    // Not even if llvm-config is of that release.
    assert_eq!(machine.choose(Some(19)).unwrap().1, [14, 0, 6]);
}

#[test]
fn of_two_that_will_do_the_newest_wins_unless_llvm_config_is_of_another() {
    let machine = Machine::new();
    for major in [9, 14, 19] {
        machine.debian(major, true);
    }
    assert_eq!(machine.choose(None).unwrap().1, [19, 0, 6]);
    let (_, version, resources) = machine.choose(Some(14)).unwrap();
    assert_eq!((version, resources.as_deref()), (vec![14, 0, 6], Some("usr/lib/llvm-14/lib/clang/14.0.6")));
    assert_eq!(machine.choose(Some(9)).unwrap().1, [9, 0, 6]);
    assert_eq!(machine.choose(Some(15)).unwrap().1, [19, 0, 6], "a release that is not there");
}

#[test]
fn headers_of_another_release_are_not_its_headers() {
    let machine = Machine::new();
    machine.debian(19, false);
    machine.headers("usr/lib/clang/14");
    assert_eq!(machine.choose(None).unwrap().2, None);
    machine.headers("usr/lib/clang/19");
    assert_eq!(machine.choose(None).unwrap().2.as_deref(), Some("usr/lib/clang/19"));
}

#[test]
fn the_interface_number_is_not_the_release() {
    // As LLVM itself installs it: libclang.so.13 for every release since 13.
    let machine = Machine::new();
    machine.library("usr/lib64/libclang.so.20.1.8");
    symlink("libclang.so.20.1.8", machine.path("usr/lib64/libclang.so.13")).unwrap();
    machine.headers("usr/lib64/clang/20");
    let (_, version, resources) = machine.choose(None).unwrap();
    assert_eq!((version, resources.as_deref()), (vec![20, 1, 8], Some("usr/lib64/clang/20")));

    let machine = Machine::new();
    machine.library("opt/llvm-18/lib/libclang.so.13");
    assert_eq!(machine.choose(None).unwrap().1, [18]);
}

#[test]
fn libraries_for_other_processors_and_other_libraries_are_passed_over() {
    let machine = Machine::new();
    machine.library_for(40, "usr/lib/arm-linux-gnu/libclang-19.so.1");
    machine.library("usr/lib/x86_64-linux-gnu/libclang-cpp.so.19");
    fs::write(machine.path("usr/lib/libclang.so"), "INPUT(libclang.so.1)").unwrap();
    assert_eq!(machine.choose(None), None);
}

#[test]
fn names_are_told_apart() {
    for name in ["libclang.so", "libclang.so.1", "libclang-14.so", "libclang-14.so.1", "libclang-19.1.7.so"] {
        assert!(is_libclang(Path::new(name)), "{name}");
    }
    for name in ["libclang-cpp.so.14", "libclangAST.a", "libclang.a", "libclang-14.so.gz", "libclang_rt.so"] {
        assert!(!is_libclang(Path::new(name)), "{name}");
    }
}
