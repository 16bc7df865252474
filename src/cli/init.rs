//! `kto-eval init`: a plan, a gate file and a workflow, from what the folder shows.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use super::args::Common;
use super::output::{print, print_json};
use crate::base::error::{Context, HintExt, Result, anyhow};
use crate::base::exit::Exit;
use crate::data::{self, Dataset, split_or};
use crate::gate::Config;
use crate::plan::{DataSpec, Overrides, Plan};

#[derive(Debug, Args)]
pub struct Options {
    /// The project
    #[arg(default_value = ".")]
    dir: PathBuf,
    /// Replace files that are there
    #[arg(long)]
    force: bool,
}

/// What there is.
#[derive(Debug, Default, PartialEq)]
struct Found {
    name: String,
    data: Option<String>,
    /// The data are completions one by one, not pairs.
    single: bool,
    model: Option<String>,
    trainer: Option<Trainer>,
    branch: String,
}

pub fn run(options: &Options, common: &Common) -> Result<Exit> {
    common.only("init", &["--json", "--model", "--data"])?;
    let mut found = look(&options.dir)?;
    if let Some(data) = &common.data {
        // A path; what a hub id names is not fetched for this.
        found.single = Path::new(data).exists() && form(data, &split_or(data, "train")) == Some(Form::Single);
        found.data = Some(data.clone());
    }
    found.model = common.model.clone().or(found.model);
    let files = [
        ("kto-eval.toml", plan(&found)),
        ("gate.toml", gate()),
        (".github/workflows/kto-eval.yml", workflow(&found)),
    ];
    if let Some((name, _)) = files.iter().find(|(name, _)| options.dir.join(name).exists() && !options.force)
    {
        return Err(anyhow!("{} is there already", options.dir.join(name).display()))
            .hint("give --force to replace it; nothing was written");
    }
    // What is written must be what the program reads.
    Plan::parse(&files[0].1, "kto-eval.toml", &Overrides::default())
        .context("the plan that would be written")?;
    Config::parse(&files[1].1, "gate.toml")?;
    let (mut said, mut wrote) = (String::new(), vec![]);
    for (name, text) in &files {
        let path = options.dir.join(name);
        let folder = path.parent().unwrap_or(&options.dir);
        std::fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
        std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
        said += &format!("wrote {}\n", path.display());
        wrote.push(path);
    }
    if found.trainer.is_none() {
        said += "no trainer found: the workflow holds the plans of the two checkouts (and files in them) against each other; to have \
                 your trainer gated, put its command into an [arm.trainer] and run init again with --force\n";
    }
    said += &format!(
        "data: {}\nmodel: {}\ntrainer: {}\nnext: kto-eval verify kto-eval.toml\n",
        found.data.as_deref().unwrap_or("none found, so the planted world (--data names another)"),
        found.model.as_deref().unwrap_or("none found (--model names one)"),
        found
            .trainer
            .as_ref()
            .map_or_else(|| format!("this engine's {}", found.methods().join(", ")), |t| t.script.clone()),
    );
    let Found { data, model, trainer, .. } = &found;
    match common.json {
        true => print_json(&json!({
            "wrote": wrote, "data": data, "model": model, "trainer": trainer.as_ref().map(|t| &t.script),
        }))?,
        false => print(&said)?,
    }
    Ok(Exit::Done)
}

