//! What a gate says of sides that are made up.

mod size;
mod world;

use self::world::{Law, QUIET, Sides, World};
use super::*;
use crate::plan::Budget;
use crate::record::{RunRow, Status};
use crate::stats::gate::Change;

/// Tolerances of 0: nothing but the intervals stands between noise and an alarm.
fn strict() -> Config {
    let mut config = Config::default();
    config.quality.tolerance = 0.0;
    config.final_loss.tolerance = 0.0;
    config.throughput.tolerance = 0.0;
    config.memory.tolerance = 0.0;
    (config.trajectory.max, config.trajectory.mean) = (0.0, 0.0);
    config
}

fn gate(world: World, config: &Config, trial: u64) -> Findings {
    let mut sides = Sides::new(world);
    sides.fill(trial);
    judge(&sides.baseline, &sides.candidate, config, &History::default(), vec![])
}

#[track_caller]
fn assert_trajectory_regressed(baseline: &Side, candidate: &Side, says: &str) {
    let found = default(baseline, candidate);
    let Finding { verdict, words, .. } = find(&found, "trajectory/kto");
    assert!(*verdict == Change::Regressed && words.contains(says), "{says}: {words}");
}

fn find<'f>(found: &'f Findings, id: &str) -> &'f Finding {
    found.findings.iter().find(|f| f.id == id).unwrap_or_else(|| panic!("no {id} in {found:?}"))
}

fn default(b: &Side, c: &Side) -> Findings {
    judge(b, c, &Config::default(), &History::default(), vec![])
}

/// Baseline and candidate of one world, the candidate changed.
fn sides(world: World, change: impl Fn(&mut Side)) -> (Side, Side) {
    let mut sides = Sides::new(world);
    sides.fill(1);
    change(&mut sides.candidate);
    (sides.baseline, sides.candidate)
}

#[test]
fn a_loss_of_quality_is_caught() {
    let worse = |trial| gate(World { prompts: 120, worse: 1.5, ..QUIET }, &Config::default(), trial);
    let caught =
        |t: &u64| find(&worse(*t), "quality/kto/heldout/reward_accuracy").verdict == Change::Regressed;
    let caught = (0..20).filter(caught).count();
    assert!(caught >= 18, "{caught} of 20");
}

/// Three seeds that each lose the same one of 40 answers agree to the bit: no reason to accuse.
#[test]
fn a_handful_of_answers_that_turn_over_alike_is_not_certainty() {
    let world = World { prompts: 40, seeds: 3, trainer: Law::None, ..QUIET };
    let lose = |n: usize| {
        let (b, c) = sides(world, |c| {
            c.records.examples.iter_mut().for_each(|e| e.value = 1.0);
        });
        let (mut b, mut c) = (b, c);
        b.records.examples = c.records.examples.clone();
        let lost = |i: usize| (i % 40 + 7 * (i / 40)) % 40 < n;
        c.records.examples.iter_mut().enumerate().filter(|(i, _)| lost(*i)).for_each(|(_, e)| e.value = 0.0);
        let mut config = strict();
        config.quality.tolerance = 0.02;
        find(&judge(&b, &c, &config, &History::default(), vec![]), "quality/kto/heldout/reward_accuracy")
            .verdict
    };
    assert_eq!([0, 1, 20].map(lose), [Change::Pass, Change::Inconclusive, Change::Regressed]);
}

#[test]
fn a_history_widens_what_a_lucky_quiet_measurement_claims() {
    let noisy = World { machine: Law::Normal(0.1), ..QUIET };
    let mut history = History::default();
    for trial in 0..10 {
        history.add(&gate(noisy, &Config::default(), trial).findings);
    }
    // Ten gates of 16 rounds, √2 · 0.1; a median absolute deviation of 16 scatters by about a fifth.
    let noise = history.noise("throughput/kto");
    assert!((noise.within / (0.1 * 2f64.sqrt()) - 1.0).abs() < 0.3 && noise.between > 0.0, "{noise:?}");
    let mut sides = Sides::new(World { machine: Law::Normal(0.001), speed: 0.93, ..QUIET });
    sides.fill(1);
    let verdict = |history: &History| {
        let found = judge(&sides.baseline, &sides.candidate, &Config::default(), history, vec![]);
        find(&found, "throughput/kto").verdict
    };
    assert_eq!((verdict(&History::default()), verdict(&history)), (Change::Regressed, Change::Inconclusive));
}

#[test]
fn too_few_rounds_say_how_many_are_needed() {
    let found = gate(World { rounds: 6, speed: 0.5, ..QUIET }, &Config::default(), 1);
    let speed = find(&found, "throughput/kto");
    assert!(speed.verdict == Change::Inconclusive && speed.low.is_none() && !found.fails, "{speed:?}");
    assert!(speed.words.contains("fewer than 11 rounds can show no change"), "{}", speed.words);
}

