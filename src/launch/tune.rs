//! Tuning before the comparison: every arm's trials, each trained on the training data less the validation prompts
//! and judged on those; the held-out suites are not looked at.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use super::keep::is_out_of_room;
use super::metrics::validation_suite;
use super::observer::Observer;
use super::prepare::Prepared;
use super::rows::direction;
use super::run::{scored_on, trained};
use crate::base::error::{Context, Result, render};
use crate::plan::{Arm, Plan, RunSpec, Trial, TuneSpec};
use crate::record::{RecordWriter, RunRow, Status, TrialRow};
use crate::stats::tuning::best;
use crate::suite::{self, ALL, ScoredSuite, Suite};

/// The configuration of each arm that the trials chose; none of an arm that was not tuned, or no trial of which ended
/// well.
#[derive(Default)]
pub(super) struct Chosen(BTreeMap<String, Arm>);

impl Chosen {
    /// The run with the chosen configuration; its id stays that of the plan.
    pub fn apply(&self, run: &RunSpec) -> RunSpec {
        let arm = self.0.get(&run.arm.name).unwrap_or(&run.arm).clone();
        RunSpec { arm, ..run.clone() }
    }
}

/// Runs the trials of `arms` that the folder does not hold yet, and chooses. `None`: aborted.
///
/// # Errors
/// A suite that is no use for validation; a place that has given out.
pub(super) fn tune(
    prepared: &Prepared,
    plan: &Plan,
    arms: &[&Arm],
    writer: &mut RecordWriter,
    abort: &AtomicBool,
    observer: &mut dyn Observer,
) -> Result<Option<Chosen>> {
    let Some(spec) = &plan.tune else { return Ok(Some(Chosen::default())) };
    let suite = validation_suite(spec)?;
    let file = writer.trials();
    let mut rows: Vec<TrialRow> = file.read()?.into_iter().filter(|r| r.status != Status::Failed).collect();
    file.replace(&rows)?;
    let mut base = None;
    let total: usize = arms.len() * (spec.trials + 1);
    for (i, arm) in arms.iter().enumerate() {
        for trial in arm.trials(spec)? {
            if rows.iter().any(|r| r.arm == arm.name && r.trial == trial.index as u64) {
                continue;
            }
            if base.is_none() {
                base = Some(validated(prepared, plan, spec, &suite, &prepared.start, None)?);
            }
            let run = trial_run(plan, spec, arm, &trial)?;
            observer.run_begins(&run, i * (spec.trials + 1) + trial.index, total);
            let Some(row) = one(prepared, plan, spec, &suite, &run, &trial, base.as_ref(), abort, observer)?
            else {
                return Ok(None);
            };
            file.append(&row)?;
            rows.push(row);
        }
    }
    choose(arms, spec, &rows, observer).map(Some)
}

fn trial_run(plan: &Plan, spec: &TuneSpec, arm: &Arm, trial: &Trial) -> Result<RunSpec> {
    Ok(RunSpec {
        id: format!("{}-trial{}", arm.name, trial.index),
        arm: arm.with(&trial.values)?,
        seed: spec.seed,
        budget: arm.budget.part(spec.budget_share),
        model: plan.model.clone(),
        data: arm.data.clone(),
    })
}

fn validated(
    prepared: &Prepared,
    plan: &Plan,
    spec: &TuneSpec,
    suite: &Suite,
    policy: &crate::model::Decoder,
    base: Option<&ScoredSuite>,
) -> Result<ScoredSuite> {
    scored_on(prepared, plan, policy, base, spec.seed, suite, &prepared.data.validation)
}

#[expect(clippy::too_many_arguments, reason = "what a trial needs, each of another kind")]
fn one(
    prepared: &Prepared,
    plan: &Plan,
    spec: &TuneSpec,
    suite: &Suite,
    run: &RunSpec,
    trial: &Trial,
    base: Option<&ScoredSuite>,
    abort: &AtomicBool,
    observer: &mut dyn Observer,
) -> Result<Option<TrialRow>> {
    let result = match trained(prepared, run, abort, &mut |_| Ok(()), observer) {
        Ok(trained) if trained.aborted => return Ok(None),
        Ok(trained) => trained,
        // A full disk says nothing of the configuration: the same command runs the trial again.
        Err(error) if is_out_of_room(&error) => return Err(error.context(format!("trial {}", run.id))),
        // A configuration that cannot be trained is a trial that lost, not the end of the comparison.
        Err(error) => {
            let note = render(&error).replace('\n', "; ");
            let row = RunRow { status: Status::Diverged, note, ..super::rows::run(run) };
            observer.run_ends(&row);
            return Ok(Some(trial_row(spec, trial, &row)));
        }
    };
    let mut row = result.row;
    let mut made = trial_row(spec, trial, &row);
    if row.status == Status::Done {
        let started = Instant::now();
        let scored = validated(prepared, plan, spec, suite, &result.policy, base)?;
        let measured = |m: &&suite::MetricScore| m.subset == ALL && m.metric.name() == spec.metric;
        let score = scored.metrics.iter().find(measured);
        let score =
            score.with_context(|| format!("tune.metric: suite {} gave no {}", suite.name, spec.metric))?;
        let info = score.metric.info();
        (made.value, made.n, made.standard_error) = (score.value, score.n as u64, score.standard_error);
        (made.direction, made.unit) = (direction(info.direction), info.unit.to_owned());
        row.score_seconds = started.elapsed().as_secs_f64();
        made.score_seconds = row.score_seconds;
    }
    observer.run_ends(&row);
    Ok(Some(made))
}

fn trial_row(spec: &TuneSpec, trial: &Trial, row: &RunRow) -> TrialRow {
    TrialRow {
        arm: row.arm.clone(),
        method: row.method.clone(),
        trial: trial.index as u64,
        values: trial.text(),
        status: row.status,
        note: row.note.clone(),
        suite: spec.suite.clone(),
        metric: spec.metric.clone(),
        direction: crate::record::Direction::Neutral,
        unit: String::new(),
        value: f64::NAN,
        n: 0,
        standard_error: f64::NAN,
        steps: row.steps,
        examples: row.examples,
        labels: row.labels,
        policy_tokens: row.policy_tokens,
        kl_tokens: row.kl_tokens,
        reference_tokens: row.reference_tokens,
        flops: row.flops,
        train_seconds: row.train_seconds,
        reference_seconds: row.reference_seconds,
        score_seconds: 0.0,
    }
}

fn choose(arms: &[&Arm], spec: &TuneSpec, rows: &[TrialRow], observer: &mut dyn Observer) -> Result<Chosen> {
    let mut chosen = Chosen::default();
    for arm in arms {
        let of_arm: Vec<&TrialRow> = rows.iter().filter(|r| r.arm == arm.name).collect();
        // The arm runs as planned and is recorded as lost if it diverges again; the other arms are compared.
        let Some(row) = best(&of_arm) else {
            let n = of_arm.len();
            observer.note(&format!(
                "{}: none of its {n} trials ended well; it runs as the plan has it",
                arm.name
            ));
            continue;
        };
        let trials = arm.trials(spec)?;
        let trial = trials.iter().find(|t| t.index as u64 == row.trial).expect("its row was written for it");
        let said = if trial.values.is_empty() { "as the plan has it".to_owned() } else { trial.text() };
        observer.note(&format!("{}: trial {} of {} is best ({said})", arm.name, row.trial, spec.trials));
        chosen.0.insert(arm.name.clone(), arm.with(&trial.values)?);
    }
    Ok(chosen)
}
