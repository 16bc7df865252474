//! Records as the report looks at them: arms in their order and style, suites with their metrics, scores
//! over seeds with the lines that they come from.

use std::collections::BTreeMap;

use serde_json::Value;

use super::format::{Unit, lines};
use super::input::Input;
use super::summary::Summary;
use super::svg::axis::Ticks;
use super::svg::palette::ArmStyle;
use crate::record::{ComparisonRow, Direction, Family, RunRow, SENTINEL, ScoreRow, Status, counted};
use crate::stats::holm;

/// The name under which the starting checkpoint's scores stand.
pub const BASE: &str = "base";
/// The subset that stands for a whole suite.
pub const ALL: &str = "all";
/// Metrics of a preference suite that are read off the implicit reward.
const OF_IMPLICIT_REWARD: [&str; 6] =
    ["reward_accuracy", "margin", "reward_chosen", "reward_rejected", "brier", "calibration_error"];

pub struct Arm {
    pub name: String,
    pub style: ArmStyle,
}

/// A metric of a suite, as its rows declare it.
#[derive(Clone, Debug)]
pub struct Metric {
    pub suite: String,
    pub name: String,
    pub unit: Unit,
    /// The unit's name as recorded, for axis labels.
    pub unit_name: String,
    pub direction: Direction,
}

impl Metric {
    pub fn ticks(&self) -> Ticks {
        if self.unit == Unit::Share { Ticks::Percent } else { Ticks::Plain }
    }

    pub fn difference_ticks(&self) -> Ticks {
        if self.unit == Unit::Share { Ticks::Points } else { Ticks::Signed }
    }

    /// `win rate against base`, with a unit where it is not a share: `gold reward (nats)`.
    pub fn label(&self) -> String {
        let name = super::format::metric(&self.name);
        match self.unit {
            Unit::Plain
                if !self.unit_name.is_empty() && !name.contains(&self.unit_name.replace('/', " per ")) =>
            {
                format!("{name} ({})", self.unit_name)
            }
            _ => name,
        }
    }

    /// What chance, or "no difference", scores: one half for win rates and accuracies.
    pub fn even(&self) -> Option<f64> {
        let name = &self.name;
        (self.unit == Unit::Share && (name.contains("win_rate") || name.contains("accuracy"))).then_some(0.5)
    }
}

/// The score of one arm over its seeds.
pub struct ArmScore<'a> {
    pub summary: Summary,
    /// A row a seed.
    pub seeds: Vec<&'a ScoreRow>,
    /// `scores.csv:3-5`.
    pub rows: String,
    /// Examples a seed (the least of them).
    pub examples: u64,
}

pub struct View<'a> {
    pub input: &'a Input,
    pub arms: Vec<Arm>,
    counts: Box<dyn Fn(&str) -> bool>,
    /// p of the equivalence tests after Holm, by family and the bits of the p before.
    equivalence: BTreeMap<(Family, u64), f64>,
}

impl<'a> View<'a> {
    pub fn new(input: &'a Input) -> Self {
        let mut names: Vec<String> = Vec::new();
        let planned = input.plan.get("arms").and_then(Value::as_array).into_iter().flatten();
        let planned = planned.filter_map(|arm| arm.get("name").and_then(Value::as_str));
        let ran = input.runs.iter().map(|r| r.arm.as_str());
        let scored = input.scores.iter().map(|s| s.arm.as_str());
        for name in planned.chain(ran).chain(scored) {
            // Sentinels have scores and no runs; they are listed apart.
            if name != BASE && !name.starts_with(SENTINEL) && !names.iter().any(|n| n == name) {
                names.push(name.to_owned());
            }
        }
        let has_base = input.scores.iter().any(|s| s.arm == BASE);
        let base = has_base.then(|| Arm { name: BASE.to_owned(), style: ArmStyle::base() });
        let trained = names.into_iter().enumerate().map(|(i, name)| Arm { name, style: ArmStyle::nth(i) });
        let counts = Box::new(counted(&input.runs));
        let equivalence = equivalence(&input.comparisons);
        Self { input, arms: base.into_iter().chain(trained).collect(), counts, equivalence }
    }

    /// Whether a run's rows are shown: see [`counted`].
    pub fn counts(&self, run: &str) -> bool {
        (self.counts)(run)
    }

    /// The contestants, without the starting checkpoint.
    pub fn trained(&self) -> impl Iterator<Item = &Arm> {
        self.arms.iter().filter(|a| a.name != BASE)
    }

    pub fn arm(&self, name: &str) -> Option<&Arm> {
        self.arms.iter().find(|a| a.name == name)
    }

