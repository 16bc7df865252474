//! What is measured on a trained model: preference suites (log-probs of given completions) and generation
//! suites (samples, judged).
//!
//! A suite is a TOML file ([`Suite`], format: `suites/README.md`); [`score`] runs one on one policy. The
//! starting checkpoint is scored first, with `base: None`; its result is then the `base` of every arm:
//!
//! ```text
//! let base = score(&mut ScoreContext { policy: &start, base: None, .. }, &suite)?;
//! for each run: score(&mut ScoreContext { policy: &trained, base: Some(&base), .. }, &suite)?;
//! ```

pub mod calibration;
mod check;
pub mod contamination;
pub mod definition;
pub mod estimate;
mod generation;
pub mod judge;
pub mod logps;
mod lots;
pub mod metric;
pub mod preference;
mod rows;
mod score;
pub mod scored;
mod sentinel;
pub mod shipped;
pub mod side_effects;

pub use contamination::{Contamination, WORDS, contamination};
pub use definition::{AnswerRule, Columns, FewShot, JudgeKind, Kind, OpponentKind, PairTemplates, Suite};
pub use generation::NO_JUDGE;
pub use logps::Policy;
pub use metric::{Aggregation, Direction, METRICS, Metric, MetricInfo};
pub use score::{Reference, ScoreContext, SuiteData, score, score_with};
pub use scored::{
    ALL, ExampleScore, Exclusion, Game, MetricScore, Opponent, Sample, ScoredSuite, SentinelScore,
};
pub use shipped::{ListedSuite, SHIPPED, ShippedSuite, find, find_any, shipped, show};
