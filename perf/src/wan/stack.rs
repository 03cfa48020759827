//! The stacks that are compared, each with each of its congestion control algorithms.

use std::net::{Ipv4Addr, SocketAddr};

use gannet::quic::CongestionAlgorithm;

use super::end::End;
use super::own::{self, GannetEnd};
use super::quinn::{self, QuinnEnd};
use super::settings::{Acks, Receiver, Windows};
use crate::Failure;

/// A stack and its congestion control algorithm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stack {
    /// Gannet.
    Gannet(CongestionAlgorithm),
    /// quinn.
    Quinn(quinn::Algorithm),
}

impl Stack {
    /// Gannet with CUBIC.
    pub const GANNET_CUBIC: Self = Self::Gannet(CongestionAlgorithm::Cubic);
    const GANNET_BBR: Self = Self::Gannet(CongestionAlgorithm::Bbr);
    /// quinn with CUBIC.
    pub const QUINN_CUBIC: Self = Self::Quinn(quinn::Algorithm::Cubic);
    /// quinn with NewReno.
    const QUINN_NEWRENO: Self = Self::Quinn(quinn::Algorithm::NewReno);

    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::GANNET_CUBIC,
        Self::GANNET_BBR,
        Self::Gannet(CongestionAlgorithm::NewReno),
        Self::QUINN_CUBIC,
        Self::Quinn(quinn::Algorithm::Bbr),
        Self::QUINN_NEWRENO,
    ];

    /// Its name in keys.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gannet(CongestionAlgorithm::Cubic) => "gannet.cubic",
            Self::Gannet(CongestionAlgorithm::Bbr) => "gannet.bbr",
            Self::Gannet(CongestionAlgorithm::NewReno) => "gannet.newreno",
            Self::Quinn(quinn::Algorithm::Cubic) => "quinn.cubic",
            Self::Quinn(quinn::Algorithm::Bbr) => "quinn.bbr",
            Self::Quinn(quinn::Algorithm::NewReno) => "quinn.newreno",
        }
    }

    /// The stack with this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|stack| stack.name() == name)
    }

    /// Whether the scenario with this name and these windows compares this stack. Windows are the stacks' own affair,
    /// whatever the algorithm.
    pub fn is_in(self, name: &str, windows: Windows) -> bool {
        match windows {
            Windows::Wide => {
                let few = ["clean_100m", "loss_100m_20ms"];
                self != Self::QUINN_NEWRENO || few.iter().any(|few| name.starts_with(few))
            }
            Windows::Default => [Self::GANNET_CUBIC, Self::GANNET_BBR, Self::QUINN_CUBIC].contains(&self),
            Windows::Memory(_) | Windows::Provided | Windows::Serve => {
                [Self::GANNET_CUBIC, Self::GANNET_BBR].contains(&self)
            }
        }
    }

    /// Whether its runs are the same each time. quinn's BBR begins its cycles at moments chosen by the system's random
    /// numbers.
    pub fn is_deterministic(self) -> bool {
        self != Self::Quinn(quinn::Algorithm::Bbr)
    }

    /// Both ends of connection `number`: the client, which receives, and the server, which sends `bytes`.
    ///
    /// # Errors
    /// If the settings are rejected.
    pub fn ends(
        self,
        windows: Windows,
        receiver: Receiver,
        number: u8,
        seed: u64,
        bytes: u64,
    ) -> Result<[Box<dyn End>; 2], Failure> {
        let client = SocketAddr::from((Ipv4Addr::new(10, 0, 1, number + 1), 50_000));
        let server = SocketAddr::from((Ipv4Addr::new(10, 0, 2, number + 1), 4433));
        let ours = |seed, algorithm, acks: Option<Acks>, local, remote| own::Settings {
            seed,
            algorithm,
            windows,
            acks,
            local,
            remote,
            bytes,
        };
        let peer = |seed, algorithm, remote| quinn::Settings { seed, algorithm, windows, remote, bytes };
        let usual = |acks| GannetEnd::client(&ours(seed, CongestionAlgorithm::default(), acks, client, server));
        let receiver: Box<dyn End> = match (receiver, self) {
            (Receiver::Rare(acks), _) => Box::new(usual(Some(acks))?),
            (Receiver::Own, Self::Gannet(_)) => Box::new(usual(None)?),
            _ => Box::new(QuinnEnd::client(&peer(seed, quinn::Algorithm::Cubic, server))?),
        };
        let sender: Box<dyn End> = match self {
            Self::Gannet(algorithm) => Box::new(GannetEnd::server(&ours(!seed, algorithm, None, server, client))?),
            Self::Quinn(algorithm) => Box::new(QuinnEnd::server(&peer(!seed, algorithm, client))?),
        };
        Ok([receiver, sender])
    }
}
