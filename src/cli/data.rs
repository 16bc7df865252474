//! `kto-eval data inspect SOURCE [--model MODEL]`.

use clap::Subcommand;
use serde_json::json;

use super::args::Common;
use super::asked::{Keys, asked};
use super::judge::JudgeOptions;
use super::output::{print, print_json, table};
use crate::base::error::{HintExt, Result, anyhow};
use crate::base::exit::Exit;
use crate::data::{Dataset, Loaded, Recipe, load, recipes, split_or};
use crate::launch::{InspectRequest, inspect_data};
use crate::plan::DataSpec;
use crate::suite::find_any;

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// List the data sets whose columns or splits are known by name
    Recipes,
    /// Say how a data set is read, and show its first examples; with --model, as that model will see them: tokens,
    /// lengths, and what goes wrong in practice
    Inspect {
        /// A hub id, a file, a directory, or world
        source: String,
        /// Split [default: train, or what a single file calls itself]
        #[arg(long)]
        split: Option<String>,
        /// Configuration or folder within the data set
        #[arg(long, default_value = "")]
        config: String,
        /// Examples to show
        #[arg(long, default_value_t = 2)]
        show: usize,
        /// Sequences are cut to this many tokens (with --model)
        #[arg(long, default_value_t = 512, value_name = "TOKENS")]
        max_length: usize,
        /// Look for this suite's prompts in the data (with --model; repeatable). The split that a comparison would hold
        /// out (--set data.heldout_split=…; test) is looked at anyway
        #[arg(long, value_name = "SUITE")]
        suite: Vec<String>,
    },
}

/// Keys that `data inspect` has options for.
const OPTIONS: [(&str, &str); 4] = [
    ("data.source", "the argument SOURCE"),
    ("data.split", "--split"),
    ("data.config", "--config"),
    ("data.max_length", "--max-length"),
];

pub fn run(verb: &Verb, common: &Common) -> Result<Exit> {
    let taken: &[&str] =
        if matches!(verb, Verb::Recipes) { &["--json"] } else { &["--json", "--set", "--model"] };
    common.only("data", taken)?;
    let Verb::Inspect { source, split, config, show, max_length, suite } = verb else { return list(common) };
    let split = &split.clone().unwrap_or_else(|| split_or(source, "train"));
    let spec = DataSpec {
        source: source.clone(),
        split: split.clone(),
        config: config.clone(),
        max_length: *max_length,
        ..DataSpec::default()
    };
    let keys = Keys { taken: &["data."], but: &["data.feedback"], options: &OPTIONS };
    let spec = asked("data inspect", common, &JudgeOptions::default(), &spec, &keys)?.data;
    let (loaded, found) = match &common.model {
        None if suite.is_empty() => (load(&spec, split)?, None),
        None => {
            return Err(anyhow!("--suite needs --model: prompts are compared as its template renders them"))
                .hint("name a hub id or a directory with a tokenizer");
        }
        Some(model) => {
            let (model, revision) = (model.clone(), "main".to_owned());
            let suites = suite.iter().map(|s| find_any(s)).collect::<Result<_>>()?;
            let request = InspectRequest { data: spec, model, revision, suites };
            let (loaded, found) = inspect_data(&request)?;
            (loaded, Some(found))
        }
    };
    if common.json {
        print_json(&json!({
            "inspection": found,
            "source": source,
            "split": split,
            "format": loaded.format,
            "rows": loaded.rows,
            "examples": loaded.dataset.len(),
            "notes": loaded.notes,
            "hash": loaded.hash,
            "first": first(&loaded.dataset, *show),
        }))?;
    } else {
        print(&text(source, split, &loaded, if found.is_some() { 0 } else { *show })?)?;
        found.map_or(Ok(()), |found| print(&format!("\n{found}")))?;
    }
    Ok(Exit::Done)
}

fn list(common: &Common) -> Result<Exit> {
    if common.json {
        let row = |r: &Recipe| json!({"name": r.name, "source": r.source, "about": r.about});
        print_json(&recipes().iter().map(row).collect::<Vec<_>>())?;
    } else {
        let row = |r: &Recipe| vec![r.name.to_owned(), r.source.clone(), r.about.clone()];
        print(&table(&recipes().iter().map(row).collect::<Vec<_>>()))?;
    }
    Ok(Exit::Done)
}

fn text(source: &str, split: &str, loaded: &Loaded, show: usize) -> Result<String> {
    let kind = match &loaded.dataset {
        Dataset::Paired(_) => "pairs",
        Dataset::Unpaired(_) => "labelled completions",
    };
    let mut out = format!(
        "{source} ({split}): {} {kind} of {} rows, content hash {}\n",
        loaded.dataset.len(),
        loaded.rows,
        &loaded.hash[..12]
    );
    for note in &loaded.notes {
        out += &format!("  {note}\n");
    }
    for example in first(&loaded.dataset, show) {
        out += &(serde_json::to_string_pretty(&example)? + "\n");
    }
    Ok(out)
}

fn first(dataset: &Dataset, n: usize) -> Vec<serde_json::Value> {
    match dataset {
        Dataset::Paired(pairs) => pairs
            .iter()
            .take(n)
            .map(|p| json!({"id": p.id, "prompt": p.prompt, "chosen": p.chosen, "rejected": p.rejected}))
            .collect(),
        Dataset::Unpaired(examples) => examples
            .iter()
            .take(n)
            .map(|e| json!({"id": e.id, "prompt": e.prompt, "completion": e.completion, "desirable": e.desirable}))
            .collect(),
    }
}
