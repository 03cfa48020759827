//! The step that needs a machine of its own: a port of this machine is the other end.

use std::fs::File;
use std::process::Command;
use std::time::Duration;

use super::guest::{Guest, Spec};
use super::lab::{JOB, Lab, SERVER, Stage};
use super::model::{self, Model, Side};
use super::play::FILE_MIB;
use crate::demo::results::Results;
use crate::demo::source::Source;
use crate::error::{Error, Result};
use crate::process::{Running, Stderr};

/// How long the host's server may take to open its port.
const READY: Duration = Duration::from_secs(60);

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
