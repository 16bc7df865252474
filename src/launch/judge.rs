//! From the rows on disk to verdicts and a report; nothing is run.

use std::path::{Path, PathBuf};

use super::contest;
use crate::base::error::Result;
use crate::plan::{Budget, Plan};
use crate::record::{
    ComparisonRow, JudgeUsage, Records, RunRow, SENTINEL, ScoreRow, Status, Texts, replace_comparisons,
};
use crate::report::{self, Input};
use crate::stats;

/// What the records say.
#[derive(Clone, Debug)]
pub struct Judged {
    /// For a terminal: the table of arms, then the verdicts.
    pub summary: String,
    pub report: PathBuf,
    /// What the language model that judged was asked, and which suites the training data holds parts of.
    pub notes: Vec<String>,
    /// Why there are no verdicts: the budgets did not match, or a sentinel won.
    pub invalid: Option<String>,
}

/// Arms may end this far apart in the matched currency, as a share of the largest.
const BUDGET_TOLERANCE: f64 = 0.01;

/// Judges the records in `dir`, and writes comparisons and report beside them.
///
/// # Errors
/// Records that cannot be read, a folder that cannot be written.
pub fn judge(dir: &Path) -> Result<Judged> {
    let mut records = Records::read(dir)?;
    let (comparisons, invalid) = comparisons(&records);
    records.comparisons = comparisons;
    replace_comparisons(dir, &records.comparisons)?;
    // Win rates that control for length want the lengths of the texts; a copy without them has its files already.
    if records.environment.texts == Texts::Here {
        contest::write(dir, &records)?;
    }
    let notes = notes(dir, &records)?;
    let input = Input::of(records)?;
    let paths = report::write(&input, dir)?;
    Ok(Judged { summary: report::terminal_summary(&input), report: paths.html, notes, invalid })
}

fn notes(dir: &Path, records: &Records) -> Result<Vec<String>> {
    let judge = JudgeUsage::read(dir)?.map(|used| used.to_string());
    let overlaps = records.environment.contamination.iter().map(|o| format!("contamination: {o}"));
    Ok(judge.into_iter().chain(overlaps).collect())
}

/// Every comparison, judged from the other rows; and why there is no verdict, where there is none.
fn comparisons(records: &Records) -> (Vec<ComparisonRow>, Option<String>) {
    let invalid = unmatched(&records.plan, &records.runs).or_else(|| sentinel_won(&records.scores));
    let contestants: Vec<ScoreRow> =
        records.scores.iter().filter(|s| !s.arm.starts_with(SENTINEL)).cloned().collect();
    let plan = &records.plan;
    let asked = |a: &str, b: &str| plan.compares(a, b);
    let mut judged =
        stats::verdicts_among(&records.examples, &contestants, &plan.verdict, invalid.as_deref(), &asked);
    stats::judge::split_judge(&mut judged, &records.judgments);
    (judged, invalid)
}

/// How far apart the arms ended, where that is too far for a comparison. Arms of a swept budget are held against
/// those with the same.
fn unmatched(plan: &Plan, runs: &[RunRow]) -> Option<String> {
    let mut budgets: Vec<f64> = plan.arms.iter().map(|a| a.budget.amount()).collect();
    budgets.sort_by(f64::total_cmp);
    budgets.dedup();
    budgets.iter().find_map(|&budget| {
        let planned = |r: &&RunRow| {
            let arm = plan.arms.iter().find(|a| a.name == r.arm);
            arm.map_or(plan.budget, |a| a.budget).amount() == budget
        };
        let done = runs.iter().filter(|r| r.status == Status::Done && !unreported(plan, r)).filter(planned);
        too_far_apart(plan, &done.map(|r| (r.run.as_str(), amount(r, plan.budget))).collect::<Vec<_>>())
    })
}

fn too_far_apart(plan: &Plan, spent: &[(&str, f64)]) -> Option<String> {
    let (least, low) = *spent.iter().min_by(|a, b| a.1.total_cmp(&b.1))?;
    let (most, high) = *spent.iter().max_by(|a, b| a.1.total_cmp(&b.1))?;
    let apart = (high - low) / high;
    (apart > BUDGET_TOLERANCE).then(|| {
        let currency = plan.budget.currency();
        format!(
            "the budgets did not match: {least} spent {low} {currency}, {most} {high}, {:.1} % apart (at most \
             {:.0} % is allowed)",
            100.0 * apart,
            100.0 * BUDGET_TOLERANCE
        )
    })
}

/// An external trainer that does not say what it spent: it cannot be held to the budget, and its silence does
/// not make the other arms' comparison invalid.
fn unreported(plan: &Plan, row: &RunRow) -> bool {
    let external = plan.arms.iter().any(|a| a.name == row.arm && a.trainer.is_some());
    external && amount(row, plan.budget) == 0.0
}

fn amount(row: &RunRow, budget: Budget) -> f64 {
    match budget {
        Budget::Tokens(_) => row.policy_tokens as f64,
        Budget::Examples(_) => row.examples as f64,
        Budget::Labels(_) => row.labels as f64,
        Budget::Steps(_) => row.steps as f64,
        Budget::Flops(_) => row.flops,
        Budget::Seconds(_) => row.train_seconds,
    }
}

/// A contestant that ought to lose has a higher score than every arm: then the suite measures something else.
fn sentinel_won(scores: &[ScoreRow]) -> Option<String> {
    let overall = |s: &&ScoreRow| s.subset == crate::suite::ALL;
    let sentinels = scores.iter().filter(overall).filter(|s| s.arm.starts_with(SENTINEL));
    for sentinel in sentinels {
        let same = |s: &&ScoreRow| {
            s.suite == sentinel.suite && s.metric == sentinel.metric && s.subset == sentinel.subset
        };
        let arms = scores
            .iter()
            .filter(same)
            .filter(|s| !s.arm.starts_with(SENTINEL) && s.arm != crate::plan::BASE_ARM);
        let Some(best) = arms.map(|s| s.value).reduce(f64::max) else { continue };
        if sentinel.value > best {
            return Some(format!(
                "on {} the {} has a {} of {:.3}, more than every arm (the best has {best:.3}): the suite does not \
                 measure what it should",
                sentinel.suite, sentinel.arm, sentinel.metric, sentinel.value
            ));
        }
    }
    None
}

/// Figures of the report that do not follow from the records.
///
/// # Errors
/// Records that cannot be read.
pub fn check_report(dir: &Path) -> Result<Vec<report::Difference>> {
    let records = Records::read(dir)?;
    let (expected, _) = comparisons(&records);
    let mut found = report::check_comparisons(&records.comparisons, &expected);
    found.extend(report::check_input(&Input::of(records)?, dir)?);
    Ok(found)
}
