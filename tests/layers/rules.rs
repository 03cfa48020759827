//! Rules for imports, and their detection in the source.

use super::tokens::{Token, tokens};

/// Every layer with the layers it may import, lowest first.
///
/// - `datapath` is the interface that `dpdk` implements, so `dpdk` is above it.
/// - Only code that opens ports uses `dpdk`. The engine uses no ports, network or clock, so it runs in `sim` as on a
///   wire.
/// - `report` is independent: histograms and their output.
const LAYERS: &[(&str, &[&str])] = &[
    ("base", &[]),
    ("wire", &["base"]),
    ("mem", &["base", "wire"]),
    ("datapath", &["base", "wire", "mem"]),
    ("dpdk", &["base", "wire", "mem", "datapath"]),
    ("crypto", &["base", "wire", "mem"]),
    ("net", &["base", "wire", "mem", "datapath"]),
    ("quic", &["base", "wire", "mem", "crypto"]),
    ("qlog", &["base", "wire", "quic"]),
    ("sim", &["base", "wire", "mem", "crypto", "datapath", "net", "quic"]),
    ("report", &["base"]),
    ("runtime", &["base", "wire", "mem", "dpdk", "crypto", "datapath", "net", "quic", "report"]),
    ("api", &["base", "wire", "mem", "dpdk", "crypto", "datapath", "net", "quic", "qlog", "report", "runtime"]),
    ("proto", &["base", "wire", "mem", "dpdk", "crypto", "datapath", "net", "quic", "runtime", "api", "report"]),
    // A separate crate, which may use all of the library.
    ("bin", &[]),
];

/// Where unsafe code is allowed, in the folders that are searched.
const UNSAFE: &[&str] = &[
    "src/dpdk/",
    "src/mem/",
    "src/crypto/backend/",
    "src/crypto/backend.rs",
    // Guard pages around buffers.
    "src/crypto/tests/guard.rs",
    // Instruments of benchmarks: a counting allocator, and a thread's CPU time.
    "perf/src/alloc.rs",
    "perf/src/cpu.rs",
];

/// Macros that panic if their output is closed, and block if it is stuck.
const PRINTING: &[&str] = &["print", "println", "eprint", "eprintln", "dbg"];

/// Where the library may use files: in code that runs before the poll loop, or on a thread of its own.
const FILES: &[&str] = &[
    // Seeds, secrets and keys, at start-up.
    "src/base/rng.rs",
    "src/api/lb_key.rs",
    "src/api/secret.rs",
    // Certificates, at start-up.
    "src/quic/tls/config.rs",
    "src/quic/tls/pem.rs",
    // Opened before the loop, or by the writing thread (`base::aside`).
    "src/datapath/pcap.rs",
    "src/datapath/pcap/tests.rs",
    // On a thread of its own.
    "src/qlog/files.rs",
    // DPDK's search for pages and devices, at start-up.
    "src/dpdk/",
    // The address space of the process, in tests.
    "src/crypto/tests/",
    // Threads for files.
    "src/proto/hq/",
    // Tools read and write histograms after the loop.
    "src/report/",
    "src/bin/",
];

/// Layers whose root cannot forbid unsafe code, because they contain some.
const PARTLY_UNSAFE: &[&str] = &["dpdk", "mem", "crypto", "bin"];

/// A reference to a layer, by an absolute path or one that starts with `super`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Import {
    from: String,
    to: String,
    file: String,
    line: usize,
}

impl Import {
    /// Describes the violation, if it is one, with file and line.
    pub fn violation(&self) -> Option<String> {
        let Self { from, to, file, line } = self;
        let Some((_, allowed)) = LAYERS.iter().find(|(name, _)| name == from) else {
            return Some(format!("{file}:{line}: `{from}` is no layer"));
        };
        let good = from == to || from == "bin" || allowed.contains(&to.as_str());
        (!good).then(|| format!("{file}:{line}: `{from}` imports `{to}`"))
    }
}

/// Whether this is a layer.
pub fn is_layer(name: &str) -> bool {
    LAYERS.iter().any(|(layer, _)| *layer == name)
}

/// Whether the file at `path` may contain unsafe code.
pub fn may_use_unsafe(path: &str) -> bool {
    UNSAFE.iter().any(|prefix| path.starts_with(prefix))
}

