//! Renders again whenever the policy file is saved.
//!
//! It looks at the file a few times a second instead of asking the kernel to tell: that works on
//! every file system, through bind mounts, and with editors that save by renaming.

use super::{Rendered, render, replace};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tracing::{error, info, warn};

/// How often the file is looked at: a save is in force well within a second, at no cost. A change
/// must look the same twice, because editors write in pieces and half a policy is a wrong one.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// A policy beyond this is refused unread. A hundred thousand lines fit.
pub(crate) const FILE_MAX: u64 = 8 * 1024 * 1024;

/// Where from, where to.
#[derive(Clone, Debug)]
pub(crate) struct Files {
    /// The bare policy.
    pub(crate) policy: PathBuf,
    /// The filter module as Envoy finds it.
    pub(crate) module: PathBuf,
    /// The resource file.
    pub(crate) out: PathBuf,
}

/// Watches until it is dropped. `rendered` is the text that has been rendered already.
pub(crate) async fn watch(files: &Files, mut rendered: String) {
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut unreadable = false;
    let mut seen = None;
    loop {
        ticks.tick().await;
        match read(&files.policy) {
            Ok(text) => {
                unreadable = false;
                // An editor that truncates and then writes shows an empty file for a moment.
                if text == rendered || text.is_empty() {
                    seen = None;
                } else if seen.as_ref() == Some(&text) {
                    again(files, &text);
                    rendered = text;
                } else {
                    seen = Some(text);
                }
            }
            Err(reason) if !unreadable => {
                unreadable = true;
                warn!(file = %files.policy.display(), error = %reason, "policy file cannot be read");
            }
            Err(_) => {}
        }
    }
}

fn again(files: &Files, text: &str) {
    let Rendered { resource, findings, warnings } = render(text, &files.module);
    let file = files.policy.display();
    for finding in &findings {
        error!(file = %file, line = finding.line, path = %finding.path, wrong = %finding.wrong,
               allowed = %finding.allowed, "mistake in the policy");
    }
    for warning in &warnings {
        warn!(file = %file, warning = %warning, "warning about the policy");
    }
    match replace(&files.out, &resource) {
        Ok(()) if findings.is_empty() => {
            info!(file = %file, out = %files.out.display(), "policy rendered");
        }
        Ok(()) => warn!(file = %file, out = %files.out.display(), mistakes = findings.len(),
                        "policy rendered with mistakes: the gateway refuses it and keeps the old one"),
        Err(reason) => {
            error!(out = %files.out.display(), error = %reason, "resource cannot be written");
        }
    }
}

/// Reads a file of bounded size as text.
///
/// # Errors
/// A sentence that says why not.
pub(crate) fn read(path: &Path) -> Result<String, String> {
    let say = |error: std::io::Error| error.to_string();
    let size = fs::metadata(path).map_err(say)?.len();
    if size > FILE_MAX {
        return Err(format!("is larger than {FILE_MAX} bytes"));
    }
    let bytes = fs::read(path).map_err(say)?;
    String::from_utf8(bytes).map_err(|error| {
        let line = error.as_bytes().iter().take(error.utf8_error().valid_up_to());
        let line = line.filter(|byte| **byte == b'\n').count() + 1;
        format!("is not UTF-8 on line {line}")
    })
}
