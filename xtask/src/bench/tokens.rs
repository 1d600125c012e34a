//! The suite `tokens`: one token of each algorithm, verified by Envoy's `jwt_authn` and by us, with
//! the same key, cold (every request verifies) and warm (the verdict is remembered).
//!
//! The Envoys of one algorithm are started, measured in rounds and stopped before the next
//! algorithm; the router alone runs beside all of them.

mod report;

use super::gateway::{Chain, Gateway, Plan, Setting, bearer};
use super::stats::{Spread, spread};
use super::variants::{NATIVE_CACHE, jwt_provider};
use super::{Args, Load, Run, WARM_UP_SECONDS, saturate};
use crate::workspace;
use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};
use std::path::Path;
use test_harness::token::{AUDIENCE, ISSUER, Key, Token, base64url};

/// Rounds unless others are asked for: with sixty cases the whole run stays below twenty minutes.
const ROUNDS: u32 = 5;
/// Seconds of a case in a round, unless others are asked for.
const SECONDS: u32 = 1;
/// What `--quick` measures: one algorithm of each kind.
const QUICK: [&str; 3] = ["HS256", "RS256", "ES256"];

/// Who verifies, if anybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    /// Nobody: the floor.
    Router,
    /// Envoy's `jwt_authn`.
    Native(Cache),
    /// Our filter, with authentication and nothing else.
    Ours(Cache),
}

/// Whether a verdict is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cache {
    /// It is not.
    Cold,
    /// It is.
    Warm,
}

impl Who {
    /// In the order in which they are measured. The router comes first.
    const ALL: [Self; 5] = [
        Self::Router,
        Self::Native(Cache::Cold),
        Self::Ours(Cache::Cold),
        Self::Native(Cache::Warm),
        Self::Ours(Cache::Warm),
    ];

    /// As folders, messages and raw numbers call it.
    const fn slug(self) -> &'static str {
        match self {
            Self::Router => "router",
            Self::Native(Cache::Cold) => "native-cold",
            Self::Ours(Cache::Cold) => "gateway-cold",
            Self::Native(Cache::Warm) => "native-warm",
            Self::Ours(Cache::Warm) => "gateway-warm",
        }
    }
}

/// The CPU microseconds per request of one algorithm, one number per round.
struct Row {
    algorithm: &'static str,
    rounds: Vec<[f64; Who::ALL.len()]>,
}

impl Row {
    fn of(&self, who: Who) -> Spread {
        self.compared(who, who, |own, _| own)
    }

    /// A comparison, taken round by round: what drifts during the run moves both sides.
    fn compared(&self, who: Who, base: Who, compare: impl Fn(f64, f64) -> f64) -> Spread {
        let at = |who| Who::ALL.iter().position(|one| *one == who);
        let pairs = self
            .rounds
            .iter()
            .filter_map(|round| Some(compare(*round.get(at(who)?)?, *round.get(at(base)?)?)));
        spread(&pairs.collect::<Vec<_>>())
    }

    fn json(&self) -> Value {
        let number = |(place, who): (usize, &Who)| {
            let numbers: Vec<_> = self.rounds.iter().filter_map(|round| round.get(place)).collect();
            (who.slug().to_owned(), json!(numbers))
        };
        json!({
            "algorithm": self.algorithm,
            "cpu_us": Value::Object(Who::ALL.iter().enumerate().map(number).collect()),
        })
    }
}

/// The keys named on the command line.
pub(super) fn chosen(args: &Args) -> Result<Vec<Key>> {
    let all = Key::all();
    let known: Vec<&str> = all.iter().map(Key::algorithm).collect();
    if let Some(wrong) = args.algorithms.iter().find(|name| !known.contains(&name.as_str())) {
        bail!("--algorithms: `{wrong}` is none of {}", known.join(", "));
    }
    let wanted = |key: &Key| match (args.algorithms.is_empty(), args.quick) {
        (true, false) => true,
        (true, true) => QUICK.contains(&key.algorithm()),
        (false, _) => args.algorithms.iter().any(|name| name == key.algorithm()),
    };
    Ok(all.into_iter().filter(wanted).collect())
}

/// Measures and writes.
pub(super) fn run(run: &Run<'_>, setting: &Setting<'_>) -> Result<()> {
    super::paced::sharpen_timers();
    let load = run.load(ROUNDS, SECONDS)?;
    let keys = chosen(run.args)?;
    let router = start(Who::Router, &Key::Rs256, setting)?;
    let mut rows = Vec::new();
    for key in &keys {
        let what = format!("tokens: {}", key.algorithm());
        rows.push(workspace::timed(&what, || measure(key, &router, run.wrk, load, setting))?);
    }
    let raw = json!({
        "circumstances": run.circumstances.json(),
        "load": {
            "rounds": load.rounds, "seconds": load.seconds, "connections": load.connections,
        },
        "rows": rows.iter().map(Row::json).collect::<Vec<_>>(),
    });
    let table = report::markdown(&rows, load, run.circumstances);
    run.write("tokens", &table, &report::svg(&rows), &raw)
}

