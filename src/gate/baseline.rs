//! Baselines: the part of a record folder that a gate needs, with a list of what it holds, fit for git.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::base::error::{Context, HintExt, Result, anyhow, bail, ensure};
use crate::base::hash::Hasher;
use crate::record::{Direction, Environment, Records, files};

/// The list that makes a folder a baseline.
pub const MANIFEST: &str = "baseline.json";
/// Where baselines are, unless another folder is named.
pub const FOLDER: &str = "baselines";
/// Version of the list.
const FORMAT: u32 = 1;
/// Steps kept of each run: trajectories are compared over their beginning.
const STEPS: u64 = 200;

/// What a saved baseline is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    pub format: u32,
    pub name: String,
    /// Seconds since 1970, UTC.
    pub saved: u64,
    pub plan: String,
    pub arms: Vec<String>,
    pub seeds: Vec<u64>,
    pub environment: Environment,
    /// File → SHA-256 of its content (domain-separated).
    pub files: BTreeMap<String, String>,
}

/// Saves the records in `from` as `folder/name`. Left out: samples, reports, steps after the 200th of a run,
/// and example rows of metrics that are never judged.
///
/// # Errors
/// Records that are incomplete, a name that is no folder name, a baseline of that name without `force`.
pub fn save(from: &Path, folder: &Path, name: &str, force: bool) -> Result<Manifest> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    ensure!(
        !name.is_empty() && !name.starts_with('.') && name.chars().all(plain),
        "`{name}` is no name for a baseline (letters, digits, `-`, `_` and `.`)"
    );
    let side = super::Side::read(from)?;
    let to = folder.join(name);
    if to.exists() && !force {
        return Err(anyhow!("{} is there already", to.display()))
            .hint("give another --name, or --force to replace it");
    }
    let aside = folder.join(format!(".{name}.part"));
    std::fs::remove_dir_all(&aside).ok();
    std::fs::create_dir_all(&aside).with_context(|| format!("creating {}", aside.display()))?;
    let kept = write_records(&side.records, from, &aside)?;
    let mut listed = BTreeMap::new();
    for file in kept {
        listed.insert(file.to_owned(), digest(&aside.join(file))?);
    }
    let plan = &side.records.plan;
    let manifest = Manifest {
        format: FORMAT,
        name: name.to_owned(),
        saved: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs()),
        plan: plan.name.clone(),
        arms: plan.arms.iter().map(|a| a.name.clone()).collect(),
        seeds: plan.seeds.clone(),
        environment: side.records.environment.clone(),
        files: listed,
    };
    let text = serde_json::to_string_pretty(&manifest)? + "\n";
    std::fs::write(aside.join(MANIFEST), text).with_context(|| format!("writing {}", aside.display()))?;
    if to.exists() {
        ensure!(to.join(MANIFEST).exists(), "{} is no baseline: it stays", to.display());
        std::fs::remove_dir_all(&to).with_context(|| format!("replacing {}", to.display()))?;
    }
    std::fs::rename(&aside, &to).with_context(|| format!("writing {}", to.display()))?;
    Ok(manifest)
}

fn write_records(records: &Records, from: &Path, to: &Path) -> Result<Vec<&'static str>> {
    for file in [files::PLAN, files::ENVIRONMENT] {
        std::fs::copy(from.join(file), to.join(file)).with_context(|| format!("copying {file}"))?;
    }
    let judged = |suite: &str, metric: &str| {
        let same = |s: &&crate::record::ScoreRow| s.suite == suite && s.metric == metric;
        records.scores.iter().find(same).is_some_and(|s| s.direction != Direction::Neutral)
    };
    let known: std::collections::BTreeSet<(&str, &str)> = records
        .scores
        .iter()
        .filter(|s| judged(&s.suite, &s.metric))
        .map(|s| (s.suite.as_str(), s.metric.as_str()))
        .collect();
    let arms: Vec<&str> = records.plan.arms.iter().map(|a| a.name.as_str()).collect();
    // Rows are written, not copied: they may be packed where they come from.
    write_csv(&to.join(files::RUNS), records.runs.iter())?;
    write_csv(&to.join(files::SCORES), records.scores.iter())?;
    write_csv(&to.join(files::STEPS), records.steps.iter().filter(|s| s.step <= STEPS))?;
    write_csv(
        &to.join(files::EXAMPLES),
        records.examples.iter().filter(|e| {
            arms.contains(&e.arm.as_str()) && known.contains(&(e.suite.as_str(), e.metric.as_str()))
        }),
    )?;
    Ok(vec![files::PLAN, files::ENVIRONMENT, files::RUNS, files::SCORES, files::STEPS, files::EXAMPLES])
}

