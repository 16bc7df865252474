//! One decoder from shared blocks, families as descriptions, checkpoints in and out, packed log-probs with
//! an explicit backward pass, KV cache and generation.

pub mod generate;
pub mod packed;

pub use packed::{Packed, Read, Segment};
