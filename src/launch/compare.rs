//! A whole comparison, here: the starting checkpoint scored once, then run after run.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use candle_core::Device;

use super::external;
use super::items::done_elsewhere;
use super::keep::{forget, is_out_of_room};
use super::llm::usage;
use super::observer::Observer;
use super::prepare::{Prepared, measures_something, ready};
use super::rows::{self, Owner};
use super::run::{scored, trained_in};
use super::tune::tune;
use crate::base::error::{Result, render};
use crate::model::Decoder;
use crate::plan::{Arm, BASE_ARM, Plan, RunSpec, Shard};
use crate::record::{RecordHold, RecordWriter, RunRow, Status};
use crate::suite::{Kind, ScoredSuite, Suite};
use crate::train::Interval;

/// What a comparison's results do not depend on.
#[derive(Clone, Copy, Debug, Default)]
pub struct Conduct {
    /// Delete the records that are there.
    pub force: bool,
    /// How often a run is saved in the middle; `None`: never.
    pub checkpoints: Option<Interval>,
    /// Do this share of the runs; `None`: all of them.
    pub shard: Option<Shard>,
    /// Leave runs that failed as they are, in place of doing them again.
    pub leave_failed: bool,
}

impl Conduct {
    /// The runs to be done, each with its place in the plan.
    fn runs(&self, plan: &Plan) -> Vec<RunSpec> {
        let ours = |place: &usize| self.shard.is_none_or(|shard| shard.takes(*place));
        let runs = plan.runs().into_iter().enumerate().filter(|(place, _)| ours(place));
        runs.map(|(_, run)| run).collect()
    }
}

/// How a comparison ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Finished {
    /// Runs that are done, those that an earlier process did included.
    pub done: usize,
    /// Runs that diverged or failed.
    pub lost: usize,
    /// The abort flag ended it: the same command goes on from here.
    pub aborted: bool,
}

/// The starting checkpoint's result on each suite, under each seed that sampling depends on.
type Base = BTreeMap<(usize, u64), ScoredSuite>;

/// Runs whatever of the plan the folder does not hold yet. Rows are written as they are made.
///
/// A run that diverges or fails is recorded, and the others go on.
///
/// # Errors
/// Input that cannot be used, a folder that cannot be written: what is on disk stays, and the same command
/// goes on from there.
pub fn compare(
    plan: &Plan,
    device: Device,
    out: &Path,
    conduct: Conduct,
    abort: &AtomicBool,
    observer: &mut dyn Observer,
) -> Result<Finished> {
    measures_something(plan)?;
    // The folder first: nothing is spent before it is known that rows can be kept, and none is dropped before it is known
    // that others can be made.
    let folder = RecordHold::take(out, plan, conduct.force)?.leave_failed(conduct.leave_failed);
    let prepared = ready(plan, device, observer)?;
    let mut writer = folder.open()?;
    writer.environment(&prepared.environment)?;
    let elsewhere = done_elsewhere(out, conduct.shard)?;
    let runs: Vec<RunSpec> =
        conduct.runs(plan).into_iter().filter(|run| !elsewhere.contains(&run.id)).collect();
    let arms: Vec<&Arm> = plan.arms.iter().filter(|a| runs.iter().any(|r| r.arm.name == a.name)).collect();
    let Some(chosen) = tune(&prepared, plan, &arms, &mut writer, abort, observer)? else {
        return Ok(Finished { aborted: true, ..Finished::default() });
    };
    let seeds: Vec<u64> =
        plan.seeds.iter().copied().filter(|seed| runs.iter().any(|r| r.seed == *seed)).collect();
    let mut finished = Finished::default();
    let mut base: Option<Base> = None;
    for (index, run) in runs.iter().enumerate() {
        if let Some(row) = writer.finished(&run.id) {
            finished.count(row.status);
            // Left by a process that was killed after the run's last row.
            if row.status != Status::Failed {
                forget(out, &run.id)?;
            }
            continue;
        }
        if base.is_none() {
            base = score_base(&prepared, plan, &seeds, &mut writer, abort, observer)?;
        }
        let Some(base) = base.as_ref() else {
            finished.aborted = true;
            break;
        };
        observer.run_begins(run, index, runs.len());
        let run = &chosen.apply(run);
        let row = match one(&prepared, plan, run, base, conduct.checkpoints, &mut writer, abort, observer) {
            Ok(Some(row)) => row,
            Ok(None) => {
                finished.aborted = true;
                break;
            }
            // What is on disk stays, the run's checkpoints too.
            Err(error) if is_out_of_room(&error) => return Err(error),
            // Nothing is wrong with the run: the same command trains it again and goes on.
            Err(error) if prepared.judges.tally().down => {
                writer.arrange()?;
                return Err(error.context(format!("run {}", run.id)));
            }
            Err(error) => RunRow { note: render(&error).replace('\n', "; "), ..rows::run(run) },
        };
        writer.run(&row)?;
        if row.status != Status::Failed {
            forget(out, &run.id)?;
        }
        observer.run_ends(&row);
        finished.count(row.status);
        if abort.load(Ordering::Relaxed) {
            finished.aborted = index + 1 < runs.len();
            break;
        }
    }
    writer.arrange()?;
    Ok(finished)
}

