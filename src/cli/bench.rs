//! `kto-eval bench [PLAN]`: how fast this machine trains and samples with a model and data.

use std::sync::atomic::Ordering;

use clap::Args;

use super::args::{Common, PLANNED};
use super::interrupt;
use super::output::{figures, print, print_json};
use super::screen::Screen;
use crate::base::error::Result;
use crate::base::exit::Exit;
use crate::launch::{self, Bench};
use crate::plan::{DEFAULT_PLAN, Plan, WORLD};

#[derive(Debug, Args)]
pub struct Options {
    /// Path of a plan, or name of a shipped one: its model, data and arms are measured [default: quickstart; with --data
    /// and without a plan sequences are cut at 512 tokens]
    plan: Option<String>,
    /// Time to spend, all phases together
    #[arg(long, default_value_t = 45, value_name = "S", value_parser = clap::value_parser!(u32).range(1..=36_000))]
    seconds: u32,
}

pub fn run(options: &Options, common: &Common) -> Result<Exit> {
    common.only("bench", &PLANNED)?;
    let mut overrides = common.overrides();
    if options.plan.is_none() && common.data.as_ref().is_some_and(|data| data != WORLD) {
        // The world's sentences are short.
        overrides.set.insert(0, "data.max_length=512".to_owned());
    }
    let plan = Plan::open(options.plan.as_deref().unwrap_or(DEFAULT_PLAN), &overrides)?;
    let device = common.device()?;
    interrupt::listen();
    let mut screen = Screen::new(common.quiet);
    let bench = launch::bench(&plan, device, f64::from(options.seconds), interrupt::flag(), &mut screen);
    screen.end();
    let bench = bench?;
    if common.json {
        print_json(&bench)?;
    } else {
        print(&shown(&bench))?;
    }
    if interrupt::flag().load(Ordering::Relaxed) {
        screen.say("interrupted: the phases that are missing were not measured");
        return Ok(Exit::Interrupted);
    }
    Ok(Exit::Done)
}

fn shown(bench: &Bench) -> String {
    let head = ["phase", "tokens/s", "ms", "tokens", "times", "GFLOP/s", "of peak", "extra MiB"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for p in &bench.phases {
        rows.push(vec![
            p.phase.clone(),
            format!("{:.0}", p.tokens_per_second),
            format!("{:.1}", p.seconds * 1e3),
            p.tokens.to_string(),
            p.repetitions.to_string(),
            p.gflops.map_or("–".into(), |g| format!("{g:.1}")),
            p.share_of_peak.map_or("–".into(), |s| format!("{:.0} %", 100.0 * s)),
            format!("{:.0}", p.extra_mib),
        ]);
    }
    format!(
        "{}: {:.1} M parameters, sequences cut at {} tokens, {} with {} threads, fp32 product peak {:.0} GFLOP/s, \
         {:.0} MiB loaded\n\n{}",
        bench.model,
        bench.parameters as f64 / 1e6,
        bench.max_length,
        bench.device,
        bench.threads,
        bench.peak_gflops,
        bench.loaded_mib,
        figures(&rows)
    )
}
