//! memif, and vhost with virtio-user: shared memory between processes.

use gannet::datapath::Datapath as _;
use gannet::dpdk::Queue;

use crate::support::*;

/// One side of a pair: what it opens, and what it does then.
struct Side {
    profile: &'static str,
    sets: Vec<(&'static str, String)>,
}

impl Side {
    fn run(&self, work: impl FnOnce(&mut Queue)) {
        let eal = eal();
        let sets: Vec<(&str, &str)> = self.sets.iter().map(|(k, v)| (*k, v.as_str())).collect();
        let (port, mut queue) = open(&eal, &profile(self.profile, &sets));
        say("open");
        eventually("the link", || queue.link_up());
        say("up");
        work(&mut queue);
        say("done");
        until_told();
        // Nobody polls any more: what is still in use is in the device's rings.
        drop((queue, port, eal));
        say("closed");
    }
}

/// Runs the echoing `server` and the asking `client` in a process each.
fn pair(test: &str, server: &Side, client: &Side, traffic: &Traffic) {
    let (server_case, client_case) = (format!("{test}/server"), format!("{test}/client"));
    match std::env::var("GANNET_DPDK_CASE") {
        Ok(case) if case == server_case => return server.run(|q| echo(q, traffic.count)),
        Ok(case) if case == client_case => return client.run(|q| round_trips(q, traffic)),
        _ => {}
    }
    let mut one = Peer::start(test, &server_case);
    one.expect("open");
    let mut two = Peer::start(test, &client_case);
    two.expect("done");
    one.expect("done");
    // The client first, so that the server sees it go.
    two.close_input();
    two.expect("closed");
    two.finish();
    one.close_input();
    one.expect("closed");
    one.finish();
}

/// A socket that both children of this process agree on, wherever in the tree they are.
fn socket(name: &str) -> (Option<tempfile::TempDir>, String) {
    const DIR: &str = "GANNET_DPDK_DIR";
    match std::env::var(DIR) {
        Ok(dir) => (None, path(dir.as_ref(), name)),
        Err(_) => {
            let dir = scratch();
            // SAFETY: the test runner was told to run one thread per process, or this is only read by our children.
            unsafe { std::env::set_var(DIR, dir.path()) };
            let at = path(dir.path(), name);
            (Some(dir), at)
        }
    }
}

fn memif(test: &str, extra: &[(&'static str, &str)], mtu: u16, count: u32) {
    let (_dir, socket) = socket("memif.sock");
    let side = |role: &str, extra: &[(&'static str, &str)]| {
        let mut sets =
            vec![("devargs.socket", socket.clone()), ("devargs.role", role.to_owned()), ("mtu", mtu.to_string())];
        sets.extend(extra.iter().map(|(k, v)| (*k, (*v).to_owned())));
        Side { profile: "memif", sets }
    };
    pair(test, &side("server", &[]), &side("client", extra), &Traffic { count, mtu, window: 512 });
    if _dir.is_some() {
        assert!(!std::path::Path::new(&socket).exists(), "the server removes its socket");
    }
}

#[test]
fn memif_pair() {
    memif("shared_memory::memif_pair", &[], 1500, 10_000);
}
