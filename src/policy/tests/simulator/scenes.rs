//! The scenes: policies, clients, and what is asked of the model at their end.

use super::model::{Dice, Request};
use super::world::{Fate, Trouble, World};
use policy::config::{Environment, read};
use policy::kernel::adaptive;
use policy::model::{LimitAlgorithm, Policy};
use policy::stage::Pause;
use serde_json::{Value, json};
use std::rc::Rc;

const MILLI: u64 = 1_000_000;

/// A policy of these limits. All of them refuse when shared state cannot be had: what is let through
/// uncounted would be in nobody's bound.
fn policy(limits: Value) -> Rc<Policy> {
    let mut limits = limits;
    for limit in limits.as_array_mut().unwrap() {
        limit["on_unavailable"] = json!("refuse");
    }
    let document = json!({
        "version": 1,
        "authentication": { "jwt": { "providers": [{
            "name": "p",
            "algorithms": ["HS256"],
            "keys": { "secret": { "env": "SECRET" } },
        }] } },
        "rate_limits": limits,
    });
    match read(&document, Environment::Unknown) {
        Ok(policy) => Rc::new(policy),
        Err(mistakes) => panic!("{mistakes:#?}"),
    }
}

/// A client that asks all the time.
const HOT: u32 = 7;
/// The limit with the small table. Of a client that is not limited just now it may forget a little.
const LOSSY: [(&str, Option<u64>); 1] = [("sprayed", None)];
/// The same where the client is limited all the time: nothing may be forgotten of it.
const STRICT: [(&str, Option<u64>); 1] = [("sprayed", Some((HOT as u64) << 32))];

/// All algorithms, leased and not, before authentication and after it; `times` scales their numbers.
fn everything(times: u32) -> Rc<Policy> {
    let own = ["/user", "/smooth"];
    policy(json!([
        { "name": "everyone", "key": [], "requests": 1_000 * times, "per": "1s" },
        { "name": "address", "key": ["ip"], "match": { "paths": own },
          "requests": 40 * times, "per": "1s", "burst": 20, "cost": 2, "max_keys": 4096 },
        { "name": "sprayed", "key": ["ip"], "match": { "paths": ["/spray"] },
          "requests": 20 * times, "per": "1s", "burst": 10, "max_keys": 8 },
        { "name": "wide", "key": ["service"], "match": { "paths": ["/wide"] },
          "algorithm": "sliding_window", "requests": 1_000 * times, "per": "1s" },
        { "name": "narrow", "key": ["header:x-user"], "match": { "paths": own },
          "algorithm": "sliding_window", "requests": 60 * times, "per": "2s", "cost": 3 },
        { "name": "even", "key": ["header:x-user"], "match": { "paths": ["/even"] },
          "algorithm": "leaky_bucket", "requests": 70 * times, "per": "1s", "queue": 6 },
        { "name": "adaptive", "key": ["ip", "header:x-user"], "match": { "paths": own },
          "algorithm": "adaptive", "requests": 30 * times, "per": "1s", "burst": 15 },
        { "name": "smooth", "key": ["user"], "match": { "paths": ["/smooth"] },
          "algorithm": "leaky_bucket", "requests": 30 * times, "per": "1s", "queue": 8 },
        { "name": "last", "key": ["user"], "match": { "paths": own },
          "requests": 25 * times, "per": "1s", "burst": 12 },
    ]))
}

fn anything(dice: &mut Dice) -> Request {
    let path = ["/hot", "/hot", "/wide", "/wide", "/user", "/user", "/smooth", "/even", "/spray"];
    let path = path[usize::try_from(dice.below(path.len() as u64)).unwrap()];
    let user = u32::try_from(dice.below(4)).unwrap();
    let client = match path {
        "/spray" if !dice.chance(500) => u32::try_from(dice.below(1 << 32)).unwrap(),
        "/spray" => HOT,
        _ => user % 3,
    };
    Request { path, client, user }
}

/// How time goes for a while.
#[derive(Clone, Copy)]
enum Pace {
    /// It stands still.
    Still,
    /// At most so many nanoseconds from one step to the next.
    Upto(u64),
}

