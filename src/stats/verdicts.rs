//! Every comparison of a plan, judged together.

use std::collections::HashMap;

use rayon::prelude::*;

use super::bootstrap::two_level;
use super::mcnemar;
use super::permutation::flip_prompts;
use super::power::{detectable, settling};
use super::table::{Group, Pairing, Table};
use super::words::{Facts, sentence};
use super::{Components, Interval, Law, holm};
use crate::plan::{BASE_ARM, VerdictSpec};
use crate::record::{ComparisonRow, Direction, ExampleRow, Family, ScoreRow, Verdict, metric_words};

/// Compares every pair of arms on every suite and metric that has a direction.
///
/// `examples` carry the values, `scores` the direction and unit of each metric and the order of the output.
/// Arms are paired on example and seed; `base` (untrained) is an arm where it has rows. Holm runs over the
/// difference tests of each [`Family`], and over its equivalence tests. `invalid`: why no verdict may be given (the
/// budgets did not match, a sentinel won); figures are given all the same.
///
/// A verdict speaks of methods, that is of other seeds too: with one seed there is none (undecided).
pub fn verdicts(
    examples: &[ExampleRow],
    scores: &[ScoreRow],
    spec: &VerdictSpec,
    invalid: Option<&str>,
) -> Vec<ComparisonRow> {
    verdicts_among(&[], examples, scores, spec, invalid, &|_, _| true)
}

/// [`verdicts`] on those pairs of trained arms that were asked about; each arm is held against the base all the same.
/// `planned`: arms of the plan in its order; one without any row has its comparisons too, and no verdict.
pub fn verdicts_among(
    planned: &[&str],
    examples: &[ExampleRow],
    scores: &[ScoreRow],
    spec: &VerdictSpec,
    invalid: Option<&str>,
    asked: &dyn Fn(&str, &str) -> bool,
) -> Vec<ComparisonRow> {
    let directed: HashMap<(&str, &str), &ScoreRow> = scores
        .iter()
        .filter(|s| s.direction != Direction::Neutral)
        .map(|s| ((s.suite.as_str(), s.metric.as_str()), s))
        .collect();
    let table = Table::new(planned, examples, scores);
    let mut drafts = Vec::new();
    for group in table.groups() {
        if let Some(score) = directed.get(&(group.suite, group.metric)) {
            let pairs = pairs(&table, &group, asked);
            drafts.par_extend(pairs.par_iter().map(|(a, b)| Draft::new(&group, score, a, b, spec)));
        }
    }
    judge(drafts, spec, invalid)
}

/// Pairs to compare: every two trained arms of the plan, then each of them with the base where that has rows. A trained arm
/// without rows is said to be missing.
fn pairs<'t>(
    table: &'t Table,
    group: &Group<'t>,
    asked: &dyn Fn(&str, &str) -> bool,
) -> Vec<(&'t str, &'t str)> {
    let trained: Vec<&str> = table.trained_arms().collect();
    let present: Vec<&str> = group.arms().collect();
    let mut pairs = Vec::new();
    // Of a suite that no run has been scored on yet there is nothing to say.
    if !trained.iter().any(|arm| present.contains(arm)) {
        return pairs;
    }
    for (i, a) in trained.iter().enumerate() {
        pairs.extend(trained[i + 1..].iter().map(|b| (*a, *b)));
    }
    pairs.retain(|(a, b)| asked(a, b));
    if present.contains(&BASE_ARM) || group.even_base() {
        pairs.extend(trained.iter().map(|a| (*a, BASE_ARM)));
    }
    pairs
}

/// A comparison before the others are known.
struct Draft<'a> {
    family: Family,
    suite: &'a str,
    metric: &'a str,
    a: &'a str,
    b: &'a str,
    /// b is the base, which has this metric by definition.
    even: bool,
    lower_is_better: bool,
    unit: &'a str,
    measured: Option<Measured>,
    /// Why nothing is measured, where nothing is.
    missing: String,
}

