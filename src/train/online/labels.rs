//! Learning from a rollout as from data: samples labelled by their rewards, for online DPO and online KTO.

use std::time::Instant;

use super::job::OnlineHooks;
use super::rollout::{Drawn, RolloutMetrics};
use super::run::Run;
use crate::base::error::Result;
use crate::data::Sequence;
use crate::model::Decoder;
use crate::objective::{ClassCounts, Feedback, LogProbs, Objective};
use crate::train::cost::step_cost;
use crate::train::mismatch::of_other_prompts;
use crate::train::reference::{Reference, ReferenceCache};
use crate::train::step::{StepInput, StepResult, compute_step};
use crate::train::units::{Unit, class_counts};

impl Run<'_> {
    /// One update from the samples that can be labelled; `Some`: the run has diverged, and this is why.
    pub(super) fn learn_labels(
        &mut self,
        objective: &dyn Objective,
        policy: &mut Decoder,
        drawn: &mut Drawn,
        hooks: &mut OnlineHooks<'_>,
    ) -> Result<Option<String>> {
        let started = Instant::now();
        let (labelled, ties) = label(drawn, objective.feedback() == Feedback::Paired);
        drawn.metrics.ties = ties;
        let least = if objective.z0().is_some() { 2 } else { 1 };
        let enough = labelled.len() >= least;
        if let Some(why) = self.symptoms.learned(enough) {
            return Ok(Some(why));
        }
        if !enough {
            return Ok(None);
        }
        let units: Vec<&Unit> = labelled.iter().collect();
        let mismatched = match objective.z0() {
            // Samples are as long as the context lets them be, whatever the data were cut to.
            Some(z0) => of_other_prompts(&units, z0, policy.config().max_positions)?,
            None => vec![],
        };
        let (of, micro) = (self.sampler_size(), self.job.spec.micro_tokens);
        let mut cost = step_cost(policy, objective, &units, &mismatched, of, micro);
        // Labels were counted when the samples were rewarded.
        (cost.labels, cost.epochs) = (0, drawn.units.len() as f64 / self.sampler_size() as f64);
        let result = self.labelled_step(objective, policy, &units, &mismatched)?;
        let kl_per_token = describe(&mut drawn.metrics, &result.logps);
        if let Some(why) = self.look(drawn, Some(kl_per_token)) {
            return Ok(Some(why));
        }
        drawn.metrics.step = self.before.steps + self.ledger.steps + 1;
        self.update(policy, &result, cost, started, hooks)
    }

    /// Loss and gradients of a step on labelled samples.
    fn labelled_step(
        &mut self,
        objective: &dyn Objective,
        policy: &Decoder,
        units: &[&Unit],
        mismatched: &[Sequence],
    ) -> Result<StepResult> {
        // Samples never come again: nothing is kept.
        let cache = ReferenceCache::open("", None);
        let classes: ClassCounts = class_counts(units.iter().copied());
        let input = StepInput {
            units,
            mismatched,
            reference: Some(Reference::new(self.job.reference, &cache)),
            micro_tokens: self.job.spec.micro_tokens,
            classes,
            reward_shift: 0.0,
            dropout: None,
        };
        self.gradients.zero_()?;
        let result = compute_step(policy, objective, &input, &mut self.gradients)?;
        if self.ledger.steps == 0 && self.equal {
            self.watch.identity(objective, units, &result, classes, policy.dtype())?;
        }
        Ok(result)
    }
}

/// KL, a sample and a token, and entropy into the metrics, over the samples that are learned from; the KL a token.
fn describe(metrics: &mut RolloutMetrics, logps: &LogProbs) -> f64 {
    let tokens = logps.tokens.iter().sum::<usize>() as f64;
    let sum = |v: &[f64]| v.iter().sum::<f64>();
    let moved = sum(&logps.policy) - sum(&logps.reference);
    metrics.kl = Some(moved / logps.policy.len() as f64);
    metrics.kl_per_token = Some(moved / tokens);
    metrics.entropy = Some(-sum(&logps.policy) / tokens);
    moved / tokens
}

/// Samples as labelled data: for pairs the best and the worst of each prompt (the first of equals), else each sample
/// with whether it is above its prompt's mean. The second value counts prompts without a difference.
fn label(drawn: &Drawn, paired: bool) -> (Vec<Unit>, u64) {
    let (mut labelled, mut ties, mut at) = (Vec::new(), 0, 0);
    for unit in &drawn.units {
        let rewards = &drawn.rewards[at..at + unit.sequences.len()];
        at += unit.sequences.len();
        let first = |better: fn(f64, f64) -> bool| {
            (0..rewards.len()).fold(0, |best, i| if better(rewards[i], rewards[best]) { i } else { best })
        };
        let (best, worst) = (first(|a, b| a > b), first(|a, b| a < b));
        if rewards[best] <= rewards[worst] {
            ties += 1;
            continue;
        }
        if paired {
            let sequences = vec![unit.sequences[best].clone(), unit.sequences[worst].clone()];
            labelled.push(Unit { sequences, ..unit.clone() });
            continue;
        }
        let mean = rewards.iter().sum::<f64>() / rewards.len() as f64;
        for (sequence, &reward) in unit.sequences.iter().zip(rewards).filter(|(_, r)| **r != mean) {
            labelled.push(Unit {
                id: unit.id.clone(),
                sequences: vec![sequence.clone()],
                desirable: reward > mean,
            });
        }
    }
    (labelled, ties)
}
