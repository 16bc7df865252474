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

fn one(bench: &Bench, kind: Kind, arm: &str, tolerance: f64) -> Finding {
    let throughput = kind == Kind::Throughput;
    let told = |side: &Side| side.records.runs.iter().any(|r| r.arm == arm && r.policy_tokens > 0);
    let counted = told(bench.baseline) && told(bench.candidate);
    let unit = match (throughput, counted) {
        (true, true) => "tokens/s",
        // A trainer that does not say how many tokens it saw (on one side): budgets are the same, so runs per time are,
        // unless the budget is the time.
        (true, false) => "runs/s",
        (false, _) => "MiB",
    };
    let id = format!("{}/{arm}", kind.name());
    let mut finding = Finding {
        id: id.clone(),
        kind,
        arm: arm.to_owned(),
        unit: unit.to_owned(),
        direction: if throughput { Direction::Higher } else { Direction::Lower },
        baseline: None,
        candidate: None,
        change: None,
        low: None,
        high: None,
        relative: true,
        tolerance,
        verdict: Change::Inconclusive,
        spread: None,
        degrees_of_freedom: 0,
        words: String::new(),
    };
    let what = if throughput { "throughput" } else { "peak memory" };
    let (b, c) = (bench.baseline, bench.candidate);
    if !measured(bench) {
        finding.words = format!(
            "{what} of {arm}: the sides were not measured turn about (`kto-eval gate measure` does), and times of \
             different hours do not compare"
        );
        return finding;
    }
    if throughput && !counted && matches!(b.records.plan.budget, Budget::Seconds(_)) {
        finding.words = format!(
            "{what} of {arm}: the budget is in seconds, and the trainer does not say how many tokens it saw"
        );
        return finding;
    }
    let value = |repeat: &Repeat| -> Option<f64> {
        let runs = repeat.runs.iter().filter(|r| r.arm == arm && r.status == Status::Done);
        let values: Vec<f64> = runs.map(|r| if throughput { speed(r, counted) } else { memory(r) }).collect();
        let n = values.len() as f64;
        (!values.is_empty()).then(|| (values.iter().map(|v| v.ln()).sum::<f64>() / n).exp())
    };
    let pairs: Vec<(f64, f64)> =
        b.repeats.iter().zip(&c.repeats).filter_map(|(b, c)| Some((value(b)?, value(c)?))).collect();
    let noise = bench.history.noise(&id);
    let Some(r) = ratio(&pairs, throughput, tolerance, noise, bench.tail) else {
        finding.words = format!("{what} of {arm}: fewer than two rounds measured it on both sides");
        return finding;
    };
    let n = pairs.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| (pairs.iter().map(|p| of(p).ln()).sum::<f64>() / n).exp();
    (finding.baseline, finding.candidate) = (Some(mean(|p| p.0)), Some(mean(|p| p.1)));
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
            more_rounds(&r, throughput, tolerance, pairs.len(), floor)
        }
        _ => String::new(),
    };
    let interval = match r.interval.high.is_finite() {
        true => format!(
            "{} to {}; ",
            amount(r.interval.low - 1.0, true, ""),
            amount(r.interval.high - 1.0, true, "")
        ),
        false => String::new(),
    };
    finding.words = format!(
        "{what} of {arm}: {} {unit} after {}, {} ({interval}{} rounds turn about), tolerance {:.1} %{hint}",
        short(mean(|p| p.1)),
        short(mean(|p| p.0)),
        amount(r.ratio - 1.0, true, ""),
        pairs.len(),
        100.0 * tolerance
    );
    finding
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
