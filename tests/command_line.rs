//! The `gannet` program with invalid files and numbers: it has to print what is wrong and why, and exit with the code
//! documented in the README; it must never panic or allocate memory for impossible requests.
#![cfg(feature = "cli")]

use std::path::Path;
use std::process::Command;

use gannet::report::{HdrLog, Latency, Series, write_hdr_log};

/// Runs the program with 2 GiB of address space. Returns its exit code and standard error.
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
    // The first one used to wrap to 512 MiB less one; with 100 GiB, pages were locked until no memory was left.
    for hold in ["18446744073709551615", "17179869183G", "16000000T", "1000000G"] {
        let (code, said) = get(&["--hold", hold]);
        assert_eq!(code, 2, "{hold}: {said}");
        for part in ["gannet: --hold needs ", "of pinned memory", "are available", "at most"] {
            assert!(said.contains(part), "{hold}: {part} is not in: {said}");
        }
    }
    let (code, said) = get(&["--hold", "18446744073709551616"]);
    assert_eq!((code, said.contains("more than 2^64")), (2, true), "{said}");
    for (more, want, part) in [
        (&["--connections", "4294967295", "--streams", "4294967295"][..], 2, "4294967295 connections are too many"),
        (&["--streams", "4294967295"], 2, "4294967295 streams are too many"),
        (&["--rate", "1e300"], 2, "up to 1000M"),
        (&["--upload", "18446744073709551615"], 2, "does not fit on a stream"),
        (&["--download", "4611686018427387904"], 2, "does not fit on a stream"),
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
    // A name with markup, list separators and line breaks.
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
        assert!(said.contains("omit the file, or measure again") && !page.exists(), "{said}");
    }
    let (code, said) = report(Path::new("/dev/zero"));
    assert_eq!((code, said.contains("/dev/zero has more than 256 MiB")), (1, true), "{said}");
    assert_eq!(report(&dir.path().join("none.hdr")).0, 1);
    assert_eq!(gannet(&["report"]).0, 2);
}

/// Every kind of wrong usage has code 2, whatever detects it; missing resources have 1. Before 2026-11-28, only errors
/// of the parser had 2.
#[test]
fn wrong_usage_is_told_apart_from_failure() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let file = file.to_str().unwrap();
    let url = "https://10.77.0.1/f";
    for (args, want, part) in [
        (&["--core", "1023", url][..], 2, "--core 1023: this process may run on CPU"),
        (&["--core", "x", url], 2, "expected a whole number from 0 to 1023"),
        (&["--set", "nonsense=1", url], 2, "unknown key \"nonsense\""),
        (&["--set", "mtu=12", url], 2, "a number from 1280"),
        (&["--set", "nonsense", url], 2, "KEY=VALUE"),
        (&["--addr", "10.78.0.255/24", url], 2, "broadcast address"),
        (&["-o", file, url, "https://10.77.0.1/g"], 2, "several files cannot all be written"),
        (&["-o", "-", url, "https://10.77.0.1/g"], 2, "standard output"),
        (&[url, "https://10.77.0.1/x/f"], 2, "same file"),
        (&["https://10.77.0.255/f"], 2, "10.77.0.255 is not the address of a host"),
        (&["https://224.0.0.1/f"], 2, "224.0.0.1 is not the address of a single host"),
        (&["https://10.77.0.2/f"], 2, "own --addr"),
        (&["https://192.0.2.1/f"], 2, "there is no route to 192.0.2.1"),
        (&["https://[fd00::1]/f"], 2, "without an IPv6 address of this port"),
        (&["--idle-timeout", "0.0000001", url], 2, "--idle-timeout: max_idle_timeout is 100ns; it must be from"),
        (&["-o", "/nonexistent/f", url], 1, "no such directory: /nonexistent"),
        (&[url], 1, "gannet: "),
    ] {
        let (code, said) = gannet(&[&["get"][..], &PORT, &["--insecure"], args].concat());
        assert_eq!((code, said.contains(part)), (want, true), "{args:?}: {said}");
    }
    let of = |port: &str| gannet(&["get", "--port", port, "--addr", "10.77.0.2/24", "--insecure", url]);
    for (port, want, part) in [
        ("memfi", 2, "unknown port profile \"memfi\""),
        ("/nonexistent/p.toml", 1, "cannot read port profile"),
        ("e1000e", 2, "device is missing"),
    ] {
        let (code, said) = of(port);
        assert_eq!((code, said.contains(part)), (want, true), "{port}: {said}");
    }
}

