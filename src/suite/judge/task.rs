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
    /// The chosen or reference completion, or the reference answer.
    pub answer: Option<String>,
    /// The row that it came from; empty for prompts of preference pairs.
    pub row: Map<String, Value>,
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

    /// Preference for the candidate of each match: 1 win, 0 loss, 0.5 tie, `None` where the judge gave no
    /// valid answer.
    fn compare(&self, matches: &[Match]) -> Result<Vec<Option<f64>>> {
        matches
            .iter()
            .map(|m| {
                let (a, b) =
                    (self.grade(m.task, m.candidate)?.reward, self.grade(m.task, m.baseline)?.reward);
                Ok(a.zip(b).map(|(a, b)| outcome(a, b)))
            })
            .collect()
    }
}

/// Win, tie or loss by reward.
fn outcome(candidate: f64, baseline: f64) -> f64 {
    match candidate.partial_cmp(&baseline) {
        Some(std::cmp::Ordering::Greater) => 1.0,
        Some(std::cmp::Ordering::Less) => 0.0,
        _ => 0.5,
    }
}
