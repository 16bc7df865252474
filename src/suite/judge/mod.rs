//! Who says how good a sample is: one trait, one file a judge.

pub mod checks;
mod exact;
mod gold;
mod instructions;
pub mod llm;
mod reward;
mod task;

pub use exact::ExactMatch;
pub use gold::Gold;
pub use instructions::Instructions;
pub use reward::RewardJudge;
pub use task::{Grade, Judge, Match, Outcome, Task, by_reward};
