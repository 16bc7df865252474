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
        let determines = (&arm.method, &arm.train, seed, &self.budget, &self.model, &self.data);
        let bytes = serde_json::to_vec(&determines).expect("specs are plain data");
        let mut hash = Hasher::new("kto-eval/run").part(&bytes);
        if let Some(trainer) = &arm.trainer {
            hash = hash.part(&serde_json::to_vec(trainer).expect("specs are plain data"));
        }
        let hash = hash.short();
        RunSpec {
            id: format!("{}-s{seed}-{}", arm.name, &hash[..6]),
            arm: arm.clone(),
            seed,
            budget: self.budget,
            model: self.model.clone(),
            data: self.data.clone(),
        }
    }
}

impl Budget {
    /// As the plan's key says it.
    pub fn currency(&self) -> &'static str {
        match self {
            Budget::Tokens(_) => "tokens",
            Budget::Examples(_) => "examples",
            Budget::Steps(_) => "steps",
            Budget::Flops(_) => "flops",
            Budget::Seconds(_) => "seconds",
        }
    }

    pub fn amount(&self) -> f64 {
        match *self {
            Budget::Tokens(n) | Budget::Examples(n) | Budget::Steps(n) => n as f64,
            Budget::Flops(x) | Budget::Seconds(x) => x,
        }
    }
}

impl std::fmt::Display for Budget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.amount(), self.currency())
    }
}
