//! Throughput and peak memory, from rounds that were measured turn about.

use super::finding::{Finding, Kind, amount, short};
use super::judge::Bench;
use super::side::{Repeat, Side};
use crate::plan::Budget;
use crate::record::{Direction, RunRow, Status};
use crate::stats::distribution::t_quantile;
use crate::stats::gate::{Change, Ratio, ratio};
use crate::stats::signed_rank::fewest;

/// Whether the rounds can say anything: one measurement made both sides.
pub(super) fn measured(bench: &Bench) -> bool {
    bench.baseline.session.is_some() && bench.baseline.session == bench.candidate.session
}

/// One finding an arm.
pub(super) fn judge(bench: &Bench, kind: Kind, tolerance: f64) -> Vec<Finding> {
    bench.arms().into_iter().map(|arm| one(bench, kind, arm, tolerance)).collect()
}

/// What is measured of an arm.
struct Gauge<'a> {
    arm: &'a str,
    /// Else peak memory.
    throughput: bool,
    /// Both sides say how many tokens they saw.
    counted: bool,
}

impl Gauge<'_> {
    fn name(&self) -> &'static str {
        if self.throughput { "throughput" } else { "peak memory" }
    }

    fn unit(&self) -> &'static str {
        match (self.throughput, self.counted) {
            (true, true) => "tokens/s",
            // A trainer that does not say how many tokens it saw (on one side): budgets are the same, so runs per time are,
            // unless the budget is the time.
            (true, false) => "runs/s",
            (false, _) => "MiB",
        }
    }

    fn direction(&self) -> Direction {
        if self.throughput { Direction::Higher } else { Direction::Lower }
    }

    /// Why the sides cannot be compared; `None`: they can.
    fn refusal(&self, bench: &Bench) -> Option<&'static str> {
        if !measured(bench) {
            return Some(
                "the sides were not measured turn about (`kto-eval gate measure` does), and times of different hours do \
                 not compare",
            );
        }
        let seconds = matches!(bench.baseline.records.plan.budget, Budget::Seconds(_));
        (self.throughput && !self.counted && seconds)
            .then_some("the budget is in seconds, and the trainer does not say how many tokens it saw")
    }

    /// Geometric mean over the round's runs that ended well.
    fn value(&self, round: &Repeat) -> Option<f64> {
        let runs = round.runs.iter().filter(|r| r.arm == self.arm && r.status == Status::Done);
        let of = |r: &RunRow| if self.throughput { speed(r, self.counted) } else { memory(r) };
        geometric_mean(&runs.map(of).collect::<Vec<_>>())
    }
}

fn geometric_mean(values: &[f64]) -> Option<f64> {
    let logs = values.iter().map(|v| v.ln()).sum::<f64>();
    (!values.is_empty()).then(|| (logs / values.len() as f64).exp())
}

fn one(bench: &Bench, kind: Kind, arm: &str, tolerance: f64) -> Finding {
    let (b, c) = (bench.baseline, bench.candidate);
    let told = |side: &Side| side.records.runs.iter().any(|r| r.arm == arm && r.policy_tokens > 0);
    let gauge = Gauge { arm, throughput: kind == Kind::Throughput, counted: told(b) && told(c) };
    let what = format!("{} of {arm}", gauge.name());
    let mut finding = Finding { tolerance, ..Finding::undecided(kind, arm, gauge.unit(), gauge.direction()) };
    if let Some(why) = gauge.refusal(bench) {
        finding.words = format!("{what}: {why}");
        return finding;
    }
    let rounds = b.repeats.iter().zip(&c.repeats);
    let pairs: Vec<(f64, f64)> =
        rounds.filter_map(|(b, c)| Some((gauge.value(b)?, gauge.value(c)?))).collect();
    let noise = bench.history.noise(&finding.id);
    let Some(r) = ratio(&pairs, gauge.throughput, tolerance, noise, bench.tail) else {
        finding.words = format!("{what}: fewer than two rounds measured it on both sides");
        return finding;
    };
    let (before, after): (Vec<f64>, Vec<f64>) = pairs.iter().copied().unzip();
    (finding.baseline, finding.candidate) = (geometric_mean(&before), geometric_mean(&after));
    finding.change = Some(r.ratio - 1.0);
    // JSON has no infinity.
    if r.interval.high.is_finite() {
        (finding.low, finding.high) = (Some(r.interval.low - 1.0), Some(r.interval.high - 1.0));
    }
    finding.verdict = r.change;
    (finding.spread, finding.degrees_of_freedom) = (Some(r.spread), pairs.len() - 1);
    let hint = match (r.change, fewest(bench.tail)) {
        (Change::Inconclusive, least) if pairs.len() < least => {
            format!("; fewer than {least} rounds can show no change at this gate's chance of a false alarm")
        }
        (Change::Inconclusive, _) => {
            let floor = t_quantile(bench.tail, f64::INFINITY) * noise.between;
            more_rounds(&r, gauge.throughput, tolerance, pairs.len(), floor)
        }
        _ => String::new(),
    };
    finding.words = format!("{what}: {}{hint}", words(&finding, pairs.len()));
    finding
}

/// `51 tokens/s after 50, +2.0 % (+1.0 % to +3.0 %; 8 rounds turn about), tolerance 5.0 %`.
fn words(finding: &Finding, rounds: usize) -> String {
    let share = |x: f64| amount(x, true, "");
    let interval = match (finding.low, finding.high) {
        (Some(low), Some(high)) => format!("{} to {}; ", share(low), share(high)),
        _ => String::new(),
    };
    format!(
        "{} {} after {}, {} ({interval}{rounds} rounds turn about), tolerance {:.1} %",
        short(finding.candidate.unwrap_or(f64::NAN)),
        finding.unit,
        short(finding.baseline.unwrap_or(f64::NAN)),
        share(finding.change.unwrap_or(f64::NAN)),
        100.0 * finding.tolerance
    )
}

/// How many rounds would decide a change of the size seen: the interval narrows with their root, down to `floor` (of
/// half its width, on the log scale), which the spread between earlier gates sets.
fn more_rounds(r: &Ratio, higher_is_better: bool, tolerance: f64, rounds: usize, floor: f64) -> String {
    let limit = if higher_is_better { (-tolerance).ln_1p() } else { tolerance.ln_1p() };
    let at = r.ratio.ln();
    // The end that reaches across the tolerance.
    let end = if at > limit { r.interval.low } else { r.interval.high };
    let (half, room) = ((at - end.ln()).abs(), (at - limit).abs());
    let needed = rounds as f64 * (half / room).powi(2);
    if floor > 0.0 && floor >= room {
        return format!(
            "; earlier gates differ among themselves by more than is left to the tolerance (± {:.1} %): no number of \
             rounds would decide it",
            100.0 * floor.exp_m1()
        );
    }
    match needed.is_finite() && needed < 99.0 {
        true => format!("; about {} rounds would decide it", needed.ceil()),
        false => "; more rounds, or a quieter machine, would narrow it".to_owned(),
    }
}

fn speed(run: &RunRow, counted: bool) -> f64 {
    if counted { run.tokens_per_second } else { 1.0 / run.train_seconds }
}

/// Host and device together: moving a tensor from one to the other is no saving.
fn memory(run: &RunRow) -> f64 {
    run.peak_host_mib + run.peak_device_mib
}
