//! An emulated machine: QEMU's process, the shell of the guest on a serial port, and QEMU's monitor.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use super::parts::Parts;
use crate::error::{Error, Result};
use crate::interrupt::{self, pause};
use crate::process::{Running, Stderr};

/// How often waits check what they are waiting for.
const POLL: Duration = Duration::from_millis(100);

/// How often the guest is asked how far a command is: emulated CPUs are slow, so not often.
const ASK: Duration = Duration::from_millis(500);

/// Booting takes 8 s on an idle machine.
const BOOT: Duration = Duration::from_secs(300);

/// How long the shell may take to execute a line.
const CALL: Duration = Duration::from_secs(120);

/// A command in the guest that writes nothing to its output or its files for this long is considered hung.
const SILENCE: Duration = Duration::from_secs(120);

/// The maximum duration of a command in the guest, whatever it writes.
const LONGEST: Duration = Duration::from_secs(900);

/// The properties of a machine.
#[derive(Debug)]
pub struct Spec {
    /// Its name in messages and file names.
    pub name: &'static str,
    /// The number of CPUs.
    pub cpus: u32,
    /// Memory in MiB.
    pub memory: u32,
    /// The number of 2 MiB hugepages in that memory.
    pub huge: u32,
    /// Whether a vhost-user process can map its memory.
    pub shared: bool,
    /// Devices, as QEMU's arguments.
    pub devices: Vec<String>,
}

/// A running machine, which is killed when this is dropped.
pub struct Guest {
    name: &'static str,
    process: Running,
    shell: UnixStream,
    /// Output of the shell that is not yet a whole line.
    pending: Vec<u8>,
    /// The number of the last line; answers carry the number of their line.
    number: u32,
    monitor: PathBuf,
    /// Whether it no longer answers.
    lost: bool,
}

/// The result of a line for the shell.
#[derive(Debug)]
pub struct Reply {
    /// The exit code.
    pub code: i32,
    /// Standard output and standard error.
    pub lines: Vec<String>,
}

/// How a command in the guest ended.
#[derive(Debug)]
pub struct Ended {
    /// The exit code; 128 plus the signal's number if a signal ended it.
    pub code: i32,
    /// Standard output.
    pub out: Vec<String>,
    /// Standard error.
    pub err: Vec<String>,
}

impl Ended {
    /// The last line of its output, to be given as a reason.
    pub fn reason(&self) -> String {
        let last = self.err.iter().chain(&self.out).rev().find(|line| line.contains("gannet: "));
        let last = last.or(self.err.last()).or(self.out.last());
        format!("exit code {}: {}", self.code, last.map_or("it said nothing", |line| line.trim()))
    }

    /// Checks that the exit code is 0. `who` is the command's purpose in messages.
    ///
    /// # Errors
    /// If it is not.
    pub fn success(self, who: &str) -> Result<Self> {
        if self.code == 0 { Ok(self) } else { Err(Error::Unmet(format!("the {who} ended with {}", self.reason()))) }
    }
}

impl Guest {
    /// Starts a machine with the file system `initrd`. Files go to `dir`, which needs a short path for its sockets.
    ///
    /// # Errors
    /// If QEMU cannot be started, or does not open its sockets.
    pub fn start(parts: &Parts, spec: &Spec, initrd: &Path, dir: &Path) -> Result<Self> {
        let name = spec.name;
        let path = |end: &str| dir.join(format!("{name}{end}"));
        let (shell, monitor, console) = (path(".shell"), path(".qmp"), path(".console"));
        let mut command = parts.qemu();
        machine(&mut command, spec);
        command.arg("-kernel").arg(&parts.kernel).arg("-initrd").arg(initrd);
        // The guest chooses its own clock source: a forced TSC would run five times too fast.
        let kernel = "console=ttyS0 quiet panic=-1 no_timer_check intel_iommu=on iommu=pt";
        command.arg("-append").arg(format!("{kernel} huge={}", spec.huge));
        command.arg("-serial").arg(format!("file:{}", console.display()));
        command.arg("-chardev").arg(format!("socket,id=shell,path={},server=on,wait=off", shell.display()));
        command.args(["-serial", "chardev:shell"]);
        command.arg("-qmp").arg(format!("unix:{},server=on,wait=off", monitor.display()));
        for device in &spec.devices {
            command.args(device.split(' '));
        }
        let log = path(".log");
        let file = File::create(&log).map_err(Error::path("write", &log))?;
        let mut process = Running::start_silently(&format!("the emulated {name}"), command, Stderr::Log(file))?;
        let shell = connect(&shell, &mut process)?;
        Ok(Self { name, process, shell, pending: Vec::new(), number: 0, monitor, lost: false })
    }

