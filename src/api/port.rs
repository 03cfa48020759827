//! Real ports for groups of cores (feature `dpdk`).

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use crate::base::cpus::pin;
use crate::datapath::Caps;
use crate::datapath::steering::{client_ports, first_client_port};
use crate::dpdk::{
    Claim, Eal, EalConfig, MAX_CORES, Port, PortError, PortProfile, Queue, RingExchange, RxMbuf, SpreadQueue,
    ThreadGuard, far_cpus, mesh,
};
use crate::net::Cidr;
use crate::quic::EndpointConfig;
use crate::runtime::{App, CoreConfig, Failure, Group, GroupError, Makers, Place};

/// An open port with everything that a [`Group`] of cores needs to run on it: DPDK is started, the port has a queue
/// pair for each core, rings connect the cores, and each core has a CPU. There can be one per process, as DPDK can be
/// started only once.
///
/// ```no_run
/// use gannet::api::*;
///
/// struct Sink;
///
/// impl App for Sink {
///     fn on_event(&mut self, _: &mut Context<'_>, conn: ConnId, event: Event) {
///         println!("{conn}: {event:?}");
///     }
/// }
///
/// # fn serve(server: ServerConfig) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
/// let addr: Cidr = "10.77.0.1/24".parse()?;
/// // One core on each of the CPUs 2 to 5.
/// let port = CorePort::open("af-packet", &[("iface", "eth1")], &[addr], &[2, 3, 4, 5])?;
/// let group = port.group(endpoint_config()?);
/// port.run(group, |place| Ok((CoreConfig::new(addr, place.endpoint).serving(4433, server.clone()), Sink)))?;
/// # Ok(())
/// # }
/// ```
pub struct CorePort {
    queues: Queues,
    mesh: Vec<RingExchange<RxMbuf>>,
    cpus: Vec<usize>,
    port: Port,
    /// Dropped after the port that uses the addresses.
    _claim: Claim,
    eal: Eal,
}

/// The queues of the cores.
enum Queues {
    /// A queue pair for each core.
    Own(Vec<Queue>),
    /// A share of the only queue pair for each core.
    Shared(Vec<SpreadQueue>),
}

impl CorePort {
    /// Starts DPDK and opens the port of `profile`, which is the name or the path of a port profile, with `settings`
    /// ([`PortProfile::load`]) and a queue pair for each of `cpus`, the CPUs that the cores are to run on. `addrs` are
    /// the addresses that the cores will have: on a port that shares an interface with the kernel, the kernel must not
    /// have them.
    ///
    /// # Errors
    /// If the port cannot be opened with these settings, or has fewer queues. See [`CorePort::open_spread`] for ports with
    /// a single queue.
    pub fn open(profile: &str, settings: &[(&str, &str)], addrs: &[Cidr], cpus: &[usize]) -> Result<Self, Failure> {
        let cores = core_count(cpus)?;
        let settings = load_settings(settings).chain([("queues".to_owned(), cores.to_string())]).collect::<Vec<_>>();
        let profile = PortProfile::load(profile, &settings)?.for_cores(cores.into())?;
        Self::with(&profile, addrs, cpus, |_, port| Ok(Queues::Own(port.take_queues())))
    }

    /// The same for a port with one queue pair: the first core polls it and spreads what it receives over all cores.
    /// The engine and the application, which take most of the time, thus run on all cores.
    ///
    /// # Errors
    /// As [`CorePort::open`].
    pub fn open_spread(
        profile: &str,
        settings: &[(&str, &str)],
        addrs: &[Cidr],
        cpus: &[usize],
    ) -> Result<Self, Failure> {
        if cpus.len() == 1 {
            return Self::open(profile, settings, addrs, cpus);
        }
        let settings = load_settings(settings).collect::<Vec<_>>();
        let cores = core_count(cpus)?;
        let profile = PortProfile::load(profile, &settings)?.spread_over(cores.into())?;
        Self::with(&profile, addrs, cpus, |eal, port| Ok(Queues::Shared(port.take_spread(eal)?)))
    }

    fn with(
        profile: &PortProfile,
        addrs: &[Cidr],
        cpus: &[usize],
        take: impl FnOnce(&Eal, &mut Port) -> Result<Queues, Failure>,
    ) -> Result<Self, Failure> {
        let addrs: Vec<IpAddr> = addrs.iter().map(Cidr::addr).collect();
        let claim = profile.claim(&addrs)?;
        let eal = Eal::init(&EalConfig::for_profiles(std::slice::from_ref(profile)))?;
        let mut port = Port::open(&eal, profile)?;
        let queues = take(&eal, &mut port)?;
        if let Some(warning) = far_cpus(port.node(), cpus.iter().copied()) {
            tracing::warn!("{warning}");
        }
        let mesh = mesh(&eal, core_count(cpus)?, port.node())?;
        Ok(Self { queues, mesh, cpus: cpus.to_vec(), port, _claim: claim, eal })
    }

    /// The port's capabilities.
    pub fn caps(&self) -> Caps {
        self.port.caps()
    }

    /// The port, to read its counters, for example.
    pub fn port(&self) -> &Port {
        &self.port
    }

    /// `each` UDP ports for each core to open connections to `remote` from, for [`CoreConfig::client_ports`]. `local` is
    /// the address that the port will use. Answers arrive at the core that sends, if it can be known how the device
    /// steers packets; otherwise, they may arrive at another core, which hands them over.
    ///
    /// # Errors
    /// If the system provides no random numbers: the first port is random.
    pub fn client_ports(&self, local: IpAddr, remote: SocketAddr, each: u16) -> Result<Vec<Vec<u16>>, Failure> {
        let cores = self.cpus.len() as u16;
        Ok(client_ports(self.port.steering().as_ref(), (cores, each), local, remote, first_client_port()?))
    }

    /// A group of as many cores as the port was opened for, with the secrets and limits of `endpoint`.
    pub fn group(&self, endpoint: EndpointConfig) -> Group {
        Group::new(self.cpus.len() as u8, endpoint)
    }

    /// Runs `group` on the port; see [`Group::run`]. The thread of each core is pinned to its CPU.
    ///
    /// # Errors
    /// As [`Group::run`], and if a core cannot run on its CPU.
    ///
    /// # Panics
    /// As [`Group::run`].
    pub fn run<A: App + Send>(
        self,
        group: Group,
        make: impl Fn(Place) -> Result<(CoreConfig, A), Failure> + Sync,
    ) -> Result<Vec<A>, GroupError> {
        let enter = |core: u8| -> Result<ThreadGuard, Failure> {
            pin(self.cpus[usize::from(core)])?;
            Ok(self.eal.register_thread()?)
        };
        let crew = Makers { enter, make };
        match self.queues {
            Queues::Own(queues) => group.run_crew(queues, self.mesh, &crew),
            Queues::Shared(queues) => group.run_crew(queues, self.mesh, &crew),
        }
    }
}

impl fmt::Debug for CorePort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CorePort").field("port", &self.port.name()).field("cpus", &self.cpus).finish_non_exhaustive()
    }
}

fn load_settings<'a>(settings: &'a [(&str, &str)]) -> impl Iterator<Item = (String, String)> + 'a {
    settings.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
}

/// The number of cores for `cpus`.
fn core_count(cpus: &[usize]) -> Result<u8, Failure> {
    match u8::try_from(cpus.len()) {
        Ok(cores @ 1..=MAX_CORES) => Ok(cores),
        _ => {
            let want = u16::try_from(cpus.len()).unwrap_or(u16::MAX);
            Err(PortError::Cores { want, max: MAX_CORES.into() }.into())
        }
    }
}
