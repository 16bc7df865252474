//! The online loop: reward model, then rollout after rollout until the budget is spent.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use super::estimate::Estimate;
use super::learn::{pass, record, update_cost};
use super::phases::{Phase, PhaseCost, Phases};
use super::reward::{GoldReward, RewardSource, train_reward_model};
use super::rollout::{Drawn, Prompt, RolloutMetrics, draw, mean_and_deviation, prompts};
use super::symptoms::{Seen, Symptoms};
use crate::base::error::{Context, HintExt, Result, anyhow, bail};
use crate::base::seed;
use crate::data::Sampler;
use crate::model::generate::Text;
use crate::model::{Decoder, Gradients, RewardModel};
use crate::objective::online::{Advantages, KlControl, Rollout, Surrogate, surrogate};
use crate::objective::{ClassCounts, Feedback, LogProbs, Objective, build};
use crate::plan::{Budget, Method, OnlineSpec, RewardFrom, TrainSpec};
use crate::train::adamw::AdamW;
use crate::train::checks::{STOOD_STILL, Watch};
use crate::train::cost::{Ledger, amount, step_cost};
use crate::train::metrics::StepMetrics;
use crate::train::mismatch::mismatched_sequences;
use crate::train::reference::{Reference, ReferenceCache};
use crate::train::run::{Ended, Hooks, Job, Progress, TrainOutcome, clip};
use crate::train::schedule::learning_rate;
use crate::train::step::{StepInput, StepResult, compute_step};
use crate::train::units::{TrainData, Unit, class_counts, units};

/// What to train, on what, and for how much.
#[derive(Clone, Copy)]
pub struct OnlineJob<'a> {
    pub method: &'a Method,
    pub spec: &'a TrainSpec,
    /// Of the whole: reward model, sampling, scoring and updates.
    pub budget: Budget,
    /// Seed of the order of prompts, of samples, and of new heads.
    pub seed: u64,
    pub max_length: usize,
    /// Where prompts come from; the pairs that a reward model learns from; the completions of offline PPO.
    pub data: TrainData<'a>,
    pub reference: &'a Decoder,
    pub text: Text<'a>,
    /// Padding token of a reward model that is trained.
    pub pad: u32,
    /// The world's gold reward, where the data are the world's.
    pub gold: Option<GoldReward>,
}

/// What the loop tells, and what stops it.
pub struct OnlineHooks<'a> {
    /// Each optimizer step's figures, the reward model's first.
    pub step: &'a mut dyn FnMut(&StepMetrics) -> Result<()>,
    pub rollout: &'a mut dyn FnMut(&RolloutMetrics) -> Result<()>,
    pub progress: &'a mut dyn FnMut(Progress),
    pub abort: &'a AtomicBool,
}

/// What an online run ended with.
pub struct OnlineOutcome {
    /// The ledger counts the whole: the reward model too.
    pub train: TrainOutcome,
    pub phases: Phases,
    /// The one that was trained for the run.
    pub reward_model: Option<RewardModel>,
}

impl OnlineJob<'_> {
    pub(super) fn online(&self) -> Result<&OnlineSpec> {
        self.method.rollouts().with_context(|| format!("{} does not learn from rollouts", self.method.name()))
    }
}

/// Trains `policy` in place on its own samples until the budget is spent.
///
/// A rollout takes `batch_size` samples, or as many as the budget still has room for by the cost of those before it;
/// so a run ends within about half a prompt's samples of its budget. An interrupted run begins anew.
///
/// # Errors
/// Input that cannot be trained on, a budget smaller than the first rollout, and the checks that refuse to go on. A
/// run that diverges (see `Symptoms`) is no error: see [`Ended`].
pub fn train_online(
    policy: &mut Decoder,
    job: &OnlineJob<'_>,
    hooks: &mut OnlineHooks<'_>,
) -> Result<OnlineOutcome> {
    let start = policy.weights_hash()?;
    let (source, before, model_phase) = reward_source(policy, job, hooks)?;
    let critic = surrogate(job.method).is_some_and(|s| s.critic());
    if critic {
        *policy = policy.with_critic(seed::derive(job.seed, "online/critic"))?;
    }
    let mut run = Run::new(policy, job, source, before, &start)?;
    run.phases.add(Phase::RewardModel, model_phase);
    let mut ended = if hooks.abort.load(Ordering::Relaxed) { Ended::Aborted } else { Ended::Done };
    while ended == Ended::Done {
        let Some(size) = run.next_size()? else { break };
        if let Some(why) = run.rollout(policy, size, hooks)? {
            ended = Ended::Diverged(why);
        } else if hooks.abort.load(Ordering::Relaxed) {
            ended = Ended::Aborted;
        }
    }
    if critic {
        *policy = policy.without_scalar()?;
    }
    run.finish(policy, ended, &start)
}