    /// In the order of `scores.csv`.
    pub fn suites(&self) -> Vec<String> {
        distinct(self.input.scores.iter().map(|s| s.suite.as_str()))
    }

    pub fn metrics(&self, suite: &str) -> Vec<Metric> {
        let mut found: Vec<Metric> = Vec::new();
        let whole = |s: &&ScoreRow| s.suite == suite && s.subset == ALL && !s.arm.starts_with(SENTINEL);
        for row in self.input.scores.iter().filter(whole) {
            if !found.iter().any(|m| m.name == row.metric) {
                found.push(Metric {
                    suite: suite.to_owned(),
                    name: row.metric.clone(),
                    unit: Unit::of(&row.unit, &row.metric),
                    unit_name: row.unit.clone(),
                    direction: row.direction,
                });
            }
        }
        // The plan's question first; otherwise as scored.
        found.sort_by_key(|m| !self.is_primary(&m.name));
        found
    }

    /// Whether the plan names primary metrics.
    pub fn asks(&self) -> bool {
        let primary = self.planned(&["verdict", "primary"]).and_then(Value::as_array);
        primary.is_some_and(|names| !names.is_empty())
    }

    /// Whether the plan asks about it.
    pub fn is_primary(&self, name: &str) -> bool {
        let primary = self.planned(&["verdict", "primary"]).and_then(Value::as_array);
        primary.is_some_and(|names| names.iter().any(|n| n.as_str() == Some(name)))
    }

    /// The metrics of the plan's question, suite by suite; empty where these suites have none of them.
    pub fn primary(&self) -> Vec<Metric> {
        let judged = self.suites().into_iter().flat_map(|suite| self.judged(&suite));
        judged.filter(|m| self.is_primary(&m.name)).collect()
    }

    /// Whether the base has this metric by definition and not by measurement: its implicit reward is 0 on every pair
    /// where it is its own reference.
    pub fn even_base(&self, metric: &Metric) -> bool {
        let same = |s: &&ScoreRow| s.arm == BASE && s.suite == metric.suite && s.subset == ALL;
        let mut accuracies = self.input.scores.iter().filter(same).filter(|s| s.metric == "reward_accuracy");
        let even = |s: &ScoreRow| s.value == 0.5 && s.standard_error == 0.0;
        OF_IMPLICIT_REWARD.contains(&metric.name.as_str())
            && accuracies.next().is_some_and(even)
            && accuracies.all(even)
    }

    /// p of a comparison's equivalence test after Holm over its family, as verdicts have it.
    pub fn p_equivalence(&self, c: &ComparisonRow) -> f64 {
        self.equivalence.get(&(c.family, c.p_equivalence.to_bits())).copied().unwrap_or(f64::NAN)
    }

