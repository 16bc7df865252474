//! How an arm is trained: optimizer, batches, schedule, adapters.

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrainSpec {
    /// Completions a step (a pair counts two).
    pub batch_size: usize,
    /// Most tokens computed at once; the step is split into micro-batches of at most this many (a single
    /// longer sequence goes alone). Bounds activation memory; does not change the update. 512 keeps two cores as
    /// busy as 4,096 in a third less memory (27 M parameters); a GPU wants more.
    pub micro_tokens: usize,
    /// Keep the input of each layer only and compute the rest again in backward: a third more work for a part of the
    /// activation memory. Does not change a bit of the update.
    pub gradient_checkpointing: bool,
    pub order: Order,
    pub learning_rate: f64,
    pub schedule: Schedule,
    /// Share of the budget during which the learning rate rises linearly from 0, in [0, 1).
    pub warmup: f64,
    pub adam_beta1: f64,
    pub adam_beta2: f64,
    pub adam_epsilon: f64,
    pub weight_decay: f64,
    /// Global gradient norm is clipped to this; 0: no clipping.
    pub max_grad_norm: f64,
    /// Train low-rank side paths and leave the weights as they are.
    pub lora: LoraSpec,
}

impl TrainSpec {
    /// As JSON, without what changes no bit of a run: part of what a run, or a checkpoint of it, is known by.
    pub fn determining(&self) -> serde_json::Value {
        let mut spec = serde_json::to_value(self).expect("specs are plain data");
        if let Some(keys) = spec.as_object_mut() {
            keys.shift_remove("gradient_checkpointing");
        }
        spec
    }
}

/// Every projection of every layer, as an entry of [`LoraSpec::target_modules`].
pub const ALL_LINEAR: &str = "all-linear";

/// LoRA (Hu et al. 2021, arXiv 2106.09685), with PEFT's names.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LoraSpec {
    /// r; 0: no adapter, all weights are trained.
    pub rank: usize,
    /// The side path is scaled by α/r.
    pub alpha: f64,
    /// Share of a side path's inputs that is dropped in training, in [0, 1).
    pub dropout: f64,
    /// Modules by the end of their name (`q_proj`, `mlp.down_proj`), or `all-linear`.
    pub target_modules: Vec<String>,
    /// Scale by α/√r instead (Kalajdzievski 2023, arXiv 2312.03732).
    pub use_rslora: bool,
}

impl LoraSpec {
    /// Whether there is an adapter at all.
    pub fn is_on(&self) -> bool {
        self.rank > 0
    }

    /// α/r, or α/√r.
    pub fn scale(&self) -> f64 {
        let r = self.rank as f64;
        self.alpha / if self.use_rslora { r.sqrt() } else { r }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Order {
    /// A new seeded permutation each epoch.
    Shuffled,
    /// As in the file, again from the start when it ends.
    Sequential,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Schedule {
    Constant,
    /// Falls linearly to 0 over the budget.
    Linear,
    /// Falls as a half cosine to 0 over the budget.
    Cosine,
}
