//! `--launcher slurm`: a job array, a shard a task.
//!
//! The records decide what is done: an array is followed until none of its tasks is left in the queue, then
//! the shards with a run that has left no row are submitted again. `sacct`, where a cluster has accounting,
//! only says why a task ended.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::compare::Finished;
use super::items::{Board, Force, Items, last_words};
use super::observer::Observer;
use crate::base::error::{Context, HintExt, Result, anyhow};
use crate::plan::{Plan, Shard, SlurmSpec};
use crate::record::files;

/// Arrays submitted for one comparison at most, lost shards again in each.
const ATTEMPTS: u32 = 5;
/// Between two looks at the queue.
const POLL: Duration = Duration::from_secs(5);
/// `squeue` may fail this long (a controller that restarts) before following is given up.
const PATIENCE: Duration = Duration::from_secs(300);

/// The array under way, kept in the folder: the same command follows it instead of submitting another.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Submitted {
    job: u64,
    /// Shards that the plan is divided into.
    of: usize,
    attempt: u32,
}

/// Submits the plan's runs as a job array, follows it, submits again what was lost, and gathers the records.
///
/// # Errors
/// `sbatch` or `squeue` fail; shards that end with an error, with their last words.
pub fn compare_slurm(
    plan: &Plan,
    out: &Path,
    items: &Items,
    force: bool,
    abort: &AtomicBool,
    observer: &mut dyn Observer,
) -> Result<Finished> {
    let mut board = Board::open(plan, out, forced(plan, force), observer)?;
    let file = board.out.join(files::SHARDS).join("slurm.json");
    let mut under_way = read(&file);
    let (mut attempt, mut submitted) = (0, false);
    loop {
        if let Some(array) = &under_way {
            attempt = array.attempt;
            observer.stage(&format!("following job {} ({} shards)", array.job, array.of));
            if !follow(&board, array, plan.runs().len(), abort, observer)? {
                observer.note(&format!("the job goes on; `scancel {}` ends it", array.job));
                let (finished, _) = board.close(true, observer)?;
                return Ok(finished);
            }
            why(array, observer);
        }
        let of = under_way.as_ref().map_or(items.jobs.clamp(1, plan.runs().len()), |array| array.of);
        board.gather(observer)?;
        let left = left(&board, of, submitted)?;
        if left.is_empty() || attempt == ATTEMPTS {
            break;
        }
        if let Some(stuck) = left.iter().find(|&&index| refused(&board, Shard { index, of })) {
            let words = last_words(&board.log(Shard { index: *stuck, of }));
            return Err(anyhow!("shard {stuck}/{of}: {words}"))
                .hint("put it right and give the same command again: it goes on from here");
        }
        if !submitted {
            board.forget_failed()?;
            submitted = true;
        }
        attempt += 1;
        let job = submit(&board, plan, items, &left, of)?;
        observer.note(&format!("submitted job {job}: shards {}", ranges(&left)));
        let array = Submitted { job, of, attempt };
        let text = serde_json::to_string(&array)?;
        std::fs::write(&file, text).with_context(|| format!("writing {}", file.display()))?;
        under_way = Some(array);
    }
    // A later command begins with a fresh count of attempts.
    let _ = std::fs::remove_file(&file);
    let (finished, gathered) = board.close(false, observer)?;
    if !gathered.missing.is_empty() {
        let message =
            format!("after {ATTEMPTS} submissions {} runs are still missing", gathered.missing.len());
        return Err(anyhow!(message))
            .hint("see the logs in <out>/shards; the same command goes on from here");
    }
    Ok(finished)
}

fn forced(plan: &Plan, force: bool) -> Force {
    match (force, plan.slurm.container.is_empty()) {
        (false, _) => Force::No,
        (true, true) => Force::Checked,
        // Paths and programs of the plan are the container's.
        (true, false) => Force::Blind,
    }
}

/// Shards of `of` with a run to be done; `submitted`: by this command before.
fn left(board: &Board<'_>, of: usize, submitted: bool) -> Result<Vec<usize>> {
    let mut left = vec![];
    for index in 1..=of {
        let shard = Shard { index, of };
        // A run that failed in an array of this command would fail in the next one too.
        let ended = if submitted { board.has_rows(shard)? } else { board.is_finished(shard)? };
        if !ended {
            left.push(index);
        }
    }
    Ok(left)
}

