//! From arguments to an exit code.

use std::process::ExitCode;

use clap::Parser;

use super::args::{Cli, Verb};
use super::{
    baseline, bench, compare, data, gate, gather, init, merge, methods, plan, report, reward, score, suites,
    train, verify, winrate,
};
use crate::base::error::{Result, render};
use crate::base::exit::Exit;

/// The program. Usage errors are clap's, with exit code 2.
pub fn main() -> ExitCode {
    if crate::data::begin_templates() {
        return Exit::Done.into();
    }
    let Cli { verb, common } = Cli::parse();
    if common.quiet {
        crate::data::hide_progress();
    }
    let result: Result<Exit> = match &verb {
        Verb::Compare(options) => compare::run(options, &common),
        Verb::Train(options) => train::run(options, &common),
        Verb::Score(options) => score::run(options, &common),
        Verb::Gather(options) => gather::run(options, &common),
        Verb::Reward(options) => reward::run(options, &common),
        Verb::Report(options) => report::run(options, &common),
        Verb::Suites(verb) => suites::run(verb, &common),
        Verb::Winrate(options) => winrate::run(options, &common),
        Verb::Verify(options) => verify::run(options, &common),
        Verb::Bench(options) => bench::run(options, &common),
        Verb::Methods => methods::run(&common),
        Verb::Data(verb) => data::run(verb, &common),
        Verb::Merge(options) => merge::run(options, &common),
        Verb::Gate(options) => gate::run(options, &common),
        Verb::Baseline(verb) => baseline::run(verb, &common),
        Verb::Init(options) => init::run(options, &common),
        Verb::Plan(verb) => plan::run(verb, &common),
    };
    match result {
        Ok(exit) => exit.into(),
        Err(error) => {
            eprintln!("error: {}", render(&error));
            Exit::InputError.into()
        }
    }
}
