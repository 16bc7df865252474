//! Where runs execute: what they share is prepared once, each arm × seed is trained and scored, and its rows
//! are written as they are made.

mod bench;
mod compare;
mod contest;
mod device;
mod external;
mod judge;
mod llm;
mod measure;
mod memory;
mod merge;
mod observer;
mod prepare;
mod rows;
mod run;
mod score_data;
mod score_suites;
mod source;
mod train_one;
mod verify;
mod world_base;

pub use bench::{Bench, Phase, bench};
pub use compare::{Finished, compare};
pub use device::device;
pub use external::{Ended, Limits, Ran, Usage, run_tree};
pub use judge::{Judged, check_report, judge};
pub use measure::{Measurement, Program, measure};
pub use memory::PeakMemory;
pub use merge::merge;
pub use observer::{Observer, Silent};
pub use prepare::{Prepared, TrainingSet, prepare};
pub use run::{Trained, scored, trained};
pub use score_data::{ScoreRequest, score_data};
pub use score_suites::{SuiteRequest, SuiteScores, score_suites};
pub use source::{Opened, open, open_dir};
pub use train_one::{TrainFolder, train_one};
pub use verify::{Verified, verify};
