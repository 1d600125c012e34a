//! One target's run: libFuzzer as a process, its progress, and what it found.

use crate::workspace::{self, seconds};
use anyhow::{Context as _, Result, bail};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

/// How often progress is shown.
const SHOWN_EVERY: Duration = Duration::from_secs(60);
/// How often a run is looked at.
const POLL: Duration = Duration::from_millis(200);
/// An input that takes longer is a finding: what is parsed per request must be fast.
const INPUT_SECONDS_MAX: u32 = 10;
/// Memory that an input may make the target take; a length that is believed takes more.
const MEMORY_MIB_MAX: u32 = 1024;
/// Longest input. A token may have 16 KiB; structure shows in far less, and short inputs are fast.
const INPUT_BYTES_MAX: u32 = 8 * 1024;

/// A built target.
pub(super) struct Target {
    /// Its name.
    pub(super) name: &'static str,
    program: PathBuf,
    seeds: Vec<PathBuf>,
    corpus: PathBuf,
    findings: PathBuf,
    log: PathBuf,
    dictionary: Option<PathBuf>,
}

/// How a run ended.
pub(super) enum Ended {
    /// Nothing was found.
    Quiet {
        /// How many inputs were tried.
        executions: u64,
    },
    /// Something was.
    Finding {
        /// The input that shows it.
        file: String,
        /// The command that shows it again.
        again: String,
    },
}

impl Target {
    /// Makes the folders that the target works in, below `place`. In `words` there may be a list of
    /// pieces that inputs are likely made of.
    pub(super) fn new(
        name: &'static str,
        program: PathBuf,
        seeds: Vec<PathBuf>,
        place: &Path,
        words: &Path,
    ) -> Result<Self> {
        let [corpus, findings] = ["corpus", "findings"].map(|kind| place.join(kind).join(name));
        for folder in [&corpus, &findings] {
            fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
        }
        let log = place.join(format!("{name}.log"));
        let words = words.join(name);
        let dictionary = words.is_file().then_some(words);
        Ok(Self { name, program, seeds, corpus, findings, log, dictionary })
    }

    /// Runs one input; an error when it shows something.
    pub(super) fn once(&self, file: &Path) -> Result<()> {
        workspace::run(Command::new(&self.program).arg(file))
    }

    /// Runs all seeds and what earlier runs have kept, then tries new inputs for this long.
    pub(super) fn soak(&self, span: Duration) -> Result<Ended> {
        let began = SystemTime::now();
        let log = File::create(&self.log).with_context(|| self.log.display().to_string())?;
        let mut child = self.start(span, &log)?;
        let status = self.watched(&mut child, span);
        if status.is_err() {
            let _ = child.kill();
            let _ = child.wait();
        }
        let said = fs::read_to_string(&self.log).unwrap_or_default();
        if status?.success() {
            return Ok(Ended::Quiet { executions: executions(&said).unwrap_or(0) });
        }
        let Some(file) = self.newest_finding(began) else {
            bail!("{} failed without a finding:\n{}", self.name, tail(&said));
        };
        println!("{}", tail(&said));
        let file = file.display().to_string();
        let again = format!("cargo xtask soak {} --input {file}", self.name);
        Ok(Ended::Finding { file, again })
    }

    fn start(&self, span: Duration, log: &File) -> Result<Child> {
        let mut command = Command::new(&self.program);
        command.arg(format!("-max_total_time={}", span.as_secs()));
        command.arg(format!("-timeout={INPUT_SECONDS_MAX}"));
        command.arg(format!("-rss_limit_mb={MEMORY_MIB_MAX}"));
        command.arg(format!("-max_len={INPUT_BYTES_MAX}"));
        command.arg(format!("-artifact_prefix={}/", self.findings.display()));
        if let Some(dictionary) = &self.dictionary {
            command.arg(format!("-dict={}", dictionary.display()));
        }
        command.args(["-print_final_stats=1", "-use_value_profile=1"]);
        // New inputs go into the first folder.
        command.arg(&self.corpus).args(&self.seeds);
        let log = || log.try_clone().context("the log").map(Stdio::from);
        command.stdin(Stdio::null()).stdout(log()?).stderr(log()?);
        command.spawn().with_context(|| format!("starting {}", self.program.display()))
    }

