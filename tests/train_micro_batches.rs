//! A step's loss and gradient do not depend on how it is split into micro-batches, for any method.

mod methods;

use candle_core::{DType, Device};
use kto_eval::base::seed;
use kto_eval::data::Sequence;
use kto_eval::model::{Decoder, DecoderConfig, Gradients, RewardModel, Size};
use kto_eval::objective::{ClassCounts, Feedback, build};
use kto_eval::plan::*;
use kto_eval::train::{
    Reference, ReferenceCache, StepInput, StepResult, Unit, compute_step, mismatched_sequences,
};
use methods::every_method;
use rand::RngExt;

fn decoder(seed: u64, dtype: DType) -> Decoder {
    let size =
        Size { vocab: 50, hidden: 32, layers: 2, heads: 4, kv_heads: 2, intermediate: 48, context: 64 };
    Decoder::random(DecoderConfig::llama(size).unwrap(), seed, dtype, &Device::Cpu).unwrap()
}

/// The policy as the method trains it: a reward model has its head.
fn policy(method: &Method, dtype: DType) -> Decoder {
    match method {
        Method::Reward => RewardModel::from_start(&decoder(1, dtype), 0, 3).unwrap().into_decoder(),
        _ => decoder(1, dtype),
    }
}

/// 16 units of 8 prompt and 12 completion tokens, so that a token limit splits them evenly.
fn units(feedback: Feedback) -> Vec<Unit> {
    let mut rng = seed::rng(1, "test/micro-batches");
    (0..16)
        .map(|i| {
            let prompt_len = 8;
            let prompt: Vec<u32> = (0..prompt_len).map(|_| rng.random_range(0..50)).collect();
            let mut sequence = || {
                let completion = (prompt_len..20).map(|_| rng.random_range(0..50));
                Sequence { ids: prompt.iter().copied().chain(completion).collect(), prompt_len }
            };
            let sequences = match feedback {
                Feedback::Paired => vec![sequence(), sequence()],
                _ => vec![sequence()],
            };
            let desirable = feedback != Feedback::Unpaired || i % 3 != 0;
            Unit { id: i.to_string(), sequences, desirable }
        })
        .collect()
}

fn run(method: &Method, dtype: DType, micro_tokens: usize) -> (StepResult, Vec<f64>) {
    let (policy, reference) = (policy(method, dtype), decoder(2, dtype));
    let objective = build(method).unwrap();
    let cache = ReferenceCache::open("test", None);
    let units = units(objective.feedback());
    let units: Vec<&Unit> = units.iter().collect();
    let mismatched =
        objective.z0().map(|z0| mismatched_sequences(&units, z0, 64).unwrap()).unwrap_or_default();
    let input = StepInput {
        units: &units,
        mismatched: &mismatched,
        reference: Some(Reference::new(&reference, &cache)),
        micro_tokens,
        dropout: None,
        classes: ClassCounts { desirable: 10, undesirable: 30 },
        reward_shift: 0.1,
    };
    let mut gradients = Gradients::zeros(&policy).unwrap();
    let result = compute_step(&policy, objective.as_ref(), &input, &mut gradients).unwrap();
    let flat = gradients
        .tensors()
        .iter()
        .flat_map(|t| t.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap());
    (result, flat.collect())
}

/// ‖a − b‖ / ‖a‖
fn distance(a: &[f64], b: &[f64]) -> f64 {
    let norm = |x: &mut dyn Iterator<Item = f64>| x.map(|x| x * x).sum::<f64>().sqrt();
    assert_eq!(a.len(), b.len());
    norm(&mut a.iter().zip(b).map(|(a, b)| a - b)) / norm(&mut a.iter().copied())
}

#[test]
fn one_batch_of_sixteen_four_of_four_and_sixteen_of_one_are_the_same_step() {
    for method in every_method() {
        // In f64 the splits agree to rounding; f32 shows what a user gets.
        for (dtype, tolerance) in [(DType::F64, 1e-12), (DType::F32, 1e-5)] {
            let (whole, gradient) = run(&method, dtype, 1_000_000);
            assert!(gradient.iter().any(|g| *g != 0.0), "{method:?} has a gradient");
            let paired = build(&method).unwrap().feedback() == Feedback::Paired;
            let quarter = 4 * if paired { 8 + 12 + 12 } else { 8 + 12 };
            for micro_tokens in [quarter, 1] {
                let (split, split_gradient) = run(&method, dtype, micro_tokens);
                let off = (split.loss - whole.loss).abs() / whole.loss.abs();
                assert!(off < tolerance, "{method:?} {dtype:?}: losses differ by {off:e}");
                let off = distance(&gradient, &split_gradient);
                assert!(off < tolerance, "{method:?} {dtype:?}: gradients differ by {off:e}");
                assert_eq!(split.completion_reads, whole.completion_reads);
                assert_eq!(split.logps.tokens, whole.logps.tokens);
                assert_eq!(split.z0.is_some(), whole.z0.is_some());
            }
        }
    }
}

#[test]
fn the_gradient_of_a_step_is_its_finite_difference() {
    // z0 takes no part in the gradient, so methods with it are compared with z0 held at 0.
    for method in every_method() {
        if matches!(&method, Method::Kto(spec) if spec.z0 != Z0::Zero) {
            continue;
        }
        let (_, gradient) = run(&method, DType::F64, 200);
        let objective = build(&method).unwrap();
        let mut policy = policy(&method, DType::F64);
        let reference = decoder(2, DType::F64);
        let cache = ReferenceCache::open("test", None);
        let units = units(objective.feedback());
        let units: Vec<&Unit> = units.iter().collect();
        let input = StepInput {
            units: &units,
            mismatched: &[],
            reference: Some(Reference::new(&reference, &cache)),
            micro_tokens: 200,
            dropout: None,
            classes: ClassCounts { desirable: 10, undesirable: 30 },
            reward_shift: 0.1,
        };
        // Along a random direction d: (L(θ + hd) − L(θ − hd)) / 2h = g·d.
        let mut rng = seed::rng(2, "test/direction");
        let direction: Vec<f64> = gradient.iter().map(|_| rng.random_range(-1.0..1.0)).collect();
        let expected: f64 = gradient.iter().zip(&direction).map(|(g, d)| g * d).sum();
        let mut loss_at = |h: f64| {
            let mut at = 0;
            let start = self::policy(&method, DType::F64);
            for (param, original) in policy.params_mut().iter_mut().zip(start.params()) {
                let n = original.tensor.elem_count();
                let step: Vec<f64> = direction[at..at + n].iter().map(|d| d * h).collect();
                let step =
                    candle_core::Tensor::from_vec(step, original.tensor.shape(), &Device::Cpu).unwrap();
                param.tensor = (&original.tensor + step).unwrap();
                at += n;
            }
            let mut unused = Gradients::zeros(&policy).unwrap();
            compute_step(&policy, objective.as_ref(), &input, &mut unused).unwrap().loss
        };
        let h = 1e-6;
        let difference = (loss_at(h) - loss_at(-h)) / (2.0 * h);
        let off = (difference - expected).abs() / expected.abs();
        assert!(off < 1e-5, "{method:?}: {difference} along the direction, the gradient says {expected}");
    }
}
