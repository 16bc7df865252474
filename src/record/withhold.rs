//! A copy of a record folder that holds no prompt and no completion, for feedback that may not leave the house.

use std::fs;
use std::path::Path;

use super::environment::Texts;
use super::folder::{self, files};
use super::gather::plan_of;
use super::schema::{RunRow, SampleRow};
use super::table::row_file;
use super::trials::{TrialRow, read_trials};
use super::writer::read_environment;
use crate::base::atomic;
use crate::base::error::{Context, HintExt, Result, anyhow};
use crate::plan::Plan;

/// What is copied as it is: numbers, ids and hashes.
const KEPT: [&str; 11] = [
    files::PLAN,
    files::STEPS,
    files::SCORES,
    files::EXAMPLES,
    files::COMPARISONS,
    files::JUDGMENTS,
    files::JUDGE,
    files::WINRATES,
    files::STRENGTHS,
    files::ROLLOUTS,
    files::PHASES,
];

/// What a failed trainer printed last stands in its run's note after these words.
const LOG: &str = "its log ends: ";

/// Copies the records in `from` to the new folder `to`, the texts of `samples.jsonl` and what external trainers printed
/// left out and `environment.json` saying so. Returns how many samples it emptied. Logs, checkpoints and the data and models of
/// external trainers stay behind, and so does `trainers.csv`, which points to them.
///
/// # Errors
/// Records that cannot be read; a folder `to` that holds something.
pub fn withhold_texts(from: &Path, to: &Path) -> Result<usize> {
    if fs::read_dir(to).is_ok_and(|mut entries| entries.next().is_some()) {
        return Err(anyhow!("{} is not empty", to.display()))
            .hint("name a folder that is not there yet: the copy without texts is made in it");
    }
    folder::create(to)?;
    for name in KEPT {
        for name in [name.to_owned(), format!("{name}.gz")] {
            let path = from.join(&name);
            if path.exists() {
                fs::copy(&path, to.join(&name)).with_context(|| format!("copying {}", path.display()))?;
            }
        }
    }
    let path = from.join(files::ENVIRONMENT);
    let mut environment = if path.exists() { read_environment(&path)? } else { Default::default() };
    environment.texts = Texts::Withheld;
    let text = serde_json::to_string_pretty(&environment)? + "\n";
    atomic::write_held(&to.join(files::ENVIRONMENT), text.as_bytes())?;
    let mut samples: Vec<SampleRow> = row_file(from, files::SAMPLES).read()?;
    for sample in &mut samples {
        sample.prompt.clear();
        sample.completion.clear();
        sample.opponents.iter_mut().for_each(|o| o.completion.clear());
    }
    row_file(to, files::SAMPLES).append(&samples)?;
    withhold_notes(from, to)?;
    Ok(samples.len())
}

/// `runs.csv` and `trials.csv`: a trainer that ends over a row of the data prints that row.
fn withhold_notes(from: &Path, to: &Path) -> Result<()> {
    let plan = plan_of(from)?;
    let mut runs: Vec<RunRow> = row_file(from, files::RUNS).read()?;
    runs.iter_mut().for_each(|row| withhold_note(&plan, &row.arm, &mut row.note));
    row_file(to, files::RUNS).append(&runs)?;
    let mut trials: Vec<TrialRow> = read_trials(from)?;
    trials.iter_mut().for_each(|row| withhold_note(&plan, &row.arm, &mut row.note));
    row_file(to, files::TRIALS).append(&trials)
}

fn withhold_note(plan: &Plan, arm: &str, note: &mut String) {
    let external = plan.arms.iter().any(|a| a.name == arm && a.trainer.is_some());
    if note.is_empty() || !external {
        return;
    }
    *note = match note.find(LOG) {
        Some(at) => format!("{}its log is withheld", &note[..at]),
        None => "withheld".to_owned(),
    };
}