/// The labels' source, trained where that is asked for; what that cost.
fn reward_source(
    start: &Decoder,
    job: &OnlineJob<'_>,
    hooks: &mut OnlineHooks<'_>,
) -> Result<(Option<RewardSource>, Ledger, PhaseCost)> {
    let Some(online) = job.method.online() else {
        return Ok((None, Ledger::default(), PhaseCost::default()));
    };
    if online.reward == RewardFrom::Gold {
        let gold = job.gold.ok_or_else(|| anyhow!("only the planted-truth world has a gold reward"));
        let gold = gold.hint("set reward = \"model\" for the arm, or data.source = \"world\"")?;
        return Ok((Some(RewardSource::Gold(gold)), Ledger::default(), PhaseCost::default()));
    }
    let started = Instant::now();
    let spec = TrainSpec { learning_rate: online.reward_learning_rate, ..job.spec.clone() };
    let share = part_of(job.budget, online.reward_share);
    // A batch holds whole pairs, whatever the samples are.
    let spec = TrainSpec { batch_size: (spec.batch_size / 2 * 2).max(2), ..spec };
    let model_job = Job {
        method: &Method::Reward,
        spec: &spec,
        budget: share,
        seed: job.seed,
        max_length: job.max_length,
        data: job.data,
        reference: None,
    };
    let mut own = Hooks { step: &mut *hooks.step, progress: &mut |_| (), abort: hooks.abort };
    let (model, outcome) = train_reward_model(start, job.pad, &model_job, &mut own)
        .context("training the arm's reward model")?;
    let ledger = outcome.ledger;
    let cost = PhaseCost {
        forward_tokens: 0,
        trained_tokens: ledger.policy_tokens,
        flops: ledger.flops,
        seconds: started.elapsed().as_secs_f64(),
    };
    Ok((Some(RewardSource::Model(Box::new(model))), ledger, cost))
}

fn part_of(budget: Budget, share: f64) -> Budget {
    let whole = |n: u64| ((n as f64 * share) as u64).max(1);
    match budget {
        Budget::Tokens(n) => Budget::Tokens(whole(n)),
        Budget::Examples(n) => Budget::Examples(whole(n)),
        Budget::Steps(n) => Budget::Steps(whole(n)),
        Budget::Flops(x) => Budget::Flops(x * share),
        Budget::Seconds(x) => Budget::Seconds(x * share),
    }
}

/// What is done with samples.
enum Learner {
    Surrogate(Box<dyn Surrogate>),
    /// Labelled by their rewards, and learned from as data are.
    Labels(Box<dyn Objective>),
}

struct Run<'a> {
    job: &'a OnlineJob<'a>,
    online: &'a OnlineSpec,
    learner: Learner,
    /// Absent where completions and rewards are given.
    source: Option<RewardSource>,
    prompts: Vec<Prompt>,
    /// Given completions (offline PPO).
    given: Vec<Unit>,
    sampler: Sampler,
    optimizer: AdamW,
    gradients: Gradients,
    /// Of the reward model.
    before: Ledger,
    ledger: Ledger,
    phases: Phases,
    watch: Watch,
    symptoms: Symptoms,
    control: KlControl,
    estimate: Estimate,
    rollouts: u64,
    loss: f64,
    /// Policy and reference begin equal.
    equal: bool,
}

