//! From the rows on disk to verdicts and a report; nothing is run.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use super::contest;
use crate::base::error::Result;
use crate::plan::{Arm, Budget, Plan};
use crate::record::{
    ComparisonRow, ExampleRow, JudgeUsage, JudgmentRow, Records, RunRow, SENTINEL, ScoreRow, Status, Texts,
    counted, replace_comparisons,
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

/// Judges the records in `dir`, and writes comparisons and report beside them. `width`: columns of the terminal that the
/// summary is for.
///
/// # Errors
/// Records that cannot be read, a folder that cannot be written.
pub fn judge(dir: &Path, width: Option<usize>) -> Result<Judged> {
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
    Ok(Judged { summary: report::terminal_summary(&input, width), report: paths.html, notes, invalid })
}

fn notes(dir: &Path, records: &Records) -> Result<Vec<String>> {
    let judge = JudgeUsage::read(dir)?.map(|used| used.to_string());
    let overlaps = records.environment.contamination.iter().map(|o| format!("contamination: {o}"));
    Ok(judge.into_iter().chain(overlaps).collect())
}

/// Every comparison, judged from the other rows; and why there is no verdict, where there is none.
fn comparisons(records: &Records) -> (Vec<ComparisonRow>, Option<String>) {
    let counted = counted(&records.runs);
    let scores: Vec<ScoreRow> = records.scores.iter().filter(|s| counted(&s.run)).cloned().collect();
    // By far the largest table: copied only where a run is left out.
    let examples: Cow<'_, [ExampleRow]> = match records.examples.iter().all(|e| counted(&e.run)) {
        true => Cow::Borrowed(&records.examples),
        false => records.examples.iter().filter(|e| counted(&e.run)).cloned().collect(),
    };
    let judgments: Vec<JudgmentRow> = records.judgments.iter().filter(|j| counted(&j.run)).cloned().collect();
    let invalid = unmatched(&records.plan, &records.runs).or_else(|| sentinel_won(&scores));
    let contestants: Vec<ScoreRow> = scores.into_iter().filter(|s| !s.arm.starts_with(SENTINEL)).collect();
    let plan = &records.plan;
    let arms: Vec<&str> = plan.arms.iter().map(|a| a.name.as_str()).collect();
    let asked = |a: &str, b: &str| plan.compares(a, b);
    let mut judged =
        stats::verdicts_among(&arms, &examples, &contestants, &plan.verdict, invalid.as_deref(), &asked);
    stats::judge::split_judge(&mut judged, &judgments);
    (judged, invalid)
}

/// How far apart the arms ended, where that is too far for a comparison. Arms of a swept budget are held against
/// those with the same.
fn unmatched(plan: &Plan, runs: &[RunRow]) -> Option<String> {
    let mut budgets: Vec<f64> = plan.arms.iter().map(|a| a.budget.amount()).collect();
    budgets.sort_by(f64::total_cmp);
    budgets.dedup();
    budgets.iter().find_map(|&budget| {
        let same = plan.arms.iter().filter(|a| a.budget.amount() == budget);
        let mean = |arm: &Arm| {
            let done = runs.iter().filter(|r| r.arm == arm.name && r.status == Status::Done);
            let spent: Vec<f64> = done.map(|r| amount(r, plan.budget)).collect();
            (!spent.is_empty()).then(|| spent.iter().sum::<f64>() / spent.len() as f64)
        };
        too_far_apart(
            plan,
            budget,
            &same.filter_map(|a| Some((a.name.as_str(), mean(a)?))).collect::<Vec<_>>(),
        )
    })
}

