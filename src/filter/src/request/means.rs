//! What the core may use while it judges a request.

use super::Stream;
use crate::host::Host;
use crate::replica::Seen;
use crate::store::SharedData;
use policy::facts::Facts;
use policy::pipeline::{Means, Step, Suspended, judge, resume};
use policy::time::Moment;
use policy::verify::{TokenError, Verified, Verify};
use std::cell::RefCell;
use token::Sha;

impl<H: Host> Stream<H> {
    /// Has the core judge the request, for the first time or, `suspended`, after a wait. `None` when
    /// that is not possible now; then it stays suspended.
    pub(super) fn step(
        &self,
        facts: &Facts<'_>,
        seen: Option<Seen>,
        suspended: &mut Option<Suspended>,
        now: Moment,
    ) -> Option<Step> {
        let plugin = &self.plugin;
        let host = &plugin.host;
        let mut tokens = match plugin.tokens.as_ref().map(RefCell::try_borrow_mut) {
            Some(Ok(tokens)) => Some(tokens),
            None => None,
            Some(Err(_)) => return None,
        };
        let (Ok(mut secrets), Ok(mut leases), Ok(mut reports)) = (
            plugin.secrets.try_borrow_mut(),
            plugin.leases.try_borrow_mut(),
            plugin.reports.try_borrow_mut(),
        ) else {
            return None;
        };
        secrets.keep_up();
        let state_keys = plugin.keep_up(seen, &mut leases);
        let policy = plugin.policy.policy();
        let mut store = SharedData(host.clone());
        let mut events = plugin.metrics.clone();
        let mut nobody = NoProviders;
        let verify: &mut dyn Verify = match &mut tokens {
            Some(tokens) => {
                tokens.be(self.patience(now.monotonic));
                &mut **tokens
            }
            None => &mut nobody,
        };
        let mut means = Means {
            store: &mut store,
            verify,
            digest: &Sha,
            secrets: &*secrets,
            random: &mut |bytes| {
                // Without randomness a nonce is less than that; what is signed holds all the same.
                let _unfilled = host.random(bytes);
            },
            events: &mut events,
            reports: &mut *reports,
            leases: &mut leases,
            seed: plugin.seed.get(host).keys,
            state_keys,
            load: if plugin.needs.load { plugin.load.look(now.monotonic) } else { 0 },
            pause: plugin.waiting.pause(),
        };
        Some(match suspended.take() {
            None => judge(&policy, facts, &mut means, now),
            Some(suspended) => resume(&policy, facts, &mut means, suspended, now),
        })
    }
}

/// Stands where a policy has no authentication: nothing asks it, and it trusts nothing.
struct NoProviders;

impl Verify for NoProviders {
    fn verify(&mut self, _token: &[u8], _now: Moment) -> Result<Verified, TokenError> {
        Err(TokenError::Untrusted)
    }
}
