//! The records of a plan's shards, put together as one machine would have written them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::environment::Environment;
use super::folder::files;
use super::hold::check_runs;
use super::schema::{RunRow, SENTINEL, Status};
use super::table::{Rank, RowOf, row_file};
use super::trials::{TrialRow, read_trials};
use super::usage::JudgeUsage;
use super::writer::{RecordWriter, read_environment};
use crate::base::atomic;
use crate::base::error::{Context, HintExt, Result, anyhow, ensure};
use crate::plan::{BASE_ARM, Overrides, Plan};

/// What putting shards together found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Gathered {
    /// Runs with a row: done, diverged or failed.
    pub runs: usize,
    /// Those of them that are not done.
    pub lost: usize,
    /// Runs of the plan that no folder has a row of.
    pub missing: Vec<String>,
    /// Folders differ in machine, threads or version: figures may differ in their last bits.
    pub notes: Vec<String>,
}

/// Files with rows of runs, but for `runs.csv`.
const ROWS: [&str; 8] = [
    files::STEPS,
    files::EXAMPLES,
    files::SAMPLES,
    files::JUDGMENTS,
    files::TRAINERS,
    files::ROLLOUTS,
    files::PHASES,
    // Last, as everywhere: a suite's scores say that its other rows are complete.
    files::SCORES,
];

/// Where each run's rows are taken from: the index of a folder.
struct Choice {
    runs: BTreeMap<String, usize>,
    /// The starting checkpoint's rows, by seed.
    base: BTreeMap<u64, usize>,
}

/// The order of the starting checkpoint's rows: one machine scores it suite by suite, and within it seed by seed.
pub(super) struct BaseOrder {
    seeds: BTreeMap<u64, usize>,
    suites: Vec<String>,
}

impl BaseOrder {
    /// `seeds` in the plan's order.
    pub fn new(seeds: &[u64]) -> Self {
        let seeds = seeds.iter().enumerate().map(|(i, &seed)| (seed, i)).collect();
        Self { seeds, suites: vec![] }
    }

    /// Before every run's.
    pub fn rank(&mut self, row: RowOf<'_>) -> Rank {
        let known = self.suites.iter().position(|suite| suite == row.suite);
        let suite = known.unwrap_or_else(|| {
            self.suites.push(row.suite.to_owned());
            self.suites.len() - 1
        });
        (0, suite, self.seeds.get(&row.seed).copied().unwrap_or(usize::MAX))
    }
}

impl RecordWriter {
    /// Replaces this folder's rows with those of `shards` (and its own), in the plan's order.
    ///
    /// A run that several folders hold is taken from the first where it ended well, else from the first.
    ///
    /// # Errors
    /// A folder of another plan or version, other data, another model or reference; rows that cannot be read.
    pub fn gather(&mut self, plan: &Plan, shards: &[PathBuf]) -> Result<Gathered> {
        for shard in shards {
            check_plan(shard, plan)?;
            check_runs(shard, plan)?;
        }
        let own = self.dir().to_owned();
        let folders: Vec<PathBuf> = std::iter::once(own.clone()).chain(shards.iter().cloned()).collect();
        let (environment, notes) = environments(&folders)?;
        let choice = choose(plan, &folders)?;
        for name in ROWS {
            self.gather_rows(name, plan, &folders, &choice)?;
        }
        gather_trials(plan, &folders)?;
        gather_usage(&own, shards)?;
        if let Some(environment) = environment {
            let text = serde_json::to_string_pretty(&environment)? + "\n";
            atomic::write_held(&own.join(files::ENVIRONMENT), text.as_bytes())?;
        }
        // Last: a gathering that was cut short before this leaves rows of unfinished runs, and the shards are read again.
        self.gather_rows(files::RUNS, plan, &folders, &choice)?;
        let rows: Vec<RunRow> = row_file(&own, files::RUNS).read()?;
        let lost = rows.iter().filter(|r| r.status != Status::Done).count();
        let ids: BTreeSet<String> = plan.runs().into_iter().map(|r| r.id).collect();
        let missing = ids.into_iter().filter(|id| !choice.runs.contains_key(id)).collect();
        Ok(Gathered { runs: rows.len(), lost, missing, notes })
    }

