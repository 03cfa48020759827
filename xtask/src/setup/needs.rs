//! What has to be on the machine, and how to see whether it is.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use find_libclang::Choice;

use crate::process;

/// How to see that something is there.
#[derive(Clone, Copy, Debug)]
enum Probe {
    /// A program on the path, or where root's programs are.
    Program(&'static str),
    /// A library that pkg-config knows, with the lowest version that will do.
    PkgConfig(&'static str, &'static str),
    /// A C header.
    Header(&'static str),
    /// libclang, wherever bindgen will find it.
    Libclang,
    /// A Python that can make virtual environments.
    Venv,
}

/// Something that has to be on the machine.
#[derive(Clone, Copy, Debug)]
pub struct Need {
    name: &'static str,
    why: &'static str,
    probe: Probe,
    /// Debian packages that bring it.
    pub packages: &'static [&'static str],
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.why)
    }
}

const BUILD_AND_RUN: &[Need] = &[
    Need {
        name: "cc",
        why: "the C compiler that links Rust programs",
        probe: Probe::Program("cc"),
        packages: &["gcc", "libc6-dev"],
    },
    Need { name: "pkg-config", why: "finds DPDK", probe: Probe::Program("pkg-config"), packages: &["pkg-config"] },
    Need {
        name: "DPDK 22.11 or later",
        why: "drives the ports",
        probe: Probe::PkgConfig("libdpdk", "22.11"),
        packages: &["libdpdk-dev"],
    },
    Need {
        name: "libclang",
        why: "reads DPDK's headers for bindgen",
        probe: Probe::Libclang,
        packages: &["libclang-dev"],
    },
    Need {
        name: "ip",
        why: "makes network namespaces and veth pairs",
        probe: Probe::Program("ip"),
        packages: &["iproute2"],
    },
    Need {
        name: "ethtool",
        why: "turns offloads of a veth off",
        probe: Probe::Program("ethtool"),
        packages: &["ethtool"],
    },
];

/// For x86-64 only.
const KERNELS: &[Need] = &[Need {
    name: "intel-ipsec-mb",
    why: "its AES-GCM kernels",
    probe: Probe::Header("intel-ipsec-mb.h"),
    packages: &["libipsec-mb-dev"],
}];

const TESTS: &[Need] = &[
    Need { name: "tshark", why: "dissects captures in tests", probe: Probe::Program("tshark"), packages: &["tshark"] },
    Need {
        name: "python3 with venv",
        why: "runs the aioquic peer in tests",
        probe: Probe::Venv,
        packages: &["python3-venv"],
    },
];

/// What benchmarks need beyond building and running.
const BENCH: &[Need] = &[Need {
    name: "valgrind",
    why: "counts instructions",
    probe: Probe::Program("valgrind"),
    packages: &["valgrind"],
}];

/// What the heavy peers need beyond that: quiche brings BoringSSL, which is built by CMake.
const PEERS: &[Need] = &[
    Need { name: "cmake", why: "builds quiche's BoringSSL", probe: Probe::Program("cmake"), packages: &["cmake"] },
    Need { name: "make", why: "does what CMake says", probe: Probe::Program("make"), packages: &["make"] },
    Need { name: "c++", why: "BoringSSL is in C++", probe: Probe::Program("c++"), packages: &["g++"] },
];

/// What `cargo xtask portability` needs.
pub const PORTABILITY: &[Need] = &[
    Need {
        name: "debootstrap",
        why: "makes the root file systems",
        probe: Probe::Program("debootstrap"),
        packages: &["debootstrap"],
    },
    Need {
        name: "ip",
        why: "brings the loopback of a namespace up",
        probe: Probe::Program("ip"),
        packages: &["iproute2"],
    },
];

/// What benchmarks need beyond building and running, the heavy peers as well if `peers`.
pub fn bench(peers: bool) -> Vec<Need> {
    let peers = if peers { PEERS } else { &[] };
    [BENCH, peers].concat()
}

/// What building and running need, and the tests too if `tests`.
pub fn list(tests: bool) -> Vec<Need> {
    let tests = if tests { TESTS } else { &[] };
    let kernels = if cfg!(target_arch = "x86_64") { KERNELS } else { &[] };
    [BUILD_AND_RUN, kernels, tests].concat()
}

impl Need {
    /// Whether it is there.
    pub fn is_met(&self) -> bool {
        match self.probe {
            Probe::Program(name) => find_program(name).is_some(),
            Probe::PkgConfig(module, version) => {
                let wanted = format!("--atleast-version={version}");
                process::succeeds(Command::new("pkg-config").args([&wanted, module]))
            }
            Probe::Header(name) => {
                ["/usr/include", "/usr/local/include"].iter().any(|dir| Path::new(dir).join(name).exists())
            }
            Probe::Libclang => has_libclang(),
            Probe::Venv => super::python::interpreter().is_some(),
        }
    }
}

/// Where `name` is, on the path or where root's programs are.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let beyond = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(beyond).map(|dir| dir.join(name)).find(|file| file.is_file())
}

/// With the compiler's own headers, without which bindgen cannot read DPDK's.
fn has_libclang() -> bool {
    match find_libclang::find() {
        // Whatever it names: bindgen says what is wrong with it.
        Choice::Set => true,
        Choice::Found(libclang) => libclang.resources.is_some(),
        Choice::None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_by_name() {
        assert!(find_program("sh").is_some());
        assert_eq!(find_program("no-such-program-here"), None);
    }

    /// quiche does not build without them, and a fresh Debian has none.
    #[test]
    fn peers_need_what_builds_boringssl() {
        let names = |needs: Vec<Need>| needs.iter().map(|need| need.name).collect::<Vec<_>>();
        assert_eq!(names(bench(true)), ["valgrind", "cmake", "make", "c++"]);
        assert_eq!(names(bench(false)), ["valgrind"]);
    }

    #[test]
    fn tests_need_more() {
        assert!(list(true).len() > list(false).len());
        assert!(list(true).iter().all(|need| !need.packages.is_empty()));
    }
}
