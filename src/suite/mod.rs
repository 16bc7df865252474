//! What is measured on a trained model: preference suites (log-probs of given completions) and generation
//! suites (samples, judged).
//!
//! A suite is a TOML file ([`Suite`], format: `suites/README.md`).

pub mod definition;
pub mod metric;
pub mod shipped;

pub use definition::{Columns, FewShot, JudgeKind, Kind, OpponentKind, Suite};
pub use metric::{Aggregation, Direction, METRICS, Metric, MetricInfo};
pub use shipped::{ListedSuite, SHIPPED, ShippedSuite, find, shipped, show};