struct Measured {
    pairing: Pairing,
    parts: Components,
    law: Law,
    interval: Interval,
    p: f64,
    p_equivalence: f64,
    p_permutation: f64,
    p_mcnemar: Option<f64>,
    /// Of the plan's question only: it is the dearest of all.
    bootstrap: Option<Interval>,
}

impl<'a> Draft<'a> {
    fn new(group: &Group<'a>, score: &'a ScoreRow, a: &'a str, b: &'a str, spec: &VerdictSpec) -> Self {
        let family = match spec.primary.iter().any(|m| m == group.metric) {
            true if b == BASE_ARM => Family::Base,
            true => Family::Primary,
            false => Family::Secondary,
        };
        let stands = |arm: &str| group.arms().any(|x| x == arm) || (arm == BASE_ARM && group.even_base());
        let absent: Vec<&str> = [a, b].into_iter().filter(|arm| !stands(arm)).collect();
        let missing = match absent.as_slice() {
            [] => format!("{a} and {b} have fewer than two prompts in common"),
            [one] => format!("{one} has no scores"),
            both => format!("{} have no scores", both.join(" and ")),
        };
        Self {
            family,
            suite: group.suite,
            metric: group.metric,
            a,
            b,
            even: b == BASE_ARM && group.unmeasured_base(),
            lower_is_better: score.direction == Direction::Lower,
            unit: &score.unit,
            measured: group
                .pair(a, b)
                .filter(|p| p.design.clusters() > 1)
                .map(|p| Measured::new(p, spec, family != Family::Secondary)),
            missing,
        }
    }
}

impl Measured {
    fn new(pairing: Pairing, spec: &VerdictSpec, asked: bool) -> Self {
        let design = &pairing.design;
        let law = Components::law(design);
        let (resamples, seed) = (spec.resamples, spec.seed);
        let parts = Components::of(design);
        Self {
            p_permutation: flip_prompts(design, resamples, seed),
            p_mcnemar: mcnemar::of_design(design),
            bootstrap: asked.then(|| two_level(design, resamples, spec.alpha, seed)).flatten(),
            interval: law.interval(spec.alpha),
            p: law.p_skewed(parts.skewness),
            p_equivalence: parts.events.p_equivalence(&law, spec.equivalence_margin, parts.clusters),
            parts,
            law,
            pairing,
        }
    }
}

/// Corrects within each family and writes the rows, in the order of the drafts.
fn judge(drafts: Vec<Draft>, spec: &VerdictSpec, invalid: Option<&str>) -> Vec<ComparisonRow> {
    let mut rows: Vec<(usize, ComparisonRow)> = Vec::with_capacity(drafts.len());
    for family in [Family::Primary, Family::Base, Family::Secondary] {
        let members: Vec<(usize, &Draft)> =
            drafts.iter().enumerate().filter(|(_, d)| d.family == family).collect();
        let corrected = |of: fn(&Measured) -> f64| -> Vec<f64> {
            let p = members.iter().map(|(_, d)| d.measured.as_ref().map_or(f64::NAN, of));
            holm(&p.collect::<Vec<f64>>())
        };
        let (differences, equivalences) = (corrected(|m| m.p), corrected(|m| m.p_equivalence));
        let tests = differences.iter().filter(|p| !p.is_nan()).count();
        let strictest = spec.alpha / tests.max(1) as f64;
        let shared = Shared { tests, strictest, spec, invalid };
        let judged = members.iter().zip(differences.iter().zip(&equivalences));
        rows.extend(judged.map(|((place, draft), (p, q))| (*place, shared.row(draft, *p, *q))));
    }
    rows.sort_by_key(|(place, _)| *place);
    rows.into_iter().map(|(_, row)| row).collect()
}

/// What the comparisons of a family share.
struct Shared<'a> {
    /// Tests that Holm corrects over.
    tests: usize,
    /// α over their number: the level that the smallest p must reach.
    strictest: f64,
    spec: &'a VerdictSpec,
    invalid: Option<&'a str>,
}

