//! The world: a store, a clock, workers with what they hold, and requests that wait.

use super::model::{Book, Dice, Request, Slack};
use policy::event::Event;
use policy::facts::Facts;
use policy::headers::{Headers, serialize};
use policy::model::{Policy, SecretSource};
use policy::pipeline::{Means, Step, Suspended, judge, resume};
use policy::reason::Reason;
use policy::stage::limit::Leases;
use policy::stage::{Pause, Reports};
use policy::store::{Store, StoreError, Swap, Versioned};
use policy::sync::BanMade;
use policy::time::{Moment, Nanos};
use policy::verify::{Digest, Same, Secrets, TokenError, Verified, Verify};
use serde_json::Map;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;

/// How deep requests may get in between a read and a write of each other.
const DEPTH_MAX: u32 = 2;

/// What may go wrong, in thousandths, and how far clocks are apart.
#[derive(Clone, Copy, Default)]
pub(crate) struct Trouble {
    /// Of reads, that another worker takes a request before the write.
    pub(crate) rivals: u64,
    /// Of writes, that somebody else has written meanwhile.
    pub(crate) lost: u64,
    /// Of reads and writes, that the host refuses. One in a thousand is much.
    pub(crate) down: u64,
    /// At most so many nanoseconds pass while another worker gets in between.
    pub(crate) drift: u64,
}

/// A request that waits for its turn.
struct Waiting {
    worker: usize,
    request: Request,
    suspended: Suspended,
    turn: u64,
    judged: u64,
    era: u64,
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It was let through, or will be when its turn comes.
    Passed,
    /// It was refused.
    Refused(Reason),
}

pub(crate) struct World {
    policy: Rc<Policy>,
    values: HashMap<Vec<u8>, Versioned>,
    written: u32,
    /// `None` for one that is in the middle of a request.
    workers: Vec<Option<Leases>>,
    waiting: Vec<Waiting>,
    /// What the next request in between is.
    rival: fn(&mut Dice) -> Request,
    pub(crate) dice: Dice,
    pub(crate) trouble: Trouble,
    /// Nanoseconds on the monotonic clock.
    pub(crate) clock: u64,
    pub(crate) load: u32,
    pub(crate) pause: Pause,
    book: Book,
    slack: Slack,
    /// Raised when the limits' numbers change.
    era: u64,
    pub(crate) steps: u64,
    wrong: Option<String>,
}

impl World {
    pub(crate) fn new(
        policy: Rc<Policy>,
        workers: usize,
        rival: fn(&mut Dice) -> Request,
        seed: u64,
    ) -> Self {
        let mut dice = Dice::new(seed);
        let clock = 1_000_000_000_000 + dice.below(1_000_000_000_000);
        Self {
            policy,
            values: HashMap::new(),
            written: 0,
            workers: (0..workers).map(|_| Some(Leases::default())).collect(),
            waiting: Vec::new(),
            rival,
            dice,
            trouble: Trouble::default(),
            clock,
            load: 0,
            pause: Pause::Room,
            book: Book::default(),
            slack: Slack { stale: 0, share: 1_000 },
            era: 0,
            steps: 0,
            wrong: None,
        }
    }

    /// One request at any worker that is free.
    pub(crate) fn ask(&mut self, request: Request) -> Fate {
        let worker = self.free().unwrap();
        self.ask_at(worker, request, 0)
    }

    /// One request at this worker.
    pub(crate) fn ask_at(&mut self, worker: usize, request: Request, depth: u32) -> Fate {
        let judged = self.clock;
        let step = self.run(worker, &request, None, depth);
        self.slack.stale = self.slack.stale.max(self.clock - judged);
        match step {
            Step::Forward(..) => {
                self.book.admit(&self.policy, &request, judged, judged);
                Fate::Passed
            }
            Step::Reply(reply, _) => Fate::Refused(reply.reason),
            Step::Wait(suspended) => {
                let turn = suspended.until().map_or(0, |turn| turn.0);
                if turn <= judged {
                    self.fault(format!("a wait until {turn}, told at {judged}"));
                }
                let era = self.era;
                self.waiting.push(Waiting { worker, request, suspended, turn, judged, era });
                Fate::Passed
            }
        }
    }

