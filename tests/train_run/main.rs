//! The loop: budgets, ledger, checks, divergence, determinism, and going on from a checkpoint.

mod ahead;
mod budget;
mod checkpoints;
mod reference;

use candle_core::{DType, Device};
use kto_eval::base::error::{Result, render};
use kto_eval::base::seed;
use kto_eval::data::{Sampler, Sequence, TokenizedExample, TokenizedPair};
use kto_eval::model::{Decoder, DecoderConfig, Size};
use kto_eval::plan::*;
use kto_eval::train::{
    Checkpoints, Ended, Hooks, Interval, Job, Ledger, Outcome, Progress, Reference, ReferenceCache, Saved,
    StepMetrics, TrainData, TrainOutcome, learning_rate, train, train_from,
};
use rand::RngExt;
use std::sync::atomic::{AtomicBool, Ordering};

const SEED: u64 = 5;

fn decoder(seed: u64, dtype: DType) -> Decoder {
    let size =
        Size { vocab: 40, hidden: 16, layers: 2, heads: 2, kv_heads: 1, intermediate: 24, context: 64 };
    Decoder::random(DecoderConfig::llama(size).unwrap(), seed, dtype, &Device::Cpu).unwrap()
}

/// n pairs with prompts of 4 to 9 and completions of 3 to 12 tokens.
fn pairs(n: usize) -> Vec<TokenizedPair> {
    let mut rng = seed::rng(3, "test/pairs");
    (0..n)
        .map(|i| {
            let prompt: Vec<u32> = (0..rng.random_range(4..10)).map(|_| rng.random_range(1..40)).collect();
            let mut side = || {
                let length = rng.random_range(3..13);
                let completion = (0..length).map(|_| rng.random_range(1..40));
                Sequence { ids: prompt.iter().copied().chain(completion).collect(), prompt_len: prompt.len() }
            };
            TokenizedPair { id: format!("pair:{i}"), subset: String::new(), chosen: side(), rejected: side() }
        })
        .collect()
}

fn spec() -> TrainSpec {
    TrainSpec {
        batch_size: 8,
        micro_tokens: 64,
        gradient_checkpointing: false,
        order: Order::Shuffled,
        learning_rate: 1e-3,
        schedule: Schedule::Cosine,
        warmup: 0.1,
        adam_beta1: 0.9,
        adam_beta2: 0.999,
        adam_epsilon: 1e-8,
        weight_decay: 0.01,
        max_grad_norm: 1.0,
        lora: LoraSpec::default(),
    }
}

fn kto(z0: Z0) -> Method {
    Method::Kto(KtoSpec { beta: 0.1, lambda: Lambda::Auto, z0 })
}

fn dpo() -> Method {
    Method::Dpo(DpoSpec { beta: 0.1 })
}

struct Trained {
    outcome: TrainOutcome,
    steps: Vec<StepMetrics>,
    policy: Decoder,
}

/// A run from `decoder(1)` with itself as reference.
struct Setup<'a> {
    method: &'a Method,
    spec: TrainSpec,
    budget: Budget,
    data: TrainData<'a>,
    dtype: DType,
    /// Ends after this many steps.
    abort_after: u64,
    checkpoints: Option<&'a Checkpoints>,
    resume: bool,
}

impl<'a> Setup<'a> {
    fn new(method: &'a Method, budget: Budget, pairs: &'a [TokenizedPair]) -> Self {
        Self {
            method,
            spec: spec(),
            budget,
            data: TrainData::Paired(pairs),
            dtype: DType::F32,
            abort_after: u64::MAX,
            checkpoints: None,
            resume: false,
        }
    }

    fn run(&self) -> Result<Trained> {
        let (mut policy, start) = (decoder(1, self.dtype), decoder(1, self.dtype));
        let cache = ReferenceCache::open(&start.weights_hash()?, None);
        let reference = Reference::new(&start, &cache);
        let (outcome, steps) = self.run_with(&mut policy, reference)?;
        Ok(Trained { outcome, steps, policy })
    }

    fn run_with(
        &self,
        policy: &mut Decoder,
        reference: Reference<'_>,
    ) -> Result<(TrainOutcome, Vec<StepMetrics>)> {
        self.run_telling(policy, reference, &mut vec![])
    }

    fn run_telling(
        &self,
        policy: &mut Decoder,
        reference: Reference<'_>,
        told: &mut Vec<Progress>,
    ) -> Result<(TrainOutcome, Vec<StepMetrics>)> {
        let job = Job {
            method: self.method,
            spec: &self.spec,
            budget: self.budget,
            seed: SEED,
            max_length: 64,
            data: self.data,
            reference: Some(reference),
        };
        let (mut steps, abort) = (Vec::new(), AtomicBool::new(self.abort_after == 0));
        let mut hooks = Hooks {
            step: &mut |metrics| {
                abort.store(metrics.step >= self.abort_after, Ordering::Relaxed);
                steps.push(StepMetrics { seconds: 0.0, ..metrics.clone() });
                Ok(())
            },
            progress: &mut |progress| {
                assert!((0.0..=1.0).contains(&progress.fraction));
                told.push(progress);
            },
            abort: &abort,
        };
        let folder = self.checkpoints.map(|c| c.folder.as_path());
        let saved = folder.filter(|_| self.resume).and_then(|f| Saved::latest(f).0);
        let outcome = train_from(policy, &job, &mut hooks, saved, self.checkpoints)?;
        Ok((outcome, steps))
    }
}

