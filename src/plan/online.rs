//! Methods that learn from samples: their hyperparameters in a plan.

use serde::{Deserialize, Serialize};

use super::methods::{Key, Takes};
use super::range::Range;
use super::types::Method;

/// Hyperparameters of every method that learns from samples or in PPO's way. A method reads those that its entry in
/// `METHODS` lists; the others keep their defaults and mean nothing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", default)]
pub struct OnlineSpec {
    /// Strength of the pull towards the reference.
    pub beta: f64,
    /// Who labels the samples.
    pub reward: RewardFrom,
    /// Share of the arm's budget that training its reward model takes, where it has one.
    pub reward_share: f64,
    pub reward_learning_rate: f64,
    /// Completions drawn for each prompt.
    pub samples: usize,
    /// Most tokens of a sample, EOS included.
    pub max_new_tokens: usize,
    /// Optimizer steps over one batch of samples.
    pub epochs: usize,
    /// ε of the clipped ratio.
    pub clip: f64,
    /// KL, nats a sample, that an adaptive β aims at; 0: β stays.
    pub kl_target: f64,
    pub gamma: f64,
    pub gae_lambda: f64,
    /// Weight of the value loss.
    pub value_weight: f64,
    /// Values are held within ± this of the rollout's.
    pub value_clip: f64,
}

/// Who labels samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RewardFrom {
    /// A reward model that the arm trains first, on the plan's pairs and out of its own budget.
    Model,
    /// The planted-truth world's gold reward; each sample asked about is a label.
    Gold,
}

impl Default for OnlineSpec {
    fn default() -> Self {
        Self {
            beta: 0.05,
            reward: RewardFrom::Model,
            reward_share: 0.3,
            reward_learning_rate: 1e-4,
            samples: 4,
            max_new_tokens: 64,
            epochs: 1,
            clip: 0.2,
            kl_target: 0.0,
            gamma: 1.0,
            gae_lambda: 0.95,
            value_weight: 0.1,
            value_clip: 0.2,
        }
    }
}

impl Method {
    /// The hyperparameters of a method that draws its own samples; `None` where it learns from the data.
    pub fn online(&self) -> Option<&OnlineSpec> {
        match self {
            Method::Rloo(s)
            | Method::Grpo(s)
            | Method::Ppo(s)
            | Method::OnlineDpo(s)
            | Method::OnlineKto(s) => Some(s),
            _ => None,
        }
    }

    /// The same, and of offline PPO, whose completions are given.
    pub fn rollouts(&self) -> Option<&OnlineSpec> {
        match self {
            Method::PpoOffline(s) => Some(s),
            _ => self.online(),
        }
    }
}

const fn number(name: &'static str, range: Range, default: f64, help: &'static str) -> Key {
    Key { name, takes: Takes::Number(range, default), help }
}

const fn count(name: &'static str, least: usize, default: usize, help: &'static str) -> Key {
    Key { name, takes: Takes::Count(least, default), help }
}

const REWARD: Key = Key {
    name: "reward",
    takes: Takes::Word(&["model", "gold"]),
    help: "who labels samples: a reward model trained first out of the arm's budget, or the world's gold reward",
};
const SHARE: Key =
    number("reward_share", Range::Open, 0.3, "share of the budget that training the reward model takes");
const RATE: Key = number("reward_learning_rate", Range::Positive, 1e-4, "learning rate of the reward model");
const LENGTH: Key = count("max_new_tokens", 1, 64, "most tokens of a sample, EOS included");
const CLIP: Key = number("clip", Range::Open, 0.2, "ε of the clipped ratio");
const GAMMA: Key = number("gamma", Range::UpToOne, 1.0, "γ, the discount of later rewards");
const LAMBDA: Key = number("gae_lambda", Range::UpToOne, 0.95, "λ of generalised advantage estimation");
const VALUE_WEIGHT: Key = number("value_weight", Range::Positive, 0.1, "weight of the value loss");
const VALUE_CLIP: Key =
    number("value_clip", Range::Positive, 0.2, "values are held within ± this of the rollout's");

const fn pull(default: f64) -> Key {
    number("beta", Range::NonNegative, default, "strength of the KL penalty against the reference")
}

const fn samples(least: usize, default: usize) -> Key {
    count("samples", least, default, "completions drawn for each prompt")
}

const fn epochs(default: usize) -> Key {
    count("epochs", 1, default, "optimizer steps over each batch of samples")
}

pub(super) const RLOO: &[Key] = &[pull(0.05), REWARD, SHARE, RATE, samples(2, 4), LENGTH, epochs(1), CLIP];
pub(super) const GRPO: &[Key] = &[pull(0.04), REWARD, SHARE, RATE, samples(2, 4), LENGTH, epochs(1), CLIP];
pub(super) const PPO: &[Key] = &[
    pull(0.05),
    number(
        "kl_target",
        Range::NonNegative,
        0.0,
        "KL in nats a sample that an adaptive beta aims at; 0: fixed",
    ),
    REWARD,
    SHARE,
    RATE,
    samples(1, 1),
    LENGTH,
    epochs(4),
    CLIP,
    GAMMA,
    LAMBDA,
    VALUE_WEIGHT,
    VALUE_CLIP,
];
pub(super) const ONLINE_DPO: &[Key] = &[
    number("beta", Range::Positive, 0.1, "strength of the pull towards the reference"),
    REWARD,
    SHARE,
    RATE,
    samples(2, 2),
    LENGTH,
];
pub(super) const ONLINE_KTO: &[Key] = &[
    number("beta", Range::Positive, 0.1, "strength of the pull towards the reference"),
    REWARD,
    SHARE,
    RATE,
    samples(2, 4),
    LENGTH,
];
pub(super) const PPO_OFFLINE: &[Key] =
    &[pull(0.05), CLIP, epochs(1), GAMMA, LAMBDA, VALUE_WEIGHT, VALUE_CLIP];
