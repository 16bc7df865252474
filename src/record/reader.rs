//! Reads a record folder back.

use std::path::Path;

use super::environment::Environment;
use super::folder::files;
use super::schema::*;
use super::table::row_file;
use super::trials::{TrialRow, read_trials};
use super::writer::read_environment;
use crate::base::error::{Context, HintExt, Result};
use crate::plan::{Overrides, Plan};

/// All that a report is made from.
#[derive(Clone, Debug, PartialEq)]
pub struct Records {
    pub plan: Plan,
    /// Defaults where the folder has no `environment.json` (rows of another trainer).
    pub environment: Environment,
    pub runs: Vec<RunRow>,
    pub steps: Vec<StepRow>,
    pub scores: Vec<ScoreRow>,
    pub examples: Vec<ExampleRow>,
    pub samples: Vec<SampleRow>,
    /// Every match of two completions; empty in folders of earlier versions.
    pub judgments: Vec<JudgmentRow>,
    pub comparisons: Vec<ComparisonRow>,
    /// Empty where nothing was tuned.
    pub trials: Vec<TrialRow>,
    pub rollouts: Vec<RolloutRow>,
    pub phases: Vec<PhaseRow>,
}

impl Records {
    /// Reads a folder. Only `plan.toml` must be there; what is missing otherwise has no rows.
    ///
    /// # Errors
    /// A folder without a plan, rows of another schema version, and rows that do not fit their columns (with
    /// path and line).
    pub fn read(dir: &Path) -> Result<Self> {
        let path = dir.join(files::PLAN);
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("reading {}", path.display()))
            .hint("name a folder that `kto-eval compare` wrote (its --out)")?;
        let environment = dir.join(files::ENVIRONMENT);
        Ok(Self {
            plan: Plan::parse(&text, &path.display().to_string(), &Overrides::default())?,
            environment: if environment.exists() {
                read_environment(&environment)?
            } else {
                Environment::default()
            },
            runs: row_file(dir, files::RUNS).read()?,
            steps: row_file(dir, files::STEPS).read()?,
            scores: row_file(dir, files::SCORES).read()?,
            examples: row_file(dir, files::EXAMPLES).read()?,
            samples: row_file(dir, files::SAMPLES).read()?,
            judgments: row_file(dir, files::JUDGMENTS).read()?,
            comparisons: row_file(dir, files::COMPARISONS).read()?,
            trials: read_trials(dir)?,
            rollouts: row_file(dir, files::ROLLOUTS).read()?,
            phases: row_file(dir, files::PHASES).read()?,
        })
    }
}
