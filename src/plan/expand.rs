//! A plan expands, purely, into units of work.

use serde::Serialize;
use serde_json::{Value, json};

use super::types::*;
use crate::base::hash::Hasher;

impl Plan {
    /// One [`RunSpec`] an arm and seed, seed by seed: what is interrupted leaves whole comparisons, and slow
    /// drift of the machine meets every arm alike.
    pub fn runs(&self) -> Vec<RunSpec> {
        let mut runs = Vec::with_capacity(self.seeds.len() * self.arms.len());
        for &seed in &self.seeds {
            runs.extend(self.arms.iter().map(|arm| self.run(arm, seed)));
        }
        runs
    }

    fn run(&self, arm: &Arm, seed: u64) -> RunSpec {
        let model =
            section(&self.model, &[("quantize", json!("none")), ("reference_revision", json!("main"))]);
        let data = section(&arm.data, &[("heldout_split", json!("test")), ("heldout_fraction", json!(0.1))]);
        let determines = (&arm.method, arm.train.determining(), seed, &arm.budget, model, data);
        let mut bytes = serde_json::to_vec(&determines).expect("specs are plain data");
        if arm.sft_first > 0.0 {
            bytes.extend(arm.sft_first.to_le_bytes());
        }
        if let Some(tune) = &self.tune {
            bytes.extend(serde_json::to_vec(&(tune, &arm.tune)).expect("specs are plain data"));
        }
        let mut hash = Hasher::new("kto-eval/run").part(&bytes);
        if let Some(trainer) = &arm.trainer {
            hash = hash.part(&serde_json::to_vec(trainer).expect("specs are plain data"));
        }
        let hash = hash.short();
        RunSpec {
            id: format!("{}-s{seed}-{}", arm.name, &hash[..6]),
            arm: arm.clone(),
            seed,
            budget: arm.budget,
            model: self.model.clone(),
            data: arm.data.clone(),
        }
    }
}

/// A section as the ids of its runs see it: without the keys in `later`, which came after the first records, where they
/// say what held before them. The ids of older records stay.
fn section(spec: &impl Serialize, later: &[(&str, Value)]) -> Value {
    let mut section = serde_json::to_value(spec).expect("specs are plain data");
    if let Some(keys) = section.as_object_mut() {
        for (key, before) in later {
            if keys.get(*key) == Some(before) {
                keys.shift_remove(*key);
            }
        }
    }
    section
}

impl Budget {
    /// As the plan's key says it.
    pub fn currency(&self) -> &'static str {
        match self {
            Budget::Tokens(_) => "tokens",
            Budget::Examples(_) => "examples",
            Budget::Labels(_) => "labels",
            Budget::Steps(_) => "steps",
            Budget::Flops(_) => "flops",
            Budget::Seconds(_) => "seconds",
        }
    }

    /// A share of it; whole currencies are rounded down, and not below 1.
    pub fn part(&self, share: f64) -> Budget {
        let whole = |n: u64| ((n as f64 * share) as u64).max(1);
        match *self {
            Budget::Tokens(n) => Budget::Tokens(whole(n)),
            Budget::Examples(n) => Budget::Examples(whole(n)),
            Budget::Labels(n) => Budget::Labels(whole(n)),
            Budget::Steps(n) => Budget::Steps(whole(n)),
            Budget::Flops(x) => Budget::Flops(x * share),
            Budget::Seconds(x) => Budget::Seconds(x * share),
        }
    }

    /// What is left of it after `spent` of its currency.
    pub fn less(&self, spent: f64) -> Budget {
        let whole = |n: u64| n.saturating_sub(spent as u64);
        match *self {
            Budget::Tokens(n) => Budget::Tokens(whole(n)),
            Budget::Examples(n) => Budget::Examples(whole(n)),
            Budget::Labels(n) => Budget::Labels(whole(n)),
            Budget::Steps(n) => Budget::Steps(whole(n)),
            Budget::Flops(x) => Budget::Flops((x - spent).max(0.0)),
            Budget::Seconds(x) => Budget::Seconds((x - spent).max(0.0)),
        }
    }

    pub fn amount(&self) -> f64 {
        match *self {
            Budget::Tokens(n) | Budget::Examples(n) | Budget::Labels(n) | Budget::Steps(n) => n as f64,
            Budget::Flops(x) | Budget::Seconds(x) => x,
        }
    }
}

impl std::fmt::Display for Budget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.amount(), self.currency())
    }
}
