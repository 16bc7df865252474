//! Simulations: how often a whole gate cries wolf where nothing has changed, and what it catches.
//! `cargo test --release gate::tests -- --include-ignored` runs the long ones too.

use rand::{Rng, RngExt};

use super::side::Repeat;
use super::*;
use crate::base::seed::rng_at;
use crate::plan::{Overrides, Plan};
use crate::record::*;
use crate::stats::gate::Change;

/// What the trainer of a side does, and how noisy the machine is.
#[derive(Clone, Copy)]
struct World {
    /// Candidate's speed as a share of the baseline's.
    speed: f64,
    /// Standard deviation of the log of a time.
    jitter: f64,
    /// Chance that a run is half as fast, as on a machine that others use.
    hiccup: f64,
    /// Run-to-run noise of a loss, as on a GPU.
    wobble: f64,
    /// Examples of a preference suite; 0: none is scored.
    prompts: usize,
    /// What the candidate's accuracy loses, on the latent scale.
    worse: f64,
}

const QUIET: World = World { speed: 1.0, jitter: 0.03, hiccup: 0.0, wobble: 0.01, prompts: 0, worse: 0.0 };
const ROUNDS: usize = 12;

fn normal(rng: &mut impl Rng) -> f64 {
    let (u, v): (f64, f64) = (rng.random(), rng.random());
    (-2.0 * (1.0 - u).ln()).sqrt() * (std::f64::consts::TAU * v).cos()
}

/// Two arms of external trainers, whose runs are not the same twice, under five seeds.
fn plan() -> Plan {
    let arm = |name: &str| {
        format!(
            "[[arm]]\nname = \"{name}\"\nmethod = \"kto\"\n[arm.trainer]\ncommand = [\"t\", \"{{out}}\"]\n"
        )
    };
    let text = format!(
        "seeds = [1, 2, 3, 4, 5]\nbudget = {{ tokens = 1000 }}\n[model]\nsource = \"m\"\n[data]\nsource = \"d\"\n{}{}",
        arm("kto"),
        arm("other")
    );
    Plan::parse(&text, "sim", &Overrides::default()).unwrap()
}

fn run(plan: &Plan, arm: &str, seed: u64, seconds: f64, mib: f64, loss: f64) -> RunRow {
    let spec = plan.runs().into_iter().find(|r| r.arm.name == arm && r.seed == seed).unwrap();
    // By name, so that a column that a gate does not read can be added without a word here.
    let row = serde_json::json!({
        "run": spec.id, "arm": arm, "method": "kto", "seed": seed, "status": "done", "note": "", "steps": 30,
        "examples": 100, "labels": 100, "policy_tokens": 1000, "completion_tokens": 500, "computed_tokens": 1000,
        "kl_tokens": 0, "reference_tokens": 1000, "flops": 1e9, "epochs": 1.0, "final_loss": loss, "weights": "",
        "train_seconds": seconds, "tokens_per_second": 1000.0 / seconds, "reference_seconds": 0.0,
        "score_seconds": 0.0, "start_host_mib": 100.0, "peak_host_mib": mib, "peak_device_mib": 0.0
    });
    serde_json::from_value(row).unwrap()
}

/// A falling loss that data order (the seed) shapes and a run's own noise disturbs.
fn steps(run: &str, arm: &str, seed: u64, wobble: f64, rng: &mut impl Rng) -> Vec<StepRow> {
    let step = |t: u64| {
        let order = 0.05 * normal(&mut rng_at(11, arm, seed * 1000 + t));
        let loss = 0.5 - 0.004 * t as f64 + order;
        (t, loss)
    };
    let row = |(t, loss): (u64, f64)| StepRow {
        run: run.to_owned(),
        arm: arm.to_owned(),
        seed,
        step: t,
        loss: loss + 0.05 * wobble * normal(rng),
        grad_norm: 1.0,
        learning_rate: 1e-4,
        policy_tokens: 33,
        ..StepRow::default()
    };
    (1..=30).map(step).map(row).collect()
}

