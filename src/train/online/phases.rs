//! What a run spent, by phase: the whole of RLHF is more than its updates.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A part of a run's work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Training the reward model, forward and backward.
    RewardModel,
    /// Drawing samples, forward only: every new token, and each prompt once for the samples of a rollout.
    Sampling,
    /// The reward model's scores of samples, forward only.
    Scoring,
    /// Log-probs of samples under the reference, forward only. Those under the policy that drew them are the first
    /// update's forward pass.
    LogProbs,
    /// Updates of the policy, forward and backward.
    Optimisation,
}

impl Phase {
    pub const ALL: [Self; 5] =
        [Self::RewardModel, Self::Sampling, Self::Scoring, Self::LogProbs, Self::Optimisation];

    /// As in `phases.csv`.
    pub fn name(self) -> &'static str {
        match self {
            Self::RewardModel => "reward-model",
            Self::Sampling => "sampling",
            Self::Scoring => "scoring",
            Self::LogProbs => "log-probs",
            Self::Optimisation => "optimisation",
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PhaseCost {
    /// Tokens through forward only.
    pub forward_tokens: u64,
    /// Tokens through forward and backward.
    pub trained_tokens: u64,
    /// Analytic.
    pub flops: f64,
    pub seconds: f64,
}

/// One cost a phase, in the order of [`Phase::ALL`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Phases([PhaseCost; 5]);

impl Phases {
    pub fn get(&self, phase: Phase) -> PhaseCost {
        self.0[phase as usize]
    }

    pub fn add(&mut self, phase: Phase, cost: PhaseCost) {
        let total = &mut self.0[phase as usize];
        total.forward_tokens += cost.forward_tokens;
        total.trained_tokens += cost.trained_tokens;
        total.flops += cost.flops;
        total.seconds += cost.seconds;
    }

    pub fn forward(&mut self, phase: Phase, tokens: usize, flops: f64, took: Duration) {
        let cost = PhaseCost {
            forward_tokens: tokens as u64,
            flops,
            seconds: took.as_secs_f64(),
            ..Default::default()
        };
        self.add(phase, cost);
    }

    /// Phases that cost anything.
    pub fn spent(&self) -> impl Iterator<Item = (Phase, PhaseCost)> {
        Phase::ALL
            .into_iter()
            .map(|p| (p, self.get(p)))
            .filter(|(_, c)| c.forward_tokens + c.trained_tokens > 0)
    }
}
