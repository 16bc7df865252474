//! What a report is made from: the rows of one output folder.

use std::path::Path;

use serde_json::Value;

use crate::base::error::{Context, Result};
use crate::record::{
    ComparisonRow, ExampleRow, PhaseRow, Records, RolloutRow, RunRow, SampleRow, ScoreRow, StepRow, TrialRow,
};

/// The records of one comparison, in file order: row `i` of a CSV stands on line `i + 2` of its file (the
/// header is line 1), row `i` of `samples.jsonl` on line `i + 1`. Figures are traced by these lines.
#[derive(Clone, Debug, Default)]
pub struct Input {
    /// `plan.toml`, resolved.
    pub plan: Value,
    /// `environment.json`.
    pub environment: Value,
    pub runs: Vec<RunRow>,
    pub steps: Vec<StepRow>,
    pub scores: Vec<ScoreRow>,
    pub examples: Vec<ExampleRow>,
    pub comparisons: Vec<ComparisonRow>,
    pub samples: Vec<SampleRow>,
    /// Empty where nothing was tuned.
    pub trials: Vec<TrialRow>,
    pub rollouts: Vec<RolloutRow>,
    pub phases: Vec<PhaseRow>,
}

impl Input {
    /// The records of an output folder.
    ///
    /// # Errors
    /// As [`Records::read`].
    pub fn read(dir: &Path) -> Result<Self> {
        Self::of(Records::read(dir)?)
    }

    /// # Errors
    /// A plan or an environment that does not go into JSON.
    pub fn of(records: Records) -> Result<Self> {
        Ok(Self {
            plan: serde_json::to_value(&records.plan).context("the plan as JSON")?,
            environment: serde_json::to_value(&records.environment).context("the environment as JSON")?,
            runs: records.runs,
            steps: records.steps,
            scores: records.scores,
            examples: records.examples,
            comparisons: records.comparisons,
            samples: records.samples,
            trials: records.trials,
            rollouts: records.rollouts,
            phases: records.phases,
        })
    }

    /// From rows already read. Rows that do not exist (yet) may be empty: what they would have shown is
    /// left out of the report.
    #[expect(clippy::too_many_arguments, reason = "one argument a file of the record")]
    pub fn from_rows(
        plan: Value,
        environment: Value,
        runs: Vec<RunRow>,
        steps: Vec<StepRow>,
        scores: Vec<ScoreRow>,
        examples: Vec<ExampleRow>,
        comparisons: Vec<ComparisonRow>,
        samples: Vec<SampleRow>,
    ) -> Self {
        let (rollouts, phases, trials) = (vec![], vec![], vec![]);
        Self {
            plan,
            environment,
            runs,
            steps,
            scores,
            examples,
            comparisons,
            samples,
            trials,
            rollouts,
            phases,
        }
    }
}
