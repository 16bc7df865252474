//! Where a run's rewards come from: the reward model that it trains first, or the gold reward.

use super::job::{OnlineHooks, OnlineJob};
use super::keep::Keeping;
use super::phases::PhaseCost;
use super::reward::{GoldReward, RewardSource, train_reward_model_in};
use crate::base::error::{Context, HintExt, Result, anyhow};
use crate::model::Decoder;
use crate::plan::{Method, OnlineSpec, RewardFrom, TrainSpec};
use crate::train::cost::Ledger;
use crate::train::run::{Ended, Hooks, Job};

/// What a run has before its first rollout.
#[derive(Default)]
pub(super) struct Source {
    /// Absent where completions and rewards are given (offline PPO).
    pub rewards: Option<RewardSource>,
    /// What the reward model's training cost.
    pub ledger: Ledger,
    pub phase: PhaseCost,
    /// How it ended.
    pub ended: Option<Ended>,
}

/// The source that the method asks for; a reward model is trained from `start`.
///
/// # Errors
/// A gold reward outside the world; data that no reward model can learn from, a share smaller than a pair.
pub(super) fn reward_source(
    start: &Decoder,
    job: &OnlineJob<'_>,
    hooks: &mut OnlineHooks<'_>,
    keeping: &mut dyn Keeping,
) -> Result<Source> {
    match job.method.online() {
        None => Ok(Source::default()),
        Some(online) if online.reward == RewardFrom::Gold => {
            let rewards = Some(RewardSource::Gold(gold(job)?));
            Ok(Source { rewards, ..Source::default() })
        }
        Some(online) => {
            trained(start, job, online, hooks, keeping).context("training the arm's reward model")
        }
    }
}

fn gold(job: &OnlineJob<'_>) -> Result<GoldReward> {
    job.gold
        .ok_or_else(|| anyhow!("only the planted-truth world has a gold reward"))
        .hint("set reward = \"model\" for the arm, or data.source = \"world\"")
}

fn trained(
    start: &Decoder,
    job: &OnlineJob<'_>,
    online: &OnlineSpec,
    hooks: &mut OnlineHooks<'_>,
    keeping: &mut dyn Keeping,
) -> Result<Source> {
    let spec = TrainSpec {
        learning_rate: online.reward_learning_rate,
        // A batch holds whole pairs, whatever the samples are.
        batch_size: (job.spec.batch_size / 2 * 2).max(2),
        ..job.spec.clone()
    };
    let model_job = Job {
        method: &Method::Reward,
        spec: &spec,
        budget: job.budget.part(online.reward_share),
        seed: job.seed,
        max_length: job.max_length,
        data: job.data,
        reference: None,
    };
    let mut own = Hooks { step: &mut *hooks.step, progress: &mut |_| (), abort: hooks.abort };
    let (model, outcome) = train_reward_model_in(start, job.pad, &model_job, &mut own, keeping)?;
    let phase = PhaseCost {
        forward_tokens: 0,
        trained_tokens: outcome.ledger.policy_tokens,
        flops: outcome.ledger.flops,
        seconds: outcome.ledger.train_seconds,
    };
    let ended = match outcome.ended {
        Ended::Diverged(why) => Ended::Diverged(format!("the reward model diverged: {why}")),
        ended => ended,
    };
    let rewards = Some(RewardSource::Model(Box::new(model)));
    Ok(Source { rewards, ledger: outcome.ledger, phase, ended: Some(ended) })
}
