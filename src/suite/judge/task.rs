//! What a judge is given, and what it answers.

use serde_json::{Map, Value};

use crate::base::error::Result;
use crate::suite::metric::Metric;

/// A prompt of a generation suite.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Task {
    pub id: String,
    /// Tasks with the same prompt share it.
    pub cluster: String,
    pub subset: String,
    /// As the model sees it.
    pub prompt: String,
    /// What is asked, without solved examples and chat template; empty: the prompt.
    pub asked: String,
    /// The chosen or reference completion, or the reference answer.
    pub answer: Option<String>,
    /// The row that it came from; empty for prompts of preference pairs.
    pub row: Map<String, Value>,
}

impl Task {
    /// What is asked, as a judge should read it.
    pub fn request(&self) -> &str {
        if self.asked.is_empty() { &self.prompt } else { &self.asked }
    }
}

/// What a judge says of one completion alone.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Grade {
    /// Higher is better; `None` where the judge only compares.
    pub reward: Option<f64>,
    /// Metrics that this completion has a value of.
    pub values: Vec<(Metric, f64)>,
    /// Metrics that are ratios over the suite: what this completion adds to numerator and denominator.
    pub counts: Vec<(Metric, f64, f64)>,
}

/// Two completions of one prompt.
#[derive(Clone, Copy, Debug)]
pub struct Match<'a> {
    pub task: &'a Task,
    pub candidate: &'a str,
    pub baseline: &'a str,
}

/// What a match came to.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Outcome {
    /// 1: the candidate wins, 0: it loses, 0.5: a tie; `None`: the judge gave no valid answer.
    pub preference: Option<f64>,
    /// Whether the verdict changed with the order of the two; `None` where the judge sees no order, or gave
    /// no valid answer.
    pub flipped: Option<bool>,
}

impl From<Option<f64>> for Outcome {
    /// Of a judge that sees no order.
    fn from(preference: Option<f64>) -> Self {
        Self { preference, flipped: None }
    }
}

/// A judge. What it says of a completion depends on the prompt and the completion alone.
pub trait Judge {
    /// Why the judge cannot judge this task; `None` where it can.
    ///
    /// # Errors
    /// Where the task is malformed.
    fn refuses(&self, _task: &Task) -> Result<Option<String>> {
        Ok(None)
    }

    fn grade(&self, task: &Task, completion: &str) -> Result<Grade>;

    /// The grade of each completion, in order; a judge that is quicker in batches has its own.
    fn grades(&self, completions: &[(&Task, &str)]) -> Result<Vec<Grade>> {
        completions.iter().map(|(task, completion)| self.grade(task, completion)).collect()
    }

    /// The outcome of each match, in order; without an own rule, by the rewards of the two.
    fn compare(&self, matches: &[Match]) -> Result<Vec<Outcome>> {
        let both: Vec<(&Task, &str)> =
            matches.iter().flat_map(|m| [(m.task, m.candidate), (m.task, m.baseline)]).collect();
        let outcome = |pair: &[Grade]| {
            let (a, b) = (pair[0].reward, pair[1].reward);
            a.zip(b).map(|(a, b)| by_reward(a, b)).into()
        };
        Ok(self.grades(&both)?.chunks(2).map(outcome).collect())
    }
}

/// 1 where the candidate's reward is higher, 0 where it is lower, ½ where they are equal but for rounding: a sum in
/// another order, or a batch of other texts, moves a reward's last bits, and no reward judge tells less than 1e-6 apart.
pub fn by_reward(candidate: f64, baseline: f64) -> f64 {
    let rounding = 1e-6 * candidate.abs().max(baseline.abs()).max(1.0);
    match candidate - baseline {
        d if d > rounding => 1.0,
        d if d < -rounding => 0.0,
        _ => 0.5,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rewards_that_differ_by_rounding_are_a_tie() {
        assert_eq!(by_reward(0.1 + 0.2, 0.3), 0.5);
        assert_eq!([by_reward(0.31, 0.3), by_reward(0.3, 0.31), by_reward(-120.0, -120.1)], [1.0, 0.0, 1.0]);
        assert_eq!(by_reward(-120.0, -120.000_06), 0.5);
    }
}
