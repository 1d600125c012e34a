//! A host for tests: one shared memory, a clock that the test moves, and ill will on demand.

use crate::host::{Buffer, Call, Host, Kind, Level, LocalResponse, Map, Status};
use policy::time::{Moment, Nanos};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

/// A host, or rather one VM's view of it; clones are the same VM.
#[derive(Clone, Default)]
pub(crate) struct FakeHost {
    pub(crate) process: Rc<Process>,
    pub(crate) vm: Rc<VmSide>,
}

/// What all VMs of a process share.
#[derive(Default)]
pub(crate) struct Process {
    random: Cell<u64>,
    /// The clock; both clocks show the same.
    pub(crate) now: Cell<u64>,
    shared: RefCell<HashMap<Vec<u8>, Value>>,
    cas: Cell<u32>,
    metrics: RefCell<Vec<(String, i64)>>,
    /// Every log line of every VM.
    pub(crate) log: RefCell<Vec<String>>,
    tokens: Cell<u32>,
    /// How often shared data was written.
    pub(crate) shared_writes: Cell<usize>,
    /// How often shared data was read or written.
    pub(crate) shared_calls: Cell<usize>,
    /// How many of 1000 host calls fail or lie.
    pub(crate) hostility: Cell<u64>,
}

/// A shared value and its version.
type Value = (Vec<u8>, u32);

/// A call that was made.
pub(crate) struct Called {
    pub(crate) token: u32,
    pub(crate) headers: Vec<u8>,
    pub(crate) body: Vec<u8>,
}

/// What belongs to one VM.
#[derive(Default)]
pub(crate) struct VmSide {
    pub(crate) configuration: RefCell<Vec<u8>>,
    pub(crate) variables: RefCell<HashMap<String, String>>,
    pub(crate) attributes: RefCell<HashMap<Vec<u8>, Vec<u8>>>,
    pub(crate) request: RefCell<Vec<u8>>,
    pub(crate) response: RefCell<Vec<u8>>,
    pub(crate) call_response: RefCell<Option<(Vec<u8>, Vec<u8>)>>,
    pub(crate) calls: RefCell<Vec<Called>>,
    /// Replies sent: status, details.
    pub(crate) replies: RefCell<Vec<(u16, String)>>,
    /// Request headers removed and set.
    pub(crate) edits: RefCell<Vec<String>>,
    /// Response headers added.
    pub(crate) added: RefCell<Vec<String>>,
    /// Whether no call can be made.
    pub(crate) callless: Cell<bool>,
    /// Whether metrics cannot be read.
    pub(crate) gaugeless: Cell<bool>,
    /// Whether shared data cannot be had.
    pub(crate) shareless: Cell<bool>,
    /// Whether the tables of limits and bans in it cannot be had.
    pub(crate) tableless: Cell<bool>,
    /// Whether header maps cannot be read.
    pub(crate) unreadable: Cell<bool>,
    /// Whether request headers cannot be changed.
    pub(crate) editless: Cell<bool>,
    /// After so many host calls the VM is dead: none has an effect.
    pub(crate) dies_after: Cell<Option<u32>>,
    /// What others do, once, before this VM overwrites a shared value.
    pub(crate) before_overwrite: RefCell<Option<Box<dyn FnOnce()>>>,
    /// The context that is meant, where it was said.
    pub(crate) effective: Cell<Option<u32>>,
    /// Contexts that the host knows no more.
    pub(crate) gone: RefCell<Vec<u32>>,
    /// The contexts that were meant when replies were sent.
    pub(crate) answered: RefCell<Vec<Option<u32>>>,
    /// Streams that were told to go on.
    pub(crate) continued: RefCell<Vec<u32>>,
    /// How long it takes until a stream goes on, in nanoseconds.
    pub(crate) pass_on: Cell<u64>,
    /// The last period of the timer, in milliseconds.
    pub(crate) period: Cell<u64>,
    /// When the timer fires. There is one, of whatever plugin set it last.
    pub(crate) due: Cell<u64>,
    /// How often a metric was read.
    pub(crate) gauges_read: Cell<usize>,
    /// What the host does inside a local reply, as Envoy may.
    pub(crate) inside_reply: RefCell<Option<Rc<dyn Fn()>>>,
}