fn write_csv<'r, R: Serialize + 'r>(path: &Path, rows: impl Iterator<Item = &'r R>) -> Result<()> {
    let mut writer = csv::Writer::from_path(path).with_context(|| format!("writing {}", path.display()))?;
    for row in rows {
        writer.serialize(row).with_context(|| format!("writing {}", path.display()))?;
    }
    writer.flush().with_context(|| format!("writing {}", path.display()))
}

fn digest(path: &Path) -> Result<String> {
    let bytes = std::fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    Ok(Hasher::new("kto-eval/baseline").part(&bytes).hex())
}

/// Checks a folder's files against its list; a folder without a list is no baseline and has nothing to check.
///
/// # Errors
/// A list of another format, and files that are missing or were changed since they were saved.
pub fn verify(dir: &Path) -> Result<()> {
    if !dir.join(MANIFEST).exists() {
        return Ok(());
    }
    let manifest = read(dir)?;
    for (file, hash) in &manifest.files {
        let path = dir.join(file);
        if !path.exists() {
            bail!("{}: {file} of baseline `{}` is missing", dir.display(), manifest.name);
        }
        if digest(&path)? != *hash {
            return Err(anyhow!(
                "{} was changed since baseline `{}` was saved",
                path.display(),
                manifest.name
            ))
            .hint(
                "restore it (git checkout), or save the baseline again; git must not rewrite line ends there",
            );
        }
    }
    Ok(())
}

/// The list of a baseline.
///
/// # Errors
/// No list, one that does not parse, one of another format.
pub fn read(dir: &Path) -> Result<Manifest> {
    let path = dir.join(MANIFEST);
    let text = std::fs::read_to_string(&path)
        .with_context(|| format!("reading {}", path.display()))
        .hint("`kto-eval baseline list` lists the baselines of a folder")?;
    let value: serde_json::Value = serde_json::from_str(&text).with_context(|| path.display().to_string())?;
    if value["format"] != FORMAT {
        return Err(anyhow!("{}: format {}; this program reads {FORMAT}", path.display(), value["format"]))
            .hint("save the baseline again with this version of kto-eval");
    }
    serde_json::from_value(value).with_context(|| path.display().to_string())
}

/// The folder of a baseline: as it is named, or, for a bare name that is no folder here, below [`FOLDER`].
pub fn locate(named: &Path) -> PathBuf {
    let below = Path::new(FOLDER).join(named);
    let bare = named.components().count() == 1 && !named.exists();
    if bare && below.join(MANIFEST).is_file() { below } else { named.to_owned() }
}

/// Baselines in a folder, by name.
///
/// # Errors
/// A folder that cannot be listed, a baseline whose list cannot be read.
pub fn list(folder: &Path) -> Result<Vec<(PathBuf, Manifest)>> {
    let entries = std::fs::read_dir(folder).with_context(|| format!("listing {}", folder.display()))?;
    let mut dirs: Vec<PathBuf> =
        entries.flatten().map(|e| e.path()).filter(|p| p.join(MANIFEST).exists()).collect();
    dirs.retain(|d| !d.file_name().is_some_and(|n| n.to_string_lossy().starts_with('.')));
    dirs.sort();
    dirs.into_iter().map(|dir| read(&dir).map(|m| (dir, m))).collect()
}
