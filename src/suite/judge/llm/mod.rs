//! A language model as judge, behind any OpenAI-compatible endpoint.
//!
//! Every pair is played in both orders. What the endpoint answered is kept on disk by content, so that
//! nothing is paid for twice and an interrupted run goes on where it stopped.

mod cache;
mod client;
mod play;
mod template;

pub use cache::Reply;
pub use client::{Endpoint, Usage, read_completion};
pub use play::{LlmJudge, Tally};
pub use template::JudgeTemplate;