/// Anything, at any time, with everything going wrong.
pub(crate) fn chaos(seed: u64) -> Result<u64, String> {
    let policies = [everything(1), everything(2)];
    let workers = usize::try_from(1 + seed % 8).unwrap() + 1;
    let mut world = World::new(Rc::clone(&policies[0]), workers + 1, anything, seed);
    // Every other seed without any slack: all clocks are read at the same time.
    let drift = if seed.is_multiple_of(2) { 0 } else { 20_000 };
    world.trouble = Trouble { rivals: 60, lost: 20, down: 20, drift };
    let (mut pace, mut left) = (Pace::Still, 0);
    let mut current = 0;
    while world.steps < 11_000 {
        if left == 0 {
            left = 1 + world.dice.below(900);
            pace = match world.dice.below(5) {
                0 => Pace::Still,
                1 => Pace::Upto(40_000),
                2 | 3 => Pace::Upto(MILLI),
                _ => Pace::Upto(6 * MILLI),
            };
            // All buckets full, all windows empty; or just not.
            world.clock += [0, 100 * MILLI, 999 * MILLI, 30_000 * MILLI]
                [usize::try_from(world.dice.below(4)).unwrap()];
            world.load = u32::try_from(world.dice.below(1_001)).unwrap();
        }
        left -= 1;
        if let Pace::Upto(most) = pace {
            world.clock += world.dice.below(most);
        }
        world.pause = if world.dice.chance(100) { Pause::Full } else { Pause::Room };
        world.turns();
        match world.dice.below(3_000) {
            0..20 => world.die(),
            20..200 => world.leave(),
            200 => {
                current = 1 - current;
                world.change(Rc::clone(&policies[current]), &LOSSY)?;
            }
            _ => {
                let request = anything(&mut world.dice);
                world.ask(request);
            }
        }
    }
    world.close(&LOSSY)
}

/// A limit, how many requests a second are offered to it, and what it must let through in so many
/// nanoseconds.
struct Offer {
    limit: Value,
    load: u32,
    rate: u64,
}

fn offers() -> Vec<Offer> {
    let offer = |limit: Value, load: u32, rate: u64| Offer { limit, load, rate };
    vec![
        offer(json!({ "requests": 2_000, "per": "1s" }), 0, 6_000),
        offer(json!({ "requests": 100, "per": "1s", "burst": 10 }), 0, 300),
        offer(json!({ "requests": 300, "per": "1s", "burst": 30, "cost": 3 }), 0, 300),
        offer(json!({ "algorithm": "sliding_window", "requests": 2_000, "per": "1s" }), 0, 6_000),
        offer(json!({ "algorithm": "sliding_window", "requests": 50, "per": "1s" }), 0, 200),
        offer(
            json!({ "algorithm": "sliding_window", "requests": 90, "per": "2s", "cost": 3 }),
            0,
            90,
        ),
        offer(
            json!({ "algorithm": "adaptive", "requests": 100, "per": "1s", "burst": 10 }),
            0,
            300,
        ),
        offer(
            json!({ "algorithm": "adaptive", "requests": 200, "per": "1s", "burst": 10 }),
            930,
            300,
        ),
        offer(
            json!({ "algorithm": "leaky_bucket", "requests": 100, "per": "1s", "queue": 5 }),
            0,
            300,
        ),
    ]
}

/// The least that a limit must let through in `span` nanoseconds when more is asked for.
fn least(algorithm: &LimitAlgorithm, share: u32, span: u64) -> u64 {
    let (requests, per) = (u64::from(algorithm.requests()), algorithm.per().0);
    let came =
        u128::from(span) * u128::from(requests) * u128::from(share) / u128::from(per) / 1_000;
    let came = u64::try_from(came).unwrap();
    match algorithm {
        LimitAlgorithm::TokenBucket(_) | LimitAlgorithm::Adaptive(_) => {
            (u64::from(algorithm.size()) + came) * 99 / 100
        }
        // A window's quota in every eleven tenths of it that are over. A little is idle at workers when
        // a sub-window ends.
        LimitAlgorithm::SlidingWindow(_) => {
            u64::from(algorithm.requests()) * (span * 10 / (per * 11)) * 98 / 100
        }
        LimitAlgorithm::LeakyBucket(_) => came * 99 / 100,
    }
}

