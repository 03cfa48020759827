//! Each case runs in a process of its own: DPDK can be initialised only once in a process.

use std::env;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use gannet::datapath::{BURST, Burst, Datapath, RxFrame as _, TxFrame as _};
use gannet::dpdk::{Eal, EalConfig, Hugepages, Port, PortError, PortProfile, Queue};

const CASE: &str = "GANNET_DPDK_CASE";
const DIR: &str = "GANNET_DPDK_DIR";
/// Nothing here takes longer, whatever else the machine does.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs `body` in a child process: this test again, told to do the work.
pub fn isolated(name: &str, body: impl FnOnce()) {
    if env::var(CASE).is_ok_and(|c| c == name) {
        return body();
    }
    let mut child = Peer::start(name, name, Path::new("/nonexistent"));
    child.close_input();
    let status = child.wait();
    assert!(status.success(), "case {name}: {status}");
}

/// What this process is to run and where its files go, when it is a child.
pub fn assignment() -> Option<(String, PathBuf)> {
    Some((env::var(CASE).ok()?, env::var_os(DIR)?.into()))
}

/// Another process of the same test, with standard input and output as a control channel.
pub struct Peer {
    name: String,
    child: Child,
    input: Option<ChildStdin>,
    output: Option<BufReader<ChildStdout>>,
}

impl Peer {
    /// The test function `test` as a child that runs the body for `case`, with `dir` for its files.
    pub fn start(test: &str, case: &str, dir: &Path) -> Self {
        let mut command = Command::new(env::current_exe().unwrap());
        command.args([test, "--exact", "--nocapture", "--test-threads=1"]).env(CASE, case).env(DIR, dir);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (input, output) = (child.stdin.take(), child.stdout.take().map(BufReader::new));
        Self { name: case.to_owned(), child, input, output }
    }

    /// Blocks until the child has said `word`; its end of output is a failure.
    pub fn expect(&mut self, word: &str) {
        let mut line = String::new();
        loop {
            line.clear();
            let n = self.output.as_mut().unwrap().read_line(&mut line).unwrap();
            assert!(n > 0, "{} ended before it said {word:?}", self.name);
            if line.trim() == word {
                return;
            }
            print!("  [{}] {line}", self.name);
        }
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().is_ok_and(|status| status.is_none())
    }

    pub fn close_input(&mut self) {
        self.input = None;
    }

    /// Lets the child finish, and kills it when it does not.
    pub fn wait(&mut self) -> ExitStatus {
        self.close_input();
        let mut output = self.output.take().unwrap();
        let reader = std::thread::spawn(move || {
            let mut text = String::new();
            output.read_to_string(&mut text).map(|_| text).unwrap_or_default()
        });
        let start = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            if start.elapsed() > PATIENCE {
                self.child.kill().unwrap();
                break self.child.wait().unwrap();
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        for line in reader.join().unwrap().lines() {
            println!("  [{}] {line}", self.name);
        }
        status
    }

    pub fn finish(mut self) {
        let status = self.wait();
        assert!(status.success(), "{}: {status}", self.name);
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|s| s.is_none()) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Tells the parent something.
pub fn say(word: &str) {
    println!("\n{word}");
    std::io::stdout().flush().unwrap();
}

/// Blocks until the parent lets go (or is gone).
pub fn until_told() {
    let mut rest = Vec::new();
    let _ = std::io::stdin().read_to_end(&mut rest);
}

/// A new directory that lives as long as the guard.
pub fn scratch() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("gannet-dpdk-").tempdir().unwrap()
}

pub fn sets(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

pub fn profile(name: &str, pairs: &[(&str, &str)]) -> PortProfile {
    PortProfile::load(name, &sets(pairs)).unwrap_or_else(|e| panic!("{e}"))
}

/// An environment that needs nothing set up on the machine; with GANNET_TEST_HUGEPAGES set, one from hugepages.
pub fn eal() -> Eal {
    eal_with(EalConfig::default())
}

pub fn eal_with(config: EalConfig) -> Eal {
    start(config, env::var_os("GANNET_TEST_HUGEPAGES").is_some())
}

/// One for zero-copy memif, which needs hugepages since DPDK 25.11.
pub fn eal_for_zero_copy() -> Eal {
    let release = Eal::version();
    let mut numbers = release.trim_start_matches("DPDK ").split('.').map(|n| n.parse::<u32>().unwrap());
    let newer = (numbers.next(), numbers.next()) >= (Some(25), Some(11));
    start(EalConfig::default(), newer || env::var_os("GANNET_TEST_HUGEPAGES").is_some())
}

fn start(config: EalConfig, huge: bool) -> Eal {
    let hugepages = if huge { Hugepages::Require } else { Hugepages::Never };
    Eal::init(&EalConfig { hugepages, memory_mb: 384, ..config }).unwrap_or_else(|e| panic!("{e}"))
}

pub fn open(eal: &Eal, profile: &PortProfile) -> (Port, Queue) {
    let mut port = Port::open(eal, profile).unwrap_or_else(|e| panic!("{e}"));
    let queue = port.take_queues().remove(0);
    (port, queue)
}

pub fn refused(eal: &Eal, profile: &PortProfile) -> PortError {
    match Port::open(eal, profile) {
        Ok(port) => panic!("{} opened", port.name()),
        Err(error) => error,
    }
}

/// Polls `done` until it holds.
pub fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < PATIENCE, "{what} did not happen");
        std::thread::yield_now();
    }
}

