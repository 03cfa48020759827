//! The layer rule of ARCHITECTURE.md: imports point strictly downward, unsafe code stays where it is justified, and
//! code that runs in poll loops does not print or open files. Checks the sources as text.
#![forbid(unsafe_code)]

#[path = "layers/circles.rs"]
mod circles;
#[path = "layers/rules.rs"]
mod rules;
#[path = "layers/tokens.rs"]
mod tokens;

use std::fs;
use std::path::{Path, PathBuf};

use rules::{
    files_in, imports_of, is_layer, may_print, may_use_unsafe, must_forbid_unsafe, printing_in, unsafe_in,
    waits_for_no_file,
};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every Rust file below `dir` with its path from the repository's root, in order.
fn sources(dir: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut todo = vec![root().join(dir)];
    while let Some(path) = todo.pop() {
        if path.is_dir() {
            todo.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
            found.push((name, fs::read_to_string(&path).unwrap()));
        }
    }
    found.sort();
    found
}

fn assert_none(violations: &[String], rule: &str) {
    assert!(violations.is_empty(), "{rule}:\n{}", violations.join("\n"));
}

#[test]
fn imports_point_downward() {
    let files = sources("src");
    let imports: Vec<_> = files.iter().flat_map(|(path, text)| imports_of(path, text)).collect();
    assert!(imports.len() > 50, "only {} imports in {} files: the scanner is blind", imports.len(), files.len());
    let violations: Vec<_> = imports.iter().filter_map(rules::Import::violation).collect();
    assert_none(&violations, "a layer imports only what lies below it (ARCHITECTURE.md, tests/layers/rules.rs)");
}

/// Modules of a folder must not import each other in circles. Before, 13 groups of modules formed circles in `src`, and
/// six modules of `perf/src` one.
#[test]
fn modules_of_a_folder_form_no_circles() {
    for root in ["src/", "perf/src/", "interop/src/", "xtask/src/"] {
        let mut files = sources(root);
        // The command is a crate of its own.
        files.retain(|(path, _)| !path.starts_with("src/bin/"));
        check_circles(root, &files);
    }
    check_circles("src/bin/", &sources("src/bin"));
}

fn check_circles(root: &str, files: &[(String, String)]) {
    let modules = circles::Modules::new(root, files);
    assert!(modules.import_count() > files.len() / 3, "the scanner is blind in {root}");
    assert_none(
        &modules.circles(),
        "modules of a folder do not import each other in a circle (tests/layers/circles.rs)",
    );
}

#[test]
fn every_module_is_a_layer() {
    let entries = fs::read_dir(root().join("src")).unwrap().map(|entry| entry.unwrap().path());
    let name = |path: &PathBuf| path.file_stem().unwrap().to_str().unwrap().to_owned();
    let unknown: Vec<_> = entries.filter(|path| name(path) != "lib" && !is_layer(&name(path))).collect();
    assert!(unknown.is_empty(), "not in tests/layers/rules.rs: {unknown:?}");
}

#[test]
fn unsafe_code_stays_where_it_is_argued_for() {
    let mut violations = Vec::new();
    for (path, text) in ["src", "xtask", "perf", "interop/src"].into_iter().flat_map(sources) {
        if !may_use_unsafe(&path) {
            violations.extend(unsafe_in(&text).into_iter().map(|line| format!("{path}:{line}: unsafe code")));
        }
        if must_forbid_unsafe(&path, &text) {
            violations.push(format!("{path}:1: add #![forbid(unsafe_code)]"));
        }
    }
    assert_none(&violations, "unsafe code only in dpdk-sys, ipsec-mb-sys, src/dpdk, src/mem and src/crypto/backend");
}

/// The public modules according to the crate's documentation.
const PROMISED: [&str; 5] = ["api", "datapath", "dpdk", "proto", "report"];

#[test]
fn modules_that_are_not_promised_are_hidden() {
    let text = fs::read_to_string(root().join("src/lib.rs")).unwrap();
    let lines: Vec<_> = text.lines().collect();
    let declared = lines.iter().enumerate().filter_map(|(at, line)| Some((at, line.strip_prefix("pub mod ")?)));
    let shown =
        declared.filter(|(at, _)| lines[at - 1] != "#[doc(hidden)]").map(|(_, name)| name.trim_end_matches(';'));
    assert_eq!(shown.collect::<Vec<_>>(), PROMISED);
}

/// The examples use only public modules.
#[test]
fn examples_use_what_is_promised() {
    let mut texts = sources("examples");
    texts.push(("README.md".into(), fs::read_to_string(root().join("README.md")).unwrap()));
    texts.push(("src/lib.rs".into(), fs::read_to_string(root().join("src/lib.rs")).unwrap()));
    texts.push(("src/api/mod.rs".into(), fs::read_to_string(root().join("src/api/mod.rs")).unwrap()));
    let mut uses = 0;
    for (path, text) in &texts {
        for (_, rest) in text.match_indices("gannet::").map(|(at, word)| (at, &text[at + word.len()..])) {
            let name = rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default();
            assert!(PROMISED.contains(&name), "{path} uses gannet::{name}, which is not promised");
            uses += 1;
        }
    }
    assert!(uses > 10, "only {uses} uses found: the scanner is blind");
}

/// A type with a name of std's prelude hides the latter from its importers, as `quic::Drop` did.
#[test]
fn no_type_has_a_name_of_the_prelude() {
    let mut found = Vec::new();
    for (path, text) in
        ["src", "perf", "interop/src", "xtask", "dpdk-sys", "ipsec-mb-sys"].into_iter().flat_map(sources)
    {
        found.extend(rules::prelude_names_in(&text).into_iter().map(|(line, name)| format!("{path}:{line}: `{name}`")));
    }
    assert_none(&found, "types are not named as what std's prelude has");
}

/// If output fails (a full disk, a pipe that nobody reads), `println!` panics or blocks forever. The library emits
/// `tracing` events; the command has a thread that writes (src/bin/terminal).
#[test]
fn nothing_prints_in_passing() {
    let mut violations = Vec::new();
    for (path, text) in sources("src") {
        let banned = printing_in(&text).into_iter().filter(|printing| !may_print(&path, printing.what));
        violations.extend(banned.map(|printing| format!("{path}:{}: {}", printing.line, printing.what)));
    }
    assert_none(&violations, "emit a tracing event, or use src/bin/terminal");
    let seen = printing_in(&fs::read_to_string(root().join("src/bin/terminal/mod.rs")).unwrap());
    assert!(!seen.is_empty(), "the scanner is blind");
}

#[test]
fn layers_of_the_poll_loop_open_no_files() {
    let mut violations = Vec::new();
    for (path, text) in sources("src").into_iter().filter(|(path, _)| waits_for_no_file(path)) {
        violations.extend(files_in(&text).into_iter().map(|line| format!("{path}:{line}: a file")));
    }
    assert_none(&violations, "a poll loop waits for no disk: use base::aside, or say in tests/layers/rules.rs why not");
}
