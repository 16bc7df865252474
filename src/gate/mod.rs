//! The gate: has a change to a trainer made training worse, slower or larger? Two record folders in, a
//! verdict a metric out. Everything here works from rows alone; measuring side by side is `launch`'s work.
//!
//! [`judge()`] is pure: sides, tolerances and history in, [`Findings`] out. One budget of false alarms
//! ([`Config::alarm`]) is shared among all metrics of a gate.

pub mod baseline;
pub mod config;
mod finding;
mod history;
mod judge;
mod like;
mod loss;
pub mod output;
mod quality;
mod side;
mod speed;
mod trajectory;

pub use config::Config;
pub use finding::{Finding, Findings, Kind};
pub use history::History;
pub use judge::judge;
pub use like::differences;
pub use quality::check;
pub use side::{REPEATS, Repeat, SESSION, Session, Side};

#[cfg(test)]
mod tests;
