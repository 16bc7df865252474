//! GRPO: group-relative policy optimization (Shao et al. 2024, arXiv 2402.03300, eq. 3 and 4). For sample i of k of a
//! prompt, with the mean m and the standard deviation s (k − 1 in its denominator) of the prompt's rewards:
//!
//! A_i = (r_i − m)/(s + 1e-4)
//! loss = (1/n) Σ_i (1/|y_i|) Σ_t [ −min(ρ_t A_i, clip(ρ_t, 1 − ε, 1 + ε) A_i) + β (e^{d_t} − d_t − 1) ]
//! ρ_t = π(y_t)/π_old(y_t),  d_t = log π_ref(y_t)/π(y_t)
//!
//! The last term estimates KL(π ‖ π_ref) without bias and is never negative; it is differentiated as it stands, as in
//! the paper. (TRL 1.16 multiplies it with ρ_t unless `use_bias_correction_kl` is off. The 1e-4 is TRL's: a prompt whose
//! samples all have one reward then teaches nothing.)

use super::{Advantages, Part, Rollout, Share, Surrogate, clipped};

const LEAST_DEVIATION: f64 = 1e-4;

pub struct Grpo {
    /// ε
    pub clip: f64,
}

impl Surrogate for Grpo {
    fn name(&self) -> &'static str {
        "grpo"
    }

    fn advantages(&self, rollout: &Rollout, _beta: f64) -> Advantages {
        let mut advantages = Vec::with_capacity(rollout.tokens());
        let groups = rollout.rewards.chunks(rollout.samples).zip(rollout.lengths.chunks(rollout.samples));
        for (rewards, lengths) in groups {
            let k = rewards.len() as f64;
            let mean = rewards.iter().sum::<f64>() / k;
            let squares: f64 = rewards.iter().map(|r| (r - mean).powi(2)).sum();
            let deviation = (squares / (k - 1.0).max(1.0)).sqrt();
            for (reward, &length) in rewards.iter().zip(lengths) {
                let advantage = (reward - mean) / (deviation + LEAST_DEVIATION);
                advantages.extend(std::iter::repeat_n(advantage, length));
            }
        }
        Advantages { advantages, returns: vec![] }
    }

    fn share(&self, part: &Part<'_>, beta: f64) -> Share {
        let mut share = Share { ratios: part.logps.len(), ..Share::default() };
        let mut at = 0;
        for &length in part.lengths {
            let weight = 1.0 / (length.max(1) as f64 * part.step_samples as f64);
            for i in at..at + length {
                let (loss, slope, cut) = clipped(part.logps[i] - part.old[i], part.advantages[i], self.clip);
                let away = part.reference[i] - part.logps[i];
                share.loss += weight * (loss + beta * (away.exp_m1() - away));
                share.dlogps.push(weight * (slope - beta * away.exp_m1()));
                share.clipped += usize::from(cut);
            }
            at += length;
        }
        share
    }
}
