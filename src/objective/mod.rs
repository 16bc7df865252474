//! The methods: each a small file with its equation, paper and shapes. Pure: log-probs in, loss and
//! metrics out; the training loop knows nothing of any of them.
//!
//! Adding a method: a variant of [`crate::plan::Method`], a file here with its [`MethodInfo`], and its lines in `registry.rs`.

mod batch;
mod evaluate;
mod ops;
mod registry;

mod apo;
mod bco;
mod cdpo;
mod cpo;
mod csft;
mod dpo;
mod hinge;
mod ipo;
pub mod kto;
mod nca;
pub mod online;
mod orpo;
mod reward;
mod robust;
mod sft;
mod sigmoid_norm;
mod simpo;
mod slic;
mod sppo;
mod unlikelihood;

pub use batch::{Batch, ClassCounts, LogProbs, Side, StepContext, Terms};
pub use evaluate::{Evaluation, evaluate};
pub use registry::{Feedback, MethodInfo, Objective, build, info, methods};
pub use unlikelihood::log_complement;
