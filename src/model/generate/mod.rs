//! Batched, seeded sampling over a KV cache.

mod choice;
mod decoder;
mod decoding;
mod engine;
mod sampler;
mod stop;

pub use choice::{Chooser, choose};
pub use decoding::Decoding;
pub use engine::{Advance, Finish, Generated, Generation, Refused, Request, Text, generate};
pub use sampler::{Candidate, filter, sample_with_logp};
