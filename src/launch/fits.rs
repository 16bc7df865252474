//! Whether an arm's budget holds a step, and whether the last steps leave the arms near enough to each other for a verdict:
//! known from the data before anything is trained.

use super::training_set::TrainingSet;
use crate::base::error::{HintExt, Result, anyhow};
use crate::data::Sequence;
use crate::objective::{Feedback, info};
use crate::plan::{Arm, Budget, Method, Plan, Z0};
use crate::report::{MOST_APART, apart};

/// How a run of an arm takes its examples.
struct Steps {
    /// Units (pairs, or single completions) of a step, and the fewest that the last one may have.
    size: u64,
    least: u64,
    /// Completions of a unit.
    completions: u64,
}

impl Steps {
    /// `None`: an arm whose steps are another program's, made of its own samples, or of two stages.
    fn of(arm: &Arm) -> Option<(Self, Feedback)> {
        let feedback = info(arm.method.name()).ok()?.feedback;
        let stages = arm.sft_first > 0.0 || feedback == Feedback::Prompts;
        if arm.trainer.is_some() || stages {
            return None;
        }
        let completions = if feedback == Feedback::Paired { 2 } else { 1 };
        // The reference point pairs each prompt with another example's completion.
        let least = if matches!(&arm.method, Method::Kto(kto) if kto.z0 != Z0::Zero) { 2 } else { 1 };
        let size = (arm.train.batch_size as u64 / completions).max(1);
        Some((Self { size, least, completions }, feedback))
    }

    /// Units that a run takes where there is room for `room` of them.
    fn taken(&self, room: u64) -> u64 {
        let left = room % self.size;
        if left < self.least { room - left } else { room }
    }
}

/// Holds a budget of tokens against the steps of each arm. `data` is what the arm trains on. Returns what to say of it.
///
/// # Errors
/// A budget that no step fits into.
pub(super) fn check_tokens<'d>(plan: &Plan, data: &dyn Fn(&Arm) -> &'d TrainingSet) -> Result<Vec<String>> {
    let mut notes = vec![];
    for arm in &plan.arms {
        if let (Budget::Tokens(budget), Some((steps, feedback))) = (arm.budget, Steps::of(arm)) {
            let lengths = lengths(data(arm), feedback);
            if !lengths.is_empty() {
                notes.extend(in_tokens(plan, arm, budget, &steps, &lengths)?);
            }
        }
    }
    Ok(notes)
}

/// Holds a budget of examples or labels, of which it is known where each arm ends, against the steps of all arms.
///
/// # Errors
/// An arm without a step; arms that would end too far apart.
pub(super) fn check_counts(plan: &Plan) -> Result<()> {
    // Arms of a swept budget are held against those with the same.
    let mut budgets: Vec<Budget> = plan.arms.iter().map(|arm| arm.budget).collect();
    budgets.dedup();
    budgets.into_iter().try_for_each(|budget| match budget {
        Budget::Examples(n) => {
            counted(plan, budget, n, &|steps, n| steps.taken(n / steps.completions) * steps.completions)
        }
        Budget::Labels(n) => counted(plan, budget, n, &|steps, n| steps.taken(n)),
        _ => Ok(()),
    })
}

/// Tokens of each unit, the shortest first.
fn lengths(data: &TrainingSet, feedback: Feedback) -> Vec<u64> {
    let tokens = |sequence: &Sequence| sequence.ids.len() as u64;
    let mut lengths: Vec<u64> = match (data, feedback) {
        (TrainingSet::Paired(pairs), Feedback::Paired) => {
            pairs.iter().map(|p| tokens(&p.chosen) + tokens(&p.rejected)).collect()
        }
        (TrainingSet::Paired(pairs), Feedback::Unpaired) => {
            pairs.iter().flat_map(|p| [tokens(&p.chosen), tokens(&p.rejected)]).collect()
        }
        (TrainingSet::Paired(pairs), _) => pairs.iter().map(|p| tokens(&p.chosen)).collect(),
        (TrainingSet::Unpaired(examples), _) => {
            let learned = examples.iter().filter(|e| e.desirable || feedback == Feedback::Unpaired);
            learned.map(|e| tokens(&e.sequence)).collect()
        }
    };
    lengths.sort_unstable();
    lengths
}

fn in_tokens(plan: &Plan, arm: &Arm, budget: u64, steps: &Steps, lengths: &[u64]) -> Result<Option<String>> {
    let (name, least) = (&arm.name, steps.least as usize);
    let smallest: u64 = lengths.iter().take(least).sum();
    if budget < smallest {
        return Err(anyhow!(
            "arm {name}: its smallest step takes {smallest} tokens, and the budget is {budget}"
        ))
        .hint("raise budget.tokens");
    }
    // A run ends where the next examples do not fit: about as much is left over, at most.
    let over = (lengths.iter().sum::<u64>() * steps.least) as f64 / lengths.len() as f64;
    let share = over / budget as f64;
    if plan.arms.len() < 2 || share <= MOST_APART {
        return Ok(None);
    }
    let what = if steps.least * steps.completions == 1 { "a completion" } else { "two completions" };
    Ok(Some(format!(
        "arm {name} may leave {:.1} % of its {budget} tokens over ({what}, about {over:.0} tokens, must fit at the end); \
         arms that end more than {:.0} % apart get no verdicts: {:.0} tokens or more are safe",
        100.0 * share,
        100.0 * MOST_APART,
        (over / MOST_APART).ceil()
    )))
}

