//! A plan's runs as items of work for other processes: each does a shard, and the records are gathered.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use candle_core::Device;

use super::compare::Finished;
use super::observer::Observer;
use super::prepare::{measures_something, ready};
use crate::base::error::{Context, HintExt, Result};
use crate::plan::{Dtype, Plan, Shard};
use crate::record::{Gathered, RecordHold, RecordWriter, files, finished_runs, recorded_runs};

/// How items are run; results depend on the number of threads alone.
#[derive(Clone, Debug)]
pub struct Items {
    /// This program.
    pub program: PathBuf,
    /// Items side by side.
    pub jobs: usize,
    /// Threads of each.
    pub threads: usize,
    /// As `--device` takes it.
    pub device: String,
    /// As `--checkpoint-every` takes it.
    pub checkpoint_every: String,
}

/// Whether the records that are there go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Force {
    No,
    /// Once it is known that others can be made.
    Checked,
    /// Unread: this machine may not see what the plan names.
    Blind,
}

/// An output folder with the shards of its plan, held for this process.
pub(super) struct Board<'a> {
    plan: &'a Plan,
    pub out: PathBuf,
    writer: RecordWriter,
}

impl<'a> Board<'a> {
    /// Takes the folder, gathers what earlier shards left, and writes the plan that the items read.
    ///
    /// With [`Force::Checked`], and where there is something to delete, all that the plan names is read here first, as
    /// each item will read it.
    ///
    /// # Errors
    /// See [`RecordHold::take`]; input that cannot be used, where it is read here.
    pub fn open(plan: &'a Plan, out: &Path, force: Force, observer: &mut dyn Observer) -> Result<Self> {
        measures_something(plan)?;
        let folder = RecordHold::take(out, plan, force != Force::No)?;
        if force == Force::Checked && folder.holds_records() {
            // The items compute, perhaps on cards that are not here: what is read is the same in f32 on the CPU.
            let mut here = plan.clone();
            here.model.dtype = Dtype::F32;
            ready(&here, Device::Cpu, observer)
                .hint(format!("the records in {} stay as they are", out.display()))?;
        }
        let mut board = Self { plan, out: absolute(out)?, writer: folder.open()? };
        board.gather(observer)?;
        let path = board.plan_file();
        let write = || -> Result<()> {
            std::fs::create_dir_all(board.out.join(files::SHARDS))?;
            Ok(std::fs::write(&path, plan.to_toml())?)
        };
        write().with_context(|| format!("writing {}", path.display()))?;
        Ok(board)
    }

    fn plan_file(&self) -> PathBuf {
        self.out.join(files::SHARDS).join(files::PLAN)
    }

    pub fn log(&self, shard: Shard) -> PathBuf {
        self.out.join(files::SHARDS).join(shard.folder() + ".log")
    }

    /// Puts all shards' rows into the folder.
    pub fn gather(&mut self, observer: &mut dyn Observer) -> Result<Gathered> {
        let gathered = self.writer.gather(self.plan, &shard_folders(&self.out)?)?;
        for note in &gathered.notes {
            observer.note(note);
        }
        Ok(gathered)
    }

    /// Has runs that failed done again: what an earlier command left of them says nothing of this one. No shard may be
    /// under way.
    pub fn forget_failed(&mut self) -> Result<()> {
        for folder in shard_folders(&self.out)? {
            RecordWriter::open(&folder, self.plan, false)?;
        }
        self.writer.forget_failed()
    }

    /// Whether every run of the shard is done or diverged, in the folder or in the shard's own.
    pub fn is_finished(&self, shard: Shard) -> Result<bool> {
        self.holds(shard, finished_runs)
    }

    /// As [`Self::is_finished`], where runs that failed in the shard's own folder, under this command, are no longer waited
    /// for.
    pub fn has_rows(&self, shard: Shard) -> Result<bool> {
        self.holds(shard, recorded_runs)
    }

