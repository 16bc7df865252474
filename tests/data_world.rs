//! The planted-truth world: what is known about it must hold, or every study on it is worthless.

use std::collections::{BTreeMap, HashSet};

use kto_eval::data::world::{Kind, World};
use kto_eval::data::{PreferencePair, Tokenizer, tokenize_pairs};
use kto_eval::plan::WorldSpec;

fn spec(temperature: f64, flip: f64) -> WorldSpec {
    WorldSpec { seed: 17, train_pairs: 6000, heldout_pairs: 900, temperature, flip }
}

/// Gold reward of chosen minus rejected, and whether the label is the one that gold reward would give.
fn margins(world: &World, pairs: &[PreferencePair]) -> Vec<f64> {
    let gold = |p: &PreferencePair, c: &str| world.gold_reward(&p.prompt, c);
    pairs.iter().map(|p| gold(p, &p.chosen) - gold(p, &p.rejected)).collect()
}

#[test]
fn labels_follow_bradley_terry_with_the_stated_flip_rate() {
    for (temperature, flip) in [(0.2, 0.05), (0.5, 0.0), (0.1, 0.2)] {
        let world = World::new(&spec(temperature, flip)).unwrap();
        let margins = margins(&world, &world.train_pairs());
        // In each bin of |Δr|: how many labels agree with the gold reward, against how many should.
        let mut chi2 = 0.0;
        let mut bins = 0;
        for (low, high) in [(0.001, 0.1), (0.1, 0.2), (0.2, 0.35), (0.35, 0.6), (0.6, 2.0)] {
            let inside: Vec<f64> =
                margins.iter().copied().filter(|m| (low..high).contains(&m.abs())).collect();
            let p = |m: f64| {
                let plain = 1.0 / (1.0 + (-m.abs() / temperature).exp());
                plain * (1.0 - flip) + (1.0 - plain) * flip
            };
            let expected: f64 = inside.iter().map(|m| p(*m)).sum();
            let variance: f64 = inside.iter().map(|m| p(*m) * (1.0 - p(*m))).sum();
            let agree = inside.iter().filter(|m| **m > 0.0).count() as f64;
            assert!(inside.len() > 100, "{low}..{high}: {}", inside.len());
            chi2 += (agree - expected).powi(2) / variance;
            bins += 1;
        }
        // 99.9 % point of χ² with 5 degrees of freedom.
        assert!(chi2 < 20.5, "T = {temperature}, flip = {flip}: χ² = {chi2:.1} over {bins} bins");
    }
}

#[test]
fn equal_rewards_are_labelled_by_a_coin() {
    let world = World::new(&spec(0.2, 0.05)).unwrap();
    let pairs = world.train_pairs();
    let ties: Vec<&PreferencePair> =
        pairs.iter().zip(margins(&world, &pairs)).filter(|(_, m)| m.abs() < 1e-9).map(|(p, _)| p).collect();
    assert!(ties.len() > 200, "{}", ties.len());
    let first_in_order = ties.iter().filter(|p| p.chosen < p.rejected).count() as f64 / ties.len() as f64;
    assert!((first_in_order - 0.5).abs() < 4.0 * 0.5 / (ties.len() as f64).sqrt(), "{first_in_order}");
}

#[test]
fn nothing_that_is_trained_on_is_held_out() {
    let world = World::new(&spec(0.2, 0.05)).unwrap();
    let heldout: Vec<PreferencePair> = world.heldout_pairs();
    let prompts: HashSet<&str> = heldout.iter().map(|p| p.prompt.as_str()).collect();
    assert_eq!(prompts.len(), 900, "held-out prompts are all different");
    assert!(world.train_pairs().iter().all(|p| !prompts.contains(p.prompt.as_str())));
    assert!(world.pretrain_corpus(20_000, 3).iter().all(|e| !prompts.contains(e.prompt.as_str())));
    // Another seed's world holds out by the same rule, so a cached base model may serve both.
    let other = World::new(&WorldSpec { seed: 18, ..spec(0.2, 0.05) }).unwrap();
    assert!(other.train_pairs().iter().all(|p| !prompts.contains(p.prompt.as_str())));
}

#[test]
fn difficulty_is_spread_within_every_kind() {
    let world = World::new(&spec(0.2, 0.05)).unwrap();
    let pairs = world.train_pairs();
    let mut by_kind: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for (pair, margin) in pairs.iter().zip(margins(&world, &pairs)) {
        by_kind.entry(&pair.subset).or_default().push(margin.abs());
    }
    assert_eq!(by_kind.len(), 6);
    for (kind, mut margins) in by_kind {
        assert_eq!(margins.len(), 1000);
        margins.sort_by(f64::total_cmp);
        let (low, middle, high) = (margins[100], margins[500], margins[900]);
        assert!(low < 0.15 && (0.1..0.7).contains(&middle) && high > 0.45, "{kind}: {low} {middle} {high}");
    }
}