    fn gather_rows(&mut self, name: &str, plan: &Plan, folders: &[PathBuf], choice: &Choice) -> Result<()> {
        let order: BTreeMap<String, usize> =
            plan.runs().into_iter().enumerate().map(|(i, r)| (r.id, i + 1)).collect();
        let mut base = BaseOrder::new(&plan.seeds);
        let paths: Vec<PathBuf> = folders.iter().map(|f| f.join(name)).collect();
        self.replace_rows(name, &paths, &mut |folder, row| {
            if !belongs_to_base(row.run) {
                let place = *order.get(row.run)?;
                return (choice.runs.get(row.run) == Some(&folder)).then_some((place, 0, 0));
            }
            if choice.base.get(&row.seed) != Some(&folder) {
                return None;
            }
            Some(base.rank(row))
        })
    }
}

/// Every shard tunes the arms that it runs; equal trials have equal rows, and the first folder's are kept.
fn gather_trials(plan: &Plan, folders: &[PathBuf]) -> Result<()> {
    if plan.tune.is_none() {
        return Ok(());
    }
    let mut rows: Vec<TrialRow> = vec![];
    for row in folders.iter().map(|f| read_trials(f)).collect::<Result<Vec<_>>>()?.into_iter().flatten() {
        match rows.iter_mut().find(|r| r.arm == row.arm && r.trial == row.trial) {
            None => rows.push(row),
            Some(there) if there.status == Status::Failed => *there = row,
            Some(_) => {}
        }
    }
    let arm = |row: &TrialRow| plan.arms.iter().position(|a| a.name == row.arm).unwrap_or(usize::MAX);
    rows.sort_by_key(|row| (arm(row), row.trial));
    if rows.is_empty() { Ok(()) } else { row_file(&folders[0], files::TRIALS).write_all(&rows) }
}

/// What the shards' judges were asked, together. The folder itself asks nothing where there are shards, so that the
/// sum replaces what an earlier gathering wrote.
fn gather_usage(own: &Path, shards: &[PathBuf]) -> Result<()> {
    let used: Vec<JudgeUsage> = shards
        .iter()
        .map(|f| JudgeUsage::read(f))
        .collect::<Result<Vec<_>>>()?
        .into_iter()
        .flatten()
        .collect();
    let Some(sum) = used.into_iter().reduce(|a, b| a.plus(&b)) else { return Ok(()) };
    match JudgeUsage::read(own)? {
        Some(there) if there.matches >= sum.matches => Ok(()),
        _ => sum.write(own),
    }
}

pub(super) fn belongs_to_base(run: &str) -> bool {
    run == BASE_ARM || run.starts_with(SENTINEL)
}

/// Whose scores are judged: runs that ended well, the starting checkpoint and sentinels. One that failed while it was
/// scored, or is not at its end, has the rows of some suites alone. Without a row in `runs` (of another trainer) all are.
pub fn counted(runs: &[RunRow]) -> impl Fn(&str) -> bool + use<> {
    let done: BTreeSet<String> =
        runs.iter().filter(|r| r.status == Status::Done).map(|r| r.run.clone()).collect();
    let all = runs.is_empty();
    move |run| all || belongs_to_base(run) || done.contains(run)
}

/// The plan that a record folder belongs to.
///
/// # Errors
/// No `plan.toml`, or one that does not parse.
pub fn plan_of(dir: &Path) -> Result<Plan> {
    let path = dir.join(files::PLAN);
    let text = std::fs::read_to_string(&path)
        .with_context(|| format!("reading {}", path.display()))
        .hint("name a folder that `kto-eval compare` wrote (its --out)")?;
    Plan::parse(&text, &path.display().to_string(), &Overrides::default())
}

