//! Learning from a rollout by a surrogate of the expected reward: RLOO, GRPO, PPO.

use std::time::{Duration, Instant};

use super::job::OnlineHooks;
use super::learn::{Pass, pass, record, reference_logps, update_cost};
use super::phases::Phase;
use super::rollout::{Drawn, RolloutMetrics, mean_and_deviation};
use super::run::Run;
use crate::base::error::{Result, bail};
use crate::model::Decoder;
use crate::objective::LogProbs;
use crate::objective::online::{Advantages, Rollout, Surrogate};
use crate::train::cost::Ledger;
use crate::train::step::StepResult;
use crate::train::units::Unit;

impl Run<'_> {
    /// Some passes over a rollout, an update each; `Some`: the run has diverged, and this is why.
    pub(super) fn learn_surrogate(
        &mut self,
        surrogate: &dyn Surrogate,
        policy: &mut Decoder,
        drawn: &mut Drawn,
        hooks: &mut OnlineHooks<'_>,
    ) -> Result<Option<String>> {
        let (beta, micro_tokens) = (self.control.beta, self.job.spec.micro_tokens);
        let reference = self.reference(&drawn.units)?;
        let (flops, cost) = update_cost(policy, &drawn.units, self.sampler_size());
        self.phases.forward(Phase::LogProbs, cost.computed_tokens as usize, flops, reference.1);
        self.ledger.reference_tokens += cost.policy_tokens;
        let mut started = Instant::now();
        // The first rollout's forward passes are all made twice: that the first pass finds ratios of exactly 1 is seen,
        // not supposed.
        let keep = if self.ledger.steps == 0 { 0 } else { self.job.keep_bytes };
        let (units, rewards, critic) = (&drawn.units, &drawn.rewards, surrogate.critic());
        let (rollout, mut kept) = record(policy, reference.0, units, rewards, micro_tokens, critic, keep)?;
        let advantages = surrogate.advantages(&rollout, beta);
        self.identity(&rollout)?;
        let (kl, kl_per_token) = describe(&mut drawn.metrics, &rollout, &advantages);
        if let Some(why) = self.look(drawn, Some(kl_per_token)) {
            return Ok(Some(why));
        }
        drawn.metrics.step = self.before.steps + self.ledger.steps + 1;
        let (mut clipped, mut ratios) = (0, 0);
        for epoch in 0..self.epochs() {
            self.gradients.zero_()?;
            let (numbers, kept) = ((&rollout, &advantages), std::mem::take(&mut kept));
            let gradients = &mut self.gradients;
            let found = pass(policy, surrogate, &drawn.units, numbers, beta, micro_tokens, kept, gradients)?;
            (clipped, ratios) = (clipped + found.clipped, ratios + found.ratios);
            drawn.metrics.value_loss = surrogate.critic().then_some(found.value_loss);
            if epoch == 0 {
                unmoved(&found)?;
                drawn.metrics.first_ratio = Some(found.furthest_ratio);
            }
            let cost = Ledger { epochs: if epoch == 0 { cost.epochs } else { 0.0 }, ..cost };
            if let Some(why) = self.update(policy, &found.result(&rollout), cost, started, hooks)? {
                return Ok(Some(why));
            }
            started = Instant::now();
        }
        drawn.metrics.clipped = (ratios > 0).then(|| clipped as f64 / ratios as f64);
        self.control.observe(kl);
        Ok(None)
    }

    /// (t,) log-probs under the reference, and how long they took.
    fn reference(&self, units: &[Unit]) -> Result<(Vec<f64>, Duration)> {
        let started = Instant::now();
        let logps = reference_logps(self.job.reference, units, self.job.spec.micro_tokens)?;
        Ok((logps, started.elapsed()))
    }

    /// Before the first update the samples have the same log-probs under policy and reference.
    fn identity(&mut self, rollout: &Rollout) -> Result<()> {
        if self.ledger.steps > 0 || !self.equal {
            return Ok(());
        }
        let off = rollout.old.iter().zip(&rollout.reference).map(|(p, r)| (p - r).abs()).fold(0.0, f64::max);
        if off > 1e-3 || off.is_nan() {
            bail!(
                "before the first update policy and reference must be equal, but a token's log-probs differ by {off}"
            );
        }
        self.watch
            .identical(format!("{} samples, log-probs within {off:.1e} nats a token", rollout.lengths.len()));
        Ok(())
    }
}

/// The first pass is made under the policy that drew the samples.
fn unmoved(found: &Pass) -> Result<()> {
    let off = found.furthest_ratio;
    if off > 1e-3 || off.is_nan() {
        bail!(
            "before the first update on its samples a policy's ratio to itself must be 1, but one is off by {off}"
        );
    }
    Ok(())
}

impl Pass {
    /// As the checks and the metrics of every method see a step.
    fn result(&self, rollout: &Rollout) -> StepResult {
        let logps = LogProbs {
            policy: self.sums.clone(),
            tokens: rollout.lengths.clone(),
            desirable: vec![true; rollout.lengths.len()],
            ..LogProbs::default()
        };
        StepResult {
            loss: self.loss,
            logps,
            steepest: self.steepest,
            completion_reads: self.reads,
            ..StepResult::default()
        }
    }
}

/// KL, a sample and a token, entropy and spread of advantages, into the metrics.
fn describe(metrics: &mut RolloutMetrics, rollout: &Rollout, advantages: &Advantages) -> (f64, f64) {
    let (ratios, tokens) = (rollout.log_ratios(), rollout.tokens() as f64);
    let sum: f64 = ratios.iter().sum();
    let (kl, kl_per_token) = (sum / ratios.len() as f64, sum / tokens);
    (metrics.kl, metrics.kl_per_token) = (Some(kl), Some(kl_per_token));
    metrics.entropy = Some(-rollout.old.iter().sum::<f64>() / tokens);
    metrics.advantage_deviation = Some(mean_and_deviation(&advantages.advantages).1);
    (kl, kl_per_token)
}
