//! Optimizer steps of an online run.

use std::time::Instant;

use super::job::OnlineHooks;
use super::phases::{Phase, PhaseCost};
use super::run::{Learner, Run};
use crate::base::error::Result;
use crate::model::Decoder;
use crate::objective::Feedback;
use crate::plan::Budget;
use crate::train::cost::{Ledger, amount};
use crate::train::metrics::StepMetrics;
use crate::train::run::clip;
use crate::train::schedule::learning_rate;
use crate::train::step::StepResult;

impl Run<'_> {
    /// The optimizer step whose gradients are there; `Some`: it was not made, and this is why.
    pub(super) fn update(
        &mut self,
        policy: &mut Decoder,
        result: &StepResult,
        cost: Ledger,
        started: Instant,
        hooks: &mut OnlineHooks<'_>,
    ) -> Result<Option<String>> {
        let (budget, spec) = (self.job.budget, self.job.spec);
        // Labels were counted when the rollout was rewarded; everything else is counted below.
        let counted =
            if matches!(budget, Budget::Labels(_)) { -0.5 * self.asked } else { 0.5 * cost.spent(budget) };
        let done = self.ledger.spent(budget) + counted;
        let rate = learning_rate(spec, done / (amount(budget) - self.before.spent(budget)));
        let grad_norm = self.gradients.global_norm()?;
        self.ledger.add(&cost);
        let feedback = match &self.learner {
            Learner::Surrogate(_) => Feedback::Prompts,
            Learner::Labels(objective) => objective.feedback(),
        };
        let mut metrics = StepMetrics::new(result, feedback, &cost, &self.ledger);
        (metrics.grad_norm, metrics.learning_rate) = (grad_norm, rate);
        self.loss = result.loss;
        let gradients = &self.gradients;
        let diverged = self.watch.step(result, &metrics, &self.ledger, || gradients.named_norms())?;
        if diverged.is_none() {
            self.optimizer.step(policy, &self.gradients, rate, clip(grad_norm, spec.max_grad_norm))?;
        }
        metrics.seconds = started.elapsed().as_secs_f64();
        let trained = PhaseCost {
            forward_tokens: cost.kl_tokens,
            trained_tokens: cost.policy_tokens,
            flops: cost.flops,
            seconds: metrics.seconds,
        };
        self.phases.add(Phase::Optimisation, trained);
        metrics.step += self.before.steps;
        metrics.total_policy_tokens += self.before.policy_tokens;
        (hooks.step)(&metrics)?;
        Ok(diverged)
    }

    /// Passes over a rollout; a budget of steps may have room for fewer.
    pub(super) fn epochs(&self) -> usize {
        match self.job.budget {
            Budget::Steps(n) => {
                let left = n.saturating_sub(self.before.steps + self.ledger.steps) as usize;
                self.online.epochs.min(left.max(1))
            }
            _ => self.online.epochs,
        }
    }
}
