//! Checks before DPDK is called, so that errors can say what to do.

use std::fs;
use std::io::{self, ErrorKind, Read as _};
use std::os::unix::fs::FileTypeExt as _;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::dpdk::error::PortError;
use crate::dpdk::host;
use crate::dpdk::iova::{bind_remedy, no_iommu_remedy};
use crate::dpdk::profile::{Kind, PortProfile};
use crate::dpdk::sockets;

/// Sockets that ports of this process listen on; several memif interfaces may share one.
static LISTENING: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// Checks the interface, permissions, files and sockets. Returns the socket that the port will listen on, for
/// [`listen_end`].
pub(super) fn before(profile: &PortProfile) -> Result<Option<PathBuf>, PortError> {
    permission(profile)?;
    if profile.driver() == "net_memif" && profile.memif_buffer() <= profile.rx_buffer() {
        return Err(PortError::MemifBuffer { size: profile.memif_buffer(), room: profile.rx_buffer() });
    }
    for key in profile.driver.keys.iter().filter(|k| k.kind == Kind::Iface) {
        if let Some(iface) = profile.devarg(key.name) {
            interface(profile, iface)?;
        }
    }
    queues(profile)?;
    files(profile)?;
    let Some((key, path, listening)) = socket_role(profile) else { return Ok(None) };
    let refuse = |reason| PortError::SocketPath { path: path.to_owned(), reason };
    sockets::check_folder(path, listening, profile.peer_uid).map_err(refuse)?;
    if listening {
        if let Some(folder) = path.parent().filter(|folder| *folder == sockets::runtime_dir()) {
            remove_stale(folder, STALE);
        }
        return listen_start(path, key).map(Some);
    }
    connectable(path)?;
    sockets::check_owner(path, profile.peer_uid).map_err(refuse)?;
    Ok(None)
}

/// The socket of a profile: its key, its path, and whether we listen on it.
fn socket_role(profile: &PortProfile) -> Option<(&'static str, &Path, bool)> {
    let path = |key| profile.devarg(key).map(Path::new);
    match profile.driver() {
        "net_memif" if profile.devarg("socket-abstract") == Some("yes") => None,
        "net_memif" => Some(("socket", path("socket")?, profile.devarg("role") == Some("server"))),
        "net_virtio_user" => {
            let at = path("path")?;
            let device = fs::metadata(at).is_ok_and(|m| m.file_type().is_char_device());
            (!device).then_some(("path", at, profile.devarg("server") == Some("1")))
        }
        // A vhost client keeps trying by itself.
        "net_vhost" if profile.devarg("client") == Some("1") => None,
        "net_vhost" => Some(("iface", path("iface")?, true)),
        _ => None,
    }
}

/// Returns whether somebody listens on the socket. Connects with the wrong socket type: a live listener refuses that
/// with a distinct error, and does not notice.
fn listener(path: &Path) -> io::Result<bool> {
    match UnixDatagram::unbound()?.connect(path) {
        Ok(()) => Ok(true),
        Err(e) if e.raw_os_error() == Some(libc::EPROTOTYPE) => Ok(true),
        Err(e) if matches!(e.kind(), ErrorKind::ConnectionRefused | ErrorKind::NotFound) => Ok(false),
        Err(e) => Err(e),
    }
}

/// A socket that nobody listens on is stale once it is this old; a newer one may be about to be listened on.
const STALE: Duration = Duration::from_secs(10);

/// Removes sockets in our own directory that killed processes have left.
fn remove_stale(folder: &Path, age: Duration) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let old = |meta: &fs::Metadata| meta.modified().is_ok_and(|at| at.elapsed().is_ok_and(|passed| passed >= age));
        let socket = entry.metadata().is_ok_and(|meta| meta.file_type().is_socket() && old(&meta));
        if socket && listener(&entry.path()).is_ok_and(|listens| !listens) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

