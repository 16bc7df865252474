//! Scores on held-out suites, by the paired statistics: an arm of the candidate against the same arm of the
//! baseline, example by example and seed by seed.

use std::collections::{BTreeSet, HashSet};

use super::config::Config;
use super::finding::{Finding, Kind, amount};
use super::judge::Bench;
use super::side::Side;
use crate::base::error::{Context, Result, unknown};
use crate::record::{Direction, ExampleRow, ScoreRow};
use crate::stats::gate::{Change, change};
use crate::stats::table::Table;
use crate::stats::{Components, Interval, Paired};
use crate::suite::METRICS;

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
    /// The design with the lost ones as bad as can be; `None` where none is lost, or the metric has no worst value.
    filled: Option<Paired>,
}

/// Whether the baseline has what the gate file names: a misspelt metric would be gated by nobody.
///
/// # Errors
/// A metric to gate that the baseline has no directed score of; a tolerance of what is no metric.
pub fn check(config: &Config, baseline: &Side) -> Result<()> {
    let scores = &baseline.records.scores;
    let directed: BTreeSet<&str> =
        scores.iter().filter(|s| s.direction != Direction::Neutral).map(|s| s.metric.as_str()).collect();
    let gated = || config.quality.metrics.iter().filter(|_| config.quality.enabled);
    let directed: Vec<&str> = directed.into_iter().collect();
    if let Some(name) = gated().find(|name| !directed.contains(&name.as_str())) {
        let message = "`quality.metrics`: the baseline has no score with a better side of this name";
        return Err(unknown("metric", name, &directed)).context(message);
    }
    let known: Vec<&str> = directed.iter().copied().chain(METRICS.iter().map(|m| m.name)).collect();
    match config.quality.tolerances.keys().find(|name| !known.contains(&name.as_str())) {
        Some(name) => Err(unknown("metric", name, &known)).context("`quality.tolerances`"),
        None => Ok(()),
    }
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
        let design = |table: &Table, score: &ScoreRow| {
            let mut groups = table.groups().filter(|g| g.suite == score.suite && g.metric == score.metric);
            groups.next().and_then(|g| g.pair(CANDIDATE, BASELINE)).map(|p| p.design)
        };
        for score in b.scores.iter().filter(|s| s.arm == arm && s.subset == crate::suite::ALL) {
            let gated = score.direction != Direction::Neutral && named.contains(&score.metric);
            let known = |d: &Draft| d.arm == arm && d.suite == score.suite && d.metric == score.metric;
            if !gated || drafts.iter().any(known) {
                continue;
            }
            let (lost, of) = lost(&examples, &score.suite, &score.metric);
            let worst = worst(score).filter(|_| !lost.is_empty());
            let filled = worst.and_then(|value| {
                let fill = |e: &&ExampleRow| ExampleRow { arm: CANDIDATE.to_owned(), value, ..(*e).clone() };
                let filled: Vec<ExampleRow> = examples.iter().cloned().chain(lost.iter().map(fill)).collect();
                design(&Table::new(&[], &filled, &scores), score)
            });
            drafts.push(Draft {
                arm: arm.to_owned(),
                suite: score.suite.clone(),
                metric: score.metric.clone(),
                unit: score.unit.clone(),
                direction: score.direction,
                design: design(&table, score),
                lost: lost.len(),
                of,
                filled,
            });
        }
    }
    drafts
}

/// Rows of the baseline that the candidate has no value for, under the same seed, and how many the baseline has.
fn lost<'e>(examples: &'e [ExampleRow], suite: &str, metric: &str) -> (Vec<&'e ExampleRow>, usize) {
    let of = |side: &str| -> Vec<&ExampleRow> {
        let wanted = |e: &&ExampleRow| e.arm == side && e.suite == suite && e.metric == metric;
        examples.iter().filter(wanted).filter(|e| e.value.is_finite()).collect()
    };
    let baseline = of(BASELINE);
    let known: HashSet<(u64, &str)> =
        of(CANDIDATE).into_iter().map(|e| (e.seed, e.example.as_str())).collect();
    let all = baseline.len();
    (baseline.into_iter().filter(|e| !known.contains(&(e.seed, e.example.as_str()))).collect(), all)
}

/// The worst value that a metric can have; `None` where there is none.
fn worst(score: &ScoreRow) -> Option<f64> {
    match (score.unit.as_str(), score.direction) {
        ("share", Direction::Higher) => Some(0.0),
        ("share", Direction::Lower) => Some(1.0),
        _ => None,
    }
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
    let judged = |interval: Interval| {
        let lower = draft.direction == Direction::Lower;
        let (worst, best) =
            if lower { (-interval.high, -interval.low) } else { (interval.low, interval.high) };
        change(worst, best, tolerance)
    };
    let cleared = |change: Change| matches!(change, Change::Pass | Change::Improved);
    let (mean, seeds) = (design.difference(), design.seeds());
    let interval = interval(design, bench.tail);
    let Interval { low, high } = interval;
    // What the candidate has no value for may be what it has become bad at: the rest clears it only where it would
    // have passed had it done as badly as can be there.
    let at_worst = draft.filled.as_ref().map(|d| judged(self::interval(d, bench.tail)));
    let known = match judged(interval) {
        kept if draft.lost > 0 && cleared(kept) => at_worst.filter(|c| cleared(*c)),
        kept => Some(kept),
    };
    // One seed speaks of two checkpoints, not of two trainers: it may clear, never accuse.
    let few = seeds < 2 && matches!(known, Some(Change::Regressed | Change::Improved));
    let partial = known.is_none();
    finding.verdict = known.filter(|_| !few).unwrap_or(Change::Inconclusive);
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
    let at_worst = if cleared(finding.verdict) { ", which would pass were they the worst" } else { "" };
    let missing = match draft.lost {
        0 => String::new(),
        n => format!("; {n} of the baseline's {} values have none in the candidate{at_worst}", draft.of),
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

/// Of the mean gain, at the one-sided level `tail`.
fn interval(design: &Paired, tail: f64) -> Interval {
    // Three seeds that each lose the same number of answers show no spread: no less than coins would.
    let law = Components::law(design).at_least(design.coin_variance());
    // The critical value of the conservative p: its size holds at the small levels that many tests ask for.
    let half = match law.variance() > 0.0 {
        true => law.critical(2.0 * tail) * law.standard_error(),
        false => 0.0,
    };
    Interval { low: law.difference - half, high: law.difference + half }
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
