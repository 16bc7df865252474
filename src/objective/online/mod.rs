//! Learning from a policy's own samples: what is done with a rollout. Pure, as the other objectives: numbers in,
//! loss and exact gradients out; sampling, rewards and updates are `train::online`'s.
//!
//! Adding an algorithm: a file here with its equations, a variant of [`crate::plan::Method`], and its line in
//! [`surrogate`].

mod control;
mod grpo;
mod ppo;
mod rloo;

pub use control::KlControl;
pub use ppo::generalised_advantages;

use crate::base::error::{Result, ensure};
use crate::plan::Method;

/// n samples, `samples` for each prompt, those of one prompt side by side; t tokens in all.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rollout {
    /// Completions of one prompt.
    pub samples: usize,
    /// (n,) tokens of each completion, EOS included where it came.
    pub lengths: Vec<usize>,
    /// (n,)
    pub rewards: Vec<f64>,
    /// (t,) log π_old(token), the policy that drew the samples.
    pub old: Vec<f64>,
    /// (t,) log π_ref(token).
    pub reference: Vec<f64>,
    /// (t,) value of the state before each token; empty without a critic.
    pub values: Vec<f64>,
}

/// What a rollout says of each token.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Advantages {
    /// (t,)
    pub advantages: Vec<f64>,
    /// (t,) what the value should have been; empty without a critic.
    pub returns: Vec<f64>,
}

/// Some samples of a rollout under the present policy: m samples of s tokens.
#[derive(Clone, Copy, Debug)]
pub struct Part<'a> {
    /// (m,)
    pub lengths: &'a [usize],
    /// (s,) log π(token) now; differentiated.
    pub logps: &'a [f64],
    /// (s,) values now; differentiated. Empty without a critic.
    pub values: &'a [f64],
    /// (s,) of the rollout.
    pub old: &'a [f64],
    pub reference: &'a [f64],
    pub old_values: &'a [f64],
    pub advantages: &'a [f64],
    pub returns: &'a [f64],
    /// n and t of the whole step, so that micro-batches add up to its loss.
    pub step_samples: usize,
    pub step_tokens: usize,
}

/// A part's share of the step's loss.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Share {
    pub loss: f64,
    /// (s,) d loss / d logps
    pub dlogps: Vec<f64>,
    /// (s,) d loss / d values; empty without a critic.
    pub dvalues: Vec<f64>,
    /// Ratios whose gradient the clip has cut off, of `ratios` (one a token, or one a sample).
    pub clipped: usize,
    pub ratios: usize,
    /// The value loss in it, before its weight.
    pub value_loss: f64,
}

/// An algorithm that raises a surrogate of the expected reward.
pub trait Surrogate: Send + Sync {
    fn name(&self) -> &'static str;

    /// Whether values of states are needed.
    fn critic(&self) -> bool {
        false
    }

    /// Advantages under a KL penalty of strength `beta`.
    fn advantages(&self, rollout: &Rollout, beta: f64) -> Advantages;

    /// The loss (to be lowered) of some samples, and its gradient. `beta` as above.
    fn share(&self, part: &Part<'_>, beta: f64) -> Share;
}

/// The surrogate of a plan's method; `None` where the method learns from labels of samples as it does from data.
pub fn surrogate(method: &Method) -> Option<Box<dyn Surrogate>> {
    match method {
        Method::Rloo(s) => Some(Box::new(rloo::Rloo { clip: s.clip })),
        Method::Grpo(s) => Some(Box::new(grpo::Grpo { clip: s.clip })),
        Method::Ppo(s) | Method::PpoOffline(s) => Some(Box::new(ppo::Ppo::new(s))),
        _ => None,
    }
}

impl Rollout {
    pub fn tokens(&self) -> usize {
        self.lengths.iter().sum()
    }

    /// (n,) Σ over a sample's tokens of log π_old/π_ref: one draw each of KL(π_old ‖ π_ref).
    pub fn log_ratios(&self) -> Vec<f64> {
        let per_token: Vec<f64> = self.old.iter().zip(&self.reference).map(|(p, r)| p - r).collect();
        by_sample(&self.lengths, &per_token).map(|s| s.iter().sum()).collect()
    }

    /// # Errors
    /// Lists that do not fit each other.
    pub fn check(&self) -> Result<()> {
        let (n, t) = (self.lengths.len(), self.tokens());
        ensure!(
            self.samples > 0 && n.is_multiple_of(self.samples),
            "{n} samples in groups of {}",
            self.samples
        );
        ensure!(self.rewards.len() == n, "{n} samples with {} rewards", self.rewards.len());
        for (what, len) in [("old", self.old.len()), ("reference", self.reference.len())] {
            ensure!(len == t, "{t} tokens with {len} `{what}` log-probs");
        }
        ensure!(
            self.values.is_empty() || self.values.len() == t,
            "{t} tokens with {} values",
            self.values.len()
        );
        Ok(())
    }
}

/// Per-token numbers, sample by sample.
pub(crate) fn by_sample<'a>(lengths: &'a [usize], per_token: &'a [f64]) -> impl Iterator<Item = &'a [f64]> {
    lengths.iter().scan(0, move |at, &n| {
        let start = *at;
        *at += n;
        per_token.get(start..*at)
    })
}

/// −min(ρA, clip(ρ, 1 − ε, 1 + ε)·A) for ρ = exp(`log_ratio`): the loss, its slope in `log_ratio`, and whether
/// the clip cut the slope off (PPO, arXiv 1707.06347, eq. 7).
pub(crate) fn clipped(log_ratio: f64, advantage: f64, clip: f64) -> (f64, f64, bool) {
    let ratio = log_ratio.exp();
    let bounded = ratio.clamp(1.0 - clip, 1.0 + clip);
    let (free, held) = (ratio * advantage, bounded * advantage);
    if free <= held { (-free, -free, false) } else { (-held, 0.0, true) }
}
