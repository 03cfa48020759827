//! Generates the bindings from the installed header, on x86-64 only, as the library exists only there.

#[path = "../dpdk-sys/libclang.rs"]
mod libclang;

use std::env;
use std::path::PathBuf;
use std::process::ExitCode;

use libclang::with_libclang;

fn main() -> ExitCode {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=../dpdk-sys/libclang.rs");
    println!("cargo:rerun-if-changed=wrapper.h");
    println!("cargo:rustc-check-cfg=cfg(has_avx)");
    if env::var("CARGO_CFG_TARGET_ARCH").is_ok_and(|arch| arch != "x86_64") {
        return ExitCode::SUCCESS;
    }
    for variable in find_libclang::VARIABLES {
        println!("cargo:rerun-if-env-changed={variable}");
    }
    match generate() {
        Ok(()) => {
            println!("cargo:rustc-link-lib=IPSec_MB");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            eprintln!("ipsec-mb-sys needs intel-ipsec-mb 1.3 or later and libclang, with their headers.");
            eprintln!("On Debian: apt-get install libipsec-mb-dev libclang-dev");
            eprintln!("Or build without it: --no-default-features --features dpdk");
            ExitCode::FAILURE
        }
    }
}

fn generate() -> Result<(), Box<dyn std::error::Error>> {
    let out = PathBuf::from(env::var("OUT_DIR")?).join("bindings.rs");
    let bindings = with_libclang(bindgen::Builder::default())
        .header("wrapper.h")
        // Only then does the header align its key structures.
        .clang_arg("-DLINUX")
        .allowlist_function("alloc_mb_mgr|free_mb_mgr|init_mb_mgr_(sse|avx|avx2|avx512)")
        .allowlist_type("IMB_MGR|IMB_JOB|gcm_key_data")
        .generate_comments(false)
        .derive_debug(false)
        .parse_callbacks(Box::new(bindgen::CargoCallbacks::new()))
        .generate()?
        .to_string();
    // Version 2 no longer has one for AVX without AVX2.
    if bindings.contains("fn init_mb_mgr_avx(") {
        println!("cargo:rustc-cfg=has_avx");
    }
    std::fs::write(out, bindings)?;
    Ok(())
}
