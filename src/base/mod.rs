//! What every room may use: errors with a remedy, exit codes, named seeds, content hashes, the
//! process group in front.

pub mod cache;
pub mod caught;
pub mod error;
pub mod exit;
pub mod foreground;
pub mod hash;
pub mod seed;
