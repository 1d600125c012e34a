//! The policy in force: the document's, with those numbers of limits that an administrator has
//! changed at run time.
//!
//! Changes come with the sidecar's state ([`crate::replica`]). They touch numbers and modes only,
//! never how many limits there are or in which order: a request that waits, or that has long been
//! forwarded, is settled by the policy of that moment, and nobody keeps an old one alive.

use crate::host::{Host, Level};
use crate::log;
use crate::store::SharedData;
use policy::model::{Limit, Policy};
use policy::replica::overrides::{self, Override};
use std::cell::RefCell;
use std::rc::Rc;

/// The policy in force of one plugin.
pub(crate) struct InForce<H: Host> {
    host: H,
    /// As the document has it.
    written: Rc<Policy>,
    changed: RefCell<Changed>,
}

struct Changed {
    policy: Rc<Policy>,
    /// What it was made of, one for each limit.
    overrides: Vec<Option<Override>>,
    /// The generation of the sidecar's state that they were read from; `None` to read them again.
    seen: Option<u64>,
}

/// What a look found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum News {
    /// Shared state may have changed, limits' records included.
    Some,
    /// It is as it was.
    None,
}

impl<H: Host> InForce<H> {
    /// The document's policy, nothing looked at yet.
    pub(crate) fn new(host: &H, policy: Policy) -> Self {
        let written = Rc::new(policy);
        let overrides = vec![None; written.rate_limits.len()];
        let changed = Changed { policy: Rc::clone(&written), overrides, seen: None };
        Self { host: host.clone(), written, changed: RefCell::new(changed) }
    }

    /// The policy as the document has it.
    pub(crate) fn written(&self) -> &Policy {
        &self.written
    }

    /// The policy that requests are judged by.
    pub(crate) fn policy(&self) -> Rc<Policy> {
        let changed = self.changed.try_borrow();
        changed.map_or_else(|_| Rc::clone(&self.written), |changed| Rc::clone(&changed.policy))
    }

    /// Takes over what has changed, if the sidecar's state is of another generation than before.
    pub(crate) fn keep_up(&self, generation: u64) -> News {
        let Ok(mut changed) = self.changed.try_borrow_mut() else { return News::Some };
        if changed.seen == Some(generation) {
            return News::None;
        }
        let mut store = SharedData(self.host.clone());
        let mut whole = true;
        let mut found = Vec::with_capacity(changed.overrides.len());
        for (limit, before) in self.written.rate_limits.iter().zip(&changed.overrides) {
            found.push(overrides::read(&limit.name, &mut store).unwrap_or_else(|_| {
                whole = false;
                before.clone()
            }));
        }
        if found != changed.overrides {
            changed.policy = self.with(&found, &changed.overrides);
            changed.overrides = found;
        }
        // What could not be read is read again by the next request.
        changed.seen = Some(generation).filter(|_| whole);
        News::Some
    }

    fn with(&self, found: &[Option<Override>], before: &[Option<Override>]) -> Rc<Policy> {
        if found.iter().all(Option::is_none) {
            return Rc::clone(&self.written);
        }
        let limits = self.written.rate_limits.iter().zip(found).zip(before);
        let limits = limits.map(|((limit, found), before)| match found {
            Some(numbers) => limit.with(numbers).unwrap_or_else(|wrong| {
                if found != before {
                    self.refuse(limit, &wrong);
                }
                limit.clone()
            }),
            None => limit.clone(),
        });
        Rc::new(Policy { rate_limits: limits.collect(), ..Policy::clone(&self.written) })
    }

    /// Says that a limit keeps the policy's numbers: those of the sidecar's were for another policy.
    fn refuse(&self, limit: &Limit, wrong: &str) {
        let fields = [("limit", limit.name.as_str().into()), ("wrong", wrong.into())];
        log::line(&self.host, Level::Warn, "override of a limit not taken", &fields);
    }
}

#[cfg(test)]
mod tests;
