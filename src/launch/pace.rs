//! How fast this machine trains each method, from half a second of it.

use std::sync::atomic::AtomicBool;

use candle_core::{DType, Device};

use super::memory::PeakMemory;
use super::training_set::TrainingSet;
use crate::base::error::{Context, Result};
use crate::model::{Decoder, DecoderConfig};
use crate::plan::{Arm, Budget, KtoSpec, LoraSpec, Method, Plan, Quantize, TrainSpec, Z0};
use crate::train::{Hooks, Job, Ledger, Reference, ReferenceCache, train};

/// Seconds that each kind of step is tried for.
const TRIED: f64 = 0.5;

/// What a step's cost depends on.
#[derive(Clone, Debug, PartialEq)]
struct Kind {
    method: &'static str,
    z0: Option<Z0>,
    batch_size: usize,
    micro_tokens: usize,
    gradient_checkpointing: bool,
    lora: LoraSpec,
}

impl Kind {
    fn of(method: &Method, spec: &TrainSpec) -> Self {
        let z0 = if let Method::Kto(KtoSpec { z0, .. }) = method { Some(*z0) } else { None };
        let TrainSpec { batch_size, micro_tokens, gradient_checkpointing, ref lora, .. } = *spec;
        Self {
            method: method.name(),
            z0,
            batch_size,
            micro_tokens,
            gradient_checkpointing,
            lora: lora.clone(),
        }
    }
}

/// What a policy token costs.
#[derive(Clone, Copy, Debug)]
struct Pace {
    seconds: f64,
    flops: f64,
}

/// The plan's kinds of steps, measured on a random model of its shape.
pub(super) struct Paces {
    known: Vec<(Kind, Pace)>,
    /// Peak resident memory, MiB.
    pub mib: f64,
    /// Mean tokens of a sequence.
    pub mean_length: f64,
}

impl Paces {
    /// # Errors
    /// A model that cannot be built, data that a method cannot learn from.
    pub fn measure(plan: &Plan, config: DecoderConfig, data: &TrainingSet) -> Result<Self> {
        let start = {
            let full = Decoder::random(config, 0, DType::F32, &Device::Cpu)?;
            // A real base is quantised tensor by tensor as it is read: the whole in fp32 is not part of a run.
            if plan.model.quantize == Quantize::None { full } else { full.quantized(plan.model.quantize)? }
        };
        let memory = PeakMemory::start();
        let other = (!plan.model.reference.is_empty()).then(|| start.duplicate()).transpose()?;
        let mut paces = Self { known: vec![], mib: 0.0, mean_length: 1.0 };
        for arm in &plan.arms {
            let two_stages = arm.sft_first > 0.0 || !is_measured(arm);
            for method in [Some(&arm.method).filter(|_| is_measured(arm)), two_stages.then_some(&Method::Sft)]
            {
                let Some(method) = method else { continue };
                let kind = Kind::of(method, &arm.train);
                if !paces.known.iter().any(|(known, _)| *known == kind) {
                    let spent =
                        tried(arm, method, &start, data).with_context(|| format!("arm {}", arm.name))?;
                    let tokens = spent.policy_tokens as f64;
                    paces.mean_length = tokens / spent.examples as f64;
                    let pace = Pace { seconds: spent.train_seconds / tokens, flops: spent.flops / tokens };
                    paces.known.push((kind, pace));
                }
            }
        }
        paces.mib = memory.peak_mib();
        drop(other);
        Ok(paces)
    }

    /// Whether the arm's own method was measured.
    pub fn has(&self, arm: &Arm) -> bool {
        is_measured(arm)
    }

    /// Seconds of a run of `tokens` policy tokens.
    pub fn seconds(&self, arm: &Arm, tokens: f64) -> f64 {
        tokens * self.mixed(arm, |pace| pace.seconds)
    }

    pub fn flops_per_token(&self, arm: &Arm) -> f64 {
        self.mixed(arm, |pace| pace.flops)
    }

    /// Over SFT first and the method.
    fn mixed(&self, arm: &Arm, of: impl Fn(&Pace) -> f64) -> f64 {
        let cost = |method: &Method| {
            let kind = Kind::of(method, &arm.train);
            self.known.iter().find(|(known, _)| *known == kind).map_or(f64::NAN, |(_, pace)| of(pace))
        };
        if !is_measured(arm) {
            return cost(&Method::Sft);
        }
        let first = if arm.sft_first > 0.0 { arm.sft_first * cost(&Method::Sft) } else { 0.0 };
        first + (1.0 - arm.sft_first) * cost(&arm.method)
    }
}

/// Not where another program trains, nor where most of the time goes into sampling.
pub(super) fn is_measured(arm: &Arm) -> bool {
    arm.trainer.is_none() && arm.method.rollouts().is_none()
}

/// What some steps of the arm cost, the first ones of a process left out.
fn tried(arm: &Arm, method: &Method, start: &Decoder, data: &TrainingSet) -> Result<Ledger> {
    let cache = ReferenceCache::open("estimate", None);
    let reference = Some(Reference::new(start, &cache));
    let mut spent = Ledger::default();
    for budget in [Budget::Steps(2), Budget::Seconds(TRIED)] {
        let mut policy = match arm.train.lora.is_on() {
            true => start.with_adapter(&arm.train.lora, 0)?,
            false => start.duplicate()?,
        };
        policy.set_checkpointing(arm.train.gradient_checkpointing);
        let job = Job {
            method,
            spec: &arm.train,
            budget,
            seed: 0,
            max_length: arm.data.max_length,
            data: data.as_data(),
            reference,
        };
        let abort = AtomicBool::new(false);
        let mut hooks = Hooks { step: &mut |_| Ok(()), progress: &mut |_| (), abort: &abort };
        spent = train(&mut policy, &job, &mut hooks)?.ledger;
    }
    Ok(spent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_that_compute_activations_again_are_a_kind_of_their_own() {
        let kind = |again| {
            Kind::of(&Method::Sft, &TrainSpec { gradient_checkpointing: again, ..TrainSpec::default() })
        };
        assert_ne!(kind(true), kind(false));
    }
}
