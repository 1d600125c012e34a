//! The metrics of who may come in.

use super::name::Name;
use super::{LIMITS_MAX, Metrics, OTHER, Slot};
use crate::host::Host;
use hashbrown::HashMap;
use policy::event::{AuthMethod, AuthOutcome, CheckOutcome};
use policy::reason::Reason;

/// What a look into the memory of verified tokens found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Recall {
    /// The token, still good.
    Hit,
    /// Nothing: it had to be verified.
    Miss,
}

impl Recall {
    const fn label(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Miss => "miss",
        }
    }
}

/// How fetching a key set ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fetched {
    /// With a good set.
    Ok,
    /// Without an answer, or with one that is no 200.
    Failed,
    /// With something that is no usable set.
    Rejected,
}

impl Fetched {
    const fn label(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Failed => "failed",
            Self::Rejected => "rejected",
        }
    }
}

/// Outcomes of authentication for one method: accepted, anonymous, and a refusal per reason.
type Outcomes = [Slot; 2 + Reason::ALL.len()];

/// The slots of these metrics.
#[derive(Debug, Default)]
pub(super) struct AccessSlots {
    authentication: [Outcomes; AuthMethod::ALL.len()],
    authorization: [Slot; CheckOutcome::ALL.len()],
    csrf: [Slot; CheckOutcome::ALL.len()],
    recalled: [Slot; 2],
    /// By provider.
    fetched: HashMap<String, [Slot; 3]>,
    seeded: Slot,
}

impl<H: Host> Metrics<H> {
    /// Counts a look into the memory of verified tokens.
    pub(crate) fn recall(&self, recall: Recall) {
        let Ok(mut table) = self.table.try_borrow_mut() else { return };
        if let Some(slot) = table.access.recalled.get_mut(recall as usize) {
            self.add(slot, Name::TokenCache, &[("result", recall.label())], 1);
        }
    }

    /// Counts a fetch of a provider's key set.
    pub(crate) fn fetched(&self, provider: &str, fetched: Fetched) {
        let Ok(mut table) = self.table.try_borrow_mut() else { return };
        let all = &mut table.access.fetched;
        // Providers come from policies, and a VM may see many of them.
        let room = all.len() < LIMITS_MAX || all.contains_key(provider);
        let provider = if room { provider } else { OTHER };
        if let Some(slot) = all.entry_ref(provider).or_default().get_mut(fetched as usize) {
            let labels = [("provider", provider), ("outcome", fetched.label())];
            self.add(slot, Name::JwksFetch, &labels, 1);
        }
    }

    /// Shows whether the list of revoked tokens has been handed over. Every worker sets the same.
    pub(crate) fn revocation_seeded(&self, seeded: bool) {
        let Ok(mut table) = self.table.try_borrow_mut() else { return };
        self.set(&mut table.access.seeded, Name::RevocationSeeded, u64::from(seeded));
    }

    pub(super) fn authentication(
        &self,
        slots: &mut AccessSlots,
        method: AuthMethod,
        outcome: AuthOutcome,
    ) {
        let (at, code) = match outcome {
            AuthOutcome::Accepted => (0, "accepted"),
            AuthOutcome::Anonymous => (1, "anonymous"),
            AuthOutcome::Refused(reason) => (2 + reason as usize, reason.code()),
        };
        let outcomes = slots.authentication.get_mut(method as usize);
        if let Some(slot) = outcomes.and_then(|outcomes| outcomes.get_mut(at)) {
            let labels = [("method", method.label()), ("outcome", code)];
            self.add(slot, Name::Authentication, &labels, 1);
        }
    }

    pub(super) fn authorization(&self, slots: &mut AccessSlots, outcome: CheckOutcome) {
        if let Some(slot) = slots.authorization.get_mut(outcome as usize) {
            self.add(slot, Name::Authorization, &[("outcome", outcome.label())], 1);
        }
    }

    pub(super) fn csrf(&self, slots: &mut AccessSlots, outcome: CheckOutcome) {
        if let Some(slot) = slots.csrf.get_mut(outcome as usize) {
            self.add(slot, Name::Csrf, &[("outcome", outcome.label())], 1);
        }
    }
}
