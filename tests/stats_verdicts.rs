//! Verdicts from rows: right sentence, right direction, rarely wrong, the same however rows are ordered.

use kto_eval::base::seed::rng_at;
use kto_eval::plan::{Overrides, Plan, VerdictSpec};
use kto_eval::record::{ComparisonRow, Direction, ExampleRow, Family, JudgmentRow, ScoreRow, Verdict};
use kto_eval::stats::judge::split_judge;
use kto_eval::stats::{Finding, claims, verdicts, verdicts_among};
use rand::RngExt;
use rand::seq::SliceRandom;

/// No metric is primary: every comparison stands in one family.
const SPEC: VerdictSpec =
    VerdictSpec { alpha: 0.05, primary: Vec::new(), equivalence_margin: 0.02, resamples: 1000, seed: 1 };

/// Rows of arms with true accuracies, on `prompts` prompts under `seeds` seeds, and the scores that name
/// the metric's direction.
fn rows(
    arms: &[(&str, f64)],
    seeds: u64,
    prompts: usize,
    world: u64,
    direction: Direction,
) -> (Vec<ExampleRow>, Vec<ScoreRow>) {
    let mut rng = rng_at(world, "test/verdicts", 0);
    let hard: Vec<f64> = (0..prompts).map(|_| rng.random::<f64>() - 0.5).collect();
    let (mut examples, mut scores) = (Vec::new(), Vec::new());
    for (arm, accuracy) in arms {
        for seed in 0..seeds {
            let run = format!("{arm}-s{seed}");
            for (i, hard) in hard.iter().enumerate() {
                let right = rng.random::<f64>() < accuracy + 0.3 * hard;
                examples.push(ExampleRow {
                    run: run.clone(),
                    arm: (*arm).into(),
                    seed,
                    suite: "hh".into(),
                    subset: "harmless".into(),
                    example: format!("e{i}"),
                    cluster: format!("p{i}"),
                    metric: "accuracy".into(),
                    value: f64::from(u8::from(right)),
                });
            }
            scores.push(ScoreRow {
                run,
                arm: (*arm).into(),
                seed,
                suite: "hh".into(),
                subset: "all".into(),
                metric: "accuracy".into(),
                value: 0.0,
                n: prompts as u64,
                standard_error: 0.0,
                unit: "share".into(),
                direction,
            });
        }
    }
    (examples, scores)
}

fn judged(arms: &[(&str, f64)], seeds: u64, prompts: usize, direction: Direction) -> Vec<ComparisonRow> {
    let (examples, scores) = rows(arms, seeds, prompts, 3, direction);
    verdicts(&examples, &scores, &SPEC, None)
}

#[test]
fn a_clear_win_is_called_and_read_in_either_direction() {
    let arms = [("kto", 0.7), ("dpo", 0.5)];
    let higher = &judged(&arms, 3, 500, Direction::Higher)[0];
    assert_eq!(higher.verdict, Verdict::Better);
    assert!(higher.words.starts_with("kto beats dpo on hh (accuracy) by "), "{}", higher.words);
    let lower = &judged(&arms, 3, 500, Direction::Lower)[0];
    assert_eq!(lower.verdict, Verdict::Worse);
    assert_eq!(lower.difference, higher.difference);
    assert!(
        lower.words.starts_with("dpo beats kto on hh (accuracy, lower is better) by "),
        "{}",
        lower.words
    );
    assert!(judged(&arms, 3, 500, Direction::Neutral).is_empty());
}

#[test]
fn swapping_the_arms_mirrors_the_row() {
    let (examples, scores) = rows(&[("kto", 0.6), ("dpo", 0.5)], 3, 300, 5, Direction::Higher);
    let mut swapped = scores.clone();
    swapped.reverse();
    let (ab, ba) = (verdicts(&examples, &scores, &SPEC, None), verdicts(&examples, &swapped, &SPEC, None));
    assert_eq!((&ab[0].arm_a, &ab[0].arm_b), (&ba[0].arm_b, &ba[0].arm_a));
    for (x, y) in [
        (ab[0].difference, -ba[0].difference),
        (ab[0].low, -ba[0].high),
        (ab[0].p, ba[0].p),
        (ab[0].p_equivalence, ba[0].p_equivalence),
    ] {
        assert!((x - y).abs() < 1e-12, "{x} {y}");
    }
}

