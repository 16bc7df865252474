//! The training split, written as a trainer reads it.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::base::error::{Context, Result};
use crate::data::{Dataset, carves, load_training, treat, write_rows};
use crate::launch::prepare::Prepared;
use crate::plan::{DataSpec, Plan, TrainerData};

/// Writes the split as a run's arm is trained on it: anew for each run, since arms may differ in what they are given.
///
/// # Errors
/// Data that cannot be read or treated, a folder that cannot be written to.
pub fn write(
    prepared: &Prepared,
    plan: &Plan,
    spec: &DataSpec,
    form: TrainerData,
    folder: &Path,
) -> Result<PathBuf> {
    let name = match form {
        TrainerData::TrlJsonl => "train.jsonl",
        TrainerData::TrlUnpairedJsonl => "train-unpaired.jsonl",
        TrainerData::TrlParquet => "train.parquet",
        TrainerData::TrlUnpairedParquet => "train-unpaired.parquet",
        TrainerData::HalosJson => "train-halos.json",
    };
    let loaded = load_training(spec, carves(&plan.data), &prepared.tokenizer.template())?;
    let path = folder.join(name);
    let data = &treat(loaded.dataset, &spec.feedback)?.dataset;
    let written = match form {
        TrainerData::TrlJsonl => lines(&path, trl(data)),
        TrainerData::TrlUnpairedJsonl => lines(&path, unpaired(data)),
        TrainerData::TrlParquet => write_rows(&path, trl(data)),
        TrainerData::TrlUnpairedParquet => write_rows(&path, unpaired(data)),
        TrainerData::HalosJson => list(&path, halos(data)),
    };
    written.with_context(|| format!("writing {}", path.display()))?;
    Ok(path)
}

fn lines(path: &Path, rows: impl Iterator<Item = Value>) -> Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    for row in rows {
        writeln!(file, "{row}")?;
    }
    Ok(file.flush()?)
}

fn list(path: &Path, rows: impl Iterator<Item = Value>) -> Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    serde_json::to_writer_pretty(&mut file, &rows.collect::<Vec<_>>())?;
    Ok(file.flush()?)
}

/// Rows in the data's own form.
fn trl(data: &Dataset) -> Box<dyn Iterator<Item = Value> + '_> {
    match data {
        Dataset::Unpaired(_) => Box::new(unpaired(data)),
        Dataset::Paired(pairs) => Box::new(
            pairs.iter().map(|p| json!({"prompt": p.prompt, "chosen": p.chosen, "rejected": p.rejected})),
        ),
    }
}

/// A pair is a desirable completion and then an undesirable one.
fn unpaired(data: &Dataset) -> Box<dyn Iterator<Item = Value> + '_> {
    let row = |prompt: &str, completion: &str, label: bool| json!({"prompt": prompt, "completion": completion, "label": label});
    match data {
        Dataset::Unpaired(examples) => {
            Box::new(examples.iter().map(move |e| row(&e.prompt, &e.completion, e.desirable)))
        }
        Dataset::Paired(pairs) => Box::new(
            pairs
                .iter()
                .flat_map(move |p| [row(&p.prompt, &p.chosen, true), row(&p.prompt, &p.rejected, false)]),
        ),
    }
}

/// HALOs' feedback files (`train/data.py` of ContextualAI/HALOs reads `type`, `prompt_id`, messages, labels).
fn halos(data: &Dataset) -> Box<dyn Iterator<Item = Value> + '_> {
    let said = |role: &str, text: &str| json!([{"role": role, "content": text}]);
    match data {
        Dataset::Unpaired(examples) => Box::new(examples.iter().enumerate().map(move |(i, e)| {
            let label = u8::from(e.desirable);
            json!({"type": "binary_feedback", "prompt_id": i, "prompt_key": e.prompt, "prompt": said("user", &e.prompt),
                   "output": said("assistant", &e.completion), "label": label, "reward": label})
        })),
        Dataset::Paired(pairs) => Box::new(pairs.iter().enumerate().map(move |(i, p)| {
            json!({"type": "pairwise_feedback", "prompt_id": i, "prompt_key": p.prompt, "prompt": said("user", &p.prompt),
                   "output_A": said("assistant", &p.chosen), "output_B": said("assistant", &p.rejected), "label": 1,
                   "reward_A": 1, "reward_B": 0, "reward_difference": 1})
        })),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::PreferencePair;

    #[test]
    fn a_pair_in_each_form() {
        let text = |s: &str| s.to_owned();
        let pair = PreferencePair {
            id: text("1"),
            prompt: text("p"),
            chosen: text(" c"),
            rejected: text(" r"),
            subset: String::new(),
        };
        let data = Dataset::Paired(vec![pair]);
        let paired: Vec<Value> = trl(&data).collect();
        assert_eq!(paired, [json!({"prompt": "p", "chosen": " c", "rejected": " r"})]);
        let apart: Vec<Value> = unpaired(&data).collect();
        assert_eq!(apart[1], json!({"prompt": "p", "completion": " r", "label": false}));
        let halos: Vec<Value> = halos(&data).collect();
        assert_eq!(halos[0]["output_A"][0], json!({"role": "assistant", "content": " c"}));
        assert_eq!((&halos[0]["label"], &halos[0]["type"]), (&json!(1), &json!("pairwise_feedback")));
    }
}
