//! What is to be run: a plan file becomes a [`Plan`] with every default explicit, and a plan expands purely
//! into [`RunSpec`]s with stable ids.

mod types;

pub use types::*;
