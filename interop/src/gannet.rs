//! Command lines of `gannet`.

use std::path::Path;
use std::process::Command;

use crate::cases::Case;
use crate::certs::Certs;
use crate::lab::{End, Lab, PORT};
use crate::transfer::{FILE, Stage};

/// What a `TESTCASE` takes on the command line of a server; `None` if Gannet cannot do it.
fn serving(testcase: &str) -> Option<&'static [&'static str]> {
    Some(match testcase {
        "transfer" | "reset" | "multiconnect" | "keyupdate" | "stopsending" | "delayedacks" | "migration" => &[],
        "ecn" | "datagrams" | "resumption" => &[],
        "zerortt" => &["--early-data"],
        "ackfrequency" => &["--fewer-acks"],
        "chacha20" => &["--suite", "chacha20"],
        "v2" => &["--versions", "v2,v1"],
        "retry" => &["--retry", "always"],
        _ => return None,
    })
}

/// The same for a client.
fn getting(testcase: &str) -> Option<&'static [&'static str]> {
    Some(match testcase {
        "transfer" | "reset" | "multiconnect" | "retry" | "delayedacks" | "ecn" => &[],
        "ackfrequency" => &["--fewer-acks"],
        "datagrams" => &["--datagrams", "500/1000", "--duration", "500ms"],
        "keyupdate" => &["--packets-per-key", "300"],
        "migration" => &["--migrate-every", "400ms"],
        "resumption" => &["--resume"],
        "zerortt" => &["--early-data"],
        "chacha20" => &["--suite", "chacha20"],
        "v2" => &["--versions", "v2,v1", "--first-version", "v1"],
        _ => return None,
    })
}

fn common(binary: &Path, words: &[&str], end: &End, lab: &Lab, case: &Case, dir: &Path, side: &str) -> Command {
    let mut command = end.command(binary);
    command.args(words).args(["--port", if case.xdp { "af-xdp" } else { "af-packet" }]);
    command.args(["--set", &format!("iface={}", end.iface)]);
    if lab.mtu != 1500 {
        command.args(["--set", &format!("mtu={}", lab.mtu)]);
    }
    command.args(["--addr", &format!("{}/24", end.v4), "--addr", &format!("{}/64", end.v6)]);
    // Other processes need the CPUs as well. While an IPv6 address is optimistic, Linux does not answer its solicitations.
    command.args(["--idle", "sleep", "--dad", "off", "--log-level", "debug"]);
    command.arg("--keylog").arg(dir.join(format!("{side}.keys")));
    command.env("QLOGDIR", dir.join(format!("{side}.qlog")));
    if matches!(case.name, "amplificationlimit" | "handshakeloss" | "handshakecorruption") {
        // These handshakes take long, and peers have as much patience.
        command.args(["--idle-timeout", "30s"]);
    }
    command.arg("--stats").arg(dir.join(format!("{side}.stats.json")));
    command
}

/// `gannet serve` and `gannet get` of one file, as users have them: without logs and secrets, which take time.
pub fn transfer(binary: &Path, stage: &Stage<'_>, congestion: &str) -> [Command; 2] {
    let Stage { lab, certs, www, downloads, .. } = stage;
    let start = |words: &str, end: &End| {
        let mut command = end.command(binary);
        command.args([words, "--port", "af-packet", "--set", &format!("iface={}", end.iface)]);
        command.args(["--addr", &format!("{}/24", end.v4), "--idle", "sleep", "--dad", "off", "--log-level", "warn"]);
        command
    };
    let mut serve = start("serve", &lab.server);
    serve.args(["--listen", &PORT.to_string(), "--congestion", congestion]);
    serve.arg("--cert").arg(&certs.cert).arg("--key").arg(&certs.key).arg("--root").arg(www);
    let mut get = start("get", &lab.client);
    get.arg("--ca").arg(&certs.ca).arg("-o").arg(downloads);
    get.arg(format!("https://{}:{PORT}/{FILE}", lab.server.v4));
    [serve, get]
}

/// The entry point of an image.
fn image(binary: &Path, end: &End, testcase: &str, dir: &Path, role: &str) -> Command {
    let mut command = end.command(Path::new(env!("CARGO_MANIFEST_DIR")).join("run_endpoint.sh"));
    command.env("ROLE", role).env("TESTCASE", testcase).env("GANNET", binary).env("GANNET_ROOT", dir);
    command.env("IFACE", &end.iface).env("PORT", PORT.to_string());
    command.env("SSLKEYLOGFILE", dir.join(format!("{role}.keys")));
    command.env("QLOGDIR", dir.join(format!("{role}.qlog")));
    command
}

/// `gannet serve`.
pub fn serve(binary: &Path, lab: &Lab, case: &Case, certs: &Certs, dir: &Path) -> Option<Command> {
    if case.image {
        return Some(image(binary, &lab.server, case.testcase, dir, "server"));
    }
    let options = serving(case.server.unwrap_or(case.testcase))?;
    let echoes = case.testcase == "datagrams";
    let words: &[&str] = if echoes { &["perf", "server"] } else { &["serve"] };
    let mut command = common(binary, words, &lab.server, lab, case, dir, "server");
    command.args(["--listen", &PORT.to_string()]).args(options);
    command.arg("--cert").arg(&certs.cert).arg("--key").arg(&certs.key);
    if !echoes {
        command.arg("--root").arg(dir.join("www"));
    }
    Some(command)
}

/// The runs of `gannet get`, or of `gannet perf client`, for a client's task.
pub fn get(binary: &Path, lab: &Lab, case: &Case, certs: &Certs, dir: &Path, urls: &[String]) -> Option<Vec<Command>> {
    if case.image {
        let mut command = image(binary, &lab.client, case.testcase, dir, "client");
        command.env("REQUESTS", urls.join(" "));
        return Some(vec![command]);
    }
    let options = getting(case.testcase)?;
    if case.testcase == "datagrams" {
        let server = urls.first()?.trim_start_matches("https://").trim_end_matches('/');
        let mut command = common(binary, &["perf", "client"], &lab.client, lab, case, dir, "client");
        command.args(["--connect", server]).args(options).arg("--ca").arg(&certs.ca);
        return Some(vec![command]);
    }
    let runs: Vec<&[String]> = match case.testcase {
        "multiconnect" => urls.chunks(1).collect(),
        _ => vec![urls],
    };
    let run = |urls: &[String]| {
        let mut command = common(binary, &["get"], &lab.client, lab, case, dir, "client");
        command.args(options).arg("--ca").arg(&certs.ca).arg("-o").arg(dir.join("downloads")).args(urls);
        command
    };
    Some(runs.into_iter().map(run).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// quic-interop-runner asks with a case that does not exist whether unknown ones are refused.
    #[test]
    fn the_image_refuses_unknown_cases() {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("run_endpoint.sh");
        for role in ["client", "server"] {
            let mut command = Command::new("bash");
            command.arg(&script).env("ROLE", role).env("TESTCASE", "nonsense").env("GANNET", "false");
            assert_eq!(command.status().unwrap().code(), Some(127));
        }
    }
}
