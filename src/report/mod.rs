//! From records to what people read: charts (SVG and PNG), `report.md`, `report.html`, tables, and the
//! check that every figure in them follows from the CSVs.
//!
//! Works from records alone and judges nothing: differences, intervals, p values and verdicts are the rows
//! of `comparisons.csv`. What is computed here is for display: means and spread over seeds
//! ([`summary::Summary`]), bins of curves and histograms.
//!
//! Adding a chart: a file in `charts/` with a `pub const CHART: Chart`, and its line in [`charts::ALL`].

pub mod charts;
mod check;
mod check_rows;
mod content;
mod currencies;
mod figures;
mod format;
mod html;
mod input;
mod ledger;
mod markdown;
mod samples;
pub mod summary;
mod svg;
mod sweep;
mod tables;
mod terminal;
mod timing;
mod view;
mod write;

pub use check::{Difference, check, check_comparisons, check_input};
pub use figures::{Figures, MOST_APART};
pub use input::Input;
pub use ledger::apart;
pub use terminal::terminal_summary;
pub use write::{Paths, write};