    /// Waits for the end and shows progress.
    fn watched(&self, child: &mut Child, span: Duration) -> Result<std::process::ExitStatus> {
        let began = Instant::now();
        let mut shown = began;
        loop {
            if let Some(status) = child.try_wait().with_context(|| self.name.to_owned())? {
                return Ok(status);
            }
            if shown.elapsed() >= SHOWN_EVERY {
                shown = Instant::now();
                let said = fs::read_to_string(&self.log).unwrap_or_default();
                let (took, span) = (seconds(began.elapsed()), seconds(span));
                println!("    {}: {took} of {span}, {}", self.name, progress(&said));
            }
            std::thread::park_timeout(POLL);
        }
    }

    fn newest_finding(&self, since: SystemTime) -> Option<PathBuf> {
        let entries = fs::read_dir(&self.findings).ok()?.flatten();
        let dated = entries.filter_map(|e| Some((e.metadata().ok()?.modified().ok()?, e.path())));
        dated.filter(|(when, _)| *when >= since).max().map(|(_, path)| path)
    }
}

/// The number in `#123 NEW cov: ...` or in the final statistics.
fn executions(said: &str) -> Option<u64> {
    let stated = said.lines().find_map(|l| l.strip_prefix("stat::number_of_executed_units:"));
    let counted = || said.lines().rev().find_map(|line| line.strip_prefix('#'));
    let text = stated.or_else(counted)?.trim_start();
    let digits: String = text.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

/// The last line of progress, without what only libFuzzer's own people read.
fn progress(said: &str) -> String {
    let line = said.lines().rev().find(|line| line.starts_with('#')).unwrap_or("nothing run yet");
    let words: Vec<&str> = line.split_whitespace().collect();
    let after = |name: &str| {
        let at = words.iter().position(|word| *word == name)?;
        words.get(at + 1).copied()
    };
    match (executions(said), after("cov:"), after("corp:"), after("exec/s:")) {
        (Some(runs), Some(code), Some(kept), Some(rate)) => {
            format!("{runs} runs ({rate}/s), {code} places in the code seen, kept {kept}")
        }
        _ => line.to_owned(),
    }
}

/// What a log says of a finding: the assertion that failed, and where libFuzzer wrote the input.
fn tail(said: &str) -> String {
    const LINES: usize = 12;
    let lines: Vec<&str> = said.lines().filter(|line| !line.starts_with('#')).collect();
    let panic = lines.iter().position(|line| line.contains("panicked at"));
    let told =
        panic.map_or(&[][..], |at| lines.get(at..lines.len().min(at + 4)).unwrap_or_default());
    let end = lines.get(lines.len().saturating_sub(LINES)..).unwrap_or_default();
    told.iter().chain(end).map(|line| format!("    {line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "INFO: Seed: 1\n#2\tINITED cov: 8 ft: 8 corp: 1/1b exec/s: 0 rss: 27Mb\n\
        #4096\tpulse  cov: 9 ft: 12 corp: 2/4b lim: 4 exec/s: 2048 rss: 27Mb\n";

    #[test]
    fn progress_is_told_in_words() {
        let told = "4096 runs (2048/s), 9 places in the code seen, kept 2/4b";
        assert_eq!(progress(LOG), told);
        assert_eq!(progress("INFO: Seed: 1"), "nothing run yet");
    }

    #[test]
    fn the_number_of_runs_is_the_final_one_when_it_is_there() {
        assert_eq!(executions(LOG), Some(4096));
        let done = format!("{LOG}stat::number_of_executed_units: 5000\nstat::peak_rss_mb: 27\n");
        assert_eq!(executions(&done), Some(5000));
        assert_eq!(executions(""), None);
    }
}