/// Errors about certificates and keys are in plain words.
#[test]
fn certificates_and_keys_are_told_about_in_words() {
    let dir = tempfile::tempdir().unwrap();
    let keep = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let make = || rcgen::generate_simple_self_signed(vec!["10.77.0.1".to_owned()]).unwrap();
    let (made, other) = (make(), make());
    let cert = keep("cert.pem", &made.cert.pem());
    let key = keep("key.pem", &made.signing_key.serialize_pem());
    let others = keep("other.pem", &other.signing_key.serialize_pem());
    let locked = keep("locked.pem", &other.signing_key.serialize_pem().replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY"));
    let cut = keep("cut.pem", &made.cert.pem()[..200]);
    for (cert, key, part) in [
        (&cert, &others, "the key does not match the certificate"),
        (&cert, &locked, "is encrypted"),
        (&cert, &cert, "but a certificate: pass the key file with --key"),
        (&key, &key, "but a private key: pass the certificate file with --cert"),
        (&cut, &key, "ends before a line \"-----END CERTIFICATE-----\""),
    ] {
        let server = ["--listen", "4433", "--root", "/", "--cert", cert, "--key", key];
        let (code, said) = gannet(&[&["serve"][..], &PORT, &server].concat());
        assert_eq!((code, said.contains(part)), (1, true), "{said}");
        for name in ["KeyMismatch", "OtherError", "[45, 45"] {
            assert!(!said.contains(name), "{said}");
        }
    }
    // A warning does not prevent serving. The command fails later, as nobody listens at that socket.
    let server = ["--listen", "4433", "--root", "/", "--cert", &cert, "--key", &key];
    let (code, said) = gannet(&[&["serve"][..], &PORT, &server].concat());
    assert_eq!((code, said.contains(" WARN ") && said.contains("does not cover 10.77.0.2")), (1, true), "{said}");
}

/// Several certificates, certificates of clients, and revocation lists: what is wrong is named with its file.
#[test]
fn files_of_tls_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let keep = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let make = |name: &str| rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
    let (first, second) = (make("10.77.0.2"), make("b.test"));
    let pem = |name: &str, made: &rcgen::CertifiedKey<rcgen::KeyPair>| {
        let key = keep(&format!("{name}.key"), &made.signing_key.serialize_pem());
        (keep(&format!("{name}.pem"), &made.cert.pem()), key)
    };
    let ((cert, key), (cert2, key2)) = (pem("one", &first), pem("two", &second));
    let rubbish = keep("rubbish.pem", "-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n");
    let base = ["--cert", &cert, "--key", &key];
    for (more, want, part) in [
        (&["--cert", &cert2][..], 2, "--cert and --key make pairs, but there are 2 and 1"),
        (&["--cert", &cert2, "--key", &key], 1, "two.pem and "),
        (&["--cert", &cert2, "--key", &key2, "--cert", "/nonexistent", "--key", &key], 1, "cannot read /nonexistent"),
        (&["--client-auth", "optional"], 2, "--client-ca"),
        (&["--client-crl", &rubbish], 2, "--client-ca"),
        (&["--client-ca", &key], 1, "one.key holds no certificate"),
        (&["--client-ca", &cert, "--client-crl", &cert], 1, "one.pem holds no certificate revocation list"),
        (&["--client-ca", &cert, "--client-crl", &rubbish], 1, "rubbish.pem"),
        (&["--group", "ffdhe"], 2, "x25519mlkem768"),
        (&["--key-log", "/nonexistent/keys"], 1, "cannot write the key log /nonexistent/keys"),
        // The command fails later, as nobody listens at that socket.
        (&["--cert", &cert2, "--key", &key2, "--client-ca", &cert, "--group", "x25519"], 1, "gannet: "),
    ] {
        let server = ["--listen", "4433", "--root", "/"];
        let (code, said) = gannet(&[&["serve"][..], &PORT, &server, &base, more].concat());
        assert_eq!((code, said.contains(part)), (want, true), "{more:?}: {said}");
    }
    let url = "https://10.77.0.1/f";
    for (more, want, part) in [
        (&["--insecure", "--cert", &cert][..], 2, "--key"),
        (&["--insecure", "--key", &key], 2, "--cert"),
        (&["--insecure", "--cert", &cert, "--key", &key2], 1, "one.pem and "),
        (&["--insecure", "--crl", &rubbish], 2, "cannot be used with"),
        (&["--ca", &cert, "--crl", &rubbish], 1, "rubbish.pem"),
    ] {
        let (code, said) = gannet(&[&["get"][..], &PORT, more, &[url]].concat());
        assert_eq!((code, said.contains(part)), (want, true), "{more:?}: {said}");
    }
}

/// A full disk under standard output is a failure; a reader that has gone is not, and causes no message.
#[test]
fn results_that_cannot_be_printed() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("a.hdr");
    let mut latency = Latency::new();
    (1..1000).for_each(|n| latency.record(n * 1000));
    write_hdr_log(&log, &HdrLog { series: vec![Series::new("a", latency)], ..HdrLog::default() }).unwrap();
    let page = dir.path().join("r.html");
    let report = ["report", log.to_str().unwrap(), "-o", page.to_str().unwrap()];
    for args in [&report[..], &["doctor"]] {
        let into = |redirect: &str| {
            let script = format!("exec \"$@\" {redirect}");
            let command = ["-c", script.as_str(), "sh", env!("CARGO_BIN_EXE_gannet")];
            let output = Command::new("sh").args(command).args(args).output().unwrap();
            (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
        };
        let (code, said) = into("> /dev/full");
        assert_eq!(
            (code, said.contains("cannot print the results: No space left")),
            (Some(1), true),
            "{args:?}: {said}"
        );
        let (code, said) = into("| true");
        assert_eq!((code, said.as_str()), (Some(0), ""), "{args:?}");
        // Nor does anyone have to read its messages.
        let (code, said) = into("2>&1 | true");
        assert_eq!((code, said.as_str()), (Some(0), ""), "{args:?}");
    }
}