fn share(algorithm: &LimitAlgorithm, load: u32) -> u32 {
    match algorithm {
        LimitAlgorithm::Adaptive(own) => adaptive::factor(own, load),
        _ => 1_000,
    }
}

fn same(_: &mut Dice) -> Request {
    Request { path: "/", client: 1, user: 1 }
}

/// One limit, one key, three times what it allows.
pub(crate) fn throughput(seed: u64) -> Result<u64, String> {
    let mut offers = offers();
    let index = usize::try_from(seed).unwrap() % offers.len();
    let Offer { mut limit, load, rate } = offers.swap_remove(index);
    limit["name"] = json!("only");
    limit["key"] = json!(["ip"]);
    let policy = policy(json!([limit]));
    let algorithm = policy.rate_limits[0].algorithm;
    let mut world = World::new(policy, 4, same, seed);
    let share = share(&algorithm, load);
    world.steady(load, share);
    world.trouble = Trouble { rivals: 100, lost: 20, down: 0, drift: 0 };
    let start = world.clock;
    // Several windows of each, or one that admits a quota and nothing then would do.
    let enough = start + 4_500 * MILLI;
    while world.steps < 12_000 || world.clock < enough {
        world.clock += world.dice.below(2 * 1_000_000_000 / rate);
        world.turns();
        // Most come to two workers, which makes leases large there and small elsewhere.
        let worker = usize::try_from(world.dice.below(4) * world.dice.below(2)).unwrap();
        world.ask_at(worker, same(&mut Dice::new(0)), 0);
    }
    let (span, admitted) = (world.clock - start, world.total(0));
    let least = least(&algorithm, share, span);
    if admitted < least {
        return Err(format!("{limit}: {admitted} of at least {least} in {span} ns"));
    }
    world.close(&[])
}

/// Leases at their worst: they are taken of a full bucket or at the end of a sub-window, kept while the
/// bucket fills again or the next sub-window begins, and spent when all others take what is there.
pub(crate) fn pulses(seed: u64) -> Result<u64, String> {
    const PART: u64 = 100 * MILLI;
    let algorithm = if seed.is_multiple_of(2) { "token_bucket" } else { "sliding_window" };
    let limit = json!({ "name": "only", "key": [], "algorithm": algorithm,
                        "requests": 2_000, "per": "1s" });
    let mut world = World::new(policy(json!([limit])), 4, same, seed);
    world.trouble = Trouble { rivals: 30, lost: 10, down: 0, drift: 0 };
    let request = same(&mut Dice::new(0));
    while world.steps < 15_000 {
        // Full again; for a window to shortly before a sub-window's end.
        world.clock += 3_000 * MILLI;
        world.clock += 2 * PART - world.clock % PART - world.dice.below(15 * MILLI);
        let warm = 2 + world.dice.below(200);
        for _ in 0..warm {
            world.clock += world.dice.below(MILLI / 50);
            world.ask_at(0, request, 0);
        }
        // Mostly about as long as a lease lasts, sometimes much longer.
        world.clock += world.dice.below(12 * MILLI);
        world.clock += if world.dice.chance(250) { 3_000 * MILLI } else { 0 };
        for _ in 0..2_200 {
            world.ask(request);
        }
        // When the sub-window of the leases has just been left, or a moment later.
        let into = world.clock % PART;
        world.clock += match world.dice.below(2) {
            0 => 10 * PART - into + world.dice.below(into + 1),
            _ => world.dice.below(12 * MILLI),
        };
        for _ in 0..300 {
            world.ask(request);
        }
    }
    world.close(&[])
}

fn flood(dice: &mut Dice) -> Request {
    Request { path: "/", client: 1, user: u32::try_from(dice.below(5)).unwrap() }
}