fn side(plan: &Plan, world: World, speed: f64, worse: f64, trial: u64, which: &str) -> Side {
    let rng = &mut rng_at(5, which, trial);
    let seconds = |rng: &mut rand_chacha::ChaCha8Rng| {
        let slow = if rng.random::<f64>() < world.hiccup { 2.0 } else { 1.0 };
        slow * (world.jitter * normal(rng)).exp() / speed
    };
    let mut records = Records {
        plan: plan.clone(),
        environment: Environment { device: "cpu".to_owned(), ..Environment::default() },
        runs: vec![],
        steps: vec![],
        scores: vec![],
        examples: vec![],
        samples: vec![],
        judgments: vec![],
        trials: vec![],
        rollouts: vec![],
        phases: vec![],
        comparisons: vec![],
    };
    for arm in ["kto", "other"] {
        for seed in 1..=5 {
            let loss = 0.4 + 0.01 * normal(&mut rng_at(12, arm, seed)) + 0.001 * world.wobble * normal(rng);
            let made = run(plan, arm, seed, 1.0, 200.0, loss);
            records.steps.extend(steps(&made.run, arm, seed, world.wobble, rng));
            score(&mut records, &made, world, worse, rng);
            records.runs.push(made);
        }
    }
    let repeat = |round: usize, rng: &mut rand_chacha::ChaCha8Rng| {
        // Drift of the machine: both sides of a round meet it.
        let drift = 1.0 + 0.02 * round as f64;
        let (mut runs, mut rows) = (vec![], vec![]);
        for arm in ["kto", "other"] {
            let mib = 200.0 * (0.005 * normal(rng)).exp();
            let made = run(plan, arm, 1, drift * seconds(rng), mib, 0.4);
            rows.extend(steps(&made.run, arm, 1, world.wobble, rng));
            runs.push(made);
        }
        Repeat { runs, steps: rows }
    };
    let repeats = (0..ROUNDS).map(|r| repeat(r, rng)).collect();
    let session = Some(Session { id: trial.to_string(), rounds: ROUNDS });
    Side { dir: which.into(), records, session, repeats }
}

/// Accuracy on prompts that are hard for both sides, with an effect of the seed on each side.
fn score(records: &mut Records, run: &RunRow, world: World, worse: f64, rng: &mut impl Rng) {
    if world.prompts == 0 {
        return;
    }
    let seed_effect = 0.1 * normal(rng);
    let mut sum = 0.0;
    for prompt in 0..world.prompts {
        let hard = normal(&mut rng_at(13, "prompt", prompt as u64));
        let right = 0.7 * hard + seed_effect - worse + 0.5 * normal(rng) > -0.5;
        sum += f64::from(u8::from(right));
        records.examples.push(ExampleRow {
            run: run.run.clone(),
            arm: run.arm.clone(),
            seed: run.seed,
            suite: "heldout".to_owned(),
            subset: String::new(),
            example: prompt.to_string(),
            cluster: prompt.to_string(),
            metric: "reward_accuracy".to_owned(),
            value: f64::from(u8::from(right)),
        });
    }
    records.scores.push(ScoreRow {
        run: run.run.clone(),
        arm: run.arm.clone(),
        seed: run.seed,
        suite: "heldout".to_owned(),
        subset: "all".to_owned(),
        metric: "reward_accuracy".to_owned(),
        value: sum / world.prompts as f64,
        n: world.prompts as u64,
        standard_error: 0.05,
        unit: "share".to_owned(),
        direction: Direction::Higher,
    });
}

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
    let plan = plan();
    let baseline = side(&plan, world, 1.0, 0.0, trial, "sim/baseline");
    let candidate = side(&plan, world, world.speed, world.worse, trial, "sim/candidate");
    judge(&baseline, &candidate, config, &History::default(), vec![])
}

fn alarms(world: World, config: &Config, trials: u64) -> usize {
    (0..trials).filter(|t| gate(world, config, *t).verdict == Change::Regressed).count()
}

