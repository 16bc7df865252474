//! `kto-eval compare [PLAN]`.

use std::path::Path;

use clap::Args;
use serde::Serialize;

use super::args::Common;
use super::interrupt;
use super::judge::JudgeOptions;
use super::output::{print, print_json};
use super::screen::Screen;
use super::tensorboard::Tensorboard;
use crate::base::error::Result;
use crate::base::exit::Exit;
use crate::launch;
use crate::plan::{DEFAULT_PLAN, Plan};
use crate::record::Records;

#[derive(Debug, Args)]
pub struct Options {
    /// Path of a plan, or name of a shipped one
    #[arg(default_value = DEFAULT_PLAN)]
    plan: String,
    /// Show the resolved plan and its runs, and spend nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    judge: JudgeOptions,
    /// Delete the records that the output folder holds
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    tensorboard: Tensorboard,
}

pub fn run(options: &Options, common: &Common) -> Result<Exit> {
    let plan = Plan::open(&options.plan, &options.judge.over(common.overrides()))?;
    if options.dry_run {
        return dry_run(&plan, common);
    }
    let (device, out) = (common.device()?, common.folder(&plan.name));
    interrupt::listen();
    let mut screen = Screen::new(common.quiet).events(options.tensorboard.folder(&out));
    let finished = launch::compare(&plan, device, &out, options.force, interrupt::flag(), &mut screen);
    screen.end();
    let finished = finished?;
    if finished.aborted {
        screen.say(&format!("interrupted; the same command goes on from here ({})", out.display()));
        return Ok(Exit::Interrupted);
    }
    let judged = launch::judge(&out)?;
    show(&out, &judged, common)?;
    Ok(if finished.lost == 0 && judged.invalid.is_none() { Exit::Done } else { Exit::VerdictFailed })
}

/// The table of arms and the verdicts (or all rows as JSON), and where the report is.
pub fn show(out: &Path, judged: &launch::Judged, common: &Common) -> Result<()> {
    if common.json {
        let records = Records::read(out)?;
        return print_json(&Summary {
            plan: &records.plan.name,
            report: judged.report.display().to_string(),
            invalid: judged.invalid.as_deref(),
            notes: &judged.notes,
            runs: &records.runs,
            comparisons: &records.comparisons,
        });
    }
    let notes: String = judged.notes.iter().map(|n| format!("{n}\n")).collect();
    print(&format!("{}\n{notes}report: {}\n", judged.summary.trim_end(), judged.report.display()))
}

#[derive(Serialize)]
struct Summary<'a> {
    plan: &'a str,
    report: String,
    /// Why there are no verdicts.
    invalid: Option<&'a str>,
    notes: &'a [String],
    runs: &'a [crate::record::RunRow],
    comparisons: &'a [crate::record::ComparisonRow],
}

fn dry_run(plan: &Plan, common: &Common) -> Result<Exit> {
    let runs = plan.runs();
    if common.json {
        print_json(&runs)?;
    } else {
        let ids: Vec<&str> = runs.iter().map(|r| r.id.as_str()).collect();
        let (n, budget) = (runs.len(), plan.budget);
        print(&format!("{}\n# {n} runs of {budget} each: {}\n", plan.to_toml(), ids.join(", ")))?;
    }
    Ok(Exit::Done)
}