#[test]
fn the_order_of_rows_does_not_matter() {
    let (mut examples, scores) =
        rows(&[("kto", 0.6), ("dpo", 0.5), ("base", 0.4)], 3, 200, 6, Direction::Higher);
    examples.retain(|e| e.arm != "base" || e.seed == 0);
    let before = verdicts(&examples, &scores, &SPEC, None);
    examples.shuffle(&mut rng_at(1, "test/shuffle", 0));
    let after = verdicts(&examples, &scores, &SPEC, None);
    assert_eq!(before.len(), 3);
    for (x, y) in before.iter().zip(&after) {
        assert_eq!((&x.arm_a, &x.arm_b, &x.words), (&y.arm_a, &y.arm_b, &y.words));
        assert!((x.p - y.p).abs() < 1e-9);
    }
    assert_eq!((after[2].arm_b.as_str(), after[2].seeds), ("base", 3));
}

#[test]
fn a_base_with_samples_of_its_own_under_each_seed_is_paired_seed_by_seed() {
    let (examples, scores) = rows(&[("kto", 0.6), ("base", 0.4)], 3, 200, 8, Direction::Higher);
    let mean = |arm: &str| {
        let values: Vec<f64> = examples.iter().filter(|e| e.arm == arm).map(|e| e.value).collect();
        values.iter().sum::<f64>() / values.len() as f64
    };
    let row = &verdicts(&examples, &scores, &SPEC, None)[0];
    assert_eq!((row.arm_b.as_str(), row.seeds), ("base", 3));
    assert!((row.mean_a - mean("kto")).abs() < 1e-12, "{} {}", row.mean_a, mean("kto"));
    assert!((row.mean_b - mean("base")).abs() < 1e-12, "{} {}", row.mean_b, mean("base"));
}

#[test]
fn a_win_rate_against_the_base_is_judged_against_one_half() {
    let (mut examples, mut scores) = rows(&[("kto", 0.7), ("dpo", 0.5)], 3, 400, 9, Direction::Higher);
    examples.iter_mut().for_each(|e| e.metric = "win_rate_base".into());
    scores.iter_mut().for_each(|s| s.metric = "win_rate_base".into());
    let spec = VerdictSpec { primary: vec!["win_rate_base".into()], ..SPEC.clone() };
    let judged = verdicts(&examples, &scores, &spec, None);
    let base: Vec<_> = judged.iter().filter(|c| c.family == Family::Base).collect();
    assert_eq!(base.iter().map(|c| c.arm_a.as_str()).collect::<Vec<_>>(), ["kto", "dpo"]);
    for row in &base {
        assert_eq!((row.mean_b, row.seeds, row.examples), (0.5, 3, 400));
        assert!((row.difference - (row.mean_a - 0.5)).abs() < 1e-12);
    }
    assert_eq!(base[0].verdict, Verdict::Better, "{}", base[0].words);
}

#[test]
fn one_seed_decides_nothing_and_says_so() {
    let row = &judged(&[("kto", 0.8), ("dpo", 0.4)], 1, 500, Direction::Higher)[0];
    assert_eq!(row.verdict, Verdict::Undecided);
    assert!(row.words.contains("one seed cannot show"), "{}", row.words);
    assert!(row.low > 0.2);
}

