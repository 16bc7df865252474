//! `--tensorboard`: each run's steps and scores as TensorBoard events, while they are made.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use clap::Args;

use crate::base::error::Result;
use crate::record::{EventFile, ScoreRow, StepRow};

#[derive(Clone, Debug, Default, Args)]
pub struct Tensorboard {
    /// Write TensorBoard event files, a folder a run [default DIR: <out>/tensorboard]
    #[arg(long, value_name = "DIR", num_args = 0..=1, require_equals = true)]
    tensorboard: Option<Option<PathBuf>>,
}

impl Tensorboard {
    /// Where the events go; `None`: nowhere.
    pub fn folder(&self, out: &Path) -> Option<PathBuf> {
        Some(self.tensorboard.as_ref()?.clone().unwrap_or_else(|| out.join("tensorboard")))
    }
}

/// The events of the run under way.
pub struct Events {
    dir: PathBuf,
    /// Folder of the run under way, by name.
    name: Option<String>,
    /// Open from the run's first row on: that one tells what an earlier process has done of it.
    run: Option<EventFile>,
    step: u64,
}

impl Events {
    pub fn new(dir: PathBuf) -> Self {
        Self { dir, name: None, run: None, step: 0 }
    }

    pub fn begin(&mut self, run: &str) {
        (self.name, self.run, self.step) = (Some(run.to_owned()), None, 0);
    }

    fn file(&mut self, step: u64) -> Result<Option<&mut EventFile>> {
        let Some(name) = &self.name else { return Ok(None) };
        if self.run.is_none() {
            // Scores: a run that was interrupted between two suites is scored on all of them again.
            let again = |tag: &str| !["train/", "cost/"].iter().any(|own| tag.starts_with(own));
            let file = EventFile::open(&self.dir.join(name), now(), step, &again)?;
            self.step = file.last_step();
            self.run = Some(file);
        }
        Ok(self.run.as_mut())
    }

    /// # Errors
    /// A folder that cannot be written to, a disk that is full.
    pub fn step(&mut self, row: &StepRow) -> Result<()> {
        let Some(run) = self.file(row.step)? else { return Ok(()) };
        let values = [
            ("train/loss", Some(row.loss)),
            ("train/grad_norm", Some(row.grad_norm)),
            ("train/learning_rate", Some(row.learning_rate)),
            ("train/reward_chosen", row.reward_chosen),
            ("train/reward_rejected", row.reward_rejected),
            ("train/margin", row.margin),
            ("train/accuracy", row.accuracy),
            ("train/kl", row.kl),
            ("train/kl_unclamped", row.kl_unclamped),
            ("train/logp_chosen", row.logp_chosen),
            ("train/logp_rejected", row.logp_rejected),
            ("cost/policy_tokens", Some(row.total_policy_tokens as f64)),
            ("cost/tokens_per_second", Some(row.policy_tokens as f64 / row.seconds)),
        ];
        let present: Vec<(&str, f64)> = values.iter().filter_map(|(tag, v)| Some((*tag, (*v)?))).collect();
        run.scalars(row.step, now(), &present)?;
        run.flush()?;
        self.step = row.step;
        Ok(())
    }

    /// Scores over whole suites, at the last step.
    ///
    /// # Errors
    /// A folder that cannot be written to, a disk that is full.
    pub fn scored(&mut self, rows: &[ScoreRow]) -> Result<()> {
        // No step came from this process: training had ended in an earlier one.
        self.file(u64::MAX)?;
        let step = self.step;
        let Some(run) = &mut self.run else { return Ok(()) };
        let whole = rows.iter().filter(|r| r.subset == "all" && !r.arm.starts_with(crate::record::SENTINEL));
        let named: Vec<(String, f64)> =
            whole.map(|r| (format!("{}/{}", r.suite, r.metric), r.value)).collect();
        let values: Vec<(&str, f64)> = named.iter().map(|(tag, v)| (tag.as_str(), *v)).collect();
        run.scalars(step, now(), &values)?;
        run.flush()
    }
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64())
}
