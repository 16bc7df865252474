//! What every room may use: errors with a remedy, exit codes, named seeds, content hashes.

pub mod cache;
pub mod error;
pub mod exit;
pub mod hash;
pub mod seed;
