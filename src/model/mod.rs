//! One decoder from shared blocks, families as descriptions, checkpoints in and out, packed log-probs with
//! an explicit backward pass, KV cache and generation.

pub mod adapter;
pub mod cache;
pub mod checkpoint;
pub mod config;
mod control;
pub mod decoder;
pub mod family;
pub mod generate;
pub mod gradients;
mod layer;
pub mod packed;
pub mod params;
pub mod peft;
mod quantize;
pub mod reward;
mod shards;
mod unread;

pub use adapter::{Adapter, Dropout};
pub use cache::KvCache;
pub use checkpoint::read_config;
pub use config::{DecoderConfig, Size};
pub use decoder::{Decoder, Tape};
pub use gradients::Gradients;
pub use packed::{Packed, Read, Segment};
pub use params::{Param, Piece};
pub use reward::RewardModel;
pub use shards::SHARD_BYTES;
