//! Who says how good a sample is.

pub mod checks;
