//! What is to be run: a plan file becomes a [`Plan`] with every default explicit, and a plan expands purely
//! into [`RunSpec`]s with stable ids.
//!
//! Every key, its type and its default stand once, in [`types`](Plan) and `defaults.rs`; what a file or
//! `--set` gives is laid over the defaults (`overlay.rs`). A method's own keys stand in [`METHODS`].

mod check;
mod defaults;
mod expand;
mod hyperparameters;
mod inputs;
mod methods;
mod online;
mod overlay;
mod overrides;
mod range;
mod resolve;
mod shard;
mod shipped;
mod slurm;
mod source;
mod sweep;
mod trainer;
mod training;
mod trials;
mod tuning;
mod types;
mod write;

#[cfg(test)]
mod tests;

pub use check::{BASE_ARM, WORLD};
pub use defaults::JUDGE_KEY;
pub use methods::{Key, METHODS, MethodKeys, Takes, method_names};
pub use online::{OnlineSpec, RewardFrom};
pub use overrides::Overrides;
pub use range::Range;
pub use shard::Shard;
pub use shipped::{DEFAULT_PLAN, SHIPPED, ShippedPlan};
pub use slurm::SlurmSpec;
pub use sweep::{Axis, Point};
pub use trainer::{fill, values};
pub use trials::Trial;
pub use types::*;
