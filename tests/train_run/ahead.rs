//! A reference that is asked before the first update: the same run as with a second copy of the weights.

use super::*;

/// A run whose policy is its own reference before the first update; `told` gets its progress.
fn alone(setup: &Setup, cache: &ReferenceCache, told: &mut Vec<Progress>) -> Result<Trained> {
    let mut policy = decoder(1, setup.dtype);
    let (outcome, steps) = setup.run_telling(&mut policy, Reference::start(cache), told)?;
    Ok(Trained { outcome, steps, policy })
}

fn start_cache() -> ReferenceCache {
    ReferenceCache::open(&decoder(1, DType::F32).weights_hash().unwrap(), None)
}

/// Apart from times.
fn spent(ledger: Ledger) -> Ledger {
    Ledger { train_seconds: 0.0, reference_seconds: 0.0, ..ledger }
}

#[test]
fn a_reference_asked_beforehand_gives_the_bits_of_one_that_is_kept() {
    let pairs = pairs(20);
    let methods = [dpo(), kto(Z0::Next), kto(Z0::Reversed), kto(Z0::Zero), Method::Sft];
    // Within the first epoch, and into the third: mismatched completions are others in each.
    for budget in [Budget::Steps(4), Budget::Tokens(2500), Budget::Flops(6e7)] {
        for method in &methods {
            let setup = Setup::new(method, budget, &pairs);
            let kept = setup.run().unwrap();
            let (cache, mut told) = (start_cache(), Vec::new());
            let asked = alone(&setup, &cache, &mut told).unwrap();
            assert_eq!(asked.outcome.weights, kept.outcome.weights, "{method:?} {budget:?}");
            assert_eq!(asked.steps, kept.steps);
            assert_eq!(asked.outcome.checks, kept.outcome.checks);
            assert_eq!(spent(asked.outcome.ledger), spent(kept.outcome.ledger));
            let needs = *method != Method::Sft;
            assert_eq!(cache.is_empty(), !needs);
            if matches!(budget, Budget::Tokens(_)) {
                assert_eq!(told.iter().any(|p| p.asking), needs);
            }
            let Ledger { train_seconds, reference_seconds, .. } = asked.outcome.ledger;
            assert!(!needs || 0.0 < reference_seconds && reference_seconds < train_seconds);
        }
    }
}

#[test]
fn a_run_that_goes_on_asks_about_what_is_left_alone() {
    let (pairs, folder) = (pairs(40), tempfile::tempdir().unwrap());
    let method = kto(Z0::Previous);
    let checkpoints = Checkpoints { folder: folder.path().to_owned(), every: Interval::Steps(2) };
    let whole = Setup::new(&method, Budget::Steps(8), &pairs);
    let first = Setup {
        abort_after: 6,
        checkpoints: Some(&checkpoints),
        ..Setup::new(&method, whole.budget, &pairs)
    };
    let (all, wanted) = (start_cache(), whole.run().unwrap());
    assert_eq!(alone(&first, &all, &mut vec![]).unwrap().outcome.ended, Ended::Aborted);
    let (rest, second) = (start_cache(), Setup { abort_after: u64::MAX, resume: true, ..first });
    let gone_on = alone(&second, &rest, &mut vec![]).unwrap();
    assert_eq!(gone_on.outcome.weights, wanted.outcome.weights);
    assert_eq!(gone_on.steps, wanted.steps[6..]);
    assert_eq!(
        (all.len(), rest.len()),
        (8 * 16, 2 * 16),
        "a step asks about 8 completions and 8 mismatched ones"
    );
}

#[test]
fn asking_can_be_interrupted_and_what_was_learned_is_kept() {
    let (pairs, folder) = (pairs(60), tempfile::tempdir().unwrap());
    let method = dpo();
    let setup = Setup { abort_after: 0, ..Setup::new(&method, Budget::Steps(30), &pairs) };
    let weights = decoder(1, DType::F32).weights_hash().unwrap();
    let cache = ReferenceCache::open(&weights, Some(folder.path()));
    let interrupted = alone(&setup, &cache, &mut vec![]).unwrap();
    assert_eq!(interrupted.outcome.ended, Ended::Aborted);
    assert_eq!((interrupted.outcome.weights, interrupted.steps.len()), (weights.clone(), 0));
    let known = ReferenceCache::open(&weights, Some(folder.path())).len();
    assert!(0 < known && known < 120, "{known} of the run's 120 completions");
}

#[test]
fn nobody_can_ask_beforehand_under_a_budget_in_seconds() {
    let pairs = pairs(8);
    let method = dpo();
    let setup = Setup::new(&method, Budget::Seconds(1.0), &pairs);
    let error = alone(&setup, &start_cache(), &mut vec![]).map(|_| ()).unwrap_err();
    assert!(render(&error).contains("seconds"), "{}", render(&error));
}