fn listen_start(path: &Path, key: &'static str) -> Result<PathBuf, PortError> {
    let problem = |reason: String| PortError::SocketPath { path: path.to_owned(), reason };
    let mut ours = LISTENING.lock().unwrap_or_else(PoisonError::into_inner);
    if !ours.iter().any(|p| p == path) {
        match fs::symlink_metadata(path) {
            Ok(meta) if !meta.file_type().is_socket() => {
                return Err(problem("it exists and is not a socket; remove it or choose another path".to_owned()));
            }
            Ok(_) if listener(path).map_err(|e| problem(e.to_string()))? => {
                return Err(PortError::SocketInUse { path: path.to_owned(), key });
            }
            // Left behind by a process that did not clean up.
            Ok(_) => fs::remove_file(path).map_err(|e| problem(format!("cannot remove the stale socket: {e}")))?,
            Err(e) if e.kind() == ErrorKind::NotFound => directory(path).map_err(problem)?,
            Err(e) => return Err(problem(e.to_string())),
        }
    }
    ours.push(path.to_owned());
    Ok(path.to_owned())
}

/// The reason why the driver reports only that the other side of its socket hung up: that side has another peer.
pub(super) fn after(profile: &PortProfile) -> Option<PortError> {
    match socket_role(profile) {
        Some((key, path, false)) if profile.driver() == "net_virtio_user" && hangs_up(path) => {
            Some(PortError::SocketTaken { path: path.to_owned(), key })
        }
        _ => None,
    }
}

/// Returns whether the listener at `path` hangs up on new connections.
fn hangs_up(path: &Path) -> bool {
    let Ok(mut stream) = UnixStream::connect(path) else { return false };
    let _ = stream.set_read_timeout(Some(Duration::from_millis(500)));
    match stream.read(&mut [0]) {
        Ok(bytes) => bytes == 0,
        Err(e) => e.kind() == ErrorKind::ConnectionReset,
    }
}

/// Notes that a port no longer listens.
pub(super) fn listen_end(path: Option<&Path>) {
    let mut ours = LISTENING.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(at) = ours.iter().position(|p| Some(p.as_path()) == path) {
        ours.swap_remove(at);
    }
}