/// Whether the file at `path` is the root of a layer that must forbid unsafe code but does not. Empty layers need not.
pub fn must_forbid_unsafe(path: &str, source: &str) -> bool {
    let layer = path.strip_prefix("src/").and_then(|path| path.strip_suffix("/mod.rs"));
    let has_to = layer.is_some_and(|layer| is_layer(layer) && !PARTLY_UNSAFE.contains(&layer));
    let tokens = tokens(source);
    let attribute = ["#", "!", "[", "forbid", "(", "unsafe_code", ")", "]"];
    let forbids = tokens.windows(attribute.len()).any(|seen| seen.iter().map(|token| &token.text).eq(attribute));
    has_to && !tokens.is_empty() && !forbids
}

/// The lines with unsafe code.
pub fn unsafe_in(source: &str) -> Vec<usize> {
    tokens(source).into_iter().filter(|token| token.text == "unsafe").map(|token| token.line).collect()
}

/// Types, traits and functions of std's prelude (`std::prelude::rust_2024`).
const PRELUDE: &[&str] = &[
    "Copy",
    "Send",
    "Sized",
    "Sync",
    "Unpin",
    "Drop",
    "Fn",
    "FnMut",
    "FnOnce",
    "AsyncFn",
    "AsyncFnMut",
    "AsyncFnOnce",
    "Box",
    "ToOwned",
    "Clone",
    "PartialEq",
    "PartialOrd",
    "Eq",
    "Ord",
    "AsRef",
    "AsMut",
    "Into",
    "From",
    "Default",
    "Iterator",
    "Extend",
    "IntoIterator",
    "DoubleEndedIterator",
    "ExactSizeIterator",
    "Option",
    "Some",
    "None",
    "Result",
    "Ok",
    "Err",
    "String",
    "ToString",
    "Vec",
    "TryFrom",
    "TryInto",
    "FromIterator",
    "Future",
    "IntoFuture",
];

/// Types and traits declared under a name of the prelude, with their lines. Aliases such as `Result<T>` are allowed, as
/// they have the same meaning with fewer arguments.
pub fn prelude_names_in(source: &str) -> Vec<(usize, String)> {
    let tokens = tokens(source);
    let declared = tokens.windows(2).filter(|pair| ["struct", "enum", "trait", "union"].contains(&&*pair[0].text));
    let taken = declared.filter(|pair| PRELUDE.contains(&&*pair[1].text));
    taken.map(|pair| (pair[1].line, pair[1].text.clone())).collect()
}

/// Code that prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Printing {
    /// A macro's name, or `stdout` or `stderr`.
    pub what: &'static str,
    /// Its line.
    pub line: usize,
}

/// Macros that print, and calls that get standard output or error.
pub fn printing_in(source: &str) -> Vec<Printing> {
    let tokens = tokens(source);
    let follows = |at: usize, text: &str| tokens.get(at + 1).is_some_and(|token| token.text == text);
    let is_method = |at: usize| at > 0 && tokens[at - 1].text == ".";
    let seen = tokens.iter().enumerate().filter_map(|(at, token)| {
        let macros = PRINTING.iter().filter(|_| follows(at, "!"));
        let calls = ["stdout", "stderr"].iter().filter(|_| follows(at, "(") && !is_method(at));
        let what = macros.chain(calls).find(|name| **name == token.text)?;
        Some(Printing { what, line: token.line })
    });
    seen.collect()
}

/// Whether the file at `path` may print using `what`.
pub fn may_print(path: &str, what: &str) -> bool {
    match what {
        // Results and requested pages, after the loop or without one; files, on threads for files.
        "stdout" => path.starts_with("src/bin/") || path == "src/proto/hq/files/output.rs",
        "stderr" => path.starts_with("src/bin/terminal/"),
        _ => false,
    }
}

/// Whether the file at `path` contains code that runs in a poll loop.
pub fn waits_for_no_file(path: &str) -> bool {
    !FILES.iter().any(|prefix| path.starts_with(prefix))
}

/// The lines that refer to files.
pub fn files_in(source: &str) -> Vec<usize> {
    let names = ["File", "OpenOptions", "fs"];
    tokens(source).into_iter().filter(|token| names.contains(&token.text.as_str())).map(|token| token.line).collect()
}

