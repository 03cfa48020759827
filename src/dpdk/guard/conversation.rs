//! Validates the messages of a memif peer on its control socket, and their order.
//!
//! DPDK's driver trusts much of what a peer says: it maps regions of whatever size is announced, reads rings wherever
//! the peer says they are (or, if it does not say, where those of the previous peer were), counts rings that are added
//! twice, and leaks files that come with messages that need none. Each of these ends the process, or leaks until
//! something else does. So every message is checked here before the driver sees it; a rejected peer appears to the
//! driver like one that has hung up.
//!
//! The protocol is described in VPP's `src/plugins/memif/memif.h`; DPDK's version is in `drivers/net/memif/memif.h`.

/// The size of every message, in bytes.
pub(super) const MESSAGE: usize = 128;

/// The maximum number of regions per connection (`ETH_MEMIF_MAX_REGION_NUM`).
const MAX_REGIONS: usize = 256;
/// The log2 of the largest ring size (`ETH_MEMIF_MAX_LOG2_RING_SIZE`).
const MAX_LOG2: u8 = 14;
/// The sizes of a ring's header and of a descriptor, in bytes.
const RING_HEAD: u64 = 128;
const DESCRIPTOR: u64 = 16;

const ACK: u16 = 1;
const HELLO: u16 = 2;
pub(super) const INIT: u16 = 3;
pub(super) const ADD_REGION: u16 = 4;
pub(super) const ADD_RING: u16 = 5;
pub(super) const CONNECT: u16 = 6;
pub(super) const CONNECTED: u16 = 7;
const DISCONNECT: u16 = 8;

/// Where the text of a disconnect message begins.
const TEXT: usize = 6;

/// What a client with another number of queues than ours reads after "the server refused us".
fn unequal(queues: u16) -> String {
    let number = if queues == 1 { "1 queue".into() } else { format!("{queues} queues") };
    format!("it has {number}, and both ends need as many: use `--cores any:{queues}` here")
}

/// How many queues a server takes from its clients, if the message says so. Only for messages that were accepted.
pub(super) fn taken_queues(message: &[u8; MESSAGE]) -> Option<u32> {
    // Behind the name, two versions and the number of regions come the highest ring numbers of both directions.
    let most = u16_at(message, 40).min(u16_at(message, 42));
    (u16_at(message, 0) == HELLO).then(|| u32::from(most) + 1)
}

/// Returns whether the message carries a region's file.
pub(super) fn is_region(message: &[u8; MESSAGE]) -> bool {
    u16_at(message, 0) == ADD_REGION
}

/// The reason given in a disconnect message, if this is one. Only for messages that were accepted.
pub(super) fn farewell(message: &[u8; MESSAGE]) -> Option<String> {
    // A code that the drivers do not use follows the type.
    let text = message[TEXT..TEXT + 96].split(|&byte| byte == 0).next().unwrap_or_default();
    let text = String::from_utf8_lossy(text).replace(char::is_control, " ");
    (u16_at(message, 0) == DISCONNECT).then_some(text)
}

/// A file that came with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct File {
    /// The file's size in bytes.
    pub(super) len: u64,
    /// It is sealed against shrinking.
    pub(super) sealed: bool,
}

/// Our end of the socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// We listen; the peer provides the memory.
    Server,
    /// We connected; we provide the memory.
    Client,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    New,
    /// The peer has introduced itself.
    Met,
    Connected,
}

/// The location of a ring, up to the end of its descriptors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Extent {
    region: u16,
    end: u64,
}

/// The state of one connection.
#[derive(Debug)]
pub(super) struct Conversation {
    side: Side,
    stage: Stage,
    /// The number of rings that the driver will use, in each direction.
    queues: u16,
    regions: Vec<u64>,
    /// Rings from client to server, and from server to client.
    rings: [Vec<Option<Extent>>; 2],
    /// The peer has fewer or more queues than we have.
    unequal: bool,
}

/// The reason for rejecting a message.
pub(super) type Refusal = &'static str;

impl Conversation {
    pub(super) fn new(side: Side) -> Self {
        Self {
            side,
            stage: Stage::New,
            queues: 0,
            regions: Vec::new(),
            rings: [Vec::new(), Vec::new()],
            unequal: false,
        }
    }

