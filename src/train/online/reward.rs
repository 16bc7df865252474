//! Who labels samples: the planted-truth world, or a reward model trained from the same checkpoint.

use super::keep::{Keeping, NotAtAll};
use crate::base::error::Result;
use crate::base::seed;
use crate::data::Sequence;
use crate::data::TokenizedPair;
use crate::model::{Decoder, RewardModel};
use crate::train::run::{Hooks, Job, TrainOutcome, train_from};

/// A sample as a reward source sees it.
#[derive(Clone, Copy, Debug)]
pub struct Sample<'a> {
    pub prompt: &'a str,
    pub text: &'a str,
    /// Prompt and completion as drawn.
    pub sequence: &'a Sequence,
}

/// A prompt and a completion → the world's reward; NaN where the prompt is not of the world.
pub type GoldReward = fn(&str, &str) -> f64;

/// Gives samples their rewards.
pub enum RewardSource {
    /// Each sample asked about is a feedback label.
    Gold(GoldReward),
    Model(Box<RewardModel>),
}

impl RewardSource {
    /// (n,) rewards. One that is not finite is the caller's to name.
    ///
    /// # Errors
    /// A forward pass fails.
    pub fn rewards(&self, samples: &[Sample<'_>]) -> Result<Vec<f64>> {
        match self {
            Self::Gold(gold) => Ok(samples.iter().map(|s| gold(s.prompt, s.text)).collect()),
            Self::Model(model) => {
                let sequences: Vec<&Sequence> = samples.iter().map(|s| s.sequence).collect();
                model.shared_scores(&sequences)
            }
        }
    }

    /// Tokens and FLOPs of one forward pass over the samples, a prompt that neighbours share once.
    pub fn cost(&self, samples: &[Sample<'_>]) -> (usize, f64) {
        let Self::Model(model) = self else { return (0, 0.0) };
        let sequences: Vec<&Sequence> = samples.iter().map(|s| s.sequence).collect();
        let packs = model.shared_packs(&sequences);
        let flops = packs.iter().map(|p| model.decoder().flops(p)).sum();
        (packs.iter().map(|p| p.ids.len()).sum(), flops)
    }

    pub fn is_gold(&self) -> bool {
        matches!(self, Self::Gold(_))
    }
}

/// Trains a reward model from `start`, through the loop of every method; `job` says on what, with method `reward`.
///
/// # Errors
/// Data without pairs, a budget smaller than a pair. A model that diverges is no error: the outcome says so.
pub fn train_reward_model(
    start: &Decoder,
    pad: u32,
    job: &Job<'_>,
    hooks: &mut Hooks<'_>,
) -> Result<(RewardModel, TrainOutcome)> {
    train_reward_model_in(start, pad, job, hooks, &mut NotAtAll)
}

/// [`train_reward_model`], going on from what `keeping` holds, and saving there.
pub(super) fn train_reward_model_in(
    start: &Decoder,
    pad: u32,
    job: &Job<'_>,
    hooks: &mut Hooks<'_>,
    keeping: &mut dyn Keeping,
) -> Result<(RewardModel, TrainOutcome)> {
    let mut model =
        RewardModel::from_start(start, pad, seed::derive(job.seed, "reward/head"))?.into_decoder();
    let kept = keeping.reward_model(&model, job)?;
    let outcome = train_from(&mut model, job, hooks, kept.saved, kept.checkpoints.as_ref())?;
    Ok((RewardModel::new(model)?, outcome))
}

/// (p,) score of chosen minus score of rejected.
///
/// # Errors
/// A forward pass fails, or a score is not finite.
pub fn heldout_margins(model: &RewardModel, pairs: &[TokenizedPair]) -> Result<Vec<f64>> {
    let sequences: Vec<&Sequence> = pairs.iter().flat_map(|p| [&p.chosen, &p.rejected]).collect();
    Ok(model.scores(&sequences)?.chunks_exact(2).map(|s| s[0] - s[1]).collect())
}
