//! Scores on held-out suites, by the paired statistics: an arm of the candidate against the same arm of the
//! baseline, example by example and seed by seed.

use std::collections::HashSet;

use super::finding::{Finding, Kind, amount};
use super::judge::Bench;
use crate::record::{Direction, ExampleRow, ScoreRow};
use crate::stats::gate::{Change, change};
use crate::stats::table::Table;
use crate::stats::{Components, Paired};

const BASELINE: &str = "baseline";
const CANDIDATE: &str = "candidate";

/// A metric to judge, with its design.
pub(super) struct Draft {
    arm: String,
    suite: String,
    metric: String,
    unit: String,
    direction: Direction,
    design: Option<Paired>,
    /// Values of the baseline that the candidate has none for, and how many the baseline has.
    lost: usize,
    of: usize,
}

/// One draft an arm, suite and gated metric that the baseline has scores of.
pub(super) fn drafts(bench: &Bench) -> Vec<Draft> {
    let config = &bench.config.quality;
    if !config.enabled {
        return vec![];
    }
    let b = &bench.baseline.records;
    let named = if config.metrics.is_empty() { &b.plan.verdict.primary } else { &config.metrics };
    let mut drafts: Vec<Draft> = vec![];
    for arm in bench.arms() {
        let (examples, scores) = side_by_side(bench, arm);
        let table = Table::new(&[], &examples, &scores);
        for score in b.scores.iter().filter(|s| s.arm == arm && s.subset == crate::suite::ALL) {
            let gated = score.direction != Direction::Neutral && named.contains(&score.metric);
            let known = |d: &Draft| d.arm == arm && d.suite == score.suite && d.metric == score.metric;
            if !gated || drafts.iter().any(known) {
                continue;
            }
            let group = table.groups().find(|g| g.suite == score.suite && g.metric == score.metric);
            let (lost, of) = lost(&examples, &score.suite, &score.metric);
            drafts.push(Draft {
                arm: arm.to_owned(),
                suite: score.suite.clone(),
                metric: score.metric.clone(),
                unit: score.unit.clone(),
                direction: score.direction,
                design: group.and_then(|g| g.pair(CANDIDATE, BASELINE)).map(|p| p.design),
                lost,
                of,
            });
        }
    }
    drafts
}

/// Values of the baseline that the candidate has none for, under the same seed, and values of the baseline.
fn lost(examples: &[ExampleRow], suite: &str, metric: &str) -> (usize, usize) {
    let of = |side: &str| -> HashSet<(u64, &str)> {
        let wanted = |e: &&ExampleRow| e.arm == side && e.suite == suite && e.metric == metric;
        let rows = examples.iter().filter(wanted).filter(|e| e.value.is_finite());
        rows.map(|e| (e.seed, e.example.as_str())).collect()
    };
    let baseline = of(BASELINE);
    (baseline.difference(&of(CANDIDATE)).count(), baseline.len())
}

impl Draft {
    /// Whether any example's value differs between the sides.
    pub(super) fn moved(&self) -> bool {
        self.design.as_ref().is_some_and(|d| d.sums().0.iter().any(|t| *t != 0.0))
    }
}

/// Rows of an arm with the two sides as arms.
fn side_by_side(bench: &Bench, arm: &str) -> (Vec<ExampleRow>, Vec<ScoreRow>) {
    let seeds = bench.seeds(arm);
    let (mut examples, mut scores) = (vec![], vec![]);
    for (side, name) in [(bench.baseline, BASELINE), (bench.candidate, CANDIDATE)] {
        let kept = side.records.examples.iter().filter(|e| e.arm == arm && seeds.contains(&e.seed));
        examples.extend(kept.map(|e| ExampleRow { arm: name.to_owned(), ..e.clone() }));
        let kept = side.records.scores.iter().filter(|s| s.arm == arm);
        scores.extend(kept.map(|s| ScoreRow { arm: name.to_owned(), ..s.clone() }));
    }
    (examples, scores)
}

/// The interval of the mean gain against the tolerance.
pub(super) fn judge(bench: &Bench, draft: &Draft) -> Finding {
    let tolerance = bench.config.quality_tolerance(&draft.metric);
    let name = format!("{} of {} on {}", draft.metric.replace('_', " "), draft.arm, draft.suite);
    let mut finding = Finding {
        id: format!("quality/{}/{}/{}", draft.arm, draft.suite, draft.metric),
        kind: Kind::Quality,
        arm: draft.arm.clone(),
        unit: draft.unit.clone(),
        direction: draft.direction,
        baseline: None,
        candidate: None,
        change: None,
        low: None,
        high: None,
        relative: false,
        tolerance,
        verdict: Change::Inconclusive,
        spread: None,
        degrees_of_freedom: 0,
        words: format!("{name}: the sides have no examples in common"),
    };
    let alike = bench.baseline.records.plan.suites == bench.candidate.records.plan.suites;
    if draft.lost > 0 && draft.lost == draft.of && alike {
        finding.verdict = Change::Regressed;
        finding.words = format!("{name}: the candidate has no value of any of the baseline's {}", draft.of);
        return finding;
    }
    let Some(design) = draft.design.as_ref().filter(|d| d.clusters() > 1) else { return finding };
    // Three seeds that each lose one answer agree to the bit and show no spread: no less than coins would.
    let law = Components::law(design).at_least(design.coin_variance());
    let (mean, seeds) = (law.difference, design.seeds());
    // The critical value of the conservative p: its size holds at the small levels that many tests ask for.
    let half = match law.variance() > 0.0 {
        true => law.critical(2.0 * bench.tail) * law.standard_error(),
        false => 0.0,
    };
    let (low, high) = (mean - half, mean + half);
    let lower = draft.direction == Direction::Lower;
    let (worst, best) = if lower { (-high, -low) } else { (low, high) };
    let judged = change(worst, best, tolerance);
    // One seed speaks of two checkpoints, not of two trainers: it may clear, never accuse.
    let few = seeds < 2 && matches!(judged, Change::Regressed | Change::Improved);
    // What the candidate has no value for may be what it has become bad at: the rest cannot clear it.
    let partial = draft.lost > 0 && matches!(judged, Change::Pass | Change::Improved);
    finding.verdict = if few || partial { Change::Inconclusive } else { judged };
    finding.baseline = Some(design.mean_b());
    finding.candidate = Some(design.mean_a());
    finding.change = Some(mean);
    (finding.low, finding.high) = (Some(low), Some(high)).zip_finite();
    let hint = match finding.verdict {
        Change::Inconclusive if partial => "",
        Change::Inconclusive if few => "; one seed decides nothing: plan three or more",
        Change::Inconclusive => "; more seeds or prompts would narrow it",
        _ => "",
    };
    let missing = match draft.lost {
        0 => String::new(),
        n => format!("; {n} of the baseline's {} values have none in the candidate", draft.of),
    };
    finding.words = format!(
        "{name}: {} ({} to {}; {seeds} seeds, {} prompts), tolerance {tolerance} {}{missing}{hint}",
        amount(mean, false, &draft.unit),
        amount(low, false, &draft.unit),
        amount(high, false, &draft.unit),
        design.clusters(),
        draft.unit
    );
    finding
}

/// JSON has no infinity.
trait ZipFinite {
    fn zip_finite(self) -> Self;
}

impl ZipFinite for (Option<f64>, Option<f64>) {
    fn zip_finite(self) -> Self {
        (self.0.filter(|x| x.is_finite()), self.1.filter(|x| x.is_finite()))
    }
}