    /// What the peer should hear before its connection ends, for its operator to read: the server that it is connected to
    /// would take each packet several times, or never look at some of its rings.
    pub(super) fn parting(&self) -> Option<[u8; MESSAGE]> {
        let text = unequal(self.queues);
        let mut message = [0; MESSAGE];
        message[..2].copy_from_slice(&DISCONNECT.to_le_bytes());
        message[TEXT..TEXT + text.len()].copy_from_slice(text.as_bytes());
        self.unequal.then_some(message)
    }

    /// Returns whether we connected, rather than listen.
    pub(super) fn is_client(&self) -> bool {
        self.side == Side::Client
    }

    /// Returns whether frames can flow.
    pub(super) fn connected(&self) -> bool {
        self.stage == Stage::Connected
    }

    /// Checks a message and the files that came with it. Ensures that texts in it end with a NUL, which the driver
    /// relies on. `queues` returns the number of queues of an interface by its ID; the driver itself rejects unknown
    /// interfaces.
    ///
    /// # Errors
    /// The reason why the driver must not see the message.
    pub(super) fn hear(
        &mut self,
        message: &mut [u8; MESSAGE],
        files: &[File],
        queues: impl FnOnce(u32) -> Option<u16>,
    ) -> Result<(), Refusal> {
        let kind = u16_at(message, 0);
        let wanted = usize::from(matches!(kind, ADD_REGION | ADD_RING));
        if files.len() != wanted {
            return Err("unexpected files, or a missing file");
        }
        match (self.side, self.stage, kind) {
            (_, Stage::Met | Stage::Connected, ACK | DISCONNECT) | (Side::Client, Stage::New, DISCONNECT) => {
                message[6 + 95] = 0;
                Ok(())
            }
            (Side::Client, Stage::New, HELLO) => {
                message[2 + 31] = 0;
                self.stage = Stage::Met;
                Ok(())
            }
            (Side::Client, Stage::Met, CONNECTED) => {
                message[2 + 31] = 0;
                self.stage = Stage::Connected;
                Ok(())
            }
            (Side::Server, Stage::New, INIT) => {
                message[33 + 31] = 0;
                let id = u32::from_le_bytes([message[4], message[5], message[6], message[7]]);
                self.queues = queues(id).unwrap_or(0);
                self.stage = Stage::Met;
                Ok(())
            }
            (Side::Server, Stage::Met, ADD_REGION) => self.add_region(message, files[0]),
            (Side::Server, Stage::Met, ADD_RING) => self.add_ring(message),
            (Side::Server, Stage::Met, CONNECT) => {
                message[2 + 31] = 0;
                self.connect()
            }
            _ => Err("a message that is unexpected here"),
        }
    }

    fn add_region(&mut self, message: &[u8; MESSAGE], file: File) -> Result<(), Refusal> {
        let index = usize::from(u16_at(message, 2));
        let size = u64::from_le_bytes(std::array::from_fn(|i| message[4 + i]));
        if index != self.regions.len() || index >= MAX_REGIONS {
            return Err("a region out of order");
        }
        if size == 0 || size > file.len {
            return Err("a region larger than its file");
        }
        if index == 0 && !file.sealed {
            // It contains rings. A page cut off under a poll loop would kill the process.
            return Err("a region with rings in a file that can shrink");
        }
        self.regions.push(size);
        Ok(())
    }

    fn add_ring(&mut self, message: &[u8; MESSAGE]) -> Result<(), Refusal> {
        let (flags, index, region) = (u16_at(message, 2), usize::from(u16_at(message, 4)), u16_at(message, 6));
        let offset = u32::from_le_bytes([message[8], message[9], message[10], message[11]]);
        let log2 = message[12];
        if self.queues > 0 && index >= usize::from(self.queues) {
            self.unequal = true;
            return Err("more rings than there are queues");
        }
        if self.queues == 0 || log2 > MAX_LOG2 || !offset.is_multiple_of(4) {
            return Err("a ring with an invalid number, size or location");
        }
        let rings = &mut self.rings[usize::from(flags & 1 == 0)];
        rings.resize(usize::from(self.queues), None);
        if rings[index].is_some() {
            return Err("a ring added twice");
        }
        rings[index] = Some(Extent { region, end: u64::from(offset) + RING_HEAD + (DESCRIPTOR << log2) });
        Ok(())
    }

