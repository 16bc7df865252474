//! The one training loop: every method, the same code. Optimizer, schedule, ledger, reference cache,
//! run-time checks, checkpoint and resume.

mod adamw;
mod checks;
mod cost;
mod metrics;
mod micro;
mod reference;
mod run;
mod schedule;
mod step;
mod units;

pub use adamw::{AdamW, AdamWState};
pub use checks::{Check, Outcome};
pub use cost::Ledger;
pub use metrics::StepMetrics;
pub use reference::{Reference, ReferenceCache};
pub use run::{Ended, Hooks, Job, Progress, TrainOutcome, train};
pub use schedule::learning_rate;
pub use step::{StepResult, compute_step};
pub use units::{TrainData, Unit, units};
