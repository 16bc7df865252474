//! One arm under one seed: train, then score.

use std::sync::atomic::AtomicBool;

use super::memory::PeakMemory;
use super::observer::Observer;
use super::prepare::Prepared;
use super::rows::{self, Owner};
use super::stages::sft_first;
use crate::base::error::Result;
use crate::data::{Dataset, Sequence};
use crate::model::Decoder;
use crate::plan::{Plan, RunSpec};
use crate::record::{RunRow, Status, StepRow};
use crate::suite::judge::Judge;
use crate::suite::{Kind, ScoreContext, ScoredSuite, Suite, score_with};
use crate::train::{Check, Ended, Hooks, Job, Reference, TrainOutcome, train};

/// Strength β of the implicit reward that suites measure: one for all arms, so that margins, in units of
/// β log π/π_ref, can be compared between arms that train under different β.
pub(super) const SCORE_BETA: f64 = 0.1;
/// Sequences sampled at once.
pub(super) const SLOTS: usize = 32;

/// A policy after training, with its row and what the run-time checks found.
pub struct Trained {
    pub policy: Decoder,
    pub row: RunRow,
    pub checks: Vec<Check>,
    /// The abort flag ended it before its budget was spent.
    pub aborted: bool,
}

/// Trains one run from the starting checkpoint. `step` gets each step's row as it is made.
///
/// # Errors
/// See [`train`]; a run that diverges is no error, its row says so.
pub fn trained(
    prepared: &Prepared,
    run: &RunSpec,
    abort: &AtomicBool,
    step: &mut dyn FnMut(&StepRow) -> Result<()>,
    observer: &mut dyn Observer,
) -> Result<Trained> {
    let owner = Owner::of(run);
    let lora = &run.arm.train.lora;
    // With an adapter the weights stay as they are, and stay shared with the reference.
    let mut policy = match lora.is_on() {
        true => prepared.start.with_adapter(lora, run.seed)?,
        false => prepared.start.duplicate()?,
    };
    let memory = PeakMemory::start();
    let first = match sft_first(&mut policy, prepared, run, abort, step, observer)? {
        None => None,
        Some(first) if first.outcome.ended == Ended::Done => Some(first),
        Some(first) => return Ok(ended(policy, run, first.outcome, memory)),
    };
    let mut own = None;
    let reference = match &first {
        Some(first) => Reference { decoder: &first.reference, cache: &first.cache },
        None => Reference { decoder: prepared.reference(), cache: prepared.reference_cache(&mut own) },
    };
    let spent = first.as_ref().map(|f| f.outcome.ledger).unwrap_or_default();
    let job = Job {
        method: &run.arm.method,
        spec: &run.arm.train,
        budget: run.budget.less(spent.spent(run.budget)),
        seed: run.seed,
        max_length: run.data.max_length,
        data: prepared.data.of(&run.data).as_data(),
        reference: Some(reference),
    };
    let mut hooks = Hooks {
        step: &mut |metrics| step(&rows::after(rows::step(&owner, metrics), &spent)),
        progress: &mut |progress| observer.training(progress),
        abort,
    };
    let mut outcome = train(&mut policy, &job, &mut hooks)?;
    let mut ledger = spent;
    ledger.add(&outcome.ledger);
    outcome.ledger = ledger;
    Ok(ended(policy, run, outcome, memory))
}

fn ended(policy: Decoder, run: &RunSpec, outcome: TrainOutcome, memory: PeakMemory) -> Trained {
    let mut row = rows::run(run);
    rows::ledger(&mut row, &outcome.ledger);
    row.trained_parameters = policy.num_trained() as u64;
    row.final_loss = outcome.final_loss;
    row.weights = outcome.weights;
    row.start_host_mib = memory.before_mib;
    row.peak_host_mib = memory.peak_mib();
    let aborted = outcome.ended == Ended::Aborted;
    (row.status, row.note) = match outcome.ended {
        Ended::Done => (Status::Done, String::new()),
        Ended::Diverged(why) => (Status::Diverged, why),
        Ended::Aborted => (Status::Failed, "interrupted".to_owned()),
    };
    Trained { policy, row, checks: outcome.checks, aborted }
}

/// Scores a policy on a suite; `base` is the starting checkpoint's result on it (`None` for itself).
///
/// # Errors
/// See [`score`].
pub fn scored(
    prepared: &Prepared,
    plan: &Plan,
    policy: &Decoder,
    base: Option<&ScoredSuite>,
    seed: u64,
    suite: &Suite,
) -> Result<ScoredSuite> {
    scored_on(prepared, plan, policy, base, seed, suite, &prepared.heldout)
}

/// As [`scored`], with other questions in place of the plan's held-out split (suites with `source = "plan"`).
pub(super) fn scored_on(
    prepared: &Prepared,
    plan: &Plan,
    policy: &Decoder,
    base: Option<&ScoredSuite>,
    seed: u64,
    suite: &Suite,
    heldout: &Dataset,
) -> Result<ScoredSuite> {
    let width = if suite.kind == Kind::Preference { 2 } else { 1 };
    let mut logps = |sequences: &[Sequence]| prepared.heldout_logps(sequences, width);
    let mut context = ScoreContext {
        policy,
        reference: &mut logps,
        tokenizer: &prepared.tokenizer,
        data: &plan.data,
        heldout,
        base,
        seed,
        max_examples: plan.suites.max_examples,
        beta: SCORE_BETA,
        slots: SLOTS,
    };
    let judge = prepared.judge.as_ref().map(|j| j as &dyn Judge);
    score_with(&mut context, suite, judge)
}
