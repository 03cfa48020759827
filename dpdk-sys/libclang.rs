//! Part of the build scripts of this crate and of `ipsec-mb-sys`.

use std::env;

/// The right libclang where there are several, with its own headers.
pub fn with_libclang(builder: bindgen::Builder) -> bindgen::Builder {
    let Some(libclang) = find_libclang::find().found() else { return builder };
    // SAFETY: this program has one thread.
    unsafe { env::set_var("LIBCLANG_PATH", &libclang.file) };
    match libclang.resources {
        Some(dir) => builder.detect_include_paths(false).clang_arg(format!("-resource-dir={}", dir.display())),
        None => builder,
    }
}