#[test]
fn the_pool_is_right_sometimes_and_wrong_sometimes() {
    let world = World::new(&spec(0.2, 0.05)).unwrap();
    let corpus = world.pretrain_corpus(12_000, 0);
    for kind in Kind::ALL {
        let rewards: Vec<f64> = corpus
            .iter()
            .filter(|e| e.subset == kind.name())
            .map(|e| world.gold_reward(&e.prompt, &e.completion))
            .collect();
        let n = rewards.len() as f64;
        let perfect = rewards.iter().filter(|r| **r == 1.0).count() as f64 / n;
        let mean = rewards.iter().sum::<f64>() / n;
        assert!((0.28..0.45).contains(&perfect) && (0.5..0.85).contains(&mean), "{kind:?}: {perfect} {mean}");
    }
}

#[test]
fn the_same_seed_gives_the_same_world_and_more_pairs_begin_with_the_fewer() {
    let world = World::new(&spec(0.2, 0.05)).unwrap();
    assert_eq!(world.train_pairs(), World::new(&spec(0.2, 0.05)).unwrap().train_pairs());
    let fewer = World::new(&WorldSpec { train_pairs: 100, heldout_pairs: 60, ..spec(0.2, 0.05) }).unwrap();
    assert_eq!(fewer.train_pairs(), world.train_pairs()[..100]);
    assert_eq!(fewer.heldout_pairs(), world.heldout_pairs()[..60]);
    assert_eq!(fewer.pretrain_corpus(50, 1), world.pretrain_corpus(80, 1)[..50]);
    assert_ne!(world.pretrain_corpus(50, 1), world.pretrain_corpus(50, 2));
    let other = World::new(&WorldSpec { seed: 18, ..spec(0.2, 0.05) }).unwrap();
    assert_ne!(other.train_pairs(), world.train_pairs());
}

#[test]
fn the_prompts_for_generation_come_with_the_answer_that_is_really_better() {
    let world = World::new(&spec(0.2, 0.2)).unwrap();
    let (pairs, prompts) = (world.heldout_pairs(), world.heldout_prompts());
    assert_eq!(pairs.len(), prompts.len());
    let mut relabelled = 0;
    for (pair, prompt) in pairs.iter().zip(&prompts) {
        assert_eq!((&pair.id, &pair.prompt, &pair.subset), (&prompt.id, &prompt.prompt, &prompt.kind));
        let gold = |c: &str| world.gold_reward(&pair.prompt, c);
        assert_eq!(gold(&prompt.chosen), gold(&pair.chosen).max(gold(&pair.rejected)));
        relabelled += usize::from(gold(&pair.chosen) < gold(&pair.rejected));
    }
    assert!(relabelled > 100, "noise must be seen in the pairs: {relabelled}");
}

/// `suites/README.md` says so.
#[test]
fn the_ceiling_of_preference_accuracy_is_where_the_description_puts_it() {
    let large = World::new(&WorldSpec { heldout_pairs: 2000, ..spec(0.2, 0.05) }).unwrap();
    assert!((large.ceiling() - 0.785).abs() < 4.0 * 0.41 / 2000f64.sqrt(), "{}", large.ceiling());
    assert!(World::new(&spec(1e-6, 0.0)).unwrap().ceiling() > 0.95, "without noise only ties remain");
    assert!((World::new(&spec(1e6, 0.0)).unwrap().ceiling() - 0.5).abs() < 4.0 * 0.5 / 30.0);
}

#[test]
fn every_text_of_the_world_is_made_of_its_own_tokens() {
    let world = World::new(&spec(0.2, 0.05)).unwrap();
    let dir = tempfile::TempDir::new().unwrap();
    world.write_tokenizer(dir.path()).unwrap();
    let tokenizer = Tokenizer::load(dir.path()).unwrap();
    assert_eq!((tokenizer.vocab_size(), tokenizer.eos(), tokenizer.pad()), (world.vocab_size(), 0, 1));
    tokenizer.check_fits(world.config().vocab_size).unwrap();
    let pairs = world.train_pairs();
    let (tokenized, stats) = tokenize_pairs(&pairs, &tokenizer, 40).unwrap();
    assert_eq!((stats.examples, stats.cut, stats.dropped, stats.boundary_merges), (6000, 0, 0, 0));
    for (pair, ids) in pairs.iter().zip(&tokenized) {
        assert!(!ids.chosen.ids.contains(&2), "an unknown word in {}", pair.prompt);
        assert_eq!(ids.chosen.ids.iter().filter(|id| **id == 0).count(), 1);
        let decoded = tokenizer.decode(ids.chosen.completion()).unwrap();
        assert_eq!(format!(" {decoded}"), pair.chosen);
        assert_eq!(world.gold_reward(&pair.prompt, &decoded), world.gold_reward(&pair.prompt, &pair.chosen));
    }
}

#[test]
fn options_out_of_range_are_refused() {
    for (bad, expected) in [
        (spec(0.0, 0.0), "temperature is 0"),
        (spec(f64::NAN, 0.0), "temperature is NaN"),
        (spec(0.2, 0.5), "flip rate is 0.5"),
        (spec(0.2, -0.1), "flip rate is -0.1"),
        (WorldSpec { train_pairs: 0, ..spec(0.2, 0.0) }, "not 0 and 900"),
        (WorldSpec { heldout_pairs: 100_000, ..spec(0.2, 0.0) }, "no 100000 different held-out prompts"),
    ] {
        let error = World::new(&bad).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}