fn refusal(setup: &Setup<'_>) -> String {
    match setup.run() {
        Ok(_) => panic!("the run was not refused"),
        Err(e) => render(&e),
    }
}

#[test]
fn every_check_passes_on_a_healthy_run() {
    let pairs = pairs(20);
    for method in [Method::Sft, dpo(), kto(Z0::Next)] {
        let run = Setup::new(&method, Budget::Steps(4), &pairs).run().unwrap();
        assert_eq!(run.outcome.checks.len(), 6);
        for check in &run.outcome.checks {
            let expected = match (check.name, &method) {
                ("step-0 identity", Method::Sft) => Outcome::NotApplicable,
                _ => Outcome::Passed,
            };
            assert_eq!(check.outcome, expected, "{method:?}: {check:?}");
        }
        assert_eq!(run.outcome.weights, run.policy.weights_hash().unwrap());
        let first = &run.steps[0];
        if let Method::Dpo(_) = method {
            assert!((first.loss - std::f64::consts::LN_2).abs() < 1e-6);
        }
        if let Method::Kto(_) = method {
            assert!((first.loss - 0.5).abs() < 1e-6);
            assert!(first.kl_unclamped.is_some_and(|kl| kl.abs() < 1e-4));
        }
    }
}

#[test]
fn an_exploding_run_is_called_so_and_keeps_its_rows() {
    let pairs = pairs(20);
    for (method, rate) in [(Method::Sft, 3e2), (dpo(), 1e9)] {
        let mut setup = Setup::new(&method, Budget::Steps(60), &pairs);
        setup.spec = TrainSpec { learning_rate: rate, warmup: 0.0, max_grad_norm: 0.0, ..spec() };
        let run = setup.run().unwrap();
        let Ended::Diverged(why) = &run.outcome.ended else { panic!("{method:?}: {:?}", run.outcome.ended) };
        assert!(why.starts_with("step "), "{why}");
        assert!(!run.steps.is_empty() && (run.steps.len() as u64) < 60);
        assert!(run.outcome.checks.iter().any(|c| c.outcome == Outcome::Failed && c.detail == *why));
    }
}

#[test]
fn a_saturated_loss_is_a_dead_run() {
    let pairs = pairs(8);
    // SLiC without its likelihood term: with a margin of 1e-9 nats a ranked pair has neither loss nor
    // gradient, and a large rate ranks all eight at once.
    let method = Method::Slic(LikelihoodSpec { beta: 1e9, alpha: 0.0 });
    let mut setup = Setup::new(&method, Budget::Steps(400), &pairs);
    setup.spec = TrainSpec {
        batch_size: 16,
        learning_rate: 1e-2,
        warmup: 0.0,
        schedule: Schedule::Constant,
        ..spec()
    };
    let run = setup.run().unwrap();
    let Ended::Diverged(why) = &run.outcome.ended else { panic!("{:?}", run.outcome.ended) };
    assert!(why.contains("no gradient for 5 steps"), "{why}");
    assert_eq!(run.steps.last().unwrap().loss, 0.0);
}

#[test]
fn the_same_seed_gives_the_same_bits_and_the_split_changes_next_to_nothing() {
    let pairs = pairs(30);
    for method in [dpo(), kto(Z0::Previous)] {
        let mut setup = Setup::new(&method, Budget::Steps(4), &pairs);
        setup.spec.batch_size = 12;
        let (a, b) = (setup.run().unwrap(), setup.run().unwrap());
        assert_eq!(a.outcome.weights, b.outcome.weights);
        assert_eq!(a.steps, b.steps);
        // Gradient accumulation: the update of one large batch.
        setup.spec.micro_tokens = 1_000_000;
        let whole = setup.run().unwrap();
        for (a, b) in a.policy.params().iter().zip(whole.policy.params()) {
            let off = (&a.tensor - &b.tensor).unwrap().abs().unwrap().max_all().unwrap();
            let off = off.to_scalar::<f32>().unwrap();
            assert!(off <= 1e-6, "{}: {off:e}", a.pieces[0].name);
        }
        for (a, b) in a.steps.iter().zip(&whole.steps) {
            assert!((a.loss - b.loss).abs() <= 1e-6 * b.loss);
        }
    }
}

#[test]
fn data_of_one_class_trains() {
    for class in [true, false] {
        let examples: Vec<TokenizedExample> = pairs(12)
            .into_iter()
            .map(|p| TokenizedExample {
                id: p.id,
                subset: String::new(),
                sequence: p.chosen,
                desirable: class,
            })
            .collect();
        let method = kto(Z0::Next);
        let setup =
            Setup { data: TrainData::Unpaired(&examples), ..Setup::new(&method, Budget::Steps(3), &[]) };
        let run = setup.run().unwrap();
        assert_eq!(run.outcome.ended, Ended::Done);
        let last = run.steps.last().unwrap();
        assert_eq!(last.reward_chosen.is_some(), class);
        assert_eq!(last.reward_rejected.is_some(), !class);
        assert_eq!((last.margin, last.accuracy), (None, None));
    }
}

