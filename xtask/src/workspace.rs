//! Where things lie in this checkout, and how commands are run: with progress, and with errors that
//! name the command. Knows nothing of what is built or tested.

use anyhow::{Context as _, Result, bail};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How often a command with a time limit is looked at. Short against any limit used here.
const POLL: Duration = Duration::from_millis(50);

/// The checkout that this command works on.
#[derive(Debug, Clone)]
pub(crate) struct Workspace {
    root: PathBuf,
}

impl Workspace {
    /// The workspace around the current folder; else the one that this program was built from.
    pub(crate) fn find() -> Result<Self> {
        let here = std::env::current_dir().context("the current folder cannot be read")?;
        let built_from = Path::new(env!("CARGO_MANIFEST_DIR"));
        here.ancestors()
            .chain(built_from.ancestors())
            .find(|dir| dir.join("Cargo.toml").is_file() && dir.join("src/policy").is_dir())
            .map(|dir| Self { root: dir.to_path_buf() })
            .context("no checkout here: run this inside the repository")
    }

    /// The folder with the workspace's `Cargo.toml`.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Cargo's output folder: `CARGO_TARGET_DIR` where set, else `target`.
    pub(crate) fn target(&self) -> PathBuf {
        match std::env::var_os("CARGO_TARGET_DIR") {
            Some(dir) if !dir.is_empty() => self.root.join(dir),
            _ => self.root.join("target"),
        }
    }

    /// Where the artefacts lie: always `target/dist` of the checkout.
    pub(crate) fn dist(&self) -> PathBuf {
        self.root.join("target/dist")
    }

    /// A path as the user would write it in the root of the workspace.
    pub(crate) fn shown(&self, path: &Path) -> String {
        path.strip_prefix(&self.root).unwrap_or(path).display().to_string()
    }

    /// A command that runs in the root of the workspace.
    pub(crate) fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command.current_dir(&self.root);
        command
    }

    /// The cargo that runs us (rustup's), in the root of the workspace.
    pub(crate) fn cargo(&self) -> Command {
        self.command(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
    }
}

/// Says that something starts.
pub(crate) fn say(what: &str) {
    println!("==> {what}");
}

/// Runs `body`, says what it is and how long it took.
pub(crate) fn timed<T>(what: &str, body: impl FnOnce() -> Result<T>) -> Result<T> {
    say(what);
    let start = Instant::now();
    let result = body().with_context(|| what.to_owned());
    if result.is_ok() {
        println!("    done in {}", seconds(start.elapsed()));
    }
    result
}

/// `1m02s` or `3.4s`, for a person.
pub(crate) fn seconds(span: Duration) -> String {
    if span.as_secs() >= 60 {
        format!("{}m{:02}s", span.as_secs() / 60, span.as_secs() % 60)
    } else {
        format!("{:.1}s", span.as_secs_f64())
    }
}

/// The command as a person would type it, without its environment.
pub(crate) fn shown(command: &Command) -> String {
    let mut line = command.get_program().to_string_lossy().into_owned();
    for arg in command.get_args() {
        let _ = write!(line, " {}", arg.to_string_lossy());
    }
    line
}

/// Runs a command whose output the user sees. A status other than 0 is an error.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let line = shown(command);
    let status = command.status().with_context(|| format!("`{line}` cannot be started"))?;
    if !status.success() {
        bail!("`{line}` failed: {status}");
    }
    Ok(())
}

/// Runs a command and hands back what it printed. On failure the error carries its stderr.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let line = shown(command);
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("`{line}` cannot be started"))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!("`{line}` failed: {}\n{}", output.status, stderr.trim_end());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Like [`run`], but ends the command when it takes longer than `limit`.
pub(crate) fn run_limited(command: &mut Command, limit: Duration) -> Result<()> {
    let line = shown(command);
    let mut child = command.spawn().with_context(|| format!("`{line}` cannot be started"))?;
    let deadline = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait().with_context(|| format!("waiting for `{line}`"))? {
            if status.success() {
                return Ok(());
            }
            bail!("`{line}` failed: {status}");
        }
        if Instant::now() >= deadline {
            child.kill().with_context(|| format!("ending `{line}`"))?;
            child.wait().with_context(|| format!("ending `{line}`"))?;
            bail!("`{line}` took longer than {}", seconds(limit));
        }
        std::thread::park_timeout(POLL);
    }
}

/// The executable of this name on `PATH`.
pub(crate) fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(name)).find(|file| is_executable(file))
}

/// Whether this file exists and may be executed.
pub(crate) fn is_executable(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::metadata(file)
        .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// Whether we run as root, and so may install packages.
pub(crate) fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata("/proc/self").is_ok_and(|meta| meta.uid() == 0)
}

/// Writes the whole file or nothing: a temporary file in the same folder, then a rename.
pub(crate) fn write_whole(file: &Path, content: &[u8]) -> Result<()> {
    let dir = file.parent().context("a file has a folder")?;
    std::fs::create_dir_all(dir).with_context(|| format!("creating {}", dir.display()))?;
    let mut temporary = tempfile::NamedTempFile::new_in(dir)
        .with_context(|| format!("writing into {}", dir.display()))?;
    std::io::Write::write_all(&mut temporary, content)
        .with_context(|| format!("writing {}", file.display()))?;
    // Temporary files are made for the owner alone; what we write is for everybody.
    let readable = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    std::fs::set_permissions(temporary.path(), readable)
        .with_context(|| format!("writing {}", file.display()))?;
    temporary.persist(file).with_context(|| format!("writing {}", file.display()))?;
    Ok(())
}
