//! `kto-eval gate`: verdicts on two record folders; `kto-eval gate measure`: makes two that can be compared.

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::json;

use super::args::Common;
use super::interrupt;
use super::output::{print, print_json, table};
use super::screen::Screen;
use crate::base::error::{Context, HintExt, Result, anyhow};
use crate::base::exit::Exit;
use crate::gate::baseline::locate;
use crate::gate::{Config, Findings, History, Side, check, differences, judge, output};
use crate::launch::{self, Measurement, Program};
use crate::plan::Plan;

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Options {
    #[command(subcommand)]
    verb: Option<Verb>,
    /// Record folder or saved baseline to compare with (its folder, or its name below baselines/)
    #[arg(long, value_name = "DIR", required = true)]
    baseline: Option<PathBuf>,
    /// Record folder to judge
    #[arg(long, value_name = "DIR", required = true)]
    candidate: Option<PathBuf>,
    /// Tolerances [default: gate.toml, where there is one]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Folder of earlier gates' results, from which noise is learned
    #[arg(long, value_name = "DIR")]
    history: Option<PathBuf>,
    /// Add this gate's result to the history
    #[arg(long, requires = "history")]
    record: bool,
    /// Compare although device, data, model, budget or suites differ
    #[arg(long)]
    allow_different: bool,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run a plan with two programs, turn about, into OUT/baseline and OUT/candidate
    Measure(Measure),
}

#[derive(Debug, Args)]
struct Measure {
    /// Path of a plan, or name of a shipped one
    plan: String,
    /// Program of the baseline [default: this one]
    #[arg(long, value_name = "FILE")]
    baseline_bin: Option<PathBuf>,
    /// Program of the candidate [default: this one]
    #[arg(long, value_name = "FILE")]
    candidate_bin: Option<PathBuf>,
    /// Plan of the baseline, where it has one of its own [default: PLAN]
    #[arg(long, value_name = "PLAN")]
    baseline_plan: Option<String>,
    /// Folder that the baseline runs in: where a plan's arms are commands, another checkout of the trainer
    #[arg(long, value_name = "DIR", default_value = ".")]
    baseline_dir: PathBuf,
    /// Folder that the candidate runs in
    #[arg(long, value_name = "DIR", default_value = ".")]
    candidate_dir: PathBuf,
    /// A key of the plan for the baseline alone (repeatable)
    #[arg(long, value_name = "KEY=VALUE")]
    baseline_set: Vec<String>,
    /// A key of the plan for the candidate alone (repeatable)
    #[arg(long, value_name = "KEY=VALUE")]
    candidate_set: Vec<String>,
    /// Timed rounds a side
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u16).range(2..=99))]
    rounds: u16,
    /// Measure although both sides are one program under one plan: what chance alone does
    #[arg(long)]
    same: bool,
    /// Limit of one run of one side
    #[arg(long, value_name = "SECONDS", default_value_t = 3600.0)]
    timeout: f64,
}

pub fn run(options: &Options, common: &Common) -> Result<Exit> {
    if let Some(Verb::Measure(measure)) = &options.verb {
        return self::measure(measure, common);
    }
    common.only("gate", &["--out", "--json"])?;
    let folder = |dir: &Option<PathBuf>, what: &str| {
        dir.clone().ok_or_else(|| anyhow!("gate takes --{what} DIR")).hint("see `kto-eval gate --help`")
    };
    let (baseline, candidate) =
        (folder(&options.baseline, "baseline")?, folder(&options.candidate, "candidate")?);
    let config = config(options.config.as_deref())?;
    let history = options.history.as_deref().map(History::read).transpose()?.unwrap_or_default();
    let (baseline, candidate) = (Side::read(&locate(&baseline))?, Side::read(&candidate)?);
    check(&config, &baseline)?;
    let (refused, _) = differences(&baseline, &candidate);
    if !refused.is_empty() && !options.allow_different {
        return Err(anyhow!("the sides are not alike: {}", refused.join("; ")))
            .hint("save a new baseline, or give --allow-different");
    }
    let findings = judge(&baseline, &candidate, &config, &history, refused);
    let out = common.folder("gate");
    output::write(&out, &findings)?;
    if let (true, Some(history)) = (options.record, &options.history) {
        History::save(history, &findings)?;
    }
    publish(&findings)?;
    show(&findings, &out, common)?;
    Ok(if findings.fails { Exit::VerdictFailed } else { Exit::Done })
}

/// `--config`, else `gate.toml` of the current folder, else the defaults.
fn config(path: Option<&Path>) -> Result<Config> {
    let here = Path::new("gate.toml");
    match path {
        Some(path) => Config::open(path),
        None if here.exists() => Config::open(here),
        None => Ok(Config::default()),
    }
}

