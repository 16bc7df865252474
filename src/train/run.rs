//! The loop.

use super::adamw::AdamW;
use super::ahead::{self, Asked};
use super::batches::{Batches, StepBatch};
use super::checkpoint::{Checkpoints, Saved, State};
use super::checks::{Check, STOOD_STILL, Watch};
use super::cost::{Ledger, amount};
use super::metrics::{StepMetrics, saturation};
use super::reference::Reference;
use super::schedule::learning_rate;
use super::step::{StepInput, compute_step};
use super::units::{TrainData, Unit, class_counts};
use super::warm_up::{Reads, warm_up};
use crate::base::error::{HintExt, Result, anyhow, ensure};
use crate::base::hash::Hasher;
use crate::base::seed;
use crate::data::Sampler;
use crate::model::{Decoder, Gradients};
use crate::objective::{ClassCounts, build};
use crate::plan::{Budget, Method, TrainSpec};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// What to train, on what, and for how much.
#[derive(Clone, Copy)]
pub struct Job<'a> {
    pub method: &'a Method,
    pub spec: &'a TrainSpec,
    pub budget: Budget,
    /// Seed of the order of examples.
    pub seed: u64,
    /// Prompts with mismatched completions are cut to this many tokens, as the data was.
    pub max_length: usize,
    pub data: TrainData<'a>,
    /// Needed by most methods.
    pub reference: Option<Reference<'a>>,
}

/// How far a run is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Progress {
    pub step: u64,
    /// The reference is being asked about steps to come: `fraction` is the part of the budget that it knows.
    pub asking: bool,
    /// Of the budget, in [0, 1].
    pub fraction: f64,
    pub loss: f64,
    pub policy_tokens: u64,
}

/// What the loop tells, and what stops it.
pub struct Hooks<'a> {
    /// Called with each step's figures; an error ends the run.
    pub step: &'a mut dyn FnMut(&StepMetrics) -> Result<()>,
    pub progress: &'a mut dyn FnMut(Progress),
    /// Set it, and the run ends after the present step.
    pub abort: &'a AtomicBool,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The budget is spent.
    Done,
    /// NaN, loss explosion, dead gradients; why.
    Diverged(String),
    /// The abort flag was set.
    Aborted,
}

/// What a run ended with.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainOutcome {
    pub ended: Ended,
    pub ledger: Ledger,
    /// Loss of the last step.
    pub final_loss: f64,
    /// Hash of the trained weights.
    pub weights: String,
    pub checks: Vec<Check>,
}

/// Trains `policy` in place until the budget is spent.
///
/// A step takes examples until it has `batch_size` completions or the next one would exceed the budget; so
/// arms end within an example of the budget, and of each other. A step of one example is not taken where z0
/// needs two.
///
/// # Errors
/// Input that cannot be trained on, a budget smaller than one example, and the checks that refuse to go on
/// ([`Watch`]). A run that diverges is no error: see [`Ended`].
pub fn train(policy: &mut Decoder, job: &Job<'_>, hooks: &mut Hooks<'_>) -> Result<TrainOutcome> {
    train_from(policy, job, hooks, None, None)
}

/// Hash of all that determines a run that starts from `policy`: a checkpoint fits a run where they agree.
///
/// # Errors
/// Input that cannot be trained on.
pub fn fingerprint(policy: &Decoder, job: &Job<'_>) -> Result<String> {
    Ok(Run::new(policy, job)?.fingerprint)
}

/// [`train`], going on from a checkpoint where one is given, and saving checkpoints where that is wanted: at
/// the interval, when aborted, and at the end.
///
/// A run that goes on ends with the same bits as one that was never interrupted, on the same machine with
/// the same number of threads.
///
/// # Errors
/// As [`train`]; a checkpoint of another run; a checkpoint that cannot be written.
pub fn train_from(
    policy: &mut Decoder,
    job: &Job<'_>,
    hooks: &mut Hooks<'_>,
    saved: Option<Saved>,
    checkpoints: Option<&Checkpoints>,
) -> Result<TrainOutcome> {
    let mut run = Run::new(policy, job)?;
    let reads = Reads::of(run.batches.objective.as_ref());
    warm_up(policy, reads, &run.batches.units, &run.optimizer, &mut run.gradients)?;
    let asked = run.ask_start(policy, saved.as_ref(), hooks)?;
    if let Some(saved) = saved {
        run.restore(policy, saved)?;
    }
    run.ledger.train_seconds += asked.seconds;
    run.ledger.reference_seconds += asked.seconds;
    let mut ended = if asked.aborted { Ended::Aborted } else { Ended::Done };
    let (mut saved_at, mut saved_step) = (Instant::now(), run.ledger.steps);
    while ended == Ended::Done
        && let Some(batch) = run.batches.next(policy, &mut run.sampler, &run.ledger)?
    {
        let (metrics, diverged) = run.step(policy, &batch)?;
        (hooks.step)(&metrics)?;
        (hooks.progress)(run.progress());
        let abort = hooks.abort.load(Ordering::Relaxed);
        let due = |c: &&Checkpoints| abort || c.every.due(run.ledger.steps - saved_step, saved_at.elapsed());
        if diverged.is_none()
            && let Some(checkpoints) = checkpoints.filter(due)
        {
            checkpoints.write(&run.state(), policy, run.optimizer.state())?;
            (saved_at, saved_step) = (Instant::now(), run.ledger.steps);
        }
        ended = match diverged {
            Some(why) => Ended::Diverged(why),
            None if abort => Ended::Aborted,
            None => Ended::Done,
        };
    }
    // Scoring, which follows, may be interrupted too: training must not be lost with it.
    if ended == Ended::Done
        && run.ledger.steps > saved_step
        && let Some(checkpoints) = checkpoints
    {
        checkpoints.write(&run.state(), policy, run.optimizer.state())?;
    }
    run.finish(policy, ended)
}

