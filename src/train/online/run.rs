//! The online loop: reward model, then rollout after rollout until the budget is spent.

use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::estimate::Estimate;
use super::job::{OnlineHooks, OnlineJob, OnlineOutcome};
use super::keep::{Keeping, NotAtAll, Saver};
use super::learn::reference_logps;
use super::phases::{Phase, Phases};
use super::reward::RewardSource;
use super::rollout::{Drawn, Prompt, RolloutMetrics, draw, given, prompts};
use super::source::{Source, reward_source};
use super::symptoms::{Seen, Symptoms};
use crate::base::error::{HintExt, Result, anyhow};
use crate::base::seed;
use crate::data::Sampler;
use crate::model::{Decoder, Gradients};
use crate::objective::online::{KlControl, Surrogate, surrogate};
use crate::objective::{Feedback, Objective, build};
use crate::plan::OnlineSpec;
use crate::train::adamw::AdamW;
use crate::train::checks::{STOOD_STILL, Watch};
use crate::train::cost::{Ledger, amount};
use crate::train::run::{Ended, Progress, TrainOutcome};
use crate::train::units::{Unit, units};
use crate::train::warm_up::{self, Reads};

/// Trains `policy` in place on its own samples until the budget is spent.
///
/// A rollout takes `batch_size` samples, or as many as the budget still has room for by the cost of those before it;
/// so a run ends within about half a prompt's samples of its budget.
///
/// # Errors
/// Input that cannot be trained on, a budget smaller than the first rollout, and the checks that refuse to go on. A
/// run that diverges (see `Symptoms`) is no error: see [`Ended`].
pub fn train_online(
    policy: &mut Decoder,
    job: &OnlineJob<'_>,
    hooks: &mut OnlineHooks<'_>,
) -> Result<OnlineOutcome> {
    train_online_in(policy, job, hooks, &mut NotAtAll)
}

/// [`train_online`], going on from what `keeping` holds, and saving there: between rollouts at the interval, when
/// aborted, and at the end. Rollouts that an earlier process made are told again.
///
/// # Errors
/// As [`train_online`]; a checkpoint that cannot be written.
pub fn train_online_in(
    policy: &mut Decoder,
    job: &OnlineJob<'_>,
    hooks: &mut OnlineHooks<'_>,
    keeping: &mut dyn Keeping,
) -> Result<OnlineOutcome> {
    let start = policy.weights_hash()?;
    let mut source = reward_source(policy, job, hooks, keeping)?;
    let critic = surrogate(job.method).is_some_and(|s| s.critic());
    if critic {
        *policy = policy.with_critic(seed::derive(job.seed, "online/critic"))?;
    }
    let mut ended = source.ended.take().unwrap_or(Ended::Done);
    let mut run = Run::new(policy, job, source, &start)?;
    if ended == Ended::Done {
        run.warm_up(policy)?;
    }
    let mut saver = run.take_up(policy, &start, &ended, keeping)?;
    run.told.iter().try_for_each(|metrics| (hooks.rollout)(metrics))?;
    while ended == Ended::Done {
        saver.save(&run, policy, false)?;
        if hooks.abort.load(Ordering::Relaxed) {
            ended = Ended::Aborted;
        } else if let Some(size) = run.next_size()? {
            ended = run.rollout(policy, size, hooks)?.map_or(Ended::Done, Ended::Diverged);
        } else {
            break;
        }
    }
    if !matches!(ended, Ended::Diverged(_)) {
        // Scoring, which follows, may be interrupted too: training must not be lost with it.
        saver.save(&run, policy, true)?;
    }
    if critic {
        *policy = policy.without_scalar()?;
    }
    run.finish(policy, ended, &start)
}

/// What is done with samples.
#[derive(Clone)]
pub(super) enum Learner {
    Surrogate(Rc<dyn Surrogate>),
    /// Labelled by their rewards, and learned from as data are.
    Labels(Rc<dyn Objective>),
}

/// A run under way.
pub(super) struct Run<'a> {
    pub(super) job: &'a OnlineJob<'a>,
    pub(super) online: &'a OnlineSpec,
    pub(super) learner: Learner,
    /// Absent where completions and rewards are given.
    pub(super) source: Option<RewardSource>,
    pub(super) prompts: Vec<Prompt>,
    /// Given completions (offline PPO).
    pub(super) given: Vec<Unit>,
    pub(super) sampler: Sampler,
    pub(super) optimizer: AdamW,
    pub(super) gradients: Gradients,
    /// Of the reward model.
    pub(super) before: Ledger,
    pub(super) ledger: Ledger,
    pub(super) phases: Phases,
    pub(super) watch: Watch,
    pub(super) symptoms: Symptoms,
    pub(super) control: KlControl,
    pub(super) estimate: Estimate,
    pub(super) rollouts: u64,
    /// Labels that the rollout under way took.
    pub(super) asked: f64,
    /// Those that ended.
    pub(super) told: Vec<RolloutMetrics>,
    pub(super) loss: f64,
    /// Policy and reference begin equal.
    pub(super) equal: bool,
}