    /// Checks all rings, which the driver uses from now on. A ring that this peer did not announce would be where a
    /// previous peer's was, in memory that is gone.
    fn connect(&mut self) -> Result<(), Refusal> {
        let fits = |e: &Extent| self.regions.get(usize::from(e.region)).is_some_and(|&size| e.end <= size);
        for rings in &self.rings {
            if rings.is_empty() || rings.iter().any(Option::is_none) {
                self.unequal = !self.rings.iter().any(Vec::is_empty);
                return Err("fewer rings than there are queues");
            }
            if !rings.iter().flatten().all(fits) {
                return Err("a ring outside its region");
            }
        }
        self.stage = Stage::Connected;
        Ok(())
    }
}

pub(super) fn u16_at(message: &[u8; MESSAGE], at: usize) -> u16 {
    u16::from_le_bytes([message[at], message[at + 1]])
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: File = File { len: 1 << 20, sealed: true };

    fn message(kind: u16, rest: &[u8]) -> [u8; MESSAGE] {
        let mut message = [0xff; MESSAGE];
        message[..2].copy_from_slice(&kind.to_le_bytes());
        message[2..2 + rest.len()].copy_from_slice(rest);
        message
    }

    fn region(index: u16, size: u64) -> [u8; MESSAGE] {
        message(ADD_REGION, &[&index.to_le_bytes()[..], &size.to_le_bytes()].concat())
    }

    fn ring(c2s: bool, index: u16, region: u16, offset: u32, log2: u8) -> [u8; MESSAGE] {
        let flags = u16::from(c2s).to_le_bytes();
        let place = [&region.to_le_bytes()[..], &offset.to_le_bytes(), &[log2]].concat();
        message(ADD_RING, &[&flags[..], &index.to_le_bytes(), &place].concat())
    }

    fn talk(side: Side, said: &[([u8; MESSAGE], &[File])]) -> Result<bool, Refusal> {
        let mut conversation = Conversation::new(side);
        for (message, files) in said {
            conversation.hear(&mut message.clone(), files, |id| (id == 7).then_some(1))?;
        }
        Ok(conversation.connected())
    }

    fn init() -> [u8; MESSAGE] {
        message(INIT, &[0, 2, 7, 0, 0, 0, 0])
    }

    #[test]
    fn an_ordinary_client_and_an_ordinary_server_are_heard() {
        let second = (RING_HEAD + (DESCRIPTOR << 10)) as u32;
        let said: [([u8; MESSAGE], &[File]); 5] = [
            (init(), &[]),
            (region(0, 2 * u64::from(second)), &[FILE]),
            (ring(true, 0, 0, 0, 10), &[FILE]),
            (ring(false, 0, 0, second, 10), &[FILE]),
            (message(CONNECT, b"name"), &[]),
        ];
        assert_eq!(talk(Side::Server, &said), Ok(true));
        let said: [([u8; MESSAGE], &[File]); 4] = [
            (message(HELLO, b"name"), &[]),
            (message(ACK, &[]), &[]),
            (message(CONNECTED, b"name"), &[]),
            (message(DISCONNECT, b"bye"), &[]),
        ];
        assert_eq!(talk(Side::Client, &said), Ok(true));
    }

    #[test]
    fn texts_end() {
        for (side, kind, last) in [(Side::Server, INIT, 64), (Side::Client, HELLO, 33), (Side::Client, DISCONNECT, 101)]
        {
            let mut message = message(kind, &[]);
            Conversation::new(side).hear(&mut message, &[], |_| None).unwrap();
            assert_eq!(message[last], 0);
        }
    }

    /// A server with more queues than its client would read the same ring at several of them, and get each packet as many
    /// times. The client was cut off without a word.
    #[test]
    fn a_peer_with_another_number_of_queues_hears_the_right_one() {
        let talk = |queues: u16, rings: &[(bool, u16)]| {
            let mut conversation = Conversation::new(Side::Server);
            let mut hear = |mut message: [u8; MESSAGE], files: &[File]| {
                conversation.hear(&mut message, files, |_| Some(queues)).is_ok()
            };
            let mut fine = hear(init(), &[]) && hear(region(0, 1 << 20), &[FILE]);
            for &(c2s, index) in rings {
                fine = fine && hear(ring(c2s, index, 0, 0, 0), &[FILE]);
            }
            fine = fine && hear(message(CONNECT, b""), &[]);
            (fine, conversation.parting().and_then(|message| farewell(&message)))
        };
        let two = [(true, 0), (true, 1), (false, 0), (false, 1)];
        assert_eq!(talk(2, &two), (true, None));
        let word = |queues| Some(unequal(queues));
        assert_eq!(talk(4, &two), (false, word(4)));
        assert_eq!(talk(1, &two), (false, word(1)));
        assert_eq!(talk(4, &[]), (false, None), "no rings at all are another matter");
        assert!(word(u16::MAX).is_some_and(|text| text.len() < 96));
        let mut hello = message(HELLO, &[0; 42]);
        hello[40] = 3;
        hello[42] = 7;
        assert_eq!((taken_queues(&hello), taken_queues(&init())), (Some(4), None));
    }

    #[test]
    fn what_the_driver_must_not_hear() {
        let ok = (region(0, 4096), &[FILE][..]);
        let [c2s, s2c] = [true, false].map(|c2s| (ring(c2s, 0, 0, 0, 0), &[FILE][..]));
        let connect = (message(CONNECT, b""), &[][..]);
        let init = (init(), &[][..]);
        let cases: &[&[([u8; MESSAGE], &[File])]] = &[
            &[connect],
            &[(message(ACK, &[]), &[])],
            &[(message(HELLO, &[]), &[])],
            &[init, init],
            &[(init.0, &[FILE])],
            &[init, (message(9, &[]), &[])],
            &[init, (message(DISCONNECT, &[]), &[FILE])],
            &[init, (region(0, 4096), &[])],
            &[init, (region(0, 4096), &[FILE, FILE])],
            &[init, (region(1, 4096), &[FILE])],
            &[init, ok, ok],
            &[init, (region(0, (1 << 20) + 1), &[FILE])],
            &[init, (region(0, 0), &[FILE])],
            &[init, (region(0, 4096), &[File { sealed: false, ..FILE }])],
            // Without a region, without a ring, without the other ring.
            &[init, connect],
            &[init, ok, connect],
            &[init, ok, c2s, connect],
            // Outside the region, and in a region that does not exist.
            &[init, (region(0, 64), &[FILE]), c2s, s2c, connect],
            &[init, ok, (ring(true, 0, 0, 4096, 0), &[FILE]), s2c, connect],
            &[init, ok, (ring(true, 0, 0, 0, 10), &[FILE]), s2c, connect],
            &[init, ok, c2s, (ring(false, 0, 300, 0, 0), &[FILE]), connect],
            &[init, ok, (ring(true, 0, 0, 2, 0), &[FILE])],
            &[init, ok, (ring(true, 0, 0, 0, 15), &[FILE])],
            &[init, ok, (ring(true, 1, 0, 0, 0), &[FILE])],
            &[init, ok, c2s, c2s],
            &[init, ok, c2s, s2c, connect, (region(1, 4096), &[FILE])],
            &[init, ok, c2s, s2c, connect, c2s],
            // An interface that we do not have has no rings.
            &[(message(INIT, &[0, 2, 8, 0, 0, 0, 0]), &[]), ok, c2s],
        ];
        for (n, said) in cases.iter().enumerate() {
            assert!(talk(Side::Server, said).is_err(), "case {n}");
            // It is the last message that is refused.
            assert!(talk(Side::Server, &said[..said.len() - 1]).is_ok(), "case {n}");
        }
        for said in [&[message(CONNECTED, &[])][..], &[message(HELLO, &[]), message(HELLO, &[])], &[init.0]] {
            let said: Vec<_> = said.iter().map(|m| (*m, &[][..])).collect();
            assert!(talk(Side::Client, &said).is_err());
        }
    }
}