struct Run<'a> {
    job: &'a Job<'a>,
    batches: Batches<'a>,
    classes: ClassCounts,
    sampler: Sampler,
    optimizer: AdamW,
    gradients: Gradients,
    ledger: Ledger,
    watch: Watch,
    /// Sum and number of implicit rewards so far (BCO's δ).
    rewards: (f64, u64),
    loss: f64,
    /// Hash of the weights that training began with.
    start: String,
    /// Why the step-0 identity does not apply; empty where it does.
    no_identity: String,
    /// What a checkpoint must carry to be this run's.
    fingerprint: String,
}

impl<'a> Run<'a> {
    fn new(policy: &Decoder, job: &'a Job<'a>) -> Result<Self> {
        let batches = Batches::new(job, build(job.method)?)?;
        let objective = batches.objective.as_ref();
        let start = policy.weights_hash()?;
        let no_identity = match job.reference {
            _ if !objective.needs_reference() => "the method has no reference".to_owned(),
            None => return Err(anyhow!("{} needs a reference model", objective.name())),
            Some(Reference { decoder: None, .. }) => {
                ensure!(
                    !matches!(job.budget, Budget::Seconds(_)),
                    "under a budget in seconds nobody knows beforehand what the reference will be asked"
                );
                String::new()
            }
            // A new adapter adds nothing, dropped or not; one that SFT has trained does.
            Some(Reference { decoder: Some(reference), .. })
                if job.spec.lora.dropout > 0.0 && reference.adapter().is_some() =>
            {
                "the policy's adapter has dropout, the reference's has none".to_owned()
            }
            Some(Reference { decoder: Some(reference), .. }) if reference.weights_hash()? == start => {
                String::new()
            }
            Some(_) => "the reference is not the starting checkpoint".to_owned(),
        };
        let mut run = Self {
            fingerprint: String::new(),
            job,
            classes: class_counts(&batches.units),
            sampler: batches.sampler(),
            optimizer: AdamW::new(job.spec, policy)?,
            gradients: Gradients::zeros(policy)?,
            ledger: Ledger::default(),
            watch: Watch::default(),
            rewards: (0.0, 0),
            loss: f64::NAN,
            batches,
            start,
            no_identity,
        };
        run.fingerprint = run.fingerprint()?;
        Ok(run)
    }

    /// See [`ahead`]; from where `saved` stands.
    fn ask_start(&self, policy: &Decoder, saved: Option<&Saved>, hooks: &mut Hooks<'_>) -> Result<Asked> {
        let Some(Reference { decoder: None, cache }) = self.job.reference else {
            return Ok(Asked::default());
        };
        if !self.batches.objective.needs_reference() {
            return Ok(Asked::default());
        }
        let from = match saved {
            Some(Saved { state, .. }) => (self.batches.sampler_at(state.sampler), state.ledger),
            None => (self.batches.sampler(), self.ledger),
        };
        ahead::ask(policy, cache, &self.batches, from, hooks)
    }

    /// A hash of all that determines what the run does.
    fn fingerprint(&self) -> Result<String> {
        let Job { method, spec, budget, seed, max_length, reference, .. } = self.job;
        let settings = serde_json::to_string(&(method, spec.determining(), budget, seed, max_length))?;
        let reference = reference.map_or("", |r| r.cache.weights());
        let mut hasher = Hasher::new("kto-eval/run").part(settings.as_bytes()).part(reference.as_bytes());
        for (sequence, desirable) in self.batches.units.iter().flat_map(Unit::sides) {
            hasher = hasher
                .ids(&sequence.ids)
                .part(&[u8::from(desirable)])
                .part(&sequence.prompt_len.to_le_bytes());
        }
        Ok(hasher.part(self.start.as_bytes()).hex())
    }