    /// Waits until it has booted.
    ///
    /// # Errors
    /// If it does not boot, or a NIC is not bound to vfio-pci.
    pub fn boot(&mut self) -> Result<()> {
        let reply = self.answer("-", BOOT)?;
        if reply.code == 0 { Ok(()) } else { Err(self.wrong("does not boot")) }
    }

    /// Its name in messages.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Whether it no longer answers, so another one is needed.
    pub fn is_lost(&self) -> bool {
        self.lost
    }

    /// Makes the shell execute a line.
    ///
    /// # Errors
    /// If there is no answer.
    pub fn call(&mut self, line: &str) -> Result<Reply> {
        self.number += 1;
        let number = self.number.to_string();
        if let Err(source) = self.shell.write_all(format!("{number} {line}\n").as_bytes()) {
            self.lost = true;
            return Err(Error::Io { what: format!("cannot talk to the emulated {}", self.name), source });
        }
        self.answer(&number, CALL)
    }

    /// The single line with which the shell answers `line`.
    ///
    /// # Errors
    /// If there is no answer, or the line fails.
    pub fn ask(&mut self, line: &str) -> Result<String> {
        let reply = self.call(line)?;
        match (reply.code, reply.lines.first()) {
            (0, Some(answer)) => Ok(answer.clone()),
            _ => Err(self.wrong(&format!("answers `{line}` with {}", reply.lines.join("; ")))),
        }
    }

    /// Starts a command in the guest, under a name.
    ///
    /// # Errors
    /// If there is no answer.
    pub fn run(&mut self, job: &str, command: &str) -> Result<()> {
        self.call(&format!("run {job} {command}")).map(drop)
    }

    /// Sends a signal to a command in the guest.
    ///
    /// # Errors
    /// If there is no answer.
    pub fn signal(&mut self, job: &str, signal: &str) -> Result<()> {
        self.call(&format!("kill -{signal} $(cat /tmp/job/{job}.pid)")).map(drop)
    }

    /// Waits for a line of a command's output that matches `pattern`, a pattern for grep.
    ///
    /// # Errors
    /// If it ends without such a line, or writes nothing for too long.
    pub fn wait_line(&mut self, job: &str, pattern: &str) -> Result<String> {
        let until = Instant::now() + SILENCE;
        loop {
            // A command that has ended writes nothing more, so its state is checked first, then the line.
            let state = self.state(job)?;
            let reply = self.call(&format!("grep -h -m 1 '{pattern}' /tmp/job/{job}.out /tmp/job/{job}.err"))?;
            if let (0, Some(line)) = (reply.code, reply.lines.into_iter().next()) {
                return Ok(line);
            }
            if state.0.is_some() {
                let ended = self.ended(job)?;
                return Err(Error::Unmet(format!("it ended without saying `{pattern}`: {}", ended.reason())));
            }
            if Instant::now() >= until {
                return Err(Error::Unmet(format!("it did not say `{pattern}` within {} s", SILENCE.as_secs())));
            }
            pause(ASK)?;
        }
    }

    /// Waits until a command has ended.
    ///
    /// # Errors
    /// If it writes nothing for too long, in which case it is killed.
    pub fn wait(&mut self, job: &str) -> Result<Ended> {
        self.wait_within(job, LONGEST)
    }

    /// Waits until a command has ended, for at most this long.
    ///
    /// # Errors
    /// If it does not end, or writes nothing for too long, in which case it is killed.
    pub fn wait_within(&mut self, job: &str, limit: Duration) -> Result<Ended> {
        let start = Instant::now();
        let (mut written, mut at) = (0, start);
        loop {
            let (code, now) = self.state(job)?;
            if code.is_some() {
                return self.ended(job);
            }
            if now != written {
                (written, at) = (now, Instant::now());
            }
            if at.elapsed() > SILENCE || start.elapsed() > limit {
                let words = self.tail(job)?;
                self.signal(job, "KILL")?;
                let passed = start.elapsed().as_secs();
                return Err(Error::Unmet(format!("it hangs: no end after {passed} s; its last words: {words}")));
            }
            pause(ASK)?;
        }
    }

    /// Whether a command is still running.
    ///
    /// # Errors
    /// If there is no answer.
    pub fn is_running(&mut self, job: &str) -> Result<bool> {
        Ok(self.state(job)?.0.is_none())
    }

