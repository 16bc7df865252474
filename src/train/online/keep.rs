//! Saving an online run between two rollouts, and going on from there.

use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::estimate::Estimate;
use super::job::OnlineJob;
use super::phases::Phases;
use super::reward::RewardSource;
use super::rollout::RolloutMetrics;
use super::run::Run;
use super::symptoms::Symptoms;
use crate::base::error::{HintExt, Result, anyhow};
use crate::base::hash::Hasher;
use crate::data::Sampler;
use crate::model::Decoder;
use crate::train::checkpoint::{Checkpoints, Saved, State};
use crate::train::run::Job;

/// What an earlier process saved of a stage, and where this one saves.
#[derive(Default)]
pub struct Kept {
    pub saved: Option<Saved>,
    pub checkpoints: Option<Checkpoints>,
}

/// Where an online run is kept.
pub trait Keeping {
    /// Of the reward model's training; `start` has its head.
    ///
    /// # Errors
    /// A fingerprint cannot be taken.
    fn reward_model(&mut self, start: &Decoder, job: &Job<'_>) -> Result<Kept>;

    /// Of the rollouts, which begin after `before` steps of the reward model; `fingerprint` is that of
    /// [`Saved::fingerprint`] where a checkpoint fits.
    ///
    /// # Errors
    /// As above.
    fn rollouts(&mut self, before: u64, fingerprint: &str) -> Result<Kept>;
}

/// Keeps nothing.
pub struct NotAtAll;

impl Keeping for NotAtAll {
    fn reward_model(&mut self, _: &Decoder, _: &Job<'_>) -> Result<Kept> {
        Ok(Kept::default())
    }

    fn rollouts(&mut self, _: u64, _: &str) -> Result<Kept> {
        Ok(Kept::default())
    }
}

/// What a run that samples remembers beside the state of every run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(in crate::train) struct OnlineState {
    beta: f64,
    phases: Phases,
    symptoms: Symptoms,
    estimate: Estimate,
    /// Every one so far: they are told again to whoever records them.
    rollouts: Vec<RolloutMetrics>,
}

/// When the last checkpoint was written.
pub(super) struct Saver {
    checkpoints: Option<Checkpoints>,
    at: Instant,
    step: u64,
    start: String,
    fingerprint: String,
}

impl Saver {
    pub fn new(kept: Option<Checkpoints>, run: &Run<'_>, start: &str, fingerprint: String) -> Self {
        let (at, step) = (Instant::now(), run.ledger.steps);
        Self { checkpoints: kept, at, step, start: start.to_owned(), fingerprint }
    }

    /// Saves where it is time to, or `now`; not twice at one step.
    ///
    /// # Errors
    /// The checkpoint cannot be written.
    pub fn save(&mut self, run: &Run<'_>, policy: &Decoder, now: bool) -> Result<()> {
        let steps = run.ledger.steps - self.step;
        let Some(checkpoints) = &self.checkpoints else { return Ok(()) };
        if steps > 0 && (now || checkpoints.every.due(steps, self.at.elapsed())) {
            let state = run.state(&self.start, &self.fingerprint);
            checkpoints.write(&state, policy, run.optimizer.state())?;
            (self.at, self.step) = (Instant::now(), run.ledger.steps);
        }
        Ok(())
    }
}

impl Run<'_> {
    /// A hash of all that determines what the rollouts do.
    ///
    /// # Errors
    /// A model's weights cannot be read.
    pub(super) fn fingerprint(&self, start: &str) -> Result<String> {
        let OnlineJob { method, spec, budget, seed, max_length, reference, .. } = self.job;
        let settings =
            serde_json::to_string(&(method, spec.determining(), budget, seed, max_length, &self.before))?;
        let rewards = match &self.source {
            None => "given".to_owned(),
            Some(RewardSource::Gold(_)) => "gold".to_owned(),
            Some(RewardSource::Model(model)) => model.decoder().weights_hash()?,
        };
        let mut hasher = Hasher::new("kto-eval/online-run").part(settings.as_bytes());
        for part in [reference.weights_hash()?.as_str(), start, rewards.as_str()] {
            hasher = hasher.part(part.as_bytes());
        }
        for prompt in &self.prompts {
            hasher = hasher.ids(&prompt.ids);
        }
        for (sequence, desirable) in self.given.iter().flat_map(crate::train::units::Unit::sides) {
            hasher = hasher.ids(&sequence.ids).part(&[u8::from(desirable)]);
        }
        Ok(hasher.hex())
    }

    fn state(&self, start: &str, fingerprint: &str) -> State {
        State {
            fingerprint: fingerprint.to_owned(),
            start: start.to_owned(),
            loss: self.loss,
            reward_sum: 0.0,
            reward_count: 0,
            updates: self.optimizer.state().updates,
            sampler: self.sampler.state(),
            ledger: self.ledger,
            watch: self.watch.clone(),
            online: Some(OnlineState {
                beta: self.control.beta,
                phases: self.phases,
                symptoms: self.symptoms.clone(),
                estimate: self.estimate,
                rollouts: self.told.clone(),
            }),
        }
    }

    /// Takes up a saved run; `policy` is the one that it began with, and becomes the saved one.
    ///
    /// # Errors
    /// A checkpoint of another run.
    pub(super) fn restore(&mut self, policy: &mut Decoder, saved: Saved, fingerprint: &str) -> Result<()> {
        if saved.state.fingerprint != fingerprint {
            return Err(anyhow!("the checkpoint is of another run (other data, model, method or settings)"))
                .hint("remove the run's checkpoint folder to start it anew");
        }
        saved.restore_weights(policy)?;
        let Saved { state, optimizer, .. } = saved;
        let online = state.online.ok_or_else(|| anyhow!("the checkpoint is of a run without rollouts"))?;
        self.optimizer.restore(optimizer)?;
        let (n, order, seed) = (self.sampler_size(), self.job.spec.order, self.job.seed);
        self.sampler = Sampler::restore(n, order, seed, state.sampler);
        (self.ledger, self.watch, self.loss) = (state.ledger, state.watch, state.loss);
        (self.phases, self.symptoms, self.estimate) = (online.phases, online.symptoms, online.estimate);
        self.control.beta = online.beta;
        self.rollouts = online.rollouts.len() as u64;
        self.told = online.rollouts;
        Ok(())
    }
}