#[test]
fn sides_that_were_not_measured_turn_about_get_no_verdict_on_speed() {
    let (b, c) = sides(World { speed: 0.5, ..QUIET }, |c| {
        c.session = Some(Session { id: "another".to_owned(), rounds: 16 });
    });
    let found = default(&b, &c);
    let speed = find(&found, "throughput/kto");
    assert_eq!(speed.verdict, Change::Inconclusive);
    assert!(speed.words.contains("turn about") && !found.fails, "{}", speed.words);
}

#[test]
fn what_is_the_same_to_the_bit_takes_no_share_of_the_alarms() {
    let equal = gate(World { trainer: Law::None, prompts: 20, ..QUIET }, &Config::default(), 1);
    // Throughput and memory of two arms; the answers of the two sides differ, and losses do not.
    assert_eq!(equal.tests, 6, "{equal:?}");
    assert_eq!(gate(QUIET, &Config::default(), 1).tests, 8);
}

#[test]
fn trajectories_are_two_sided_and_know_their_noise() {
    let shifted = |shift: f64, rounds: bool| {
        move |c: &mut Side| {
            c.records.steps.iter_mut().for_each(|s| s.loss += shift);
            let repeats = c.repeats.iter_mut().filter(|_| rounds).flat_map(|r| &mut r.steps);
            repeats.for_each(|s| s.loss += shift);
        }
    };
    for (shift, expected) in [(0.0, Change::Pass), (0.1, Change::Regressed), (-0.1, Change::Regressed)] {
        let (mut b, mut c) = sides(QUIET, shifted(shift, true));
        let finding = default(&b, &c).findings.into_iter().find(|f| f.id == "trajectory/kto").unwrap();
        assert_eq!(finding.verdict, expected, "{shift}: {}", finding.words);
        // Without repeats nobody knows how far apart two runs of such a trainer lie.
        (b.repeats, c.repeats) = (vec![], vec![]);
        let alone = find(&default(&b, &c), "trajectory/kto").verdict;
        assert_eq!(alone, if shift == 0.0 { Change::Pass } else { Change::Inconclusive });
    }
    // A difference that the rounds do not show again was one of two runs, not of two trainers.
    let (b, c) = sides(QUIET, shifted(0.1, false));
    let found = default(&b, &c);
    let once = find(&found, "trajectory/kto");
    assert!(
        once.verdict == Change::Inconclusive && once.words.contains("noise of single runs"),
        "{}",
        once.words
    );
}

#[test]
fn a_count_that_changes_and_a_loss_that_breaks_are_caught_in_every_round() {
    type Fault = fn(&mut crate::record::StepRow);
    let faults: [(&str, Fault); 3] = [
        ("policy tokens", |s| s.policy_tokens += u64::from(s.step == 4)),
        ("not finite on one side", |s| s.loss = if s.step == 4 { f64::NAN } else { s.loss }),
        ("only one side has it", |s| s.kl = Some(0.1)),
    ];
    for (says, fault) in faults {
        let (b, c) = sides(QUIET, |c| {
            c.records.steps.iter_mut().for_each(fault);
            c.repeats.iter_mut().flat_map(|r| &mut r.steps).for_each(fault);
        });
        assert_trajectory_regressed(&b, &c, says);
    }
}

#[test]
fn a_trainer_that_tells_nothing_of_its_steps_is_judged_by_the_rest() {
    let silent = |side: &mut Side| {
        side.records.steps.clear();
        side.records.runs.iter_mut().for_each(|r| r.final_loss = f64::NAN);
        side.repeats.iter_mut().for_each(|r| r.steps.clear());
    };
    let (mut b, c) = sides(QUIET, silent);
    silent(&mut b);
    let found = default(&b, &c);
    assert!(
        found.findings.iter().all(|f| !matches!(f.kind, Kind::Trajectory | Kind::FinalLoss)),
        "{found:?}"
    );
    assert!(found.notes.iter().any(|n| n.contains("kto-eval-metrics.jsonl")), "{:?}", found.notes);
    assert!(found.tests == 4 && !found.fails, "{found:?}");
}

#[test]
fn an_arm_that_is_lost_is_a_regression() {
    let (b, c) = sides(QUIET, |c| {
        let lost = c.records.runs.iter_mut().find(|r| r.arm == "other-1").unwrap();
        (lost.status, lost.note) = (Status::Diverged, "loss is NaN at step 3".to_owned());
    });
    let found = default(&b, &c);
    let finding = find(&found, "completion/other-1");
    assert!(finding.verdict == Change::Regressed && finding.words.contains("NaN at step 3"), "{finding:?}");
    assert!(found.fails);
}

