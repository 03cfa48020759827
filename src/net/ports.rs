//! The set of open UDP ports.

#[derive(Clone, Debug)]
pub(super) struct Ports {
    /// A bit per port; `None` for all.
    open: Option<Box<[u64; 1024]>>,
}

impl Ports {
    pub(super) fn new(open: Option<&[u16]>) -> Self {
        let mut this = Self { open: open.map(|_| Box::new([0; 1024])) };
        for port in open.unwrap_or(&[]) {
            this.set(*port, true);
        }
        this
    }

    pub(super) fn is_open(&self, port: u16) -> bool {
        self.open.as_ref().is_none_or(|bits| bits[usize::from(port >> 6)] >> (port & 63) & 1 != 0)
    }

    /// Opens or closes a port. No effect if all are open.
    pub(super) fn set(&mut self, port: u16, open: bool) {
        if let Some(bits) = &mut self.open {
            let (word, bit) = (&mut bits[usize::from(port >> 6)], 1 << (port & 63));
            if open { *word |= bit } else { *word &= !bit }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_opened() {
        let mut ports = Ports::new(Some(&[443, 65535, 0]));
        let open = |ports: &Ports| (0..=u16::MAX).filter(|p| ports.is_open(*p)).collect::<Vec<_>>();
        assert_eq!(open(&ports), [0, 443, 65535]);
        ports.set(443, false);
        ports.set(64, true);
        assert_eq!(open(&ports), [0, 64, 65535]);
        let mut all = Ports::new(None);
        all.set(1, false);
        assert!(all.is_open(1));
    }
}
