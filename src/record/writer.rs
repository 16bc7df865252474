//! Writes a record folder, row by row, and goes on with one that was left unfinished.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use super::environment::Environment;
use super::folder::{self, files};
use super::schema::*;
use super::table::{RowFile, row_file};
use crate::base::error::{Context, HintExt, Result, anyhow};
use crate::plan::{BASE_ARM, Plan};

/// An output folder, held for this process.
pub struct RecordWriter {
    dir: PathBuf,
    runs: RowFile,
    steps: RowFile,
    scores: RowFile,
    examples: RowFile,
    samples: RowFile,
    judgments: RowFile,
    /// Run → its row, for runs that need not be done again.
    finished: BTreeMap<String, RunRow>,
    /// Run → its place in the plan; the starting checkpoint stands first.
    order: BTreeMap<String, usize>,
    /// Released when the writer is dropped or the process ends.
    _lock: File,
}

impl RecordWriter {
    /// Opens the folder for this plan: creates it, or goes on with what is there. Rows of unfinished and of
    /// failed runs are dropped; with `force`, so is everything of an earlier comparison.
    ///
    /// # Errors
    /// A folder that cannot be written to, that another process holds, or that holds another plan's results.
    pub fn open(dir: &Path, plan: &Plan, force: bool) -> Result<Self> {
        folder::create(dir)?;
        let lock = folder::lock(dir)?;
        if force {
            folder::clear(dir)?;
        }
        folder::check_plan(dir, plan)?;
        folder::replace(&dir.join(files::PLAN), plan.to_toml().as_bytes())?;
        let ids = plan.runs().into_iter().map(|r| r.id);
        let order =
            std::iter::once(BASE_ARM.to_owned()).chain(ids).enumerate().map(|(i, id)| (id, i)).collect();
        let file = |name| row_file(dir, name);
        let mut writer = Self {
            dir: dir.to_owned(),
            runs: file(files::RUNS),
            steps: file(files::STEPS),
            scores: file(files::SCORES),
            examples: file(files::EXAMPLES),
            samples: file(files::SAMPLES),
            judgments: file(files::JUDGMENTS),
            finished: BTreeMap::new(),
            order,
            _lock: lock,
        };
        writer.drop_unfinished()?;
        Ok(writer)
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The row of a run that an earlier process has finished (done, or diverged: it would diverge again).
    pub fn finished(&self, run: &str) -> Option<&RunRow> {
        self.finished.get(run)
    }

    /// Whether the starting checkpoint's scores are on disk: they are written before any run ends.
    pub fn has_base(&self) -> bool {
        !self.finished.is_empty()
    }

    /// Writes `environment.json`, keeping the start time of a folder that goes on.
    ///
    /// # Errors
    /// Where the folder's rows come from other data, another model, or another schema.
    pub fn environment(&mut self, environment: &Environment) -> Result<()> {
        let path = self.dir.join(files::ENVIRONMENT);
        let mut environment = environment.clone();
        if !self.finished.is_empty() && path.exists() {
            let earlier = read_environment(&path)?;
            for (what, there, here) in [
                ("data", &earlier.data_hash, &environment.data_hash),
                ("model", &earlier.model_hash, &environment.model_hash),
                ("reference", &earlier.reference_hash, &environment.reference_hash),
                ("device", &earlier.device, &environment.device),
            ] {
                if there != here {
                    let dir = self.dir.display();
                    return Err(anyhow!("{dir}: the {what} has changed since ({there} there, {here} here)"))
                        .hint("name another folder with --out, or give --force to delete what is there");
                }
            }
            environment.started = earlier.started;
        }
        let mut text = serde_json::to_string_pretty(&environment)?;
        text.push('\n');
        folder::replace(&path, text.as_bytes())
    }

    pub fn step(&mut self, row: &StepRow) -> Result<()> {
        self.steps.append(std::slice::from_ref(row))
    }

    pub fn scores(&mut self, rows: &[ScoreRow]) -> Result<()> {
        self.scores.append(rows)
    }

    pub fn examples(&mut self, rows: &[ExampleRow]) -> Result<()> {
        self.examples.append(rows)
    }

    pub fn samples(&mut self, rows: &[SampleRow]) -> Result<()> {
        self.samples.append(rows)
    }

    pub fn judgments(&mut self, rows: &[JudgmentRow]) -> Result<()> {
        self.judgments.append(rows)
    }

    /// Appends what a run of an external trainer cost.
    pub fn trainer(&mut self, row: &TrainerRow) -> Result<()> {
        row_file(&self.dir, files::TRAINERS).append(std::slice::from_ref(row))
    }

    /// Writes a run's row: its last, which makes it finished.
    pub fn run(&mut self, row: &RunRow) -> Result<()> {
        self.runs.append(std::slice::from_ref(row))
    }

    /// Puts all rows into the plan's order, whatever the order in which the runs ended.
    pub fn arrange(&mut self) -> Result<()> {
        let order = std::mem::take(&mut self.order);
        self.keep(|run| place(&order, run))?;
        self.order = order;
        Ok(())
    }

    fn drop_unfinished(&mut self) -> Result<()> {
        let rows: Vec<RunRow> = self.runs.read()?;
        let ended =
            rows.into_iter().filter(|r| r.status != Status::Failed && self.order.contains_key(&r.run));
        self.finished = ended.map(|r| (r.run.clone(), r)).collect();
        let (finished, order) = (self.finished.clone(), self.order.clone());
        self.keep(|run| {
            let kept = finished.contains_key(run) || (belongs_to_base(run) && !finished.is_empty());
            place(&order, run).filter(|_| kept)
        })
    }

    fn keep(&mut self, rank: impl Fn(&str) -> Option<usize>) -> Result<()> {
        for file in [
            &mut self.runs,
            &mut self.steps,
            &mut self.scores,
            &mut self.examples,
            &mut self.samples,
            &mut self.judgments,
        ] {
            file.arrange(&rank)?;
        }
        Ok(())
    }
}

/// The starting checkpoint's own rows, and the sentinels' that are scored beside it.
fn belongs_to_base(run: &str) -> bool {
    run == BASE_ARM || run.starts_with(SENTINEL)
}

fn place(order: &BTreeMap<String, usize>, run: &str) -> Option<usize> {
    order.get(if belongs_to_base(run) { BASE_ARM } else { run }).copied()
}

/// Writes `comparisons.csv` anew; the other records stay as they are.
pub fn replace_comparisons(dir: &Path, rows: &[ComparisonRow]) -> Result<()> {
    row_file(dir, files::COMPARISONS).write_all(rows)
}

/// Writes `winrates.csv` and `strengths.csv` anew, or takes them away where there is nothing to tell.
pub fn replace_contests(dir: &Path, rates: &[WinRateRow], strengths: &[StrengthRow]) -> Result<()> {
    row_file(dir, files::WINRATES).replace_or_remove(rates)?;
    row_file(dir, files::STRENGTHS).replace_or_remove(strengths)
}

pub(super) fn read_environment(path: &Path) -> Result<Environment> {
    let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    let environment: Environment = serde_json::from_str(&text).with_context(|| path.display().to_string())?;
    if environment.schema != SCHEMA_VERSION {
        let message = format!(
            "{}: schema version {}; this program reads version {SCHEMA_VERSION}",
            path.display(),
            environment.schema
        );
        return Err(anyhow!(message))
            .hint("use the kto-eval version that wrote the folder, or run the plan again");
    }
    Ok(environment)
}
