//! Methods with their hyperparameters.

use serde::{Deserialize, Serialize};

use super::online::OnlineSpec;

/// The objective and its hyperparameters. `name()` is what a plan's `method = "…"` says.
///
/// Adding a method: a variant here, a file in `objective/`, a line in `objective::build`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "kebab-case")]
pub enum Method {
    Sft,
    Dpo(DpoSpec),
    Kto(KtoSpec),
    Ipo(IpoSpec),
    Cdpo(SmoothedSpec),
    RobustDpo(SmoothedSpec),
    Hinge(BetaSpec),
    Simpo(SimpoSpec),
    Orpo(OrpoSpec),
    Cpo(LikelihoodSpec),
    Slic(LikelihoodSpec),
    ApoZero(BetaSpec),
    ApoDown(BetaSpec),
    SigmoidNorm(BetaSpec),
    SppoHard(BetaSpec),
    Nca(BetaSpec),
    Bco(BetaSpec),
    Csft(ControlSpec),
    Unlikelihood(UnlikelihoodSpec),
    /// Whatever the arm's command does.
    External,
    /// Trains a reward model, not a policy.
    Reward,
    Rloo(OnlineSpec),
    Grpo(OnlineSpec),
    Ppo(OnlineSpec),
    PpoOffline(OnlineSpec),
    OnlineDpo(OnlineSpec),
    OnlineKto(OnlineSpec),
}

/// A method whose only hyperparameter is β > 0.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BetaSpec {
    pub beta: f64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct IpoSpec {
    pub beta: f64,
    /// Log-ratios are divided by their completion's tokens (TRL, HALOs); otherwise as in the paper.
    pub length_normalised: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SmoothedSpec {
    pub beta: f64,
    /// Probability that a label is flipped, in [0, 0.5).
    pub label_smoothing: f64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SimpoSpec {
    pub beta: f64,
    /// Target margin γ ≥ 0 (not the ratio γ/β).
    pub gamma: f64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OrpoSpec {
    /// Weight of the odds-ratio term (the paper's λ).
    pub beta: f64,
    pub likelihood: Likelihood,
}

/// What a likelihood term covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Likelihood {
    /// Prompt and completion (ORPO's authors, TRL).
    Sequence,
    Completion,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LikelihoodSpec {
    pub beta: f64,
    /// Weight of the chosen completions' likelihood, ≥ 0.
    pub alpha: f64,
}

/// Texts that stand between prompt and completion and say which class the completion is of. One token each where
/// the tokenizer knows them, several otherwise.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ControlSpec {
    pub desirable_token: String,
    pub undesirable_token: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UnlikelihoodSpec {
    /// Weight of the undesirable completions, ≥ 0.
    pub alpha: f64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DpoSpec {
    /// Strength of the pull towards the reference, β > 0.
    pub beta: f64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KtoSpec {
    pub beta: f64,
    /// λ_D and λ_U; `Auto` takes them from the class counts of the training data by the paper's rule.
    pub lambda: Lambda,
    pub z0: Z0,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Lambda {
    Auto,
    /// (n_D + n_U) / 2n of each class: both classes weigh the same, and the mean weight is 1.
    Counts,
    Fixed {
        desirable: f64,
        undesirable: f64,
    },
}

/// How KTO's reference point z0 is estimated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Z0 {
    /// Mean over the step of log π/π_ref of mismatched completions, clamped at 0; each prompt takes the
    /// completion of the example after it (HALOs).
    Next,
    /// The same with the completion of the example before it (TRL).
    Previous,
    /// A partner fixed before training: the data set's completions in reversed order within blocks of 1000
    /// (LLaMA-Factory's preprocessing).
    Reversed,
    /// No reference point (z0 = 0).
    Zero,
}
