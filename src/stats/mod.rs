//! Estimates and verdicts: pure, seeded, from rows alone (why these statistics: `reports/METHODOLOGY.md`).
//!
//! A comparison is a [`Paired`] design of seeds × prompts; [`Components`] splits its variance, [`Law`] gives
//! interval and p-values, [`verdicts()`] judges every comparison of a plan together.

pub mod bootstrap;
pub mod claims;
pub mod components;
pub mod design;
pub mod distribution;
pub mod equivalence;
pub mod gate;
pub mod holm;
pub mod judge;
pub mod law;
pub mod mcnemar;
pub mod parting;
pub mod permutation;
pub mod power;
pub mod signed_rank;
pub mod standing;
pub mod table;
pub mod tuning;
pub mod verdicts;
pub mod winrate;
mod words;

pub use claims::{Claim, Finding, claims};
pub use components::Components;
pub use design::Paired;
pub use equivalence::Events;
pub use holm::holm;
pub use law::{Interval, Law};
pub use verdicts::{verdicts, verdicts_among};