/// To GitHub Actions, where this runs there.
fn publish(findings: &Findings) -> Result<()> {
    let append = |variable: &str, text: &str| -> Result<()> {
        let Some(path) = std::env::var_os(variable).filter(|p| !p.is_empty()) else { return Ok(()) };
        let file = std::fs::OpenOptions::new().create(true).append(true).open(&path);
        file.and_then(|mut f| f.write_all(text.as_bytes()))
            .with_context(|| format!("writing ${variable}, {}", Path::new(&path).display()))
    };
    append("GITHUB_STEP_SUMMARY", &output::markdown(findings))?;
    append("GITHUB_OUTPUT", &format!("verdict={}\n", findings.verdict.name()))?;
    if std::env::var("GITHUB_ACTIONS").is_ok_and(|v| v == "true") {
        // To stderr: stdout is for the result, and the runner reads commands from both.
        eprint!("{}", output::annotations(findings));
    }
    Ok(())
}

fn show(findings: &Findings, out: &Path, common: &Common) -> Result<()> {
    if common.json {
        return print_json(findings);
    }
    let rows: Vec<Vec<String>> = findings
        .findings
        .iter()
        .map(|f| vec![f.verdict.name().to_owned(), f.id.clone(), f.words.clone()])
        .collect();
    let notes: String = findings.notes.iter().map(|n| format!("note: {n}\n")).collect();
    print(&format!("{}{notes}gate: {}\nresults: {}\n", table(&rows), findings.verdict.name(), out.display()))
}

fn measure(options: &Measure, common: &Common) -> Result<Exit> {
    let here = std::env::current_exe().context("finding this program")?;
    let sets =
        |sets: &[String]| sets.iter().flat_map(|s| ["--set".to_owned(), s.clone()]).collect::<Vec<_>>();
    let program = |binary: &Option<PathBuf>, dir: &Path, plan: &str, set: &[String]| {
        let binary = binary.clone().unwrap_or_else(|| here.clone());
        Program::new(binary, dir.to_owned(), placed(plan)?, sets(set))
    };
    let own = options.baseline_plan.as_ref().unwrap_or(&options.plan);
    let baseline = program(&options.baseline_bin, &options.baseline_dir, own, &options.baseline_set)?;
    let candidate =
        program(&options.candidate_bin, &options.candidate_dir, &options.plan, &options.candidate_set)?;
    let plans = [
        side_plan(common, own, &options.baseline_set)?,
        side_plan(common, &options.plan, &options.candidate_set)?,
    ];
    if !options.same && launch::are_one(&baseline, &candidate, [&plans[0], &plans[1]]) {
        return Err(anyhow!("baseline and candidate are one program under one plan: nothing but chance could part them"))
            .hint("name --candidate-bin, --candidate-dir (where arms are commands or files are the folder's own), \
                   --candidate-set or --baseline-plan; or give --same, to see what chance does on this machine");
    }
    let plan = &plans[1];
    let measurement = Measurement {
        baseline,
        candidate,
        rounds: options.rounds.into(),
        options: forwarded(common),
        // Scoring is not what is timed; a plan with no suite would be refused.
        round_options: vec![
            // Unlike --seed, a later one takes the place of an earlier one.
            "--set".to_owned(),
            format!("seeds=[{}]", plan.seeds[0]),
            "--set".to_owned(),
            "suites.max_examples=4".to_owned(),
        ],
        timeout_seconds: options.timeout,
    };
    let out = common.folder("gate");
    interrupt::listen();
    let mut screen = Screen::new(common.quiet);
    let finished = launch::measure(&measurement, &out, interrupt::flag(), &mut screen);
    screen.end();
    if !finished? {
        screen.say("interrupted; a measurement begins anew");
        return Ok(Exit::Interrupted);
    }
    let (baseline, candidate) = (out.join("baseline"), out.join("candidate"));
    if common.json {
        print_json(&json!({"baseline": baseline, "candidate": candidate}))?;
        return Ok(Exit::Done);
    }
    print(&format!(
        "measured; now: kto-eval gate --baseline {} --candidate {}\n",
        baseline.display(),
        candidate.display()
    ))?;
    Ok(Exit::Done)
}

/// The plan's path from everywhere, or its shipped name.
fn placed(plan: &str) -> Result<String> {
    let path = Path::new(plan);
    let absolute = || std::path::absolute(path).context("resolving the plan's path");
    Ok(if path.is_file() { absolute()?.display().to_string() } else { plan.to_owned() })
}

/// The plan as a side's command resolves it.
fn side_plan(common: &Common, name: &str, set: &[String]) -> Result<Plan> {
    let mut overrides = common.overrides();
    overrides.set.extend_from_slice(set);
    Plan::open(name, &overrides)
}

/// Options that every program of a measurement gets as this one got them.
fn forwarded(common: &Common) -> Vec<String> {
    let mut options = vec!["--device".to_owned(), common.device.clone()];
    let mut put = |name: &str, value: String| options.extend([name.to_owned(), value]);
    for seed in &common.seed {
        put("--seed", seed.to_string());
    }
    for set in &common.set {
        put("--set", set.clone());
    }
    for (name, value) in [("--model", &common.model), ("--data", &common.data)] {
        if let Some(value) = value {
            put(name, value.clone());
        }
    }
    if let Some(threads) = common.threads {
        put("--threads", threads.to_string());
    }
    options
}