    /// Ends the command that is still running, if there is one, so that the next one can use its port.
    ///
    /// # Errors
    /// If there is no answer.
    pub fn clear(&mut self, job: &str) -> Result<()> {
        self.call(&format!("end {job}"))?;
        self.call("rm -rf /tmp/got/* /tmp/up/*").map(drop)
    }

    /// The exit code of a command if it has ended, and a number that grows while it writes.
    fn state(&mut self, job: &str) -> Result<(Option<i32>, u64)> {
        let said = self.ask(&format!("state {job}"))?;
        let words: Vec<_> = said.split(' ').collect();
        let [code, output, files] = words[..] else { return Err(self.wrong(&format!("says `{said}`"))) };
        let number = |word: &str| word.parse::<u64>().unwrap_or(0);
        Ok((code.parse().ok(), number(output) + number(files)))
    }

    fn ended(&mut self, job: &str) -> Result<Ended> {
        let code = self.ask(&format!("cat /tmp/job/{job}.rc"))?.parse().unwrap_or(-1);
        // The end of a log says most; results are shorter.
        let out = self.call(&format!("tail -n 200 /tmp/job/{job}.out"))?.lines;
        let err = self.call(&format!("tail -n 60 /tmp/job/{job}.err"))?.lines;
        Ok(Ended { code, out, err })
    }

    fn tail(&mut self, job: &str) -> Result<String> {
        Ok(self.call(&format!("tail -n 3 -q /tmp/job/{job}.err /tmp/job/{job}.out"))?.lines.join("; "))
    }

    /// Executes a command of QEMU's monitor: its name, and its arguments as JSON.
    ///
    /// # Errors
    /// If QEMU refuses it, or does not answer.
    pub fn monitor(&mut self, command: &str, arguments: &str) -> Result<()> {
        let failed =
            |source| Error::Io { what: format!("cannot use the monitor of the emulated {}", self.name), source };
        let answer = monitor(&self.monitor, command, arguments).map_err(failed)?;
        if answer.starts_with("{\"return\"") {
            return Ok(());
        }
        Err(self.wrong(&format!("refuses {command}: {answer}")))
    }

    fn answer(&mut self, number: &str, limit: Duration) -> Result<Reply> {
        let until = Instant::now() + limit;
        let (said, end) = (format!("{number} "), format!("{number} = "));
        let mut lines = Vec::new();
        loop {
            while let Some(line) = self.line() {
                if let Some(code) = line.strip_prefix(&end) {
                    return Ok(Reply { code: code.trim().parse().unwrap_or(-1), lines });
                }
                if let Some(line) = line.strip_prefix(&said) {
                    lines.push(line.to_owned());
                }
            }
            interrupt::check()?;
            if let Err(error) = self.process.must_run() {
                self.lost = true;
                return Err(error);
            }
            if Instant::now() >= until {
                self.lost = true;
                return Err(self.wrong(&format!("does not answer within {} s", limit.as_secs())));
            }
            self.receive()?;
        }
    }

    /// The next whole line, if it has arrived.
    fn line(&mut self) -> Option<String> {
        let end = self.pending.iter().position(|byte| *byte == b'\n')?;
        let line: Vec<u8> = self.pending.drain(..=end).collect();
        Some(String::from_utf8_lossy(&line).trim_end_matches(['\r', '\n']).to_owned())
    }

