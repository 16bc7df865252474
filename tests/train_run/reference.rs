//! The reference: another model than the start, its cache, and what 16 bits leave of an identity.

use super::*;

#[test]
fn a_reference_that_is_not_the_start_is_refused_by_name() {
    let pairs = pairs(20);
    for dtype in [DType::F32, DType::BF16] {
        let (mut policy, start, other) = (decoder(1, dtype), decoder(1, dtype), decoder(2, dtype));
        // A cache that holds another model's log-probs under the start's name.
        let cache = ReferenceCache::open(&start.weights_hash().unwrap(), None);
        let every: Vec<&Sequence> = pairs.iter().flat_map(|p| [&p.chosen, &p.rejected]).collect();
        Reference::new(&other, &cache).logps(&every, 512).unwrap();
        let method = dpo();
        let setup = Setup { dtype, ..Setup::new(&method, Budget::Steps(2), &pairs) };
        let error = match setup.run_with(&mut policy, Reference::new(&start, &cache)) {
            Ok(_) => panic!("the run was not refused"),
            Err(e) => render(&e),
        };
        assert!(error.contains("must be equal, but example pair:"), "{error}");
        assert!(error.contains("hint: the reference is not the starting checkpoint"), "{error}");
        assert_eq!(policy.weights_hash().unwrap(), start.weights_hash().unwrap(), "no update was made");
    }
}

#[test]
fn a_reference_of_its_own_is_no_identity_and_no_error() {
    let pairs = pairs(20);
    let (mut policy, other) = (decoder(1, DType::F32), decoder(2, DType::F32));
    let cache = ReferenceCache::open(&other.weights_hash().unwrap(), None);
    let method = dpo();
    let setup = Setup::new(&method, Budget::Steps(2), &pairs);
    let (outcome, steps) = setup.run_with(&mut policy, Reference::new(&other, &cache)).unwrap();
    assert_eq!(outcome.checks[0].outcome, Outcome::NotApplicable);
    assert!(steps[0].reward_chosen.is_some_and(|r| r != 0.0));
}

/// Policy and reference of 16 bits round differently in batches of other shapes: still equal, as far as 16 bits go.
#[test]
fn the_step_0_identity_knows_what_half_precision_can_hold() {
    let pairs = pairs(30);
    for method in [dpo(), kto(Z0::Next), Method::Ipo(IpoSpec { beta: 0.1, length_normalised: false })] {
        let mut setup = Setup::new(&method, Budget::Steps(3), &pairs);
        setup.dtype = DType::BF16;
        let run = setup.run().unwrap();
        assert_eq!(run.outcome.ended, Ended::Done, "{}", method.name());
        let other = decoder(2, DType::BF16);
        let cache = ReferenceCache::open("another", None);
        let mut policy = decoder(1, DType::BF16);
        let (outcome, _) = setup.run_with(&mut policy, Reference::new(&other, &cache)).unwrap();
        let check = outcome.checks.iter().find(|c| c.name == "step-0 identity").unwrap();
        assert_eq!(check.outcome, Outcome::NotApplicable, "the reference is seen to be another model");
    }
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
        let (outcome, steps) = setup.run_with(&mut policy, Reference::new(&start, &cache)).unwrap();
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
    let together = Reference::new(&start, &cache()).logps(&every, 4096).unwrap();
    let cache = cache();
    let reference = Reference::new(&start, &cache);
    for (sequence, want) in every.iter().zip(&together).rev() {
        assert_eq!(reference.logps(&[sequence], 64).unwrap(), [*want]);
    }
    assert_eq!(reference.logps(&every, 64).unwrap(), together);
}