#[test]
fn a_reason_or_a_missing_arm_leaves_no_verdict() {
    let (mut examples, scores) = rows(&[("kto", 0.8), ("dpo", 0.4)], 3, 100, 4, Direction::Higher);
    let row = &verdicts(&examples, &scores, &SPEC, Some("the budgets differ by 12 %"))[0];
    assert_eq!(row.verdict, Verdict::Invalid);
    assert!(row.words.contains("the budgets differ by 12 %") && row.difference > 0.0, "{}", row.words);
    examples.retain(|e| e.arm == "kto");
    let row = &verdicts(&examples, &scores, &SPEC, None)[0];
    assert_eq!(row.verdict, Verdict::Invalid);
    assert!(row.difference.is_nan());
}

#[test]
fn missing_and_unfinished_values_drop_the_example_and_are_counted() {
    let (mut examples, scores) = rows(&[("kto", 0.7), ("dpo", 0.5)], 3, 100, 4, Direction::Higher);
    examples[0].value = f64::NAN;
    examples.remove(450);
    let row = &verdicts(&examples, &scores, &SPEC, None)[0];
    assert_eq!(row.examples, 98);
    assert!(row.words.contains("2 examples left out"), "{}", row.words);
}

#[test]
fn equal_arms_on_many_prompts_are_equivalent() {
    let row = &judged(&[("kto", 0.6), ("dpo", 0.6)], 5, 12_000, Direction::Higher)[0];
    assert_eq!(row.verdict, Verdict::Equivalent, "{}", row.words);
}

#[test]
fn without_a_difference_a_plan_of_three_arms_seldom_sees_one() {
    let arms = [("kto", 0.6), ("dpo", 0.6), ("sft", 0.6)];
    let plans = 200;
    let wrong = (0..plans).filter(|world| {
        let (examples, scores) = rows(&arms, 3, 60, *world, Direction::Higher);
        let rows = verdicts(&examples, &scores, &SPEC, None);
        rows.iter().any(|r| matches!(r.verdict, Verdict::Better | Verdict::Worse))
    });
    // At most 5 % (10) expected; 19 is three standard errors above.
    let wrong = wrong.count();
    assert!(wrong <= 19, "{wrong} of {plans} plans");
}

#[test]
fn the_plans_question_is_corrected_apart_from_everything_else() {
    let arms = [("sft", 0.55), ("dpo", 0.6), ("kto", 0.65), ("base", 0.5)];
    let (mut examples, mut scores) = rows(&arms, 3, 80, 5, Direction::Higher);
    let side_effects: Vec<ExampleRow> =
        examples.iter().map(|e| ExampleRow { metric: "repetition".into(), ..e.clone() }).collect();
    let more: Vec<ScoreRow> =
        scores.iter().map(|s| ScoreRow { metric: "repetition".into(), ..s.clone() }).collect();
    examples.extend(side_effects);
    scores.extend(more);
    let spec = VerdictSpec { primary: vec!["accuracy".into()], ..SPEC };
    let judged = verdicts(&examples, &scores, &spec, None);
    let count = |family| judged.iter().filter(|r| r.family == family).count();
    assert_eq!([Family::Primary, Family::Base, Family::Secondary].map(count), [3, 3, 6]);
    for row in &judged {
        let members = judged.iter().filter(|r| r.family == row.family);
        let smallest = members.clone().map(|r| r.p).fold(f64::INFINITY, f64::min);
        if row.p == smallest {
            let expected = (row.p * members.count() as f64).min(1.0);
            assert!((row.p_adjusted - expected).abs() < 1e-12, "{row:?}");
        }
    }
}

#[test]
fn the_variance_of_a_difference_is_split_and_tests_that_hold_the_seeds_fixed_stand_beside() {
    let arms = [("kto", 0.7), ("dpo", 0.5)];
    let row = &judged(&arms, 3, 500, Direction::Higher)[0];
    let [seed, prompt, residual] =
        [row.variance_seed, row.variance_prompt, row.variance_residual].map(Option::unwrap);
    // Right answers are drawn alone: what is left is nearly the whole variance, p(1 − p) of each arm.
    assert!((0.38..0.5).contains(&residual) && seed < 0.01 && prompt < 0.05, "{seed} {prompt} {residual}");
    assert_eq!(row.variance_judge, None);
    assert!(row.p_permutation.unwrap() < 0.002 && row.p_mcnemar.unwrap() < 1e-6, "{row:?}");
    assert_eq!(row.bootstrap_low, None, "three seeds have no finite two-level bootstrap");
    let one = &judged(&arms, 1, 500, Direction::Higher)[0];
    assert_eq!((one.variance_seed, one.variance_residual), (None, None));
}

