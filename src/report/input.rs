//! What a report is made from: the rows of one output folder.

use serde_json::Value;

use crate::record::{ComparisonRow, ExampleRow, RunRow, SampleRow, ScoreRow, StepRow};

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
}

impl Input {
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
        Self { plan, environment, runs, steps, scores, examples, comparisons, samples }
    }
}
