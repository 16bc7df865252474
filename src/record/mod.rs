//! The rows on disk: the contract between running and judging (columns: `reports/README.md`).
//!
//! A run's row in `runs.csv` is written last; a run without one is unfinished, and its other rows are
//! dropped when the folder is opened again.

mod environment;
mod folder;
mod reader;
pub mod schema;
mod table;
#[cfg(test)]
mod tests;
mod trials;
mod writer;

pub use environment::Environment;
pub use folder::files;
pub use reader::Records;
pub use schema::*;
pub use trials::{TrialRow, TrialWriter, read_trials};
pub use writer::{RecordWriter, replace_comparisons};
