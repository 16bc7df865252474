//! What a plan will cost, before anything is spent: runs, tokens, and from one step of a model of the same shape the
//! time and the memory on this machine.

use std::path::Path;
use std::time::Instant;

use candle_core::{DType, Device};
use serde::Serialize;

use super::memory::PeakMemory;
use super::world_base;
use crate::base::error::Result;
use crate::data::Sequence;
use crate::data::world::World;
use crate::model::{Decoder, DecoderConfig, Gradients, Packed, read_config};
use crate::objective::build;
use crate::plan::{Arm, Budget, Plan, WORLD, Z0};

/// A plan's cost in advance. `None`: not known.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Estimate {
    pub arms: usize,
    pub runs: usize,
    /// Runs of tuning, besides.
    pub trials: usize,
    /// Policy tokens through forward and backward, over all runs and trials.
    pub tokens: Option<f64>,
    /// Seconds of training on this machine, if nothing else runs on it.
    pub seconds: Option<f64>,
    /// Peak resident memory, MiB.
    pub host_mib: Option<f64>,
    /// In the plan's currency, at its price of a device-hour.
    pub money: Option<f64>,
    /// What the figures leave out or take for granted.
    pub notes: Vec<String>,
}

/// A model larger than this is not built for the sake of an estimate.
const LARGEST: usize = 300_000_000;
/// Time that is measured, at most about this many seconds and at least one repetition.
const MEASURED: f64 = 1.5;

/// Measured on a random model of the plan's shape.
struct Step {
    /// Policy tokens a second, forward and backward.
    tokens_per_second: f64,
    /// FLOPs of a forward pass a token.
    flops: f64,
    mib: f64,
}

/// # Errors
/// A world or a model's configuration that cannot be read; a step that fails.
pub fn estimate(plan: &Plan, device: &Device) -> Result<Estimate> {
    let runs = plan.arms.len() * plan.seeds.len();
    let trials = plan.tune.as_ref().map_or(0, |t| plan.arms.len() * (t.trials + 1));
    let mut made = Estimate { arms: plan.arms.len(), runs, trials, ..Estimate::default() };
    let step = match config(plan)? {
        _ if !device.is_cpu() => Err("time and memory are estimated for the CPU only"),
        None => Err("the model is not on this disk: time and memory are not estimated"),
        Some(config) => measure(plan, config)?.ok_or("the model is too large to measure a step of it here"),
    };
    let flops = step.as_ref().ok().map(|s| s.flops);
    let shares =
        plan.tune.as_ref().map_or(0.0, |t| t.budget_share * (t.trials + 1) as f64) + plan.seeds.len() as f64;
    let of_arm = |arm: &Arm| tokens(arm, flops).map(|t| (t * shares, t * shares * passes(arm)));
    let spent: Option<Vec<(f64, f64)>> = plan.arms.iter().map(of_arm).collect();
    made.tokens = spent.as_ref().map(|s| s.iter().map(|(tokens, _)| tokens).sum());
    if !matches!(plan.budget, Budget::Tokens(_) | Budget::Flops(_)) {
        made.notes.push("tokens: at most, were every sequence as long as max_length".to_owned());
    }
    if let Budget::Seconds(seconds) = plan.budget {
        made.seconds = Some(seconds * shares * plan.arms.len() as f64);
    }
    match step {
        Ok(step) => {
            let forwards = spent.map(|s| s.iter().map(|(_, passes)| passes).sum::<f64>());
            made.seconds = made.seconds.or(forwards.map(|f| f / 3.0 / step.tokens_per_second));
            made.host_mib = Some(step.mib);
            made.notes.push(
                "time of training alone: scoring and the world's base checkpoint come on top".to_owned(),
            );
        }
        Err(why) => made.notes.push(why.to_owned()),
    }
    let price = plan.prices.device_hour;
    made.money = made.seconds.filter(|_| price > 0.0).map(|s| s / 3600.0 * price);
    Ok(made)
}