impl<'a> Run<'a> {
    fn new(
        policy: &Decoder,
        job: &'a OnlineJob<'a>,
        source: Option<RewardSource>,
        before: Ledger,
        start: &str,
    ) -> Result<Self> {
        let online = job.online()?;
        let learner = match surrogate(job.method) {
            Some(surrogate) => Learner::Surrogate(surrogate),
            None => Learner::Labels(build(job.method)?),
        };
        let (prompts, given) = match source.is_some() {
            true => (prompts(job.data, policy.config().max_positions, job.text.decode)?, vec![]),
            false => (vec![], units(job.data, Feedback::Unpaired)?),
        };
        Ok(Self {
            job,
            online,
            learner,
            sampler: Sampler::new(prompts.len().max(given.len()), job.spec.order, job.seed),
            source,
            prompts,
            given,
            optimizer: AdamW::new(job.spec, policy)?,
            gradients: Gradients::zeros(policy)?,
            before,
            ledger: Ledger::default(),
            phases: Phases::default(),
            watch: Watch::default(),
            symptoms: Symptoms::default(),
            control: KlControl::new(online.beta, online.kl_target),
            estimate: Estimate::default(),
            rollouts: 0,
            loss: f64::NAN,
            equal: job.reference.weights_hash()? == start,
        })
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
        let ended =
            self.look(&drawn, None).map_or_else(|| self.learn(policy, &mut drawn, hooks), |w| Ok(Some(w)))?;
        // Updates have counted themselves; forward passes are counted here.
        let forward = |p: Phase| self.phases.get(p).flops - counted.get(p).flops;
        self.ledger.flops += forward(Phase::Sampling) + forward(Phase::Scoring) + forward(Phase::LogProbs);
        let took = started.elapsed().as_secs_f64();
        self.ledger.train_seconds += took;
        drawn.metrics.seconds = took;
        (hooks.rollout)(&drawn.metrics)?;
        self.estimate.observe(self.spent() - before, size);
        (hooks.progress)(self.progress());
        Ok(ended.map(|why| format!("rollout {}: {why}", self.rollouts)))
    }

    fn progress(&self) -> Progress {
        Progress {
            step: self.before.steps + self.ledger.steps,
            fraction: (self.spent() / amount(self.job.budget)).min(1.0),
            loss: self.loss,
            policy_tokens: self.before.policy_tokens + self.ledger.policy_tokens,
        }
    }

    fn draw(&mut self, policy: &Decoder, size: usize) -> Result<Drawn> {
        let picked: Vec<usize> = (0..size).map(|_| self.sampler.next()).collect();
        if let Some(source) = &self.source {
            let prompts: Vec<&Prompt> = picked.iter().map(|&i| &self.prompts[i]).collect();
            return draw(self.job, policy, source, &prompts, self.rollouts, &mut self.phases);
        }
        let units: Vec<Unit> = picked.iter().map(|&i| self.given[i].clone()).collect();
        let rewards: Vec<f64> = units.iter().map(|u| if u.desirable { 1.0 } else { -1.0 }).collect();
        let (reward, reward_deviation) = mean_and_deviation(&rewards);
        let tokens: usize = units.iter().flat_map(|u| &u.sequences).map(|s| s.completion_len()).sum();
        let metrics = RolloutMetrics {
            rollout: self.rollouts,
            prompts: size as u64,
            samples: size as u64,
            reward,
            reward_deviation,
            length: tokens as f64 / size as f64,
            ..RolloutMetrics::default()
        };
        Ok(Drawn { units, rewards, metrics, labels: size as u64 })
    }

    fn look(&mut self, drawn: &Drawn, kl_per_token: Option<f64>) -> Option<String> {
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
        match &self.learner {
            Learner::Surrogate(_) => self.learn_surrogate(policy, drawn, hooks),
            Learner::Labels(_) => self.learn_labels(policy, drawn, hooks),
        }
    }

    fn learn_surrogate(
        &mut self,
        policy: &mut Decoder,
        drawn: &mut Drawn,
        hooks: &mut OnlineHooks<'_>,
    ) -> Result<Option<String>> {
        let started = Instant::now();
        let Learner::Surrogate(surrogate) = &self.learner else { bail!("the method has no surrogate") };
        let (critic, micro_tokens) = (surrogate.critic(), self.job.spec.micro_tokens);
        let rollout = record(policy, self.job.reference, &drawn.units, &drawn.rewards, micro_tokens, critic)?;
        let beta = self.control.beta;
        let advantages = surrogate.advantages(&rollout, beta);
        let (flops, cost) = update_cost(policy, &drawn.units, self.sampler_size());
        // Once under the policy, once under the reference.
        self.phases.forward(
            Phase::LogProbs,
            2 * cost.computed_tokens as usize,
            2.0 * flops,
            started.elapsed(),
        );
        self.ledger.reference_tokens += cost.policy_tokens;
        self.identity(&rollout)?;
        let (kl, kl_per_token) = describe(&mut drawn.metrics, &rollout, &advantages);
        if let Some(why) = self.look(drawn, Some(kl_per_token)) {
            return Ok(Some(why));
        }
        drawn.metrics.step = self.before.steps + self.ledger.steps + 1;
        let (mut clipped, mut ratios) = (0, 0);
        for epoch in 0..self.epochs() {
            let started = Instant::now();
            let Learner::Surrogate(surrogate) = &self.learner else { bail!("the method has no surrogate") };
            self.gradients.zero_()?;
            let numbers = (&rollout, &advantages);
            let found = pass(
                policy,
                surrogate.as_ref(),
                &drawn.units,
                numbers,
                beta,
                micro_tokens,
                &mut self.gradients,
            )?;
            (clipped, ratios) = (clipped + found.clipped, ratios + found.ratios);
            drawn.metrics.value_loss = critic.then_some(found.value_loss);
            if epoch == 0 {
                drawn.metrics.first_ratio = Some(found.furthest_ratio);
            }
            let n = rollout.lengths.len();
            let result = StepResult {
                loss: found.loss,
                logps: LogProbs {
                    policy: found.sums,
                    tokens: rollout.lengths.clone(),
                    desirable: vec![true; n],
                    ..LogProbs::default()
                },
                steepest: found.steepest,
                completion_reads: found.reads,
                ..StepResult::default()
            };
            let cost = Ledger { epochs: if epoch == 0 { cost.epochs } else { 0.0 }, ..cost };
            if let Some(why) = self.update(policy, &result, cost, started, hooks)? {
                return Ok(Some(why));
            }
        }
        drawn.metrics.clipped = (ratios > 0).then(|| clipped as f64 / ratios as f64);
        self.control.observe(kl);
        Ok(None)
    }