impl<'a> Run<'a> {
    fn new(policy: &Decoder, job: &'a OnlineJob<'a>, source: Source, start: &str) -> Result<Self> {
        let online = job.online()?;
        let learner = match surrogate(job.method) {
            Some(surrogate) => Learner::Surrogate(Rc::from(surrogate)),
            None => Learner::Labels(Rc::from(build(job.method)?)),
        };
        let (prompts, given) = match source.rewards.is_some() {
            true => (prompts(job.data, policy.config().max_positions, job.text.decode)?, vec![]),
            false => (vec![], units(job.data, Feedback::Unpaired)?),
        };
        let mut phases = Phases::default();
        phases.add(Phase::RewardModel, source.phase);
        Ok(Self {
            job,
            online,
            learner,
            sampler: Sampler::new(prompts.len().max(given.len()), job.spec.order, job.seed),
            source: source.rewards,
            prompts,
            given,
            optimizer: AdamW::new(job.spec, policy)?,
            gradients: Gradients::zeros(policy)?,
            before: source.ledger,
            ledger: Ledger::default(),
            phases,
            watch: Watch::default(),
            symptoms: Symptoms::default(),
            control: KlControl::new(online.beta, online.kl_target),
            estimate: Estimate::default(),
            rollouts: 0,
            asked: 0.0,
            told: vec![],
            loss: f64::NAN,
            equal: job.reference.weights_hash()? == start,
        })
    }

    /// Goes on from what is kept, where anything is, and says where this run is saved. A run that ended with its reward
    /// model has nothing to keep.
    fn take_up(
        &mut self,
        policy: &mut Decoder,
        start: &str,
        ended: &Ended,
        keeping: &mut dyn Keeping,
    ) -> Result<Saver> {
        if *ended != Ended::Done {
            return Ok(Saver::new(None, self, start, String::new()));
        }
        let fingerprint = self.fingerprint(start)?;
        let kept = keeping.rollouts(self.before.steps, &fingerprint)?;
        if let Some(saved) = kept.saved {
            self.restore(policy, saved, &fingerprint)?;
        }
        Ok(Saver::new(kept.checkpoints, self, start, fingerprint))
    }

    /// Sends a prompt the way of a rollout, before seconds count: see [`warm_up::warm_up`].
    fn warm_up(&mut self, policy: &Decoder) -> Result<()> {
        if !warm_up::is_due(policy) {
            return Ok(());
        }
        let units = match &self.source {
            Some(source) => {
                // A token from the prompt, one from the cache.
                let short = OnlineSpec { max_new_tokens: 2, ..self.online.clone() };
                let prompts: Vec<&Prompt> = self.prompts.iter().take(1).collect();
                draw(self.job, &short, policy, source, &prompts, 0, &mut Phases::default())?.units
            }
            None => self.given.iter().take(1).cloned().collect(),
        };
        reference_logps(self.job.reference, &units, self.job.spec.micro_tokens)?;
        let reads = match &self.learner {
            Learner::Surrogate(surrogate) if surrogate.critic() => Reads::Both,
            Learner::Surrogate(_) => Reads::LogProbs { prompts: false },
            Learner::Labels(objective) => Reads::of(objective.as_ref()),
        };
        warm_up::warm_up(policy, reads, &units, &self.optimizer, &mut self.gradients)
    }

    fn spent(&self) -> f64 {
        self.before.spent(self.job.budget) + self.ledger.spent(self.job.budget)
    }

    /// Prompts of the next rollout; `None`: the budget has no room for one.
    fn next_size(&self) -> Result<Option<usize>> {
        let (limit, spent) = (amount(self.job.budget), self.spent());
        if self.rollouts == 1 && spent > 1.01 * limit {
            return Err(anyhow!(
                "the budget of {limit} is smaller than the cost of the first samples ({spent})"
            ))
            .hint("raise the budget, or lower the arm's batch_size or max_new_tokens");
        }
        let samples = if self.source.is_some() { self.online.samples } else { 1 };
        let most = (self.job.spec.batch_size / samples).max(1);
        Ok(Some(self.estimate.fitting(self.job.budget, spent, most)).filter(|n| *n > 0))
    }

