//! Who watches a comparison: the command line draws it, tests stay silent.

use crate::plan::RunSpec;
use crate::record::{RunRow, ScoreRow, StepRow};
use crate::train::Progress;

/// Told what happens, as it happens. Nothing that is told here affects what is computed.
pub trait Observer {
    /// A stage of the work begins (`training the world's base checkpoint`, `scoring base on world`).
    fn stage(&mut self, _what: &str) {}

    /// Something that a person should know: rows left out, sequences cut, a cache that cannot be written.
    fn note(&mut self, _text: &str) {}

    /// Run `index` of `total` begins.
    fn run_begins(&mut self, _run: &RunSpec, _index: usize, _total: usize) {}

    /// How far the training under way is (a run's, or the base checkpoint's).
    fn training(&mut self, _progress: Progress) {}

    /// A step of the run under way, as `steps.csv` has it.
    fn step(&mut self, _row: &StepRow) {}

    /// The scores of the run under way on one suite, as `scores.csv` has them.
    fn scored(&mut self, _rows: &[ScoreRow]) {}

    /// The run under way ended, well or not.
    fn run_ends(&mut self, _row: &RunRow) {}
}

/// Watches nothing.
pub struct Silent;

impl Observer for Silent {}
