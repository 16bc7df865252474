//! Runs that are cut off go on with the same bits.

use super::*;

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