    fn receive(&mut self) -> Result<()> {
        let mut buffer = [0; 4096];
        match self.shell.read(&mut buffer) {
            Ok(read) => {
                self.pending.extend_from_slice(&buffer[..read]);
                if read == 0 {
                    // QEMU is ending, which will be noticed in a moment.
                    std::thread::sleep(POLL);
                }
                Ok(())
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(()),
            Err(source) => {
                self.lost = true;
                Err(Error::Io { what: format!("cannot hear the emulated {}", self.name), source })
            }
        }
    }

    fn wrong(&self, what: &str) -> Error {
        Error::Unmet(format!("the emulated {} {what}", self.name))
    }
}

/// A PC with an IOMMU, emulated: KVM is not available everywhere, and a hung guest is worse than a slow one.
fn machine(command: &mut Command, spec: &Spec) {
    let Spec { cpus, memory, .. } = spec;
    let backend = if spec.shared { ",memory-backend=ram" } else { "" };
    command.arg("-machine").arg(format!("q35,kernel-irqchip=split{backend}"));
    if spec.shared {
        command.arg("-object").arg(format!("memory-backend-memfd,id=ram,size={memory}M,share=on"));
    }
    command.args(["-accel", "tcg,thread=multi", "-nodefaults", "-display", "none", "-no-reboot"]);
    // Linux expects the time stamp counters of several CPUs to agree only if they are Intel's. Otherwise it reads the
    // time from a device, which QEMU emulates under a lock that all CPUs and NICs share: cores that poll take turns.
    command.args(["-cpu", "max,vendor=GenuineIntel"]);
    command.args(["-m", &format!("{memory}M"), "-smp", &cpus.to_string()]);
    // vfio maps memory: without caching-mode, QEMU would not see what the guest maps.
    command.args(["-device", "intel-iommu,intremap=on,caching-mode=on,device-iotlb=on"]);
}

fn connect(path: &Path, process: &mut Running) -> Result<UnixStream> {
    let until = Instant::now() + CALL;
    loop {
        interrupt::check()?;
        process.must_run()?;
        match UnixStream::connect(path) {
            Ok(stream) => {
                stream.set_read_timeout(Some(POLL)).map_err(Error::path("use", path))?;
                return Ok(stream);
            }
            Err(error) if Instant::now() >= until => return Err(Error::path("connect to", path)(error)),
            Err(_) => std::thread::sleep(POLL),
        }
    }
}

/// A command of the QEMU Machine Protocol and its answer.
fn monitor(path: &Path, command: &str, arguments: &str) -> io::Result<String> {
    let mut stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(CALL))?;
    let mut reader = io::BufReader::new(stream.try_clone()?);
    let mut answer = || {
        let mut line = String::new();
        loop {
            line.clear();
            if io::BufRead::read_line(&mut reader, &mut line)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            // Events may arrive at any time.
            if ["{\"return\"", "{\"error\"", "{\"QMP\""].iter().any(|start| line.starts_with(start)) {
                return Ok(line.trim_end().to_owned());
            }
        }
    };
    answer()?;
    stream.write_all(b"{\"execute\":\"qmp_capabilities\"}\n")?;
    answer()?;
    stream.write_all(format!("{{\"execute\":\"{command}\",\"arguments\":{arguments}}}\n").as_bytes())?;
    answer()
}

/// The last line from a machine's kernel, for messages.
pub fn console(dir: &Path, name: &str) -> String {
    let text = fs::read(dir.join(format!("{name}.console"))).unwrap_or_default();
    let text = String::from_utf8_lossy(&text).into_owned();
    let lines: Vec<_> = text.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    lines[lines.len().saturating_sub(8)..].join("\n    ")
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn reasons_are_what_gannet_said_last() {
        let lines = |said: &[&str]| said.iter().map(|line| (*line).to_owned()).collect();
        let ended = Ended { code: 1, out: lines(&["x: 1"]), err: lines(&["gannet: no link", "    more"]) };
        assert_eq!(ended.reason(), "exit code 1: gannet: no link");
        let ended = Ended { code: 3, out: lines(&["words"]), err: lines(&[]) };
        assert_eq!(ended.reason(), "exit code 3: words");
        assert_eq!(Ended { code: 0, out: lines(&[]), err: lines(&[]) }.reason(), "exit code 0: it said nothing");
    }

    #[test]
    fn the_monitor_is_asked_one_thing_and_events_are_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("qmp");
        let listener = UnixListener::bind(&path).unwrap();
        let qemu = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(b"{\"QMP\": {}}\n{\"return\": {}}\n{\"timestamp\": {}, \"event\": \"X\"}\n").unwrap();
            stream.write_all(b"{\"return\": {\"a\": 1}}\n").unwrap();
            let mut asked = String::new();
            stream.read_to_string(&mut asked).unwrap();
            asked
        });
        let answer = monitor(&path, "set_link", "{\"name\":\"nic0\",\"up\":false}").unwrap();
        assert_eq!(answer, "{\"return\": {\"a\": 1}}");
        let asked = qemu.join().unwrap();
        assert!(
            asked.ends_with("{\"execute\":\"set_link\",\"arguments\":{\"name\":\"nic0\",\"up\":false}}\n"),
            "{asked}"
        );
    }

    #[test]
    fn a_machine_has_an_iommu_and_shares_memory_only_where_asked() {
        let spec = |shared| Spec { name: "x", cpus: 1, memory: 512, huge: 1, shared, devices: Vec::new() };
        let line = |shared| {
            let mut command = Command::new("true");
            machine(&mut command, &spec(shared));
            crate::process::line(&command)
        };
        assert!(line(false).contains("intel-iommu") && !line(false).contains("memfd"));
        assert!(line(true).contains("q35,kernel-irqchip=split,memory-backend=ram"), "{}", line(true));
    }
}
