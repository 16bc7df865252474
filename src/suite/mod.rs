//! What is measured on a trained model: preference suites (log-probs of given completions) and generation
//! suites (samples, judged).
//!
//! A suite is a TOML file ([`Suite`], format: `suites/README.md`).

pub mod calibration;
pub mod definition;
pub mod estimate;
pub mod judge;
pub mod logps;
pub mod metric;
pub mod preference;
pub mod scored;
pub mod shipped;

pub use definition::{Columns, FewShot, JudgeKind, Kind, OpponentKind, Suite};
pub use logps::Policy;
pub use metric::{Aggregation, Direction, METRICS, Metric, MetricInfo};
pub use scored::{ALL, ExampleScore, Exclusion, MetricScore, Opponent, Sample, ScoredSuite, SentinelScore};
pub use shipped::{ListedSuite, SHIPPED, ShippedSuite, find, shipped, show};
