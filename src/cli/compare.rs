//! `kto-eval compare [PLAN]`.

use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;
use serde_json::json;

use super::args::Common;
use super::every::CheckpointOptions;
use super::interrupt;
use super::judge::JudgeOptions;
use super::launcher::LauncherOptions;
use super::output::{print, print_json, width};
use super::screen::{Screen, clock};
use super::tensorboard::Tensorboard;
use crate::base::error::{HintExt, Result, anyhow};
use crate::base::exit::Exit;
use crate::launch;
use crate::plan::{DEFAULT_PLAN, Overrides, Plan, Shard, WORLD};
use crate::record::{Records, files};

#[derive(Debug, Args)]
pub struct Options {
    /// Path of a plan, or name of a shipped one [default: quickstart]
    plan: Option<String>,
    /// Go on with the comparison in this folder, by the plan that it holds
    #[arg(long, value_name = "DIR", conflicts_with_all = ["plan", "force", "dry_run", "out"])]
    resume: Option<PathBuf>,
    /// Show the resolved plan and its runs, and spend nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    judge: JudgeOptions,
    /// Delete the records that the output folder holds
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    checkpoints: CheckpointOptions,
    /// Do the i-th of n shares of the runs, in <out>/shards/<i>-of-<n>; `kto-eval gather` merges them
    #[arg(long, value_name = "i/n", conflicts_with_all = ["resume", "dry_run", "launcher"])]
    shard: Option<Shard>,
    /// Leave runs that failed as they are: the launcher's own, whose shards may be begun several times
    #[arg(long, hide = true, requires = "shard")]
    leave_failed: bool,
    #[command(flatten)]
    launcher: LauncherOptions,
    #[command(flatten)]
    tensorboard: Tensorboard,
}

pub fn run(options: &Options, common: &Common) -> Result<Exit> {
    let plan = match &options.resume {
        Some(dir) => resumed(dir, options, common)?,
        None => named(options, common)?,
    };
    options.judge.only_asked(&launch::suites_of(&plan)?)?;
    if options.dry_run {
        return dry_run(&plan, common);
    }
    let whole = options.resume.clone().unwrap_or_else(|| common.folder(&plan.name));
    let out = match options.shard {
        Some(shard) => whole.join(files::SHARDS).join(shard.folder()),
        None => whole,
    };
    interrupt::listen();
    let mut screen = Screen::new(common.quiet).events(options.tensorboard.folder(&out));
    let conduct = launch::Conduct {
        force: options.force,
        checkpoints: options.checkpoints.interval(),
        shard: options.shard,
        leave_failed: options.leave_failed,
    };
    let finished = match options.launcher.items(common, options.checkpoints.text(), plan.runs().len())? {
        Some((launcher, items)) => launcher.compare(&plan, &out, &items, options.force, &mut screen),
        None => launch::compare(&plan, common.device()?, &out, conduct, interrupt::flag(), &mut screen),
    };
    screen.end();
    let finished = finished?;
    if finished.aborted {
        screen.say(&format!("interrupted; the same command goes on from here ({})", out.display()));
        return Ok(Exit::Interrupted);
    }
    if let Some(shard) = options.shard {
        let (done, lost) = (finished.done, finished.lost);
        match common.json {
            true => {
                print_json(&json!({"shard": shard.to_string(), "done": done, "lost": lost, "rows": out}))?
            }
            false => {
                print(&format!("shard {shard}: {done} runs done, {lost} lost; rows: {}\n", out.display()))?;
            }
        }
        return Ok(if lost == 0 { Exit::Done } else { Exit::VerdictFailed });
    }
    let judged = launch::judge(&out, width())?;
    show(&out, &judged, common)?;
    Ok(if finished.lost == 0 && judged.invalid.is_none() { Exit::Done } else { Exit::VerdictFailed })
}

/// The plan that the command line names.
fn named(options: &Options, common: &Common) -> Result<Plan> {
    if options.plan.is_none()
        && [&common.model, &common.data].iter().all(|o| o.as_ref().is_some_and(|s| s != WORLD))
    {
        return Err(anyhow!("no plan is named, and `{DEFAULT_PLAN}` is about the embedded world"))
            .hint("name one, such as hh-harmless (kto-eval plan list), or write one with kto-eval init");
    }
    Plan::open(options.plan.as_deref().unwrap_or(DEFAULT_PLAN), &options.judge.over(common.overrides()))
}

/// The plan of a folder that is to be gone on with.
fn resumed(dir: &Path, options: &Options, common: &Common) -> Result<Plan> {
    if common.overrides() != Overrides::default() {
        return Err(anyhow!("--resume {} goes on with the folder's own plan", dir.display()))
            .hint("leave --set, --model, --data and --seed away, or name the plan in place of --resume");
    }
    let path = dir.join(files::PLAN);
    if !path.exists() {
        return Err(anyhow!("--resume: {} holds no comparison (no {})", dir.display(), files::PLAN))
            .hint("name a folder that `kto-eval compare` wrote (its --out)");
    }
    // A judge's server may have moved; one of another name is refused where the folder is opened.
    Plan::open(&path.display().to_string(), &options.judge.over(Overrides::default()))
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
    let cost = launch::estimate(plan, &common.device()?)?;
    if common.json {
        print_json(&json!({"runs": runs, "estimate": cost}))?;
        return Ok(Exit::Done);
    }
    let ids: Vec<&str> = runs.iter().map(|r| r.id.as_str()).collect();
    print(&format!("{}\n{}# runs: {}\n", plan.to_toml(), costs(plan, &cost), ids.join(", ")))?;
    Ok(Exit::Done)
}

/// The estimate as comment lines below the plan.
fn costs(plan: &Plan, cost: &launch::Estimate) -> String {
    let trials =
        if cost.trials > 0 { format!(" and {} trials of tuning", cost.trials) } else { String::new() };
    let (arms, seeds) = (cost.arms, plan.seeds.len());
    let least = plan.arms.iter().map(|a| a.budget.amount()).fold(plan.budget.amount(), f64::min);
    let from = if least < plan.budget.amount() { format!("{least} to ") } else { String::new() };
    let budget = format!("{from}{}", plan.budget);
    let mut lines =
        vec![format!("{} runs ({arms} arms × {seeds} seeds) of {budget} each{trials}", cost.runs)];
    let unknown = || "not known".to_owned();
    let tokens = cost.tokens.map_or_else(unknown, |t| format!("{:.2} million", t / 1e6));
    lines.push(format!("policy tokens: {tokens}"));
    let time =
        cost.seconds.map_or_else(unknown, |s| format!("about {} on this machine, if it is idle", clock(s)));
    lines.push(format!("time: {time}"));
    lines.push(format!("memory: {}", cost.host_mib.map_or_else(unknown, |m| format!("about {m:.0} MiB"))));
    lines.extend(cost.money.map(|m| format!("money: about {m:.2} {}", plan.prices.currency)));
    lines.extend(cost.notes.iter().map(|n| format!("({n})")));
    lines.iter().map(|line| format!("# {line}\n")).collect()
}