#[test]
fn from_four_seeds_on_the_plans_question_has_a_two_level_bootstrap_near_the_interval() {
    let (examples, scores) = rows(&[("kto", 0.7), ("dpo", 0.6)], 5, 200, 11, Direction::Higher);
    let spec = VerdictSpec { primary: vec!["accuracy".into()], ..SPEC };
    let row = &verdicts(&examples, &scores, &spec, None)[0];
    let (low, high) = (row.bootstrap_low.unwrap(), row.bootstrap_high.unwrap());
    let ratio = (high - low) / (row.high - row.low);
    assert!(low < row.difference && row.difference < high && (0.6..1.8).contains(&ratio), "{row:?}");
}

#[test]
fn a_judge_that_turns_with_the_order_takes_its_part_of_the_noise() {
    let (mut examples, mut scores) = rows(&[("kto", 0.7), ("dpo", 0.5)], 3, 400, 9, Direction::Higher);
    examples.iter_mut().for_each(|e| e.metric = "win_rate_chosen".into());
    scores.iter_mut().for_each(|s| s.metric = "win_rate_chosen".into());
    let before = verdicts(&examples, &scores, &SPEC, None);
    let judgment = |arm: &str, i: usize, flipped| JudgmentRow {
        run: format!("{arm}-s0"),
        arm: arm.into(),
        seed: 0,
        suite: "hh".into(),
        id: format!("e{i}"),
        candidate: arm.into(),
        baseline: "chosen".into(),
        preference: Some(0.5),
        flipped,
        candidate_length: 1,
        baseline_length: 1,
    };
    // kto's answers turn in one match of five, dpo's in one of ten.
    let matches = |turned: bool| -> Vec<JudgmentRow> {
        let of = |arm: &'static str, every: usize| {
            (0..100).map(move |i| judgment(arm, i, turned.then_some(i % every == 0)))
        };
        of("kto", 5).chain(of("dpo", 10)).collect()
    };
    let mut split = before.clone();
    split_judge(&mut split, &matches(true));
    let judge = split[0].variance_judge.unwrap();
    assert!((judge - 0.25 * (0.2 + 0.1)).abs() < 1e-12, "{judge}");
    let whole = split[0].variance_residual.unwrap() + judge;
    assert!((whole - before[0].variance_residual.unwrap()).abs() < 1e-12);
    // As many matches of equal texts, which tie unasked: the judge's part of a match is half as large.
    let mut equal = before.clone();
    split_judge(&mut equal, &[matches(true), matches(false)].concat());
    assert!((equal[0].variance_judge.unwrap() - 0.5 * judge).abs() < 1e-12, "{:?}", equal[0].variance_judge);
    let mut unseen = before.clone();
    split_judge(&mut unseen, &matches(false));
    assert_eq!(unseen[0].variance_judge, None, "a judge that sees no order has no such part");
}

