//! PPO: proximal policy optimization (Schulman et al. 2017, arXiv 1707.06347, eq. 7 and 9) as it is used on language
//! models (Ziegler et al. 2019, arXiv 1909.08593; Stiennon et al. 2020, arXiv 2009.01325), with a value head on the
//! policy's own trunk. For a completion of T tokens with values V_t and V_{T+1} = 0:
//!
//! r_t = −β log π_old(y_t)/π_ref(y_t) + [t = T]·r
//! δ_t = r_t + γ V_{t+1} − V_t,  A_t = δ_t + γ λ A_{t+1}    (GAE: arXiv 1506.02438, eq. 16)
//! R_t = A_t + V_t
//! loss = (1/t) Σ_t [ −min(ρ_t Â_t, clip(ρ_t, 1 − ε, 1 + ε) Â_t) + c_V · ½ max((V − R)², (V_clip − R)²) ]
//!
//! with Â whitened over the step (mean 0, deviation 1), ρ_t = π(y_t)/π_old(y_t), and V_clip the present value held
//! within ± ε_V of the one that the rollout had. There is no entropy bonus, as in the papers on language models.

use super::{Advantages, Part, Rollout, Share, Surrogate, by_sample, clipped};
use crate::plan::OnlineSpec;

pub struct Ppo {
    /// ε
    clip: f64,
    gamma: f64,
    lambda: f64,
    /// c_V
    value_weight: f64,
    /// ε_V
    value_clip: f64,
}

impl Ppo {
    pub fn new(s: &OnlineSpec) -> Self {
        let OnlineSpec { clip, gamma, gae_lambda: lambda, value_weight, value_clip, .. } = *s;
        Self { clip, gamma, lambda, value_weight, value_clip }
    }
}

impl Surrogate for Ppo {
    fn name(&self) -> &'static str {
        "ppo"
    }

    fn critic(&self) -> bool {
        true
    }

    fn advantages(&self, rollout: &Rollout, beta: f64) -> Advantages {
        let mut rewards: Vec<f64> =
            rollout.old.iter().zip(&rollout.reference).map(|(old, r)| -beta * (old - r)).collect();
        let mut end = 0;
        for (&length, reward) in rollout.lengths.iter().zip(&rollout.rewards) {
            end += length;
            if length > 0 {
                rewards[end - 1] += reward;
            }
        }
        let mut advantages = Vec::with_capacity(rewards.len());
        let samples = by_sample(&rollout.lengths, &rewards).zip(by_sample(&rollout.lengths, &rollout.values));
        for (rewards, values) in samples {
            advantages.extend(generalised_advantages(rewards, values, self.gamma, self.lambda));
        }
        let returns = advantages.iter().zip(&rollout.values).map(|(a, v)| a + v).collect();
        whiten(&mut advantages);
        Advantages { advantages, returns }
    }

    fn share(&self, part: &Part<'_>, _beta: f64) -> Share {
        let mut share = Share { ratios: part.logps.len(), ..Share::default() };
        let weight = 1.0 / part.step_tokens as f64;
        for i in 0..part.logps.len() {
            let (loss, slope, cut) = clipped(part.logps[i] - part.old[i], part.advantages[i], self.clip);
            let (value_loss, value_slope) =
                value_loss(part.values[i], part.old_values[i], part.returns[i], self.value_clip);
            share.loss += weight * (loss + self.value_weight * value_loss);
            share.value_loss += weight * value_loss;
            share.dlogps.push(weight * slope);
            share.dvalues.push(weight * self.value_weight * value_slope);
            share.clipped += usize::from(cut);
        }
        share
    }
}

/// (T,) rewards and values of one completion → (T,) advantages; the state after its last token has value 0.
pub fn generalised_advantages(rewards: &[f64], values: &[f64], gamma: f64, lambda: f64) -> Vec<f64> {
    let mut advantages = vec![0.0; rewards.len()];
    let (mut next_value, mut next_advantage) = (0.0, 0.0);
    for t in (0..rewards.len()).rev() {
        let delta = rewards[t] + gamma * next_value - values[t];
        next_advantage = delta + gamma * lambda * next_advantage;
        (advantages[t], next_value) = (next_advantage, values[t]);
    }
    advantages
}

/// ½ max((V − R)², (V_clip − R)²) and its slope in V.
fn value_loss(value: f64, old: f64, target: f64, clip: f64) -> (f64, f64) {
    let held = value.clamp(old - clip, old + clip);
    let (free, bounded) = (value - target, held - target);
    if free * free >= bounded * bounded {
        return (0.5 * free * free, free);
    }
    // The larger loss is that of a value at its bound, which does not move.
    (0.5 * bounded * bounded, if held == value { bounded } else { 0.0 })
}

/// Mean 0, and deviation 1 where they differ at all.
fn whiten(values: &mut [f64]) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n;
    let scale = if variance > 0.0 { 1.0 / (variance + 1e-8).sqrt() } else { 0.0 };
    values.iter_mut().for_each(|v| *v = (*v - mean) * scale);
}
