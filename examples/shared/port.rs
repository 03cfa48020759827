//! A DPDK port with one queue, polled by this thread.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use gannet::api::*;
use gannet::datapath::Datapath;
use gannet::dpdk::{Claim, Eal, EalConfig, Port, PortProfile, Queue};

use super::Failure;

/// An open port.
pub struct OpenPort {
    /// Its MTU.
    pub mtu: u16,
    /// Its address.
    pub addr: Cidr,
    queue: Queue,
    /// Declared before `eal`, which it refers to.
    _port: Port,
    _claim: Claim,
    eal: Eal,
}

impl OpenPort {
    /// Initialises DPDK and opens the port of a profile.
    pub fn new(profile: &str, sets: &[(String, String)], addr: Cidr) -> Result<Self, Failure> {
        let profile = PortProfile::load(profile, sets)?.for_cores(1)?;
        let claim = profile.claim(&[addr.addr()])?;
        let eal = Eal::init(&EalConfig::for_profiles(std::slice::from_ref(&profile)))?;
        if let Some(warning) = eal.warning() {
            eprintln!("warning: {warning}");
        }
        let mut port = Port::open(&eal, &profile)?;
        let queue = port.take_queues().into_iter().next().ok_or("the port has no queue")?;
        Ok(Self { mtu: queue.caps().mtu, addr, queue, _port: port, _claim: claim, eal })
    }

    /// Runs `app` on a core until it is done, or until SIGINT or SIGTERM. A second signal ends the process.
    pub fn run<A: App>(self, config: CoreConfig, app: A) -> Result<A, Failure> {
        let stop = Arc::new(AtomicBool::new(false));
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
            signal_hook::flag::register_conditional_shutdown(signal, 130, stop.clone())?;
            signal_hook::flag::register(signal, stop.clone())?;
        }
        let _registered = self.eal.register_thread()?;
        let mut core = Core::new(self.queue, config, app)?;
        core.run(&stop)?;
        Ok(core.into_app())
    }
}
