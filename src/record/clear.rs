//! What `--force` deletes: what a comparison wrote, and nothing that somebody else keeps in the folder.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::folder::{files, holds};
use super::table::packed;
use crate::base::atomic::{remove, remove_folder};
use crate::base::error::{HintExt, Result, anyhow};
use crate::plan::Shard;

/// The report's files, its charts excepted.
const REPORT: [&str; 6] = [
    "report.md",
    "report.html",
    "tables/comparisons.tex",
    "tables/verdicts.tex",
    "tables/arms.csv",
    // The last: it says which charts are the report's.
    "report.json",
];
/// What a launcher keeps beside the shards' folders.
const LAUNCHED: [&str; 3] = [files::PLAN, "slurm.json", "job.sh"];

/// # Errors
/// Files with the names of records, and no plan: no comparison wrote them, and none deletes them.
pub(super) fn check_ours(dir: &Path) -> Result<()> {
    if dir.join(files::PLAN).exists() {
        return Ok(());
    }
    match files::ALL.iter().find(|file| holds(dir, file)) {
        Some(file) => {
            Err(anyhow!("{} holds {file} but no {}: no comparison wrote it", dir.display(), files::PLAN))
                .hint("name another folder with --out; --force deletes only what a comparison wrote")
        }
        None => Ok(()),
    }
}

/// Deletes the records, the report and its charts, checkpoints and shards. Without a plan in it the folder is no
/// comparison's, and only shards go, each of which has its own.
pub(super) fn clear(dir: &Path) -> Result<()> {
    let ours = dir.join(files::PLAN).exists();
    clear_shards(&dir.join(files::SHARDS), ours)?;
    if !ours {
        return Ok(());
    }
    clear_checkpoints(&dir.join(files::CHECKPOINTS))?;
    clear_report(dir)?;
    // The plan last: a process that is killed before leaves a folder that is a comparison's still.
    for file in files::ALL.iter().rev() {
        remove(&dir.join(file))?;
        remove(&packed(&dir.join(file)))?;
    }
    Ok(())
}

fn clear_shards(shards: &Path, launched: bool) -> Result<()> {
    let is_shard =
        |name: &str| name.replacen("-of-", "/", 1).parse::<Shard>().is_ok_and(|shard| shard.folder() == name);
    for (name, path) in entries(shards) {
        let begun = || [files::PLAN, files::LOCK].iter().any(|file| path.join(file).is_file());
        if is_shard(&name) && begun() {
            remove_folder(&path)?;
        } else if launched
            && (LAUNCHED.contains(&name.as_str()) || name.strip_suffix(".log").is_some_and(is_shard))
        {
            remove(&path)?;
        }
    }
    leave(shards);
    Ok(())
}

fn clear_checkpoints(checkpoints: &Path) -> Result<()> {
    // `kto-s1-c937db`
    let is_run = |name: &str| {
        let (rest, hash) = name.rsplit_once('-')?;
        let (_, seed) = rest.rsplit_once("-s")?;
        let hex = hash.len() == 6 && hash.bytes().all(|b| b.is_ascii_hexdigit());
        Some(hex && seed.parse::<u64>().is_ok())
    };
    for (name, path) in entries(checkpoints) {
        if is_run(&name) == Some(true) {
            remove_folder(&path)?;
        }
    }
    leave(checkpoints);
    Ok(())
}

fn clear_report(dir: &Path) -> Result<()> {
    charts_of(dir).iter().try_for_each(|chart| remove(chart))?;
    let reported = dir.join("report.json").exists();
    for file in REPORT.iter().filter(|file| reported || !file.starts_with("tables/")) {
        remove(&dir.join(file))?;
    }
    ["charts", "tables"].iter().for_each(|folder| leave(&dir.join(folder)));
    Ok(())
}

/// Charts, as SVG and as PNG, that the `report.json` in `dir` names. What else lies among the charts is somebody's own.
pub fn charts_of(dir: &Path) -> Vec<PathBuf> {
    let text = fs::read_to_string(dir.join("report.json")).unwrap_or_default();
    let figures: Value = serde_json::from_str(&text).unwrap_or_default();
    let charts = figures["charts"].as_array().into_iter().flatten();
    let plain = |name: &&str| !name.contains(['/', '\\']);
    let names = charts.filter_map(|chart| chart["name"].as_str()).filter(plain);
    names.flat_map(|name| ["png", "svg"].map(|form| dir.join(format!("charts/{name}.{form}")))).collect()
}

/// Names and paths in a folder; none where it is a link, which leads to somebody else's.
fn entries(folder: &Path) -> Vec<(String, PathBuf)> {
    if fs::symlink_metadata(folder).is_ok_and(|m| m.is_symlink()) {
        return vec![];
    }
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|e| (e.file_name().to_string_lossy().into_owned(), e.path())).collect()
}

/// Deletes a folder with nothing in it.
fn leave(folder: &Path) {
    let _ = fs::remove_dir(folder);
}
