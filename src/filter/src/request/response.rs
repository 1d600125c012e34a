//! The response's headers: what they tell of the outcome, and what is added to them.
//!
//! The map is read whole, once. That is cheaper than to ask for the headers one by one, and what it
//! tells need not be asked for when the request is logged.

use super::{Phase, Stream};
use crate::host::{Host, Map};
use crate::store::SharedData;
use policy::headers::Headers;
use policy::pipeline::Passage;

/// What Envoy's router sets on the answer of a service, and nobody on an answer of Envoy's own. A
/// router that is told not to (`suppress_envoy_headers`) leaves the question to the attributes.
const ROUTERS_MARK: &str = "x-envoy-upstream-service-time";
/// What Envoy calls such an answer in `response.code_details`.
pub(super) const FROM_UPSTREAM: &[u8] = b"via_upstream";
/// The service has agreed to speak something else from here on.
const SWITCHING_PROTOCOLS: u16 = 101;

impl<H: Host> Stream<H> {
    /// Adds the response headers. Also called for our own reply and for Envoy's.
    pub(crate) fn on_response_headers(&self) {
        match self.phase.get() {
            Phase::Logged => return,
            Phase::Waiting => {
                // Somebody else answered: there is nothing left to let go on.
                self.stop_waiting();
                self.phase.set(Phase::Replied);
            }
            Phase::Fresh | Phase::Judged | Phase::Replied => {}
        }
        let host = &self.plugin.host;
        // A map that cannot be read tells nothing; what is to be added is added all the same.
        let map = host.headers(Map::Response).unwrap_or_default();
        let headers = Headers::new(&map);
        let status = status(&headers);
        let passed = self.phase.get() == Phase::Judged;
        self.answered.set(status.filter(|_| passed && headers.has(ROUTERS_MARK)));
        let mut passage = self.taken().unwrap_or_else(Passage::unseen);
        if passage.is_probe() && status == Some(SWITCHING_PROTOCOLS) {
            self.upgraded(&mut passage);
        }
        let mut present = |name: &str| headers.has(name);
        let mut add = |name: &str, value: &str| {
            // A response that lacks a header is better than no response.
            let _missing = host.add_header(Map::Response, name, value.as_bytes());
        };
        passage.response_headers(&self.plugin.policy.policy(), &mut present, &mut add);
        self.keep(passage);
    }

    fn upgraded(&self, passage: &mut Passage) {
        let plugin = &self.plugin;
        let host = &plugin.host;
        let mut store = SharedData(host.clone());
        let mut events = plugin.metrics.clone();
        let seed = plugin.seed.get(host).keys;
        let now = host.moment().ok().or(self.began.get()).unwrap_or_default();
        passage.upgraded(&plugin.policy.policy(), &mut store, &mut events, seed, now);
    }
}

/// `:status`; `None` when it is missing or no number.
fn status(headers: &Headers<'_>) -> Option<u16> {
    str::from_utf8(headers.first(":status")?).ok()?.parse().ok()
}
