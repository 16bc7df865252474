//! What an online run is given, what it tells on its way, and what it ends with.

use std::sync::atomic::AtomicBool;

use super::phases::Phases;
use super::reward::GoldReward;
use super::rollout::RolloutMetrics;
use crate::base::error::{Context, Result};
use crate::model::generate::Text;
use crate::model::{Decoder, RewardModel};
use crate::plan::{Budget, Method, OnlineSpec, TrainSpec};
use crate::train::metrics::StepMetrics;
use crate::train::run::{Progress, TrainOutcome};
use crate::train::units::TrainData;

/// A good value of [`OnlineJob::keep_bytes`].
pub const KEEP_BYTES: usize = 512 << 20;

/// What to train, on what, and for how much.
#[derive(Clone, Copy)]
pub struct OnlineJob<'a> {
    pub method: &'a Method,
    pub spec: &'a TrainSpec,
    /// Of the whole: reward model, sampling, scoring and updates.
    pub budget: Budget,
    /// Seed of the order of prompts, of samples, and of new heads.
    pub seed: u64,
    pub max_length: usize,
    /// Where prompts come from; the pairs that a reward model learns from; the completions of offline PPO.
    pub data: TrainData<'a>,
    pub reference: &'a Decoder,
    pub text: Text<'a>,
    /// Padding token of a reward model that is trained.
    pub pad: u32,
    /// The world's gold reward, where the data are the world's.
    pub gold: Option<GoldReward>,
    /// Most bytes of forward passes kept from recording samples to the first update from them; what does not fit is
    /// computed again, to the same bits.
    pub keep_bytes: usize,
}

/// What the loop tells, and what stops it.
pub struct OnlineHooks<'a> {
    /// Each optimizer step's figures, the reward model's first.
    pub step: &'a mut dyn FnMut(&StepMetrics) -> Result<()>,
    pub rollout: &'a mut dyn FnMut(&RolloutMetrics) -> Result<()>,
    pub progress: &'a mut dyn FnMut(Progress),
    pub abort: &'a AtomicBool,
}

/// What an online run ended with.
pub struct OnlineOutcome {
    /// The ledger counts the whole: the reward model too.
    pub train: TrainOutcome,
    pub phases: Phases,
    /// The one that was trained for the run.
    pub reward_model: Option<RewardModel>,
}

impl OnlineJob<'_> {
    pub(super) fn online(&self) -> Result<&OnlineSpec> {
        self.method.rollouts().with_context(|| format!("{} does not learn from rollouts", self.method.name()))
    }
}