/// Every reference to a top-level module in the file at `path`, such as `src/net/arp.rs`.
pub fn imports_of(path: &str, source: &str) -> Vec<Import> {
    let module = module_of(path);
    let Some(from) = module.first() else {
        // The crate's root declares the layers.
        return Vec::new();
    };
    let tokens = tokens(source);
    let mut depth = Depth::new(module.len());
    let mut imports = Vec::new();
    for at in 0..tokens.len() {
        depth.see(&tokens, at);
        let Some(start) = to_crate_root(&tokens, at, depth.modules()) else { continue };
        imports.extend(heads(&tokens[start..]).into_iter().map(|head| Import {
            from: from.clone(),
            to: head.text.clone(),
            file: path.to_owned(),
            line: head.line,
        }));
    }
    imports
}

/// `src/net/arp.rs` is `net::arp`, `src/net/mod.rs` is `net`.
fn module_of(path: &str) -> Vec<String> {
    let path = path.strip_prefix("src/").unwrap_or(path).trim_end_matches(".rs");
    let parts = path.split('/').filter(|part| !["mod", "lib"].contains(part));
    parts.map(str::to_owned).collect()
}

/// The depth of modules at a place in a file.
struct Depth {
    file: usize,
    braces: usize,
    /// The brace depths at which `mod name {` opened.
    inline: Vec<usize>,
}

impl Depth {
    fn new(file: usize) -> Self {
        Self { file, braces: 0, inline: Vec::new() }
    }

    fn see(&mut self, tokens: &[Token], at: usize) {
        match tokens[at].text.as_str() {
            "{" => {
                self.braces += 1;
                if at >= 2 && tokens[at - 2].text == "mod" {
                    self.inline.push(self.braces);
                }
            }
            "}" => {
                if self.inline.last() == Some(&self.braces) {
                    self.inline.pop();
                }
                self.braces = self.braces.saturating_sub(1);
            }
            _ => {}
        }
    }

    fn modules(&self) -> usize {
        self.file + self.inline.len()
    }
}

/// If a path to the crate's root starts at `at` (`crate::`, or as many `super::` as there are enclosing modules),
/// returns where it continues after that.
fn to_crate_root(tokens: &[Token], at: usize, modules: usize) -> Option<usize> {
    let is = |at: usize, text: &str| tokens.get(at).is_some_and(|token| token.text == text);
    if at > 0 && is(at - 1, "::") {
        return None;
    }
    if is(at, "crate") {
        return is(at + 1, "::").then_some(at + 2);
    }
    let start = if is(at, "self") && is(at + 1, "::") { at + 2 } else { at };
    let supers = (0..).take_while(|n| is(start + 2 * n, "super") && is(start + 2 * n + 1, "::")).count();
    (supers > 0 && supers == modules).then_some(start + 2 * supers)
}

