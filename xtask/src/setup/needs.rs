//! Requirements on the machine, and how to check them.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use find_libclang::Choice;

use crate::process;

/// How to check for a requirement.
#[derive(Clone, Copy, Debug)]
enum Probe {
    /// A program on the path or in root's directories.
    Program(&'static str),
    /// A library known to pkg-config, with the minimum version.
    PkgConfig(&'static str, &'static str),
    /// A C header.
    Header(&'static str),
    /// A file or a directory.
    Path(&'static str),
    /// libclang, wherever bindgen will find it.
    Libclang,
    /// A Python that can create virtual environments.
    Venv,
}

/// A requirement.
#[derive(Clone, Copy, Debug)]
pub struct Need {
    name: &'static str,
    why: &'static str,
    probe: Probe,
    /// The Debian packages that provide it.
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
    Need {
        name: "xz",
        why: "unpacks kernel modules for nic-test",
        probe: Probe::Program("xz"),
        packages: &["xz-utils"],
    },
    Need { name: "cpio", why: "reads what nic-test has packed", probe: Probe::Program("cpio"), packages: &["cpio"] },
    Need { name: "tshark", why: "dissects captures in tests", probe: Probe::Program("tshark"), packages: &["tshark"] },
    Need {
        name: "python3 with venv",
        why: "runs the aioquic peer in tests",
        probe: Probe::Venv,
        packages: &["python3-venv"],
    },
];

/// Requirements of benchmarks beyond building and running.
const BENCH: &[Need] = &[Need {
    name: "valgrind",
    why: "counts instructions",
    probe: Probe::Program("valgrind"),
    packages: &["valgrind"],
}];

/// Additional requirements of the heavy peers: quiche includes BoringSSL, which is built with CMake.
const PEERS: &[Need] = &[
    Need { name: "cmake", why: "builds quiche's BoringSSL", probe: Probe::Program("cmake"), packages: &["cmake"] },
    Need { name: "make", why: "runs CMake's build files", probe: Probe::Program("make"), packages: &["make"] },
    Need { name: "c++", why: "compiles BoringSSL", probe: Probe::Program("c++"), packages: &["g++"] },
];

/// Additional requirements of the peers of `cargo xtask interop` that are not in Rust.
const FOREIGN: &[Need] = &[
    Need { name: "go", why: "builds the quic-go peer", probe: Probe::Program("go"), packages: &["golang-go"] },
    Need {
        name: "quic-go",
        why: "a peer",
        probe: Probe::Path("/usr/share/gocode/src/github.com/lucas-clemente/quic-go"),
        packages: &["golang-github-lucas-clemente-quic-go-dev"],
    },
    Need {
        name: "ngtcp2",
        why: "a peer",
        probe: Probe::Header("ngtcp2/ngtcp2_crypto_gnutls.h"),
        packages: &["libngtcp2-dev", "libngtcp2-crypto-gnutls-dev"],
    },
    Need {
        name: "GnuTLS",
        why: "TLS of the ngtcp2 peer",
        probe: Probe::Header("gnutls/gnutls.h"),
        packages: &["libgnutls28-dev"],
    },
];

/// Requirements of `cargo xtask portability`.
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

/// Requirements of benchmarks beyond building and running, including those of the heavy peers if `peers`.
pub fn bench(peers: bool) -> Vec<Need> {
    let peers = if peers { PEERS } else { &[] };
    [BENCH, peers].concat()
}

/// Requirements of all peers of `cargo xtask interop`, beyond those of the tests.
pub fn interop() -> Vec<Need> {
    [PEERS, FOREIGN].concat()
}

/// Requirements of building and running, and of the tests if `tests`.
pub fn list(tests: bool) -> Vec<Need> {
    let tests = if tests { TESTS } else { &[] };
    let kernels = if cfg!(target_arch = "x86_64") { KERNELS } else { &[] };
    [BUILD_AND_RUN, kernels, tests].concat()
}

impl Need {
    /// Returns whether it is met.
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
            Probe::Path(path) => Path::new(path).exists(),
            Probe::Libclang => has_libclang(),
            Probe::Venv => super::python::interpreter().is_some(),
        }
    }
}

/// The path of `name`, on the path or in root's directories.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let beyond = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(beyond).map(|dir| dir.join(name)).find(|file| file.is_file())
}

/// Checks for libclang with the compiler's own headers, without which bindgen cannot parse DPDK's.
fn has_libclang() -> bool {
    match find_libclang::find() {
        // Do not check what it names: bindgen reports problems.
        Choice::Set => true,
        Choice::Found(libclang) => libclang.resources.is_some(),
        Choice::None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace;

    #[test]
    fn programs_are_found_by_name() {
        assert!(find_program("sh").is_some());
        assert_eq!(find_program("no-such-program-here"), None);
    }

    /// quiche does not build without these, and a fresh Debian has none of them.
    #[test]
    fn peers_need_what_builds_boringssl() {
        let names = |needs: Vec<Need>| needs.iter().map(|need| need.name).collect::<Vec<_>>();
        assert_eq!(names(bench(true)), ["valgrind", "cmake", "make", "c++"]);
        assert_eq!(names(bench(false)), ["valgrind"]);
    }

    /// Programs of every Debian, however small: of packages that are essential, or part of the smallest root; and of
    /// binutils, without which gcc links nothing.
    const EVERYWHERE: [&str; 16] = [
        "apt-config",
        "bash",
        "apt-get",
        "dpkg-deb",
        "false",
        "id",
        "ldd",
        "mkfifo",
        "mount",
        "rustc",
        "setpriv",
        "sh",
        "strip",
        "touch",
        "true",
        "unshare",
    ];

    /// `kill` is not among them, and three tests of the main of before ran it: on a fresh machine they failed.
    #[test]
    fn whatever_is_run_is_installed() {
        let needs = [list(true), bench(true), interop(), PORTABILITY.to_vec()].concat();
        let installed = |program: &str| {
            needs.iter().any(|need| matches!(need.probe, Probe::Program(name) if name == program))
                || EVERYWHERE.contains(&program)
                // The repository was cloned with git.
                || ["cargo", "git", "python3", "/usr/bin/python3"].contains(&program)
                || program.starts_with("/no/such/")
        };
        let mut todo =
            ["src", "tests", "perf/src", "interop/src", "xtask/src", "xtask/tests", "dpdk-sys", "find-libclang"]
                .map(|dir| workspace::root().join(dir))
                .to_vec();
        let mut found = 0;
        while let Some(path) = todo.pop() {
            if path.is_dir() {
                todo.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                let calls = ["Command::new(\"", "tool(\""].map(|call| text.split(call).skip(1).collect::<Vec<_>>());
                for call in calls.concat() {
                    let program = call.split('"').next().unwrap();
                    assert!(program.contains('\\') || installed(program), "{}: {program}", path.display());
                    found += 1;
                }
            }
        }
        assert!(found > 30, "only {found} programs: the scanner is blind");
    }

    #[test]
    fn tests_need_more() {
        assert!(list(true).len() > list(false).len());
        assert!(list(true).iter().all(|need| !need.packages.is_empty()));
    }
}