#[test]
fn what_is_not_alike_is_named() {
    let (b, _) = sides(QUIET, |_| {});
    let mut c = b.clone();
    assert_eq!(differences(&b, &c).0, Vec::<String>::new());
    c.records.environment.device = "cuda:1".to_owned();
    c.records.plan.budget = crate::plan::Budget::Tokens(9);
    c.records.plan.seeds = vec![77];
    let (refused, _) = differences(&b, &c);
    for part in ["device class: cpu in the baseline, cuda", "budget: 1000 tokens", "no seed in common"] {
        assert!(refused.iter().any(|r| r.contains(part)), "{part}: {refused:?}");
    }
    let (mut b, mut c) = (b.clone(), b);
    (b.records.environment.data_hash, c.records.environment.data_hash) = ("aa".to_owned(), "bb".to_owned());
    c.records.plan.arms[0].train.learning_rate *= 2.0;
    let (refused, notes) = differences(&b, &c);
    assert_eq!(refused, ["data hash: aa in the baseline, bb in the candidate"]);
    assert!(notes.iter().any(|n| n.contains("learning_rate")), "{notes:?}");
}

#[test]
fn examples_that_the_candidate_has_no_value_for_do_not_pass() {
    let world = World { prompts: 60, trainer: Law::None, ..QUIET };
    let judged = |lost: fn(usize) -> bool| {
        let (b, mut c) = sides(world, |_| {});
        c.records.examples = b.records.examples.clone();
        c.records
            .examples
            .iter_mut()
            .enumerate()
            .filter(|(i, _)| lost(*i))
            .for_each(|(_, e)| e.value = f64::NAN);
        let found = find(&default(&b, &c), "quality/kto/heldout/reward_accuracy").clone();
        (found.verdict, found.words)
    };
    assert_eq!(judged(|_| false).0, Change::Pass);
    // Two of 2,000 answers: as bad as can be, a loss of a tenth of a point.
    let world = World { prompts: 400, ..world };
    let few = |metric: Option<&str>| {
        let (mut b, mut c) = sides(world, |_| {});
        c.records.examples = b.records.examples.clone();
        for i in [3, 905] {
            c.records.examples[i].value = f64::NAN;
        }
        if let Some(unit) = metric {
            b.records.scores.iter_mut().for_each(|s| s.unit = unit.to_owned());
        }
        let found = find(&default(&b, &c), "quality/kto/heldout/reward_accuracy").clone();
        (found.verdict, found.words)
    };
    let (verdict, words) = few(None);
    assert!(verdict == Change::Pass && words.contains("would pass were they the worst"), "{words}");
    let (verdict, words) = few(Some("reward"));
    assert!(verdict == Change::Inconclusive && words.contains("2 of the baseline's 2000"), "{words}");
    let (verdict, words) = judged(|i| i % 5 < 2);
    assert_eq!(verdict, Change::Inconclusive);
    assert!(words.contains("120 of the baseline's 300 values have none in the candidate"), "{words}");
    let (verdict, words) = judged(|_| true);
    assert!(verdict == Change::Regressed && words.contains("no value of any"), "{words}");
}

#[test]
fn a_gate_file_names_metrics_that_there_are() {
    let (b, c) = sides(World { prompts: 20, ..QUIET }, |_| {});
    let said = |text: &str| {
        let config = Config::parse(text, "gate.toml").unwrap();
        check(&config, &b).map_err(|e| crate::base::error::render(&e))
    };
    let wrong = said("[quality]\nmetrics = [\"reward_acuracy\"]\n").unwrap_err();
    assert!(
        wrong.contains("`reward_acuracy`") && wrong.contains("did you mean `reward_accuracy`?"),
        "{wrong}"
    );
    let wrong = said("[quality.tolerances]\nmargn = 0.1\n").unwrap_err();
    assert!(wrong.contains("quality.tolerances") && wrong.contains("did you mean `margin`?"), "{wrong}");
    // A tolerance of a metric that this baseline has no score of may be another plan's.
    for fine in ["[quality]\nmetrics = [\"reward_accuracy\"]\ntolerances = { margin = 0.1 }\n", ""] {
        assert_eq!(said(fine), Ok(()));
    }
    let mut unscored = b.clone();
    unscored.records.plan.verdict.primary = vec!["accuracy".to_owned()];
    let found = default(&unscored, &c);
    assert!(
        found.notes.iter().any(|n| n.contains("no quality is judged") && n.contains("accuracy")),
        "{:?}",
        found.notes
    );
}