fn read(file: &Path) -> Option<Submitted> {
    serde_json::from_str(&std::fs::read_to_string(file).ok()?).ok()
}

/// A shard that says why it will not do: submitting it again would change nothing.
fn refused(board: &Board<'_>, shard: Shard) -> bool {
    last_words(&board.log(shard)).starts_with("error:")
}

/// Writes the script and submits it; the array's job id.
fn submit(board: &Board<'_>, plan: &Plan, items: &Items, shards: &[usize], of: usize) -> Result<u64> {
    let path = board.out.join(files::SHARDS).join("job.sh");
    for &index in shards {
        // What an earlier attempt logged must not be taken for this one's.
        let _ = std::fs::remove_file(board.log(Shard { index, of }));
    }
    let text = script(board, plan, items, shards, of)?;
    std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    let said = slurm("sbatch", &["--parsable", &path.display().to_string()])?;
    // `<job>` or `<job>;<cluster>`.
    let job = said.trim().split(';').next().and_then(|id| id.parse().ok());
    job.with_context(|| format!("sbatch said `{}` in place of a job id", said.trim()))
}

/// The job script.
fn script(board: &Board<'_>, plan: &Plan, items: &Items, shards: &[usize], of: usize) -> Result<String> {
    let SlurmSpec { environment, container, options, .. } = &plan.slurm;
    let name: String = plan.name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let shards_dir = board.out.join(files::SHARDS);
    let mut out = "#!/bin/bash\n# Written by `kto-eval compare --launcher slurm`.\n".to_owned();
    let mut option = |text: String| out += &format!("#SBATCH {text}\n");
    option(format!("--job-name=kto-eval-{name}"));
    option(format!("--array={}%{}", ranges(shards), items.jobs));
    option(format!("--output={}/%a-of-{of}.log", percent(&shards_dir)?));
    option("--open-mode=append".to_owned());
    // A node that fails gives its task back to the queue; one that runs out of time saves first.
    option("--requeue".to_owned());
    option("--signal=TERM@60".to_owned());
    for (key, value) in asked(&plan.slurm) {
        option(format!("--{key}={value}"));
    }
    options.iter().for_each(|text| option(text.clone()));
    // Scripts that set up an environment (conda, modules) read variables that are not set.
    out += "set -e\n";
    environment.iter().for_each(|line| out += &format!("{line}\n"));
    out += "set -u\n";
    let threads = if plan.slurm.cpus > 0 { plan.slurm.cpus } else { items.threads };
    let items = Items { threads, ..items.clone() };
    let words: Vec<String> = board
        .command(&items, &format!("SHARD/{of}"))
        .iter()
        .map(|word| word.to_str().map(quoted).context("a path is no UTF-8 text"))
        .collect::<Result<_>>()?;
    let command =
        words.join(" ").replace(&quoted(&format!("SHARD/{of}")), &format!("\"$SLURM_ARRAY_TASK_ID/{of}\""));
    let under = if container.is_empty() { String::new() } else { format!("{container} ") };
    // srun: the step, and with it the signal, reaches the program itself.
    let run = if container.contains("srun") { under } else { format!("srun --ntasks=1 {under}") };
    out += &format!("exec {run}{command} --quiet\n");
    Ok(out)
}

/// What is asked of the cluster, as options of `sbatch`.
fn asked(spec: &SlurmSpec) -> Vec<(&'static str, String)> {
    let cpus = if spec.cpus > 0 { spec.cpus.to_string() } else { String::new() };
    let all = [
        ("partition", spec.partition.clone()),
        ("account", spec.account.clone()),
        ("qos", spec.qos.clone()),
        ("gpus", spec.gpus.clone()),
        ("cpus-per-task", cpus),
        ("mem", spec.memory.clone()),
        ("time", spec.time.clone()),
        ("constraint", spec.constraint.clone()),
    ];
    all.into_iter().filter(|(_, value)| !value.is_empty()).collect()
}

/// A path within `--output`, where `%` begins a pattern.
fn percent(path: &Path) -> Result<String> {
    let text = path.to_str().with_context(|| format!("{} is no UTF-8 text", path.display()))?;
    if text.chars().any(|c| c.is_whitespace() || c == '\\' || c == '"') {
        return Err(anyhow!("{text}: sbatch takes no white space in the path of a log"))
            .hint("name another folder with --out");
    }
    Ok(text.replace('%', "%%"))
}

