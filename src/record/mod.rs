//! The rows on disk: the contract between running and judging (columns: `reports/README.md`).

pub mod schema;

pub use schema::*;
