//! The `gannet` program on files and numbers that make no sense: a message that says what and why, and the exit code that
//! README names; never a panic, and no memory for what cannot be.
#![cfg(feature = "cli")]

use std::path::Path;
use std::process::Command;

use gannet::report::{HdrLog, Latency, Series, write_hdr_log};

/// Runs the program without memory to waste: 2 GiB of addresses. Its exit code and what it says on standard error.
fn gannet(args: &[&str]) -> (i32, String) {
    let limited = ["-c", "ulimit -v 2097152; exec \"$@\"", "sh", env!("CARGO_BIN_EXE_gannet")];
    let output = Command::new("sh").args(limited).args(args).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!said.contains("panicked") && !said.contains("RUST_BACKTRACE"), "{args:?}: {said}");
    (output.status.code().unwrap_or_else(|| panic!("{args:?}: {}: {said}", output.status)), said)
}

const PORT: [&str; 8] =
    ["--port", "memif", "--set", "role=client", "--set", "socket=/nonexistent/s", "--addr", "10.77.0.2/24"];

fn get(more: &[&str]) -> (i32, String) {
    gannet(&[&["get"][..], &PORT, &["--insecure", "https://10.77.0.1/f"], more].concat())
}

fn perf(more: &[&str]) -> (i32, String) {
    gannet(&[&["perf", "client"][..], &PORT, &["--insecure", "--connect", "10.77.0.1:4433"], more].concat())
}

#[test]
fn absurd_numbers_are_refused_before_anything_is_taken() {
    // What it wraps to was 512 MiB less one; 100 GiB were locked page by page until nothing was left.
    for hold in ["18446744073709551615", "17179869183G", "16000000T", "1000000G"] {
        let (code, said) = get(&["--hold", hold]);
        assert_eq!(code, 1, "{hold}: {said}");
        for part in ["gannet: --hold comes to ", "of pinned memory", "can be had", "at the most"] {
            assert!(said.contains(part), "{hold}: {part} is not in: {said}");
        }
    }
    let (code, said) = get(&["--hold", "18446744073709551616"]);
    assert_eq!((code, said.contains("more than 2^64")), (2, true), "{said}");
    for (more, want, part) in [
        (&["--connections", "4294967295", "--streams", "4294967295"][..], 1, "4294967295 connections are too many"),
        (&["--streams", "4294967295"], 1, "4294967295 streams are too many"),
        (&["--rate", "1e300"], 2, "up to 1000M"),
        (&["--upload", "18446744073709551615"], 1, "does not fit on a stream"),
        (&["--download", "4611686018427387904"], 1, "does not fit on a stream"),
        (&["--duration", "99999999999999999999"], 2, "a time above zero"),
    ] {
        let (code, said) = perf(more);
        assert_eq!((code, said.contains(part)), (want, true), "{more:?}: {said}");
    }
}

#[test]
fn damaged_files_are_named_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let page = dir.path().join("r.html");
    let report = |file: &Path| gannet(&["report", "-o", page.to_str().unwrap(), file.to_str().unwrap()]);
    let (good, bad) = (dir.path().join("good.hdr"), dir.path().join("bad.hdr"));
    let mut latency = Latency::new();
    (1..1000).for_each(|n| latency.record(n * 1000));
    // A name that is markup, list and line break.
    let series = vec![Series::new("<script>a,b\n%</script>", latency)];
    write_hdr_log(&good, &HdrLog { series, ..HdrLog::default() }).unwrap();
    let (code, said) = report(&good);
    assert_eq!((code, said.as_str()), (0, ""));
    let html = std::fs::read_to_string(&page).unwrap();
    assert!(html.contains("&lt;script&gt;a,b") && !html.contains("<script"), "names are text");
    std::fs::remove_file(&page).unwrap();

    let bytes = std::fs::read(&good).unwrap();
    let lines = bytes.iter().filter(|b| **b == b'\n').count();
    // A histogram that claims to count up to 2^63 with 255 digits.
    let absurd = "HISTEwAAAAAAAAAAAAAA/wAAAAAAAAABf/////////8/8AAAAAAAAA==";
    for (content, line, part) in [
        (bytes[..bytes.len() - 30].to_vec(), lines, "damaged"),
        (format!("Tag=a b,0.0,1.0,1.0,{absurd}\n").into_bytes(), 1, "damaged"),
        (format!("#fine\nTag=x,0.0,1.0,1.0,{absurd}\n").into_bytes(), 2, "damaged"),
        (b"PK\x03\x04 something else".to_vec(), 1, "not a line"),
    ] {
        std::fs::write(&bad, content).unwrap();
        let (code, said) = report(&bad);
        assert_eq!(code, 1, "{said}");
        assert!(said.contains(&format!("bad.hdr:{line}: ")) && said.contains(part), "{said}");
        assert!(said.contains("leave the file out, or measure again") && !page.exists(), "{said}");
    }
    let (code, said) = report(Path::new("/dev/zero"));
    assert_eq!((code, said.contains("/dev/zero has more than 256 MiB")), (1, true), "{said}");
    assert_eq!(report(&dir.path().join("none.hdr")).0, 1);
    assert_eq!(gannet(&["report"]).0, 2);
}
