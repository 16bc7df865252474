//! The planted-truth world: six kinds of task, a gold reward that the program knows, a pool of annotators
//! that answer well and badly, and preference labels with a stated noise. `suites/README.md` describes it.

mod build;
mod pool;
mod reward;
mod task;
mod tokenizer;
mod words;

pub use build::{World, WorldModel, WorldPrompt};
pub use pool::{Level, answer};
pub use reward::gold_reward;
pub use task::{Kind, Task};
