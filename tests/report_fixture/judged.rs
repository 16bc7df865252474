//! Scores that follow from the example rows, and comparisons that follow from the scores.

use super::{GENERATION, PREFERENCE, SUBSETS, sigmoid};
use kto_eval::record::*;

/// Means of the example rows, for whole suites and for subsets; every example is its own cluster here.
pub(super) fn scores(examples: &[ExampleRow]) -> Vec<ScoreRow> {
    let mut made = Vec::new();
    let mut runs: Vec<(&str, &str, u64)> =
        examples.iter().map(|e| (e.run.as_str(), e.arm.as_str(), e.seed)).collect();
    runs.dedup();
    for (run, arm, seed) in runs {
        let metrics =
            PREFERENCE.iter().map(|m| ("heldout", m)).chain(GENERATION.iter().map(|m| ("world", m)));
        for (suite, (metric, unit, direction)) in metrics {
            for subset in ["all"].iter().chain(&SUBSETS) {
                let wanted = |e: &&ExampleRow| {
                    e.run == run
                        && e.suite == suite
                        && e.metric == *metric
                        && (*subset == "all" || e.subset == *subset)
                };
                let values: Vec<f64> = examples.iter().filter(wanted).map(|e| e.value).collect();
                let n = values.len() as f64;
                let mean = values.iter().sum::<f64>() / n;
                let var = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0);
                made.push(ScoreRow {
                    run: run.to_owned(),
                    arm: arm.to_owned(),
                    seed,
                    suite: suite.to_owned(),
                    subset: (*subset).to_owned(),
                    metric: (*metric).to_owned(),
                    value: mean,
                    n: n as u64,
                    standard_error: (var / n).sqrt(),
                    unit: (*unit).to_owned(),
                    direction: *direction,
                });
            }
        }
    }
    made
}

pub(super) fn comparisons(scores: &[ScoreRow]) -> Vec<ComparisonRow> {
    let mut made = Vec::new();
    let judged = PREFERENCE.iter().map(|m| ("heldout", m)).chain(GENERATION.iter().map(|m| ("world", m)));
    for (suite, (metric, unit, _)) in judged.filter(|(_, m)| m.2 != Direction::Neutral) {
        let of = |arm: &str| -> Vec<&ScoreRow> {
            let wanted =
                |s: &&ScoreRow| s.arm == arm && s.suite == suite && s.metric == *metric && s.subset == "all";
            scores.iter().filter(wanted).collect()
        };
        for (a, b) in [("kto", "dpo"), ("kto", "sft"), ("dpo", "sft")] {
            made.push(compared(suite, metric, unit, (a, &of(a)), (b, &of(b))));
        }
    }
    made
}

fn compared(
    suite: &str,
    metric: &str,
    unit: &str,
    a: (&str, &[&ScoreRow]),
    b: (&str, &[&ScoreRow]),
) -> ComparisonRow {
    let mean = |rows: &[&ScoreRow]| rows.iter().map(|r| r.value).sum::<f64>() / rows.len() as f64;
    let (mean_a, mean_b) = (mean(a.1), mean(b.1));
    let difference = mean_a - mean_b;
    let standard_error = 0.8 * a.1[0].standard_error.hypot(b.1[0].standard_error) / 3f64.sqrt();
    let half = 1.96 * standard_error;
    let margin = if unit == "share" { 0.04 } else { 0.05 };
    // Normal tail by the logistic approximation: good enough for a fixture.
    let z = difference.abs() / standard_error;
    let p = (2.0 * sigmoid(-1.702 * z)).min(1.0);
    let (low, high) = (difference - half, difference + half);
    let verdict = match () {
        () if low > 0.0 => Verdict::Better,
        () if high < 0.0 => Verdict::Worse,
        () if low > -margin && high < margin => Verdict::Equivalent,
        () => Verdict::Undecided,
    };
    let points = |v: f64| if unit == "share" { format!("{:.1}", 100.0 * v) } else { format!("{v:.2}") };
    let name = metric.replace("win_rate_", "win rate against ").replace('_', " ");
    let interval = format!(
        "95 % interval {} to {}, p {:.3} after Holm over 21 comparisons",
        points(low),
        points(high),
        p
    );
    let (x, y) = (a.0, b.0);
    let words = match verdict {
        Verdict::Better => {
            format!("{x} beats {y} on {suite} ({name}) by {} points, {interval}", points(difference))
        }
        Verdict::Worse => {
            format!("{x} loses to {y} on {suite} ({name}) by {} points, {interval}", points(-difference))
        }
        Verdict::Equivalent => format!(
            "{x} and {y} are equivalent on {suite} ({name}) within ± {} points, {interval}",
            points(margin)
        ),
        _ => format!(
            "{x} against {y} on {suite} ({name}) is undecided: {} points, {interval}; 3 more seeds would settle a difference of 2 points",
            points(difference)
        ),
    };
    ComparisonRow {
        family: if y == "base" { Family::Base } else { Family::Primary },
        suite: suite.into(),
        subset: "all".into(),
        metric: metric.into(),
        arm_a: x.into(),
        arm_b: y.into(),
        mean_a,
        mean_b,
        difference,
        standard_error,
        low,
        high,
        p: p / 3.0,
        p_adjusted: p,
        p_equivalence: 0.2,
        margin,
        verdict,
        seeds: 3,
        examples: a.1[0].n,
        clusters: a.1[0].n,
        detectable: Some(2.8 * standard_error),
        variance_seed: Some(standard_error.powi(2)),
        variance_prompt: Some(80.0 * standard_error.powi(2)),
        variance_judge: None,
        variance_residual: Some(160.0 * standard_error.powi(2)),
        p_permutation: Some(p / 4.0),
        p_mcnemar: (unit == "share").then_some(p / 4.0),
        bootstrap_low: None,
        bootstrap_high: None,
        words,
    }
}