/// Learning rates follow the clock there: no two runs are the same, and runs per second say nothing.
#[test]
fn a_budget_in_seconds_repeats_nothing_and_times_nothing() {
    let own = |side: &mut Side| {
        side.records.plan.arms.iter_mut().for_each(|a| a.trainer = None);
        side.repeats.clear();
    };
    let verdict = |budget: Budget, seconds: bool| {
        let (mut b, mut c) = sides(World { trainer: Law::None, ..QUIET }, |c| {
            c.records.steps.iter_mut().for_each(|s| s.learning_rate *= 1.2);
        });
        own(&mut b);
        own(&mut c);
        (b.records.plan.budget, c.records.plan.budget) = (budget, budget);
        let verdict = find(&default(&b, &c), "trajectory/kto").verdict;
        assert_eq!(b.deterministic("kto"), !seconds);
        verdict
    };
    assert_eq!(verdict(Budget::Tokens(1000), false), Change::Regressed);
    assert_eq!(verdict(Budget::Seconds(60.0), true), Change::Inconclusive);
    let (mut b, mut c) = sides(World { speed: 0.5, ..QUIET }, |_| {});
    for side in [&mut b, &mut c] {
        side.records.plan.budget = Budget::Seconds(60.0);
        let runs = side.repeats.iter_mut().flat_map(|r| &mut r.runs).chain(&mut side.records.runs);
        runs.for_each(|r| (r.policy_tokens, r.tokens_per_second) = (0, 0.0));
    }
    let found = default(&b, &c);
    let speed = find(&found, "throughput/kto");
    assert!(speed.verdict == Change::Inconclusive && speed.words.contains("in seconds"), "{}", speed.words);
}

#[test]
fn a_candidate_that_ends_or_falls_silent_early_is_caught() {
    type Fault = fn(&mut Vec<crate::record::StepRow>);
    let faults: [(&str, Fault); 2] = [
        ("10 steps in the candidate where the baseline has 20", |steps| steps.retain(|s| s.step <= 10)),
        ("at some step only one side has it", |steps| {
            steps.iter_mut().for_each(|s| s.margin = s.margin.filter(|_| s.step == 1));
        }),
    ];
    for (says, fault) in faults {
        let tell = |side: &mut Side| {
            let repeats = side.repeats.iter_mut().flat_map(|r| &mut r.steps);
            side.records.steps.iter_mut().chain(repeats).for_each(|s| s.margin = Some(0.1));
        };
        let (mut b, c) = sides(QUIET, |c| {
            tell(c);
            fault(&mut c.records.steps);
            c.repeats.iter_mut().for_each(|r| fault(&mut r.steps));
        });
        tell(&mut b);
        assert_trajectory_regressed(&b, &c, says);
    }
}

/// A saved baseline keeps the beginning of its steps: what is compared ends there, and is told as it is.
#[test]
fn as_many_steps_are_compared_as_the_baseline_kept() {
    let (mut b, c) = sides(World { trainer: Law::None, ..QUIET }, |_| {});
    b.records.steps.retain(|s| s.step <= 8);
    let found = default(&b, &c);
    let finding = find(&found, "trajectory/kto");
    assert!(
        finding.verdict == Change::Pass && finding.words.contains("over the first 8 steps"),
        "{}",
        finding.words
    );
}

#[test]
fn no_number_of_rounds_is_promised_where_earlier_gates_differ_too_much() {
    let words = |between: f64| {
        let mut history = History::default();
        for trial in 0..10 {
            let speed = 1.0 + between * if trial % 2 == 0 { 1.0 } else { -1.0 };
            let same = World { speed, machine: Law::Normal(0.001), ..QUIET };
            history.add(&gate(same, &Config::default(), trial).findings);
        }
        let mut sides = Sides::new(World { speed: 0.97, machine: Law::Normal(0.005), ..QUIET });
        sides.fill(1);
        let found = judge(&sides.baseline, &sides.candidate, &Config::default(), &history, vec![]);
        find(&found, "throughput/kto").clone()
    };
    let wide = words(0.04);
    assert_eq!(wide.verdict, Change::Inconclusive);
    assert!(wide.words.contains("no number of rounds would decide it"), "{}", wide.words);
    assert_eq!(words(0.0).verdict, Change::Pass);
}

#[test]
fn tokens_that_one_side_alone_tells_are_not_held_against_nothing() {
    let (b, c) = sides(World { speed: 0.5, ..QUIET }, |c| {
        let silent = |r: &mut RunRow| (r.policy_tokens, r.tokens_per_second) = (0, 0.0);
        c.records.runs.iter_mut().for_each(silent);
        c.repeats.iter_mut().flat_map(|r| &mut r.runs).for_each(silent);
    });
    let found = default(&b, &c);
    let speed = find(&found, "throughput/kto");
    assert!(speed.unit == "runs/s" && speed.verdict == Change::Regressed, "{}", speed.words);
}
