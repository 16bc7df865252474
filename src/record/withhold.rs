//! A copy of a record folder that holds no prompt and no completion, for feedback that may not leave the house.

use std::fs;
use std::path::Path;

use super::environment::Texts;
use super::folder::{self, files};
use super::schema::SampleRow;
use super::table::row_file;
use super::writer::read_environment;
use crate::base::error::{Context, HintExt, Result, anyhow};

/// What is copied as it is: numbers, ids and hashes.
const KEPT: [&str; 13] = [
    files::PLAN,
    files::RUNS,
    files::STEPS,
    files::SCORES,
    files::EXAMPLES,
    files::COMPARISONS,
    files::TRIALS,
    files::JUDGMENTS,
    files::JUDGE,
    files::WINRATES,
    files::STRENGTHS,
    files::ROLLOUTS,
    files::PHASES,
];

/// Copies the records in `from` to the new folder `to`, the texts of `samples.jsonl` left out and
/// `environment.json` saying so. Returns how many samples it emptied. Logs, checkpoints and the data and models of
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
    folder::replace(&to.join(files::ENVIRONMENT), text.as_bytes())?;
    let mut samples: Vec<SampleRow> = row_file(from, files::SAMPLES).read()?;
    for sample in &mut samples {
        sample.prompt.clear();
        sample.completion.clear();
        sample.opponents.iter_mut().for_each(|o| o.completion.clear());
    }
    row_file(to, files::SAMPLES).append(&samples)?;
    Ok(samples.len())
}
