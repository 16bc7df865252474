//! Win rates from pairwise judgments, whoever made them: raw, length-controlled, Bradley-Terry, matrix.

mod bradley_terry;
mod length_control;
mod parse;
mod rate;
mod texts;

pub use bradley_terry::{Strength, bradley_terry};
pub use length_control::{LengthControl, length_controlled};
pub use parse::{Parsed, parse};
pub use rate::{Judgment, WinRate, WinRates, matrix, win_rate, winrate_file};
pub use texts::{Texts, texts};