    /// Those go on whose turn has come.
    pub(crate) fn turns(&mut self) {
        while let Some(due) = self.waiting.iter().position(|one| one.turn <= self.clock) {
            let Waiting { worker, request, suspended, turn, judged, era } =
                self.waiting.swap_remove(due);
            match self.run(worker, &request, Some(suspended), 0) {
                Step::Forward(..) if era == self.era => {
                    self.book.admit(&self.policy, &request, judged, turn);
                }
                Step::Forward(..) => {}
                other => self.fault(format!("a turn has come, and then: {other:?}")),
            }
        }
    }

    /// One that waits goes away.
    pub(crate) fn leave(&mut self) {
        if self.waiting.is_empty() {
            return;
        }
        self.steps += 1;
        let index = self.dice.below(self.waiting.len() as u64);
        let gone = self.waiting.swap_remove(usize::try_from(index).unwrap());
        let (policy, now) = (Rc::clone(&self.policy), self.now());
        let mut seam = Seam { world: self, depth: DEPTH_MAX };
        drop(gone.suspended.abandon(&policy, &mut seam, &mut |_: Event<'_>| {}, now));
    }

    /// A worker dies, with what it holds and whoever waits there; another takes its place.
    pub(crate) fn die(&mut self) {
        self.steps += 1;
        let dead = self.free().unwrap();
        self.workers[dead] = Some(Leases::default());
        self.waiting.retain(|one| one.worker != dead);
    }

    /// The limits' numbers change. The books so far are held against the old ones.
    pub(crate) fn change(
        &mut self,
        policy: Rc<Policy>,
        lossy: &[(&str, Option<u64>)],
    ) -> Result<(), String> {
        self.steps += 1;
        let book = std::mem::take(&mut self.book);
        book.check(&self.policy, self.slack, lossy)?;
        self.policy = policy;
        self.era += 1;
        self.workers.iter_mut().flatten().for_each(Leases::forget);
        Ok(())
    }

    /// Holds the books against the model; the steps that it took.
    pub(crate) fn close(self, lossy: &[(&str, Option<u64>)]) -> Result<u64, String> {
        if let Some(wrong) = self.wrong {
            return Err(wrong);
        }
        self.book.check(&self.policy, self.slack, lossy)?;
        Ok(self.steps)
    }

    /// What one limit has let through.
    pub(crate) fn total(&self, limit: usize) -> u64 {
        self.book.total(limit)
    }

    /// The load has always left this share of the rate, in thousandths.
    pub(crate) fn steady(&mut self, load: u32, share: u32) {
        self.load = load;
        self.slack.share = share;
    }

    /// A worker that is not in the middle of a request.
    fn free(&mut self) -> Option<usize> {
        let count = self.workers.len();
        let start = usize::try_from(self.dice.below(count as u64)).unwrap();
        let mut order = (0..count).map(|offset| (start + offset) % count);
        order.find(|index| self.workers[*index].is_some())
    }

    fn fault(&mut self, wrong: String) {
        self.wrong.get_or_insert(wrong);
    }

    fn now(&self) -> Moment {
        Moment { monotonic: Nanos(self.clock), wall: Nanos(1_700_000_000_000_000_000 + self.clock) }
    }

    fn run(
        &mut self,
        worker: usize,
        request: &Request,
        suspended: Option<Suspended>,
        depth: u32,
    ) -> Step {
        self.steps += 1;
        let policy = Rc::clone(&self.policy);
        let (now, load, pause) = (self.now(), self.load, self.pause);
        let user = request.user.to_string();
        let token = format!("Bearer {user}");
        let bytes = serialize(&[
            (b":method", b"GET"),
            (b":path", request.path.as_bytes()),
            (b"x-user", user.as_bytes()),
            (b"authorization", token.as_bytes()),
        ]);
        let client = Some(IpAddr::V4(Ipv4Addr::from_bits(request.client)));
        let facts = Facts { headers: Headers::new(&bytes), client, service: Some("svc") };
        let mut leases = self.workers[worker].take().unwrap();
        let mut bug = None;
        let mut events = |event: Event<'_>| {
            if matches!(event, Event::Bug(_) | Event::RecordUnreadable) {
                bug = Some(format!("{event:?}"));
            }
        };
        let step = {
            let mut means = Means {
                store: &mut Seam { world: self, depth },
                verify: &mut Plain,
                digest: &Plain,
                secrets: &Plain,
                random: &mut |bytes: &mut [u8]| bytes.fill(9),
                events: &mut events,
                reports: &mut Plain,
                leases: &mut leases,
                seed: [1, 2],
                state_keys: None,
                load,
                pause,
            };
            match suspended {
                None => judge(&policy, &facts, &mut means, now),
                Some(held) => resume(&policy, &facts, &mut means, held, now),
            }
        };
        self.workers[worker] = Some(leases);
        if let Some(bug) = bug {
            self.fault(bug);
        }
        step
    }
}

/// Shared data as one request sees it.
struct Seam<'a> {
    world: &'a mut World,
    depth: u32,
}