#[test]
fn an_arm_without_a_row_has_its_comparisons_and_a_claim_over_it_holds_in_part() {
    let text = "seeds = [1, 2, 3]\nbudget = { tokens = 1000 }\n[model]\nsource = \"world\"\n[data]\n\
                source = \"world\"\n[data.feedback]\nfraction = [0.1, 1.0]\n[verdict]\nprimary = [\"accuracy\"]\n\
                [sweep]\nclaim = \"KTO matches DPO\"\narms = [\"kto\"]\nagainst = [\"dpo\"]\n\
                [[arm]]\nmethod = \"kto\"\n[[arm]]\nmethod = \"dpo\"\n";
    let plan = Plan::parse(text, "p.toml", &Overrides::default()).unwrap();
    let planned: Vec<&str> = plan.arms.iter().map(|a| a.name.as_str()).collect();
    let asked = |a: &str, b: &str| plan.compares(a, b);
    let of = |arms: &[(&str, f64)]| {
        let (examples, scores) = rows(arms, 3, 300, 3, Direction::Higher);
        let spec = VerdictSpec { primary: vec!["accuracy".into()], ..SPEC };
        verdicts_among(&planned, &examples, &scores, &spec, None, &asked)
    };
    let all = [("kto@fraction=1", 0.8), ("dpo@fraction=0.1", 0.4), ("dpo@fraction=1", 0.5)];
    // kto at a tenth of the feedback diverged under every seed.
    let judged = of(&all);
    let lost =
        judged.iter().find(|c| c.arm_a == "kto@fraction=0.1" && c.arm_b == "dpo@fraction=0.1").unwrap();
    assert_eq!(lost.verdict, Verdict::Invalid);
    assert!(lost.words.contains("kto@fraction=0.1 has no scores"), "{}", lost.words);
    let against_base = of(&[&all[..], &[("base", 0.3)]].concat());
    let lost = against_base.iter().find(|c| c.arm_a == "kto@fraction=0.1" && c.arm_b == "base").unwrap();
    assert_eq!((lost.family, lost.verdict), (Family::Base, Verdict::Invalid));
    assert!(lost.words.contains(": kto@fraction=0.1 has no scores"), "{}", lost.words);
    let found = claims(&plan, &judged);
    assert_eq!(found[0].finding, Finding::HoldsInPart, "{found:?}");
    // Both were lost: there, too, nothing holds.
    assert_eq!(claims(&plan, &of(&[all[0], all[2]]))[0].finding, Finding::HoldsInPart);
    let whole = of(&[all[0], all[1], all[2], ("kto@fraction=0.1", 0.7)]);
    assert_eq!(claims(&plan, &whole)[0].finding, Finding::Holds);
}

/// Row means are equal then, and the spread between seeds is 0.
#[test]
fn seeds_that_each_lose_another_answer_decide_nothing() {
    let (mut examples, scores) = rows(&[("kto", 0.6), ("dpo", 0.6)], 3, 100, 4, Direction::Higher);
    for e in &mut examples {
        let own = e.arm == "kto" && e.example == format!("e{}", 20 * e.seed);
        e.value = f64::from(u8::from(!own));
    }
    let row = &verdicts(&examples, &scores, &SPEC, None)[0];
    assert!((row.difference + 0.01).abs() < 1e-12 && (0.05..0.15).contains(&row.p), "{row:?}");
    assert!(row.low < 0.0 && row.high > 0.0 && row.detectable.is_some(), "{row:?}");
    // Three events of a third of an answer where two points were six of them: P(N ≤ 3) = e⁻⁶ (1 + 6 + 18 + 36).
    assert!((row.p_equivalence - 61.0 * (-6.0f64).exp()).abs() < 1e-9, "{row:?}");
    assert_eq!(row.verdict, Verdict::Undecided, "{}", row.words);
}

#[test]
fn arms_that_agree_everywhere_are_told_how_many_prompts_would_do() {
    let (mut examples, scores) = rows(&[("kto", 0.6), ("dpo", 0.6)], 3, 100, 4, Direction::Higher);
    examples.iter_mut().for_each(|e| e.value = 0.0);
    let row = &verdicts(&examples, &scores, &SPEC, None)[0];
    assert_eq!(row.verdict, Verdict::Undecided);
    assert!(
        row.words.contains("about 150 prompts would settle it (more seeds alone do not)"),
        "{}",
        row.words
    );
    assert_eq!(row.detectable, None);
}