impl Finished {
    fn count(&mut self, status: Status) {
        match status {
            Status::Done => self.done += 1,
            Status::Diverged | Status::Failed => self.lost += 1,
        }
    }
}

/// `scoring kto-s1-… on world (generation)`.
fn scoring(who: &str, suite: &Suite) -> String {
    let kind = match suite.kind {
        Kind::Preference => "preference",
        Kind::Generation => "generation",
    };
    format!("scoring {who} on {} ({kind})", suite.name)
}

/// Scores the starting checkpoint, once for each seed where it writes samples. `None`: aborted.
fn score_base(
    prepared: &Prepared,
    plan: &Plan,
    seeds: &[u64],
    writer: &mut RecordWriter,
    abort: &AtomicBool,
    observer: &mut dyn Observer,
) -> Result<Option<Base>> {
    let mut base = Base::new();
    for (index, suite) in prepared.suites.iter().enumerate() {
        for &seed in seeds {
            if abort.load(Ordering::Relaxed) {
                return Ok(None);
            }
            observer.stage(&format!("{}, seed {seed}", scoring(BASE_ARM, suite)));
            // Nothing is drawn for a preference suite: the first seed's result is every seed's.
            let first = base.get(&(index, seeds[0])).filter(|_| suite.kind == Kind::Preference);
            let result = match first {
                Some(first) => first.clone(),
                None => counted(prepared, plan, writer, observer, || {
                    scored(prepared, plan, &prepared.start, None, seed, suite)
                })?,
            };
            if !writer.has_base_of(seed, &suite.name) {
                write(writer, &Owner::base(seed), suite, &result)?;
            }
            if seed == seeds[0] {
                for remark in result.remarks() {
                    observer.note(&format!("{}: {remark}", suite.name));
                }
            }
            base.insert((index, seed), result);
        }
    }
    Ok(Some(base))
}

/// `None`: aborted in the middle; the run goes on from its checkpoint next time.
#[expect(clippy::too_many_arguments, reason = "each is another part of the comparison")]
fn one(
    prepared: &Prepared,
    plan: &Plan,
    run: &RunSpec,
    base: &Base,
    checkpoints: Option<Interval>,
    writer: &mut RecordWriter,
    abort: &AtomicBool,
    observer: &mut dyn Observer,
) -> Result<Option<RunRow>> {
    let trained = match &run.arm.trainer {
        Some(trainer) => external::trained(prepared, plan, run, trainer, writer, abort, observer)?,
        None => trained_in(prepared, run, writer, checkpoints, abort, observer)?,
    };
    if trained.aborted {
        return Ok(None);
    }
    writer.rollouts(&trained.rollouts)?;
    writer.phases(&trained.phases)?;
    let mut row = trained.row;
    // The weights of a run that diverged say nothing.
    if row.status == Status::Done {
        let started = Instant::now();
        // Without checkpoints, stopping here would lose the training: the run is brought to its end.
        let abort = checkpoints.map(|_| abort);
        if !score_run(prepared, plan, run, &trained.policy, base, writer, abort, observer)? {
            return Ok(None);
        }
        row.score_seconds = started.elapsed().as_secs_f64();
    }
    Ok(Some(row))
}

/// `false`: aborted between two suites.
#[expect(clippy::too_many_arguments, reason = "each is another part of the comparison")]
fn score_run(
    prepared: &Prepared,
    plan: &Plan,
    run: &RunSpec,
    policy: &Decoder,
    base: &Base,
    writer: &mut RecordWriter,
    abort: Option<&AtomicBool>,
    observer: &mut dyn Observer,
) -> Result<bool> {
    let owner = Owner::of(run);
    for (index, suite) in prepared.suites.iter().enumerate() {
        if abort.is_some_and(|abort| abort.load(Ordering::Relaxed)) {
            return Ok(false);
        }
        observer.stage(&scoring(&run.id, suite));
        let result = counted(prepared, plan, writer, observer, || {
            scored(prepared, plan, policy, base.get(&(index, run.seed)), run.seed, suite)
        })?;
        observer.scored(&rows::scores(&owner, suite, &result));
        write(writer, &owner, suite, &result)?;
    }
    Ok(true)
}

/// Scores, and counts what the judge was asked for it, whether or not it came to an end.
fn counted(
    prepared: &Prepared,
    plan: &Plan,
    writer: &RecordWriter,
    observer: &mut dyn Observer,
    scored: impl FnOnce() -> Result<ScoredSuite>,
) -> Result<ScoredSuite> {
    let tally = || prepared.judges.tally();
    let before = tally();
    let result = scored();
    prepared.judges.remarks(&before).iter().for_each(|note| observer.note(note));
    let used = usage(&plan.judge, &before, &tally());
    if used.asked + used.cached + used.repeated + used.refused > 0 {
        used.add_to(writer.dir())?;
    }
    result
}

fn write(writer: &mut RecordWriter, owner: &Owner, suite: &Suite, result: &ScoredSuite) -> Result<()> {
    writer.examples(&rows::examples(owner, suite, result))?;
    writer.samples(&rows::samples(owner, suite, result))?;
    writer.judgments(&rows::judgments(owner, suite, result))?;
    // Last: a suite's scores say that its other rows are complete.
    writer.scores(&rows::scores(owner, suite, result))
}
