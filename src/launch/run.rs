//! One arm under one seed: train, then score.

use std::sync::atomic::AtomicBool;

use super::keep::{InFolder, Keeper, RowsOnly, Stage};
use super::memory::PeakMemory;
use super::observer::Observer;
use super::prepare::Prepared;
use super::rows::{self, Owner};
use super::stages::sft_first;
use crate::base::error::Result;
use crate::data::{Dataset, Sequence};
use crate::model::{Decoder, RewardModel};
use crate::plan::{Arm, Method, Plan, RunSpec};
use crate::record::{PhaseRow, RecordWriter, RolloutRow, RunRow, Status, StepRow};
use crate::suite::{Kind, ScoreContext, ScoredSuite, Suite, score_with};
use crate::train::{Check, Ended, Hooks, Interval, Job, Reference, TrainOutcome, fingerprint, train_from};

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
    /// Of a method that learns from rollouts.
    pub rollouts: Vec<RolloutRow>,
    pub phases: Vec<PhaseRow>,
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
    execute(prepared, run, abort, &mut RowsOnly(step), observer)
}

/// [`trained`] with its rows and checkpoints in a record folder, going on from what is there.
///
/// # Errors
/// See [`trained`]; rows or a checkpoint that cannot be written.
pub fn trained_in(
    prepared: &Prepared,
    run: &RunSpec,
    writer: &mut RecordWriter,
    every: Option<Interval>,
    abort: &AtomicBool,
    observer: &mut dyn Observer,
) -> Result<Trained> {
    execute(prepared, run, abort, &mut InFolder::new(writer, run, every), observer)
}

fn execute(
    prepared: &Prepared,
    run: &RunSpec,
    abort: &AtomicBool,
    keeper: &mut dyn Keeper,
    observer: &mut dyn Observer,
) -> Result<Trained> {
    if super::online::is_online(&run.arm.method) {
        return super::online::trained(prepared, run, abort, keeper, observer);
    }
    let owner = Owner::of(run);
    let mut policy = start(prepared, &run.arm, run.seed)?;
    let data = prepared.data.of(&run.data);
    let data = data.conditioned(&run.arm.method, &prepared.tokenizer, run.data.max_length)?;
    let memory = PeakMemory::start();
    let first = match sft_first(&mut policy, prepared, run, abort, keeper, observer)? {
        None => None,
        Some(first) if first.outcome.ended == Ended::Done => Some(first),
        Some(first) => return Ok(finished(policy, run, first.outcome, memory)),
    };
    let mut own = None;
    let reference = match &first {
        Some(first) => Reference::new(&first.reference, &first.cache),
        None if prepared.spare_start => Reference::start(prepared.reference_cache(&mut own)),
        None => Reference::new(prepared.reference(), prepared.reference_cache(&mut own)),
    };
    let spent = first.as_ref().map(|f| f.outcome.ledger).unwrap_or_default();
    let job = Job {
        method: &run.arm.method,
        spec: &run.arm.train,
        budget: run.budget.less(spent.spent(run.budget)),
        seed: run.seed,
        max_length: run.data.max_length,
        data: data.as_data(),
        reference: Some(reference),
    };
    let stage = Stage::Method(spent.steps);
    let saved = keeper.resume(stage, &fingerprint(&policy, &job)?, observer)?;
    let checkpoints = keeper.checkpoints(stage);
    // Both hooks tell the one observer.
    let observer = std::cell::RefCell::new(observer);
    let mut hooks = Hooks {
        step: &mut |metrics| {
            let row = rows::after(rows::step(&owner, metrics), &spent);
            observer.borrow_mut().step(&row);
            keeper.step(&row)
        },
        progress: &mut |progress| observer.borrow_mut().training(progress),
        abort,
    };
    let mut outcome = train_from(&mut policy, &job, &mut hooks, saved, checkpoints.as_ref())?;
    let mut ledger = spent;
    ledger.add(&outcome.ledger);
    outcome.ledger = ledger;
    Ok(finished(policy, run, outcome, memory))
}

fn finished(policy: Decoder, run: &RunSpec, outcome: TrainOutcome, memory: PeakMemory) -> Trained {
    let mut row = rows::run(run);
    rows::ledger(&mut row, &outcome.ledger);
    row.trained_parameters = policy.num_trained() as u64;
    row.final_loss = outcome.final_loss;
    row.weights = outcome.weights;
    row.start_host_mib = memory.before_mib;
    row.peak_host_mib = memory.peak_mib();
    let aborted = ended(&mut row, &outcome.ended);
    Trained { policy, row, checks: outcome.checks, aborted, rollouts: vec![], phases: vec![] }
}

/// The starting checkpoint as the run trains it: a reward model gets its head.
pub(super) fn start(prepared: &Prepared, arm: &Arm, seed: u64) -> Result<Decoder> {
    let mut policy = match arm.method {
        Method::Reward => {
            let seed = crate::base::seed::derive(seed, "reward/head");
            RewardModel::from_start(&prepared.start, prepared.tokenizer.pad(), seed)?.into_decoder()
        }
        // With an adapter the weights stay as they are, and stay shared with the reference.
        _ if arm.train.lora.is_on() => prepared.start.with_adapter(&arm.train.lora, seed)?,
        _ if prepared.spare_start => prepared.start.shared(),
        _ => prepared.start.duplicate()?,
    };
    policy.set_checkpointing(arm.train.gradient_checkpointing);
    if let Method::Csft(control) = &arm.method {
        policy.set_control(control);
    }
    Ok(policy)
}

/// Notes how training ended; whether it was the abort flag.
pub(super) fn ended(row: &mut RunRow, ended: &Ended) -> bool {
    (row.status, row.note) = match ended {
        Ended::Done => (Status::Done, String::new()),
        Ended::Diverged(why) => (Status::Diverged, why.clone()),
        Ended::Aborted => (Status::Failed, "interrupted".to_owned()),
    };
    *ended == Ended::Aborted
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
    let is_reference = std::ptr::eq(policy, prepared.reference());
    let mut context = ScoreContext {
        policy,
        reference: if is_reference { None } else { Some(&mut logps) },
        tokenizer: &prepared.tokenizer,
        data: &plan.data,
        heldout,
        base,
        seed,
        max_examples: plan.suites.max_examples,
        reserve: prepared.control_tokens,
        beta: SCORE_BETA,
        slots: SLOTS,
    };
    score_with(&mut context, suite, prepared.judges.of(suite))
}
