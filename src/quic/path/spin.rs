//! The latency spin bit (RFC 9000 §17.4), by which the network can measure round-trip times.

use crate::base::Side;
use crate::base::rng::Rng;

/// The spin bit in the first byte of a short header.
const SPIN_BIT: u8 = 0x20;

/// One in this many paths does not spin, whatever the setting (RFC 9000 §17.4).
const EXEMPT: u64 = 16;

/// Whether a path's bit spins; otherwise, its value means nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Off,
    On,
    /// It spins, but the packet that is being handled has changed the ID of the path: its own bit belongs to the former
    /// one.
    Restarted,
}

/// The spin bit on one path.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spin {
    state: State,
    /// The setting, for other paths.
    enabled: bool,
    side: Side,
    /// The bit in packets to be sent, at its place.
    bit: u8,
}

impl Spin {
    /// Of a new path, at the `side` of a connection. The bit may spin if `enabled`; otherwise, its value is random for each
    /// path, as is the ID.
    pub(crate) fn new(side: Side, enabled: bool, rng: &mut Rng) -> Self {
        let on = enabled && rng.below(EXEMPT) != 0;
        let bit = if on || rng.chance(500) { 0 } else { SPIN_BIT };
        Self { state: if on { State::On } else { State::Off }, enabled, side, bit }
    }

    /// Of another path of the same connection.
    pub(crate) fn of_new_path(&self, rng: &mut Rng) -> Self {
        Self::new(self.side, self.enabled, rng)
    }

    /// Of packets on a path that is probed, before the connection moves there.
    pub(crate) fn of_probes(&self) -> Self {
        Self { bit: if self.is_on() { 0 } else { self.bit }, ..*self }
    }

    /// A packet that is being handled has changed the ID that packets are sent to: the bit begins at 0 again, or at another
    /// random value if it does not spin (RFC 9000 §17.4).
    pub(crate) fn restart(&mut self, rng: &mut Rng) {
        self.bit = if self.is_on() || rng.chance(500) { 0 } else { SPIN_BIT };
        if self.is_on() {
            self.state = State::Restarted;
        }
    }

    /// The bit in packets to be sent.
    #[inline(always)]
    pub(crate) fn bits(self) -> u8 {
        self.bit
    }

    /// Whether received values matter.
    #[inline(always)]
    pub(crate) fn is_on(self) -> bool {
        self.state != State::Off
    }

    /// Handles the first byte of the packet with the highest number so far: a server reflects its bit, and a client inverts
    /// it.
    pub(crate) fn on_packet(&mut self, first: u8) {
        match self.state {
            State::Off => {}
            State::On => {
                let invert = if self.side == Side::Client { SPIN_BIT } else { 0 };
                self.bit = (first & SPIN_BIT) ^ invert;
            }
            State::Restarted => self.state = State::On,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bit_changes_once_per_round_trip() {
        let mut rng = Rng::from_u64(1);
        let [mut client, mut server] = [Side::Client, Side::Server].map(|side| {
            std::iter::from_fn(|| Some(Spin::new(side, true, &mut rng))).find(|spin| spin.is_on()).unwrap()
        });
        assert_eq!((client.bits(), server.bits()), (0, 0));
        let mut seen = Vec::new();
        for _ in 0..4 {
            server.on_packet(0x47 | client.bits());
            server.on_packet(0x40 | client.bits());
            seen.push(server.bits());
            client.on_packet(0x43 | server.bits());
        }
        assert_eq!(seen, [0, SPIN_BIT, 0, SPIN_BIT]);
    }

    /// RFC 9000 §17.4: "An endpoint resets the spin value for a network path to 0 when changing the connection ID being used
    /// on that network path."
    #[test]
    fn the_bit_restarts_with_another_id() {
        let mut rng = Rng::from_u64(1);
        let new = |rng: &mut Rng| Spin::new(Side::Server, true, rng);
        let mut spin = std::iter::from_fn(|| Some(new(&mut rng))).find(|spin| spin.is_on()).unwrap();
        spin.on_packet(0x40 | SPIN_BIT);
        assert_eq!((spin.bits(), spin.of_probes().bits()), (SPIN_BIT, 0));
        spin.restart(&mut rng);
        assert_eq!(spin.bits(), 0);
        spin.on_packet(0x40 | SPIN_BIT);
        assert_eq!(spin.bits(), 0, "the packet that changed the ID");
        spin.on_packet(0x40 | SPIN_BIT);
        assert_eq!(spin.bits(), SPIN_BIT, "the next one");
        let mut off = Spin::new(Side::Server, false, &mut rng);
        let set = (0..1000).filter(|_| {
            off.restart(&mut rng);
            assert_eq!(off.of_probes().bits(), off.bits());
            off.bits() != 0
        });
        let set = set.count();
        assert!((400..600).contains(&set), "random: {set} of 1000");
    }

    #[test]
    fn some_paths_do_not_spin_and_none_if_that_is_off() {
        let mut rng = Rng::from_u64(1);
        let spins: Vec<_> = (0..3200).map(|_| Spin::new(Side::Client, true, &mut rng)).collect();
        let still = spins.iter().filter(|spin| !spin.is_on()).count();
        assert!((150..250).contains(&still), "one in 16: {still} of 3200");
        let mut off: Vec<_> = (0..1000).map(|_| Spin::new(Side::Server, false, &mut rng)).collect();
        let set = off.iter().filter(|spin| spin.bits() != 0).count();
        assert!((400..600).contains(&set), "random: {set} of 1000");
        for spin in &mut off {
            let before = spin.bits();
            spin.on_packet(0x40 | before ^ SPIN_BIT);
            assert_eq!(spin.bits(), before, "received values are ignored");
        }
        assert!((0..100).all(|_| !off[0].of_new_path(&mut rng).is_on()));
        let moved = (0..100).map(|_| spins[0].of_new_path(&mut rng)).filter(|spin| spin.is_on()).count();
        assert!(moved > 80);
    }
}
