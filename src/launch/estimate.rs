//! What a plan will cost, before anything is spent: runs, tokens, and, from a few steps of a random model of the same
//! shape on the plan's own data, the time and the memory on this machine.

use super::fits::{check_counts, check_tokens};
use super::observer::Silent;
use super::pace::Paces;
use super::training_set::{TrainingSet, read_training_set};
use super::world_base;
use crate::base::error::Result;
use crate::data::world::World;
use crate::data::{Sequence, TokenizedPair, Tokenizer};
use crate::model::{DecoderConfig, read_config};
use crate::objective::Feedback;
use crate::plan::{Arm, Budget, DataSpec, FeedbackSpec, Method, Plan, WORLD};
use candle_core::Device;
use serde::Serialize;
use std::path::Path;

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
/// Examples that are looked at for the length of the plan's own.
const SAMPLE: usize = 512;

/// # Errors
/// A world or a model's configuration that cannot be read; a budget that no step fits into, or after which no verdict
/// could be given.
pub fn estimate(plan: &Plan, device: &Device) -> Result<Estimate> {
    let runs = plan.arms.len() * plan.seeds.len();
    let trials = plan.tune.as_ref().map_or(0, |t| plan.arms.len() * (t.trials + 1));
    check_counts(plan)?;
    let mut made = Estimate { arms: plan.arms.len(), runs, trials, ..Estimate::default() };
    let paces = match config(plan)? {
        _ if !device.is_cpu() => Err("time and memory are estimated for the CPU only".to_owned()),
        None => Err("the model is not on this disk: time and memory are not estimated".to_owned()),
        Some(config) if parameters(&config) > LARGEST => {
            Err("the model is too large to measure a step of it here".to_owned())
        }
        Some(config) => {
            let (data, own) = sample(plan, &config);
            if own {
                made.notes.extend(check_tokens(plan, &|_| &data)?);
            } else {
                made.notes
                    .push("the data are not on this disk: taken to be half as long as max_length".to_owned());
            }
            Paces::measure(plan, config, &data).map_err(|e| format!("a step could not be measured: {e:#}"))
        }
    };
    let shares =
        plan.tune.as_ref().map_or(0.0, |t| t.budget_share * (t.trials + 1) as f64) + plan.seeds.len() as f64;
    let paced = paces.as_ref().ok();
    let tokens: Option<Vec<f64>> = plan.arms.iter().map(|arm| tokens(arm, paced)).collect();
    made.tokens = tokens.as_ref().map(|t| shares * t.iter().sum::<f64>());
    if matches!(plan.budget, Budget::Seconds(_)) {
        made.seconds = Some(shares * plan.arms.iter().map(|arm| arm.budget.amount()).sum::<f64>());
    }
    match &paces {
        Ok(paces) => {
            let seconds = |arms: Vec<f64>| -> f64 {
                plan.arms.iter().zip(arms).map(|(arm, tokens)| paces.seconds(arm, tokens)).sum()
            };
            made.seconds = made.seconds.or(tokens.map(|t| shares * seconds(t)));
            made.host_mib = Some(paces.mib);
            made.notes.push(
                "time of training alone: scoring and the world's base checkpoint come on top; the reference's \
                 log-probs are counted in every run, though a comparison computes those of an example once"
                    .to_owned(),
            );
            let unmeasured: Vec<&str> =
                plan.arms.iter().filter(|a| !paces.has(a)).map(|a| a.name.as_str()).collect();
            if !unmeasured.is_empty() {
                made.notes.push(format!(
                    "taken to be as fast as SFT, since they sample or are another program: {}",
                    unmeasured.join(", ")
                ));
            }
        }
        Err(why) => made.notes.push(why.clone()),
    }
    let price = plan.prices.device_hour;
    made.money = made.seconds.filter(|_| price > 0.0).map(|s| s / 3600.0 * price);
    Ok(made)
}

