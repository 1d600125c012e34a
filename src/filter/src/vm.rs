//! One VM: finds the plugin and the stream that a callback is for.
//!
//! Envoy's word on the order of callbacks is not trusted: an id may be unknown, come twice or come
//! late. No table is borrowed while a plugin or a stream works, because the host may call back in
//! between.

#[cfg(test)]
mod tests;

use crate::host::{Host, LocalResponse};
use crate::metrics::Metrics;
use crate::plugin::{Configured, Plugin, Shared, configure};
use crate::replica::View;
use crate::request::Stream;
use hashbrown::HashMap;
use policy::reason::Reason;
use std::cell::RefCell;
use std::rc::Rc;

pub use crate::request::Action;

/// A configured root context.
enum Root<H: Host> {
    Gateway(Rc<Plugin<H>>),
    Pin,
}

/// A stream as the table knows it.
enum Entry<H: Host> {
    /// A gateway plugin guards it.
    Guarded(Rc<Stream<H>>),
    /// It belongs to the plugin that does nothing.
    Idle,
    /// It belongs to no plugin that we know, and was answered so.
    Refused,
}

impl<H: Host> Clone for Entry<H> {
    fn clone(&self) -> Self {
        match self {
            Self::Guarded(stream) => Self::Guarded(Rc::clone(stream)),
            Self::Idle => Self::Idle,
            Self::Refused => Self::Refused,
        }
    }
}

/// All contexts of one VM.
pub struct Vm<H: Host> {
    shared: Shared<H>,
    roots: RefCell<HashMap<u32, Root<H>>>,
    streams: RefCell<HashMap<u32, Entry<H>>>,
}

impl<H: Host> Vm<H> {
    /// An empty VM on this host.
    #[must_use]
    pub fn new(host: H) -> Self {
        let metrics = Metrics::new(host.clone());
        let view = Rc::new(View::new(&host, &metrics));
        Self {
            shared: Shared { host, metrics, seed: Rc::default(), view },
            roots: RefCell::default(),
            streams: RefCell::default(),
        }
    }

    /// A context is made; `root` is 0 for a root context.
    pub fn on_context_create(&self, context: u32, root: u32) {
        let entry = match self.roots.try_borrow() {
            Ok(roots) => match roots.get(&root) {
                Some(Root::Gateway(plugin)) => {
                    Entry::Guarded(Stream::new(Rc::clone(plugin), context))
                }
                Some(Root::Pin) => Entry::Idle,
                None => return,
            },
            Err(_) => return,
        };
        self.enter(context, entry);
    }

    /// A root context gets its configuration; `false` refuses it.
    pub fn on_configure(&self, root: u32, size: usize) -> bool {
        let configured = match configure(&self.shared, size) {
            Configured::Gateway(plugin) => Root::Gateway(plugin),
            Configured::Pin => Root::Pin,
            Configured::Refused => return false,
        };
        match self.roots.try_borrow_mut() {
            Ok(mut roots) => roots.insert(root, configured),
            Err(_) => return false,
        };
        true
    }

    /// A root context's timer fired.
    pub fn on_tick(&self, root: u32) {
        if let Some(plugin) = self.plugin(root) {
            plugin.on_tick(root);
        }
    }

    /// A call of this root context was answered.
    pub fn on_call_response(&self, root: u32, token: u32, body: usize) {
        if let Some(plugin) = self.plugin(root) {
            plugin.on_call_response(root, token, body);
        }
    }

    /// A request's headers are here.
    pub fn on_request_headers(&self, context: u32, count: usize) -> Action {
        match self.entry(context) {
            Some(Entry::Guarded(stream)) => stream.on_request_headers(count),
            Some(Entry::Idle) => Action::Continue,
            Some(Entry::Refused) => Action::Pause,
            None => {
                self.enter(context, Entry::Refused);
                self.refuse();
                Action::Pause
            }
        }
    }

    /// A response's headers are here, an upstream's or our own.
    pub fn on_response_headers(&self, context: u32) {
        if let Some(Entry::Guarded(stream)) = self.entry(context) {
            stream.on_response_headers();
        }
    }

    /// A stream is over.
    pub fn on_log(&self, context: u32) {
        if let Some(Entry::Guarded(stream)) = self.entry(context) {
            stream.on_log();
        }
    }

    /// A context of either kind is destroyed.
    pub fn on_delete(&self, context: u32) {
        let stream = self.streams.try_borrow_mut().ok().and_then(|mut all| all.remove(&context));
        if let Some(entry) = stream {
            if let Entry::Guarded(stream) = entry {
                stream.on_delete();
            }
            return;
        }
        let root = self.roots.try_borrow_mut().ok().and_then(|mut all| all.remove(&context));
        if let Some(Root::Gateway(plugin)) = root {
            plugin.retire();
        }
    }

    fn plugin(&self, root: u32) -> Option<Rc<Plugin<H>>> {
        match self.roots.try_borrow().ok()?.get(&root)? {
            Root::Gateway(plugin) => Some(Rc::clone(plugin)),
            Root::Pin => None,
        }
    }

    fn entry(&self, context: u32) -> Option<Entry<H>> {
        self.streams.try_borrow().ok()?.get(&context).cloned()
    }

    fn enter(&self, context: u32, entry: Entry<H>) {
        if let Ok(mut streams) = self.streams.try_borrow_mut() {
            streams.insert(context, entry);
        }
    }

    /// Answers a request that no plugin of ours can judge: it must not pass unjudged.
    fn refuse(&self) {
        let reason = Reason::StateUnavailable;
        // When the host will not answer, the stream stays paused until its idle timeout.
        let _unanswered = self.shared.host.send_local_response(&LocalResponse {
            status: 503,
            details: reason.details(),
            headers: &policy::headers::serialize(&[]),
            body: reason.code().as_bytes(),
            grpc_status: None,
        });
    }
}
