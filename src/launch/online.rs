//! One online run: what the loop in `train::online` needs, and what it found, as rows.

use std::cell::RefCell;
use std::sync::atomic::AtomicBool;

use super::keep::{Keeper, Stage};
use super::memory::PeakMemory;
use super::observer::Observer;
use super::prepare::Prepared;
use super::rows::{self, Owner};
use super::run::{Trained, ended, start};
use super::training_set::TrainingSet;
use crate::base::error::{HintExt, Result, anyhow};
use crate::data::world::gold_reward;
use crate::model::Decoder;
use crate::model::generate::Text;
use crate::plan::{Arm, Budget, Method, RewardFrom, RunSpec, WORLD};
use crate::record::{PhaseRow, RolloutRow};
use crate::train::online::{
    GoldReward, KEEP_BYTES, Keeping, Kept, OnlineHooks, OnlineJob, Phases, RolloutMetrics, prompts,
    train_online_in,
};
use crate::train::{Job, fingerprint, units};

/// Whether a run of this method goes through the online loop.
pub(super) fn is_online(method: &Method) -> bool {
    method.rollouts().is_some()
}

/// Refuses, before anything is spent, an arm that the data cannot feed or that is no contestant.
///
/// # Errors
/// Single completions where pairs are needed, prompts that fill the model's `context`, a gold reward outside the world, a
/// reward model as an arm.
pub(super) fn check_arm(arm: &Arm, data: &TrainingSet, context: usize) -> Result<()> {
    let method = &arm.method;
    if arm.sft_first > 0.0 && is_online(method) {
        return Err(anyhow!("{} has no SFT stage of its own", method.name()))
            .hint("leave `sft_first` out of this arm, or name an SFT checkpoint as model.source");
    }
    check_dropout(arm)?;
    if *method == Method::Reward {
        return Err(anyhow!(
            "method reward trains a reward model, which writes nothing and cannot be compared"
        ))
        .hint("train one with `kto-eval train --method reward`; an online arm trains its own");
    }
    let Some(online) = method.online() else {
        let feedback = crate::objective::info(method.name())?.feedback;
        return units(data.as_data(), feedback).map(drop);
    };
    if online.reward == RewardFrom::Model && matches!(arm.budget, Budget::Labels(_)) {
        return Err(anyhow!("its reward model's scores are no labels: a budget in labels is never spent"))
            .hint("set reward = \"gold\" for the arm, or take a budget in flops, tokens or steps");
    }
    match (online.reward, data) {
        (RewardFrom::Gold, _) if arm.data.source != WORLD => Err(anyhow!(
            "reward = \"gold\" needs the planted-truth world, and data.source is {}",
            arm.data.source
        ))
        .hint("set reward = \"model\" for the arm"),
        (RewardFrom::Model, TrainingSet::Unpaired(_)) => Err(anyhow!(
            "its reward model learns from pairs, and the data has single completions with labels"
        ))
        .hint("take data with pairs"),
        _ => prompts(data.as_data(), context, &|_| Ok(String::new())).map(drop),
    }
}

/// Refuses dropout, which would make the ratios of a policy to itself other than 1.
fn check_dropout(arm: &Arm) -> Result<()> {
    let (method, dropout) = (arm.method.name(), arm.train.lora.dropout);
    if is_online(&arm.method) && dropout > 0.0 {
        return Err(anyhow!(
            "{method} compares the policy with the one that drew the samples: lora.dropout is {dropout}"
        ))
        .hint("set lora.dropout = 0 for this arm");
    }
    Ok(())
}

