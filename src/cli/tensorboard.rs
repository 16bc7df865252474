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
    run: Option<EventFile>,
    step: u64,
}

impl Events {
    pub fn new(dir: PathBuf) -> Self {
        Self { dir, run: None, step: 0 }
    }

    /// # Errors
    /// A folder that cannot be written to.
    pub fn begin(&mut self, run: &str) -> Result<()> {
        (self.run, self.step) = (None, 0);
        self.run = Some(EventFile::create(&self.dir.join(run), now())?);
        Ok(())
    }

    /// # Errors
    /// A disk that is full.
    pub fn step(&mut self, row: &StepRow) -> Result<()> {
        self.step = row.step;
        let Some(run) = &mut self.run else { return Ok(()) };
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
        run.flush()
    }

    /// Scores over whole suites, at the last step.
    ///
    /// # Errors
    /// A disk that is full.
    pub fn scored(&mut self, rows: &[ScoreRow]) -> Result<()> {
        let Some(run) = &mut self.run else { return Ok(()) };
        let whole = rows.iter().filter(|r| r.subset == "all" && !r.arm.starts_with(crate::record::SENTINEL));
        let named: Vec<(String, f64)> =
            whole.map(|r| (format!("{}/{}", r.suite, r.metric), r.value)).collect();
        let values: Vec<(&str, f64)> = named.iter().map(|(tag, v)| (tag.as_str(), *v)).collect();
        run.scalars(self.step, now(), &values)?;
        run.flush()
    }
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64())
}
