//! The output folder: whose it is, and that one process at a time writes there.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::path::Path;

use super::clear::check_ours;
use super::table::packed;
use crate::base::error::{Context, HintExt, Result, anyhow};
use crate::plan::{Overrides, Plan};

/// Names of the files in a record folder.
pub mod files {
    pub const PLAN: &str = "plan.toml";
    pub const ENVIRONMENT: &str = "environment.json";
    pub const RUNS: &str = "runs.csv";
    pub const STEPS: &str = "steps.csv";
    pub const SCORES: &str = "scores.csv";
    pub const EXAMPLES: &str = "examples.csv";
    pub const SAMPLES: &str = "samples.jsonl";
    pub const COMPARISONS: &str = "comparisons.csv";
    pub const TRIALS: &str = "trials.csv";
    pub const JUDGMENTS: &str = "judgments.jsonl";
    pub const JUDGE: &str = "judge.json";
    pub const WINRATES: &str = "winrates.csv";
    pub const STRENGTHS: &str = "strengths.csv";
    pub const TRAINERS: &str = "trainers.csv";
    pub const ROLLOUTS: &str = "rollouts.csv";
    pub const PHASES: &str = "phases.csv";
    pub const LOCK: &str = ".lock";
    /// A record folder a shard: see `plan::Shard`.
    pub const SHARDS: &str = "shards";
    /// A folder a run that is under way: see `train::Checkpoints`.
    pub const CHECKPOINTS: &str = ".checkpoints";

    /// The records, which `--force` deletes: see `clear`. The plan first.
    pub const ALL: &[&str] = &[
        PLAN,
        ENVIRONMENT,
        RUNS,
        STEPS,
        SCORES,
        EXAMPLES,
        SAMPLES,
        COMPARISONS,
        TRIALS,
        JUDGMENTS,
        JUDGE,
        WINRATES,
        STRENGTHS,
        TRAINERS,
        ROLLOUTS,
        PHASES,
    ];
}

/// Creates the folder where it is not there.
pub(super) fn create(dir: &Path) -> Result<()> {
    fs::create_dir_all(dir)
        .with_context(|| format!("creating the output folder {}", dir.display()))
        .hint("name a folder that you may write to with --out")
}

/// Takes the folder for this process; the lock ends with the process, however that ends.
///
/// # Errors
/// Where another process holds it, or the folder cannot be written to.
pub(super) fn lock(dir: &Path) -> Result<File> {
    let path = dir.join(files::LOCK);
    let mut file = OpenOptions::new()
        .create(true)
        .read(true)
        .write(true)
        .truncate(false)
        .open(&path)
        .with_context(|| format!("writing to the output folder {}", dir.display()))
        .hint("name a folder that you may write to with --out")?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            let _ = file.read_to_string(&mut holder);
            return Err(anyhow!("{}: another process ({}) writes here", dir.display(), holder.trim()))
                .hint("wait for it to end, or name another folder with --out");
        }
        // Some network file systems have no locks: go on without.
        Err(TryLockError::Error(e)) if e.kind() == std::io::ErrorKind::Unsupported => {}
        Err(TryLockError::Error(e)) => return Err(e).with_context(|| format!("locking {}", path.display())),
    }
    file.set_len(0)?;
    writeln!(file, "pid {}", std::process::id())?;
    Ok(file)
}

/// Whether the folder has a record file, plain or packed.
pub(super) fn holds(dir: &Path, file: &str) -> bool {
    dir.join(file).exists() || packed(&dir.join(file)).exists()
}

/// Holds the folder's plan against this one, which may have more seeds after those.
///
/// # Errors
/// Where the folder has another plan's results; the message names it and the first line that differs.
pub(super) fn check_plan(dir: &Path, plan: &Plan) -> Result<()> {
    check_ours(dir)?;
    let path = dir.join(files::PLAN);
    let remedy = "name another folder with --out, or give --force to delete what is there";
    // A plan without rows was left by a command that failed before it made any.
    let rows = [files::RUNS, files::STEPS, files::SCORES, files::EXAMPLES, files::SAMPLES, files::TRIALS];
    if !path.exists() || !rows.iter().any(|f| holds(dir, f)) {
        return Ok(());
    }
    let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let there = Plan::parse(&text, &path.display().to_string(), &Overrides::default()).hint(remedy)?;
    // No run knows of the other seeds: with more of them the comparison goes on.
    let with_seeds = Plan { seeds: plan.seeds.clone(), ..there.clone() };
    let more_seeds = with_seeds.hash() == plan.hash();
    if more_seeds && plan.seeds.starts_with(&there.seeds) {
        return Ok(());
    }
    let silent = |p: &Plan| p.silent().to_toml();
    let (a, b) = (silent(&there), silent(plan));
    let differing = a.lines().zip(b.lines()).find(|(x, y)| x != y);
    let first =
        differing.map_or_else(String::new, |(x, y)| format!("; first difference: `{x}` there, `{y}` here"));
    let message =
        format!("{} already holds results of another plan, plan `{}`{first}", dir.display(), there.name);
    Err(anyhow!(message)).hint(match more_seeds {
        true => format!("a comparison goes on with more seeds after those that it has; else {remedy}"),
        false => remedy.to_owned(),
    })
}
