//! What is to be run: a plan file becomes a [`Plan`] with every default explicit, and a plan expands purely
//! into [`RunSpec`]s with stable ids.
//!
//! Every key, its type and its default stand once, in [`types`](Plan) and `defaults.rs`; what a file or
//! `--set` gives is laid over the defaults (`overlay.rs`). A method's own keys stand in [`METHODS`].

mod check;
mod defaults;
mod expand;
mod methods;
mod overlay;
mod overrides;
mod range;
mod resolve;
mod shipped;
mod source;
mod trainer;
mod types;
mod write;

#[cfg(test)]
mod tests;

pub use check::{BASE_ARM, WORLD};
pub use defaults::JUDGE_KEY;
pub use methods::{Key, METHODS, MethodKeys, Takes, method_names};
pub use overrides::Overrides;
pub use range::Range;
pub use shipped::{DEFAULT_PLAN, SHIPPED, ShippedPlan};
pub use trainer::{fill, values};
pub use types::*;
