//! What every room may use: files written whole, errors with a remedy, exit codes, named seeds, content hashes, the
//! process group in front.

pub mod atomic;
pub mod cache;
pub mod caught;
pub mod error;
pub mod exit;
pub mod foreground;
pub mod hash;
pub mod seed;
