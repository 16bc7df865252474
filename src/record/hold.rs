//! A record folder taken, and what is in it held against the plan, before anything in it is touched.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};

use super::clear;
use super::folder::{self, files};
use super::schema::{RunRow, StepRow};
use super::table::row_file;
use super::writer::RecordWriter;
use crate::base::atomic;
use crate::base::error::{HintExt, Result, anyhow};
use crate::plan::Plan;

/// An output folder, held for this process, with its rows as they were found.
pub struct RecordHold<'p> {
    dir: PathBuf,
    plan: &'p Plan,
    force: bool,
    leave_failed: bool,
    lock: File,
}

impl<'p> RecordHold<'p> {
    /// Takes the folder for this plan, and creates it where it is not there. With `force` it may hold any comparison.
    ///
    /// # Errors
    /// A folder that cannot be written to, that another process holds, or that holds rows without a plan, results of
    /// another plan or of another version of this program.
    pub fn take(dir: &Path, plan: &'p Plan, force: bool) -> Result<Self> {
        folder::create(dir)?;
        let first = !dir.join(files::LOCK).exists();
        let lock = folder::lock(dir)?;
        if force {
            clear::check_ours(dir)?;
        } else {
            folder::check_plan(dir, plan)?;
            check_runs(dir, plan)?;
            if first {
                // From here on a row without a line end is half of one.
                files::ALL.iter().filter(|f| is_rows(f)).try_for_each(|f| row_file(dir, f).end_line())?;
            }
        }
        Ok(Self { dir: dir.to_owned(), plan, force, leave_failed: false, lock })
    }

    /// Whether [`RecordHold::open`] with `force` would delete something.
    pub fn holds_records(&self) -> bool {
        files::ALL.iter().any(|file| folder::holds(&self.dir, file))
    }

    /// Whether runs that failed keep their rows, and are not done again.
    #[must_use]
    pub fn leave_failed(self, leave_failed: bool) -> Self {
        Self { leave_failed, ..self }
    }

    /// Goes on with what is there: rows of unfinished and of failed runs are dropped, but for their steps, which a
    /// checkpoint may go on from; with `force`, so is everything of an earlier comparison.
    ///
    /// # Errors
    /// Rows that cannot be read, a folder that cannot be written to.
    pub fn open(self) -> Result<RecordWriter> {
        if self.force {
            clear::clear(&self.dir)?;
        }
        atomic::write_held(&self.dir.join(files::PLAN), self.plan.to_toml().as_bytes())?;
        RecordWriter::begin(&self.dir, self.plan, self.leave_failed, self.lock)
    }
}

fn is_rows(file: &str) -> bool {
    file.ends_with(".csv") || file.ends_with(".jsonl")
}

/// # Errors
/// Rows of runs that the plan does not have: of a version of this program that gave its runs other ids.
pub(super) fn check_runs(dir: &Path, plan: &Plan) -> Result<()> {
    let ids: BTreeSet<String> = plan.runs().into_iter().map(|r| r.id).collect();
    let runs = row_file(dir, files::RUNS).read::<RunRow>()?.into_iter().map(|r| r.run);
    let steps = row_file(dir, files::STEPS).read::<StepRow>()?.into_iter().map(|r| r.run);
    match runs.chain(steps).find(|run| !ids.contains(run)) {
        None => Ok(()),
        Some(run) => {
            let dir = dir.display();
            Err(anyhow!("{dir} holds runs of another version of kto-eval, `{run}` the first of them"))
                .hint("`kto-eval report` reads them as they are; to run the plan anew, name another folder with --out, or give --force to delete what is there")
        }
    }
}