fn look(dir: &Path) -> Result<Found> {
    let here = dir.canonicalize().with_context(|| format!("opening {}", dir.display()))?;
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '-' { c } else { '-' };
    let name: String =
        here.file_name().map_or("project".into(), |n| n.to_string_lossy()).chars().map(plain).collect();
    let mut found = Found { name, branch: branch(&here), ..Found::default() };
    let mut folders = vec![(here.clone(), 0)];
    while let Some((folder, depth)) = folders.pop() {
        let mut entries: Vec<PathBuf> =
            std::fs::read_dir(&folder).into_iter().flatten().flatten().map(|e| e.path()).collect();
        entries.sort();
        for path in entries {
            let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let relative = path.strip_prefix(&here).unwrap_or(&path).to_string_lossy().into_owned();
            if file.starts_with('.') || ["target", "node_modules", "out", "venv"].contains(&file.as_str()) {
                continue;
            }
            if path.is_dir() {
                if found.model.is_none()
                    && path.join("config.json").exists()
                    && path.join("tokenizer.json").exists()
                {
                    found.model = Some(relative);
                } else if let Some(form) = splits(&path).filter(|_| found.data.is_none()) {
                    (found.data, found.single) = (Some(relative), form == Form::Single);
                } else if depth < 2 {
                    folders.push((path, depth + 1));
                }
            } else if found.trainer.is_none() && file.ends_with(".py") {
                found.trainer = Trainer::find(&path, &file, &relative);
            }
        }
    }
    Ok(found)
}

/// Of feedback.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Form {
    Pairs,
    Single,
}

/// The form of a split by its first rows; `None`: nothing that can be read.
fn form(source: &str, split: &str) -> Option<Form> {
    let spec = DataSpec { source: source.to_owned(), max_examples: 4, ..DataSpec::default() };
    let loaded = data::load(&spec, split).ok()?;
    Some(if matches!(loaded.dataset, Dataset::Paired(_)) { Form::Pairs } else { Form::Single })
}

/// The form of a folder that holds a training and a test split of feedback.
fn splits(dir: &Path) -> Option<Form> {
    let source = dir.display().to_string();
    form(&source, "test").and(form(&source, "train"))
}

/// A script that trains.
#[derive(Debug, PartialEq)]
struct Trainer {
    script: String,
    /// The method that it speaks of.
    method: &'static str,
    /// Its options for what the plan gives, by placeholder.
    options: Vec<(String, &'static str)>,
    /// Placeholders for which it names no option.
    missing: Vec<&'static str>,
}

/// What a command is given, and the options by which scripts take it.
const OPTIONS: [(&str, &[&str]); 5] = [
    ("model", &["--model", "--model-name-or-path", "--model-path", "--base-model"]),
    ("data", &["--data", "--dataset-name", "--data-path", "--dataset", "--train-file"]),
    ("out", &["--out", "--output-dir", "--output", "--save-dir"]),
    ("seed", &["--seed"]),
    ("budget.tokens", &["--max-tokens", "--num-tokens"]),
];

impl Trainer {
    /// `None`: a script that does not train with TRL, nor by its name.
    fn find(path: &Path, file: &str, script: &str) -> Option<Self> {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let known = [("KTOTrainer", "kto"), ("DPOTrainer", "dpo"), ("SFTTrainer", "sft")];
        let named = |word: &str| file.starts_with("train") && file.contains(word);
        let (_, method) = known.into_iter().find(|(class, word)| text.contains(class) || named(word))?;
        // TRL's own parsers bring these, whether or not the script spells them.
        let trl = ["TrlParser", "HfArgumentParser"].iter().any(|parser| text.contains(parser));
        let usual = ["--model_name_or_path", "--dataset_name", "--output_dir", "--seed"];
        let spelt = |o: &String| text.contains(&format!("\"{o}\"")) || text.contains(&format!("'{o}'"));
        let spellings = |names: &[&str]| -> Vec<String> {
            names.iter().flat_map(|n| [(*n).to_owned(), format!("--{}", n[2..].replace('-', "_"))]).collect()
        };
        let (mut options, mut missing) = (vec![], vec![]);
        for (placeholder, names) in OPTIONS {
            let names = spellings(names);
            let brought = || names.iter().find(|o| trl && usual.contains(&o.as_str()));
            match names.iter().find(|o| spelt(o)).or_else(brought) {
                Some(option) => options.push((option.clone(), placeholder)),
                None => missing.push(placeholder),
            }
        }
        Some(Self { script: script.to_owned(), method, options, missing })
    }

