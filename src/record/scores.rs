//! A folder of scores without a comparison: what `kto-eval score --suite` leaves. The row files are those of a
//! comparison, with log-probs beside them.

use std::fs::File;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::folder::{self, files};
use super::schema::*;
use super::table::{RowFile, row_file};
use crate::base::atomic::remove;
use crate::base::error::{HintExt, Result, anyhow};

/// `logps.csv`: a row per completion of a preference suite.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LogpRow {
    pub run: String,
    pub suite: String,
    pub subset: String,
    pub example: String,
    /// `chosen` or `rejected`.
    pub side: String,
    pub completion_tokens: u64,
    /// Σ log π over the completion, EOS included, nats.
    pub logp: f64,
    pub reference_logp: Option<f64>,
    /// β log π/π_ref with β = 0.1.
    pub reward: Option<f64>,
}

/// The folder, held for this process.
pub struct ScoreFolder {
    dir: PathBuf,
    scores: RowFile,
    examples: RowFile,
    samples: RowFile,
    judgments: RowFile,
    logps: RowFile,
    _lock: File,
}

const LOGPS: &str = "logps.csv";

impl ScoreFolder {
    /// With `force`, what an earlier scoring left is deleted.
    ///
    /// # Errors
    /// A folder that cannot be written to, that another process holds, that holds a comparison or, without `force`,
    /// scores.
    pub fn open(dir: &Path, force: bool) -> Result<Self> {
        folder::create(dir)?;
        let lock = folder::lock(dir)?;
        if dir.join(files::PLAN).exists() {
            return Err(anyhow!("{} holds a comparison", dir.display()))
                .hint("name another folder with --out");
        }
        for file in [files::SCORES, files::EXAMPLES, files::SAMPLES, files::JUDGMENTS, files::JUDGE, LOGPS] {
            let path = dir.join(file);
            if !force && path.exists() {
                return Err(anyhow!("{} holds {file} of an earlier scoring", dir.display()))
                    .hint("name another folder with --out, or give --force to delete what is there");
            }
            remove(&path)?;
        }
        let file = |name| row_file(dir, name);
        Ok(Self {
            dir: dir.to_owned(),
            scores: file(files::SCORES),
            examples: file(files::EXAMPLES),
            samples: file(files::SAMPLES),
            judgments: file(files::JUDGMENTS),
            logps: file(LOGPS),
            _lock: lock,
        })
    }

    pub fn dir(&self) -> &Path {
        &self.dir
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
    pub fn logps(&mut self, rows: &[LogpRow]) -> Result<()> {
        self.logps.append(rows)
    }
}
