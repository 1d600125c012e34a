//! `--watch`: what has just been built takes the place of what runs. Where it does not work, what ran
//! before runs on, and the reason is told.

use super::house::{House, STOP_WITHIN};
use super::parts;
use super::sources::Changed;
use crate::workspace::say;
use anyhow::{Context as _, Result, bail};
use std::time::Duration;
use test_harness::stats::Stats;
use test_harness::{Sidecar, sidecar};

/// How long Envoy may take to load another filter: it compiles the module, on a busy machine.
const LOADED_WITHIN: Duration = Duration::from_secs(60);

impl House {
    /// Brings what has just been built into force.
    pub(super) fn swap(&mut self, changed: Changed) {
        let swapped = match changed {
            Changed::Filter => self.swap_filter(),
            Changed::Sidecar => self.swap_sidecar(),
        };
        if let Err(error) = swapped {
            eprintln!("what has just been built is not in force: {error:#}");
        }
    }

    /// Envoy changes over between requests.
    fn swap_filter(&mut self) -> Result<()> {
        let module = parts::keep_module(&self.artefacts, self.place()?)?;
        if module == self.module {
            say("the filter is the same as before");
            return Ok(());
        }
        let before = std::mem::replace(&mut self.module, module);
        if let Err(error) = self.load() {
            self.module = before;
            // Envoy has kept that one.
            self.render_anew().context("the filter from before could not be put back")?;
            return Err(error.context("the filter is the one from before"));
        }
        say(&format!("the filter is {}", self.module.display()));
        Ok(())
    }

    /// Has the policy rendered for the filter, and waits until Envoy has judged it.
    fn load(&mut self) -> Result<()> {
        let stats = self.envoy.stats()?;
        let (taken, refused) = (stats.policies_taken(), stats.policies_refused());
        self.render_anew()?;
        let judged = |s: &Stats| s.policies_taken() > taken || s.policies_refused() > refused;
        let stats = self.envoy.stats_until("Envoy to load the filter", LOADED_WITHIN, judged)?;
        if stats.policies_refused() > refused {
            bail!("Envoy refuses it; its log says why");
        }
        Ok(())
    }

    /// The port is the same, so that the filter finds it again: first the one ends, then the other
    /// starts. The gateway serves without it meanwhile.
    fn swap_sidecar(&mut self) -> Result<()> {
        let executable = parts::keep_sidecar(&self.artefacts, self.kept.path())?;
        if executable == self.sidecar_options.executable {
            say("the sidecar is the same as before");
            return Ok(());
        }
        let fresh = sidecar::Options { executable, ..self.sidecar_options.clone() };
        self.sidecar.stop(STOP_WITHIN)?;
        match Sidecar::start(fresh.clone()) {
            Ok(sidecar) => self.sidecar = sidecar,
            Err(error) => {
                self.sidecar.restart().context("the sidecar from before does not start again")?;
                return Err(error.context("the sidecar is the one from before"));
            }
        }
        self.sidecar_options = fresh;
        self.render_anew()?;
        say("the sidecar is the new one");
        Ok(())
    }

    /// Has the policy rendered by the sidecar that runs, for the filter that shall run.
    fn render_anew(&mut self) -> Result<()> {
        self.renderer.stop(STOP_WITHIN)?;
        self.renderer = self.render()?;
        Ok(())
    }
}
