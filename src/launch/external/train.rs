//! One run of an external trainer, from its data to a policy.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::AtomicBool;

use super::process::{Ended, Limits, Ran, run_tree};
use super::{data, metrics, model};
use crate::base::error::{Context, HintExt, Result, anyhow};
use crate::launch::observer::Observer;
use crate::launch::prepare::Prepared;
use crate::launch::rows;
use crate::launch::run::Trained;
use crate::plan::{Plan, RunSpec, TrainerSpec, fill, values};
use crate::record::{RecordWriter, Status, TrainerRow};

/// Folder of external trainers' logs, data and models in a record folder.
const FOLDER: &str = "external";
/// What a trainer may write into its `{out}`.
const METRICS: &str = "kto-eval-metrics.jsonl";
/// Lines of a log that a failure carries.
const TAIL_LINES: usize = 12;

/// Trains one run by its command, records what it cost, and loads what it left.
///
/// # Errors
/// A trainer that cannot be started, fails, hangs, or leaves no model that can be scored; the message ends with
/// the end of its log.
pub fn trained(
    prepared: &Prepared,
    plan: &Plan,
    run: &RunSpec,
    trainer: &TrainerSpec,
    writer: &mut RecordWriter,
    abort: &AtomicBool,
    observer: &mut dyn Observer,
) -> Result<Trained> {
    let folder = absolute(&writer.dir().join(FOLDER))?;
    let out = folder.join(&run.id);
    // What an earlier attempt left must not be taken for this one's.
    std::fs::remove_dir_all(&out).ok();
    std::fs::create_dir_all(&out).with_context(|| format!("creating {}", out.display()))?;
    let split = data::write(prepared, plan, &run.data, trainer.data, &folder)?;
    let mut command = command(prepared, run, trainer, &split, &out)?;
    let log = folder.join(format!("{}.log", run.id));
    let limits =
        Limits { seconds: trainer.timeout_seconds, log_bytes: (trainer.log_mib * f64::from(1 << 20)) as u64 };
    observer.stage(&format!("{}: {}", run.id, trainer.command.join(" ")));
    let mut heard = |line: &str| observer.stage(&format!("{}: {line}", run.id));
    let ran = run_tree(&mut command, &log, limits, abort, &mut heard)?;
    writer.trainer(&cost(run, &ran))?;
    let mut row = rows::run(run);
    row.train_seconds = ran.usage.wall_seconds;
    row.peak_host_mib = ran.usage.peak_mib;
    row.peak_device_mib = ran.usage.peak_device_mib.unwrap_or(0.0);
    match ran.ended {
        Ended::Exited(0) => {}
        // Nobody's fault: the run begins anew next time. Its weights are never looked at.
        Ended::Interrupted => {
            let policy = prepared.start.duplicate()?;
            return Ok(Trained {
                policy,
                row,
                checks: vec![],
                aborted: true,
                rollouts: vec![],
                phases: vec![],
            });
        }
        ended => return Err(failure(&format!("ended with {ended}"), trainer, ended, &log, &ran)),
    }
    let steps = metrics::read(&out.join(METRICS), &row)?;
    for step in &steps {
        observer.step(step);
        writer.step(step)?;
    }
    metrics::spend(&mut row, &steps);
    row.tokens_per_second = row.policy_tokens as f64 / row.train_seconds;
    let policy = model::load(&out, prepared)
        .map_err(|e| failure(&crate::base::error::render(&e), trainer, ran.ended, &log, &ran))?;
    row.weights = policy.weights_hash()?;
    row.status = Status::Done;
    if !trainer.keep_model {
        std::fs::remove_dir_all(&out).ok();
    }
    Ok(Trained { policy, row, checks: vec![], aborted: false, rollouts: vec![], phases: vec![] })
}

fn command(
    prepared: &Prepared,
    run: &RunSpec,
    trainer: &TrainerSpec,
    split: &Path,
    out: &Path,
) -> Result<Command> {
    let mut known = values(&run.arm, run.seed);
    let paths = [
        ("model", absolute(&prepared.start_dir)?),
        ("data", split.to_owned()),
        ("out", out.to_owned()),
        ("metrics", out.join(METRICS)),
    ];
    for (name, path) in paths {
        for value in known.iter_mut().filter(|(n, _)| n == name) {
            value.1 = path.display().to_string();
        }
    }
    let words: Vec<String> = trainer.command.iter().map(|w| fill(w, &known)).collect::<Result<_>>()?;
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]);
    // The threads that this program was given: more than the cores would only slow a trainer down.
    let threads = rayon::current_num_threads().to_string();
    command.env("OMP_NUM_THREADS", &threads).env("TOKENIZERS_PARALLELISM", "false");
    Ok(command)
}

/// Symbolic links in the cache stay as they are.
fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).with_context(|| format!("resolving {}", path.display()))
}

fn cost(run: &RunSpec, ran: &Ran) -> TrainerRow {
    TrainerRow {
        run: run.id.clone(),
        arm: run.arm.name.clone(),
        seed: run.seed,
        ended: ran.ended.to_string(),
        log: format!("{FOLDER}/{}.log", run.id),
        log_bytes: ran.log_bytes,
        wall_seconds: ran.usage.wall_seconds,
        cpu_seconds: ran.usage.cpu_seconds,
        peak_tree_mib: ran.usage.peak_mib,
        peak_device_mib: ran.usage.peak_device_mib,
    }
}

fn failure(what: &str, trainer: &TrainerSpec, ended: Ended, log: &Path, ran: &Ran) -> anyhow::Error {
    let limit = match ended {
        Ended::TimeLimit => format!(" of {} s", trainer.timeout_seconds),
        _ => String::new(),
    };
    let lines: Vec<&str> = ran.tail.lines().collect();
    let tail = lines[lines.len().saturating_sub(TAIL_LINES)..].join(" | ");
    let said = if tail.is_empty() { "it wrote no log".to_owned() } else { format!("its log ends: {tail}") };
    anyhow!("the trainer `{}` {what}{limit}; {said} (whole log: {})", trainer.command[0], log.display())
}

/// Refuses, before anything is spent, an arm that could not be trained from where the others start.
///
/// # Errors
/// A starting checkpoint that lies in no folder; a program that is neither a file nor on the PATH.
pub fn check_trainer(prepared: &Prepared, arm: &str, trainer: &TrainerSpec) -> Result<()> {
    if prepared.adapted {
        return Err(anyhow!(
            "arm {arm}: the model is an adapter, and a trainer is given the folder of a whole one"
        ))
        .hint("merge it first (kto-eval merge), and name the merged model");
    }
    check_program(arm, trainer)
}

fn check_program(arm: &str, trainer: &TrainerSpec) -> Result<()> {
    let program = Path::new(&trainer.command[0]);
    // A program named by a placeholder is known only when it runs.
    if trainer.command[0].contains('{') {
        return Ok(());
    }
    let found = match program.components().count() {
        0 | 1 => std::env::var_os("PATH")
            .is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(program).is_file())),
        _ => program.is_file(),
    };
    if found {
        return Ok(());
    }
    Err(anyhow!("arm {arm}: its trainer's program `{}` is not there", program.display()))
        .hint("install it, put it on the PATH, or name it by its path in `command`")
}
