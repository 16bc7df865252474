//! Train policies with KTO, DPO and SFT under matched budgets, score them on held-out suites, and say
//! better, worse, equivalent or undecided.
//!
//! Data flows one way; a module may use only what stands to its left (`tests/layering.rs` holds that):
//!
//! ```text
//! base ─► plan ─► data ─► kernels ─► model ─► objective ─► train ─► suite ─► record ─► stats ─► report ─► gate ─► launch ─► cli
//! ```
//!
//! `record` is the contract between running and judging: `stats` and `report` work from the rows on disk
//! alone, so a report can be drawn again, or for rows that another trainer wrote.

pub mod base;
pub mod cli;
pub mod data;
pub mod gate;
pub mod kernels;
pub mod launch;
pub mod model;
pub mod objective;
pub mod plan;
pub mod record;
pub mod report;
pub mod stats;
pub mod suite;
pub mod train;
