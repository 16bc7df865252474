//! What training spends, in every currency.

use super::micro::{micros, scored_micros};
use super::units::Unit;
use crate::data::Sequence;
use crate::model::{Decoder, Packed};
use crate::objective::{Feedback, Objective};
use crate::plan::Budget;
use serde::{Deserialize, Serialize};

/// What a run (or a step) has spent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Ledger {
    /// Optimizer steps.
    pub steps: u64,
    /// Completions trained on (a pair counts two).
    pub examples: u64,
    /// Feedback labels seen: one a pair, one a single completion.
    pub labels: u64,
    /// Policy tokens forward and backward, as sequences (the prompt counted for each completion).
    pub policy_tokens: u64,
    /// The part of them that the loss reads (one a sequence for a reward model).
    pub completion_tokens: u64,
    /// Tokens really computed: a prompt that neighbours share once.
    pub computed_tokens: u64,
    /// Policy tokens forward only, for KTO's z0.
    pub kl_tokens: u64,
    /// Reference tokens needed, each time they are needed, whether or not a cache had them.
    pub reference_tokens: u64,
    /// Analytic: policy forward and backward (three forwards; with an adapter, the products with frozen weights
    /// twice), KL-term and reference forwards; each counted as packed for training, a pair's prompt once.
    pub flops: f64,
    /// Units drawn over units there are.
    pub epochs: f64,
    pub train_seconds: f64,
    /// The part of them spent on the reference.
    pub reference_seconds: f64,
}

impl Ledger {
    /// Adds a step's cost (its times and its epochs too).
    pub fn add(&mut self, cost: &Ledger) {
        self.steps += cost.steps;
        self.examples += cost.examples;
        self.labels += cost.labels;
        self.policy_tokens += cost.policy_tokens;
        self.completion_tokens += cost.completion_tokens;
        self.computed_tokens += cost.computed_tokens;
        self.kl_tokens += cost.kl_tokens;
        self.reference_tokens += cost.reference_tokens;
        self.flops += cost.flops;
        self.epochs += cost.epochs;
        self.train_seconds += cost.train_seconds;
        self.reference_seconds += cost.reference_seconds;
    }

    /// The part of the budget that is spent, in [0, 1].
    pub fn fraction(&self, budget: Budget) -> f64 {
        (self.spent(budget) / amount(budget)).min(1.0)
    }

    /// The amount in the budget's currency.
    pub fn spent(&self, budget: Budget) -> f64 {
        match budget {
            Budget::Tokens(_) => self.policy_tokens as f64,
            Budget::Examples(_) => self.examples as f64,
            Budget::Labels(_) => self.labels as f64,
            Budget::Steps(_) => self.steps as f64,
            Budget::Flops(_) => self.flops,
            Budget::Seconds(_) => self.train_seconds,
        }
    }
}

/// The budget as a number of its currency.
pub fn amount(budget: Budget) -> f64 {
    match budget {
        Budget::Tokens(n) | Budget::Examples(n) | Budget::Labels(n) | Budget::Steps(n) => n as f64,
        Budget::Flops(x) | Budget::Seconds(x) => x,
    }
}

/// Cost of a step of these units, before it is run. `mismatched` are the sequences of its KL term; `of` is
/// the number of units in the data; `micro_tokens` cuts the step as it will be cut.
pub fn step_cost(
    policy: &Decoder,
    objective: &dyn Objective,
    units: &[&Unit],
    mismatched: &[Sequence],
    of: usize,
    micro_tokens: usize,
) -> Ledger {
    let sum = |f: &dyn Fn(&Sequence) -> usize| -> u64 {
        units.iter().flat_map(|u| &u.sequences).map(|s| f(s) as u64).sum()
    };
    let scored = objective.reads_scores();
    let batches = match scored {
        true => scored_micros(units, micro_tokens, policy.pad_token()),
        false => micros(units, micro_tokens, objective.needs_prompt()),
    };
    let all = |f: &dyn Fn(&Packed) -> f64| -> f64 { batches.iter().map(|m| f(&m.packed)).sum() };
    let examples = units.iter().map(|u| u.sequences.len() as u64).sum();
    let policy_tokens = sum(&|s| s.ids.len());
    let kl_tokens: u64 = mismatched.iter().map(|s| s.ids.len() as u64).sum();
    let (mut flops, mut reference_tokens) = (all(&|p| policy.training_flops(p)), 0);
    if objective.needs_reference() {
        flops += all(&|p| policy.base_flops(p));
        reference_tokens = policy_tokens + kl_tokens;
    }
    if !mismatched.is_empty() {
        // Once under the policy, once under the reference.
        let mismatched = Packed::of(mismatched);
        flops += policy.flops(&mismatched) + policy.base_flops(&mismatched);
    }
    Ledger {
        steps: 1,
        examples,
        labels: if objective.feedback() == Feedback::Paired { units.len() as u64 } else { examples },
        policy_tokens,
        completion_tokens: if scored { examples } else { sum(&|s| s.completion_len()) },
        computed_tokens: batches.iter().map(|m| m.packed.ids.len() as u64).sum(),
        kl_tokens,
        reference_tokens,
        flops,
        epochs: units.len() as f64 / of as f64,
        train_seconds: 0.0,
        reference_seconds: 0.0,
    }
}
