//! Examples in: readers, templates, tokenization with masks, seeded samplers, mismatched completions, the
//! planted-truth world.

pub mod types;

pub use types::*;
