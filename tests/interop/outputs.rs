//! Sources and destinations of files: pipes, devices, standard output, the umask.

use std::fs::{self, File};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use crate::peers::files;
use crate::peers::gannet::{Gannet, url};
use crate::require_root;
use crate::scene::Scene;

fn pipe(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().expect("mkfifo").success());
}

/// Before 2026-11-28, `-o -` created a file of that name, every file had mode 0644, and printing to a full disk was a
/// success.
#[test]
fn standard_output_and_modes() {
    require_root!();
    let scene = Scene::gannet_alone();
    let sample = scene.sample("file", 3_000_000);
    let _server = scene.gannet_serve();
    let urls = [url(scene.server().v4, "/file")];
    let (dash, got) = (Path::new("-"), scene.out().join("got"));
    let to = |out: &Path, script: &str| {
        scene.gannet_get(out, &urls).run_in(&script.replace("GOT", got.to_str().expect("a path")))
    };
    for script in ["\"$@\" > GOT", "\"$@\" | cat > GOT"] {
        let done = to(dash, script).expect_success();
        sample.assert_same(&got);
        let hash = format!("sha256: {}", sample.sha256);
        assert!(done.stderr.contains(&hash) && done.stdout.is_empty(), "{}", done.transcript());
        fs::remove_file(&got).expect("a file");
    }
    for (umask, mode) in [("077", 0o600), ("002", 0o664)] {
        to(&got, &format!("umask {umask}; exec \"$@\"")).expect_success();
        assert_eq!(fs::metadata(&got).expect("a file").permissions().mode() & 0o777, mode, "umask {umask}");
        fs::remove_file(&got).expect("a file");
    }
    for out in [dash, got.as_path()] {
        let done = to(out, "exec \"$@\" > /dev/full");
        assert_eq!(done.status.code(), Some(1), "{}", done.transcript());
        done.expect_message(&["No space left"]);
    }
    // A reader that stops early causes no message.
    let done = to(&got, "\"$@\" | true");
    assert!(done.stderr.iter().all(|line| !line.starts_with("gannet: ")), "{}", done.transcript());
    sample.assert_same(&got);
}

/// A pipe without a reader is waited for, but not forever, and not after a signal.
#[test]
fn a_pipe_without_a_reader_keeps_nobody() {
    require_root!();
    let scene = Scene::gannet_alone();
    scene.sample("file", 3_000_000);
    let _server = scene.gannet_serve();
    let path = scene.dir.path().join("pipe");
    pipe(&path);
    let urls = [url(scene.server().v4, "/file")];
    let get = scene.gannet_get(&path, &urls).spawn();
    // In the middle of the wait.
    thread::sleep(Duration::from_secs(2));
    let done = get.stop("TERM");
    assert_eq!(done.status.code(), Some(1), "{}", done.transcript());
    done.expect_message(&["interrupted"]);
    let done = scene.gannet_get(&path, &urls).run().expect_failure();
    done.expect_message(&["nobody has opened the pipe"]);
}

/// Pipes and links among the served files and among the uploads.
#[test]
fn serve_opens_regular_files_only() {
    require_root!();
    let scene = Scene::gannet_alone();
    let sample = scene.sample("file", 1000);
    pipe(&scene.root().join("pipe"));
    std::os::unix::fs::symlink("/dev/zero", scene.root().join("zero")).expect("a link");
    let uploads = scene.dir.path().join("uploads");
    fs::create_dir(&uploads).expect("a directory");
    let server = Gannet::serve(scene.server(), &scene.pki.cert, &scene.pki.key, &scene.root())
        .path("--upload-dir", &uploads)
        .ready();
    let ip = scene.server().v4;
    let urls = ["/pipe", "/zero", "/file"].map(|path| url(ip, path));
    let done = scene.gannet_get(&scene.out(), &urls).run().expect_failure();
    done.expect_message(&["/pipe: no such file"]);
    done.expect_message(&["/zero: the server does not allow access"]);
    sample.assert_same(&scene.out().join("file"));
    assert_eq!(files::names(&scene.out()), ["file"]);
    assert!(fs::metadata(scene.root().join("pipe")).expect("a pipe").file_type().is_fifo());
    server.stop("TERM").expect_success();
}

/// If some files cannot be written, the others are still fetched; before 2026-11-28, they were silently dropped.
#[test]
fn a_full_disk_does_not_keep_the_other_files() {
    require_root!();
    let scene = Scene::gannet_alone();
    let names: Vec<String> = (0..6).map(|n| format!("file-{n}")).collect();
    let samples: Vec<_> = names.iter().map(|name| scene.sample(name, 100_000)).collect();
    let _server = scene.gannet_serve();
    let urls: Vec<String> = names.iter().map(|name| url(scene.server().v4, &format!("/{name}"))).collect();
    // All files fetched concurrently cannot be written, as directories have their names.
    for name in &names[..4] {
        fs::create_dir(scene.out().join(name)).expect("a directory");
    }
    let done = scene.gannet_get(&scene.out(), &urls).run().expect_failure();
    for (name, sample) in names.iter().zip(&samples).skip(4) {
        sample.assert_same(&scene.out().join(name));
    }
    for name in &names[..4] {
        done.expect_message(&[name]);
        assert!(File::open(scene.out().join(name)).is_ok_and(|f| f.metadata().is_ok_and(|m| m.is_dir())));
    }
}
