//! Hands on what `dpdk-sys` found out about the DPDK of this machine, and says whether intel-ipsec-mb takes part.

use std::env;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // The library exists for x86-64 only: elsewhere the feature, which is a default one, means nothing.
    println!("cargo:rustc-check-cfg=cfg(ipsec_mb)");
    if env::var_os("CARGO_FEATURE_IPSEC_MB").is_some()
        && env::var("CARGO_CFG_TARGET_ARCH").is_ok_and(|arch| arch == "x86_64")
    {
        println!("cargo:rustc-cfg=ipsec_mb");
    }
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