impl Seam<'_> {
    fn is_down(&mut self) -> Result<(), StoreError> {
        let down = self.world.trouble.down;
        // A tenth of a thousandth: a request makes many calls.
        let refused = self.world.dice.chance(down) && self.world.dice.chance(100);
        if refused { Err(StoreError::Unavailable) } else { Ok(()) }
    }
}

impl Store for Seam<'_> {
    fn read(&mut self, key: &[u8]) -> Result<Option<Versioned>, StoreError> {
        self.is_down()?;
        let found = self.world.values.get(key).cloned();
        let world = &mut *self.world;
        if self.depth < DEPTH_MAX
            && world.dice.chance(world.trouble.rivals)
            && let Some(worker) = world.free()
        {
            world.clock += world.dice.below(world.trouble.drift + 1);
            let request = (world.rival)(&mut world.dice);
            world.ask_at(worker, request, self.depth + 1);
        }
        Ok(found)
    }

    fn swap(
        &mut self,
        key: &[u8],
        value: &[u8],
        expected: Option<u32>,
    ) -> Result<Swap, StoreError> {
        self.is_down()?;
        let world = &mut *self.world;
        world.written += 1;
        let written = world.written;
        let lost = world.dice.chance(world.trouble.lost);
        match world.values.get_mut(key) {
            Some(found) if lost => found.cas = written,
            Some(found) if expected == Some(found.cas) => {
                found.bytes.clear();
                found.bytes.extend_from_slice(value);
                found.cas = written;
                return Ok(Swap::Done);
            }
            None if expected.is_none() => {
                let new = Versioned { bytes: value.to_vec(), cas: written };
                world.values.insert(key.to_vec(), new);
                return Ok(Swap::Done);
            }
            Some(_) | None => {}
        }
        Ok(Swap::Lost)
    }
}

/// Everything that is not about limits, in the simplest way that works.
struct Plain;

impl Verify for Plain {
    fn verify(&mut self, token: &[u8], _now: Moment) -> Result<Verified, TokenError> {
        let subject = str::from_utf8(token).map_err(|_| TokenError::Malformed)?;
        let claims = Rc::new(Map::new());
        Ok(Verified { provider: 0, subject: Some(subject.to_string()), claims })
    }
}

impl Digest for Plain {
    fn sha256(&self, _bytes: &[u8]) -> [u8; 32] {
        [0; 32]
    }

    fn hmac_sha256(&self, _key: &[u8], _message: &[u8]) -> [u8; 32] {
        [0; 32]
    }

    fn same(&self, one: &[u8], other: &[u8]) -> Same {
        if one == other { Same::Yes } else { Same::No }
    }
}

impl Secrets for Plain {
    fn reveal<'a>(&'a self, _source: &'a SecretSource) -> Option<&'a [u8]> {
        None
    }
}

impl Reports for Plain {
    fn limited(&mut self, _limit: &str, _tag: u64, _key: &dyn Fn() -> Option<String>) {}

    fn banned(&mut self, _ban: BanMade) {}
}