/// Policy tokens of one run.
fn tokens(arm: &Arm, flops: Option<f64>) -> Option<f64> {
    let length = arm.data.max_length as f64;
    match arm.budget {
        Budget::Tokens(n) => Some(n as f64),
        Budget::Examples(n) => Some(n as f64 * length),
        Budget::Steps(n) => Some(n as f64 * arm.train.batch_size as f64 * length),
        Budget::Flops(x) => flops.map(|f| x / (f * passes(arm))),
        Budget::Seconds(_) => None,
    }
}

/// Forward passes that a policy token costs: three for forward and backward, one under the reference, and one each
/// under policy and reference for z0's mismatched completions.
fn passes(arm: &Arm) -> f64 {
    let objective = build(&arm.method).ok();
    let reference = objective.as_ref().is_some_and(|o| o.needs_reference());
    let z0 = objective.as_ref().and_then(|o| o.z0()).is_some_and(|z0| z0 != Z0::Zero);
    let method = 3.0 + f64::from(u8::from(reference)) + if z0 { 2.0 } else { 0.0 };
    3.0 * arm.sft_first + method * (1.0 - arm.sft_first)
}

/// The model's shape, where this machine knows it.
fn config(plan: &Plan) -> Result<Option<DecoderConfig>> {
    let source = Path::new(&plan.model.source);
    match plan.model.source.as_str() {
        WORLD => world_base::config(&World::new(&plan.data.world)?).map(Some),
        _ if source.is_dir() => read_config(source).map(Some),
        _ => Ok(None),
    }
}

/// One micro-batch of made-up sequences, forward and backward. `None`: the model is too large.
fn measure(plan: &Plan, config: DecoderConfig) -> Result<Option<Step>> {
    let layers = config.layers.len();
    let parameters = config.hidden * (config.vocab + layers * (4 * config.hidden + 3 * config.intermediate));
    if parameters > LARGEST {
        return Ok(None);
    }
    let length = plan.data.max_length.min(config.max_positions).max(4) / 2;
    let most = plan.arms.iter().map(|a| a.train.micro_tokens).max().unwrap_or(1);
    let packed = made_up(length, most, config.vocab as u32);
    let memory = PeakMemory::start();
    let policy = Decoder::random(config, 0, DType::F32, &Device::Cpu)?;
    let mut gradients = Gradients::zeros(&policy)?;
    let ones = vec![1.0; packed.reads.len()];
    let mut once = || -> Result<()> {
        let (_, tape) = policy.forward(&packed)?;
        policy.backward(tape, &ones, &mut gradients)
    };
    once()?;
    let (started, mut repetitions) = (Instant::now(), 0);
    while repetitions == 0 || started.elapsed().as_secs_f64() < MEASURED {
        once()?;
        repetitions += 1;
    }
    let tokens = packed.ids.len() as f64;
    // Beside policy, gradient and activations: the starting checkpoint and Adam's two moments.
    let copies = if plan.model.reference.is_empty() { 3.0 } else { 4.0 };
    let mib = (4 * policy.num_params()) as f64 / 1024.0 / 1024.0;
    Ok(Some(Step {
        tokens_per_second: tokens * f64::from(repetitions) / started.elapsed().as_secs_f64(),
        flops: policy.flops(&packed) / tokens,
        mib: memory.peak_mib() + copies * mib,
    }))
}

/// Sequences of `length` tokens, a third of them prompt, `most` tokens together.
fn made_up(length: usize, most: usize, vocabulary: u32) -> Packed {
    let sequence = |i: usize| Sequence {
        ids: (0..length).map(|t| ((i * 7919 + t * 104_729) as u32) % vocabulary).collect(),
        prompt_len: (length / 3).max(1),
    };
    let sequences: Vec<Sequence> = (0..(most / length).max(1)).map(sequence).collect();
    Packed::of(&sequences)
}
