//! A plan expands, purely, into units of work.

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
        // A key that came later is left out where it says nothing: the ids of older records stay.
        let mut model = serde_json::to_value(&self.model).expect("specs are plain data");
        if let Some(model) = model.as_object_mut().filter(|_| !self.model.quantize.is_on()) {
            model.shift_remove("quantize");
        }
        let determines = (&arm.method, &arm.train, seed, &arm.budget, &model, &arm.data);
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