impl Process {
    /// Draws other numbers from now on.
    pub(crate) fn random_from(&self, seed: u64) {
        self.random.set(seed);
    }
}

impl FakeHost {
    /// The first VM of a new process.
    pub(crate) fn new(seed: u64) -> Self {
        let host = Self::default();
        host.process.random_from(seed);
        host.process.now.set(1_000_000_000_000);
        host
    }

    /// Another VM of the same process.
    pub(crate) fn sibling(&self) -> Self {
        let vm = VmSide {
            configuration: RefCell::new(self.vm.configuration.borrow().clone()),
            attributes: RefCell::new(self.vm.attributes.borrow().clone()),
            variables: RefCell::new(self.vm.variables.borrow().clone()),
            ..VmSide::default()
        };
        Self { process: Rc::clone(&self.process), vm: Rc::new(vm) }
    }

    pub(crate) fn configure(&self, root_id: &str, configuration: &str) {
        self.vm.attributes.borrow_mut().insert(b"plugin_root_id".to_vec(), root_id.into());
        *self.vm.configuration.borrow_mut() = configuration.into();
    }

    pub(crate) fn pass(&self, time: Nanos) {
        self.process.now.set(self.process.now.get() + time.0);
    }

    /// Lets time pass as Envoy does: the timer fires when it is due, and its period starts again
    /// after each tick.
    pub(crate) fn run(&self, time: Nanos, tick: impl Fn()) {
        let end = self.process.now.get() + time.0;
        while self.vm.due.get() <= end {
            self.process.now.set(self.vm.due.get().max(self.process.now.get()));
            tick();
            self.vm.due.set(self.process.now.get() + self.vm.period.get().max(1) * 1_000_000);
        }
        self.process.now.set(end);
    }

    pub(crate) fn metric(&self, name: &str) -> i64 {
        self.process.metrics.borrow().iter().find(|(n, _)| n == name).map_or(0, |(_, v)| *v)
    }

    pub(crate) fn logged(&self, text: &str) -> usize {
        self.process.log.borrow().iter().filter(|line| line.contains(text)).count()
    }

    /// Every shared value that is not empty and whose key begins so.
    pub(crate) fn stored(&self, prefix: &[u8]) -> HashMap<Vec<u8>, Vec<u8>> {
        let shared = self.process.shared.borrow();
        let found =
            shared.iter().filter(|(key, (bytes, _))| key.starts_with(prefix) && !bytes.is_empty());
        found.map(|(key, (bytes, _))| (key.clone(), bytes.clone())).collect()
    }