/// Ids of the runs that a folder holds and that need not be done again.
///
/// # Errors
/// Rows that cannot be read.
pub fn finished_runs(dir: &Path) -> Result<BTreeSet<String>> {
    runs_where(dir, |row| row.status != Status::Failed)
}

/// Ids of the runs that a folder has a row of, those that failed among them.
///
/// # Errors
/// Rows that cannot be read.
pub fn recorded_runs(dir: &Path) -> Result<BTreeSet<String>> {
    runs_where(dir, |_| true)
}

fn runs_where(dir: &Path, is_so: impl Fn(&RunRow) -> bool) -> Result<BTreeSet<String>> {
    let rows: Vec<RunRow> = row_file(dir, files::RUNS).read()?;
    Ok(rows.into_iter().filter(is_so).map(|r| r.run).collect())
}

fn check_plan(shard: &Path, plan: &Plan) -> Result<()> {
    let theirs = plan_of(shard)?;
    ensure!(
        theirs.hash() == plan.hash(),
        "{} holds results of another plan, plan `{}`; shards of one comparison have one plan",
        shard.display(),
        theirs.name
    );
    Ok(())
}

/// The environment to record, and what differs without harm.
fn environments(folders: &[PathBuf]) -> Result<(Option<Environment>, Vec<String>)> {
    let mut first: Option<(&Path, Environment)> = None;
    let mut notes = vec![];
    for folder in folders {
        let path = folder.join(files::ENVIRONMENT);
        if !path.exists() {
            continue;
        }
        let here = read_environment(&path)?;
        let Some((whose, there)) = &mut first else {
            first = Some((folder, here));
            continue;
        };
        for (what, a, b) in [
            ("data", &there.data_hash, &here.data_hash),
            ("model", &there.model_hash, &here.model_hash),
            ("reference", &there.reference_hash, &here.reference_hash),
        ] {
            if a != b {
                let (whose, folder) = (whose.display(), folder.display());
                let [a, b] = [a, b].map(|hash| hash.chars().take(12).collect::<String>());
                let message = format!("{whose} and {folder}: the {what} is not the same ({a} and {b})");
                return Err(anyhow!(message))
                    .hint("shards must see the same files; run the ones that differ again with --force");
            }
        }
        for (what, a, b) in [
            ("version", there.version.clone(), here.version.clone()),
            ("cpu", there.cpu.clone(), here.cpu.clone()),
            ("threads", there.threads.to_string(), here.threads.to_string()),
            ("device", there.device_class().to_owned(), here.device_class().to_owned()),
        ] {
            if a != b {
                notes.push(format!("{}: {what} {b}, elsewhere {a}: last bits may differ", folder.display()));
            }
        }
        if here.started < there.started {
            there.started = here.started;
        }
    }
    Ok((first.map(|(_, environment)| environment), notes))
}

fn choose(plan: &Plan, folders: &[PathBuf]) -> Result<Choice> {
    let known: Vec<String> = plan.runs().into_iter().map(|r| r.id).collect();
    let mut choice = Choice { runs: BTreeMap::new(), base: BTreeMap::new() };
    let mut well: BTreeMap<String, bool> = BTreeMap::new();
    for (index, folder) in folders.iter().enumerate() {
        let rows: Vec<RunRow> = row_file(folder, files::RUNS).read()?;
        for row in rows.into_iter().filter(|r| known.contains(&r.run)) {
            let ended = row.status != Status::Failed;
            if well.get(&row.run).is_none_or(|before| !before && ended) {
                choice.runs.insert(row.run.clone(), index);
                // The starting checkpoint was scored before the run began: its rows under that seed are whole.
                choice.base.entry(row.seed).or_insert(index);
                well.insert(row.run, ended);
            }
        }
    }
    Ok(choice)
}
