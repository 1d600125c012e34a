//! A child process that we own: started, watched, stopped by its pid, and never left behind.

use crate::wait;
use anyhow::{Context, Result, anyhow};
use rustix::process::{Pid, Signal, kill_process};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

/// What a failure shows of a log: enough for the reason, little enough to be read.
const TAIL_BYTES: u64 = 6 * 1024;
/// How long a killed process may take to be gone; the kernel does that, so this is generous.
const KILLED_WITHIN: Duration = Duration::from_secs(10);

/// A running child. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    ended: Option<ExitStatus>,
    stdout: PathBuf,
    stderr: PathBuf,
}

impl Process {
    /// Starts `command` with its output in `<dir>/<name>.stdout` and `<dir>/<name>.stderr`
    /// (appended, so that a restart keeps what the first run said).
    ///
    /// The child gets a process group of its own, so that Ctrl-C in a terminal reaches only us and
    /// we decide the order in which things end. Where `setpriv` exists, the kernel kills the child
    /// when we die ourselves.
    ///
    /// # Errors
    /// The program cannot be started, or the files not be written.
    pub fn start(name: &str, command: Command, dir: &Path) -> Result<Self> {
        let stdout = dir.join(format!("{name}.stdout"));
        let stderr = dir.join(format!("{name}.stderr"));
        let mut command = tied_to_us(command);
        command
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(append_to(&stdout)?)
            .stderr(append_to(&stderr)?);
        let program = command.get_program().to_string_lossy().into_owned();
        let child = spawn(command).with_context(|| format!("cannot start {name} ({program})"))?;
        Ok(Self { name: name.to_owned(), child, ended: None, stdout, stderr })
    }

    /// The name given at the start.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Memory that it occupies at this moment, in bytes.
    ///
    /// # Errors
    /// It has ended, or the system does not say.
    pub fn resident_bytes(&self) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()))?;
        let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).context("no VmRSS")?;
        let kib: u64 = line.trim().trim_end_matches(" kB").parse().context("VmRSS")?;
        Ok(kib * 1024)
    }

    /// How it ended; `None` while it runs.
    ///
    /// # Errors
    /// The system does not say.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait()?;
        }
        Ok(self.ended)
    }

    /// Errors when it has ended, with the end of its log.
    ///
    /// # Errors
    /// It has ended.
    pub fn must_run(&mut self) -> Result<()> {
        match self.ended()? {
            None => Ok(()),
            Some(status) => Err(anyhow!("{} ended ({status})\n{}", self.name, self.tail())),
        }
    }

    /// Waits until it has ended by itself.
    ///
    /// # Errors
    /// It still runs at the deadline.
    pub fn wait(&mut self, deadline: Duration) -> Result<ExitStatus> {
        wait::whatever_comes(&format!("end of {}", self.name), deadline, || self.ended())
    }

    /// Sends SIGTERM; does not wait. A process that has ended is left alone.
    ///
    /// # Errors
    /// The system refuses.
    pub fn terminate(&mut self) -> Result<()> {
        self.signal(Signal::TERM)
    }

    /// SIGTERM, and SIGKILL when it still runs at the deadline. How it ended.
    ///
    /// # Errors
    /// It cannot be ended at all.
    pub fn stop(&mut self, deadline: Duration) -> Result<ExitStatus> {
        self.terminate()?;
        self.wait(deadline).or_else(|_| self.kill9())
    }

    /// SIGKILL, and waits until it is gone.
    ///
    /// # Errors
    /// It cannot be ended at all.
    pub fn kill9(&mut self) -> Result<ExitStatus> {
        self.signal(Signal::KILL)?;
        self.wait(KILLED_WITHIN)
    }

    /// SIGSTOP: it exists, keeps its connections and answers nothing.
    ///
    /// # Errors
    /// The system refuses.
    pub fn freeze(&mut self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    /// SIGCONT: the end of [`Self::freeze`].
    ///
    /// # Errors
    /// The system refuses.
    pub fn thaw(&mut self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    /// What it wrote to standard output so far.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn stdout(&self) -> Result<String> {
        read(&self.stdout)
    }

    /// What it wrote to standard error so far.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn stderr(&self) -> Result<String> {
        read(&self.stderr)
    }

    /// The ends of both outputs, for messages.
    #[must_use]
    pub fn tail(&self) -> String {
        let mut text = String::new();
        for path in [&self.stdout, &self.stderr] {
            let end = tail(path);
            if !end.trim().is_empty() {
                text.push_str(&format!("--- end of {}\n{end}\n", path.display()));
            }
        }
        text
    }

    /// Only a pid that has not been reaped is signalled: it is surely still our child.
    fn signal(&mut self, signal: Signal) -> Result<()> {
        if self.ended()?.is_some() {
            return Ok(());
        }
        let raw = i32::try_from(self.child.id())?;
        let pid = Pid::from_raw(raw).context("pid 0")?;
        kill_process(pid, signal).with_context(|| format!("cannot signal {}", self.name))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Err(error) = self.kill9() {
            eprintln!("{} (pid {}) may be left running: {error}", self.name, self.pid());
        }
    }
}

/// Puts `setpriv --pdeathsig KILL` in front, where there is one.
fn tied_to_us(command: Command) -> Command {
    let Some(setpriv) = on_path("setpriv") else { return command };
    let mut tied = Command::new(setpriv);
    tied.args(["--pdeathsig", "KILL", "--"]).arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => tied.env(name, value),
            None => tied.env_remove(name),
        };
    }
    if let Some(dir) = command.get_current_dir() {
        tied.current_dir(dir);
    }
    tied
}

/// Finds a program on `PATH`.
#[must_use]
pub fn on_path(program: impl AsRef<OsStr>) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|d| d.join(program.as_ref())).find(|p| p.is_file())
}

type Order = (Command, Sender<std::io::Result<Child>>);

/// Starts the command on a thread that lives as long as this process: the kernel's parent-death
/// signal follows the thread that started the child, and a test's thread ends with the test.
fn spawn(command: Command) -> Result<Child> {
    static SPAWNER: OnceLock<Mutex<Sender<Order>>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (orders, queue) = channel::<Order>();
        std::thread::spawn(move || {
            while let Ok((mut command, answer)) = queue.recv() {
                // The one who ordered may have given up; then the child is dropped with the answer.
                let _ = answer.send(command.spawn());
            }
        });
        Mutex::new(orders)
    });
    let (answer, result) = channel();
    let orders = spawner.lock().map_err(|_| anyhow!("the spawning thread has failed"))?.clone();
    orders.send((command, answer)).map_err(|_| anyhow!("the spawning thread has ended"))?;
    Ok(result.recv().context("the spawning thread has ended")??)
}

fn append_to(path: &Path) -> Result<File> {
    File::options()
        .create(true)
        .append(true)
        .open(path)
        .with_context(|| format!("cannot write {}", path.display()))
}

fn read(path: &Path) -> Result<String> {
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The end of a file, lossy; why it cannot be read when it cannot.
#[must_use]
pub fn tail(path: &Path) -> String {
    let read = || -> std::io::Result<String> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    read().unwrap_or_else(|error| format!("(cannot read {}: {error})", path.display()))
}
