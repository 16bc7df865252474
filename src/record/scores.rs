//! A folder of scores without a comparison: what `kto-eval score --suite` leaves. The row files are those of a
//! comparison, with log-probs beside them.

use std::fs::File;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::folder::{self, files};
use super::schema::*;
use super::table::{RowFile, row_file};
use crate::base::atomic::{self, remove};
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
    /// There until all is scored, with the address of what was asked.
    mark: PathBuf,
    scores: RowFile,
    examples: RowFile,
    samples: RowFile,
    judgments: RowFile,
    logps: RowFile,
    _lock: File,
}

const LOGPS: &str = "logps.csv";
const UNFINISHED: &str = ".unfinished";

impl ScoreFolder {
    /// With `force`, what an earlier scoring left is deleted; so are the rows of one that was not finished and was
    /// `asked` the same, whose count of what its judge cost stays.
    ///
    /// # Errors
    /// A folder that cannot be written to, that another process holds, that holds a comparison or, without `force`,
    /// scores.
    pub fn open(dir: &Path, force: bool, asked: &str) -> Result<Self> {
        folder::create(dir)?;
        let lock = folder::lock(dir)?;
        if dir.join(files::PLAN).exists() {
            return Err(anyhow!("{} holds a comparison", dir.display()))
                .hint("name another folder with --out");
        }
        let mark = dir.join(UNFINISHED);
        let goes_on = !force && std::fs::read_to_string(&mark).is_ok_and(|known| known == asked);
        for file in [files::SCORES, files::EXAMPLES, files::SAMPLES, files::JUDGMENTS, files::JUDGE, LOGPS] {
            let path = dir.join(file);
            if !force && !goes_on && path.exists() {
                return Err(anyhow!("{} holds {file} of an earlier scoring", dir.display()))
                    .hint("name another folder with --out, or give --force to delete what is there");
            }
            if !goes_on || file != files::JUDGE {
                remove(&path)?;
            }
        }
        atomic::write(&mark, asked.as_bytes())?;
        let file = |name| row_file(dir, name);
        Ok(Self {
            dir: dir.to_owned(),
            mark,
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

    /// All that was asked is there.
    pub fn finish(&self) -> Result<()> {
        remove(&self.mark)
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
