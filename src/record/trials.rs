//! `trials.csv`: what tuning tried, chose by and spent.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::folder::files;
use super::schema::{Direction, Status};
use super::table::row_file;
use crate::base::error::Result;

/// A row per arm and trial. Trial 0 is the arm as the plan has it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrialRow {
    pub arm: String,
    pub method: String,
    pub trial: u64,
    /// `beta=0.05 learning_rate=1e-4`; empty for trial 0.
    pub values: String,
    pub status: Status,
    pub note: String,
    /// Suite and metric on the validation split.
    pub suite: String,
    pub metric: String,
    pub direction: Direction,
    pub unit: String,
    /// NaN where the trial has none.
    pub value: f64,
    pub n: u64,
    pub standard_error: f64,
    pub steps: u64,
    pub examples: u64,
    pub labels: u64,
    pub policy_tokens: u64,
    pub kl_tokens: u64,
    pub reference_tokens: u64,
    pub flops: f64,
    pub train_seconds: f64,
    pub reference_seconds: f64,
    pub score_seconds: f64,
}

/// Appends to the file of a folder that a [`super::RecordWriter`] holds.
pub struct TrialWriter {
    dir: PathBuf,
}

impl TrialWriter {
    pub(super) fn of(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    /// The rows that are there.
    ///
    /// # Errors
    /// Rows that do not fit their columns, with path and line.
    pub fn read(&self) -> Result<Vec<TrialRow>> {
        read_trials(&self.dir)
    }

    /// Replaces the rows: those of an interrupted process that are of no use go.
    pub fn replace(&self, rows: &[TrialRow]) -> Result<()> {
        row_file(&self.dir, files::TRIALS).write_all(rows)
    }

    pub fn append(&self, row: &TrialRow) -> Result<()> {
        row_file(&self.dir, files::TRIALS).append(std::slice::from_ref(row))
    }
}

/// The trials of a record folder; none where nothing was tuned.
///
/// # Errors
/// Rows that do not fit their columns, with path and line.
pub fn read_trials(dir: &Path) -> Result<Vec<TrialRow>> {
    row_file(dir, files::TRIALS).read()
}
