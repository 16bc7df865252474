//! `kto-eval verify PLAN`.

use std::sync::atomic::Ordering;

use clap::Args;

use super::args::{Common, PLANNED};
use super::interrupt;
use super::judge::JudgeOptions;
use super::output::{print, print_json, table};
use super::screen::Screen;
use crate::base::error::Result;
use crate::base::exit::Exit;
use crate::launch;
use crate::plan::{DEFAULT_PLAN, Plan};
use crate::train::Outcome;

#[derive(Debug, Args)]
pub struct Options {
    /// Path of a plan, or name of a shipped one
    #[arg(default_value = DEFAULT_PLAN)]
    plan: String,
    #[command(flatten)]
    judge: JudgeOptions,
}

pub fn run(options: &Options, common: &Common) -> Result<Exit> {
    common.only("verify", &PLANNED)?;
    let plan = Plan::open(&options.plan, &options.judge.over(common.overrides()))?;
    options.judge.only_asked(&launch::suites_of(&plan)?)?;
    let device = common.device()?;
    interrupt::listen();
    let mut screen = Screen::new(common.quiet);
    let verified = launch::verify(&plan, device, interrupt::flag(), &mut screen);
    screen.end();
    let verified = verified?;
    if common.json {
        print_json(&verified)?;
    } else {
        let mut rows = vec![];
        for arm in &verified {
            for check in &arm.checks {
                let outcome = match check.outcome {
                    Outcome::Passed => "passed",
                    Outcome::Failed => "FAILED",
                    Outcome::NotApplicable => "n/a",
                };
                rows.push(vec![arm.arm.clone(), outcome.into(), check.name.into(), check.detail.clone()]);
            }
        }
        print(&table(&rows))?;
    }
    if interrupt::flag().load(Ordering::Relaxed) {
        screen.say("interrupted: the arms that are missing were not verified");
        return Ok(Exit::Interrupted);
    }
    let failed = verified.iter().flat_map(|a| &a.checks).any(|c| c.outcome == Outcome::Failed);
    Ok(if failed { Exit::VerdictFailed } else { Exit::Done })
}
