//! A whole comparison, here: the starting checkpoint scored once, then run after run.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use candle_core::Device;

use super::external;
use super::llm::usage;
use super::observer::Observer;
use super::prepare::{Prepared, prepare};
use super::rows::{self, Owner};
use super::run::{scored, trained};
use crate::base::error::{Context, HintExt, Result, anyhow, render};
use crate::model::Decoder;
use crate::objective::build;
use crate::plan::{BASE_ARM, Plan, RunSpec};
use crate::record::{RecordWriter, RunRow, Status};
use crate::suite::judge::llm::LlmJudge;
use crate::suite::{Kind, ScoredSuite, Suite};
use crate::train::units;

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
    force: bool,
    abort: &AtomicBool,
    observer: &mut dyn Observer,
) -> Result<Finished> {
    if plan.suites.preference.is_empty() && plan.suites.generation.is_empty() {
        return Err(anyhow!("plan `{}` names no suite: nothing would be measured", plan.name))
            .hint("`kto-eval suites list` lists the suites");
    }
    // The folder first: nothing is spent before it is known that rows can be kept.
    let mut writer = RecordWriter::open(out, plan, force)?;
    let prepared = prepare(plan, device, observer)?;
    for arm in &plan.arms {
        if let Some(trainer) = &arm.trainer {
            external::check_program(&arm.name, trainer)?;
            continue;
        }
        let feedback = build(&arm.method)?.feedback();
        units(prepared.data.as_data(), feedback).with_context(|| format!("arm {}", arm.name))?;
    }
    writer.environment(&prepared.environment)?;
    let runs = plan.runs();
    let mut finished = Finished::default();
    let mut base: Option<Base> = None;
    for (index, run) in runs.iter().enumerate() {
        if let Some(row) = writer.finished(&run.id) {
            finished.count(row.status);
            continue;
        }
        if base.is_none() {
            base = Some(score_base(&prepared, plan, &mut writer, observer)?);
        }
        let base = base.as_ref().expect("made above");
        observer.run_begins(run, index, runs.len());
        let row = match one(&prepared, plan, run, base, &mut writer, abort, observer) {
            Ok(Some(row)) => row,
            Ok(None) => {
                finished.aborted = true;
                break;
            }
            // Nothing is wrong with the run: the same command trains it again and goes on.
            Err(error) if prepared.judge.as_ref().is_some_and(|j| j.tally().down) => {
                writer.arrange()?;
                return Err(error.context(format!("run {}", run.id)));
            }
            Err(error) => RunRow { note: render(&error).replace('\n', "; "), ..rows::run(run) },
        };
        writer.run(&row)?;
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

/// Scores the starting checkpoint, once for each seed where it writes samples.
fn score_base(
    prepared: &Prepared,
    plan: &Plan,
    writer: &mut RecordWriter,
    observer: &mut dyn Observer,
) -> Result<Base> {
    let known = writer.has_base();
    let mut base = Base::new();
    for (index, suite) in prepared.suites.iter().enumerate() {
        for &seed in &plan.seeds {
            observer.stage(&format!("{}, seed {seed}", scoring(BASE_ARM, suite)));
            // Nothing is drawn for a preference suite: the first seed's result is every seed's.
            let first = base.get(&(index, plan.seeds[0])).filter(|_| suite.kind == Kind::Preference);
            let result = match first {
                Some(first) => first.clone(),
                None => counted(prepared, plan, writer, || {
                    scored(prepared, plan, &prepared.start, None, seed, suite)
                })?,
            };
            if !known {
                write(writer, &Owner::base(seed), suite, &result)?;
            }
            if seed == plan.seeds[0] {
                for (reason, n) in result.exclusions() {
                    observer.note(&format!("{}: {n} examples left out: {reason}", suite.name));
                }
            }
            base.insert((index, seed), result);
        }
    }
    Ok(base)
}

/// `None`: aborted in the middle; the run begins anew next time.
fn one(
    prepared: &Prepared,
    plan: &Plan,
    run: &RunSpec,
    base: &Base,
    writer: &mut RecordWriter,
    abort: &AtomicBool,
    observer: &mut dyn Observer,
) -> Result<Option<RunRow>> {
    let trained = match &run.arm.trainer {
        Some(trainer) => external::trained(prepared, plan, run, trainer, writer, abort, observer)?,
        None => trained(prepared, run, abort, &mut |row| writer.step(row), observer)?,
    };
    if trained.aborted {
        return Ok(None);
    }
    let mut row = trained.row;
    // The weights of a run that diverged say nothing.
    if row.status == Status::Done {
        let started = Instant::now();
        score_run(prepared, plan, run, &trained.policy, base, writer, observer)?;
        row.score_seconds = started.elapsed().as_secs_f64();
    }
    Ok(Some(row))
}

fn score_run(
    prepared: &Prepared,
    plan: &Plan,
    run: &RunSpec,
    policy: &Decoder,
    base: &Base,
    writer: &mut RecordWriter,
    observer: &mut dyn Observer,
) -> Result<()> {
    let owner = Owner::of(run);
    for (index, suite) in prepared.suites.iter().enumerate() {
        observer.stage(&scoring(&run.id, suite));
        let result = counted(prepared, plan, writer, || {
            scored(prepared, plan, policy, base.get(&(index, run.seed)), run.seed, suite)
        })?;
        observer.scored(&rows::scores(&owner, suite, &result));
        write(writer, &owner, suite, &result)?;
    }
    Ok(())
}

/// Scores, and counts what the judge was asked for it, whether or not it came to an end.
fn counted(
    prepared: &Prepared,
    plan: &Plan,
    writer: &RecordWriter,
    scored: impl FnOnce() -> Result<ScoredSuite>,
) -> Result<ScoredSuite> {
    let tally = || prepared.judge.as_ref().map(LlmJudge::tally).unwrap_or_default();
    let before = tally();
    let result = scored();
    let used = usage(&plan.judge, &before, &tally());
    if used.asked + used.cached + used.repeated > 0 {
        used.add_to(writer.dir())?;
    }
    result
}

fn write(writer: &mut RecordWriter, owner: &Owner, suite: &Suite, result: &ScoredSuite) -> Result<()> {
    writer.scores(&rows::scores(owner, suite, result))?;
    writer.examples(&rows::examples(owner, suite, result))?;
    writer.samples(&rows::samples(owner, suite, result))?;
    writer.judgments(&rows::judgments(owner, suite, result))
}