    /// A number that depends only on the seed and on how often it was asked (splitmix64).
    pub(crate) fn draw(&self) -> u64 {
        let next = self.process.random.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.process.random.set(next);
        let mixed = (next ^ (next >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn ill(&self) -> Result<(), Status> {
        match self.vm.dies_after.get() {
            Some(0) => return Err(Status::InternalFailure),
            left => self.vm.dies_after.set(left.map(|left| left - 1)),
        }
        if self.process.hostility.get() == 0 || self.draw() % 1000 >= self.process.hostility.get() {
            return Ok(());
        }
        Status::check(u32::try_from(self.draw() % 14 + 1).unwrap())
    }

    fn sharing(&self, key: &[u8]) -> Result<(), Status> {
        self.process.shared_calls.set(self.process.shared_calls.get() + 1);
        let lost = self.vm.tableless.get() && key.starts_with(b"t") && key.len() == 13;
        if lost || self.vm.shareless.get() { Err(Status::InternalFailure) } else { Ok(()) }
    }

    /// Bytes as the network may have made them.
    fn spoil(&self, mut bytes: Vec<u8>) -> Vec<u8> {
        if self.process.hostility.get() == 0 || self.draw() % 1000 >= self.process.hostility.get() {
            return bytes;
        }
        match self.draw() % 3 {
            0 => bytes.truncate(self.draw() as usize % (bytes.len() + 1)),
            1 => {
                for _ in 0..4 {
                    let at = self.draw() as usize % bytes.len().max(1);
                    if let Some(byte) = bytes.get_mut(at) {
                        *byte = self.draw() as u8;
                    }
                }
            }
            _ => bytes = (0..self.draw() % 64).map(|_| self.draw() as u8).collect(),
        }
        bytes
    }

    fn map(&self, map: Map) -> Result<Vec<u8>, Status> {
        match map {
            Map::Request => Ok(self.vm.request.borrow().clone()),
            Map::Response => Ok(self.vm.response.borrow().clone()),
            Map::CallResponse => {
                let answer = self.vm.call_response.borrow();
                answer.as_ref().map(|(headers, _)| headers.clone()).ok_or(Status::BadArgument)
            }
        }
    }
}

impl Host for FakeHost {
    fn moment(&self) -> Result<Moment, Status> {
        self.ill()?;
        let now = Nanos(self.process.now.get());
        Ok(Moment { monotonic: now, wall: now })
    }

    fn monotonic(&self) -> Result<Nanos, Status> {
        self.moment().map(|now| now.monotonic)
    }

    fn random(&self, bytes: &mut [u8]) -> Result<(), Status> {
        self.ill()?;
        bytes.fill_with(|| self.draw() as u8);
        Ok(())
    }

    fn variable(&self, name: &str) -> Option<String> {
        self.vm.variables.borrow().get(name).cloned()
    }

    fn log(&self, _level: Level, line: &str) -> Result<(), Status> {
        self.process.log.borrow_mut().push(line.into());
        self.ill()
    }

    fn tick_every(&self, period: Nanos) -> Result<(), Status> {
        self.ill()?;
        self.vm.period.set(period.as_millis());
        self.vm.due.set(self.process.now.get() + period.0);
        Ok(())
    }

    fn buffer(&self, buffer: Buffer, max: usize) -> Result<Vec<u8>, Status> {
        self.ill()?;
        let mut bytes = match buffer {
            Buffer::PluginConfiguration => self.vm.configuration.borrow().clone(),
            Buffer::CallResponseBody => {
                let answer = self.vm.call_response.borrow();
                answer.as_ref().map(|(_, body)| body.clone()).ok_or(Status::NotFound)?
            }
        };
        bytes.truncate(max);
        Ok(self.spoil(bytes))
    }

    fn headers(&self, map: Map) -> Result<Vec<u8>, Status> {
        self.ill()?;
        if self.vm.unreadable.get() {
            return Err(Status::BadArgument);
        }
        self.map(map).map(|bytes| self.spoil(bytes))
    }

    fn add_header(&self, _map: Map, name: &str, _value: &[u8]) -> Result<(), Status> {
        self.ill()?;
        self.vm.added.borrow_mut().push(name.into());
        Ok(())
    }

    fn replace_header(&self, _map: Map, name: &str, _value: &[u8]) -> Result<(), Status> {
        self.ill()?;
        if self.vm.editless.get() {
            return Err(Status::BadArgument);
        }
        self.vm.edits.borrow_mut().push(format!("={name}"));
        Ok(())
    }

    fn remove_header(&self, _map: Map, name: &str) -> Result<(), Status> {
        self.ill()?;
        if self.vm.editless.get() {
            return Err(Status::BadArgument);
        }
        self.vm.edits.borrow_mut().push(format!("-{name}"));
        Ok(())
    }

    fn attribute(&self, path: &[u8]) -> Result<Vec<u8>, Status> {
        self.ill()?;
        let found = self.vm.attributes.borrow().get(path).cloned();
        found.map(|bytes| self.spoil(bytes)).ok_or(Status::NotFound)
    }

    fn send_local_response(&self, response: &LocalResponse<'_>) -> Result<(), Status> {
        self.vm.replies.borrow_mut().push((response.status, response.details.into()));
        self.vm.answered.borrow_mut().push(self.vm.effective.get());
        let inside = self.vm.inside_reply.borrow().clone();
        if let Some(inside) = inside {
            inside();
        }
        self.ill()
    }

    fn enter(&self, context: u32) -> Result<(), Status> {
        self.ill()?;
        if self.vm.gone.borrow().contains(&context) {
            return Err(Status::BadArgument);
        }
        self.vm.effective.set(Some(context));
        Ok(())
    }

    fn continue_request(&self) -> Result<(), Status> {
        self.ill()?;
        self.pass(Nanos(self.vm.pass_on.get()));
        self.vm.continued.borrow_mut().extend(self.vm.effective.get());
        Ok(())
    }

    fn shared(&self, key: &[u8]) -> Result<(Vec<u8>, u32), Status> {
        self.ill()?;
        self.sharing(key)?;
        let found = self.process.shared.borrow().get(key).cloned();
        found.map(|(bytes, cas)| (self.spoil(bytes), cas)).ok_or(Status::NotFound)
    }

    fn set_shared(&self, key: &[u8], value: &[u8], cas: u32) -> Result<(), Status> {
        self.ill()?;
        self.sharing(key)?;
        self.process.shared_writes.set(self.process.shared_writes.get() + 1);
        let replica = key.starts_with(b"replica/") && key != policy::replica::STATE_KEY;
        assert!(cas != 0 || replica, "a blind overwrite");
        let meanwhile = self.vm.before_overwrite.borrow_mut().take_if(|_| cas == 0);
        if let Some(meanwhile) = meanwhile {
            meanwhile();
        }
        let mut shared = self.process.shared.borrow_mut();
        if cas != 0 && shared.get(key).is_some_and(|(_, present)| *present != cas) {
            return Err(Status::CasMismatch);
        }
        self.process.cas.set(self.process.cas.get() + 1);
        shared.insert(key.into(), (value.into(), self.process.cas.get()));
        Ok(())
    }

    fn define_metric(&self, _kind: Kind, name: &str) -> Result<u32, Status> {
        self.ill()?;
        let mut metrics = self.process.metrics.borrow_mut();
        let at = metrics.iter().position(|(known, _)| known == name).unwrap_or_else(|| {
            metrics.push((name.into(), 0));
            metrics.len() - 1
        });
        Ok(u32::try_from(at).unwrap())
    }

    fn increment_metric(&self, metric: u32, by: i64) -> Result<(), Status> {
        self.ill()?;
        self.process.metrics.borrow_mut()[metric as usize].1 += by;
        Ok(())
    }

    fn metric(&self, metric: u32) -> Result<u64, Status> {
        self.ill()?;
        self.vm.gauges_read.set(self.vm.gauges_read.get() + 1);
        if self.vm.gaugeless.get() {
            return Err(Status::NotFound);
        }
        Ok(u64::try_from(self.process.metrics.borrow()[metric as usize].1).unwrap_or(0))
    }

    fn record_metric(&self, metric: u32, value: u64) -> Result<(), Status> {
        self.ill()?;
        self.process.metrics.borrow_mut()[metric as usize].1 = i64::try_from(value).unwrap_or(-1);
        Ok(())
    }

    fn call(&self, call: &Call<'_>) -> Result<u32, Status> {
        self.ill()?;
        if self.vm.callless.get() {
            return Err(Status::InternalFailure);
        }
        self.process.tokens.set(self.process.tokens.get() + 4);
        let token = self.process.tokens.get();
        let called = Called { token, headers: call.headers.into(), body: call.body.into() };
        self.vm.calls.borrow_mut().push(called);
        Ok(token)
    }

    fn foreign(&self, _name: &str, _argument: &[u8]) -> Result<Vec<u8>, Status> {
        self.ill()?;
        Ok(self.spoil(vec![8, 1]))
    }
}