impl Shared<'_> {
    fn row(&self, draft: &Draft, p_adjusted: f64, q_adjusted: f64) -> ComparisonRow {
        let Some(m) = &draft.measured else {
            return unmeasured(draft, self.spec, self.invalid.unwrap_or(&draft.missing));
        };
        let verdict = self.verdict(draft, m, p_adjusted, q_adjusted);
        let design = &m.pairing.design;
        ComparisonRow {
            mean_a: design.mean_a(),
            mean_b: design.mean_b(),
            difference: m.law.difference,
            standard_error: m.law.standard_error(),
            low: m.interval.low,
            high: m.interval.high,
            p: m.p,
            p_adjusted,
            p_equivalence: m.p_equivalence,
            verdict,
            seeds: design.seeds() as u64,
            examples: design.examples() as u64,
            clusters: design.clusters() as u64,
            detectable: detectable(&m.law, self.strictest),
            variance_seed: (m.parts.seeds > 1).then_some(m.parts.seed),
            variance_prompt: Some(m.parts.prompt),
            variance_residual: (m.parts.seeds > 1).then_some(m.parts.residual),
            p_permutation: Some(m.p_permutation),
            p_mcnemar: m.p_mcnemar,
            bootstrap_low: m.bootstrap.map(|b| b.low),
            bootstrap_high: m.bootstrap.map(|b| b.high),
            words: self.words(draft, m, p_adjusted, verdict),
            ..unmeasured(draft, self.spec, "")
        }
    }

    fn verdict(&self, draft: &Draft, m: &Measured, p_adjusted: f64, q_adjusted: f64) -> Verdict {
        let alpha = self.spec.alpha;
        match self.invalid {
            Some(_) => Verdict::Invalid,
            None if m.parts.seeds < 2 => Verdict::Undecided,
            None if p_adjusted <= alpha && (m.law.difference < 0.0) == draft.lower_is_better => {
                Verdict::Better
            }
            None if p_adjusted <= alpha => Verdict::Worse,
            None if q_adjusted <= alpha => Verdict::Equivalent,
            None => Verdict::Undecided,
        }
    }

    fn words(&self, draft: &Draft, m: &Measured, p_adjusted: f64, verdict: Verdict) -> String {
        let margin = self.spec.equivalence_margin;
        let open = verdict == Verdict::Undecided && m.parts.seeds > 1;
        sentence(&Facts {
            a: draft.a,
            b: draft.b,
            even: draft.even,
            suite: draft.suite,
            metric: draft.metric,
            unit: draft.unit,
            lower_is_better: draft.lower_is_better,
            difference: m.law.difference,
            interval: m.interval,
            level: 1.0 - self.spec.alpha,
            p_adjusted,
            tests: self.tests,
            margin,
            verdict,
            seeds: m.parts.seeds,
            prompts: m.pairing.design.clusters(),
            dropped: m.pairing.dropped,
            settling: open.then(|| settling(&m.parts, self.strictest, self.strictest, margin)),
            invalid: self.invalid,
        })
    }
}

/// A row without figures.
fn unmeasured(draft: &Draft, spec: &VerdictSpec, reason: &str) -> ComparisonRow {
    ComparisonRow {
        suite: draft.suite.into(),
        subset: "all".into(),
        metric: draft.metric.into(),
        family: draft.family,
        arm_a: draft.a.into(),
        arm_b: draft.b.into(),
        mean_a: f64::NAN,
        mean_b: f64::NAN,
        difference: f64::NAN,
        standard_error: f64::NAN,
        low: f64::NAN,
        high: f64::NAN,
        p: f64::NAN,
        p_adjusted: f64::NAN,
        p_equivalence: f64::NAN,
        margin: spec.equivalence_margin,
        verdict: Verdict::Invalid,
        seeds: 0,
        examples: 0,
        clusters: 0,
        detectable: None,
        variance_seed: None,
        variance_prompt: None,
        variance_judge: None,
        variance_residual: None,
        p_permutation: None,
        p_mcnemar: None,
        bootstrap_low: None,
        bootstrap_high: None,
        words: format!(
            "no verdict on {} and {} on {} ({}): {reason}",
            draft.a,
            draft.b,
            draft.suite,
            metric_words(draft.metric)
        ),
    }
}
