//! Examples in: readers, templates, tokenization with masks, seeded samplers, mismatched completions, the
//! planted-truth world.

mod bomb;
pub mod control;
mod dataset;
mod detect;
mod feedback;
mod heldout;
mod hinted;
mod hub;
mod inspect;
mod layout;
mod load;
mod mismatch;
mod parquet;
mod reader;
mod recipe;
mod rows;
mod sampler;
mod stream;
mod template;
mod tokenize;
mod tokenizer;
mod types;
pub mod world;

pub use control::Control;
pub use detect::detect;
pub use feedback::{Treated, split_prompts, treat, without};
pub use heldout::{carves, load_heldout, load_training, prompts};
pub use hub::{hide_progress, resolve_dataset, resolve_model};
pub use inspect::{Finding, Inspection, Others, Quantiles, inspect};
pub use layout::{names, pick};
pub use load::{Loaded, load, load_with, locate, split_or};
pub use mismatch::{mismatched, reversed};
pub use parquet::write_rows;
pub use recipe::{Recipe, recipes};
pub use sampler::{Sampler, SamplerState};
pub use stream::{Place, read_from, read_rows, read_text};
pub use template::{FUEL as TEMPLATE_FUEL, Template, begin_templates};
pub use tokenize::{tokenize_pairs, tokenize_unpaired};
pub use tokenizer::{Tokenizer, tokenizer_files};
pub use types::*;
