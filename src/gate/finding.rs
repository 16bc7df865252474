//! What a gate found: one finding a metric, and what they come to.

use serde::{Deserialize, Serialize};

use super::config::{Config, Undecided};
use crate::record::{Direction, Environment};
use crate::stats::gate::Change;

/// Version of `gate.json`.
pub const FORMAT: u32 = 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Runs that ended well in the baseline must end well.
    Completion,
    Quality,
    FinalLoss,
    Trajectory,
    Throughput,
    Memory,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Kind::Completion => "completion",
            Kind::Quality => "quality",
            Kind::FinalLoss => "final-loss",
            Kind::Trajectory => "trajectory",
            Kind::Throughput => "throughput",
            Kind::Memory => "memory",
        }
    }

    /// Changes are shares of the baseline, not differences in the unit.
    fn is_relative(self) -> bool {
        matches!(self, Kind::FinalLoss | Kind::Throughput | Kind::Memory)
    }
}

/// The verdict on one metric.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// `<kind>/<arm>`, for quality `quality/<arm>/<suite>/<metric>`: stable, for dashboards and histories.
    pub id: String,
    pub kind: Kind,
    pub arm: String,
    pub unit: String,
    pub direction: Direction,
    /// Means of the two sides, in `unit`. `None`: not measured.
    pub baseline: Option<f64>,
    pub candidate: Option<f64>,
    /// Candidate against baseline: a share (−0.1: a tenth less) where `relative`, else a difference in `unit`.
    pub change: Option<f64>,
    pub low: Option<f64>,
    pub high: Option<f64>,
    pub relative: bool,
    pub tolerance: f64,
    pub verdict: Change,
    /// Standard deviation of what was repeated, and its degrees of freedom: what a history learns noise from.
    pub spread: Option<f64>,
    pub degrees_of_freedom: usize,
    /// One sentence.
    pub words: String,
}

impl Finding {
    /// On one metric of an arm, before anything is known of it.
    pub(super) fn undecided(kind: Kind, arm: &str, unit: &str, direction: Direction) -> Self {
        Self {
            id: format!("{}/{arm}", kind.name()),
            kind,
            arm: arm.to_owned(),
            unit: unit.to_owned(),
            direction,
            baseline: None,
            candidate: None,
            change: None,
            low: None,
            high: None,
            relative: kind.is_relative(),
            tolerance: 0.0,
            verdict: Change::Inconclusive,
            spread: None,
            degrees_of_freedom: 0,
            words: String::new(),
        }
    }
}

/// Everything a gate has to say: `gate.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Findings {
    pub format: u32,
    pub plan: String,
    pub verdict: Change,
    /// Whether the exit code is 1.
    pub fails: bool,
    /// Chance of any false alarm in the gate, and the metrics that share it.
    pub alarm: f64,
    pub tests: usize,
    pub baseline: Environment,
    pub candidate: Environment,
    /// What a reader should know: plans that differ, hashes that are not known, no history.
    pub notes: Vec<String>,
    pub findings: Vec<Finding>,
}

impl Findings {
    /// The verdict of all findings together: the worst, and `improved` only where nothing is undecided.
    pub(super) fn conclude(findings: &[Finding], config: &Config) -> (Change, bool) {
        let any = |change: Change| findings.iter().any(|f| f.verdict == change);
        let verdict = if any(Change::Regressed) {
            Change::Regressed
        } else if any(Change::Inconclusive) {
            Change::Inconclusive
        } else if any(Change::Improved) {
            Change::Improved
        } else {
            Change::Pass
        };
        let undecided = verdict == Change::Inconclusive && config.inconclusive == Undecided::Fail;
        (verdict, verdict == Change::Regressed || undecided)
    }

    pub fn of(&self, verdict: Change) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(move |f| f.verdict == verdict)
    }
}

/// `+1.2 %` or `−0.013 share`.
pub(super) fn amount(value: f64, relative: bool, unit: &str) -> String {
    let sign = if value < 0.0 { "−" } else { "+" };
    match relative {
        true => format!("{sign}{:.1} %", 100.0 * value.abs()),
        false => format!("{sign}{} {unit}", short(value.abs())),
    }
}

/// Four significant digits.
pub(super) fn short(value: f64) -> String {
    if value == 0.0 || !value.is_finite() {
        return format!("{value}");
    }
    let places = (3 - value.abs().log10().floor() as i32).clamp(0, 9) as usize;
    let text = format!("{value:.places$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}
