//! Writes a record folder, row by row, and goes on with one that was left unfinished.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};

use super::environment::Environment;
use super::folder::files;
use super::gather::{BaseOrder, belongs_to_base};
use super::hold::RecordHold;
use super::schema::*;
use super::table::{Rank, RowFile, RowOf, merge, packed, row_file};
use super::trials::TrialWriter;
use crate::base::atomic;
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
    rollouts: RowFile,
    phases: RowFile,
    trainers: RowFile,
    /// Run → its row, for runs that need not be done again.
    finished: BTreeMap<String, RunRow>,
    /// Run → how many of its first steps have their rows, for runs that an earlier process left unfinished.
    begun: BTreeMap<String, u64>,
    /// The suites that the starting checkpoint has been scored on, with the seed.
    base: BTreeSet<(u64, String)>,
    /// Run → its place in the plan; the starting checkpoint stands first.
    order: BTreeMap<String, usize>,
    /// Seeds in the plan's order.
    seeds: Vec<u64>,
    /// Released when the writer is dropped or the process ends.
    _lock: File,
}

impl RecordWriter {
    /// Opens the folder for this plan: creates it, or goes on with what is there.
    ///
    /// # Errors
    /// See [`RecordHold::take`] and [`RecordHold::open`].
    pub fn open(dir: &Path, plan: &Plan, force: bool) -> Result<Self> {
        RecordHold::take(dir, plan, force)?.open()
    }

    pub(super) fn begin(dir: &Path, plan: &Plan, leave_failed: bool, lock: File) -> Result<Self> {
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
            rollouts: file(files::ROLLOUTS),
            phases: file(files::PHASES),
            trainers: file(files::TRAINERS),
            finished: BTreeMap::new(),
            begun: BTreeMap::new(),
            base: BTreeSet::new(),
            order,
            seeds: plan.seeds.clone(),
            _lock: lock,
        };
        writer.drop_unfinished(leave_failed)?;
        Ok(writer)
    }

    /// Drops the rows of runs that failed, so that they are done again.
    ///
    /// # Errors
    /// Rows that cannot be read or written.
    pub fn forget_failed(&mut self) -> Result<()> {
        self.drop_unfinished(false)
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The row of a run that an earlier process has finished (done, or diverged: it would diverge again; or failed, where
    /// failed ones are left).
    pub fn finished(&self, run: &str) -> Option<&RunRow> {
        self.finished.get(run)
    }

    /// Whether its rows on this suite, under this seed, are on disk from an earlier process.
    pub fn has_base_of(&self, seed: u64, suite: &str) -> bool {
        self.base.contains(&(seed, suite.to_owned()))
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
                ("data", earlier.data_hash.as_str(), environment.data_hash.as_str()),
                ("model", &earlier.model_hash, &environment.model_hash),
                ("reference", &earlier.reference_hash, &environment.reference_hash),
                ("device", earlier.device_class(), environment.device_class()),
            ] {
                if there != here {
                    let short = |hash: &str| hash.chars().take(12).collect::<String>();
                    let (there, here) = match what {
                        "device" => (there.to_owned(), here.to_owned()),
                        _ => (short(there), short(here)),
                    };
                    let dir = self.dir.display();
                    return Err(anyhow!("{dir}: the {what} has changed since ({there} there, {here} here)"))
                        .hint("name another folder with --out, or give --force to delete what is there");
                }
            }
            environment.started = earlier.started;
        }
        let mut text = serde_json::to_string_pretty(&environment)?;
        text.push('\n');
        atomic::write_held(&path, text.as_bytes())
    }

    /// How many of the run's first steps an earlier process has left rows of.
    pub fn steps_begun(&self, run: &str) -> u64 {
        self.begun.get(run).copied().unwrap_or(0)
    }

    /// Writes a step's row; rows of this step and of later ones that an earlier process left are dropped.
    pub fn step(&mut self, row: &StepRow) -> Result<()> {
        if self.begun.remove(&row.run).is_some() {
            self.steps.cut(&row.run, row.step)?;
        }
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

    /// `trials.csv` of this folder.
    pub fn trials(&self) -> TrialWriter {
        TrialWriter::of(&self.dir)
    }

    pub fn rollouts(&mut self, rows: &[RolloutRow]) -> Result<()> {
        self.rollouts.append(rows)
    }

    pub fn phases(&mut self, rows: &[PhaseRow]) -> Result<()> {
        self.phases.append(rows)
    }

    pub fn judgments(&mut self, rows: &[JudgmentRow]) -> Result<()> {
        self.judgments.append(rows)
    }

    /// Appends what a run of an external trainer cost.
    pub fn trainer(&mut self, row: &TrainerRow) -> Result<()> {
        self.trainers.append(std::slice::from_ref(row))
    }

    /// Writes a run's row: its last, which makes it finished. All its rows are on the disk when this returns.
    pub fn run(&mut self, row: &RunRow) -> Result<()> {
        if self.begun.remove(&row.run).is_some() {
            self.steps.cut(&row.run, row.steps + 1)?;
        }
        for file in self.files().into_iter().skip(1) {
            file.sync()?;
        }
        self.runs.append(&[RunRow { note: printable(&row.note), ..row.clone() }])?;
        self.runs.sync()
    }

    /// Every file with rows of runs, `runs.csv` first.
    fn files(&mut self) -> [&mut RowFile; 9] {
        let Self { runs, steps, scores, examples, samples, judgments, rollouts, phases, trainers, .. } = self;
        [runs, steps, scores, examples, samples, judgments, rollouts, phases, trainers]
    }

    /// Puts all rows into the plan's order, whatever the order in which the runs ended.
    pub fn arrange(&mut self) -> Result<()> {
        let (order, seeds) = (self.order.clone(), self.seeds.clone());
        self.files().into_iter().try_for_each(|file| keep(file, &order, &seeds, &mut |_| true))
    }

    /// Replaces a file's rows by those of `paths` that `rank` gives a place, in order of it.
    pub(super) fn replace_rows(
        &mut self,
        name: &str,
        paths: &[PathBuf],
        rank: &mut dyn FnMut(usize, RowOf<'_>) -> Option<Rank>,
    ) -> Result<()> {
        // The next row opens its file again: nothing is appended to a file that has been replaced.
        self.files().into_iter().for_each(RowFile::close);
        merge(&self.dir.join(name), paths, rank)
    }

    fn drop_unfinished(&mut self, leave_failed: bool) -> Result<()> {
        let rows: Vec<RunRow> = self.runs.read()?;
        let ended = rows.into_iter().filter(|r| leave_failed || r.status != Status::Failed);
        self.finished = ended.map(|r| (r.run.clone(), r)).collect();
        let (finished, order, seeds) = (self.finished.clone(), self.order.clone(), self.seeds.clone());
        // Steps from the first on that have a row, for each run that is not finished.
        let mut begun: BTreeMap<String, u64> = BTreeMap::new();
        keep(&mut self.steps, &order, &seeds, &mut |row| {
            if !finished.contains_key(row.run) {
                let steps = begun.entry(row.run.to_owned()).or_default();
                *steps += u64::from(row.step == *steps + 1);
            }
            true
        })?;
        self.begun = begun;
        if !finished.is_empty() {
            // A suite's scores are the last of its rows: where they are missing, the others may be torn.
            let scores = self.scores.read::<ScoreRow>()?.into_iter().filter(|s| s.run == BASE_ARM);
            self.base = scores.map(|s| (s.seed, s.suite)).collect();
        }
        let base = self.base.clone();
        let mut wanted = |row: &RowOf<'_>| match belongs_to_base(row.run) {
            true => base.contains(&(row.seed, row.suite.to_owned())),
            false => finished.contains_key(row.run),
        };
        let [runs, _, others @ ..] = self.files();
        std::iter::once(runs).chain(others).try_for_each(|file| keep(file, &order, &seeds, &mut wanted))
    }
}