fn caught(world: World, id: &str, trials: u64) -> usize {
    let regressed = |t: &u64| {
        let found = gate(world, &Config::default(), *t);
        found.findings.iter().any(|f| f.id == id && f.verdict == Change::Regressed)
    };
    (0..trials).filter(regressed).count()
}

#[test]
fn no_change_raises_at_most_one_alarm_in_200_gates() {
    // Speed, memory, loss and trajectories of two arms: eight tests a gate.
    let default = alarms(World { hiccup: 0.05, ..QUIET }, &Config::default(), 400);
    assert!(default <= 2, "default tolerances: {default} of 400");
    let strict = alarms(QUIET, &strict(), 400);
    // Without tolerances the rate is the design's own, 1 in 200: 2 of 400 are to be expected, more than 6 in one of
    // 220 such simulations. The ignored test below has the rate itself, over 20,000.
    assert!(strict <= 6, "tolerances of 0: {strict} of 400");
}

#[test]
fn no_change_of_quality_raises_at_most_one_alarm_in_200_gates() {
    let world = World { prompts: 60, ..QUIET };
    let alarms = alarms(world, &strict(), 200);
    assert!(alarms <= 1, "{alarms} of 200");
}

#[test]
#[ignore = "minutes: 20,000 and 2,000 gates"]
fn no_change_raises_few_alarms_in_many_gates() {
    for (world, config, trials) in [
        (QUIET, Config::default(), 20_000),
        (QUIET, strict(), 20_000),
        (World { hiccup: 0.05, jitter: 0.08, ..QUIET }, strict(), 20_000),
        (World { prompts: 60, ..QUIET }, strict(), 2_000),
    ] {
        let alarms = alarms(world, &config, trials);
        println!("{alarms} alarms in {trials} gates ({:.2} %)", 100.0 * alarms as f64 / trials as f64);
        assert!(alarms as f64 <= trials as f64 / 200.0, "{alarms} of {trials}");
    }
}

#[test]
fn a_slowdown_of_a_tenth_is_caught() {
    let slow = caught(World { speed: 0.9, ..QUIET }, "throughput/kto", 100);
    assert!(slow >= 90, "{slow} of 100");
    let found = gate(World { speed: 0.9, ..QUIET }, &Config::default(), 1);
    assert!(found.fails && found.of(Change::Regressed).all(|f| f.kind == Kind::Throughput), "{found:?}");
}

/// A history takes the place of rounds: eight do where twelve were needed.
#[test]
fn with_a_history_fewer_rounds_catch_it_and_no_change_stays_quiet() {
    let mut history = History::default();
    for trial in 1000..1010 {
        history.add(&gate(QUIET, &Config::default(), trial).findings);
    }
    let plan = plan();
    let verdict = |speed: f64, config: &Config, trial: u64| {
        let (mut b, mut c) =
            (side(&plan, QUIET, 1.0, 0.0, trial, "sim/b"), side(&plan, QUIET, speed, 0.0, trial, "sim/c"));
        b.repeats.truncate(8);
        c.repeats.truncate(8);
        judge(&b, &c, config, &history, vec![]).verdict
    };
    let regressed = |speed: f64, config: &Config, trials: u64| {
        (0..trials).filter(|t| verdict(speed, config, *t) == Change::Regressed).count()
    };
    let caught = regressed(0.9, &Config::default(), 100);
    assert!(caught >= 90, "{caught} of 100");
    let alarms = regressed(1.0, &strict(), 400);
    assert!(alarms <= 2, "{alarms} of 400");
}

#[test]
fn a_loss_of_quality_is_caught() {
    let caught =
        caught(World { prompts: 120, worse: 1.5, ..QUIET }, "quality/kto/heldout/reward_accuracy", 20);
    assert!(caught >= 18, "{caught} of 20");
}