    fn state(&self) -> State {
        State {
            fingerprint: self.fingerprint.clone(),
            start: self.start.clone(),
            loss: self.loss,
            reward_sum: self.rewards.0,
            reward_count: self.rewards.1,
            updates: self.optimizer.state().updates,
            sampler: self.sampler.state(),
            ledger: self.ledger,
            watch: self.watch.clone(),
            online: None,
        }
    }

    /// Takes up a saved run; `policy` is the starting checkpoint and becomes the saved policy.
    fn restore(&mut self, policy: &mut Decoder, saved: Saved) -> Result<()> {
        if saved.state.fingerprint != self.fingerprint {
            return Err(anyhow!("the checkpoint is of another run (other data, model, method or settings)"))
                .hint("remove the run's checkpoint folder to start it anew");
        }
        saved.restore_weights(policy)?;
        let Saved { state, optimizer, .. } = saved;
        self.optimizer.restore(optimizer)?;
        self.sampler = self.batches.sampler_at(state.sampler);
        (self.ledger, self.watch, self.loss) = (state.ledger, state.watch, state.loss);
        self.rewards = (state.reward_sum, state.reward_count);
        Ok(())
    }

    fn progress(&self) -> Progress {
        Progress {
            step: self.ledger.steps,
            asking: false,
            fraction: self.ledger.fraction(self.job.budget),
            loss: self.loss,
            policy_tokens: self.ledger.policy_tokens,
        }
    }

    /// Runs a step; the second value says why the run is to end, and then no update was made.
    fn step(&mut self, policy: &mut Decoder, batch: &StepBatch) -> Result<(StepMetrics, Option<String>)> {
        let started = Instant::now();
        let limit = amount(self.job.budget);
        let middle = self.ledger.spent(self.job.budget) + 0.5 * batch.cost.spent(self.job.budget);
        let rate = learning_rate(self.job.spec, middle / limit);
        let units: Vec<&Unit> = batch.units.iter().map(|&i| &self.batches.units[i]).collect();
        let input = StepInput {
            units: &units,
            mismatched: &batch.mismatched,
            reference: self.job.reference,
            micro_tokens: self.job.spec.micro_tokens,
            dropout: (self.job.spec.lora.dropout > 0.0)
                .then(|| seed::derive(self.job.seed, &format!("dropout of step {}", self.ledger.steps + 1))),
            classes: self.classes,
            reward_shift: if self.rewards.1 == 0 { 0.0 } else { self.rewards.0 / self.rewards.1 as f64 },
        };
        self.gradients.restart_()?;
        let objective = self.batches.objective.as_ref();
        let result = compute_step(policy, objective, &input, &mut self.gradients)?;
        if self.ledger.steps == 0 && self.no_identity.is_empty() {
            let dtype = policy.dtype();
            self.watch.identity(objective, &units, &result, self.classes, dtype)?;
        }
        let grad_norm = self.gradients.global_norm()?;

        let mut cost = batch.cost;
        self.ledger.add(&cost);
        let mut metrics = StepMetrics::new(&result, objective.feedback(), &cost, &self.ledger);
        (metrics.grad_norm, metrics.learning_rate) = (grad_norm, rate);
        if let (Method::Kto(spec), Some((_, z0))) = (self.job.method, result.z0) {
            metrics.saturation = saturation(&result.rewards, spec.beta, z0);
        }
        self.loss = result.loss;
        self.rewards.0 += result.rewards.iter().sum::<f64>();
        self.rewards.1 += result.rewards.len() as u64;
        let gradients = &self.gradients;
        let diverged = self.watch.step(&result, &metrics, &self.ledger, || gradients.named_norms())?;
        if diverged.is_none() {
            self.optimizer.step(
                policy,
                &self.gradients,
                rate,
                clip(grad_norm, self.job.spec.max_grad_norm),
            )?;
        }
        cost.train_seconds = started.elapsed().as_secs_f64();
        self.ledger.train_seconds += cost.train_seconds;
        self.ledger.reference_seconds += result.reference_time.as_secs_f64();
        metrics.seconds = cost.train_seconds;
        Ok((metrics, diverged))
    }

    fn finish(self, policy: &Decoder, ended: Ended) -> Result<TrainOutcome> {
        if let Some(reference) = self.job.reference {
            reference.cache.save()?;
        }
        let weights = policy.weights_hash()?;
        let moved = weights != self.start;
        let ended = match ended {
            Ended::Done if !moved => Ended::Diverged(STOOD_STILL.to_owned()),
            ended => ended,
        };
        let checks = self.watch.report(moved, &self.no_identity);
        Ok(TrainOutcome { ended, ledger: self.ledger, final_loss: self.loss, weights, checks })
    }
}

/// What gradients are multiplied by so that their global norm is at most `max` (0: no limit), as in
/// `torch.nn.utils.clip_grad_norm_`.
pub(super) fn clip(norm: f64, max: f64) -> f64 {
    if max > 0.0 { (max / (norm + 1e-6)).min(1.0) } else { 1.0 }
}
