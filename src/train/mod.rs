//! The one training loop: every method, the same code. Optimizer, schedule, ledger, reference cache,
//! run-time checks, checkpoint and resume.

mod adamw;
mod ahead;
mod batches;
mod checkpoint;
mod checks;
mod cost;
mod metrics;
mod micro;
mod mismatch;
pub mod online;
mod reference;
mod run;
mod schedule;
mod step;
mod units;
mod warm_up;

pub use adamw::{AdamW, AdamWState};
pub use checkpoint::{Checkpoints, Interval, Saved};
pub use checks::{Check, Outcome};
pub use cost::Ledger;
pub use metrics::StepMetrics;
pub use mismatch::mismatched_sequences;
pub use reference::{NotKept, Reference, ReferenceCache};
pub use run::{Ended, Hooks, Job, Progress, TrainOutcome, fingerprint, train, train_from};
pub use schedule::learning_rate;
pub use step::{StepInput, StepResult, compute_step};
pub use units::{TrainData, Unit, class_counts, units};
pub use warm_up::{Reads, warm_up};
