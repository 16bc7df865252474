//! The rows on disk: the contract between running and judging (columns: `reports/README.md`).
//!
//! A run's row in `runs.csv` is written last; a run without one is unfinished, and its other rows are
//! dropped when the folder is opened again (its steps only up to the checkpoint that it goes on from).

mod clear;
mod environment;
mod events;
mod folder;
mod gather;
mod hold;
mod names;
mod reader;
pub mod schema;
mod scores;
mod table;
#[cfg(test)]
mod tests;
mod trials;
mod usage;
mod withhold;
mod writer;

pub use clear::charts_of;
pub use environment::{Environment, Overlap, Texts};
pub use events::{EventFile, masked_crc};
pub use folder::files;
pub use gather::{Gathered, counted, finished_runs, plan_of, recorded_runs};
pub use hold::RecordHold;
pub use names::metric_words;
pub use reader::Records;
pub use schema::*;
pub use scores::{LogpRow, ScoreFolder};
pub use trials::{TrialRow, TrialWriter, read_trials};
pub use usage::JudgeUsage;
pub use withhold::withhold_texts;
pub use writer::{RecordWriter, replace_comparisons, replace_contests};