    fn learn_labels(
        &mut self,
        policy: &mut Decoder,
        drawn: &mut Drawn,
        hooks: &mut OnlineHooks<'_>,
    ) -> Result<Option<String>> {
        let started = Instant::now();
        let Learner::Labels(objective) = &self.learner else {
            bail!("the method does not learn from labels")
        };
        let paired = objective.feedback() == Feedback::Paired;
        let (labelled, ties) = label(drawn, paired);
        drawn.metrics.ties = ties;
        let least = if objective.z0().is_some() { 2 } else { 1 };
        let enough = labelled.len() >= least;
        if let Some(why) = self.symptoms.learned(enough) {
            return Ok(Some(why));
        }
        if !enough {
            return Ok(None);
        }
        let units: Vec<&Unit> = labelled.iter().collect();
        let mismatched = match objective.z0() {
            Some(z0) => mismatched_sequences(&units, z0, self.job.max_length)?,
            None => vec![],
        };
        let mut cost = step_cost(policy, objective.as_ref(), &units, &mismatched, self.sampler_size());
        // Labels were counted when the samples were rewarded.
        (cost.labels, cost.epochs) = (0, drawn.units.len() as f64 / self.sampler_size() as f64);
        // Samples never come again: nothing is kept.
        let cache = ReferenceCache::open("", None);
        let classes: ClassCounts = class_counts(labelled.iter());
        let input = StepInput {
            units: &units,
            mismatched: &mismatched,
            reference: Some(Reference { decoder: self.job.reference, cache: &cache }),
            micro_tokens: self.job.spec.micro_tokens,
            classes,
            reward_shift: 0.0,
            dropout: None,
        };
        self.gradients.zero_()?;
        let result = compute_step(policy, objective.as_ref(), &input, &mut self.gradients)?;
        if self.ledger.steps == 0 && self.equal {
            self.watch.identity(objective.as_ref(), &units, &result, classes)?;
        }
        let tokens: usize = result.logps.tokens.iter().sum();
        let sum = |v: &[f64]| v.iter().sum::<f64>();
        let moved = sum(&result.logps.policy) - sum(&result.logps.reference);
        drawn.metrics.kl = Some(moved / result.logps.policy.len() as f64);
        drawn.metrics.kl_per_token = Some(moved / tokens as f64);
        drawn.metrics.entropy = Some(-sum(&result.logps.policy) / tokens as f64);
        if let Some(why) = self.look(drawn, Some(moved / tokens as f64)) {
            return Ok(Some(why));
        }
        drawn.metrics.step = self.before.steps + self.ledger.steps + 1;
        self.update(policy, &result, cost, started, hooks)
    }