/// Trains one run on its own samples.
///
/// # Errors
/// See [`train_online_in`].
pub(super) fn trained(
    prepared: &Prepared,
    run: &RunSpec,
    abort: &AtomicBool,
    keeper: &mut dyn Keeper,
    observer: &mut dyn Observer,
) -> Result<Trained> {
    check_dropout(&run.arm)?;
    let owner = Owner::of(run);
    let mut policy = start(prepared, &run.arm, run.seed)?;
    let memory = PeakMemory::start();
    let decode = |ids: &[u32]| prepared.tokenizer.decode(ids);
    let gold: Option<GoldReward> = if run.data.source == WORLD { Some(gold_reward) } else { None };
    let job = OnlineJob {
        method: &run.arm.method,
        spec: &run.arm.train,
        budget: run.budget,
        seed: run.seed,
        max_length: run.data.max_length,
        data: prepared.data.of(&run.data).as_data(),
        reference: prepared.reference(),
        text: Text { decode: &decode, eos: prepared.tokenizer.stops() },
        pad: prepared.tokenizer.pad(),
        gold,
        keep_bytes: KEEP_BYTES,
    };
    let mut rollouts = vec![];
    // Hooks and stages tell one keeper and one observer.
    let (keeper, observer) = (RefCell::new(keeper), RefCell::new(observer));
    let mut hooks = OnlineHooks {
        step: &mut |metrics| {
            let row = rows::step(&owner, metrics);
            observer.borrow_mut().step(&row);
            keeper.borrow_mut().step(&row)
        },
        rollout: &mut |metrics| {
            rollouts.push(rollout(&owner, metrics));
            Ok(())
        },
        progress: &mut |progress| observer.borrow_mut().training(progress),
        abort,
    };
    let outcome =
        train_online_in(&mut policy, &job, &mut hooks, &mut Stages { keeper: &keeper, observer: &observer })?;
    let mut row = rows::run(run);
    rows::ledger(&mut row, &outcome.train.ledger);
    row.trained_parameters = policy.num_trained() as u64;
    row.final_loss = outcome.train.final_loss;
    row.weights = outcome.train.weights.clone();
    row.start_host_mib = memory.before_mib;
    row.peak_host_mib = memory.peak_mib();
    let aborted = ended(&mut row, &outcome.train.ended);
    let phases = phases(&owner, &outcome.phases);
    let checks = outcome.train.checks;
    Ok(Trained { policy, row, checks, aborted, rollouts, phases })
}

/// The stages of an online run, as the keeper of every run knows them.
struct Stages<'a, 'k, 'o> {
    keeper: &'a RefCell<&'k mut dyn Keeper>,
    observer: &'a RefCell<&'o mut dyn Observer>,
}

impl Stages<'_, '_, '_> {
    fn kept(&self, stage: Stage, fingerprint: &str) -> Result<Kept> {
        let mut keeper = self.keeper.borrow_mut();
        let saved = keeper.resume(stage, fingerprint, *self.observer.borrow_mut())?;
        Ok(Kept { saved, checkpoints: keeper.checkpoints(stage) })
    }
}

impl Keeping for Stages<'_, '_, '_> {
    fn reward_model(&mut self, start: &Decoder, job: &Job<'_>) -> Result<Kept> {
        self.kept(Stage::RewardModel, &fingerprint(start, job)?)
    }

    fn rollouts(&mut self, before: u64, fingerprint: &str) -> Result<Kept> {
        self.kept(Stage::Method(before), fingerprint)
    }
}

fn rollout(owner: &Owner, m: &RolloutMetrics) -> RolloutRow {
    RolloutRow {
        run: owner.run.clone(),
        arm: owner.arm.clone(),
        seed: owner.seed,
        rollout: m.rollout,
        step: m.step,
        prompts: m.prompts,
        samples: m.samples,
        reward: m.reward,
        reward_deviation: m.reward_deviation,
        gold: m.gold,
        kl: m.kl,
        kl_per_token: m.kl_per_token,
        entropy: m.entropy,
        length: m.length,
        empty: m.empty,
        unfinished: m.unfinished,
        beta: m.beta,
        advantage_deviation: m.advantage_deviation,
        clipped: m.clipped,
        first_ratio: m.first_ratio,
        value_loss: m.value_loss,
        ties: m.ties,
        sampled_tokens: m.sampled_tokens,
        seconds: m.seconds,
    }
}

fn phases(owner: &Owner, phases: &Phases) -> Vec<PhaseRow> {
    let row = |(phase, cost): (crate::train::online::Phase, crate::train::online::PhaseCost)| PhaseRow {
        run: owner.run.clone(),
        arm: owner.arm.clone(),
        seed: owner.seed,
        phase: phase.name().to_owned(),
        forward_tokens: cost.forward_tokens,
        trained_tokens: cost.trained_tokens,
        flops: cost.flops,
        seconds: cost.seconds,
    };
    phases.spent().map(row).collect()
}