fn directory(path: &Path) -> Result<(), String> {
    let dir = path.parent().filter(|d| !d.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if dir.is_dir() { Ok(()) } else { Err(format!("directory {} does not exist; create it", dir.display())) }
}

fn connectable(path: &Path) -> Result<(), PortError> {
    match listener(path) {
        Ok(true) => Ok(()),
        Ok(false) => Err(PortError::NoServer { path: path.to_owned() }),
        Err(e) => Err(PortError::SocketPath { path: path.to_owned(), reason: e.to_string() }),
    }
}

fn files(profile: &PortProfile) -> Result<(), PortError> {
    if profile.driver() != "net_pcap" {
        return Ok(());
    }
    if let Some(path) = profile.devarg("rx_pcap") {
        fs::File::open(path).map_err(|e| PortError::File { path: path.into(), reason: e.to_string() })?;
    }
    if let Some(path) = profile.devarg("tx_pcap") {
        directory(Path::new(path)).map_err(|reason| PortError::File { path: path.into(), reason })?;
    }
    Ok(())
}

fn permission(profile: &PortProfile) -> Result<(), PortError> {
    let Some(capability) = profile.driver.capability else { return Ok(()) };
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    match effective(&status) {
        Some(have) if have & bits(capability) != bits(capability) => {
            Err(PortError::Permission { profile: profile.name.clone(), capability })
        }
        _ => Ok(()),
    }
}

/// The effective capabilities in the text of `/proc/self/status`.
fn effective(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|l| l.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

fn bits(names: &str) -> u64 {
    let bit = |name| match name {
        "cap_net_admin" => 1 << 12,
        "cap_net_raw" => 1 << 13,
        "cap_bpf" => 1 << 39,
        _ => 0u64,
    };
    names.split(',').map(bit).sum()
}

fn interface(profile: &PortProfile, iface: &str) -> Result<(), PortError> {
    let mtu = host::mtu(iface)
        .ok_or_else(|| PortError::NoInterface { profile: profile.name.clone(), iface: iface.to_owned() })?;
    if mtu < u32::from(profile.mtu) {
        return Err(PortError::InterfaceMtu { iface: iface.to_owned(), have: mtu, want: profile.mtu });
    }
    Ok(())
}

/// The most queues of an af-packet port (`RTE_PMD_AF_PACKET_MAX_RINGS`), which its driver does not report.
const PACKET_QUEUES: u16 = 16;

/// Checks the number of queues where the driver only fails to create the device. Most drivers report theirs.
fn queues(profile: &PortProfile) -> Result<(), PortError> {
    let (port, max) = match (profile.driver(), profile.queues_of_interface()) {
        ("net_af_packet", _) => (profile.driver(), PACKET_QUEUES),
        (_, Some((iface, first))) => {
            let all = host::channels(iface).unwrap_or(1);
            (iface, u16::try_from(all.saturating_sub(first)).unwrap_or(u16::MAX))
        }
        _ => return Ok(()),
    };
    let want = profile.queues;
    if want > max { Err(PortError::Queues { port: port.to_owned(), max, want }) } else { Ok(()) }
}

/// The reason why a PCI device did not become a port.
pub(super) fn pci_reason(device: &str) -> String {
    let dir = Path::new("/sys/bus/pci/devices").join(device);
    if !dir.exists() {
        return "there is no such device; `dpdk-devbind.py -s` lists all devices".to_owned();
    }
    let driver = fs::read_link(dir.join("driver")).ok();
    let driver = driver.as_deref().and_then(Path::file_name).map(|n| n.to_string_lossy().into_owned());
    match driver.as_deref() {
        None => format!("no kernel driver is bound:\n{}", bind_remedy(Path::new("/sys"), device)),
        Some("vfio-pci") if !dir.join("iommu_group").exists() => {
            format!(
                "it has no IOMMU group, so vfio-pci cannot make it available:\n{}",
                no_iommu_remedy(Path::new("/sys"), device)
            )
        }
        Some("vfio-pci" | "uio_pci_generic" | "igb_uio") => {
            "DPDK did not accept it; it must be passed to EAL at start (EalConfig::pci), as root or with access to \
             /dev/vfio, and the profile has to name its driver"
                .to_owned()
        }
        Some(other) => format!(
            "it is bound to {other} (correct for mlx5 only, which needs rdma-core):\n{}",
            bind_remedy(Path::new("/sys"), device)
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    #[test]
    fn sockets_in_use_stale_and_absent() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        assert!(matches!(connectable(&path), Err(PortError::NoServer { .. })));
        let server = UnixListener::bind(&path).unwrap();
        assert!(connectable(&path).is_ok());
        assert!(matches!(listen_start(&path, "socket"), Err(PortError::SocketInUse { .. })));
        drop(server);
        assert!(matches!(connectable(&path), Err(PortError::NoServer { .. })), "a stale socket is no server");
        let mine = listen_start(&path, "socket").unwrap();
        assert!(!path.exists(), "the stale socket is gone");
        let _server = UnixListener::bind(&path).unwrap();
        let again = listen_start(&path, "socket");
        assert!(again.is_ok(), "a second port of this process may share its socket");
        for p in [Some(mine), again.ok()] {
            listen_end(p.as_deref());
        }
        assert!(matches!(listen_start(&path, "socket"), Err(PortError::SocketInUse { .. })));
    }

    /// Sockets that killed processes have left are removed when the next process starts, whatever name it listens on.
    #[test]
    fn stale_sockets_of_all_names_go() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let _alive = UnixListener::bind(at("alive")).unwrap();
        drop(UnixListener::bind(at("dead")).unwrap());
        fs::write(at("file"), "").unwrap();
        remove_stale(dir.path(), STALE);
        assert!(at("dead").exists(), "it may be about to be listened on");
        remove_stale(dir.path(), Duration::ZERO);
        let mut left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["alive", "file"]);
        remove_stale(&at("nowhere"), Duration::ZERO);
    }

    #[test]
    fn paths_that_cannot_be_sockets() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("f");
        fs::write(&file, "x").unwrap();
        let text = |p: &Path| listen_start(p, "socket").unwrap_err().to_string();
        assert!(text(&file).contains("not a socket"));
        assert!(file.exists());
        assert!(text(&dir.path().join("no/s")).contains("does not exist; create it"));
    }

    #[test]
    fn capabilities() {
        assert_eq!(effective("Name:\tx\nCapEff:\t0000000000002000\n"), Some(bits("cap_net_raw")));
        assert_eq!(bits("cap_net_admin,cap_net_raw"), 0x3000);
        assert_eq!(effective(""), None);
    }
}
