//! The last step's loss, seed by seed.

use super::finding::{Finding, Kind, amount, short};
use super::judge::Bench;
use super::side::Side;
use crate::record::Direction;
use crate::stats::gate::{Change, change, mean, spread};

/// One finding an arm that tells its losses: mean over seeds of (candidate − baseline)/|mean of the baseline|.
pub(super) fn judge(bench: &Bench) -> Vec<Finding> {
    bench.arms().into_iter().filter(|arm| bench.tells(arm)).map(|arm| one(bench, arm)).collect()
}

/// Whether any seed's loss differs between the sides.
pub(super) fn moved(bench: &Bench, arm: &str) -> bool {
    pairs(bench, arm).iter().any(|(b, c)| b != c)
}

fn pairs(bench: &Bench, arm: &str) -> Vec<(f64, f64)> {
    let loss = |side: &Side, seed| side.run(arm, seed).map_or(f64::NAN, |r| r.final_loss);
    bench.seeds(arm).into_iter().map(|s| (loss(bench.baseline, s), loss(bench.candidate, s))).collect()
}

/// Run-to-run standard deviation of a difference of two final losses, from the rounds of both sides.
fn run_to_run(bench: &Bench, arm: &str) -> f64 {
    let variance = |side: &Side| {
        let runs = side.repeats.iter().flat_map(|r| &r.runs).filter(|r| r.arm == arm);
        let losses: Vec<f64> = runs.map(|r| r.final_loss).filter(|l| l.is_finite()).collect();
        spread(&losses).powi(2)
    };
    (variance(bench.baseline) + variance(bench.candidate)).sqrt()
}

fn one(bench: &Bench, arm: &str) -> Finding {
    let tolerance = bench.config.final_loss.tolerance;
    let pairs = pairs(bench, arm);
    let n = pairs.len().max(1) as f64;
    let (b, c) = (pairs.iter().map(|p| p.0).sum::<f64>() / n, pairs.iter().map(|p| p.1).sum::<f64>() / n);
    let mut finding = Finding {
        baseline: Some(b).filter(|x| x.is_finite()),
        candidate: Some(c).filter(|x| x.is_finite()),
        tolerance,
        words: format!("final loss of {arm}: fewer than two seeds ended well on both sides"),
        ..Finding::undecided(Kind::FinalLoss, arm, "loss", Direction::Lower)
    };
    if pairs.is_empty() {
        finding.words = format!("final loss of {arm}: under no seed did it end well on both sides");
        return finding;
    }
    if pairs.iter().any(|p| !p.0.is_finite()) {
        finding.words = format!("final loss of {arm}: the baseline has none");
        return finding;
    }
    if pairs.iter().any(|p| !p.1.is_finite()) {
        finding.verdict = Change::Regressed;
        finding.words = format!("final loss of {arm}: not finite, {} before", short(b));
        return finding;
    }
    let size = b.abs().max(f64::MIN_POSITIVE);
    let shares: Vec<f64> = pairs.iter().map(|(x, y)| (y - x) / size).collect();
    if shares.iter().all(|d| *d == 0.0) {
        finding.verdict = Change::Pass;
        (finding.change, finding.low, finding.high) = (Some(0.0), Some(0.0), Some(0.0));
        finding.words = format!("final loss of {arm}: {}, bit for bit as before", short(b));
        return finding;
    }
    let floor = bench.history.noise(&finding.id).within.max(run_to_run(bench, arm) / size);
    let Some(m) = mean(&shares, floor, bench.tail) else { return finding };
    finding.verdict = change(-m.interval.high, -m.interval.low, tolerance);
    (finding.change, finding.low, finding.high) = (Some(m.mean), Some(m.interval.low), Some(m.interval.high));
    (finding.spread, finding.degrees_of_freedom) = (Some(m.spread), shares.len() - 1);
    let hint = if finding.verdict == Change::Inconclusive { "; more seeds would narrow it" } else { "" };
    finding.words = format!(
        "final loss of {arm}: {} after {}, {} ({} to {}; {} seeds), tolerance {:.1} %{hint}",
        short(c),
        short(b),
        amount(m.mean, true, ""),
        amount(m.interval.low, true, ""),
        amount(m.interval.high, true, ""),
        shares.len(),
        100.0 * tolerance
    );
    finding
}
