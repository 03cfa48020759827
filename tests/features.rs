//! The dependencies of the library without the features for the command and its reports.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::process::Command;

/// The crates of the library's build with these features, including itself.
fn crates_with(features: &str) -> BTreeSet<String> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["tree", "--package", "gannet", "--edges", "normal", "--prefix", "none", "--format", "{lib}"]);
    cargo.args(["--locked", "--offline", "--no-default-features", "--features", features]);
    let out = cargo.current_dir(env!("CARGO_MANIFEST_DIR")).output().expect("cargo runs");
    assert!(out.status.success(), "{cargo:?}: {}", String::from_utf8_lossy(&out.stderr));
    let crates: BTreeSet<_> = String::from_utf8(out.stdout)
        .expect("names of crates")
        .lines()
        .map(|line| line.trim_end_matches(" (*)").to_owned())
        .collect();
    assert!(crates.contains("gannet") && crates.contains("rustls"), "{features:?}: {crates:?}");
    crates
}

/// The crates that each feature adds to the minimal build.
const EXTRAS: [(&str, &[&str]); 4] = [
    ("cli", &["clap", "console", "csv", "serde_json", "signal_hook", "tracing_subscriber", "x509_parser"]),
    ("report", &["base64", "flate2", "plotters", "serde"]),
    ("proto", &["percent_encoding", "tempfile"]),
    ("dpdk", &["dpdk_sys"]),
];

#[test]
fn the_library_pulls_in_nothing_of_the_command() {
    for features in ["", "dpdk", "dpdk,ipsec-mb"] {
        let crates = crates_with(features);
        for (feature, extras) in EXTRAS.into_iter().filter(|(feature, _)| !features.split(',').any(|f| f == *feature)) {
            let found: Vec<_> = extras.iter().filter(|name| crates.contains(**name)).collect();
            assert!(found.is_empty(), "{found:?} belong to the feature {feature:?}, not to {features:?}");
        }
        // Profiles are parsed by our own parser.
        assert!(!crates.contains("toml"));
    }
}

#[test]
fn each_feature_brings_what_it_is_for() {
    for (feature, extras) in EXTRAS {
        let crates = crates_with(feature);
        let missing: Vec<_> = extras.iter().filter(|name| !crates.contains(**name)).collect();
        assert!(missing.is_empty(), "{feature:?} without {missing:?}: {crates:?}");
    }
}
