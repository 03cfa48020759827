//! What is tried with a NIC.

use std::fmt;

use clap::ValueEnum;

use super::model::Model;

/// A step, in the order in which they are played.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Step {
    /// Both ports open and have a link
    LinkUp,
    /// A request over IPv4 and one over IPv6, whose neighbours had to be asked for
    Neighbours,
    /// 20 handshakes
    Handshake,
    /// 1,000 requests with their answers
    Requests,
    /// 16 MB to the server
    Upload,
    /// A file of 64 MB, whose SHA-256 is compared
    Get,
    /// The same MTU of 9000 at both ends, and packets of that size
    Mtu9000,
    /// SIGTERM: the server ends with 0 and has complained about nothing
    CleanStop,
    /// The link is down for 2 s in mid-transfer
    LinkFlap,
    /// The link is down for 0.5, 2 or 5 s in the handshake, at either end
    HandshakeFlap,
    /// The link goes down and stays down
    LinkDown,
    /// 128 flows over 4 queues with a core each, at both ends; each comes to the queue that was predicted
    Rss,
    /// 128 flows over one queue, spread over 4 cores
    Spread,
    /// The NIC is unplugged under load
    Unplug,
    /// The other end is a `vhost` port of this machine
    Vhost,
}

impl Step {
    /// All of them.
    pub const ALL: [Self; 15] = [
        Self::LinkUp,
        Self::Neighbours,
        Self::Handshake,
        Self::Requests,
        Self::Upload,
        Self::Get,
        Self::Mtu9000,
        Self::CleanStop,
        Self::LinkFlap,
        Self::HandshakeFlap,
        Self::LinkDown,
        Self::Rss,
        Self::Spread,
        Self::Unplug,
        Self::Vhost,
    ];

    /// Why it is not played with `model`, or `None` if it is.
    pub fn left_out(self, model: Model) -> Option<&'static str> {
        let packed = model == Model::VirtioPacked;
        match self {
            Self::LinkFlap if packed => Some(
                "QEMU 10.0 itself never sends again after a link failure under load: having dropped what is in a packed \
                 queue, it leaves the queue's notifications off",
            ),
            Self::HandshakeFlap if packed => Some("see link-flap"),
            Self::HandshakeFlap if matches!(model, Model::E1000 | Model::Vmxnet3) => {
                Some("what the engines do is the same as with e1000e, igb and virtio-split")
            }
            Self::Rss if model == Model::Vmxnet3 => Some("QEMU puts all packets into its first queue"),
            Self::Rss if matches!(model, Model::E1000 | Model::E1000e) => Some("its driver has one queue"),
            Self::Rss if model != Model::Igb => Some("QEMU gives it several queues only on a tap"),
            Self::Spread if model == Model::Igb => Some("it has a queue for each core: see rss"),
            Self::Vhost if !matches!(model, Model::VirtioSplit | Model::VirtioPacked) => Some("it is no virtio device"),
            _ => None,
        }
    }

    /// Whether it is played with `model`.
    pub fn suits(self, model: Model) -> bool {
        self.left_out(model).is_none()
    }

    /// Whether it needs a machine of its own, with another device.
    pub const fn is_apart(self) -> bool {
        matches!(self, Self::Vhost)
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.to_possible_value();
        f.write_str(value.as_ref().map_or("", clap::builder::PossibleValue::get_name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_played_in_their_order() {
        assert!(Step::ALL.is_sorted());
        assert_eq!(Step::ALL.len(), Step::value_variants().len());
        assert_eq!(Step::Mtu9000.to_string(), "mtu9000");
    }

    #[test]
    fn every_step_has_a_model_and_unplugging_comes_last_in_a_lab() {
        for step in Step::ALL {
            assert!(Model::ALL.iter().any(|model| step.suits(*model)), "{step}");
        }
        let in_lab: Vec<_> = Step::ALL.into_iter().filter(|step| !step.is_apart()).collect();
        assert_eq!(in_lab.last(), Some(&Step::Unplug));
    }
}
