//! Steps that need machines of their own: several queues with a core each, and a port of this machine as the other end.

use std::fs::File;
use std::process::Command;
use std::time::Duration;

use super::about;
use super::guest::{Guest, Spec};
use super::lab::{JOB, Lab, SERVER, Stage, counter};
use super::model::{self, Model, Side};
use super::play::{FILE_MIB, same};
use crate::demo::results::Results;
use crate::demo::source::Source;
use crate::error::{Error, Result};
use crate::process::{self, Running, Stderr};

/// Queues of the server's port, and cores on them.
pub const QUEUES: u32 = 4;

/// The number of flows in the full test and in the short one. With 40 flows, one of four queues gets none once in
/// 25,000 runs.
const FLOWS: [u32; 2] = [64, 40];

/// The error of [`rss`] while `gannet` has only one core.
pub const NOT_BUILT: &str = "not built yet: `gannet serve` has no --cores";

/// How long the host's server may take to open its port.
const READY: Duration = Duration::from_secs(60);

/// One client after another, each from a UDP port of its own, sends a request to a server with four queues.
///
/// # Errors
/// If a client fails, or a queue or core has served none.
pub fn rss(stage: &Stage, quick: bool) -> Result<()> {
    let help = process::output("gannet", Command::new(&stage.gannet).args(["perf", "server", "--help"]))?;
    if !help.contains("--cores") {
        return Err(Error::Unmet(NOT_BUILT.into()));
    }
    let mut lab = Lab::boot(stage, &[Model::Igb], QUEUES)?;
    let last = QUEUES - 1;
    lab.serve(Model::Igb, "perf server", &format!("--cores 0-{last} --set queues={QUEUES}"))?;
    let [v4, _] = SERVER;
    let flows = FLOWS[usize::from(quick)];
    for flow in 0..flows {
        // Each process uses another UDP port.
        let more = format!("--connect {v4}:4433 --upload 512 --download 4000 --requests 4 --quiet");
        let ended = lab.client(Model::Igb, "perf client", &more);
        let ended = ended.map_err(|error| about(error, |error| format!("flow {flow} of {flows}: {error}")))?;
        same("requests", Results::parse(&ended.out).require("requests")?, 4)?;
    }
    lab.stop_server()?;
    for queue in 0..QUEUES {
        let key = format!("rx_q{queue}_packets");
        let said = lab.server.call(&counter(&key))?;
        match said.lines.first().and_then(|count| count.parse::<u64>().ok()) {
            Some(1..) => {}
            Some(0) => return Err(Error::Unmet(format!("no packet of {flows} flows came to queue {queue}"))),
            None => return Err(Error::Unmet(format!("the server's counters have no {key}"))),
        }
    }
    Ok(())
}

/// Sends a file from this machine's `vhost` port to an emulated machine's virtio device.
///
/// # Errors
/// If it does not arrive unchanged.
pub fn vhost(stage: &Stage, model: Model) -> Result<()> {
    let source = Source::random(&stage.dir, u64::from(FILE_MIB) << 20)?;
    let socket = stage.dir.join("vhost.sock");
    // Left by an earlier machine.
    let _ = std::fs::remove_file(&socket);
    let mut serve = Command::new(&stage.gannet);
    serve.args(["serve", "--port", "vhost", "--set", &format!("iface={}", socket.display())]);
    // The device is behind the machine's IOMMU and uses that IOMMU's addresses.
    serve.args(["--set", "devargs.iommu-support=true"]);
    let [v4, v6] = SERVER;
    serve.args(["--addr", &format!("{v4}/24"), "--addr", &format!("{v6}/64"), "--listen", "4433"]);
    serve.arg("--cert").arg(&stage.certs.cert).arg("--key").arg(&stage.certs.key).arg("--root").arg(&source.root);
    let log = stage.dir.join("vhost.log");
    let file = File::create(&log).map_err(Error::path("write", &log))?;
    let mut serve = Running::start_silently("the host's server", serve, Stderr::Log(file))?;
    serve.wait_for_line("ready", READY)?;

    let wire = format!("-chardev socket,id=vhost,path={} -netdev vhost-user,id=wire,chardev=vhost", socket.display());
    let device = format!("-device {},id=nic,netdev=wire,romfile=,addr={}", model.device(), model::slot(0));
    let devices = vec![wire, device];
    let spec = Spec { name: "guest", cpus: 1, memory: 1536, huge: 400, shared: true, devices };
    let mut guest = Guest::start(&stage.parts, &spec, &stage.initrd, &stage.dir)?;
    guest.boot()?;
    let port = Lab::port_of(&mut guest, model, 0, Side::Client)?;
    let get = format!("gannet get {port} --ca /ca.pem --sha256 -o /tmp/got/file https://{v4}:4433/file");
    guest.run(JOB, &get)?;
    let ended = guest.wait(JOB)?;
    serve.must_run()?;
    let ended = ended.success("client")?;
    let told: String = Results::parse(&ended.out).require("sha256")?;
    if told != source.sha256 {
        return Err(Error::Unmet(format!("{} was sent, and {told} came", source.sha256)));
    }
    serve.stop()
}