    /// The optimizer step whose gradients are there; `Some`: it was not made, and this is why.
    fn update(
        &mut self,
        policy: &mut Decoder,
        result: &StepResult,
        cost: Ledger,
        started: Instant,
        hooks: &mut OnlineHooks<'_>,
    ) -> Result<Option<String>> {
        let (budget, spec) = (self.job.budget, self.job.spec);
        let done = self.ledger.spent(budget) + 0.5 * cost.spent(budget);
        let rate = learning_rate(spec, done / (amount(budget) - self.before.spent(budget)));
        let grad_norm = self.gradients.global_norm()?;
        self.ledger.add(&cost);
        let feedback = match &self.learner {
            Learner::Surrogate(_) => Feedback::Prompts,
            Learner::Labels(objective) => objective.feedback(),
        };
        let mut metrics = StepMetrics::new(result, feedback, &cost, &self.ledger);
        (metrics.grad_norm, metrics.learning_rate) = (grad_norm, rate);
        self.loss = result.loss;
        let gradients = &self.gradients;
        let diverged = self.watch.step(result, &metrics, &self.ledger, || gradients.named_norms())?;
        if diverged.is_none() {
            self.optimizer.step(policy, &self.gradients, rate, clip(grad_norm, spec.max_grad_norm))?;
        }
        metrics.seconds = started.elapsed().as_secs_f64();
        let trained = PhaseCost {
            forward_tokens: cost.kl_tokens,
            trained_tokens: cost.policy_tokens,
            flops: cost.flops,
            seconds: metrics.seconds,
        };
        self.phases.add(Phase::Optimisation, trained);
        metrics.step += self.before.steps;
        metrics.total_policy_tokens += self.before.policy_tokens;
        (hooks.step)(&metrics)?;
        Ok(diverged)
    }

    /// Passes over a rollout; a budget of steps may have room for fewer.
    fn epochs(&self) -> usize {
        match self.job.budget {
            Budget::Steps(n) => {
                let left = n.saturating_sub(self.before.steps + self.ledger.steps) as usize;
                self.online.epochs.min(left.max(1))
            }
            _ => self.online.epochs,
        }
    }

    fn sampler_size(&self) -> usize {
        self.prompts.len().max(self.given.len())
    }

    /// Before the first update the samples have the same log-probs under policy and reference.
    fn identity(&mut self, rollout: &Rollout) -> Result<()> {
        if self.ledger.steps > 0 || !self.equal {
            return Ok(());
        }
        let off = rollout.old.iter().zip(&rollout.reference).map(|(p, r)| (p - r).abs()).fold(0.0, f64::max);
        if off > 1e-3 || off.is_nan() {
            bail!(
                "before the first update policy and reference must be equal, but a token's log-probs differ by {off}"
            );
        }
        self.watch
            .identical(format!("{} samples, log-probs within {off:.1e} nats a token", rollout.lengths.len()));
        Ok(())
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

/// KL, a sample and a token, entropy and spread of advantages, into the metrics.
fn describe(metrics: &mut RolloutMetrics, rollout: &Rollout, advantages: &Advantages) -> (f64, f64) {
    let (ratios, tokens) = (rollout.log_ratios(), rollout.tokens() as f64);
    let sum: f64 = ratios.iter().sum();
    let (kl, kl_per_token) = (sum / ratios.len() as f64, sum / tokens);
    (metrics.kl, metrics.kl_per_token) = (Some(kl), Some(kl_per_token));
    metrics.entropy = Some(-rollout.old.iter().sum::<f64>() / tokens);
    metrics.advantage_deviation = Some(mean_and_deviation(&advantages.advantages).1);
    (kl, kl_per_token)
}

/// Samples as labelled data: for pairs the best and the worst of each prompt (the first of equals), else each sample
/// with whether it is above its prompt's mean. The second value counts prompts without a difference.
fn label(drawn: &Drawn, paired: bool) -> (Vec<Unit>, u64) {
    let (mut labelled, mut ties, mut at) = (Vec::new(), 0, 0);
    for unit in &drawn.units {
        let rewards = &drawn.rewards[at..at + unit.sequences.len()];
        at += unit.sequences.len();
        let first = |better: fn(f64, f64) -> bool| {
            (0..rewards.len()).fold(0, |best, i| if better(rewards[i], rewards[best]) { i } else { best })
        };
        let (best, worst) = (first(|a, b| a > b), first(|a, b| a < b));
        if rewards[best] <= rewards[worst] {
            ties += 1;
            continue;
        }
        if paired {
            let sequences = vec![unit.sequences[best].clone(), unit.sequences[worst].clone()];
            labelled.push(Unit { sequences, ..unit.clone() });
            continue;
        }
        let mean = rewards.iter().sum::<f64>() / rewards.len() as f64;
        for (sequence, &reward) in unit.sequences.iter().zip(rewards).filter(|(_, r)| **r != mean) {
            labelled.push(Unit {
                id: unit.id.clone(),
                sequences: vec![sequence.clone()],
                desirable: reward > mean,
            });
        }
    }
    (labelled, ties)
}
