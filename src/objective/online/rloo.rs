//! RLOO: REINFORCE with a leave-one-out baseline (Ahmadian et al. 2024, arXiv 2402.14740, eq. 8), with the clipped
//! ratio of TRL for more than one pass over the samples. For sample i of k of a prompt:
//!
//! R_i = r_i − β Σ_t log π_old(y_t)/π_ref(y_t)
//! A_i = R_i − (1/(k − 1)) Σ_{j≠i} R_j
//! loss = −(1/n) Σ_i min(ρ_i A_i, clip(ρ_i, 1 − ε, 1 + ε) A_i),  ρ_i = π(y_i)/π_old(y_i)
//!
//! The action is the whole completion: one ratio a sample. At ρ = 1 the gradient is −(1/n) Σ A_i ∇ log π(y_i).

use super::{Advantages, Part, Rollout, Share, Surrogate, by_sample, clipped};

pub struct Rloo {
    /// ε
    pub clip: f64,
}

impl Surrogate for Rloo {
    fn name(&self) -> &'static str {
        "rloo"
    }

    fn advantages(&self, rollout: &Rollout, beta: f64) -> Advantages {
        let penalised: Vec<f64> =
            rollout.rewards.iter().zip(rollout.log_ratios()).map(|(r, kl)| r - beta * kl).collect();
        let k = rollout.samples as f64;
        let mut advantages = Vec::with_capacity(rollout.tokens());
        for (i, (&reward, &length)) in penalised.iter().zip(&rollout.lengths).enumerate() {
            let first = i - i % rollout.samples;
            let sum: f64 = penalised[first..first + rollout.samples].iter().sum();
            let baseline = if rollout.samples > 1 { (sum - reward) / (k - 1.0) } else { 0.0 };
            advantages.extend(std::iter::repeat_n(reward - baseline, length));
        }
        Advantages { advantages, returns: vec![] }
    }

    fn share(&self, part: &Part<'_>, _beta: f64) -> Share {
        let mut share = Share { ratios: part.lengths.len(), ..Share::default() };
        let log_ratios: Vec<f64> = part.logps.iter().zip(part.old).map(|(new, old)| new - old).collect();
        let samples = by_sample(part.lengths, &log_ratios).zip(by_sample(part.lengths, part.advantages));
        for (log_ratios, advantages) in samples {
            let advantage = advantages.first().copied().unwrap_or(0.0);
            let (loss, slope, cut) = clipped(log_ratios.iter().sum(), advantage, self.clip);
            let n = part.step_samples as f64;
            share.loss += loss / n;
            share.dlogps.extend(log_ratios.iter().map(|_| slope / n));
            share.clipped += usize::from(cut);
        }
        share
    }
}
