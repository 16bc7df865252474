//! Every figure of a report with the rows that it comes from, as data: what the Markdown, the HTML and the
//! tables show, and what `check` computes again.

use serde::Serialize;

use super::charts::Drawing;
use super::currencies::{Standings, standings};
use super::view::{ALL, BASE, View};
use crate::record::ComparisonRow;

/// A mark of a chart: what it shows on hover, and its rows.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Mark {
    pub label: String,
    pub rows: String,
}

/// All figures of a report.
#[derive(Clone, Debug, Serialize)]
pub struct Figures {
    pub scores: Vec<ScoreFigure>,
    pub comparisons: Vec<ComparisonFigure>,
    pub ledger: Ledger,
    /// The primary verdicts under the currencies that were not matched.
    pub standings: Standings,
    pub charts: Vec<ChartFigures>,
}

/// An arm's score over seeds.
#[derive(Clone, Debug, Serialize)]
pub struct ScoreFigure {
    pub suite: String,
    pub subset: String,
    pub metric: String,
    pub arm: String,
    pub seeds: usize,
    pub examples: u64,
    pub mean: f64,
    /// Over seeds.
    pub standard_error: Option<f64>,
    pub low: f64,
    pub high: f64,
    pub difference_to_base: Option<f64>,
    pub rows: String,
}

/// A row of `comparisons.csv` with its line.
#[derive(Clone, Debug, Serialize)]
pub struct ComparisonFigure {
    pub row: ComparisonRow,
    pub rows: String,
}

#[derive(Clone, Debug, Serialize)]
pub struct ChartFigures {
    pub name: String,
    pub marks: Vec<Mark>,
}

/// What the arms spent, and whether that was the same in the currency of the budget.
#[derive(Clone, Debug, Serialize)]
pub struct Ledger {
    /// Column of `runs.csv` that the plan's budget is counted in; empty where the plan states none.
    pub matched: String,
    /// Largest / smallest − 1 of the arms' means in the matched currency.
    pub apart: Option<f64>,
    /// More than [`MOST_APART`]: the comparison is none.
    pub invalid: bool,
    pub arms: Vec<LedgerArm>,
    pub currencies: Vec<Currency>,
    /// That runs of one arm took very different times, where they did.
    pub uneven: Option<String>,
}

/// Arms that end further apart than this in the matched currency are not compared.
pub const MOST_APART: f64 = 0.01;

#[derive(Clone, Debug, Serialize)]
pub struct LedgerArm {
    pub arm: String,
    pub method: String,
    pub finished: usize,
    pub started: usize,
    /// Why runs did not finish.
    pub notes: Vec<String>,
    pub rows: String,
}

/// One column of the ledger: what each arm spent on average a run.
#[derive(Clone, Debug, Serialize)]
pub struct Currency {
    pub column: &'static str,
    pub label: &'static str,
    pub matched: bool,
    /// One mean an arm, in the order of [`Ledger::arms`].
    pub means: Vec<Option<f64>>,
    pub apart: Option<f64>,
}

impl Figures {
    pub fn of(view: &View<'_>, drawings: &[Drawing]) -> Self {
        let charts = drawings.iter().map(|d| ChartFigures { name: d.name.clone(), marks: d.marks.clone() });
        let comparisons = view.input.comparisons.iter().enumerate().map(|(i, row)| ComparisonFigure {
            row: row.clone(),
            rows: format!("comparisons.csv:{}", i + 2),
        });
        let comparisons: Vec<ComparisonFigure> = comparisons.collect();
        let ledger = super::ledger::ledger(view);
        let asked = super::content::headline_rows(view, comparisons.iter().map(|c| &c.row));
        let asked = asked.into_iter().filter(|c| c.arm_a != BASE && c.arm_b != BASE);
        Self {
            scores: scores(view),
            standings: standings(view, &ledger, asked),
            comparisons,
            ledger,
            charts: charts.collect(),
        }
    }

    pub fn score(&self, suite: &str, metric: &str, arm: &str) -> Option<&ScoreFigure> {
        let wanted =
            |s: &&ScoreFigure| s.suite == suite && s.metric == metric && s.arm == arm && s.subset == ALL;
        self.scores.iter().find(wanted)
    }
}

fn scores(view: &View<'_>) -> Vec<ScoreFigure> {
    let mut found = Vec::new();
    for suite in view.suites() {
        let rows = || view.input.scores.iter().filter(|s| s.suite == suite);
        let subsets = super::view::distinct(rows().map(|s| s.subset.as_str()));
        for metric in view.metrics(&suite) {
            for (subset, arm) in subsets.iter().flat_map(|s| view.arms.iter().map(move |a| (s, a))) {
                let Some(score) = view.score(&metric, subset, &arm.name) else { continue };
                let base = view.score(&metric, subset, BASE).filter(|_| arm.name != BASE);
                let s = score.summary;
                found.push(ScoreFigure {
                    suite: suite.clone(),
                    subset: subset.clone(),
                    metric: metric.name.clone(),
                    arm: arm.name.clone(),
                    seeds: s.seeds,
                    examples: score.examples,
                    mean: s.mean,
                    standard_error: s.standard_error,
                    low: s.low,
                    high: s.high,
                    difference_to_base: base.map(|b| s.mean - b.summary.mean),
                    rows: score.rows,
                });
            }
        }
    }
    found
}