/// Of a budget in whole numbers it is known where each arm ends.
fn counted(plan: &Plan, budget: Budget, n: u64, ends: &dyn Fn(&Steps, u64) -> u64) -> Result<()> {
    let arms: Vec<(&str, Steps)> = plan
        .arms
        .iter()
        .filter(|arm| arm.budget == budget)
        .filter_map(|arm| Some((arm.name.as_str(), Steps::of(arm)?.0)))
        .collect();
    let at = |n: u64| arms.iter().map(|(_, steps)| ends(steps, n) as f64).collect::<Vec<f64>>();
    let good = |n: u64| {
        let ended = at(n);
        ended.iter().all(|e| *e > 0.0) && apart(ended.into_iter()).is_none_or(|a| a <= MOST_APART)
    };
    if arms.is_empty() || good(n) {
        return Ok(());
    }
    let said: Vec<String> =
        arms.iter().zip(at(n)).map(|((name, _), end)| format!("{name} {end:.0}")).collect();
    let enough = (n..).find(|n| good(*n)).unwrap_or(n);
    let currency = budget.currency();
    let message = format!(
        "of a budget of {n} {currency} the arms would take {}: more than {:.0} % apart they have no verdicts",
        said.join(", "),
        100.0 * MOST_APART
    );
    Err(anyhow!(message)).hint(format!("budget.{currency} = {enough} is the next that serves all arms"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::error::render;
    use crate::data::{Sequence, TokenizedPair};
    use crate::plan::Overrides;

    fn plan(methods: &[&str], budget: &str) -> Plan {
        let head = format!(
            "seeds = [1]\nbudget = {{ {budget} }}\n[model]\nsource = \"world\"\n[data]\nsource = \"world\"\n[train]\nbatch_size = 4\n"
        );
        let arms: Vec<String> = methods.iter().map(|m| format!("[[arm]]\nmethod = \"{m}\"\n")).collect();
        Plan::parse(&(head + &arms.join("")), "p.toml", &Overrides::default()).unwrap()
    }

    #[test]
    fn counts_that_no_verdict_could_follow_are_refused_with_the_next_that_serves() {
        let refusal = |methods: &[&str], budget: &str| {
            check_counts(&plan(methods, budget)).map_err(|e| render(&e)).err().unwrap_or_default()
        };
        let text = refusal(&["sft", "dpo", "kto"], "examples = 21");
        assert!(text.contains("sft 21, dpo 20, kto 20") && text.contains("budget.examples = 22 "), "{text}");
        // One of 1001 is no tenth of a percent.
        for fine in
            ["examples = 22", "examples = 1001", "labels = 2", "labels = 400", "tokens = 7", "steps = 1"]
        {
            assert_eq!(refusal(&["sft", "dpo", "kto"], fine), "");
        }
        let text = refusal(&["sft", "kto"], "labels = 1");
        assert!(text.contains("sft 1, kto 0") && text.contains("budget.labels = 2 "), "{text}");
        assert_eq!(refusal(&["sft", "dpo"], "labels = 1"), "");
        // Alone it is apart from nobody.
        assert_eq!(refusal(&["dpo"], "examples = 21"), "");
        assert!(refusal(&["dpo"], "examples = 1").contains("dpo 0"));
    }

    #[test]
    fn tokens_that_the_last_examples_would_not_fit_into_are_said() {
        let sequence = |n: usize| Sequence { ids: vec![0; n].into(), prompt_len: 1 };
        let pair = |i: usize| TokenizedPair {
            id: i.to_string(),
            subset: String::new(),
            chosen: sequence(10 + i),
            rejected: sequence(20 + i),
        };
        let data = TrainingSet::Paired((0..3).map(pair).collect());
        let said = |methods: &[&str], budget: &str| {
            check_tokens(&plan(methods, budget), &|_| &data).map_err(|e| render(&e))
        };
        for (methods, budget, smallest) in
            [(&["sft", "dpo"][..], 29, 30), (&["kto"], 20, 21), (&["sft"], 9, 10)]
        {
            let text = said(methods, &format!("tokens = {budget}")).unwrap_err();
            assert!(text.contains(&format!("takes {smallest} tokens, and the budget is {budget}")), "{text}");
        }
        // Means of 11 (chosen), 16 twice (either) and 32 (both).
        let notes = said(&["sft", "kto", "dpo"], "tokens = 1000").unwrap();
        assert_eq!(notes.len(), 3);
        assert!(
            notes[1].contains("kto may leave 3.2 %") && notes[1].contains("3200 tokens or more"),
            "{notes:?}"
        );
        assert_eq!(said(&["sft", "kto", "dpo"], "tokens = 3200").unwrap(), Vec::<String>::new());
        assert_eq!(said(&["kto"], "tokens = 1000").unwrap(), Vec::<String>::new());
    }
}