#[test]
fn a_history_widens_what_a_lucky_quiet_measurement_claims() {
    let noisy = World { jitter: 0.1, ..QUIET };
    let mut history = History::default();
    for trial in 0..10 {
        history.add(&gate(noisy, &Config::default(), trial).findings);
    }
    // Ten gates of twelve rounds: √2 · 0.1 with a relative error of about 1/√(2 · 110).
    let noise = history.noise("throughput/kto").sd;
    assert!((noise / (0.1 * 2f64.sqrt()) - 1.0).abs() < 0.25, "{noise}");
    let plan = plan();
    let quiet = World { jitter: 0.001, ..QUIET };
    let (b, c) = (side(&plan, quiet, 1.0, 0.0, 1, "b"), side(&plan, quiet, 0.93, 0.0, 1, "c"));
    let verdict = |history: &History| {
        let found = judge(&b, &c, &Config::default(), history, vec![]);
        found.findings.iter().find(|f| f.id == "throughput/kto").unwrap().verdict
    };
    assert_eq!((verdict(&History::default()), verdict(&history)), (Change::Regressed, Change::Inconclusive));
}

#[test]
fn sides_that_were_not_measured_turn_about_get_no_verdict_on_speed() {
    let plan = plan();
    let b = side(&plan, QUIET, 1.0, 0.0, 1, "b");
    let mut c = side(&plan, QUIET, 0.5, 0.0, 1, "c");
    c.session = Some(Session { id: "another".to_owned(), rounds: ROUNDS });
    let found = judge(&b, &c, &Config::default(), &History::default(), vec![]);
    let speed = found.findings.iter().find(|f| f.id == "throughput/kto").unwrap();
    assert_eq!(speed.verdict, Change::Inconclusive);
    assert!(speed.words.contains("turn about") && !found.fails, "{}", speed.words);
}

#[test]
fn trajectories_are_two_sided_and_know_their_noise() {
    let plan = plan();
    let b = side(&plan, QUIET, 1.0, 0.0, 1, "b");
    for (shift, expected) in [(0.0, Change::Pass), (0.1, Change::Regressed), (-0.1, Change::Regressed)] {
        let mut c = side(&plan, QUIET, 1.0, 0.0, 1, "c");
        c.records.steps.iter_mut().for_each(|s| s.loss += shift);
        let found = judge(&b, &c, &Config::default(), &History::default(), vec![]);
        let finding = found.findings.iter().find(|f| f.id == "trajectory/kto").unwrap();
        assert_eq!(finding.verdict, expected, "{shift}: {}", finding.words);
        // Without repeats nobody knows how far apart two runs of such a trainer lie.
        let (mut b, mut c) = (b.clone(), c);
        (b.repeats, c.repeats) = (vec![], vec![]);
        let found = judge(&b, &c, &Config::default(), &History::default(), vec![]);
        let alone = found.findings.iter().find(|f| f.id == "trajectory/kto").unwrap().verdict;
        assert_eq!(alone, if shift == 0.0 { Change::Pass } else { Change::Inconclusive });
    }
    let mut c = side(&plan, QUIET, 1.0, 0.0, 1, "c");
    c.records.steps[3].policy_tokens += 1;
    let found = judge(&b, &c, &Config::default(), &History::default(), vec![]);
    let finding = found.findings.iter().find(|f| f.id == "trajectory/kto").unwrap();
    assert!(
        finding.verdict == Change::Regressed && finding.words.contains("policy tokens"),
        "{}",
        finding.words
    );
}

#[test]
fn an_arm_that_is_lost_is_a_regression() {
    let plan = plan();
    let b = side(&plan, QUIET, 1.0, 0.0, 1, "b");
    let mut c = side(&plan, QUIET, 1.0, 0.0, 1, "c");
    let lost = c.records.runs.iter_mut().find(|r| r.arm == "other").unwrap();
    (lost.status, lost.note) = (Status::Diverged, "loss is NaN at step 3".to_owned());
    let found = judge(&b, &c, &Config::default(), &History::default(), vec![]);
    let finding = found.findings.iter().find(|f| f.id == "completion/other").unwrap();
    assert!(finding.verdict == Change::Regressed && finding.words.contains("NaN at step 3"), "{finding:?}");
    assert!(found.fails);
}

#[test]
fn what_is_not_alike_is_named() {
    let plan = plan();
    let b = side(&plan, QUIET, 1.0, 0.0, 1, "b");
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
