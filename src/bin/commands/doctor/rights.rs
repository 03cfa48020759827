//! Checks of permissions.

use gannet::report::machine::field;

use super::{Finding, Status, Tree};

const AREA: &str = "Permissions";

/// User and capabilities of this process.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rights {
    /// Effective user ID; `None` if unknown.
    pub(super) uid: Option<u32>,
    /// Effective capabilities, as a bit set.
    caps: u64,
}

impl Rights {
    // Bit numbers, from capabilities(7).
    pub(super) const NET_ADMIN: u32 = 12;
    pub(super) const NET_RAW: u32 = 13;
    pub(super) const IPC_LOCK: u32 = 14;

    pub(super) fn read(tree: &Tree) -> Self {
        let status = tree.read("proc/self/status").unwrap_or_default();
        // Real, effective, saved, file system user.
        let uid = field(&status, "Uid").and_then(|v| v.split_whitespace().nth(1)?.parse().ok());
        let caps = field(&status, "CapEff").and_then(|v| u64::from_str_radix(v, 16).ok()).unwrap_or(0);
        Self { uid, caps }
    }

    pub(super) fn has(&self, cap: u32) -> bool {
        self.caps >> cap & 1 == 1
    }

    pub(super) fn check(&self) -> Vec<Finding> {
        let user = match self.uid {
            Some(0) => Finding::new(AREA, "user", Status::Ok, "root"),
            Some(uid) => Finding::new(
                AREA,
                "user",
                Status::Note,
                format!("{uid}, not root: memif and vhost ports work, some others need capabilities"),
            ),
            None => Finding::new(AREA, "user", Status::Note, "unknown"),
        };
        let caps = [
            (Self::NET_ADMIN, "CAP_NET_ADMIN", "af-xdp and tap ports"),
            (Self::NET_RAW, "CAP_NET_RAW", "af-packet and af-xdp ports"),
            (Self::IPC_LOCK, "CAP_IPC_LOCK", "buffers beyond the locked memory limit"),
        ];
        // setcap replaces earlier settings, so one command sets all.
        let remedy = "sudo setcap cap_net_raw,cap_net_admin,cap_ipc_lock+ep $(command -v gannet)   # or run as root";
        let last = caps.iter().map(|(bit, ..)| *bit).filter(|bit| !self.has(*bit)).max();
        let cap = |(bit, name, needed): (u32, &str, &str)| {
            if self.has(bit) {
                return Finding::new(AREA, name, Status::Ok, "held");
            }
            let f = Finding::new(AREA, name, Status::Warn, format!("not held; needed for {needed}"));
            if last == Some(bit) { f.remedy(remedy) } else { f }
        };
        std::iter::once(user).chain(caps.map(cap)).collect()
    }
}
