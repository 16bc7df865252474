//! Exit codes of the command line.

use std::process::ExitCode;

/// How a command ended. Scripts and CI may rely on these numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// 0: the work is done and every check passed.
    Done = 0,
    /// 1: the work is done, and a verdict or a check failed (an invalid comparison, a diverged arm, a
    /// regression at the gate).
    VerdictFailed = 1,
    /// 2: the command could not do its work: usage, input or environment.
    InputError = 2,
    /// 130: interrupted by SIGINT or SIGTERM after saving what was done.
    Interrupted = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit as u8)
    }
}