/// What a trainer printed last may hold anything; a report shows it.
fn printable(text: &str) -> String {
    text.replace(|c: char| c.is_control() && c != '\n', " ")
}

/// Keeps the rows that are wanted, in the plan's order: the starting checkpoint's, then those of the plan's runs.
fn keep(
    file: &mut RowFile,
    order: &BTreeMap<String, usize>,
    seeds: &[u64],
    wanted: &mut dyn FnMut(&RowOf<'_>) -> bool,
) -> Result<()> {
    let mut base = BaseOrder::new(seeds);
    file.arrange(&mut |row| match belongs_to_base(row.run) {
        _ if !wanted(&row) => None,
        true => Some(base.rank(row)),
        false => Some((*order.get(row.run)?, 0, 0)),
    })
}

/// Writes `comparisons.csv` anew; the other records stay as they are.
pub fn replace_comparisons(dir: &Path, rows: &[ComparisonRow]) -> Result<()> {
    row_file(dir, files::COMPARISONS).write_all(rows)
}

/// Writes `winrates.csv` and `strengths.csv` anew, or takes them away where there is nothing to tell. A folder that
/// was passed on without its `judgments.jsonl` keeps them: nothing here could make them again.
pub fn replace_contests(dir: &Path, rates: &[WinRateRow], strengths: &[StrengthRow]) -> Result<()> {
    let judgments = dir.join(files::JUDGMENTS);
    if !judgments.exists() && !packed(&judgments).exists() {
        return Ok(());
    }
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