fn too_far_apart(plan: &Plan, budget: f64, spent: &[(&str, f64)]) -> Option<String> {
    let apart = report::apart(spent.iter().map(|s| s.1)).filter(|a| *a > report::MOST_APART)?;
    // An external trainer that does not say what it spent cannot be held to the budget.
    let told = || spent.iter().filter(|s| s.1 > 0.0);
    let (least, low) = told().min_by(|a, b| a.1.total_cmp(&b.1))?;
    let (most, high) = told().max_by(|a, b| a.1.total_cmp(&b.1))?;
    let currency = plan.budget.currency();
    // What the last step of each run left over weighs less in a larger budget.
    let over = budget - low;
    let remedy = match over > 0.0 && over < 0.2 * budget && *high <= budget {
        true => format!(
            "; with {:.0} {currency} or more that would not matter",
            (over / report::MOST_APART).ceil()
        ),
        false => String::new(),
    };
    Some(format!(
        "the budgets did not match: {least} spent {low:.0} {currency} a run, {most} {high:.0}, {:.1} % apart (at most \
         {:.0} % is allowed){remedy}",
        100.0 * apart,
        100.0 * report::MOST_APART
    ))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Overrides;

    fn run(arm: &str, seed: u64, policy_tokens: u64, status: Status) -> RunRow {
        let row = serde_json::json!({
            "run": format!("{arm}-s{seed}"), "arm": arm, "method": arm, "seed": seed, "status": status, "note": "",
            "steps": 1, "examples": 1, "labels": 1, "policy_tokens": policy_tokens, "completion_tokens": 1,
            "computed_tokens": 1, "kl_tokens": 0, "reference_tokens": 0, "flops": 1.0, "epochs": 1.0,
            "final_loss": 0.4, "weights": "", "train_seconds": 1.0, "tokens_per_second": 1.0,
            "reference_seconds": 0.0, "score_seconds": 0.0, "start_host_mib": 1.0, "peak_host_mib": 1.0,
            "peak_device_mib": 0.0
        });
        serde_json::from_value(row).unwrap()
    }

    /// Means are held together, as the report's ledger does: one run's last batch decides nothing.
    #[test]
    fn budgets_match_where_the_arms_means_do() {
        let plan = Plan::open("quickstart", &Overrides::default()).unwrap();
        let spent = |kto: [u64; 2], dpo: [u64; 2]| {
            let of = |arm, spent: [u64; 2]| [1, 2].map(|s| run(arm, s, spent[s as usize - 1], Status::Done));
            let mut runs = [of("kto", kto), of("dpo", dpo)].concat();
            // A run that was lost early is held to nothing.
            runs.push(run("dpo", 3, 10, Status::Diverged));
            unmatched(&plan, &runs)
        };
        assert_eq!(spent([5000, 5060], [5000, 5030]), None);
        assert_eq!(spent([10_000, 10_000], [10_099, 10_099]), None);
        let said = spent([10_000, 10_000], [10_101, 10_102]).unwrap();
        assert!(said.contains("kto spent 10000 tokens a run, dpo 10102, 1.0 % apart"), "{said}");
        assert!(!said.contains("or more"), "far below the budget something else is wrong: {said}");
        let small = Overrides { set: vec!["budget.tokens=1000".to_owned()], ..Overrides::default() };
        let plan = Plan::open("quickstart", &small).unwrap();
        let runs = [run("kto", 1, 958, Status::Done), run("dpo", 1, 1000, Status::Done)];
        let said = unmatched(&plan, &runs).unwrap();
        assert!(said.ends_with("; with 4200 tokens or more that would not matter"), "{said}");
        assert_eq!(spent([10_000, 10_000], [0, 0]), None, "an arm that does not say is held to nothing");
    }

    #[test]
    fn a_sentinel_must_not_beat_every_arm() {
        let score = |arm: &str, value: f64| -> ScoreRow {
            let row = serde_json::json!({
                "run": arm, "arm": arm, "method": "", "seed": 1, "suite": "s", "metric": "win_rate_base", "subset": "all",
                "value": value, "n": 3, "standard_error": 0.1, "direction": "higher", "unit": "share"
            });
            serde_json::from_value(row).unwrap()
        };
        let with = |rows: &[(&str, f64)]| {
            sentinel_won(&rows.iter().map(|(arm, value)| score(arm, *value)).collect::<Vec<_>>())
        };
        let said = with(&[("sentinel-longest", 0.83), ("kto", 0.5), ("dpo", 0.4), ("base", 0.9)]).unwrap();
        assert!(
            said.contains("sentinel-longest has a win_rate_base of 0.830, more than every arm"),
            "{said}"
        );
        let one_beats_it = [("sentinel-longest", 0.83), ("kto", 0.5), ("dpo", 0.9)];
        assert_eq!(with(&one_beats_it), None);
        assert_eq!(with(&[("sentinel-longest", 0.83)]), None, "no arm was scored");
    }
}
