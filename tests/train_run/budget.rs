//! Budgets end runs where they say, and the ledger counts what was spent.

use super::*;

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
        reference: Some(Reference::new(&start, &cache)),
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
