//! A flood: one client asks for ten times what his limit allows, others stay within theirs.
//!
//! What is looked for: whether refusing costs less than serving, and whether the others notice.

use super::super::gateway::{Chain, Gateway, Plan, Setting, demo_token};
use super::super::stats::{Spread, percentile, spread};
use super::super::{Load, counted, micros, paced, precise};
use super::keyed;
use super::rows::{MANY, limit};
use anyhow::{Context as _, Result, anyhow, bail};
use serde_json::{Value, json};
use std::thread;
use std::time::Duration;

/// The flood is so many times what the limit allows.
pub(super) const TIMES: u32 = 10;
/// Worker threads of the Envoy that is flooded.
pub(super) const CONCURRENCY: u32 = 2;
/// What a refusal by the limit answers.
const REFUSED: u16 = 429;

/// One round.
pub(super) struct Round {
    /// Envoy's CPU microseconds per request when all are allowed.
    pub(super) allowed: f64,
    /// The same of a refused request, the allowed ones of the flood taken out.
    pub(super) refused: f64,
    /// The share of the flood that was refused, in percent.
    pub(super) share_refused: f64,
    /// The share of the others' requests that were answered with 200 during the flood, in percent.
    pub(super) share_kept: f64,
    /// The others' median and 99th percentile, in microseconds, without and with the flood.
    pub(super) quiet: [f64; 2],
    /// The same during the flood.
    pub(super) flooded: [f64; 2],
}

/// All rounds.
pub(super) struct Flood(Vec<Round>);

impl Flood {
    /// The spread of one number.
    pub(super) fn of(&self, number: impl Fn(&Round) -> f64) -> Spread {
        spread(&self.0.iter().map(number).collect::<Vec<_>>())
    }

    /// Everything, for other programs.
    pub(super) fn json(&self) -> Value {
        let round = |round: &Round| {
            json!({
                "allowed_cpu_us": round.allowed, "refused_cpu_us": round.refused,
                "refused_percent": round.share_refused, "kept_percent": round.share_kept,
                "quiet_p50_p99_us": round.quiet, "flooded_p50_p99_us": round.flooded,
            })
        };
        json!(self.0.iter().map(round).collect::<Vec<_>>())
    }
}

/// Starts an Envoy and floods it.
pub(super) fn measure(load: Load, setting: &Setting<'_>) -> Result<Flood> {
    let fair = (load.rate / TIMES).max(1);
    let policy = json!({ "version": 1, "rate_limits": [limit("per-key", fair, fair)] });
    let plan = Plan {
        name: "limits-flood".to_owned(),
        concurrency: CONCURRENCY,
        chain: Chain::Ours { policy, has_sidecar: false },
        token: demo_token()?,
    };
    let gateway = Gateway::start(plan, setting)?;
    let request = |number| gateway.request_with(&[keyed(number)]);
    let others: Vec<String> = (1..=MANY).map(request).collect();
    let sender = Sender { gateway: &gateway, load };
    let rounds = (0..load.rounds).map(|_| round(&sender, fair, &others, &[request(0)]));
    Ok(Flood(rounds.collect::<Result<Vec<_>>>()?))
}

/// Offers loads to one Envoy.
struct Sender<'a> {
    gateway: &'a Gateway,
    load: Load,
}

impl Sender<'_> {
    fn offer(&self, requests: &[String], rate: u32) -> Result<paced::Paced> {
        paced::offer(paced::Offer {
            to: self.gateway.address(),
            requests,
            connections: self.load.connections,
            rate,
            lasting: Duration::from_secs(u64::from(self.load.seconds)),
        })
    }
}

fn round(sender: &Sender<'_>, fair: u32, others: &[String], flood: &[String]) -> Result<Round> {
    let rate = sender.load.rate;
    let (_, cpu, served) = counted(sender.gateway, || sender.offer(others, rate))?;
    if served.other > 0 || served.good == 0 {
        bail!("{} requests were refused that no limit should refuse", served.other);
    }
    let allowed = micros(cpu) / precise(served.good);
    let (paced, cpu, served) = counted(sender.gateway, || sender.offer(flood, rate))?;
    let (_, status) = paced.refused.context("the flood was not refused")?;
    if status != REFUSED {
        bail!("the flood was answered with {status}");
    }
    let all = served.good.saturating_add(served.other);
    let refused = (micros(cpu) - allowed * precise(served.good)) / precise(served.other);
    let quiet = kept(&sender.offer(others, fair)?).1;
    let together = thread::scope(|scope| {
        let flooding = scope.spawn(|| sender.offer(flood, rate));
        let others = sender.offer(others, fair)?;
        flooding.join().map_err(|_| anyhow!("the flood's thread failed"))??;
        Ok::<_, anyhow::Error>(others)
    })?;
    let (share_kept, flooded) = kept(&together);
    let share_refused = 100.0 * precise(served.other) / precise(all);
    Ok(Round { allowed, refused, share_refused, share_kept, quiet, flooded })
}

/// The percentage of requests that were answered with 200, and their median and 99th percentile.
fn kept(paced: &paced::Paced) -> (f64, [f64; 2]) {
    let all = u64::try_from(paced.latencies.len()).unwrap_or(u64::MAX);
    let refused = paced.refused.map_or(0, |(count, _)| count);
    let share = 100.0 * precise(all.saturating_sub(refused)) / precise(all.max(1));
    (share, [500, 990].map(|rank| micros(percentile(&paced.latencies, rank))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_request_is_not_kept() {
        let latencies = vec![1000, 2000, 3000, 4000];
        let paced = paced::Paced { latencies, refused: Some((1, 429)), ..Default::default() };
        assert_eq!(kept(&paced), (75.0, [2.0, 4.0]));
    }
}
