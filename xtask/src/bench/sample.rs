//! What is measured: the cases, one sample of one case, and all samples of a run.

use super::stats::{Spread, spread};
use serde_json::{Value, json};

/// One way to set Envoy up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Variant {
    /// The router alone: what every other variant is compared with.
    Router,
    /// Envoy's own filters doing the work of the demo policy.
    Native,
    /// Our filter with the policy `{version: 1}`.
    Empty,
    /// Our filter with the demo policy.
    Demo,
}

impl Variant {
    /// All of them, in the order of the table.
    pub(super) const ALL: [Self; 4] = [Self::Router, Self::Native, Self::Empty, Self::Demo];

    /// As the table calls it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Router => "router alone",
            Self::Native => "native chain",
            Self::Empty => "gateway, empty policy",
            Self::Demo => "gateway, demo policy",
        }
    }

    /// As file names call it.
    pub(super) const fn slug(self) -> &'static str {
        match self {
            Self::Router => "router",
            Self::Native => "native",
            Self::Empty => "empty",
            Self::Demo => "demo",
        }
    }
}

/// A variant with a number of worker threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Case {
    /// How Envoy is set up.
    pub(super) variant: Variant,
    /// Envoy's `--concurrency`.
    pub(super) concurrency: u32,
}

impl Case {
    /// As folders and messages call it.
    pub(super) fn slug(self) -> String {
        format!("{}-{}", self.variant.slug(), self.concurrency)
    }
}

/// One round's numbers of one case. Times are microseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    /// Envoy's CPU time per request while saturated.
    pub(super) cpu: f64,
    /// Requests per second while saturated.
    pub(super) per_second: f64,
    /// Envoy's CPU time per request at the fixed load.
    pub(super) paced_cpu: f64,
    /// Median, 95th and 99th percentile of the latency at the fixed load.
    pub(super) latency: [f64; 3],
    /// 99th percentile of what the generator itself added.
    pub(super) lateness: f64,
}

/// All samples of one case, in the order of the rounds.
#[derive(Clone, Debug)]
pub(super) struct Series {
    /// What was measured.
    pub(super) case: Case,
    /// One sample per round.
    pub(super) samples: Vec<Sample>,
    /// Envoy's resident memory after the last round, KiB.
    pub(super) resident_kib: u64,
}

impl Series {
    /// The spread of one number over the rounds.
    pub(super) fn of(&self, number: impl Fn(&Sample) -> f64) -> Spread {
        spread(&self.samples.iter().map(number).collect::<Vec<_>>())
    }

    /// The spread of a comparison with another series, round by round: what drifts during the run
    /// moves both and falls out.
    pub(super) fn against(&self, base: &Self, compare: impl Fn(f64, f64) -> f64) -> Spread {
        let pairs = self.samples.iter().zip(&base.samples);
        spread(&pairs.map(|(own, other)| compare(own.cpu, other.cpu)).collect::<Vec<_>>())
    }

    /// Everything, for other programs.
    pub(super) fn json(&self) -> Value {
        let rounds = self.samples.iter().map(|sample| {
            let [p50, p95, p99] = sample.latency;
            json!({
                "cpu_us": sample.cpu,
                "requests_per_second": sample.per_second,
                "paced_cpu_us": sample.paced_cpu,
                "p50_us": p50, "p95_us": p95, "p99_us": p99,
                "generator_p99_us": sample.lateness,
            })
        });
        json!({
            "variant": self.case.variant.slug(),
            "concurrency": self.case.concurrency,
            "resident_kib": self.resident_kib,
            "rounds": rounds.collect::<Vec<_>>(),
        })
    }
}
