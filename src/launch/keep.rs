//! Runs that survive: checkpoints beside the records, and the way back from them.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::observer::Observer;
use crate::base::atomic::remove_folder;
use crate::base::cache;
use crate::base::error::{Result, ensure};
use crate::plan::RunSpec;
use crate::record::{RecordWriter, StepRow, files};
use crate::train::{Checkpoints, Interval, NotKept, ReferenceCache, Saved};

/// The parts of a run that are saved apart. What SFT first ended with stays until the run ends: it is the
/// method's start and reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    SftFirst,
    /// The reward model of a run that samples.
    RewardModel,
    /// Begins when the stages before it have made this many steps.
    Method(u64),
}

impl Stage {
    fn folder(self, run: &Path) -> PathBuf {
        match self {
            Self::SftFirst => run.join("sft-first"),
            Self::RewardModel => run.join("reward-model"),
            Self::Method(_) => run.to_owned(),
        }
    }

    fn steps_before(self) -> u64 {
        match self {
            Self::SftFirst | Self::RewardModel => 0,
            Self::Method(steps) => steps,
        }
    }
}

/// What a run under way leaves behind, so that another process can go on with it.
pub(super) trait Keeper {
    /// The checkpoint to go on from; `fingerprint` is what one must carry to be this run's.
    fn resume(
        &mut self,
        _stage: Stage,
        _fingerprint: &str,
        _observer: &mut dyn Observer,
    ) -> Result<Option<Saved>> {
        Ok(None)
    }

    /// Where and how often a stage's checkpoints are written; `None`: not at all.
    fn checkpoints(&self, _stage: Stage) -> Option<Checkpoints> {
        None
    }

    /// A step's row.
    fn step(&mut self, row: &StepRow) -> Result<()>;
}

/// Keeps nothing but the rows.
pub(super) struct RowsOnly<'a>(pub &'a mut dyn FnMut(&StepRow) -> Result<()>);

impl Keeper for RowsOnly<'_> {
    fn step(&mut self, row: &StepRow) -> Result<()> {
        (self.0)(row)
    }
}

/// Keeps rows and checkpoints in a record folder.
pub(super) struct InFolder<'a> {
    writer: &'a mut RecordWriter,
    run: &'a str,
    folder: PathBuf,
    every: Option<Interval>,
}

impl<'a> InFolder<'a> {
    pub fn new(writer: &'a mut RecordWriter, run: &'a RunSpec, every: Option<Interval>) -> Self {
        let folder = folder(writer.dir(), &run.id);
        Self { writer, run: &run.id, folder, every }
    }
}

impl Keeper for InFolder<'_> {
    /// The newest checkpoint that is whole, that is this run's, and whose steps have their rows.
    fn resume(
        &mut self,
        stage: Stage,
        fingerprint: &str,
        observer: &mut dyn Observer,
    ) -> Result<Option<Saved>> {
        let folder = stage.folder(&self.folder);
        if !folder.exists() {
            return Ok(None);
        }
        let rows = self.writer.steps_begun(self.run);
        let usable = |saved: &Saved| -> Result<()> {
            ensure!(
                saved.fingerprint() == fingerprint,
                "it is of another run (other data, model or settings)"
            );
            let step = stage.steps_before() + saved.step();
            ensure!(step <= rows, "it stands at step {step}, and rows are there of {rows} steps");
            Ok(())
        };
        let (saved, notes) = Saved::latest_where(&folder, &usable);
        for note in notes {
            observer.note(&note);
        }
        if let Some(saved) = &saved {
            observer.note(&format!("goes on after step {}", stage.steps_before() + saved.step()));
        }
        Ok(saved)
    }

    fn checkpoints(&self, stage: Stage) -> Option<Checkpoints> {
        self.every.map(|every| Checkpoints { folder: stage.folder(&self.folder), every })
    }

    fn step(&mut self, row: &StepRow) -> Result<()> {
        self.writer.step(row)
    }
}

/// Removes what a run that has its row needs no longer.
pub(super) fn forget(out: &Path, run: &str) -> Result<()> {
    remove_folder(&folder(out, run))?;
    // The last run takes the folder of all along; another's checkpoints keep it.
    let _ = std::fs::remove_dir(out.join(files::CHECKPOINTS));
    Ok(())
}

fn folder(out: &Path, run: &str) -> PathBuf {
    out.join(files::CHECKPOINTS).join(run)
}

/// Whether the place where results or reference log-probs go has given out (a full disk, a folder that became
/// read-only): then no other run would fare better, and none is to blame.
pub(super) fn is_out_of_room(error: &anyhow::Error) -> bool {
    use ErrorKind::{FileTooLarge, QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    let kinds = [FileTooLarge, QuotaExceeded, ReadOnlyFilesystem, StorageFull];
    let full = |e: &std::io::Error| kinds.contains(&e.kind());
    error.downcast_ref::<NotKept>().is_some()
        || error.chain().any(|e| e.downcast_ref::<std::io::Error>().is_some_and(full))
}

/// Where reference log-probs are kept for later; nowhere, if the place cannot be written to (a read-only home, say).
pub(super) fn cache_folder(observer: &mut dyn Observer) -> Option<PathBuf> {
    let folder = ReferenceCache::user_folder()?;
    let Err(error) = cache::check(&folder) else { return Some(folder) };
    observer.note(&format!(
        "reference log-probs are not kept for the next time: {error:#}; {}",
        cache::ELSEWHERE
    ));
    None
}