/// An epoch of an odd number of examples ends within a step of two, which may then draw one example twice.
#[test]
fn a_step_of_two_never_holds_one_example_twice_where_z0_needs_another() {
    let examples: Vec<TokenizedExample> = pairs(3)
        .into_iter()
        .map(|pair| TokenizedExample {
            id: pair.id,
            subset: String::new(),
            sequence: pair.chosen,
            desirable: true,
        })
        .collect();
    let method = kto(Z0::Next);
    for budget in [Budget::Steps(60), Budget::Tokens(1500)] {
        let mut setup = Setup { data: TrainData::Unpaired(&examples), ..Setup::new(&method, budget, &[]) };
        setup.spec = TrainSpec { batch_size: 2, learning_rate: 1e-5, ..spec() };
        let run = setup.run().unwrap();
        assert_eq!(run.outcome.ended, Ended::Done);
        assert!(run.outcome.ledger.epochs > 20.0, "many ends of epochs: {}", run.outcome.ledger.epochs);
    }
}

#[test]
fn half_precision_parameters_learn_through_their_master_weights() {
    let pairs = pairs(20);
    // Each update is 1e-5, less than half a step of bfloat16 at 0.02: alone it would round away.
    let mut setup = Setup::new(&Method::Sft, Budget::Steps(40), &pairs);
    setup.dtype = DType::BF16;
    setup.spec = TrainSpec { learning_rate: 1e-5, warmup: 0.0, schedule: Schedule::Constant, ..spec() };
    let run = setup.run().unwrap();
    let (first, last) = (run.steps[0].loss, run.outcome.final_loss);
    assert_eq!(run.outcome.ended, Ended::Done);
    let before = decoder(1, DType::BF16);
    let moved = |a: &Decoder, b: &Decoder| -> f32 {
        let off = a.params().iter().zip(b.params()).map(|(a, b)| {
            let (a, b) = (a.tensor.to_dtype(DType::F32).unwrap(), b.tensor.to_dtype(DType::F32).unwrap());
            (a - b).unwrap().abs().unwrap().mean_all().unwrap().to_scalar::<f32>().unwrap()
        });
        off.sum::<f32>() / a.params().len() as f32
    };
    assert!(moved(&before, &run.policy) > 5e-5, "moved by {}", moved(&before, &run.policy));
    assert!(first.is_finite() && last.is_finite());
}

#[test]
fn input_that_cannot_be_trained_on_is_refused_with_the_reason() {
    let pairs = pairs(4);
    let (kto, dpo) = (kto(Z0::Next), dpo());
    let small = refusal(&Setup::new(&dpo, Budget::Tokens(3), &pairs));
    assert!(small.contains("smaller than the cost of the first step"), "{small}");
    let mut one = Setup::new(&kto, Budget::Steps(3), &pairs);
    one.spec.batch_size = 1;
    assert!(refusal(&one).contains("at least 2 examples (batch size 1"), "{}", refusal(&one));
    let zero = refusal(&Setup::new(&dpo, Budget::Tokens(0), &pairs));
    assert!(zero.contains("budget is 0"), "{zero}");
    let empty = refusal(&Setup::new(&dpo, Budget::Steps(1), &[]));
    assert!(empty.contains("no training example is left"), "{empty}");
    let example = TokenizedExample {
        id: "a".into(),
        subset: String::new(),
        sequence: pairs[0].chosen.clone(),
        desirable: true,
    };
    let unpaired = [example];
    let setup = Setup { data: TrainData::Unpaired(&unpaired), ..Setup::new(&dpo, Budget::Steps(1), &[]) };
    let error = refusal(&setup);
    assert!(error.contains("needs pairs") && error.contains("hint: single labels"), "{error}");
}

#[test]
fn the_learning_rate_follows_its_schedule() {
    let at = |schedule, warmup, fraction| {
        learning_rate(&TrainSpec { schedule, warmup, learning_rate: 2.0, ..spec() }, fraction)
    };
    assert_eq!(at(Schedule::Constant, 0.0, 0.0), 2.0);
    assert_eq!(at(Schedule::Constant, 0.2, 0.1), 1.0);
    assert_eq!(at(Schedule::Constant, 0.2, 0.9), 2.0);
    assert_eq!(at(Schedule::Linear, 0.0, 0.25), 1.5);
    assert_eq!(at(Schedule::Linear, 0.5, 0.75), 1.0);
    assert_eq!(at(Schedule::Linear, 0.0, 1.0), 0.0);
    assert!((at(Schedule::Cosine, 0.0, 0.5) - 1.0).abs() < 1e-15);
    assert!((at(Schedule::Cosine, 0.2, 0.4) - (1.0 + (std::f64::consts::PI / 4.0).cos())).abs() < 1e-15);
    assert!(at(Schedule::Cosine, 0.0, 1.0).abs() < 1e-15);
}