/// Policy tokens of one run; `None`: not known without a measurement.
fn tokens(arm: &Arm, paces: Option<&Paces>) -> Option<f64> {
    let length = paces.map_or(arm.data.max_length as f64, |p| p.mean_length);
    match arm.budget {
        Budget::Tokens(n) => Some(n as f64),
        Budget::Examples(n) => Some(n as f64 * length),
        Budget::Labels(n) => Some(n as f64 * completions_a_label(&arm.method) * length),
        Budget::Steps(n) => Some(n as f64 * arm.train.batch_size as f64 * length),
        Budget::Flops(x) => paces.map(|p| x / p.flops_per_token(arm)),
        Budget::Seconds(x) => paces.map(|p| x / p.seconds(arm, 1.0)),
    }
}

/// A label of a comparison is two completions.
fn completions_a_label(method: &Method) -> f64 {
    let paired = crate::objective::info(method.name()).is_ok_and(|i| i.feedback == Feedback::Paired);
    if paired || matches!(method, Method::OnlineDpo(_)) { 2.0 } else { 1.0 }
}

/// The model's shape, where this machine knows it.
fn config(plan: &Plan) -> Result<Option<DecoderConfig>> {
    let source = Path::new(&plan.model.source);
    match plan.model.source.as_str() {
        WORLD => world_base::config(&World::new(&plan.data.world)?).map(Some),
        // An adapter's base may be anywhere.
        _ if source.join("config.json").is_file() => read_config(source).map(Some),
        _ => Ok(None),
    }
}

/// About how many numbers the model has.
fn parameters(config: &DecoderConfig) -> usize {
    let a_layer = 4 * config.hidden + 3 * config.intermediate;
    config.hidden.saturating_mul(config.vocab.saturating_add(config.layers.len().saturating_mul(a_layer)))
}

/// Some of the plan's own examples, or, where they are not on this disk or cannot be read, made-up ones (and `false`).
fn sample(plan: &Plan, config: &DecoderConfig) -> (TrainingSet, bool) {
    let here = plan.data.source == WORLD || Path::new(&plan.data.source).exists();
    match here.then(|| own(plan)) {
        Some(Ok(set)) => (set, true),
        // What is wrong with them is said when they are really read.
        _ => (made_up(plan.data.max_length.min(config.max_positions).max(8) / 2, config.vocab), false),
    }
}

fn own(plan: &Plan) -> Result<TrainingSet> {
    let most = if plan.data.max_examples == 0 { SAMPLE } else { plan.data.max_examples.min(SAMPLE) };
    let spec = DataSpec { max_examples: most, feedback: FeedbackSpec::default(), ..plan.data.clone() };
    let tokenizer = match plan.model.source.as_str() {
        WORLD => {
            let folder = std::env::temp_dir().join(format!("kto-eval-{}", std::process::id()));
            std::fs::create_dir_all(&folder)?;
            let written = World::new(&plan.data.world).and_then(|world| world.write_tokenizer(&folder));
            let tokenizer = written.and_then(|()| Tokenizer::load(&folder));
            std::fs::remove_dir_all(&folder)?;
            tokenizer?
        }
        source => Tokenizer::load(Path::new(source))?,
    };
    read_training_set(&spec, &tokenizer, &mut Silent)
}

/// Pairs of sequences of `length` tokens, a third of them prompt.
fn made_up(length: usize, vocabulary: usize) -> TrainingSet {
    let prompt_len = (length / 3).max(1);
    let sequence = |i: usize| {
        let id = |t: usize| ((if t < prompt_len { 0 } else { i * 7919 } + t * 104_729) % vocabulary) as u32;
        Sequence { ids: (0..length).map(id).collect(), prompt_len }
    };
    let pair = |i: usize| TokenizedPair {
        id: i.to_string(),
        subset: String::new(),
        chosen: sequence(2 * i + 1),
        rejected: sequence(2 * i + 2),
    };
    TrainingSet::Paired((0..SAMPLE / 4).map(pair).collect())
}
