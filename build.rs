//! Hands on what `dpdk-sys` found out about the DPDK of this machine. Silent without the feature.

use std::env;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    if env::var_os("CARGO_FEATURE_DPDK").is_none() {
        return;
    }
    for name in ["VERSION", "PLUGIN_DIR", "PMDS"] {
        if let Ok(value) = env::var(format!("DEP_GANNET_DPDK_{name}")) {
            println!("cargo:rustc-env=GANNET_DPDK_{name}={value}");
        }
    }
    // DPDK outside the loader's directories: the command has to know where.
    if let Ok(dir) = env::var("DEP_GANNET_DPDK_RPATH") {
        println!("cargo:rustc-link-arg=-Wl,-rpath,{dir}");
    }
}