    /// The command as a plan writes it; an option that was not found stands there under its usual name.
    fn command(&self) -> String {
        let mut words = vec!["python".to_owned(), self.script.clone()];
        for (placeholder, names) in OPTIONS {
            let found = self.options.iter().find(|(_, p)| *p == placeholder);
            words.push(found.map_or(names[0].to_owned(), |(option, _)| option.clone()));
            words.push(format!("{{{placeholder}}}"));
        }
        let quoted: Vec<String> = words.iter().map(|w| toml::Value::String(w.clone()).to_string()).collect();
        format!("command = [{}]", quoted.join(", "))
    }

    /// A comment for the person who reads the plan.
    fn note(&self) -> String {
        let lacks: Vec<String> = OPTIONS
            .iter()
            .filter(|(p, _)| self.missing.contains(p))
            .map(|(p, names)| format!("{} for {{{p}}}", names[0]))
            .collect();
        match lacks.as_slice() {
            [] => format!("# Your trainer, with the options that {} names.", self.script),
            _ => format!(
                "# Your trainer. {} names no option for what follows; give it one, or change the words below:\n#   {}",
                self.script,
                lacks.join(", ")
            ),
        }
    }
}

fn branch(dir: &Path) -> String {
    let git = |arguments: &[&str]| {
        let out = std::process::Command::new("git").arg("-C").arg(dir).args(arguments).output().ok()?;
        let text = String::from_utf8_lossy(&out.stdout).trim().to_owned();
        (out.status.success() && !text.is_empty()).then_some(text)
    };
    git(&["symbolic-ref", "--short", "refs/remotes/origin/HEAD"])
        .and_then(|b| b.strip_prefix("origin/").map(str::to_owned))
        .or_else(|| git(&["symbolic-ref", "--short", "HEAD"]))
        .unwrap_or_else(|| "main".to_owned())
}

impl Found {
    /// Of this engine, that learn from such data.
    fn methods(&self) -> [&'static str; 3] {
        if self.single { ["kto", "bco", "sft"] } else { ["kto", "dpo", "sft"] }
    }
}

fn plan(found: &Found) -> String {
    let quoted = |text: &str| toml::Value::String(text.to_owned()).to_string();
    let data = found.data.as_deref().unwrap_or("world");
    let model =
        found.model.as_deref().unwrap_or(if data == "world" { "world" } else { "EleutherAI/pythia-70m" });
    let suites = match (data, found.single) {
        ("world", _) => "preference = [\"world\"]",
        // Which of two completions is better only pairs can say; which are desirable their labels do.
        (_, true) => {
            "preference = [\"heldout-labels\"]\ngeneration = [\"heldout-prompts\"] # heldout-judged or heldout-rewarded add win rates by a judge"
        }
        _ => "preference = [\"heldout\"]",
    };
    let arms = match &found.trainer {
        None => {
            let arm = |method: &&str| format!("[[arm]]\nmethod = \"{method}\"\n");
            found.methods().iter().map(arm).collect::<Vec<_>>().join("\n")
        }
        Some(trainer) => format!(
            "{}\n[[arm]]\nname = \"{method}-ours\"\nmethod = \"{method}\"\n\n[arm.trainer]\n{form}{}\n\n\
             # The same method by this program, under the same budget.\n[[arm]]\nmethod = \"{method}\"\n",
            trainer.note(),
            trainer.command(),
            form = if found.single { "data = \"trl-unpaired-jsonl\"\n" } else { "" },
            method = trainer.method
        ),
    };
    format!(
        "# Written by `kto-eval init`. `kto-eval plan show kto-eval.toml` prints every key with its default.\n\
         name = {}\nseeds = [1, 2, 3]               # quality verdicts need three or more\n\
         budget = {{ tokens = 100_000 }}\n\n[model]\nsource = {}\n\n[data]\nsource = {}\nmax_length = {}\n\n\
         [train]\nbatch_size = 32\nlearning_rate = {}\n\n[suites]\n{suites}\n\n{arms}",
        quoted(&found.name),
        quoted(model),
        quoted(data),
        if data == "world" { 128 } else { 512 },
        if data == "world" { "1e-4" } else { "5e-6" },
    )
}

fn gate() -> String {
    let values = toml::to_string(&Config::default()).expect("a gate file holds only what TOML can say");
    format!(
        "# Tolerances of `kto-eval gate`, written by `kto-eval init`. A metric fails only where the whole interval\n\
         # of its change lies beyond the tolerance; `alarm` is the chance of any false alarm in a gate.\n\
         # Relative: throughput, memory, final_loss (0.03: 3 %). In the metric's unit: quality. In standard\n\
         # deviations of the baseline's trajectory: trajectory.\n{values}"
    )
}

fn workflow(found: &Found) -> String {
    let text = include_str!("../../.ci/workflow.yml").replace("@BRANCH@", &found.branch);
    // Without a command each checkout would be the same program: there the plans are what a change can make worse.
    let own_plan = "--baseline-plan \"$PWD/baseline/kto-eval.toml\" --same";
    let sides = "--baseline-dir baseline --candidate-dir candidate";
    match found.trainer {
        Some(_) => text,
        None => text.replace(sides, &format!("{sides}\n          {own_plan}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        let empty = look(dir.path()).unwrap();
        assert_eq!((&empty.data, &empty.model, &empty.trainer), (&None, &None, &None));
        Plan::parse(&plan(&empty), "x", &Overrides::default()).unwrap();
        let pair = r#"{"prompt": "a", "chosen": " b", "rejected": " c"}"#;
        for (name, text) in [
            ("feedback/train.jsonl", pair),
            ("feedback/test.jsonl", pair),
            // Splits of something else.
            ("corpus/train.jsonl", "{}"),
            ("corpus/test.jsonl", "{}"),
            ("m/base/config.json", "{}"),
            ("m/base/tokenizer.json", "{}"),
        ] {
            write(name, text);
        }
        assert!(plan(&look(dir.path()).unwrap()).contains("preference = [\"heldout\"]"));
        let script = "from trl import KTOTrainer, TrlParser\np.add_argument('--data-path')\n";
        write("scripts/run.py", script);
        write(".git/HEAD", "ref: refs/heads/trunk\n");
        let found = look(dir.path()).unwrap();
        assert_eq!(found.data.as_deref(), Some("feedback"));
        assert_eq!(found.model.as_deref(), Some("m/base"));
        let trainer = found.trainer.as_ref().unwrap();
        assert_eq!((trainer.script.as_str(), trainer.method), ("scripts/run.py", "kto"));
        assert_eq!(trainer.missing, ["budget.tokens"], "{trainer:?}");
        let plan = Plan::parse(&plan(&found), "x", &Overrides::default()).unwrap();
        assert!(plan.arms[1].trainer.is_none());
        let command = &plan.arms[0].trainer.as_ref().unwrap().command;
        let says =
            "--model_name_or_path {model} --data-path {data} --output_dir {out} --seed {seed} --max-tokens";
        assert!(command.join(" ").contains(says), "{command:?}");
        assert_eq!(Config::parse(&gate(), "gate.toml").unwrap(), Config::default());
        assert!(!workflow(&found).contains('@') || workflow(&found).contains("actions/checkout@"));
        // Two checkouts of no trainer are one program: their plans are held against each other.
        let own = "--baseline-plan \"$PWD/baseline/kto-eval.toml\"";
        assert!(workflow(&empty).contains(own) && !workflow(&found).contains(own));
    }
    #[test]
    fn what_is_written_for_labels_is_what_labels_serve() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("feedback")).unwrap();
        for split in ["train", "test"] {
            let row = r#"{"prompt": "a", "completion": " b", "label": true}"#;
            std::fs::write(dir.path().join(format!("feedback/{split}.jsonl")), row).unwrap();
        }
        let found = look(dir.path()).unwrap();
        assert!(found.single);
        let written = Plan::parse(&plan(&found), "x", &Overrides::default()).unwrap();
        assert_eq!(written.suites.preference, ["heldout-labels"]);
        assert_eq!(written.suites.generation, ["heldout-prompts"]);
        let methods: Vec<&str> = written.arms.iter().map(|arm| arm.method.name()).collect();
        assert_eq!(methods, ["kto", "bco", "sft"]);
    }
}
