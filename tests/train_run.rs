//! The loop: budgets, ledger, checks, divergence, determinism, and going on from a checkpoint.

use candle_core::{DType, Device};
use kto_eval::base::error::{Result, render};
use kto_eval::base::seed;
use kto_eval::data::{Sampler, Sequence, TokenizedExample, TokenizedPair};
use kto_eval::model::{Decoder, DecoderConfig, Size};
use kto_eval::plan::*;
use kto_eval::train::{
    Checkpoints, Ended, Hooks, Interval, Job, Ledger, Outcome, Reference, ReferenceCache, Saved, StepMetrics,
    TrainData, TrainOutcome, learning_rate, train, train_from,
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
        let reference = Reference { decoder: &start, cache: &cache };
        let (outcome, steps) = self.run_with(&mut policy, reference)?;
        Ok(Trained { outcome, steps, policy })
    }

    fn run_with(
        &self,
        policy: &mut Decoder,
        reference: Reference<'_>,
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
        let (mut steps, abort) = (Vec::new(), AtomicBool::new(false));
        let mut hooks = Hooks {
            step: &mut |metrics| {
                abort.store(metrics.step >= self.abort_after, Ordering::Relaxed);
                steps.push(StepMetrics { seconds: 0.0, ..metrics.clone() });
                Ok(())
            },
            progress: &mut |progress| assert!((0.0..=1.0).contains(&progress.fraction)),
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
fn every_currency_ends_every_arm_within_an_example_of_the_budget() {
    let pairs = pairs(40);
    let (methods, flops) = ([Method::Sft, dpo(), kto(Z0::Next)], 3e7);
    let counts = [Budget::Tokens(1500), Budget::Examples(101), Budget::Labels(53), Budget::Steps(7)];
    for budget in counts.into_iter().chain([Budget::Flops(flops)]) {
        for method in &methods {
            let Trained { outcome, steps, .. } = Setup::new(method, budget, &pairs).run().unwrap();
            let ledger = outcome.ledger;
            assert_eq!(outcome.ended, Ended::Done);
            // The dearest example: two sequences of 21 tokens; at most 8e5 operations for one.
            let (limit, dearest) = match budget {
                Budget::Tokens(n) => (n as f64, 42.0),
                Budget::Examples(n) | Budget::Labels(n) => (n as f64, 2.0),
                Budget::Steps(n) => (n as f64, 0.5),
                Budget::Flops(x) => (x, ledger.flops / ledger.examples as f64 * 4.0),
                Budget::Seconds(_) => unreachable!("not tested here"),
            };
            let spent = ledger.spent(budget);
            assert!(spent <= limit && spent > limit - dearest, "{method:?} {budget:?}: spent {spent}");
            assert_eq!(steps.len() as u64, ledger.steps);
        }
    }
}

/// Tokens that an epoch of single completions computes, five steps of 8 cut at 64 tokens: two of one pair that
/// are drawn one after the other and fall into one micro-batch share their prompt.
fn computed_tokens(pairs: &[TokenizedPair], order: Order) -> u64 {
    let mut sampler = Sampler::new(2 * pairs.len(), order, SEED);
    let mut total = 0;
    for _ in 0..2 * pairs.len() / 8 {
        let (mut taken, mut before) = (0, None);
        for drawn in (0..8).map(|_| sampler.next()) {
            let pair = &pairs[drawn / 2];
            let sequence = if drawn % 2 == 0 { &pair.chosen } else { &pair.rejected };
            let shared = if before == Some(drawn / 2) { sequence.prompt_len } else { 0 };
            let adds = sequence.ids.len() - shared;
            if taken + adds <= 64 {
                (taken, total) = (taken + adds, total + adds);
            } else {
                (taken, total) = (sequence.ids.len(), total + sequence.ids.len());
            }
            before = Some(drawn / 2);
        }
    }
    total as u64
}

#[test]
fn computed_tokens_are_those_of_the_drawn_order() {
    let pairs = pairs(20);
    let (all, shared) = pairs.iter().fold((0, 0), |(all, shared), p| {
        (all + p.chosen.ids.len() + p.rejected.ids.len(), shared + p.chosen.prompt_len)
    });
    let method = kto(Z0::Previous);
    let mut setup = Setup::new(&method, Budget::Examples(40), &pairs);
    setup.spec.order = Order::Sequential;
    let found = setup.run().unwrap().outcome.ledger.computed_tokens;
    assert_eq!(found, computed_tokens(&pairs, Order::Sequential));
    let (all, least) = (all as u64, (all - shared) as u64);
    assert!(
        least < found && found < all,
        "some pairs share a prompt, some are cut apart: {least} {found} {all}"
    );
}

#[test]
fn the_ledger_is_the_sum_of_its_steps_and_of_the_data() {
    let pairs = pairs(20);
    let tokens = |f: &dyn Fn(&Sequence) -> usize| -> u64 {
        pairs.iter().map(|p| (f(&p.chosen) + f(&p.rejected)) as u64).sum()
    };
    let (all, read) = (tokens(&|s| s.ids.len()), tokens(&|s| s.completion_len()));
    // One epoch: 20 pairs, or 40 completions.
    let dpo = Setup::new(&dpo(), Budget::Examples(40), &pairs).run().unwrap();
    let kto = Setup::new(&kto(Z0::Previous), Budget::Examples(40), &pairs).run().unwrap();
    for (run, labels) in [(&dpo, 20), (&kto, 40)] {
        let ledger = run.outcome.ledger;
        assert_eq!((ledger.examples, ledger.labels, ledger.steps), (40, labels, 5));
        assert_eq!((ledger.policy_tokens, ledger.completion_tokens), (all, read));
        assert!((ledger.epochs - 1.0).abs() < 1e-12);
        let sum = |f: &dyn Fn(&StepMetrics) -> u64| run.steps.iter().map(f).sum::<u64>();
        assert_eq!(sum(&|s| s.policy_tokens), all);
        assert_eq!(sum(&|s| s.completion_tokens), read);
        assert_eq!(sum(&|s| s.kl_tokens), ledger.kl_tokens);
        assert_eq!(sum(&|s| s.desirable + s.undesirable), 40);
        assert_eq!(run.steps.last().unwrap().total_policy_tokens, all);
        assert_eq!(ledger.reference_tokens, all + ledger.kl_tokens);
    }
    let shared: u64 = pairs.iter().map(|p| p.chosen.prompt_len as u64).sum();
    assert_eq!(dpo.outcome.ledger.computed_tokens, all - shared, "a pair's prompt is computed once");
    assert_eq!(kto.outcome.ledger.computed_tokens, computed_tokens(&pairs, Order::Shuffled));
    assert_eq!(dpo.outcome.ledger.kl_tokens, 0);
    // A rotation moves completions about within a step, so an epoch has the tokens of the data.
    assert_eq!(kto.outcome.ledger.kl_tokens, all);
    assert!(kto.outcome.ledger.flops > dpo.outcome.ledger.flops);

    let sft = Setup::new(&Method::Sft, Budget::Examples(20), &pairs).run().unwrap();
    let chosen: u64 = pairs.iter().map(|p| p.chosen.ids.len() as u64).sum();
    let Ledger { policy_tokens, reference_tokens, labels, .. } = sft.outcome.ledger;
    assert_eq!((policy_tokens, reference_tokens, labels), (chosen, 0, 20));
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
fn a_reference_that_is_not_the_start_is_refused_by_name() {
    let pairs = pairs(20);
    let (mut policy, start, other) = (decoder(1, DType::F32), decoder(1, DType::F32), decoder(2, DType::F32));
    // A cache that holds another model's log-probs under the start's name.
    let cache = ReferenceCache::open(&start.weights_hash().unwrap(), None);
    let every: Vec<&Sequence> = pairs.iter().flat_map(|p| [&p.chosen, &p.rejected]).collect();
    Reference { decoder: &other, cache: &cache }.logps(&every, 512).unwrap();
    let method = dpo();
    let setup = Setup::new(&method, Budget::Steps(2), &pairs);
    let error = match setup.run_with(&mut policy, Reference { decoder: &start, cache: &cache }) {
        Ok(_) => panic!("the run was not refused"),
        Err(e) => render(&e),
    };
    assert!(error.contains("must be equal, but example pair:"), "{error}");
    assert!(error.contains("hint: the reference is not the starting checkpoint"), "{error}");
    assert_eq!(policy.weights_hash().unwrap(), start.weights_hash().unwrap(), "no update was made");
}

#[test]
fn a_reference_of_its_own_is_no_identity_and_no_error() {
    let pairs = pairs(20);
    let (mut policy, other) = (decoder(1, DType::F32), decoder(2, DType::F32));
    let cache = ReferenceCache::open(&other.weights_hash().unwrap(), None);
    let method = dpo();
    let setup = Setup::new(&method, Budget::Steps(2), &pairs);
    let (outcome, steps) = setup.run_with(&mut policy, Reference { decoder: &other, cache: &cache }).unwrap();
    assert_eq!(outcome.checks[0].outcome, Outcome::NotApplicable);
    assert!(steps[0].reward_chosen.is_some_and(|r| r != 0.0));
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

#[test]
fn a_run_that_goes_on_from_any_step_ends_with_the_same_bits() {
    let pairs = pairs(13);
    for method in [dpo(), kto(Z0::Next), Method::Bco(BetaSpec { beta: 0.1 })] {
        let whole = Setup::new(&method, Budget::Steps(9), &pairs).run().unwrap();
        for stop in [1, 4, 8] {
            let folder = tempfile::tempdir().unwrap();
            let checkpoints = Checkpoints { folder: folder.path().join("run"), every: Interval::Steps(3) };
            let mut setup = Setup::new(&method, Budget::Steps(9), &pairs);
            setup.checkpoints = Some(&checkpoints);
            setup.abort_after = stop;
            let first = setup.run().unwrap();
            assert_eq!(first.outcome.ended, Ended::Aborted);
            setup.abort_after = u64::MAX;
            setup.resume = true;
            let rest = setup.run().unwrap();
            assert_eq!(rest.outcome.weights, whole.outcome.weights, "{method:?} stopped after {stop}");
            let steps = [first.steps, rest.steps].concat();
            assert_eq!(steps, whole.steps);
            assert_eq!(rest.outcome.checks, whole.outcome.checks);
            let times = Ledger { train_seconds: 0.0, reference_seconds: 0.0, ..rest.outcome.ledger };
            let want = Ledger { train_seconds: 0.0, reference_seconds: 0.0, ..whole.outcome.ledger };
            assert_eq!(times, want);
        }
    }
}

#[test]
fn a_run_that_goes_on_from_its_end_is_at_its_end() {
    let pairs = pairs(13);
    let method = dpo();
    // What the last step leaves of a budget of tokens would hold some example, but not the next ones in order.
    for tokens in 150..190 {
        let folder = tempfile::tempdir().unwrap();
        let checkpoints = Checkpoints { folder: folder.path().to_owned(), every: Interval::Seconds(1e9) };
        let mut setup = Setup::new(&method, Budget::Tokens(tokens), &pairs);
        setup.checkpoints = Some(&checkpoints);
        let whole = setup.run().unwrap();
        setup.resume = true;
        let again = setup.run().unwrap();
        assert_eq!(again.steps.len(), 0, "a budget of {tokens} tokens");
        assert_eq!(again.outcome.ledger.policy_tokens, whole.outcome.ledger.policy_tokens);
        assert_eq!(again.outcome.weights, whole.outcome.weights);
    }
}

#[test]
fn a_damaged_checkpoint_falls_back_to_the_one_before() {
    let pairs = pairs(13);
    let method = dpo();
    let folder = tempfile::tempdir().unwrap();
    let checkpoints = Checkpoints { folder: folder.path().to_owned(), every: Interval::Steps(2) };
    let mut setup = Setup::new(&method, Budget::Steps(9), &pairs);
    let whole = setup.run().unwrap();
    setup.checkpoints = Some(&checkpoints);
    setup.abort_after = 7;
    setup.run().unwrap();
    let mut files: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().path()).collect();
    files.sort();
    assert_eq!(files.len(), 2, "the newest two are kept, and nothing aside: {files:?}");

    let good = std::fs::read(&files[1]).unwrap();
    for damage in 0..4 {
        let mut bytes = good.clone();
        match damage {
            0 => bytes.truncate(good.len() / 2),
            1 => bytes.clear(),
            2 => bytes[good.len() - 5] ^= 1,
            _ => bytes[100] ^= 1,
        }
        std::fs::write(&files[1], &bytes).unwrap();
        let (saved, notes) = Saved::latest(folder.path());
        assert_eq!(saved.map(|s| s.step()), Some(6), "damage {damage}");
        assert!(notes.len() == 1 && notes[0].contains("passed over"), "{notes:?}");
    }
    setup.abort_after = u64::MAX;
    setup.resume = true;
    assert_eq!(setup.run().unwrap().outcome.weights, whole.outcome.weights);
    let (other, fresh) = (kto(Z0::Next), tempfile::tempdir().unwrap());
    let foreign = Setup { method: &other, ..setup };
    assert!(refusal(&foreign).contains("checkpoint is of another run"), "{}", refusal(&foreign));
    assert!(Saved::latest(fresh.path()).0.is_none());
}

#[test]
fn a_cache_that_is_full_changes_no_bit() {
    let pairs = pairs(20);
    let folder = tempfile::tempdir().unwrap();
    let method = kto(Z0::Next);
    let setup = Setup::new(&method, Budget::Steps(4), &pairs);
    let run = || {
        let (mut policy, start) = (decoder(1, DType::F32), decoder(1, DType::F32));
        let cache = ReferenceCache::open(&start.weights_hash().unwrap(), Some(folder.path()));
        let known = cache.len();
        let (outcome, steps) =
            setup.run_with(&mut policy, Reference { decoder: &start, cache: &cache }).unwrap();
        (known, outcome.weights, steps)
    };
    let (first, second) = (run(), run());
    assert_eq!(first.0, 0);
    assert!(second.0 > 0, "the second run finds the first one's log-probs");
    assert_eq!((first.1, first.2), (second.1, second.2));
}

#[test]
fn a_reference_log_prob_does_not_depend_on_what_is_computed_beside_it() {
    let pairs = pairs(20);
    let start = decoder(1, DType::F32);
    let every: Vec<&Sequence> = pairs.iter().flat_map(|p| [&p.chosen, &p.rejected]).collect();
    let cache = || ReferenceCache::open("start", None);
    let together = Reference { decoder: &start, cache: &cache() }.logps(&every, 4096).unwrap();
    let cache = cache();
    let reference = Reference { decoder: &start, cache: &cache };
    for (sequence, want) in every.iter().zip(&together).rev() {
        assert_eq!(reference.logps(&[sequence], 64).unwrap(), [*want]);
    }
    assert_eq!(reference.logps(&every, 64).unwrap(), together);
}

#[test]
fn seconds_end_a_run_near_its_time() {
    let pairs = pairs(20);
    let (mut policy, start) = (decoder(1, DType::F32), decoder(1, DType::F32));
    let cache = ReferenceCache::open("start", None);
    let (method, spec) = (dpo(), spec());
    let job = Job {
        method: &method,
        spec: &spec,
        budget: Budget::Seconds(0.5),
        seed: 1,
        max_length: 64,
        data: TrainData::Paired(&pairs),
        reference: Some(Reference { decoder: &start, cache: &cache }),
    };
    let mut slowest = 0.0f64;
    let mut hooks = Hooks {
        step: &mut |m| {
            slowest = slowest.max(m.seconds);
            Ok(())
        },
        progress: &mut |_| {},
        abort: &AtomicBool::new(false),
    };
    let ledger = train(&mut policy, &job, &mut hooks).unwrap().ledger;
    assert!((ledger.train_seconds - 0.5).abs() <= slowest, "{ledger:?}");
    assert!(ledger.steps > 1);
}
