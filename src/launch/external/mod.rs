//! Trainers that are commands: given data and a checkpoint, measured from outside, and scored by what they leave.

mod data;
#[cfg(unix)]
mod device_memory;
mod log;
mod metrics;
mod model;
#[cfg(unix)]
mod nvml;
mod process;
mod train;
#[cfg(target_os = "linux")]
mod tree;

pub use metrics::read as read_trainer_metrics;
pub use process::{Ended, Limits, Ran, Usage, run_tree};
pub(super) use train::{check_trainer, trained};