    /// One rollout and what is learned from it; `Some`: the run has diverged, and this is why.
    fn rollout(
        &mut self,
        policy: &mut Decoder,
        size: usize,
        hooks: &mut OnlineHooks<'_>,
    ) -> Result<Option<String>> {
        let (started, before) = (Instant::now(), self.spent());
        self.rollouts += 1;
        let counted = self.phases;
        let mut drawn = match self.draw(policy, size) {
            Ok(drawn) => drawn,
            // A policy that could be sampled from at first and no longer can has been broken by its updates.
            Err(error) if self.ledger.steps > 0 => {
                return Ok(Some(format!("rollout {}: no samples can be drawn: {error:#}", self.rollouts)));
            }
            Err(error) => return Err(error),
        };
        self.ledger.labels += drawn.labels;
        self.asked = drawn.labels as f64;
        let ended =
            self.look(&drawn, None).map_or_else(|| self.learn(policy, &mut drawn, hooks), |w| Ok(Some(w)))?;
        // Updates have counted themselves; forward passes are counted here.
        let forward = |p: Phase| self.phases.get(p).flops - counted.get(p).flops;
        self.ledger.flops += forward(Phase::Sampling) + forward(Phase::Scoring) + forward(Phase::LogProbs);
        let took = started.elapsed().as_secs_f64();
        self.ledger.train_seconds += took;
        drawn.metrics.seconds = took;
        (hooks.rollout)(&drawn.metrics)?;
        self.told.push(drawn.metrics);
        self.estimate.observe(self.spent() - before, size);
        (hooks.progress)(self.progress());
        Ok(ended.map(|why| format!("rollout {}: {why}", self.rollouts)))
    }

    fn progress(&self) -> Progress {
        Progress {
            step: self.before.steps + self.ledger.steps,
            asking: false,
            fraction: (self.spent() / amount(self.job.budget)).min(1.0),
            loss: self.loss,
            policy_tokens: self.before.policy_tokens + self.ledger.policy_tokens,
        }
    }

    fn draw(&mut self, policy: &Decoder, size: usize) -> Result<Drawn> {
        let picked: Vec<usize> = (0..size).map(|_| self.sampler.next()).collect();
        if let Some(source) = &self.source {
            let prompts: Vec<&Prompt> = picked.iter().map(|&i| &self.prompts[i]).collect();
            let phases = &mut self.phases;
            return draw(self.job, self.online, policy, source, &prompts, self.rollouts, phases);
        }
        let units = picked.iter().map(|&i| self.given[i].clone()).collect();
        Ok(given(units, self.rollouts))
    }

    /// Whether something has gone wrong with the samples or, where their distance is known, with the policy.
    pub(super) fn look(&mut self, drawn: &Drawn, kl_per_token: Option<f64>) -> Option<String> {
        if let Some(kl) = kl_per_token {
            return self.symptoms.far(kl);
        }
        let own = self.source.is_some();
        let RolloutMetrics { empty, unfinished, .. } = drawn.metrics;
        self.symptoms.look(&Seen { rewards: &drawn.rewards, empty, unfinished, own })
    }

    fn learn(
        &mut self,
        policy: &mut Decoder,
        drawn: &mut Drawn,
        hooks: &mut OnlineHooks<'_>,
    ) -> Result<Option<String>> {
        drawn.metrics.beta = self.control.beta;
        match self.learner.clone() {
            Learner::Surrogate(surrogate) => self.learn_surrogate(surrogate.as_ref(), policy, drawn, hooks),
            Learner::Labels(objective) => self.learn_labels(objective.as_ref(), policy, drawn, hooks),
        }
    }

    /// Prompts, or given completions, of an epoch.
    pub(super) fn sampler_size(&self) -> usize {
        self.prompts.len().max(self.given.len())
    }

    fn finish(self, policy: &Decoder, ended: Ended, start: &str) -> Result<OnlineOutcome> {
        let weights = policy.weights_hash()?;
        let moved = weights != start;
        let ended = match ended {
            Ended::Done if !moved => Ended::Diverged(STOOD_STILL.to_owned()),
            ended => ended,
        };
        let why = if self.equal { "no rollout was learned from" } else { "the reference is another model" };
        let checks = self.watch.report(moved, why);
        let mut ledger = self.before;
        ledger.add(&self.ledger);
        let train = TrainOutcome { ended, ledger, final_loss: self.loss, weights, checks };
        let reward_model = match self.source {
            Some(RewardSource::Model(model)) => Some(*model),
            _ => None,
        };
        Ok(OnlineOutcome { train, phases: self.phases, reward_model })
    }
}