/// A word of a shell command.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,%+@".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// `1-3,5`.
fn ranges(indices: &[usize]) -> String {
    let mut runs: Vec<(usize, usize)> = vec![];
    for &index in indices {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == index => *last = index,
            _ => runs.push((index, index)),
        }
    }
    let text = |&(a, b): &(usize, usize)| if a == b { a.to_string() } else { format!("{a}-{b}") };
    runs.iter().map(text).collect::<Vec<_>>().join(",")
}

/// Waits until no task of the array is left in the queue; `false`: aborted before.
fn follow(
    board: &Board<'_>,
    array: &Submitted,
    total: usize,
    abort: &AtomicBool,
    observer: &mut dyn Observer,
) -> Result<bool> {
    let (mut answered, mut said) = (Instant::now(), String::new());
    loop {
        match slurm("squeue", &["-h", "-r", "-j", &array.job.to_string(), "-o", "%T"]) {
            Ok(states) => {
                answered = Instant::now();
                if states.trim().is_empty() {
                    return Ok(true);
                }
                let now = format!("{} of {total} runs done; {}", board.count(), tally(&states));
                if now != said {
                    observer.stage(&now);
                    said = now;
                }
            }
            // A job that has left the controller's memory.
            Err(e) if e.to_string().contains("Invalid job id") => return Ok(true),
            Err(e) if answered.elapsed() > PATIENCE => return Err(e),
            Err(_) => {}
        }
        let began = Instant::now();
        while began.elapsed() < POLL {
            if abort.load(Ordering::Relaxed) {
                return Ok(false);
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

/// `2 running, 1 pending`.
fn tally(states: &str) -> String {
    let mut counts = std::collections::BTreeMap::<String, usize>::new();
    states.lines().for_each(|s| *counts.entry(s.trim().to_lowercase()).or_default() += 1);
    counts.iter().map(|(state, n)| format!("{n} {state}")).collect::<Vec<_>>().join(", ")
}

/// Says what the accounting says of tasks that did not end well; a cluster may have none.
fn why(array: &Submitted, observer: &mut dyn Observer) {
    let job = array.job.to_string();
    let arguments = ["-n", "-P", "-X", "-j", &job, "-o", "JobID,State,ExitCode"];
    for line in slurm("sacct", &arguments).unwrap_or_default().lines() {
        if !line.contains("|COMPLETED|") {
            observer.note(&format!("task {}", line.replace('|', " ")));
        }
    }
}

/// Runs a command of Slurm's; its stdout.
fn slurm(program: &str, arguments: &[&str]) -> Result<String> {
    let ran = Command::new(program)
        .args(arguments)
        .output()
        .with_context(|| format!("starting {program}"))
        .hint("--launcher slurm needs Slurm's commands on this machine; elsewhere use --shard")?;
    if !ran.status.success() {
        let said = String::from_utf8_lossy(&ran.stderr).trim().replace('\n', "; ");
        return Err(anyhow!("{program} {}: {said}", arguments.join(" ")));
    }
    Ok(String::from_utf8_lossy(&ran.stdout).into_owned())
}

/// This program, as the items call it.
///
/// # Errors
/// The system does not tell.
pub fn this_program() -> Result<PathBuf> {
    std::env::current_exe().context("finding this program's own path")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_ranges_and_states_are_written_as_slurm_and_the_shell_read_them() {
        assert_eq!(ranges(&[1, 2, 3, 5, 7, 8]), "1-3,5,7-8");
        assert_eq!(quoted("a/b-c.toml"), "a/b-c.toml");
        assert_eq!(quoted("a b$(rm)'c"), r"'a b$(rm)'\''c'");
        assert_eq!(quoted(""), "''");
        assert_eq!(tally("RUNNING\nPENDING\nRUNNING\n"), "1 pending, 2 running");
        assert_eq!(percent(Path::new("/a%b")).unwrap(), "/a%%b");
        assert!(percent(Path::new("/a b")).is_err());
    }

    #[test]
    fn what_is_not_asked_for_has_no_line() {
        assert!(asked(&SlurmSpec::default()).is_empty());
        let spec = SlurmSpec { cpus: 4, time: "1:00:00".into(), ..SlurmSpec::default() };
        assert_eq!(asked(&spec), [("cpus-per-task", "4".to_owned()), ("time", "1:00:00".to_owned())]);
    }
}