    /// The plan's name.
    pub fn name(&self) -> &'a str {
        self.planned(&["name"]).and_then(Value::as_str).filter(|n| !n.is_empty()).unwrap_or("comparison")
    }

    /// `200 k policy tokens`.
    pub fn budget_words(&self) -> Option<String> {
        let (currency, amount) = self.planned(&["budget"])?.as_object()?.iter().next()?;
        let currency = match currency.as_str() {
            "tokens" => "policy tokens",
            "flops" => "FLOPs",
            other => other,
        };
        Some(format!("{} {currency}", super::format::si(amount.as_f64()?)))
    }

    pub fn metric(&self, suite: &str, name: &str) -> Option<Metric> {
        self.metrics(suite).into_iter().find(|m| m.name == name)
    }

    /// Metrics that are judged: one direction is better.
    pub fn judged(&self, suite: &str) -> Vec<Metric> {
        self.metrics(suite).into_iter().filter(|m| m.direction != Direction::Neutral).collect()
    }

    /// The metric that stands for a suite in charts of one metric: the first primary one, else the first known
    /// one, else the first judged.
    pub fn headline_of(&self, suite: &str) -> Option<Metric> {
        const KNOWN: [&str; 4] = ["win_rate_base", "win_rate_chosen", "reward_accuracy", "gold_reward"];
        let judged = self.judged(suite);
        if judged.first().is_some_and(|m| self.is_primary(&m.name)) {
            return judged.into_iter().next();
        }
        let known = KNOWN.iter().find_map(|k| judged.iter().position(|m| m.name == *k));
        judged.into_iter().nth(known.unwrap_or(0))
    }

    /// The metric that stands for the whole comparison: a win rate where there is one.
    pub fn headline(&self) -> Option<Metric> {
        let all: Vec<_> = self.suites().iter().filter_map(|s| self.headline_of(s)).collect();
        let win = all.iter().position(|m| m.name.contains("win_rate"));
        all.into_iter().nth(win.unwrap_or(0))
    }

    /// An arm's score over its seeds; of the base only what is measured ([`Self::even_base`]).
    pub fn score(&self, metric: &Metric, subset: &str, arm: &str) -> Option<ArmScore<'a>> {
        if arm == BASE && self.even_base(metric) {
            return None;
        }
        let wanted = |s: &&ScoreRow| {
            s.suite == metric.suite && s.metric == metric.name && s.subset == subset && s.arm == arm
        };
        let numbered = self.input.scores.iter().enumerate();
        let shown = |s: &&ScoreRow| wanted(s) && s.value.is_finite() && self.counts(&s.run);
        let found: Vec<_> = numbered.filter(|(_, s)| shown(s)).collect();
        if found.is_empty() {
            return None;
        }
        let values: Vec<_> = found.iter().map(|(_, s)| s.value).collect();
        let errors: Vec<_> = found.iter().map(|(_, s)| s.standard_error).collect();
        let at: Vec<_> = found.iter().map(|(i, _)| i + 2).collect();
        let mut summary = Summary::of_scores(&values, &errors);
        if metric.unit == Unit::Share {
            (summary.low, summary.high) = (summary.low.max(0.0), summary.high.min(1.0));
        }
        Some(ArmScore {
            summary,
            examples: found.iter().map(|(_, s)| s.n).min().unwrap_or(0),
            seeds: found.into_iter().map(|(_, s)| s).collect(),
            rows: format!("scores.csv:{}", lines(&at)),
        })
    }

    /// The runs of an arm that ended well, with their line in `runs.csv`.
    pub fn runs(&self, arm: &str) -> Vec<(usize, &'a RunRow)> {
        let numbered = self.input.runs.iter().enumerate();
        numbered.filter(|(_, r)| r.arm == arm && r.status == Status::Done).map(|(i, r)| (i + 2, r)).collect()
    }

    /// Rows of `comparisons.csv` on whole suites, with their line.
    pub fn comparisons(&self, suite: &str, metric: &str) -> Vec<(usize, &'a ComparisonRow)> {
        let numbered = self.input.comparisons.iter().enumerate();
        let wanted = |c: &ComparisonRow| c.suite == suite && c.metric == metric && c.subset == ALL;
        numbered.filter(|(_, c)| wanted(c)).map(|(i, c)| (i + 2, c)).collect()
    }

    /// "3 seeds", from the runs that ended well.
    pub fn seeds_note(&self) -> String {
        let counts: Vec<_> = self.trained().map(|a| self.runs(&a.name).len()).collect();
        let (least, most) =
            (counts.iter().min().copied().unwrap_or(0), counts.iter().max().copied().unwrap_or(0));
        match (least, most) {
            (1, 1) => "1 seed".to_owned(),
            (a, b) if a == b => format!("{a} seeds"),
            (a, b) => format!("{a} to {b} seeds"),
        }
    }

    /// Whether these records are a copy without prompts and completions.
    pub fn texts_withheld(&self) -> bool {
        self.input.environment.get("texts").and_then(Value::as_str) == Some("withheld")
    }

    /// A number of the plan, by its path.
    pub fn planned(&self, path: &[&str]) -> Option<&'a Value> {
        path.iter().try_fold(&self.input.plan, |value, key| value.get(*key))
    }

    /// The confidence level of the intervals in `comparisons.csv`, in per cent: 100 (1 − α).
    pub fn confidence(&self) -> String {
        let alpha = self.planned(&["verdict", "alpha"]).and_then(Value::as_f64).unwrap_or(0.05);
        format!("{} %", super::format::plain(100.0 * (1.0 - alpha)).trim_end_matches(".0"))
    }
}

/// Holm's correction of the equivalence tests, within each family over all that were judged together.
fn equivalence(rows: &[ComparisonRow]) -> BTreeMap<(Family, u64), f64> {
    let mut corrected = BTreeMap::new();
    for family in [Family::Primary, Family::Base, Family::Secondary] {
        let p: Vec<f64> = rows.iter().filter(|c| c.family == family).map(|c| c.p_equivalence).collect();
        corrected.extend(p.iter().zip(holm(&p)).map(|(p, adjusted)| ((family, p.to_bits()), adjusted)));
    }
    corrected
}

/// Each text once, in the order of first sight.
pub fn distinct<'t>(texts: impl Iterator<Item = &'t str>) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for text in texts {
        if !found.iter().any(|f| f == text) {
            found.push(text.to_owned());
        }
    }
    found
}
