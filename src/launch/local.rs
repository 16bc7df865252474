//! `--launcher local`: items side by side on the cores (or GPUs) of this machine.

use std::fs::{File, OpenOptions};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::compare::Finished;
use super::items::{Board, Force, Items, last_words};
use super::observer::Observer;
use crate::base::error::{Context, HintExt, Result, anyhow};
use crate::base::exit::Exit;
use crate::plan::{Plan, Shard};

/// How often an item that was killed (no memory, say) is begun again; it goes on from its checkpoint.
const ATTEMPTS: u32 = 3;
const POLL: Duration = Duration::from_millis(100);

struct Item {
    shard: Shard,
    child: Child,
    attempt: u32,
}

/// Runs the plan in `items.jobs` processes, each a share of the runs, and gathers their records in `out`.
///
/// # Errors
/// An item that ends with an error, with its last words; a folder that cannot be written.
pub fn compare_local(
    plan: &Plan,
    out: &Path,
    items: &Items,
    force: bool,
    abort: &AtomicBool,
    observer: &mut dyn Observer,
) -> Result<Finished> {
    let force = if force { Force::Checked } else { Force::No };
    let mut board = Board::open(plan, out, force, observer)?;
    board.forget_failed()?;
    let of = items.jobs.clamp(1, plan.runs().len());
    let mut running = vec![];
    for index in 1..=of {
        let shard = Shard { index, of };
        if !board.is_finished(shard)? {
            running.push(start(&board, items, shard, 1)?);
        }
    }
    observer.stage(&format!("{} processes of {} threads each", running.len(), items.threads));
    let failures = follow(&board, items, running, plan.runs().len(), abort, observer);
    let aborted = abort.load(Ordering::Relaxed);
    let (finished, gathered) = board.close(aborted, observer)?;
    let failures = failures?;
    if !failures.is_empty() && !aborted {
        let missing = gathered.missing.len();
        return Err(anyhow!("{}", failures.join("\n       ")))
            .hint(format!("{missing} runs are missing; the same command goes on with them"));
    }
    Ok(finished)
}

/// Waits for all items; what is returned says which failed, and how.
fn follow(
    board: &Board<'_>,
    items: &Items,
    mut running: Vec<Item>,
    total: usize,
    abort: &AtomicBool,
    observer: &mut dyn Observer,
) -> Result<Vec<String>> {
    let (mut failures, mut told, mut counted) = (vec![], false, board.count());
    while !running.is_empty() {
        if abort.load(Ordering::Relaxed) && !told {
            told = true;
            running.iter().for_each(|item| terminate(&item.child));
        }
        let mut still = vec![];
        for mut item in running {
            let Some(status) = item.child.try_wait().context("waiting for an item")? else {
                still.push(item);
                continue;
            };
            match judge(status) {
                End::Well => {}
                End::Lost if !told && item.attempt < ATTEMPTS => {
                    observer.note(&format!("shard {} was lost ({status}) and goes on", item.shard));
                    still.push(start(board, items, item.shard, item.attempt + 1)?);
                }
                End::Lost | End::Failed => {
                    let words = last_words(&board.log(item.shard));
                    failures.push(format!("shard {} ended with {status}: {words}", item.shard));
                }
            }
        }
        running = still;
        let now = board.count();
        if now != counted {
            counted = now;
            observer.stage(&format!("{now} of {total} runs done"));
        }
        std::thread::sleep(POLL);
    }
    Ok(failures)
}

enum End {
    Well,
    /// Killed by a signal, or told to end: it may go on.
    Lost,
    Failed,
}

fn judge(status: ExitStatus) -> End {
    match status.code() {
        Some(code) if code == Exit::Done as i32 || code == Exit::VerdictFailed as i32 => End::Well,
        Some(code) if code != Exit::Interrupted as i32 => End::Failed,
        _ => End::Lost,
    }
}

fn start(board: &Board<'_>, items: &Items, shard: Shard, attempt: u32) -> Result<Item> {
    let log = board.log(shard);
    let open = || -> std::io::Result<(File, File)> {
        let file = OpenOptions::new().create(true).append(true).open(&log)?;
        Ok((file.try_clone()?, file))
    };
    let (stdout, stderr) = open().with_context(|| format!("writing {}", log.display()))?;
    let words = board.command(items, &shard.to_string());
    let mut command = Command::new(&words[0]);
    if let Some(card) = card_of(&items.device, shard.index - 1, &cards()) {
        command.env(VISIBLE, card);
    }
    command.args(&words[1..]).stdin(Stdio::null()).stdout(stdout).stderr(stderr);
    apart(&mut command);
    let child = command.spawn().with_context(|| format!("starting {}", items.program.display()))?;
    Ok(Item { shard, child, attempt })
}

/// The cards that a program of CUDA's sees.
const VISIBLE: &str = "CUDA_VISIBLE_DEVICES";

/// One card an item, in turn, where items may run on GPUs. The item sees that one alone, as its first: its records do not
/// depend on which it was.
fn card_of<'c>(device: &str, index: usize, cards: &'c [String]) -> Option<&'c str> {
    let any = matches!(device, "auto" | "cuda") && cards.len() > 1;
    any.then(|| cards[index % cards.len()].as_str())
}

/// Cards that this program can compute on: those that its environment leaves it, or those that NVIDIA's driver lists.
fn cards() -> Vec<String> {
    if !candle_core::utils::cuda_is_available() {
        return vec![];
    }
    if let Ok(visible) = std::env::var(VISIBLE) {
        let cards = visible.split(',').map(str::trim).filter(|card| !card.is_empty());
        return cards.map(str::to_owned).collect();
    }
    let listed = std::fs::read_dir("/proc/driver/nvidia/gpus").map_or(0, Iterator::count);
    (0..listed).map(|card| card.to_string()).collect()
}

/// A process group of its own, so that Ctrl-C reaches this process alone, which tells the items once; and on
/// Linux the items are told too when this process dies.
#[cfg(unix)]
fn apart(command: &mut Command) {
    use std::os::unix::process::CommandExt;
    command.process_group(0);
    #[cfg(target_os = "linux")]
    // SAFETY: `prctl` may be called between fork and exec.
    unsafe {
        command.pre_exec(|| {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM);
            Ok(())
        });
    }
}

#[cfg(not(unix))]
fn apart(_: &mut Command) {}

/// Has an item end after its step.
#[cfg(unix)]
fn terminate(child: &Child) {
    if let Ok(id) = libc::pid_t::try_from(child.id()) {
        // SAFETY: the child has not been waited for, so that its id is still its own.
        unsafe { libc::kill(id, libc::SIGTERM) };
    }
}

#[cfg(not(unix))]
fn terminate(_: &Child) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_take_the_gpus_in_turn() {
        let cards = ["3", "GPU-8a"].map(str::to_owned);
        for device in ["cuda", "auto"] {
            let taken: Vec<_> = (0..3).filter_map(|i| card_of(device, i, &cards)).collect();
            assert_eq!(taken, ["3", "GPU-8a", "3"]);
            assert_eq!(card_of(device, 1, &cards[..1]), None);
            assert_eq!(card_of(device, 1, &[]), None);
        }
        assert_eq!(card_of("cpu", 1, &cards), None);
        assert_eq!(card_of("cuda:1", 0, &cards), None);
    }
}