/// Frame `n`, `len` bytes: addresses, an experimental EtherType, the number, and a pattern that depends on both.
pub fn pattern(n: u32, len: usize) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x88, 0xb5];
    frame.extend(n.to_be_bytes());
    frame.extend((frame.len()..len).map(|i| (i as u32).wrapping_mul(31).wrapping_add(n.wrapping_mul(7)) as u8));
    frame
}

/// The number of a frame made by [`pattern`], if it is one and of another's making none.
pub fn number(frame: &[u8]) -> Option<u32> {
    (frame.len() >= 18 && frame[12..14] == [0x88, 0xb5]).then(|| u32::from_be_bytes(frame[14..18].try_into().unwrap()))
}

/// Lengths from 64 bytes to the largest frame for `mtu`, mixed.
pub fn length(n: u32, mtu: u16) -> usize {
    let largest = usize::from(mtu) + 14;
    match n % 8 {
        0 => 64,
        1 => largest,
        k => 64 + (n as usize * 97 + k as usize) % (largest - 64),
    }
}

/// A frame with these bytes as its payload. `None` if no frame is free.
pub fn filled<D: Datapath>(queue: &mut D, bytes: &[u8]) -> Option<D::Tx> {
    let mut frame = queue.tx_alloc()?;
    frame.payload_mut()[..bytes.len()].copy_from_slice(bytes);
    frame.set_payload_len(bytes.len());
    Some(frame)
}

/// Puts frame `n` into `burst`, half of it as payload and half prepended as headers would be.
pub fn make(queue: &mut Queue, burst: &mut Burst<<Queue as Datapath>::Tx>, n: u32, len: usize) -> bool {
    let Some(mut frame) = queue.tx_alloc() else { return false };
    let bytes = pattern(n, len);
    let (head, body) = bytes.split_at(42);
    frame.payload_mut()[..body.len()].copy_from_slice(body);
    frame.set_payload_len(body.len());
    frame.prepend(28).copy_from_slice(&head[14..]);
    frame.prepend(14).copy_from_slice(&head[..14]);
    assert_eq!(frame.data(), bytes);
    burst.push(frame);
    true
}

/// Sends `count` frames and takes in what comes back to `check`, until it has seen enough.
pub struct Traffic {
    pub count: u32,
    pub mtu: u16,
    /// Frames that may be on their way.
    pub window: u32,
}

/// What a receiver has seen.
#[derive(Default)]
pub struct Seen {
    pub frames: u32,
    pub bytes: u64,
}

impl Seen {
    /// Receives a burst: every frame is the next one, intact.
    pub fn receive(&mut self, queue: &mut Queue, mtu: u16) {
        let mut burst = Burst::new();
        queue.rx_burst(&mut burst);
        for frame in &mut burst {
            let Some(n) = number(frame.data_mut()) else { continue };
            assert_eq!(n, self.frames, "a frame was lost, doubled or reordered");
            assert!(frame.data_mut() == pattern(n, length(n, mtu)), "frame {n} is damaged");
            self.frames += 1;
            self.bytes += frame.data_mut().len() as u64;
        }
        queue.release(&mut burst);
        assert!(burst.is_empty());
    }
}

impl Traffic {
    /// From `tx` to `rx`, both in this process.
    pub fn run(&self, tx: &mut Queue, rx: &mut Queue) {
        let (mut burst, mut next, mut seen) = (Burst::new(), 0, Seen::default());
        eventually("the arrival of all frames", || {
            while next < self.count && next - seen.frames < self.window && burst.len() < BURST {
                if !make(tx, &mut burst, next, length(next, self.mtu)) {
                    break;
                }
                next += 1;
            }
            tx.tx_burst(&mut burst);
            seen.receive(rx, self.mtu);
            seen.frames == self.count
        });
        let sent: u64 = (0..self.count).map(|n| length(n, self.mtu) as u64).sum();
        assert_eq!(seen.bytes, sent);
        assert_eq!((tx.stats().tx_frames, tx.stats().tx_bytes), (u64::from(self.count), sent));
    }
}

/// Sends back everything that comes in, until it has been `count` test frames.
pub fn echo(queue: &mut Queue, count: u32) {
    let (mut rx, mut tx, mut done) = (Burst::new(), Burst::new(), 0);
    eventually("the arrival of all frames", || {
        queue.rx_burst(&mut rx);
        // Room in `tx` first: what the ring did not take has to go before anything new.
        for mut frame in rx.drain(..) {
            let Some(n) = number(frame.data_mut()) else { continue };
            while tx.is_full() {
                queue.tx_burst(&mut tx);
            }
            tx.push(filled(queue, frame.data_mut()).expect("a free frame"));
            assert_eq!(n, done);
            done += 1;
        }
        queue.tx_burst(&mut tx);
        done == count && tx.is_empty()
    });
}

/// Sends `count` frames to an [`echo`] and checks what comes back.
pub fn round_trips(queue: &mut Queue, traffic: &Traffic) {
    let (mut burst, mut next, mut seen) = (Burst::new(), 0, Seen::default());
    eventually("the return of all frames", || {
        while next < traffic.count && next - seen.frames < traffic.window && burst.len() < BURST {
            if !make(queue, &mut burst, next, length(next, traffic.mtu)) {
                break;
            }
            next += 1;
        }
        queue.tx_burst(&mut burst);
        seen.receive(queue, traffic.mtu);
        seen.frames == traffic.count
    });
}

/// All buffers are at rest again.
pub fn assert_no_leak(port: &Port) {
    let (rest, all) = port.buffers();
    assert_eq!(rest, all, "buffers of {} are missing", port.name());
}

pub fn path(dir: &Path, name: &str) -> String {
    let path: PathBuf = dir.join(name);
    path.to_str().unwrap().to_owned()
}
