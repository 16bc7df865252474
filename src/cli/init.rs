//! `kto-eval init`: a plan, a gate file and a workflow, from what the folder shows.

use std::path::{Path, PathBuf};

use clap::Args;

use super::args::Common;
use super::output::print;
use crate::base::error::{Context, HintExt, Result, anyhow};
use crate::base::exit::Exit;
use crate::gate::Config;
use crate::plan::{Overrides, Plan};

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
    model: Option<String>,
    /// A script that trains, and the method that its name speaks of.
    trainer: Option<(String, &'static str)>,
    branch: String,
}

pub fn run(options: &Options, common: &Common) -> Result<Exit> {
    let mut found = look(&options.dir)?;
    found.data = common.data.clone().or(found.data);
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
    let mut said = String::new();
    for (name, text) in &files {
        let path = options.dir.join(name);
        let folder = path.parent().unwrap_or(&options.dir);
        std::fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
        std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
        said += &format!("wrote {}\n", path.display());
    }
    said += &format!(
        "data: {}\nmodel: {}\ntrainer: {}\nnext: kto-eval verify kto-eval.toml\n",
        found.data.as_deref().unwrap_or("none found, so the planted world (--data names another)"),
        found.model.as_deref().unwrap_or("none found (--model names one)"),
        found.trainer.as_ref().map_or("this engine's kto, dpo and sft", |(script, _)| script.as_str()),
    );
    print(&said)?;
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
                } else if found.data.is_none() && ["jsonl", "json"].iter().all_splits(&path) {
                    found.data = Some(relative);
                } else if depth < 2 {
                    folders.push((path, depth + 1));
                }
            } else if found.trainer.is_none() && file.ends_with(".py") {
                found.trainer = trains(&path, &file).map(|method| (relative, method));
            }
        }
    }
    Ok(found)
}

/// Whether a folder holds a training and a test split.
trait Splits {
    fn all_splits(self, dir: &Path) -> bool;
}

impl<'s, I: Iterator<Item = &'s &'s str> + Clone> Splits for I {
    fn all_splits(self, dir: &Path) -> bool {
        let has = |split: &str| self.clone().any(|ext| dir.join(format!("{split}.{ext}")).exists());
        has("train") && has("test")
    }
}

/// The method that a Python script trains with TRL or by its name.
fn trains(path: &Path, file: &str) -> Option<&'static str> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let uses = |class: &str| text.contains(class);
    for (class, word, method) in
        [("KTOTrainer", "kto", "kto"), ("DPOTrainer", "dpo", "dpo"), ("SFTTrainer", "sft", "sft")]
    {
        if uses(class) || (file.starts_with("train") && file.contains(word)) {
            return Some(method);
        }
    }
    None
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

fn plan(found: &Found) -> String {
    let quoted = |text: &str| toml::Value::String(text.to_owned()).to_string();
    let data = found.data.as_deref().unwrap_or("world");
    let model =
        found.model.as_deref().unwrap_or(if data == "world" { "world" } else { "EleutherAI/pythia-70m" });
    let suites = if data == "world" { "\"world\"" } else { "\"heldout\"" };
    let arms = match &found.trainer {
        None => {
            "[[arm]]\nmethod = \"kto\"\n\n[[arm]]\nmethod = \"dpo\"\n\n[[arm]]\nmethod = \"sft\"\n".to_owned()
        }
        Some((script, method)) => format!(
            "# Your trainer: check the options' names against the script's.\n[[arm]]\nname = \"{method}-ours\"\nmethod = \"{method}\"\n\n\
             [arm.trainer]\ncommand = [\"python\", {}, \"--model\", \"{{model}}\", \"--data\", \"{{data}}\", \"--out\", \"{{out}}\", \
             \"--seed\", \"{{seed}}\", \"--max-tokens\", \"{{budget.tokens}}\"]\n\n\
             # The same method by this program, under the same budget.\n[[arm]]\nmethod = \"{method}\"\n",
            quoted(script)
        ),
    };
    format!(
        "# Written by `kto-eval init`. `kto-eval plan show kto-eval.toml` prints every key with its default.\n\
         name = {}\nseeds = [1, 2, 3]               # quality verdicts need three or more\n\
         budget = {{ tokens = 100_000 }}\n\n[model]\nsource = {}\n\n[data]\nsource = {}\nmax_length = {}\n\n\
         [train]\nbatch_size = 32\nlearning_rate = {}\n\n[suites]\npreference = [{suites}]\n\n{arms}",
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
    include_str!("../../.ci/workflow.yml").replace("@BRANCH@", &found.branch)
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
        for name in
            ["feedback/train.jsonl", "feedback/test.jsonl", "m/base/config.json", "m/base/tokenizer.json"]
        {
            write(name, "{}");
        }
        write("scripts/run.py", "from trl import KTOTrainer\n");
        write(".git/HEAD", "ref: refs/heads/trunk\n");
        let found = look(dir.path()).unwrap();
        assert_eq!(found.data.as_deref(), Some("feedback"));
        assert_eq!(found.model.as_deref(), Some("m/base"));
        assert_eq!(found.trainer, Some(("scripts/run.py".to_owned(), "kto")));
        let plan = Plan::parse(&plan(&found), "x", &Overrides::default()).unwrap();
        assert!(plan.arms[0].trainer.is_some() && plan.arms[1].trainer.is_none());
        assert_eq!(Config::parse(&gate(), "gate.toml").unwrap(), Config::default());
        assert!(!workflow(&found).contains('@') || workflow(&found).contains("actions/checkout@"));
    }
}