    fn holds(&self, shard: Shard, own: fn(&Path) -> Result<BTreeSet<String>>) -> Result<bool> {
        let folder = self.out.join(files::SHARDS).join(shard.folder());
        let (here, there) = (finished_runs(&self.out)?, own(&folder)?);
        let ours = self.plan.runs().into_iter().enumerate().filter(|(place, _)| shard.takes(*place));
        Ok(ours.into_iter().all(|(_, run)| here.contains(&run.id) || there.contains(&run.id)))
    }

    /// Runs with a row so far, wherever it is.
    pub fn count(&self) -> usize {
        let folders = shard_folders(&self.out).unwrap_or_default().into_iter().chain([self.out.clone()]);
        let runs = folders.filter_map(|f| finished_runs(&f).ok()).flatten();
        runs.collect::<BTreeSet<_>>().len()
    }

    /// What an item is called with, the program first.
    pub fn command(&self, items: &Items, shard: &str) -> Vec<OsString> {
        let threads = items.threads.to_string();
        let mut command: Vec<OsString> = vec![items.program.clone().into(), "compare".into()];
        command.push(self.plan_file().into());
        command.extend(["--out".into(), self.out.clone().into(), "--shard".into(), shard.into()]);
        command.push("--leave-failed".into());
        let rest = ["--threads", &threads, "--device", &items.device];
        command.extend(rest.iter().map(OsString::from));
        command.extend(["--checkpoint-every", &items.checkpoint_every].map(OsString::from));
        command
    }

    /// The end: all rows in the folder, and no shard left where every run ended well.
    pub fn close(mut self, aborted: bool, observer: &mut dyn Observer) -> Result<(Finished, Gathered)> {
        let gathered = self.gather(observer)?;
        let finished = Finished { done: gathered.runs - gathered.lost, lost: gathered.lost, aborted };
        let all = gathered.missing.is_empty() && self.plan.runs().iter().all(|r| self.ended_well(&r.id));
        if all && !aborted {
            let shards = self.out.join(files::SHARDS);
            std::fs::remove_dir_all(&shards).with_context(|| format!("removing {}", shards.display()))?;
        }
        Ok((finished, gathered))
    }

    fn ended_well(&self, run: &str) -> bool {
        finished_runs(&self.out).is_ok_and(|runs| runs.contains(run))
    }
}

/// Record folders of the shards in `out`, in order of name.
///
/// # Errors
/// The folder cannot be read.
pub fn shard_folders(out: &Path) -> Result<Vec<PathBuf>> {
    let dir = out.join(files::SHARDS);
    let entries = match std::fs::read_dir(&dir) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(vec![]),
        entries => entries.with_context(|| format!("reading {}", dir.display()))?,
    };
    let mut folders: Vec<PathBuf> = entries.flatten().map(|e| e.path()).collect();
    // A shard that has only begun has no plan yet.
    folders.retain(|path| path.join(files::PLAN).is_file());
    folders.sort();
    Ok(folders)
}

/// Merges the records of shards into `out`.
///
/// # Errors
/// See [`RecordWriter::gather`].
pub fn gather(plan: &Plan, out: &Path, shards: &[PathBuf]) -> Result<Gathered> {
    RecordWriter::open(out, plan, false)?.gather(plan, shards)
}

/// Where items of an earlier division, or another shard's folder, have done a run, it is not done again.
pub(super) fn done_elsewhere(out: &Path, shard: Option<Shard>) -> Result<BTreeSet<String>> {
    // <out>/shards/<i>-of-<n>
    match shard.and_then(|_| out.parent()?.parent()) {
        Some(whole) => finished_runs(whole),
        None => Ok(Default::default()),
    }
}

fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).with_context(|| path.display().to_string())
}

/// The end of a log, for an error.
pub(super) fn last_words(log: &Path) -> String {
    let text = std::fs::read(log).map(|b| String::from_utf8_lossy(&b).into_owned()).unwrap_or_default();
    let said: Vec<&str> = text.lines().filter(|l| !l.trim().is_empty()).collect();
    let error = said.iter().rposition(|l| l.starts_with("error:"));
    let from = error.unwrap_or(said.len().saturating_sub(3));
    said[from..].join("; ")
}