/// The first word of a path, or of each path in a group. Macros of the crate (`name!`) do not count.
fn heads(tokens: &[Token]) -> Vec<&Token> {
    let is_macro = |at: usize| tokens.get(at + 1).is_some_and(|token| token.text == "!");
    if tokens.first().is_none_or(|token| token.text != "{") {
        return tokens.first().filter(|_| !is_macro(0)).into_iter().collect();
    }
    let mut found = Vec::new();
    let mut depth = 0;
    let mut starts = false;
    for (at, token) in tokens.iter().enumerate() {
        match token.text.as_str() {
            "{" => (depth, starts) = (depth + 1, depth == 0),
            "}" if depth == 1 => break,
            "}" => depth -= 1,
            "," => starts = depth == 1,
            _ if starts => {
                if !is_macro(at) {
                    found.push(token);
                }
                starts = false;
            }
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn violations(path: &str, source: &str) -> Vec<String> {
        imports_of(path, source).iter().filter_map(Import::violation).collect()
    }

    #[test]
    fn an_upward_import_is_told_with_its_line() {
        let source = "use crate::base::time::Instant;\n\nfn f() -> crate::quic::StreamId { todo() }\n";
        assert_eq!(violations("src/wire/udp.rs", source), ["src/wire/udp.rs:3: `wire` imports `quic`"]);
    }

    #[test]
    fn groups_are_looked_into() {
        let source = "use crate::{\n    base::{rng, time},\n    net::{arp, quic},\n    runtime,\n};";
        let found = violations("src/quic/space.rs", source);
        assert_eq!(
            found,
            ["src/quic/space.rs:3: `quic` imports `net`", "src/quic/space.rs:4: `quic` imports `runtime`"]
        );
    }

    #[test]
    fn super_paths_that_leave_the_layer_are_seen() {
        assert_eq!(violations("src/mem/mod.rs", "use super::net::X;").len(), 1);
        assert_eq!(violations("src/quic/stream/recv.rs", "use super::super::super::{api, base};").len(), 1);
        assert_eq!(violations("src/quic/stream/recv.rs", "use super::super::super::base;").len(), 0);
        // Within the layer, or inside a test module.
        assert_eq!(violations("src/quic/stream/recv.rs", "use super::super::net;").len(), 0);
        assert_eq!(violations("src/mem/mod.rs", "mod tests { use super::net; }\nuse super::api;").len(), 1);
        assert_eq!(violations("src/mem/mod.rs", "mod tests { use super::super::net; }").len(), 1);
    }

    #[test]
    fn other_forms() {
        assert_eq!(violations("src/net/arp.rs", "pub(in crate::quic) use $crate::api::X;").len(), 2);
        assert_eq!(violations("src/net/arp.rs", "crate::count!(x); pub(crate) fn f() {}").len(), 0);
        assert_eq!(violations("src/net/arp.rs", "use crate::*;"), ["src/net/arp.rs:1: `net` imports `*`"]);
        assert_eq!(violations("src/net/arp.rs", "// crate::api\n/// [`crate::api`]\nlet x = \"crate::api\";").len(), 0);
        assert_eq!(violations("src/new/mod.rs", "use crate::base;"), ["src/new/mod.rs:1: `new` is no layer"]);
        assert_eq!(violations("src/bin/main.rs", "use crate::args::Args;").len(), 0);
        assert_eq!(violations("src/lib.rs", "pub use crate::api::X;").len(), 0);
    }

    #[test]
    fn no_layer_imports_one_above_it() {
        for (at, (layer, allowed)) in LAYERS.iter().enumerate() {
            let below = |name: &&str| LAYERS[..at].iter().any(|(lower, _)| lower == name);
            assert!(allowed.iter().all(below), "{layer} may import something that is not below it");
        }
    }

    #[test]
    fn names_of_the_prelude_are_found() {
        let source = "pub enum Drop {}\n// struct Copy;\nstruct Dropped;\nimpl Drop for X {}\npub(crate) trait Send {}";
        assert_eq!(prelude_names_in(source), [(1, "Drop".to_owned()), (5, "Send".to_owned())]);
        assert_eq!(prelude_names_in("pub type Result<T> = std::result::Result<T, Error>;"), []);
    }

    #[test]
    fn printing_is_found() {
        let seen = |source: &str| printing_in(source).iter().map(|p| (p.what, p.line)).collect::<Vec<_>>();
        assert_eq!(seen("// println!()\nstd::eprintln!(\"x\");\ndbg!(1);"), [("eprintln", 2), ("dbg", 3)]);
        assert_eq!(
            seen("let mut out = io::stdout().lock();\nwriteln!(std::io::stderr())?"),
            [("stdout", 1), ("stderr", 2)]
        );
        assert_eq!(seen("command.stderr(Stdio::null()); let stdout = child.stdout; tracing::info!(println)"), []);
        assert!(may_print("src/bin/commands/doctor.rs", "stdout") && !may_print("src/bin/main.rs", "eprintln"));
        assert!(may_print("src/bin/terminal/mod.rs", "stderr") && !may_print("src/bin/main.rs", "stderr"));
        assert!(!may_print("src/quic/mod.rs", "stdout"));
    }

    #[test]
    fn files_are_found() {
        assert_eq!(files_in("use std::fs;\nlet f = File::open(path)?;\n// File\nlet fs = \"fs\";"), [1, 2, 4]);
        assert!(waits_for_no_file("src/runtime/core.rs") && !waits_for_no_file("src/base/rng.rs"));
    }

    #[test]
    fn unsafe_code_is_found() {
        assert_eq!(unsafe_in("#![forbid(unsafe_code)]\n// unsafe\nunsafe fn f() {}\nlet s = \"unsafe\";"), [3]);
        assert!(may_use_unsafe("src/crypto/backend/mb.rs") && !may_use_unsafe("src/crypto/backends.rs"));
        assert!(must_forbid_unsafe("src/quic/mod.rs", "//! forbid(unsafe_code)\nmod a;"));
        assert!(!must_forbid_unsafe("src/quic/mod.rs", "//! Text.\n#![forbid(unsafe_code)]\nmod a;"));
        assert!(!must_forbid_unsafe("src/quic/mod.rs", "//! Nothing here yet."));
        assert!(!must_forbid_unsafe("src/mem/mod.rs", "mod a;"));
    }
}