/// All rounds of one algorithm.
fn measure(
    key: &Key,
    router: &Gateway,
    wrk: &Path,
    load: Load,
    setting: &Setting<'_>,
) -> Result<Row> {
    let verifying = Who::ALL.into_iter().filter(|who| *who != Who::Router);
    let started = verifying.map(|who| start(who, key, setting).context(who.slug()));
    let started = started.collect::<Result<Vec<_>>>()?;
    let gateways: Vec<&Gateway> = std::iter::once(router).chain(&started).collect();
    let load_once = |gateway: &Gateway, seconds| {
        let loaded = saturate(gateway, wrk, load.connections, seconds);
        loaded.map(|(_, cpu)| cpu).with_context(|| format!("measuring {}", gateway.name()))
    };
    for gateway in &gateways {
        load_once(gateway, WARM_UP_SECONDS)?;
    }
    let mut rounds = Vec::new();
    for round in 0..load.rounds {
        let mut numbers = [0.0; Who::ALL.len()];
        let mut order: Vec<usize> = (0..gateways.len()).collect();
        order.rotate_left(usize::try_from(round).unwrap_or(0) % gateways.len());
        for place in order {
            if let (Some(gateway), Some(number)) = (gateways.get(place), numbers.get_mut(place)) {
                *number = load_once(gateway, load.seconds)?;
            }
        }
        rounds.push(numbers);
    }
    Ok(Row { algorithm: key.algorithm(), rounds })
}

/// Starts one Envoy, and makes sure that it verifies.
fn start(who: Who, key: &Key, setting: &Setting<'_>) -> Result<Gateway> {
    let token = Token::new(key.clone(), "u-17").sign()?;
    let chain = match who {
        Who::Router => Chain::Native { filters: Vec::new(), outlier_detection: false },
        Who::Native(cache) => {
            let filters = vec![jwt_provider(native(key, cache)?)];
            Chain::Native { filters, outlier_detection: false }
        }
        Who::Ours(cache) => Chain::Ours { policy: policy(key, cache)?, has_sidecar: false },
    };
    let name = format!("{}-{}", key.algorithm(), who.slug());
    let plan = Plan { name, concurrency: 1, chain, token: token.clone() };
    let gateway = Gateway::start(plan, setting)?;
    if who != Who::Router {
        for (what, bad) in [("a forged token", Some(forged(&token)?)), ("no token", None)] {
            let headers: Vec<_> = bad.iter().map(|token| bearer(token)).collect();
            let status = gateway.ask(&gateway.request_with(&headers))?.status;
            if status != 401 {
                bail!("with {what} {} answered {status} instead of 401", gateway.name());
            }
        }
    }
    Ok(gateway)
}

/// The token with one bit of its signature changed.
fn forged(token: &str) -> Result<String> {
    let (text, signature) = token.rsplit_once('.').context("a token has three parts")?;
    let (first, rest) = signature.split_at_checked(1).context("a signature")?;
    let other = if first == "A" { "B" } else { "A" };
    Ok(format!("{text}.{other}{rest}"))
}

/// The provider of `jwt_authn`.
fn native(key: &Key, cache: Cache) -> Result<Value> {
    let keys = match key {
        Key::Hs256(secret) | Key::Hs384(secret) | Key::Hs512(secret) => json!({
            "keys": [{ "kty": "oct", "alg": key.algorithm(), "k": base64url(secret) }],
        }),
        _ => test_harness::token::key_set(std::slice::from_ref(key))?,
    };
    let mut provider = json!({
        "issuer": ISSUER,
        "audiences": [AUDIENCE],
        "local_jwks": { "inline_string": keys.to_string() },
        "claim_to_headers": [{ "header_name": "x-user-id", "claim_name": "sub" }],
    });
    if let (Cache::Warm, Some(fields)) = (cache, provider.as_object_mut()) {
        let settings = json!({ "jwt_cache_size": NATIVE_CACHE });
        fields.insert("jwt_cache_config".to_owned(), settings);
    }
    Ok(provider)
}

/// The same for us: authentication, and nothing else.
fn policy(key: &Key, cache: Cache) -> Result<Value> {
    let entries = match cache {
        Cache::Cold => 0,
        Cache::Warm => NATIVE_CACHE,
    };
    Ok(json!({
        "version": 1,
        "authentication": { "jwt": {
            "cache": { "max_entries": entries },
            "providers": [{
                "name": "tracseq",
                "issuer": ISSUER,
                "audiences": [AUDIENCE],
                "algorithms": [key.algorithm()],
                "keys": key.trusted()?,
                "forward": { "token": false, "claims": { "sub": "x-user-id" } },
            }],
        } },
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forged_token_differs_in_its_signature_alone() {
        assert_eq!(forged("a.b.Axyz").unwrap(), "a.b.Bxyz");
        assert_eq!(forged("a.b.xyz").unwrap(), "a.b.Ayz");
        assert!(forged("a.b.").is_err());
    }

    #[test]
    fn quotients_are_taken_round_by_round() {
        let rounds = vec![[1.0, 10.0, 20.0, 2.0, 2.0], [1.0, 40.0, 40.0, 2.0, 4.0]];
        let row = Row { algorithm: "RS256", rounds };
        let quotient = row.compared(Who::Ours(Cache::Cold), Who::Native(Cache::Cold), |a, b| a / b);
        assert_eq!(quotient, Spread { median: 1.5, min: 1.0, max: 2.0 });
        assert_eq!(row.of(Who::Native(Cache::Cold)).median, 25.0);
    }
}
