//! `kto-eval report DIR`.

use std::path::PathBuf;

use clap::Args;

use super::args::Common;
use super::compare::show;
use super::output::{print, print_json, width};
use crate::base::error::Result;
use crate::base::exit::Exit;
use crate::launch;
use crate::record::withhold_texts;

#[derive(Debug, Args)]
pub struct Options {
    /// The output folder of a comparison
    dir: PathBuf,
    /// Compute every figure of the report again, and fail where one differs from the CSVs
    #[arg(long)]
    check: bool,
    /// Copy the records to OUT without any prompt or completion, and draw the report there: to be passed on
    #[arg(long, value_name = "OUT", conflicts_with = "check")]
    without_texts: Option<PathBuf>,
}

pub fn run(options: &Options, common: &Common) -> Result<Exit> {
    common.only("report", &["--json"])?;
    if options.check {
        let differences = launch::check_report(&options.dir)?;
        let text: String = differences.iter().map(|d| format!("{d}\n")).collect();
        match common.json {
            true => print_json(&differences.iter().map(ToString::to_string).collect::<Vec<_>>())?,
            false => print(if text.is_empty() { "every figure follows from the records\n" } else { &text })?,
        }
        return Ok(if differences.is_empty() { Exit::Done } else { Exit::VerdictFailed });
    }
    let dir = options.without_texts.as_ref().unwrap_or(&options.dir);
    if options.without_texts.is_some() {
        withhold_texts(&options.dir, dir)?;
    }
    let judged = launch::judge(dir, width())?;
    show(dir, &judged, common)?;
    Ok(if judged.invalid.is_none() { Exit::Done } else { Exit::VerdictFailed })
}
