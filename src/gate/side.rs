//! One side of a gate: a record folder, and its repeats where it was measured side by side.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::baseline;
use crate::base::error::{Context, HintExt, Result, anyhow};
use crate::plan::Budget;
use crate::record::{Records, RunRow, files};

/// Folder of the repeats in a side's folder.
pub const REPEATS: &str = "repeats";
/// File in it that says which measurement they belong to.
pub const SESSION: &str = "session.json";

/// Repeats of two sides may be paired only where one measurement made both, turn about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    pub id: String,
    pub rounds: usize,
}

/// Records of one side.
#[derive(Clone, Debug)]
pub struct Side {
    pub records: Records,
    pub session: Option<Session>,
    /// By round; the k-th of both sides were measured next to each other.
    pub repeats: Vec<Repeat>,
}

/// One round: runs and steps.
#[derive(Clone, Debug)]
pub struct Repeat {
    pub runs: Vec<RunRow>,
    pub steps: Vec<crate::record::StepRow>,
}

impl Side {
    /// Reads a folder that `compare`, `gate measure` or `baseline save` wrote.
    ///
    /// # Errors
    /// A folder that is no record folder, was left half written, was changed since it was saved as a
    /// baseline, or has another schema version.
    pub fn read(dir: &Path) -> Result<Self> {
        baseline::verify(dir)?;
        let records = Records::read(dir)?;
        complete(dir, &records)?;
        let (session, repeats) = repeats(&dir.join(REPEATS))?;
        Ok(Self { records, session, repeats })
    }

    /// The run of an arm under a seed.
    pub fn run(&self, arm: &str, seed: u64) -> Option<&RunRow> {
        self.records.runs.iter().find(|r| r.arm == arm && r.seed == seed)
    }

    /// Whether the arm's runs give the same numbers each time: this engine on a CPU, unless the budget is in seconds
    /// (learning rates follow the clock there).
    pub fn deterministic(&self, arm: &str) -> bool {
        let external = self.records.plan.arms.iter().any(|a| a.name == arm && a.trainer.is_some());
        let timed = matches!(self.records.plan.budget, Budget::Seconds(_));
        !external && !timed && self.records.environment.device == "cpu"
    }
}

/// Every run of the plan has its row.
fn complete(dir: &Path, records: &Records) -> Result<()> {
    let here = dir.display();
    if !dir.join(files::ENVIRONMENT).exists() {
        return Err(anyhow!("{here} has no {}: it was left half written", files::ENVIRONMENT))
            .hint("run `kto-eval compare` again: it goes on where it was cut");
    }
    for seed in &records.plan.seeds {
        for arm in &records.plan.arms {
            if !records.runs.iter().any(|r| r.arm == arm.name && r.seed == *seed) {
                let message = format!(
                    "{here} is half written: arm `{}` under seed {seed} has no row in {} ({} of {} runs are there)",
                    arm.name,
                    files::RUNS,
                    records.runs.len(),
                    records.plan.seeds.len() * records.plan.arms.len()
                );
                return Err(anyhow!(message))
                    .hint("run `kto-eval compare` again: it goes on where it was cut");
            }
        }
    }
    Ok(())
}

fn repeats(dir: &Path) -> Result<(Option<Session>, Vec<Repeat>)> {
    let path = dir.join(SESSION);
    if !path.exists() {
        return Ok((None, vec![]));
    }
    let text = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let session: Session = serde_json::from_str(&text).with_context(|| path.display().to_string())?;
    let mut repeats = vec![];
    for round in 1..=session.rounds {
        let folder = dir.join(format!("{round:02}"));
        let records = Records::read(&folder)
            .with_context(|| format!("{}: round {round} of {}", dir.display(), session.rounds))?;
        repeats.push(Repeat { runs: records.runs, steps: records.steps });
    }
    Ok((Some(session), repeats))
}