/// A few users ask ten times as much as the shared limit allows and are refused by their own; many
/// others ask twice as much, once each, and must get all of it.
pub(crate) fn give_back(seed: u64) -> Result<u64, String> {
    let shared = [
        json!({ "requests": 100, "per": "1s", "burst": 50 }),
        json!({ "requests": 1_000, "per": "1s" }),
        json!({ "algorithm": "sliding_window", "requests": 100, "per": "1s" }),
        json!({ "algorithm": "sliding_window", "requests": 1_000, "per": "1s" }),
        json!({ "algorithm": "adaptive", "requests": 100, "per": "1s", "burst": 50 }),
        json!({ "algorithm": "leaky_bucket", "requests": 100, "per": "1s", "queue": 3 }),
    ];
    let mut shared = shared[usize::try_from(seed % 6).unwrap()].clone();
    shared["name"] = json!("shared");
    shared["key"] = json!([]);
    let own =
        json!({ "name": "own", "key": ["user"], "requests": 1, "per": "1h", "max_keys": 65_536 });
    let policy = policy(json!([shared, own]));
    let algorithm = policy.rate_limits[0].algorithm;
    let mut world = World::new(policy, 3, flood, seed);
    // A turn behind which somebody queues up before it is given back passes unused, by intent.
    let rivals = if matches!(algorithm, LimitAlgorithm::LeakyBucket(_)) { 0 } else { 20 };
    world.trouble = Trouble { rivals, lost: 10, down: 0, drift: 0 };
    let rate = u64::from(algorithm.requests());
    let start = world.clock;
    let mut polite = 100;
    while world.steps < 30_000 {
        world.clock += world.dice.below(2 * 1_000_000_000 / (12 * rate));
        world.turns();
        if world.dice.below(12) < 2 {
            polite += 1;
            world.ask(Request { path: "/", client: 1, user: polite });
        } else {
            let request = flood(&mut world.dice);
            world.ask(request);
        }
    }
    let (span, admitted) = (world.clock - start, world.total(0));
    // What a worker has just taken in advance, and refusals that are remembered, are in it too.
    let least = least(&algorithm, 1_000, span) * 98 / 100;
    if admitted < least {
        return Err(format!("{shared}: {admitted} of at least {least} in {span} ns"));
    }
    world.close(&[])
}

fn stranger(dice: &mut Dice) -> Request {
    Request { path: "/", client: u32::try_from(dice.below(1 << 32)).unwrap() | 8, user: 1 }
}

/// One set, a stranger with each request, and a client that is limited all the time.
pub(crate) fn overflow(seed: u64) -> Result<u64, String> {
    let limits = [
        json!({ "requests": 10, "per": "1s", "burst": 20 }),
        json!({ "algorithm": "sliding_window", "requests": 20, "per": "1s" }),
        json!({ "algorithm": "adaptive", "requests": 10, "per": "1s", "burst": 20 }),
        json!({ "algorithm": "leaky_bucket", "requests": 10, "per": "1s", "queue": 3 }),
    ];
    let mut limit = limits[usize::try_from(seed % 4).unwrap()].clone();
    limit["name"] = json!("sprayed");
    limit["key"] = json!(["ip"]);
    limit["max_keys"] = json!(8);
    let mut world = World::new(policy(json!([limit])), 2, stranger, seed);
    world.trouble = Trouble { rivals: 50, lost: 10, down: 0, drift: 0 };
    let (start, mut passed) = (world.clock, 0);
    while world.steps < 10_000 {
        world.clock += world.dice.below(MILLI);
        world.turns();
        let request = stranger(&mut world.dice);
        world.ask(request);
        let hot = Request { path: "/", client: HOT, user: 1 };
        passed += u64::from(world.ask(hot) == Fate::Passed);
    }
    let seconds = (world.clock - start) / 1_000_000_000;
    if passed < 10 * seconds.saturating_sub(2) {
        return Err(format!("the client got {passed} in {seconds} s, less than its own"));
    }
    world.close(&STRICT)
}
